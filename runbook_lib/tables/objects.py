"""Is anything missing on the target besides rows: indexes, constraints, defaults, triggers, views? With the DDL to run.

What the target has and the source has not is no trouble and is not told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..databases import Database
from ..display import Shown, Table, plural
from ..errors import DatabaseError
from . import catalog, signatures
from .catalog import ORDER, VIEWS, Catalog, Item, in_order

Problem = Literal["missing", "different", "invalid"]
When = Literal["before cutover", "at cutover", "by the migration"]

# A foreign key or a trigger in the way of a replication that does not write with session_replication_role=replica stops
# it; a generated column cannot be written to at all.
AT_CUTOVER = frozenset({"generated column", "foreign key", "trigger"})
BY_THE_MIGRATION = frozenset({"table", "column"})  # they are nothing without their rows
NOT_LOOKED_AT = (
    "roles and grants, row security policies, rules, foreign tables, operators and casts, collations, text search, "
    "storage parameters, replica identity, comments, statistics objects, event triggers, publications"
)
NOTED = frozenset({"extension", "type"})  # told when missing, and not judged: the target may do without
INDEXES = frozenset({"index", "unique index"})
SAME_BY_ANY_NAME = frozenset(
    {"index", "unique index", "primary key", "unique constraint", "exclusion constraint", "check", "foreign key"}
)
LONGEST_DDL = 500  # characters of it that are shown
OWN_SEQUENCE = "the next value of its own sequence"


@dataclass(frozen=True)
class SchemaObject:
    """Something that the target lacks, with the DDL that makes it; several statements belong in one transaction."""

    kind: str
    schema: str
    table: str
    name: str
    ddl: str  # '' when there is none to give: rows have to come with it, or it has to be written by hand
    when: When
    problem: Problem = "missing"
    drop: str = ""  # what stands in its place on the target and has to go first
    partitioned: bool = False  # an index of a partitioned table cannot be built concurrently

    def __str__(self) -> str:
        place = f"{self.schema}.{self.table}" if self.table else self.schema
        return f"{self.kind} {self.name} on {place}" if self.table else f"{self.kind} {place}.{self.name}"


@dataclass(frozen=True, repr=False)
class MissingObjects(Shown):
    """What the target lacks, in an order in which it can be made."""

    objects: tuple[SchemaObject, ...]
    looked_at: int  # objects of the source
    schemas: tuple[str, ...]
    notes: tuple[str, ...] = ()  # seen and not judged

    @property
    def ok(self) -> bool:
        """A finding: nothing is missing, different or invalid."""
        return self.looked_at > 0 and not self.objects

    @property
    def reason(self) -> str:
        """How many of what."""
        looked_at = f"{plural(self.looked_at, 'object')} of the schema {', '.join(self.schemas)} looked at"
        if not self.objects:
            return f"{looked_at}, all of them are on the target"
        said = []
        for problem in ("missing", "different", "invalid"):
            kinds = [found.kind for found in self.objects if found.problem == problem]
            counts = [_count(kinds.count(kind), kind) for kind in ORDER if kind in kinds]
            said += [f"{problem} on the target: {', '.join(counts)}"] if counts else []
        return "; ".join([*said, looked_at])

    def repairable(self, *when: When) -> tuple[SchemaObject, ...]:
        """Those with DDL, and only those for the given moments when there are any."""
        return tuple(found for found in self.objects if found.ddl and (not when or found.when in when))

    def headline(self) -> str:
        """The verdict, what was seen and not judged, and what was not looked at."""
        verdict = "Nothing is missing: " if self.ok else ""
        notes = [f"Note: {note}." for note in self.notes]
        return "\n".join([f"{verdict}{self.reason}.", *notes, f"Not looked at: {NOT_LOOKED_AT}."])

    def tables(self) -> list[Table]:
        """The objects with their DDL."""
        if not self.objects:
            return []
        rows = [
            (found.when, found.problem, found.kind, ".".join(filter(None, (found.schema, found.table, found.name))),
             _in_a_line(found)) for found in self.objects
        ]  # fmt: skip
        return [Table(("When", "Problem", "Kind", "Object", "DDL"), rows, limit=40, rest=": see `.objects`")]


def _count(count: int, kind: str) -> str:
    return f"{count} {kind}{'' if count == 1 else 'es' if kind.endswith('x') else 's'}"


def _in_a_line(found: SchemaObject) -> str:
    if not found.ddl:
        return "has to come with its rows" if found.when == "by the migration" else "has to be written by hand"
    text = " ".join("; ".join(_statements(found, concurrently=True)).split())  # as the runbook would make it
    return text if len(text) <= LONGEST_DDL else f"{text[:LONGEST_DDL]}… (whole: see `.objects`)"


def missing(source: Database, target: Database, schemas: Sequence[str]) -> MissingObjects:
    """What the source's schemas hold and the target's lack. Looks only.

    From MySQL only what has a counterpart with the same signature can be asked about: see `signatures`.
    """
    if target.engine != "postgresql":
        raise DatabaseError(f"{target}: what may be missing is known of PostgreSQL targets only.")
    if source.engine == "mysql":
        lost, looked_at = signatures.missing(source, target, schemas)
        found = tuple(_object(item, "missing") for item in in_order(lost))
        return MissingObjects(found, looked_at, tuple(schemas))
    here = catalog.read(source, schemas)
    there = catalog.read(target, list({*schemas, *(item.schema for item in here.items if item.kind == "sequence")}))
    catalog.require_tables(source, schemas, {item.schema for item in here.items if item.kind == "table"})
    return compare(here, there, tuple(schemas))


def compare(here: Catalog, there: Catalog, schemas: tuple[str, ...]) -> MissingObjects:
    """The two catalogs side by side."""
    known = {item.key: item for item in there.items}
    lost = {(item.schema, item.name) for item in here.items if item.kind == "table" and item.key not in known}
    same_text = here.version == there.version
    found: list[SchemaObject] = []
    notes: list[str] = []
    judged = 0
    for item in in_order(here.items):
        if item.kind in NOTED and item.key not in known:
            notes.append(f"the {item.kind} {item.name} of the source is not on the target")
        elif item.kind == "extension":
            continue
        elif not item.valid and item.kind in INDEXES:
            notes.append(f"the {item.kind} {item.name} is invalid on the source itself and was left out")
        elif (item.schema, item.table) not in lost:  # a lost table is told once, without all that belongs to it
            judged += 1
            problem, other = _judge(item, known, there, same_text)
            if problem:
                found.append(_object(item, problem, other, here, there))
            notes += _notes(item, other)
    if not same_text:
        notes.append(
            f"PostgreSQL {here.version} and {there.version} may print a view differently, so views were compared by "
            "their columns"
        )
    return MissingObjects(tuple(found), judged, schemas, tuple(notes))


def _judge(
    item: Item, known: dict[tuple[str, str, str, str], Item], there: Catalog, same_text: bool
) -> tuple[Problem | None, Item | None]:
    """What is wrong with its counterpart, and the counterpart."""
    if item.kind == "sequence" and item.detail:  # it is called otherwise where the column made its own
        generator = known.get(("default", item.schema, item.table, item.detail))
        if generator is not None and generator.definition.startswith(OWN_SEQUENCE):
            return None, None
    other = known.get(item.key) or _renamed(item, there)
    if other is None:
        return "missing", None
    text = item.detail == other.detail if item.kind in VIEWS and not same_text else item.definition == other.definition
    weak = item.valid and not other.valid
    if weak and (text or item.kind not in VIEWS):
        return "invalid", other
    return (None if text else "different"), other


def _renamed(item: Item, there: Catalog) -> Item | None:
    """The same under another name, or a name that an object of another kind (unique or not) has taken."""
    if item.kind not in SAME_BY_ANY_NAME:
        return None
    near = [other for other in there.items if (other.schema, other.table) == (item.schema, item.table)]
    same = [o for o in near if o.kind == item.kind and o.definition == item.definition and o.valid]
    taken = [o for o in near if o.kind in SAME_BY_ANY_NAME and o.name == item.name]
    return next(iter([*same, *taken]), None)


def _object(
    item: Item, problem: Problem, other: Item | None = None, here: Catalog | None = None, there: Catalog | None = None
) -> SchemaObject:
    when: When = "at cutover" if item.kind in AT_CUTOVER else "before cutover"
    ddl, drop = item.ddl, other.drop if other is not None else ""
    if item.kind in BY_THE_MIGRATION and problem == "missing":
        when, ddl = "by the migration", ""
    elif item.kind == "sequence" and other is not None:  # columns hang on it, so it is changed where it stands
        ddl = ddl.replace("create ", "alter ", 1)
    elif item.kind == "default" and other is not None:
        ddl, drop = _default(item, other)
    elif item.kind in VIEWS and other is not None and here is not None and there is not None:
        ddl, drop = _view(item, problem, other, here, there)
    return SchemaObject(
        item.kind, item.schema, item.table, item.name, ddl, when, problem, drop, item.detail == "partitioned"
    )


def _default(item: Item, other: Item) -> tuple[str, str]:
    """A sequence of its own is altered where it stands, so that it keeps its position."""
    if item.definition.startswith(OWN_SEQUENCE) and other.definition.startswith(OWN_SEQUENCE):
        return f"alter sequence {other.needs[0]}{item.definition.removeprefix(OWN_SEQUENCE)}", ""
    return item.ddl, other.drop


def _view(item: Item, problem: Problem, other: Item, here: Catalog, there: Catalog) -> tuple[str, str]:
    """A view is replaced where its columns stay, so that what reads it stays too; else all of these are remade."""
    if problem == "invalid":
        return other.drop.replace("drop ", "refresh ", 1), ""
    if item.kind == other.kind == "view" and f"{item.detail}, ".startswith(f"{other.detail}, "):
        return item.ddl.replace("create view ", "create or replace view ", 1), ""
    ours = {one.key: one for one in here.items}
    reading = there.reading(other)
    dropped = [*(one.drop for one in reversed(reading)), other.drop]
    gone = {(one.schema, one.name) for one in (other, *reading)}
    indexes = [one.ddl for one in there.items if one.kind in INDEXES and (one.schema, one.table) in gone]
    made = [item.ddl, *(ours.get(one.key, one).ddl for one in reading), *indexes]
    return "; ".join(made), "; ".join(dropped)


def _notes(item: Item, other: Item | None) -> list[str]:
    """What is told and not judged about an object that is on both sides."""
    where = ".".join(filter(None, (item.schema, item.table, item.name)))
    weakness = "not populated" if item.kind in VIEWS else item.detail
    said = [] if item.valid else [f"the {item.kind} {where} is {weakness} on the source itself"]
    if other is None:
        return said
    if item.kind in ("column", "default") and item.detail != other.detail:
        said.append(f"the {item.kind} {where} is `{item.detail}` on the source and `{other.detail}` on the target")
    if item.name != other.name:
        said.append(f"the {item.kind} {where} is called {other.name} on the target")
    return said


def repair(
    target: Database,
    objects: Iterable[SchemaObject],
    *,
    execute: bool = True,
    concurrently: bool = False,
    patience: float = 30,
) -> list[str]:
    """Make them, one after another; the statements that ran (with `execute=False`: that would run).

    Stops at the first error, and leaves nothing half-done. With `concurrently` indexes are built while others write.
    `patience`: seconds to wait for a table that others hold; longer, and everybody would queue up behind us.
    """
    plan = [(found, _statements(found, concurrently)) for found in objects]
    for found, _ in plan:
        if not found.ddl:
            raise DatabaseError(f"{target}: there is no DDL for the {found}; nothing was run. See `.repairable()`.")
    if execute and plan:
        with target.session(read_only=False) as session:
            session.execute("set search_path = ''; set check_function_bodies = off")
            for number, (found, statements) in enumerate(plan):
                _make(session, target, found, statements, number, patience)
    return [statement for _, statements in plan for statement in statements]


def _statements(found: SchemaObject, concurrently: bool) -> list[str]:
    statements = [statement for statement in (found.drop, found.ddl) if statement]
    if concurrently and found.kind in INDEXES and not found.partitioned:
        statements = [statement.replace(" INDEX ", " INDEX CONCURRENTLY ", 1) for statement in statements]
        return [statement.replace("drop index ", "drop index concurrently ", 1) for statement in statements]
    return ["; ".join(statements)] if statements else []


def _make(
    session: Any, target: Database, found: SchemaObject, statements: list[str], before: int, patience: float
) -> None:
    """Run one object's statements as the owner of its table, so that it belongs to who owns the table."""
    import psycopg

    owner = session.execute(OWNER, (found.schema, found.table or found.name, found.schema)).fetchone()
    session.execute(f"set role {owner[0]}" if owner else "reset role")
    for statement in statements:
        alone = bool(re.match(r"(create|create unique|drop) index concurrently ", statement, re.IGNORECASE))
        session.execute(f"set lock_timeout = {0 if alone else int(patience * 1000)}")  # nobody queues behind a lone one
        try:
            session.execute(statement)
        except psycopg.Error as error:
            if alone and not isinstance(error, psycopg.errors.DuplicateTable):
                _drop_invalid(session, found)
            said = " ".join(str(error).split())
            held = (
                f" Somebody held it for {patience:.0f} s." if isinstance(error, psycopg.errors.LockNotAvailable) else ""
            )
            raise DatabaseError(
                f"{target}: the {found} was not made: {said}.{held} It was: {' '.join(statement.split())}. "
                f"Nothing of it is left; {plural(before, 'object')} before it stayed."
            ) from error


OWNER = """
select quote_ident(pg_get_userbyid(owner)) from (
    select relowner as owner, 1 as rank from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %s and c.relname = %s
    union all select nspowner, 2 from pg_namespace where nspname = %s) known
where pg_has_role(session_user, owner, 'member') order by rank limit 1
"""
INVALID = """
select i.indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indexrelid
join pg_namespace n on n.oid = c.relnamespace where not i.indisvalid and n.nspname = %s and c.relname = %s
"""


def _drop_invalid(session: Any, found: SchemaObject) -> None:
    """A concurrent build that failed leaves an index that costs every write and serves no query."""
    for (name,) in session.execute(INVALID, (found.schema, found.name)).fetchall():
        session.execute(f"drop index concurrently {name}")
