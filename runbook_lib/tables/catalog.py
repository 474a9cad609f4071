"""What does a PostgreSQL schema hold besides rows? Every object with the DDL that makes it, in one query.

Definitions are the server's own words (`pg_get_indexdef` and its kin) under an empty search path, so they are fully
qualified and can be compared and run as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..databases import Database
from ..errors import DatabaseError

ORDER = (  # in which they can be created
    "schema", "type", "table", "column", "partition", "inheritance", "function", "aggregate", "sequence", "default",
    "not null", "primary key", "unique constraint", "unique index", "exclusion constraint", "check", "view",
    "materialized view", "index", "generated column", "foreign key", "trigger",
)  # fmt: skip
VIEWS = frozenset({"view", "materialized view"})


@dataclass(frozen=True)
class Item:
    """An object as the catalog has it."""

    kind: str
    schema: str
    table: str  # '' when it belongs to none
    name: str
    definition: str  # what has to be equal; without the object's own name where the object may be called otherwise
    ddl: str = ""
    drop: str = ""
    detail: str = ""  # what is told when it differs, and not judged; of a sequence the column that owns it
    needs: tuple[str, ...] = ()  # views, functions: those that have to be there first; a default: its own sequence
    valid: bool = True

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is found by on the other side."""
        return (self.kind, self.schema, "" if self.kind == "sequence" else self.table, self.name)

    @property
    def called(self) -> str:
        """A view or a function as `needs` has it, without quotes."""
        return f"{self.schema}.{self.name}".replace('"', "")

    def waits(self, others: Iterable[str]) -> bool:
        """Whether one of the others has to be there first."""
        return not {name.replace('"', "") for name in self.needs}.isdisjoint(others)


@dataclass(frozen=True)
class Catalog:
    """The objects of some schemas of one database, and the server's major version."""

    version: int
    items: tuple[Item, ...]

    def reading(self, view: Item) -> list[Item]:
        """The views that read a view, directly or not, in creation order."""
        known = {view.called}
        found = []
        for item in in_order(item for item in self.items if item.kind in VIEWS):
            if item.waits(known):
                known.add(item.called)
                found.append(item)
        return found


def in_order(items: Iterable[Item]) -> list[Item]:
    """In creation order; views, and functions that take or return their rows, after the views that they need."""
    rank = {kind: place for place, kind in enumerate(ORDER)}
    view = rank["view"]
    ordered = sorted(items, key=lambda item: (rank.get(item.kind, -1), item.key[1:]))
    early: list[Item] = []
    waiting: list[Item] = []
    late: list[Item] = []
    for item in ordered:
        if item.kind in VIEWS or (item.kind == "function" and item.needs):
            waiting.append(item)
        else:
            (early if rank.get(item.kind, -1) < view else late).append(item)
    while waiting:
        unmade = {item.called for item in waiting}
        ready = [item for item in waiting if not item.waits(unmade)] or waiting
        early += ready
        waiting = [item for item in waiting if item not in ready]
    return early + late


def read(database: Database, schemas: Sequence[str]) -> Catalog:
    """Everything in the schemas; what belongs to an extension is the extension's business."""
    with database.session(snapshot=True) as session:
        session.execute("set local search_path = ''")
        rows = session.execute(QUERY, {"schemas": list(schemas)}).fetchall()
        version = session.info.server_version // 10000
    return Catalog(version, tuple(_item(row) for row in rows))


def _item(row: Sequence[Any]) -> Item:
    kind, schema, table, name, definition, ddl, drop, detail, needs, valid = (value or "" for value in row)
    return Item(kind, schema, table, name, definition, ddl, drop, detail, tuple(needs), bool(valid))


def require_tables(database: Database, schemas: Sequence[str], found: set[str]) -> None:
    """DatabaseError when a schema holds no table: what is not there cannot be complete."""
    for schema in schemas:
        if schema not in found:
            raise DatabaseError(
                f"{database}: there is no table in the schema {schema!r} that this user may see. Is the name spelt as "
                "the database spells it, and is this the right database?"
            )


# Partitions get their indexes, constraints and triggers from the partitioned table, so only the originals are listed.
QUERY = r"""
with tables as (
    select c.oid, n.nspname, c.relname, c.relkind, c.oid::regclass::text as path
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = any(%(schemas)s) and c.relkind in ('r', 'p', 'm', 'v')
      and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid
                      and d.deptype = 'e')
), sequences as (
    select s.seqrelid as oid, n.nspname, c.relname, s.seqrelid::regclass::text as path,
           d.refobjid as owner, d.refobjsubid as owner_column, coalesce(d.deptype = 'i', false) as is_identity,
           format('as %%s increment by %%s minvalue %%s maxvalue %%s %%s', format_type(s.seqtypid, null),
                  s.seqincrement, s.seqmin, s.seqmax, case when s.seqcycle then 'cycle' else 'no cycle' end) as options,
           format(' start with %%s cache %%s', s.seqstart, s.seqcache) as start,
           -- the same whatever the type is: an end that only the type sets is none
           format('increment by %%s %%s %%s %%s', s.seqincrement,
                  case when s.seqmin = case when s.seqincrement > 0 then 1 else least_value end then 'no minvalue'
                       else 'minvalue ' || s.seqmin end,
                  case when s.seqmax = case when s.seqincrement > 0 then -(least_value + 1) else -1 end
                       then 'no maxvalue' else 'maxvalue ' || s.seqmax end,
                  case when s.seqcycle then 'cycle' else 'no cycle' end) as own_options
    from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace
    cross join lateral (select case format_type(s.seqtypid, null) when 'smallint' then -2 ^ 15 when 'integer'
                        then -2 ^ 31 else -2 ^ 63 end::numeric as least_value) ends
    left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = s.seqrelid
         and d.refclassid = 'pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
    where (n.nspname = any(%(schemas)s) or d.refobjid in (select oid from tables)
           or exists (select from pg_depend u join pg_attrdef e on e.oid = u.objid join tables t on t.oid = e.adrelid
                      where u.classid = 'pg_attrdef'::regclass and u.refclassid = 'pg_class'::regclass
                        and u.refobjid = s.seqrelid))
      and not exists (select from pg_depend e where e.classid = 'pg_class'::regclass and e.objid = s.seqrelid
                      and e.deptype = 'e')
), columns as (
    select t.*, a.attname, quote_ident(a.attname) as col, a.attnum, a.attnotnull, a.attidentity, a.attgenerated,
           format_type(a.atttypid, a.atttypmod) as type, pg_get_expr(d.adbin, d.adrelid) as expression,
           own.path as own_sequence, own.own_options,
           format('alter table %%s alter column %%I', t.path, a.attname) as alter_column
    from tables t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    left join sequences own on own.owner = t.oid and own.owner_column = a.attnum and not own.is_identity
         and pg_get_expr(d.adbin, d.adrelid) = format('nextval(%%L::regclass)', own.path)
    where t.relkind in ('r', 'p')
), constraints as (
    select k.oid, t.nspname, t.relname, t.path, k.conname, k.contype, pg_get_constraintdef(k.oid) as definition,
           case when not k.convalidated then 'not validated'
                when k.oid in (select unnest(array[own.oid, own.conparentid])
                               from pg_trigger g join pg_constraint own on own.oid = g.tgconstraint
                               where g.tgenabled in ('D', 'R'))
                then 'switched off' else '' end as weakness
    from pg_constraint k join tables t on t.oid = k.conrelid
    where k.contype in ('p', 'u', 'x', 'c', 'f') and k.conparentid = 0 and k.coninhcount = 0
), indexes as (
    select t.nspname, t.relname, t.relkind, ic.relname as name, i.indexrelid::regclass::text as path, i.indisvalid,
           i.indisunique, replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ') as ddl
    from pg_index i join tables t on t.oid = i.indrelid join pg_class ic on ic.oid = i.indexrelid
    where not ic.relispartition
      and not exists (select from pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x'))
), triggers as (
    select t.nspname, t.relname, t.path, g.tgname, g.tgfoid, pg_get_triggerdef(g.oid) as ddl,
           case g.tgenabled when 'D' then 'disable trigger ' when 'R' then 'enable replica trigger '
                            when 'A' then 'enable always trigger ' end as state
    from pg_trigger g join tables t on t.oid = g.tgrelid
    where not g.tgisinternal and g.tgparentid = 0
), functions as (
    select p.oid, n.nspname, p.prokind, format('%%s(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)) as name
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where (n.nspname = any(%(schemas)s) or p.oid in (select tgfoid from triggers)) and n.nspname <> 'pg_catalog'
      and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid
                      and d.deptype = 'e')
), uses as (
    select case when d.classid = 'pg_proc'::regclass then d.objid end as function,
           case when d.classid = 'pg_rewrite'::regclass then (select ev_class from pg_rewrite where oid = d.objid) end
               as view,
           coalesce(v.oid, f.oid) as needed, coalesce(v.nspname || '.' || v.relname, f.nspname || '.' || f.name) as name
    from pg_depend d left join pg_type y on d.refclassid = 'pg_type'::regclass and y.oid = d.refobjid
    left join pg_type e on e.oid = y.typelem
    left join tables v on v.relkind in ('v', 'm') and v.oid = case
         when d.refclassid = 'pg_class'::regclass then d.refobjid else coalesce(nullif(y.typrelid, 0), e.typrelid) end
    left join functions f on d.refclassid = 'pg_proc'::regclass and f.oid = d.refobjid
    where d.classid in ('pg_rewrite'::regclass, 'pg_proc'::regclass) and coalesce(v.oid, f.oid) is not null
)
-- kind, schema, table, name, definition, ddl, drop, detail, needs, valid
select 'schema', n.nspname, '', n.nspname, '', format('create schema %%I', n.nspname), '', '', null::text[], true
from pg_namespace n where n.nspname = any(%(schemas)s) or n.nspname in (select nspname from sequences)
union all
select 'extension', '', '', extname, '', '', '', extversion, null, true from pg_extension
union all
select 'type', n.nspname, '', t.typname,
       case t.typtype
       when 'e' then (select 'enum ' || string_agg(quote_literal(enumlabel), ', ' order by enumsortorder)
                      from pg_enum where enumtypid = t.oid)
       when 'd' then concat_ws(' ', 'domain', format_type(t.typbasetype, t.typtypmod), 'default ' || t.typdefault,
            case when t.typnotnull then 'not null' end,
            (select string_agg(pg_get_constraintdef(oid), ' ' order by pg_get_constraintdef(oid)) from pg_constraint
             where contypid = t.oid and contype = 'c'))
       when 'r' then (select 'range of ' || format_type(rngsubtype, null) from pg_range where rngtypid = t.oid)
       else (select 'composite ' || string_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod), ', '
                                               order by attnum)
             from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) end,
       '', '', '', null, true
from pg_type t join pg_namespace n on n.oid = t.typnamespace
left join pg_class c on c.oid = t.typrelid
where n.nspname = any(%(schemas)s) and (t.typtype in ('e', 'd', 'r') or c.relkind = 'c')
union all
select 'table', t.nspname, '', t.relname, 'row security ' || security.state,
       -- with row security on, policies have to come first: there is no DDL to give
       case when security.state = 'off' then
            format('alter table %%s %%sdisable row level security, no force row level security', t.path,
                   case when t.relkind = 'r' and c.relpersistence = 'p' then 'set logged, ' else '' end) end,
       '', case c.relpersistence when 'u' then 'unlogged' else '' end, null, c.relpersistence <> 'u'
from tables t join pg_class c on c.oid = t.oid
cross join lateral (select case when not c.relrowsecurity then 'off' when c.relforcerowsecurity then 'forced'
                           else 'on' end as state) security
where t.relkind in ('r', 'p')
union all
select case when c.relispartition then 'partition' else 'inheritance' end, t.nspname, t.relname,
       i.inhparent::regclass::text, coalesce(pg_get_expr(c.relpartbound, c.oid), ''),
       case when c.relispartition
            then format('alter table %%s attach partition %%s %%s', i.inhparent::regclass, t.path,
                        pg_get_expr(c.relpartbound, c.oid))
            else format('alter table %%s inherit %%s', t.path, i.inhparent::regclass) end,
       case when c.relispartition then format('alter table %%s detach partition %%s', i.inhparent::regclass, t.path)
            else '' end, '', null, true
from tables t join pg_class c on c.oid = t.oid join pg_inherits i on i.inhrelid = t.oid where t.relkind in ('r', 'p')
union all
select 'column', nspname, relname, attname, '', '', '', type, null, true from columns
union all
select 'sequence', s.nspname, coalesce(t.relname, ''), s.relname, s.options,
       format('create sequence %%s %%s', s.path, s.options || s.start), '', a.attname, null, true
from sequences s left join tables t on t.oid = s.owner
left join pg_attribute a on a.attrelid = s.owner and a.attnum = s.owner_column
where not s.is_identity
union all
select 'function', nspname, '', name, pg_get_functiondef(oid), pg_get_functiondef(oid), '', '',
       (select array_agg(distinct u.name) from uses u where u.function = f.oid and u.needed <> f.oid), true
from functions f where prokind <> 'a'
union all
select 'aggregate', f.nspname, '', f.name,
       concat_ws(', ', a.aggkind, a.aggtransfn, format_type(a.aggtranstype, null), a.aggfinalfn, a.aggcombinefn,
                 a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn,
                 a.aggsortop::regoperator, 'begins with ' || quote_nullable(a.agginitval)), '', '', '', null, true
from functions f join pg_aggregate a on a.aggfnoid = f.oid
union all
select 'not null', nspname, relname, attname, 'not null', alter_column || ' set not null',
       alter_column || ' drop not null', '', null, true
from columns where attnotnull
union all
select 'default', c.nspname, c.relname, c.attname, 'the next value of its own sequence ' || s.own_options,
       format('%%s add generated %%s as identity (%%s)', c.alter_column,
              case c.attidentity when 'a' then 'always' else 'by default' end,
              s.own_options || s.start),
       c.alter_column || ' drop identity',
       case c.attidentity when 'a' then 'always' else 'by default' end, array[s.path], true
from columns c join sequences s on s.is_identity and s.owner = c.oid and s.owner_column = c.attnum
union all
select 'default', nspname, relname, attname, 'the next value of its own sequence ' || own_options,
       format('%%s set default %%s; alter sequence %%s owned by %%s.%%s', alter_column, expression, own_sequence,
              path, col),
       alter_column || ' drop default', 'by default', array[own_sequence], true
from columns where own_sequence is not null
union all
select 'default', nspname, relname, attname, expression, format('%%s set default %%s', alter_column, expression),
       alter_column || ' drop default', '', null, true
from columns where expression is not null and attgenerated = '' and own_sequence is null
union all
select 'generated column', nspname, relname, attname, expression,
       format('alter table %%s drop column %%s, add column %%s %%s generated always as (%%s) %%s%%s', path, col, col,
              type, expression, case attgenerated when 'v' then 'virtual' else 'stored' end,
              case when attnotnull then ' not null' else '' end), '', '', null, true
from columns where attgenerated <> ''
union all
select case contype when 'p' then 'primary key' when 'u' then 'unique constraint' when 'x' then 'exclusion constraint'
                    when 'c' then 'check' else 'foreign key' end,
       nspname, relname, conname, definition,
       format('alter table %%s add constraint %%I %%s', path, conname, definition),
       format('alter table %%s drop constraint %%I', path, conname), weakness, null, weakness = ''
from constraints
union all
select case when indisunique then 'unique index' else 'index' end, nspname, relname, name,
       replace(ddl, format(' INDEX %%I ON ', name), ' INDEX ON '), ddl, 'drop index ' || path,
       case relkind when 'p' then 'partitioned' else '' end, null, indisvalid
from indexes
union all
select 'trigger', nspname, relname, tgname, ddl || coalesce(' (' || state || ')', ''),
       ddl || coalesce('; alter table ' || path || ' ' || state || quote_ident(tgname), ''),
       format('drop trigger %%I on %%s', tgname, path), '', null, true
from triggers
union all
select case t.relkind when 'v' then 'view' else 'materialized view' end, t.nspname, '', t.relname,
       coalesce('with (' || array_to_string(c.reloptions, ', ') || ') ', '') || pg_get_viewdef(t.oid),
       format('create %%s %%s%%s as %%s', case t.relkind when 'v' then 'view' else 'materialized view' end, t.path,
              ' with (' || array_to_string(c.reloptions, ', ') || ')', rtrim(pg_get_viewdef(t.oid), ';')),
       format('drop %%s %%s', case t.relkind when 'v' then 'view' else 'materialized view' end, t.path),
       (select string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum)
        from pg_attribute a where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped),
       (select array_agg(distinct u.name) from uses u where u.view = t.oid and u.needed <> t.oid),
       t.relkind = 'v' or c.relispopulated
from tables t join pg_class c on c.oid = t.oid where t.relkind in ('v', 'm')
"""
