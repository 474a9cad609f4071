"""What the target lacks besides rows is found, told with DDL that runs, and made without leaving anything half-done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import psycopg
import pytest

from runbook_lib.checks import Finding
from runbook_lib.databases import Database
from runbook_lib.errors import DatabaseError
from runbook_lib.lab import postgres
from runbook_lib.tables import objects
from tests.servers import MYSQL, MySQLOrMariaDB, in_mariadb, in_postgresql, mariadb_server, postgresql

SOURCE = """
create schema shop;
create function shop.log() returns trigger language plpgsql as $$ begin return new; end $$;
create table shop.customers (
    id bigint generated always as identity primary key, email text not null unique, name text default 'nobody',
    long int generated always as (length(email)) stored);
create table shop.orders (
    id bigserial primary key, customer bigint references shop.customers on delete cascade, total numeric(10, 2),
    status text not null default 'open' check (status in ('open', 'paid')), placed timestamptz default now());
create index orders_open on shop.orders (placed desc) where status = 'open';
create unique index orders_once on shop.orders (customer, (lower(status))) include (total);
create table shop."Odd Table" ("Id" serial primary key, during int4range, exclude using gist (during with &&));
create trigger logged after insert on shop.orders for each row execute function shop.log();
create view shop.zz as select id, customer from shop.orders;
create view shop.aa as select id from shop.zz;
create materialized view shop.totals as select customer, sum(total) from shop.orders group by 1;
create index totals_customer on shop.totals (customer);
create sequence shop.tickets increment by -10;
"""
MINIMAL = """
create schema shop;
create table shop.customers (id bigint primary key, email text not null, name text, long int);
create table shop.orders (id bigint primary key, customer bigint, total numeric(10, 2), status text not null,
    placed timestamptz);
create table shop."Odd Table" ("Id" int primary key, during int4range);
"""
numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Server]:
    with postgresql(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def database(server: postgres.Server) -> Callable[[str], Database]:
    """Makes databases from scripts; both sides may be databases of one server, as nothing replicates here."""
    return lambda script: in_postgresql(server, f"objects{next(numbers)}", script)


def run(database: Database, statement: str) -> None:
    with database.session(read_only=False) as session:
        session.execute(statement)


def kinds(found: objects.MissingObjects) -> list[str]:
    return [item.kind for item in found.objects]


def test_a_target_as_dms_makes_it_lacks_everything_but_keys_and_columns(database: Callable[[str], Database]) -> None:
    found = objects.missing(database(SOURCE), database(MINIMAL), ["shop"])
    assert isinstance(found, Finding)
    assert not found.ok
    assert sorted(kinds(found)) == sorted(
        ["function", *["sequence"] * 3, *["default"] * 6, "unique constraint", "unique index", "exclusion constraint",
         "check", "view", "view", "materialized view", "index", "index", "generated column", "foreign key", "trigger"]
    )  # fmt: skip
    assert {item.kind for item in found.repairable("at cutover")} == {"foreign key", "trigger", "generated column"}
    assert "1 foreign key" in found.reason
    assert "CREATE INDEX CONCURRENTLY orders_open ON shop.orders" in repr(found)


@pytest.mark.parametrize("concurrently", [False, True])
def test_what_is_told_can_be_run_in_the_order_told_and_then_nothing_is_missing(
    database: Callable[[str], Database], concurrently: bool
) -> None:
    source, target = database(SOURCE), database(MINIMAL)
    found = objects.missing(source, target, ["shop"])
    assert objects.repair(target, found.repairable(), execute=False, concurrently=concurrently)
    assert objects.missing(source, target, ["shop"]) == found, "a look changed something"
    ran = objects.repair(target, found.repairable(), concurrently=concurrently)
    assert any("CONCURRENTLY" in statement for statement in ran) is concurrently
    after = objects.missing(source, target, ["shop"])
    assert after.ok, after
    assert after.reason.startswith("45 objects of the schema shop looked at")


def test_the_same_schema_on_both_sides_lacks_nothing(database: Callable[[str], Database]) -> None:
    found = objects.missing(database(SOURCE), database(SOURCE), ["shop"])
    assert found.ok and repr(found).startswith("Nothing is missing: ")
    assert not found.notes


@pytest.mark.parametrize(
    ("change", "kind", "problem"),
    [
        ("drop index shop.orders_open", "index", "missing"),
        ("drop index shop.orders_open; create index orders_open on shop.orders (placed)", "index", "different"),
        ("drop index shop.orders_once; create index orders_once on shop.orders (customer, (lower(status)))",
         "unique index", "different"),
        ("update pg_index set indisvalid = false where indexrelid = 'shop.orders_open'::regclass", "index", "invalid"),
        ("alter table shop.orders drop constraint orders_status_check", "check", "missing"),
        ("alter table shop.orders drop constraint orders_status_check, "
         "add constraint orders_status_check check (status <> '')", "check", "different"),
        ("alter table shop.orders drop constraint orders_customer_fkey, add constraint orders_customer_fkey "
         "foreign key (customer) references shop.customers on delete cascade not valid", "foreign key", "invalid"),
        ("alter table shop.orders drop constraint orders_customer_fkey, add constraint orders_customer_fkey "
         "foreign key (customer) references shop.customers", "foreign key", "different"),
        ("alter table shop.orders drop constraint orders_pkey", "primary key", "missing"),
        ("alter table shop.customers drop constraint customers_email_key", "unique constraint", "missing"),
        ("alter table shop.orders alter column status drop not null", "not null", "missing"),
        ("alter table shop.orders alter column status drop default", "default", "missing"),
        ("alter table shop.orders alter column status set default 'paid'", "default", "different"),
        ("alter table shop.customers alter column id drop identity", "default", "missing"),
        ("alter table shop.orders alter column id drop default", "default", "missing"),
        ("alter table shop.customers alter column long drop expression", "generated column", "missing"),
        ("drop trigger logged on shop.orders", "trigger", "missing"),
        ("alter table shop.orders disable trigger logged", "trigger", "different"),
        ("create or replace function shop.log() returns trigger language plpgsql as $$ begin return old; end $$",
         "function", "different"),
        ("drop view shop.aa", "view", "missing"),
        ("create or replace view shop.aa as select id from shop.zz where id > 0", "view", "different"),
        ("alter sequence shop.tickets increment by 1", "sequence", "different"),
        ("drop sequence shop.tickets", "sequence", "missing"),
        ("alter table shop.orders disable trigger all; alter table shop.orders enable trigger logged", "foreign key",
         "invalid"),
        ("alter table shop.customers disable trigger all", "foreign key", "invalid"),
        ("refresh materialized view shop.totals with no data", "materialized view", "invalid"),
        ("alter table shop.customers alter column id set increment by 7 set maxvalue 100 set cycle", "default",
         "different"),
        ("alter sequence shop.orders_id_seq increment 7 maxvalue 100 cycle", "default", "different"),
        ("alter table shop.customers enable row level security", "table", "different"),
        ('alter table shop."Odd Table" set unlogged', "table", "invalid"),
        ("create or replace view shop.zz as select id, customer + 1 as customer from shop.orders", "view", "different"),
    ],
)  # fmt: skip
def test_one_change_on_the_target_is_told_as_what_it_is_and_mended(
    database: Callable[[str], Database], change: str, kind: str, problem: str
) -> None:
    source, target = database(SOURCE), database(SOURCE)
    run(target, change)
    found = objects.missing(source, target, ["shop"])
    assert [(item.kind, item.problem) for item in found.objects] == [(kind, problem)], found
    objects.repair(target, found.repairable())
    assert objects.missing(source, target, ["shop"]).ok


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ("alter index shop.orders_open rename to still_open", "is called still_open on the target"),
        ("alter table shop.customers alter column id set generated by default", "`by default` on the target"),
        ("alter table shop.customers alter column name type varchar(40)", "`character varying(40)` on the target"),
        ("alter sequence shop.orders_id_seq rename to other_seq", ""),
    ],
)
def test_what_does_the_same_under_another_name_is_not_missing(
    database: Callable[[str], Database], change: str, note: str
) -> None:
    source, target = database(SOURCE.replace("default 'nobody'", "")), database(SOURCE.replace("default 'nobody'", ""))
    run(target, change)
    found = objects.missing(source, target, ["shop"])
    assert found.ok, found
    assert any(note in said for said in found.notes) or not note


def test_a_view_with_other_columns_is_remade_together_with_all_that_reads_it(
    database: Callable[[str], Database],
) -> None:
    more = "create materialized view shop.cached as select id from shop.zz; create index cached_id on shop.cached (id)"
    source, target = database(SOURCE + more), database(SOURCE + more)
    run(target, "drop view shop.zz cascade; create view shop.zz as select id, customer, total from shop.orders; "
        f"create view shop.aa as select id from shop.zz; {more}")  # fmt: skip
    found = objects.missing(source, target, ["shop"])
    assert [(item.kind, item.name, item.problem) for item in found.objects] == [("view", "zz", "different")]
    objects.repair(target, found.repairable())
    assert objects.missing(source, target, ["shop"]).ok


def test_a_function_that_returns_a_views_rows_is_made_after_the_view(database: Callable[[str], Database]) -> None:
    more = "create function shop.all_of_it() returns setof shop.zz language sql as 'select * from shop.zz'"
    found = objects.missing(database(SOURCE + more), target := database(MINIMAL), ["shop"])
    names = [item.name for item in found.objects]
    assert names.index("log()") < names.index("zz") < names.index("all_of_it()")
    objects.repair(target, found.repairable())


PARTS = """
create schema shop; create table shop.days (day date primary key) partition by range (day);
create table shop.days_1 partition of shop.days for values from ('2025-01-01') to ('2026-01-01');
create table shop.days_2 partition of shop.days for values from ('2026-01-01') to ('2027-01-01');
create table shop.notes (id int primary key); create table shop.old_notes (primary key (id)) inherits (shop.notes);
"""


@pytest.mark.parametrize(
    ("change", "kind", "problem"),
    [
        ("alter table shop.days detach partition shop.days_2", "partition", "missing"),
        ("alter table shop.days detach partition shop.days_2; alter table shop.days attach partition shop.days_2 "
         "for values from ('2026-01-01') to ('2026-07-01')", "partition", "different"),
        ("alter table shop.old_notes no inherit shop.notes", "inheritance", "missing"),
    ],
)  # fmt: skip
def test_a_partition_that_is_detached_or_ends_elsewhere_is_told_and_attached(
    database: Callable[[str], Database], change: str, kind: str, problem: str
) -> None:
    source, target = database(PARTS), database(PARTS)
    run(target, change)
    found = objects.missing(source, target, ["shop"])
    assert [(item.kind, item.problem) for item in found.objects] == [(kind, problem)], found
    objects.repair(target, found.repairable())
    assert objects.missing(source, target, ["shop"]).ok


BY_HAND = """
create schema shop; create type shop.state as enum ('open', 'paid'); create domain shop.price as int check (value > 0);
create aggregate shop.added(int) (sfunc = int4pl, stype = int);
create table shop.t (id int primary key, state shop.state, price shop.price);
alter table shop.t enable row level security;
"""


@pytest.mark.parametrize(
    ("there", "kind", "problem"),
    [
        (("('open', 'paid')", "('open')"), "type", "different"),
        (("check (value > 0)", ""), "type", "different"),
        (("sfunc = int4pl", "sfunc = int4mul"), "aggregate", "different"),
        (("create aggregate shop.added(int) (sfunc = int4pl, stype = int);", ""), "aggregate", "missing"),
        (("alter table shop.t enable row level security;", ""), "table", "different"),
    ],
)
def test_what_has_to_be_written_by_hand_is_told_without_ddl(
    database: Callable[[str], Database], there: tuple[str, str], kind: str, problem: str
) -> None:
    source, target = database(BY_HAND), database(BY_HAND.replace(*there))
    found = objects.missing(source, target, ["shop"])
    assert [(item.kind, item.problem, item.ddl) for item in found.objects] == [(kind, problem, "")], found
    assert kind in found.reason and "has to be written by hand" in repr(found)


def test_a_sequence_in_another_schema_than_its_table_is_made_with_its_schema(
    database: Callable[[str], Database],
) -> None:
    source = database("create schema ids; create sequence ids.s; create schema shop; "
                      "create table shop.t (id bigint primary key default nextval('ids.s'))")  # fmt: skip
    target = database("create schema shop; create table shop.t (id bigint primary key)")
    found = objects.missing(source, target, ["shop"])
    assert [item.kind for item in found.objects] == ["schema", "sequence", "default"]
    objects.repair(target, found.repairable())
    assert objects.missing(source, target, ["shop"]).ok
    run(target, "alter table shop.t alter column id drop default")
    assert kinds(objects.missing(source, target, ["shop"])) == ["default"]


def test_a_table_that_is_lost_in_one_schema_hides_nothing_of_its_namesake(database: Callable[[str], Database]) -> None:
    script = "create schema a; create schema b; create table b.t (id int primary key);"
    source = database(f"{script} create table a.t (id int primary key); create table a.other (id int)")
    target = database(f"{script} alter table b.t drop constraint t_pkey; create table a.other (id int)")
    found = objects.missing(source, target, ["a", "b"])
    assert [(item.kind, item.schema) for item in found.objects] == [("table", "a"), ("primary key", "b")]


def test_what_is_not_looked_at_is_said_beside_the_verdict(database: Callable[[str], Database]) -> None:
    assert "Not looked at: roles and grants, row security policies" in repr(
        objects.missing(database(SOURCE), database(SOURCE), ["shop"])
    )


def test_a_missing_table_is_told_once_without_all_that_belongs_to_it(database: Callable[[str], Database]) -> None:
    source, target = database(SOURCE), database(SOURCE)
    run(target, 'drop table shop."Odd Table"; alter table shop.orders drop column total cascade')
    found = objects.missing(source, target, ["shop"])
    assert [(item.kind, item.name, item.when) for item in found.objects if not item.ddl] == [
        ("table", "Odd Table", "by the migration"), ("column", "total", "by the migration"),
    ]  # fmt: skip
    with pytest.raises(DatabaseError, match=r"no DDL for the table shop.Odd Table; nothing was run"):
        objects.repair(target, found.objects)


def test_what_a_source_did_not_validate_is_a_note_and_its_invalid_index_is_left_out(
    database: Callable[[str], Database],
) -> None:
    more = """;alter table shop.orders add constraint positive check (total > 0) not valid;
        create index bad on shop.orders (total);
        update pg_index set indisvalid = false where indexrelid = 'shop.bad'::regclass"""
    found = objects.missing(
        database(SOURCE + more), database(SOURCE + more.split(";create")[0].split("create")[0]), ["shop"]
    )
    assert found.ok, found
    assert any("positive is not validated on the source itself" in note for note in found.notes)
    assert any("bad is invalid on the source itself" in note for note in found.notes)


def test_partitions_inherit_what_the_partitioned_table_gets(database: Callable[[str], Database]) -> None:
    bare = """create schema shop; create table shop.days (day date primary key, note text) partition by range (day);
        create table shop.days_1 partition of shop.days for values from ('2025-01-01') to ('2026-01-01');"""
    source, target = database(bare + "create index days_note on shop.days (note)"), database(bare)
    found = objects.missing(source, target, ["shop"])
    assert [item.name for item in found.objects] == ["days_note"]
    objects.repair(target, found.repairable(), concurrently=True)
    assert objects.missing(source, target, ["shop"]).ok


def test_a_repair_stops_at_the_first_error_and_leaves_no_invalid_index(database: Callable[[str], Database]) -> None:
    source, target = database(SOURCE), database(MINIMAL)
    run(target, "insert into shop.customers (id, email) values (1, 'a@b'), (2, 'a@b')")
    run(source, "create unique index customers_lower on shop.customers (lower(email))")
    found = objects.missing(source, target, ["shop"])
    unique = [item for item in found.objects if item.name == "customers_lower"]
    later = [item for item in found.objects if item.name == "orders_open"]
    with pytest.raises(DatabaseError, match=r"customers_lower.*was not made: could not create unique index.*0 objects"):
        objects.repair(target, [*unique, *later], concurrently=True)
    after = objects.missing(source, target, ["shop"])
    assert after == found, "something of the repair stayed, or something after the error was made"
    run(target, "update shop.customers set email = 'c@d' where id = 2")
    objects.repair(target, [*unique, *later], concurrently=True)


def test_a_repair_does_not_wait_for_ever_behind_somebody_who_holds_the_table(
    database: Callable[[str], Database],
) -> None:
    source, target = database(SOURCE), database(MINIMAL)
    checks = [item for item in objects.missing(source, target, ["shop"]).objects if item.kind == "check"]
    with target.session(read_only=False, snapshot=True) as holder:
        holder.execute("lock table shop.orders in access share mode")
        with pytest.raises(DatabaseError, match=r"lock timeout.*Somebody held it"):
            objects.repair(target, checks, patience=0.05)


def test_what_is_made_belongs_to_the_owner_of_its_table(
    server: postgres.Server, database: Callable[[str], Database]
) -> None:
    source, target = database(SOURCE), database(MINIMAL)
    run(
        target,
        """create role owner_of_all; create role operator login password 'x' in role owner_of_all;
        alter schema shop owner to owner_of_all; alter table shop.orders owner to owner_of_all;
        alter table shop.customers owner to owner_of_all; alter table shop."Odd Table" owner to owner_of_all""",
    )
    operator = Database("postgresql", "127.0.0.1", server.port, target.name, "operator", "x")
    objects.repair(operator, objects.missing(source, operator, ["shop"]).repairable())
    assert objects.missing(source, target, ["shop"]).ok
    run(target, "create role other; grant other to operator; grant create, usage on schema shop to other; "
        "alter table shop.orders owner to other; alter table shop.orders enable row level security")  # fmt: skip
    objects.repair(operator, objects.missing(source, operator, ["shop"]).repairable())
    run(target, "alter table shop.orders owner to owner_of_all")
    assert objects.missing(source, target, ["shop"]).ok
    with target.session() as session:
        owners = session.execute(
            "select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'shop'::regnamespace"
        )
        assert owners.fetchall() == [("owner_of_all",)]


def test_a_schema_without_tables_is_an_error_and_not_a_complete_target(database: Callable[[str], Database]) -> None:
    with pytest.raises(DatabaseError, match="no table in the schema 'shopp'"):
        objects.missing(database(SOURCE), database(SOURCE), ["shop", "shopp"])


def test_a_reader_without_any_privilege_on_rows_can_look(
    server: postgres.Server, database: Callable[[str], Database]
) -> None:
    source, target = database(SOURCE), database(MINIMAL)
    with server.connect("postgres") as session, pytest.MonkeyPatch.context():
        session.execute("create role looker login password 'x'")
    looker = Database("postgresql", "127.0.0.1", server.port, source.name, "looker", "x")
    assert objects.missing(looker, target, ["shop"]) == objects.missing(source, target, ["shop"])
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        server.connect(source.name, user="looker", password="x") as s,
    ):
        s.execute("select * from shop.orders")


CHECK = "Customers_chk_1" if MYSQL else "CONSTRAINT_1"  # how the server names a check that has no name


@pytest.fixture(scope="module")
def maria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MySQLOrMariaDB]:
    with mariadb_server(tmp_path_factory.mktemp("maria")) as running:
        yield running


def test_from_mysql_what_is_missing_is_found_by_signature(
    maria: MySQLOrMariaDB, database: Callable[[str], Database]
) -> None:
    source = in_mariadb(maria, "Shop", [
        "create table Customers (Id int unsigned auto_increment primary key, email varchar(200) not null unique, "
        "name varchar(80) default 'nobody', doc json, bio text, key name_email (name, email), key part (bio(20)), "
        "fulltext key words (bio), check (length(email) > 3))",
        "create table `order` (id int primary key, customer int unsigned, `group` int, key (`group`), "
        "foreign key (customer) references Customers (Id) on delete cascade)",
        "create view emails as select email from Customers",
        "create trigger logged before insert on `order` for each row set new.id = new.id",
    ])  # fmt: skip
    target = database("""create schema shop; create table shop.customers (id bigint primary key, email text, name text,
        doc jsonb, bio text); create table shop."order" (id int primary key, customer bigint, "group" int)""")
    found = objects.missing(source, target, ["Shop"])
    told = {(item.kind, item.name): item.ddl for item in found.objects}
    assert told.keys() == {
        ("default", "Id"), ("default", "name"), ("unique index", "email"), ("index", "name_email"), ("index", "part"),
        ("index", "words"), ("index", "group"), ("index", "customer"), ("foreign key", "order_ibfk_1"),
        ("check", CHECK), ("view", "emails"), ("trigger", "logged"),
    }  # fmt: skip
    assert {name for (_, name), ddl in told.items() if not ddl} == {
        "name", "part", "words", CHECK, "emails", "logged",
    }  # fmt: skip
    objects.repair(target, found.repairable(), concurrently=True)
    left = objects.missing(source, target, ["Shop"])
    assert {item.name for item in left.objects} == {"name", "part", "words", CHECK, "emails", "logged"}
