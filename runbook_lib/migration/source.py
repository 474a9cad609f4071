"""What does the source say: which tables are in scope, and can replicating them break the application there?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..aws.dms import TableRule
from ..databases import Database
from ..display import Shown, Table, plural

POSTGRESQL = """
select n.nspname, c.relname, c.relreplident::text,
       exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary),
       exists (select from pg_index i where i.indrelid = c.oid and i.indisunique and i.indpred is null
               and i.indexprs is null)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p') and not c.relispartition
   and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_toast%%'
 order by 1, 2"""
# From statistics: who may only SELECT sees no table_constraints.
MYSQL = """
select t.table_schema, t.table_name, '', max(i.index_name = 'PRIMARY') is true, max(i.non_unique = 0) is true
  from information_schema.tables t
  left join information_schema.statistics i using (table_schema, table_name)
 where t.table_type = 'BASE TABLE'
   and t.table_schema not in ('mysql', 'sys', 'information_schema', 'performance_schema')
 group by 1, 2 order by 1, 2"""
OWN = "awsdms_"  # DMS's own tables, at the source too (awsdms_ddl_audit): it does not migrate them
IDENTITIES = {"d": "its key", "n": "nothing", "f": "full", "i": "an index"}


@dataclass(frozen=True)
class SourceTable:
    """A table of the source that the mapping includes."""

    schema: str
    table: str
    identity: str  # what tells its rows apart in the change stream
    primary_key: bool
    unique_key: bool

    @property
    def name(self) -> str:
        """schema.table."""
        return f"{self.schema}.{self.table}"

    @property
    def breaks(self) -> bool:
        """Whether publishing it makes its updates and deletes fail, for the application (PostgreSQL)."""
        return (self.identity == "its key" and not self.primary_key) or self.identity == "nothing"


@dataclass(frozen=True, repr=False)
class SourceReady(Shown):
    """The tables in scope and the settings that change capture needs."""

    engine: str
    tables_in_scope: tuple[SourceTable, ...]
    settings: tuple[tuple[str, str, str], ...]  # name, wanted, seen
    captures: bool = True  # changes are captured: a full load alone publishes nothing, and needs no setting

    @property
    def ok(self) -> bool:
        """A finding: there are tables, none of them breaks, and the settings are as they must be."""
        return bool(self.tables_in_scope) and not self._breaking and not self._unset

    @property
    def _breaking(self) -> list[str]:
        return [table.name for table in self.tables_in_scope if table.breaks and self.captures]

    @property
    def _unset(self) -> list[str]:
        return [f"{name} is {seen}, not {wanted}" for name, wanted, seen in self.settings if wanted != seen]

    @property
    def keyless(self) -> tuple[str, ...]:
        """Tables with neither a primary nor a unique key."""
        return tuple(table.name for table in self.tables_in_scope if not table.unique_key)

    @property
    def reason(self) -> str:
        """What breaks, or is not set."""
        if not self.tables_in_scope:
            return "the mapping includes no table of the source"
        said = [
            f"{name} has no key and no full replica identity, so its updates and deletes fail at the source while it "
            f"is published: alter table {name} replica identity full"
            for name in self._breaking
        ]
        said += self._unset
        suits = "each with a key or a full replica identity" if self.captures else "and a full load alone only reads"
        return "; ".join(said) or f"{plural(len(self.tables_in_scope), 'table')} in scope, {suits}"

    def headline(self) -> str:
        """The verdict."""
        return f"{self.reason[0].upper()}{self.reason[1:]}."

    def tables(self) -> list[Table]:
        """Each table and each setting."""
        rows = [(t.name, "yes" if t.primary_key else "no", t.identity) for t in self.tables_in_scope]
        shown = [Table(("Table", "Primary key", "Replica identity"), rows)]
        return [*shown, Table(("Setting", "Wanted", "Seen"), self.settings)] if self.settings else shown


def look(source: Database, rules: tuple[TableRule, ...], *, captures: bool = True) -> SourceReady:
    """The tables that a task's selection rules include, and whether the source stands it; `captures`: their changes."""
    postgresql = source.engine == "postgresql"
    found = rows(source, POSTGRESQL if postgresql else MYSQL)
    tables = [
        SourceTable(schema, table, IDENTITIES.get(identity, "the row image"), bool(primary), bool(unique))
        for schema, table, identity, primary, unique in found
        if selected(rules, schema, table) and not table.lower().startswith(OWN)
    ]
    wanted = {"wal_level": "logical"} if postgresql else {"binlog_format": "ROW", "binlog_row_image": "FULL"}
    settings = []
    for name, value in wanted.items() if captures else ():
        ((seen,),) = rows(source, f"select current_setting('{name}')" if postgresql else f"select @@{name}")
        settings.append((name, value, str(seen)))
    return SourceReady(source.engine, tuple(tables), tuple(settings), captures)


def selected(rules: tuple[TableRule, ...], schema: str, table: str) -> bool:
    """Whether selection rules include a table: some rule includes it and none excludes it; `%` is any text."""

    def fits(rule: TableRule) -> bool:
        return like(rule.schema, schema) and like(rule.table, table)

    return any(fits(r) for r in rules if r.include) and not any(fits(r) for r in rules if not r.include)


def like(pattern: str, text: str) -> bool:
    """Whether a name fits a rule's pattern."""
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("%")), text, re.DOTALL) is not None


def rows(database: Database, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query that only looks."""
    with database.session() as connection, connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
