"""Does what the source held come by on the target? A row that never rests is never the same in two snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ..databases import Database
from ..errors import WaitTimedOut
from ..waiting import wait_until
from . import dialect as dialects
from .dialect import Common
from .finding import Held, held
from .lookup import batches, counted
from .model import Key, Pair
from .narrow import both
from .reading import read

FIRST, LONGEST = 0.05, 1.0  # seconds between two looks


@dataclass
class Restless:
    """Rows of one table: what the source held, seen when all before it had arrived. It is still to come, or just gone;
    a row that is the same comes by again."""

    pair: Pair
    expected: dict[Key, Held]  # what has not come by
    came: set[Key] = field(default_factory=set)


@contextmanager
def live(database: Database, statement_timeout: float) -> Iterator[Any]:
    """A session in which each statement is of its own moment."""
    with database.session(statement_timeout=statement_timeout) as session:
        dialects.of(database).prepare(session)
        yield session


def chase(
    target: Database,
    session: Any,
    common: Common,
    rows: Sequence[Restless],
    seconds: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Look at the target until all of these rows have come by, for so many seconds at most."""
    with suppress(WaitTimedOut):  # what has not come by then is told as not the same
        wait_until(
            lambda: [_look(target, session, common, table) for table in rows], lambda left: not any(left),
            timeout=seconds, what="rows that never rest", first=FIRST, longest=LONGEST, clock=clock, sleep=sleep,
        )  # fmt: skip


def _look(target: Database, session: Any, common: Common, table: Restless) -> int:
    """How many of a table's rows are left after a look at it."""
    view, dialect = both(table.pair)[1], dialects.of(target)
    for keys in batches(list(table.expected)):
        there = held(keys, counted(read(target, session, dialect.lookup(view, common, keys, False))))
        for key in keys:
            if there[key] == table.expected[key]:
                table.came.add(key)
                del table.expected[key]
    return len(table.expected)
