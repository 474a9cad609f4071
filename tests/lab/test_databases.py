"""The lab's two databases: seeded, reached by their roles, killed, adopted, forgotten; and the verbs about them."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from runbook_lib.errors import LabError
from runbook_lib.lab.databases import SIDES, Databases
from runbook_lib.lab.postgres import Server
from runbook_lib.lab.shop import edition

from .dms_world import sown
from .test_daemon import StateFolder

ROWS = {
    "audit_log": 16000,
    "customers": 4000,
    "documents": 150,
    "order_items": 39955,
    "orders": 16000,
    "payments": 12780,
    "products": 400,
    "runbook_heartbeat": 0,
}
TABLES = "select relname from pg_class where relnamespace = 'shop'::regnamespace and relkind = 'r' order by 1"


@pytest.fixture(scope="module")
def seeded(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    databases = Databases(sown(seed, tmp_path_factory.mktemp("seeded") / "lab"))
    yield databases
    databases.close()


@pytest.fixture(scope="module")
def untouched(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Another lab's, for who only looks."""
    databases = Databases(sown(seed, tmp_path_factory.mktemp("untouched") / "lab"))
    yield databases
    databases.close()


@pytest.fixture
def databases(seeded: Databases) -> Databases:
    """Both as they are at first."""
    seeded.forget()
    seeded.ready()
    return seeded


def one(session: psycopg.Connection[Any], query: str) -> Any:
    row = session.execute(query).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def digests(databases: Databases) -> dict[str, tuple[int, str]]:
    """Of every table of the shop: how many rows, and a digest of all of them."""
    with databases.connect("source") as session:
        return {
            table: one(
                session, f"select count(*), md5(string_agg(md5(t::text), '' order by t::text)) from shop.{table} t"
            )
            for (table,) in session.execute(TABLES).fetchall()
        }


def eventually(look: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_the_seed_has_its_rows(untouched: Databases) -> None:
    assert {table: rows for table, (rows, _) in digests(untouched).items()} == ROWS


def test_the_rows_are_what_makes_comparing_hard(untouched: Databases) -> None:
    with untouched.connect("source") as session:
        assert one(session, "select count(*) > 100 from shop.customers where name ~ '[가-힣]'")
        assert one(session, "select count(*) > 100 from shop.customers where name like '%佐藤%'")
        assert one(session, "select count(*) > 500 and count(*) < 3000 from shop.customers where phone is null")
        assert one(session, "select max(length(body)) > 50000 from shop.documents")
        assert one(session, "select count(*) > 30 from shop.documents where scan is null")
        assert one(session, "select count(distinct note) from shop.orders") == 7
        assert one(
            session,
            "select count(*) > 15000 from shop.orders where extract(microsecond from placed_at)::int % 1000 > 0",
        )
        assert one(
            session,
            "select bool_and(reltuples >= 0) from pg_class where relnamespace = 'shop'::regnamespace and relkind = 'r'",
        )
        assert one(session, "select count(*) from shop.open_orders") == 1623


def test_sequences_end_where_the_rows_end(untouched: Databases) -> None:
    with untouched.connect("source") as session:
        found = session.execute("select sequencename, last_value from pg_sequences order by 1").fetchall()
        ends = [("customers", 4000), ("documents", 150), ("orders", 16000)]
        assert found == [(f"{table}_id_seq", end) for table, end in ends]
        for table, end in ends:
            assert one(session, f"select max(id) from shop.{table}") == end


def test_the_source_is_worth_migrating(untouched: Databases) -> None:
    with untouched.connect("source") as session:
        indexes = one(session, "select string_agg(indexdef, ' ') from pg_indexes where schemaname = 'shop'")
        assert all(
            word in indexes for word in ("lower(note)", "WHERE (status = 'open'", "USING gin", "INCLUDE (total)")
        )
        kinds = one(
            session, "select string_agg(contype::text, '') from pg_constraint where connamespace = 'shop'::regnamespace"
        )
        assert kinds.count("f") == 4 and kinds.count("c") == 3 and kinds.count("u") == 2
        assert one(session, "select relreplident::text from pg_class where relname = 'audit_log'") == "f"
        assert (
            one(
                session,
                "select count(*) from pg_constraint where conrelid = 'shop.audit_log'::regclass and contype = 'p'",
            )
            == 0
        )


def test_a_change_of_an_order_is_in_the_audit_log(databases: Databases) -> None:
    with databases.connect("source", "shop") as session:
        session.execute("update shop.orders set status = 'cancelled' where id = 1")
        session.execute("delete from shop.orders where id = 1")
        said = session.execute(
            "select order_id, action, new_status, changed_by from shop.audit_log order by changed_at desc limit 2"
        ).fetchall()
    assert said == [(1, "delete", None, "shop"), (1, "update", "cancelled", "shop")]


def test_the_roles_of_the_source_may_what_they_need_and_no_more(databases: Databases) -> None:
    with databases.connect("source", "shop") as session:
        session.execute("create table shop.later as select 1 as one")
    for role in ("dms", "runbook"):
        with databases.connect("source", role) as session:
            for table in (*ROWS, "later", "open_orders", "orders_id_seq"):
                session.execute(f"select * from shop.{table} limit 1")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("update shop.orders set note = null where id = 1")
    with databases.connect("source", "runbook") as session:
        session.execute(
            "insert into shop.runbook_heartbeat values (1, now(), 'a') on conflict (id) do update set token = 'b'"
        )
        session.execute("update shop.runbook_heartbeat set token = 'c' where id = 1")
    with databases.connect("source", "dms", replication="database") as session:
        assert one(session, "select rolreplication from pg_roles where rolname = current_user")


def test_on_the_target_the_runbook_may_repair_what_dms_made(databases: Databases) -> None:
    with databases.connect("target", "dms") as session:
        session.execute("create table shop.orders (id bigint generated by default as identity primary key, note text)")
        session.execute("create table public.awsdms_status (task text)")
    with databases.connect("target", "runbook") as session:
        session.execute("create index on shop.orders (note)")
        session.execute("alter table shop.orders add check (id > 0)")
        session.execute("create view shop.all_orders as select * from shop.orders")
        assert one(session, "select setval('shop.orders_id_seq', 1000)") == 1000
        session.execute("select * from public.awsdms_status")


def test_a_killed_server_is_started_again_by_itself(databases: Databases) -> None:
    with databases.connect("source", "shop") as session:
        session.execute("update shop.orders set note = 'committed' where id = 7")
    for side in SIDES:
        pid = databases.server(side).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda side=side, pid=pid: databases.server(side).pid not in (None, pid))  # type: ignore[misc]
        with databases.connect(side) as session:
            assert one(session, "select 1") == 1
    with databases.connect("source") as session:
        assert one(session, "select note from shop.orders where id = 7") == "committed"


def test_whoever_asks_after_both_were_killed_finds_them_ready(databases: Databases) -> None:
    ports = [databases.server(side).port for side in SIDES]
    for side in SIDES:
        os.kill(databases.server(side).pid or 0, signal.SIGKILL)
    databases.ready()
    assert digests(databases)["orders"][0] == ROWS["orders"]
    assert [databases.server(side).port for side in SIDES] == ports


def test_a_killed_session_makes_nobody_wait_for_long(databases: Databases) -> None:
    with databases.connect("source") as session, pytest.raises(psycopg.OperationalError):
        os.kill(session.info.backend_pid, signal.SIGKILL)
        while True:
            session.execute("select 1")
    with databases.connect("source") as session:
        assert one(session, "select count(*) from shop.products") == ROWS["products"]


def test_forgetting_deletes_the_data_and_keeps_passwords_and_ports(databases: Databases) -> None:
    before = databases.described()
    with databases.connect("source", "shop") as session:
        session.execute("delete from shop.order_items")
    databases.forget()
    assert databases.up == {"source": False, "target": False} and not databases.source.data.exists()
    assert databases.described() == before
    assert digests(databases)["order_items"][0] == ROWS["order_items"]


def test_several_may_ask_at_once(seeded: Databases) -> None:
    seeded.forget()
    with ThreadPoolExecutor(4) as several:
        counts = several.map(lambda _: digests(seeded)["orders"][0], range(4))
        assert list(counts) == [ROWS["orders"]] * 4


SEEDING = """
import sys
from pathlib import Path
from runbook_lib.lab.databases import Databases
Databases(Path(sys.argv[1])).ready()
"""


def test_a_seeding_that_is_killed_is_begun_anew_and_is_the_same_in_every_lab(
    tmp_path: Path, untouched: Databases
) -> None:
    killed = subprocess.Popen([sys.executable, "-c", SEEDING, str(tmp_path)])
    (half_made,) = (Server(path, "") for path in [tmp_path / "databases-cache" / edition() / "source.new"])
    eventually(lambda: (half_made.data / "log" / "postgresql.json").exists() and half_made.pid is not None)
    time.sleep(0.3)  # it is in the middle of its rows
    killed.kill()
    killed.wait()
    left = half_made.pid
    assert left is not None and not half_made.folder.with_name("source").exists()
    databases = Databases(tmp_path)
    databases.ready()
    assert digests(databases) == digests(untouched)
    assert half_made.pid is None and not half_made.folder.exists()
    databases.close()


def test_templates_of_another_edition_are_removed(databases: Databases, seeded: Databases) -> None:
    old = seeded.source.folder.parents[1] / "databases-cache" / "shop-0" / "source"
    old.mkdir(parents=True)
    for path in (old.parent / ".DS_Store", old.parents[1] / ".DS_Store"):
        path.touch()
    databases.forget()
    databases.ready()
    assert {path.name for path in old.parents[1].iterdir()} == {edition(), ".DS_Store"}


def test_what_a_killed_lab_left_can_be_stopped_by_another(databases: Databases, seeded: Databases) -> None:
    other = Databases(seeded.source.folder.parents[1])
    assert other.up == {"source": True, "target": True}
    pids = [server.pid for server in (databases.source, databases.target)]
    other.ready()
    assert [server.pid for server in (other.source, other.target)] == pids
    databases._over.set()  # type: ignore[union-attr]  # it is the one that was killed
    databases._over = None
    other.close()
    assert databases.up == {"source": False, "target": False}


def test_a_lab_that_stops_starts_none(tmp_path: Path) -> None:
    databases = Databases(tmp_path)
    databases.close()
    with pytest.raises(LabError, match="stopping"):
        databases.ready()
    assert not (tmp_path / "databases").exists()


def test_passwords_are_for_the_owner_and_in_no_repr(databases: Databases, seeded: Databases) -> None:
    databases.described()
    root = seeded.source.folder.parents[1]
    for name in ("databases.json", "pgpass"):
        assert stat.S_IMODE((root / name).stat().st_mode) == 0o600
    words = {databases.password(side, role) for side, role in (("source", "dms"), ("target", "dms"))}
    assert len(words) == 2 and not any(word in repr(databases) + repr(databases.source) for word in words)
    log = "".join(databases.source.log_lines())
    assert not any(databases.password("source", role) in log for role in ("shop", "dms", "runbook"))
    for side in SIDES:  # nobody sees the statements that DMS's sessions execute
        with databases.connect(side) as session, databases.connect(side, "runbook") as curious:
            look = f"select query from pg_stat_activity where pid = {session.info.backend_pid}"
            assert one(curious, look) == "<insufficient privilege>"


# The same in a running lab.


@pytest.fixture(scope="module")
def state(seed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateFolder]:
    folder = StateFolder(sown(seed, tmp_path_factory.mktemp("lab") / "state"))
    yield folder
    folder.run("stop")


@pytest.fixture
def lab(state: StateFolder) -> StateFolder:
    """A running lab."""
    state.start()
    return state


def servers(lab: StateFolder) -> dict[str, int | None]:
    databases = Databases(lab.path)
    return {side: databases.server(side).pid for side in SIDES}


def test_a_lab_starts_them_when_they_are_asked_for(lab: StateFolder) -> None:
    assert lab.status()["databases"] == {"source": False, "target": False}
    said = lab.run("databases").stdout
    found = json.loads(lab.run("databases", "--json").stdout)
    assert lab.status()["databases"] == {"source": True, "target": True}
    passwords = [Databases(lab.path).password(side, "runbook") for side in SIDES]
    assert not any(password in said + json.dumps(found) for password in passwords)
    assert passwords[0] in lab.run("databases", "--show-passwords").stdout
    line = next(line for line in said.splitlines() if "PGPASSFILE" in line)
    asked = subprocess.run(
        f"{line} -Atc 'select count(*) from shop.orders'", shell=True, capture_output=True, text=True
    )
    assert asked.stdout == "16000\n", asked.stderr


def test_secrets_manager_holds_what_opens_them(lab: StateFolder) -> None:
    lab.run("reset")
    client = lab.client("secretsmanager")
    assert {secret["Name"] for secret in client.list_secrets()["SecretList"]} == {
        "migration-lab/source",
        "migration-lab/target",
    }
    for side in SIDES:
        secret = json.loads(client.get_secret_value(SecretId=f"migration-lab/{side}")["SecretString"])
        assert set(secret) == {"username", "password", "engine", "host", "port", "dbname"}
        psycopg.connect(
            host=secret["host"], port=secret["port"], dbname=secret["dbname"], user=secret["username"],
            password=secret["password"],
        ).close()  # fmt: skip
    client.put_secret_value(SecretId="migration-lab/source", SecretString='{"password": "another"}')
    assert client.get_secret_value(SecretId="migration-lab/source")["SecretString"] == '{"password": "another"}'


def test_a_killed_daemon_finds_its_databases_again(lab: StateFolder) -> None:
    lab.run("databases")
    before = servers(lab)
    with Databases(lab.path).source.connect("shop") as session:
        session.execute("update shop.orders set note = 'kept' where id = 3")
    os.kill(lab.start()["pid"], signal.SIGKILL)
    lab.start()
    lab.run("databases")
    assert servers(lab) == before
    with Databases(lab.path).source.connect("shop") as session:
        assert one(session, "select note from shop.orders where id = 3") == "kept"


def test_stop_and_reset_end_the_databases_of_a_killed_daemon(lab: StateFolder) -> None:
    for verb in ("stop", "reset"):
        lab.run("databases")
        os.kill(lab.start()["pid"], signal.SIGKILL)
        eventually(lambda: not lab.status()["running"])
        assert None not in servers(lab).values()
        lab.run(verb)
        assert servers(lab) == {"source": None, "target": None}


def test_a_stopped_lab_has_stopped_its_databases_and_keeps_their_rows(lab: StateFolder) -> None:
    lab.run("databases")
    with Databases(lab.path).source.connect("shop") as session:
        session.execute("update shop.orders set note = 'kept' where id = 5")
    lab.run("stop")
    assert servers(lab) == {"source": None, "target": None}
    lab.run("databases")
    with Databases(lab.path).source.connect("shop") as session:
        assert one(session, "select note from shop.orders where id = 5") == "kept"
    lab.run("reset")
    assert lab.status()["databases"] == {"source": False, "target": False}


def test_the_workload_goes_on_after_a_daemon_was_killed_until_it_is_stopped(lab: StateFolder) -> None:
    assert "on, 50 transactions a second" in lab.run("workload", "start", "--rate", "50").stdout
    eventually(lambda: lab.status()["workload"]["committed"] > 5)
    os.kill(lab.start()["pid"], signal.SIGKILL)
    lab.start()
    eventually(lambda: lab.status()["workload"]["committed"] > 5)
    assert "off" in lab.run("workload", "stop").stdout and "off" in lab.run("workload", "status").stdout
    wrong = lab.run("workload", "start", "--rate", "0", check=False)
    assert wrong.returncode == 1 and "The rate is above 0" in wrong.stderr
