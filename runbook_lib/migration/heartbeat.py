"""How long does a change take from the source to the target? A row is written there and waited for here."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from ..databases import Database
from ..errors import WaitTimedOut
from ..waiting import wait_until


def beat(
    source: Database,
    target: Database,
    table: str,
    there: str,
    *,
    record: Callable[[str], None],
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float | None:
    """Seconds until a row of `table` (schema.table, as SQL spells it) arrived in what the target calls `there`; None
    when it did not in time.

    The table has the columns id (primary key), beat (a time) and token (text), and is in the task's mapping.
    `record` is told the statement before it runs.
    """
    token = uuid.uuid4().hex
    update = f"update {table} set beat = current_timestamp, token = %s where id = 1"
    insert = f"insert into {table} (id, beat, token) values (1, current_timestamp, %s)"
    with source.session(read_only=False) as connection, connection.cursor() as cursor:
        record(update)
        cursor.execute(update, (token,))
        if cursor.rowcount == 0:
            record(insert)
            cursor.execute(insert, (token,))
    began = clock()
    with target.session() as connection, connection.cursor() as cursor:

        def arrived() -> bool:
            cursor.execute(f"select 1 from {there} where id = 1 and token = %s", (token,))
            return cursor.fetchone() is not None

        try:
            wait_until(
                arrived, bool, timeout=timeout, what="the heartbeat", first=0.005, longest=1.0, clock=clock, sleep=sleep
            )
        except WaitTimedOut:
            return None
    return clock() - began
