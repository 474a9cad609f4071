"""Which table is compared with which, and as what? Names are resolved on both sides before a row is read."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ..databases import Database
from ..errors import DatabaseError
from . import dialect as dialects
from .model import Column, Field, Kind, Pair, Table, View

# Kinds that can be compared as another one.
ALIKE: dict[frozenset[Kind], Kind] = {
    frozenset({"integer", "numeric"}): "number",  # by value: integers have no scale
    frozenset({"integer", "boolean"}): "integer",
    frozenset({"uuid", "text"}): "text",
    frozenset({"json", "json text"}): "json",
    frozenset({"json", "text"}): "text",
    frozenset({"timestamp", "timestamptz"}): "timestamptz",
}


def pairs(
    source: Database,
    target: Database,
    names: Sequence[str],
    *,
    exclude: Sequence[str] = (),
    columns: Mapping[str, Sequence[str]] | None = None,
    renamed: Mapping[str, str] | None = None,
) -> list[Pair]:
    """The tables that `names` mean (`schema.table`, where `%` stands for anything) and their counterparts.

    `columns` says for a table which columns to compare (the key is always among them); `renamed` maps `schema.table`
    to the target's `schema.table`, and `schema.table.column` to the target's column. A table that only one side has
    is a pair with one side; a name that means nothing, a column that is nowhere and a type that has no canonical text
    are errors.
    """
    columns, renamed = columns or {}, renamed or {}
    moved = {old: new for old, new in renamed.items() if old.count(".") == 1}

    def asked(name: str) -> bool:
        return _matches(name, names) and not _matches(name, exclude)

    here = _tables(source, asked)
    wanted = {name: moved.get(name, name) for name in here if asked(name)}
    counterparts = set(wanted.values())
    there = _tables(target, lambda name: name in counterparts or asked(name))
    lonely = [name for name in there if asked(name) and name not in counterparts | set(moved)]
    _known(names, [*here, *there], "table")
    _known([*columns, *moved], here, "table")
    for name in sorted(set(renamed) - set(moved)):
        _known([name.rpartition(".")[0]], here, "table")
    found = [
        _pair(name, here[name], there[wanted[name]], columns.get(name), renamed)
        if wanted[name] in there else _gone(name, here[name], wanted[name]) for name in wanted
    ]  # fmt: skip
    if source.engine != target.engine:
        _refuse_json_without_key(found)
    alone = [_alone(there[name]) for name in lonely]
    return sorted([*found, *alone], key=lambda pair: pair.name)


def _refuse_json_without_key(pairs: Sequence[Pair]) -> None:
    for pair in pairs:
        views = [view for view in (pair.source, pair.target) if view is not None and not view.key]
        if any(part.kind == "json" for view in views for part in view.fields):
            raise DatabaseError(
                f"{pair.name} holds JSON and has no key: engines print JSON differently, so it is compared row by row, "
                f"and nothing tells these rows apart. {_otherwise(pair.name)}."
            )


def _otherwise(table: str) -> str:
    """What can be done about a column that cannot be compared."""
    return f"Compare the other columns (columns={{{table!r}: […]}}), or leave the table out (exclude=[{table!r}])"


def _tables(database: Database, asked: Callable[[str], bool]) -> dict[str, Table]:
    """The tables by name; DatabaseError when two that are asked for have one name, as dots are part of it."""
    dialect = dialects.of(database)
    found: dict[str, Table] = {}
    with database.session() as session:
        for table in dialect.tables(session):
            other = found.setdefault(str(table), table)
            if other is not table and asked(str(table)):
                raise DatabaseError(
                    f"{database}: {table} is the name of two tables, {other.name!r} of the schema {other.schema!r} and "
                    f"{table.name!r} of {table.schema!r}. Rename one, or leave both out (exclude=[{str(table)!r}])."
                )
        for name in filter(asked, found):
            found[name] = replace(found[name], partial=not dialect.whole(session, found[name]))
    return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(
        re.fullmatch(".*".join(map(re.escape, pattern.split("%"))), name, re.DOTALL) is not None for pattern in patterns
    )


def may_be_empty(name: str, patterns: Sequence[str]) -> bool:
    """Whether a table is among those that may have no rows."""
    return _matches(name, patterns)


def _known(asked: Iterable[str], names: Iterable[str], what: str) -> None:
    """Every pattern means at least one name; DatabaseError with the nearest one for what does not."""
    known = list(dict.fromkeys(names))
    for pattern in asked:
        if not any(_matches(name, [pattern]) for name in known):
            close = difflib.get_close_matches(pattern, known, 1)
            hint = f" Did you mean {close[0]}?" if close else f" There are: {', '.join(known[:10]) or 'none'}."
            how = " on either side (write schema.table, % for anything)" if what == "table" else ""
            raise DatabaseError(f"There is no {what} {pattern}{how}.{hint}")


def _alone(table: Table) -> Pair:
    return Pair(str(table), None, View(table.schema, table.name, (), ()))


def _gone(name: str, here: Table, wanted: str) -> Pair:
    """A table whose counterpart is not there; it may have been looked for under another name."""
    problem = "" if wanted == name else f"not on the target, where it is to be called {wanted}"
    return Pair(name, View(here.schema, here.name, (), ()), None, problem=problem)


def _pair(name: str, here: Table, there: Table, only: Sequence[str] | None, renamed: Mapping[str, str]) -> Pair:
    problem = _problem(here, there)
    if problem:
        return Pair(name, View(here.schema, here.name, (), ()), View(there.schema, there.name, (), ()), problem=problem)
    moved = {
        old.rpartition(".")[2]: new for old, new in renamed.items() if old.rpartition(".")[0] == name
    }  # fmt: skip
    _known([*(only or ()), *moved], [column.name for column in here.columns], f"column in {name}:")
    _known(moved.values(), [column.name for column in there.columns], f"column in {there}:")
    chosen = sorted(
        column.name for column in here.columns if only is None or column.name in only or column.name in here.key
    )
    common = [(here.column(old), there.column(moved.get(old, old))) for old in chosen]
    both = [(one, other) for one, other in common if one is not None and other is not None]
    fields = [_fields(name, one, other) for one, other in both]
    counterparts = {moved.get(old, old) for old in chosen}
    names = tuple(one.name for one, _ in both)
    key = here.key if set(here.key) <= set(names) else ()
    where = [names.index(part) for part in key]
    views = [
        View(table.schema, table.name, tuple(side), tuple(side[number] for number in where), table.steady)
        for table, side in ((here, [one for one, _ in fields]), (there, [other for _, other in fields]))
    ]
    return Pair(
        name, views[0], views[1], names, key,
        only_source=tuple(old for old in chosen if old not in names),
        only_target=tuple(column.name for column in there.columns if only is None and column.name not in counterparts),
    )  # fmt: skip


def _problem(here: Table, there: Table) -> str:
    """Why there are no rows to compare in these tables; '' when there are."""
    foreign = [side for side, table in (("source", here), ("target", there)) if table.foreign]
    if foreign:
        return f"a foreign table on the {' and the '.join(foreign)}: its rows are in another database"
    partial = [side for side, table in (("source", here), ("target", there)) if table.partial]
    if partial:
        return f"this user may not read every column on the {' and the '.join(partial)}: grant select on the table"
    return "" if here.columns or there.columns else "no columns on either side"


def _fields(table: str, one: Column, other: Column) -> tuple[Field, Field]:
    """Two columns as the kind that both can be compared as; DatabaseError when there is none."""
    for column in (one, other):
        if column.kind is None:
            raise DatabaseError(
                f"{table}.{column.name} is of type {column.type}, which has no canonical text: nothing true can be "
                f"said about it. {_otherwise(table)}."
            )
    kinds = frozenset(column.kind for column in (one, other) if column.kind is not None)
    kind = one.kind if len(kinds) == 1 else ALIKE.get(kinds)
    if kind is None or (kind == "other" and one.base != other.base):
        raise DatabaseError(
            f"{table}.{one.name} is {one.type} on the source and {other.type} on the target: these cannot be compared. "
            f"{_otherwise(table)}."
        )
    alike = (one.type, one.base) == (other.type, other.base)  # domains of one name may be of two types
    return Field(one, kind, alike), Field(other, kind, alike)
