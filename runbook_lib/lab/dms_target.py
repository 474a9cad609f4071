"""What does DMS make on a target before it loads? The least: columns, NOT NULL, primary key; and its control tables.

No secondary index, foreign key, check, default, trigger or view, and sequences that begin at their beginning
(DMS user guide, best practices). A default that takes the next value of the column's own sequence is kept, so that a
sequence that is behind does there what it does after a cutover. On a PostgreSQL target DMS writes the names of its
control tables' columns in capitals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from .dms_logs import COPIED

EXCEPTIONS, STATUS, FAILURES = "awsdms_apply_exceptions", "awsdms_status", "awsdms_validation_failures_v1"
OWNER = "dms"
_TRIGGER = "awsdms_load"
_CONTROL = f"""
create table if not exists public.{EXCEPTIONS} (
    "TASK_NAME" varchar(128) not null, "TABLE_OWNER" varchar(128) not null, "TABLE_NAME" varchar(128) not null,
    "ERROR_TIME" timestamp not null, "STATEMENT" text not null, "ERROR" text not null);
create table if not exists public.{STATUS} (
    "SERVER_NAME" varchar(128) not null, "TASK_NAME" varchar(128) not null primary key,
    "TASK_STATUS" varchar(32), "STATUS_TIME" timestamp not null, "PENDING_CHANGES" bigint, "DISK_SWAP_SIZE" bigint,
    "TASK_MEMORY" bigint, "SOURCE_CURRENT_POSITION" varchar(128), "SOURCE_CURRENT_TIMESTAMP" timestamp,
    "SOURCE_TAIL_POSITION" varchar(128), "SOURCE_TAIL_TIMESTAMP" timestamp, "SOURCE_TIMESTAMP_APPLIED" timestamp);
create table if not exists public.{FAILURES} (
    "TASK_NAME" varchar(128) not null, "TABLE_OWNER" varchar(128) not null, "TABLE_NAME" varchar(128) not null,
    "FAILURE_TIME" timestamp(3) not null, "KEY_TYPE" varchar(128) not null, "KEY" varchar(8002) not null,
    "FAILURE_TYPE" varchar(128) not null, "DETAILS" varchar(8000) not null);
"""
# The trigger says how many rows a copy had: logical replication fires triggers of statements for its first copies only
# (PostgreSQL, Logical Replication, Architecture), and this one is gone when the table is loaded.
_SAY = f"""
create or replace function public.{_TRIGGER}() returns trigger language plpgsql security definer
set search_path = pg_catalog as $$
begin
    raise log '{COPIED} %, % rows', tg_relid::oid,
        (select tuples_processed from pg_stat_progress_copy where pid = pg_backend_pid() and relid = tg_relid);
    return null;
end $$
"""
_STAND_IN = "awsdms: stands in for a table that the target has lost"
_STAND_INS = """
select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and obj_description(c.oid, 'pg_class') = %s
"""
_TABLES = """
select c.oid, n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and not c.relispartition and n.nspname not in ('pg_catalog', 'information_schema')
  and n.nspname !~ '^pg_(toast|temp)' order by n.nspname, c.relname
"""
_COLUMNS = """
select a.attname,
  case t.typtype when 'd' then format_type(t.typbasetype, t.typtypmod) when 'e' then 'text'
    else format_type(a.atttypid, a.atttypmod) end,
  a.attnotnull, a.attidentity, sn.nspname, s.relname, q.seqincrement, format_type(q.seqtypid, null)
from pg_attribute a join pg_type t on t.oid = a.atttypid
left join pg_depend d on d.refobjid = a.attrelid and d.refobjsubid = a.attnum and d.deptype in ('a', 'i')
  and d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
  and exists (select from pg_class x where x.oid = d.objid and x.relkind = 'S')
left join pg_class s on s.oid = d.objid left join pg_namespace sn on sn.oid = s.relnamespace
left join pg_sequence q on q.seqrelid = s.oid
where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum
"""
_KEY = "select conname, pg_get_constraintdef(oid) from pg_constraint where conrelid = %s and contype = 'p'"

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class SourceTable:
    """A table at the source."""

    oid: int
    schema: str
    name: str

    @property
    def key(self) -> str:
        """`schema.table`, as statistics are filed."""
        return f"{self.schema}.{self.name}"

    @property
    def identifier(self) -> sql.Identifier:
        """As SQL has it."""
        return sql.Identifier(self.schema, self.name)


def source_tables(source: Connection) -> list[SourceTable]:
    """All tables of the source's database."""
    return [SourceTable(*row) for row in source.execute(_TABLES)]


def make_control_tables(target: Connection) -> None:
    """The control tables, as far as they are missing. What earlier tasks wrote stays in them."""
    with target.transaction():
        target.execute(_CONTROL.encode())
        for name in (EXCEPTIONS, STATUS, FAILURES):
            owner = sql.SQL("alter table {} owner to {}")
            target.execute(owner.format(sql.Identifier("public", name), sql.Identifier(OWNER)))
        target.execute(_SAY.encode())


def prepare(source: Connection, target: Connection, tables: Iterable[SourceTable], mode: str) -> None:
    """Make the target's tables ready to be loaded, and to say how many rows their loads had."""
    tables = list(tables)
    make_ready(target, tables, mode, lambda table: _create(source, target, table))
    for table in tables:
        watch_load(target, table)


def make_ready(
    target: Connection, tables: list[SourceTable], mode: str, create_table: Callable[[SourceTable], object]
) -> None:
    """Do what TargetTablePrepMode says; `create_table` makes one that is missing. A drop takes what depends on it."""
    with target.transaction():
        for schema in sorted({table.schema for table in tables}):
            create = sql.SQL("create schema if not exists {} authorization {}")
            target.execute(create.format(sql.Identifier(schema), sql.Identifier(OWNER)))
        target.execute(sql.SQL("set local role {}").format(sql.Identifier(OWNER)))
        if mode == "DROP_AND_CREATE":
            for table in tables:
                target.execute(sql.SQL("drop table if exists {} cascade").format(table.identifier))
        there = {table.key for table in tables if exists(target, table)}
        if mode == "TRUNCATE_BEFORE_LOAD" and there:
            names = sql.SQL(", ").join(table.identifier for table in tables if table.key in there)
            target.execute(sql.SQL("truncate {}").format(names))
        for table in tables:
            if table.key not in there:
                create_table(table)


def exists(target: Connection, table: SourceTable) -> bool:
    """Whether the target has a table of that name."""
    found = target.execute("select to_regclass(%s) is not null", [table.identifier.as_string(target)]).fetchone()
    return bool(found and found[0])


def _create(source: Connection, target: Connection, table: SourceTable) -> None:
    columns, after = [], []
    for name, kind, not_null, identity, schema, sequence, step, sequence_type in source.execute(_COLUMNS, [table.oid]):
        parts = [sql.Identifier(name), sql.SQL(kind)]
        if not_null:
            parts.append(sql.SQL("not null"))
        own = sql.Identifier(schema, sequence) if sequence else None
        if identity and own:
            how = sql.SQL("always" if identity == "a" else "by default")
            generated = sql.SQL("generated {} as identity (sequence name {} increment by {})")
            parts.append(generated.format(how, own, sql.Literal(step)))
        elif own:
            make = sql.SQL("create sequence {} as {} increment by {} owned by {}")
            column = sql.Identifier(table.schema, table.name, name)
            after.append(make.format(own, sql.SQL(sequence_type), sql.Literal(step), column))
            default = sql.SQL("alter table {} alter column {} set default nextval({})")
            text = sql.Literal(own.as_string(target))
            after.append(default.format(table.identifier, sql.Identifier(name), text))
        columns.append(sql.SQL(" ").join(parts))
    for name, definition in source.execute(_KEY, [table.oid]):
        columns.append(sql.SQL("constraint {} {}").format(sql.Identifier(name), sql.SQL(definition)))
    target.execute(sql.SQL("create table {} ({})").format(table.identifier, sql.SQL(", ").join(columns)))
    for statement in after:
        target.execute(statement)


def watch_load(target: Connection, table: SourceTable) -> None:
    """Have the table's next load say how many rows it had."""
    with target.transaction():
        ignore_load(target, table)
        trigger, on = sql.Identifier(_TRIGGER), table.identifier
        create = sql.SQL("create trigger {} after insert on {} for each statement execute function public.{}()")
        target.execute(create.format(trigger, on, trigger))
        target.execute(sql.SQL("alter table {} enable always trigger {}").format(on, trigger))


def ignore_load(target: Connection, table: SourceTable) -> None:
    """Take the load's trigger off a table."""
    drop = sql.SQL("drop trigger if exists {} on {}").format(sql.Identifier(_TRIGGER), table.identifier)
    target.execute(drop)


def stand_in(source: Connection, target: Connection, table: SourceTable) -> None:
    """Make an empty table with the names of a lost one's columns, unless there is one.

    Changes that are on their way would stop PostgreSQL's whole apply; to a table that is not subscribed to, they go
    nowhere.
    """
    if exists(target, table):
        return
    columns = source.execute(
        "select attname from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped", [table.oid]
    ).fetchall()
    parts = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for (name,) in columns)
    with target.transaction():
        create = sql.SQL("create schema if not exists {} authorization {}")
        target.execute(create.format(sql.Identifier(table.schema), sql.Identifier(OWNER)))
        target.execute(sql.SQL("create table {} ({})").format(table.identifier, parts))
        target.execute(sql.SQL("comment on table {} is {}").format(table.identifier, sql.Literal(_STAND_IN)))


def stand_ins(target: Connection) -> set[str]:
    """The tables that stand in for others, by `schema.table`."""
    return {f"{schema}.{name}" for schema, name in target.execute(_STAND_INS, [_STAND_IN])}


def end_stand_ins(target: Connection, key: str | None = None) -> None:
    """Drop the one that stands in for a table, or all."""
    for schema, name in target.execute(_STAND_INS, [_STAND_IN]).fetchall():
        if key in (None, f"{schema}.{name}"):
            target.execute(sql.SQL("drop table {} cascade").format(sql.Identifier(schema, name)))
