"""A database is named without its password, reached read-only, and what goes wrong there is one clear sentence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from runbook_lib.databases import Database, from_url, secret
from runbook_lib.errors import DatabaseError
from tests.servers import in_postgresql, postgresql


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with postgresql(tmp_path_factory.mktemp("server")) as server:
        yield in_postgresql(server, "shop", "create table t (a int); insert into t values (1), (2)")


def test_a_url_says_where_and_who() -> None:
    found = from_url("postgres://me%40home@db.example:6000/shop?sslmode=require")
    assert found == Database("postgresql", "db.example", 6000, "shop", "me@home", options=(("sslmode", "require"),))
    assert from_url("mariadb://me@db/shop").port == 3306
    assert from_url("aurora-postgresql://me@db/shop").port == 5432


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("oracle://me@db/shop", "is not the address of a database"),
        ("shop", "is not the address of a database"),
        ("postgresql://me@db", "has no name"),
        ("postgresql:///shop", "has no host"),
        ("postgresql://me@db:many/shop", "Port could not be cast"),
    ],
)
def test_what_is_no_address_is_an_error(url: str, said: str) -> None:
    with pytest.raises(DatabaseError, match=said):
        from_url(url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(DatabaseError) as error:
        from_url("postgresql://me:hunter2@db/shop")
    assert "holds a password" in str(error.value) and "hunter2" not in str(error.value)


def test_a_password_is_never_shown() -> None:
    found = Database("postgresql", "db", 5432, "shop", "me").with_password("hunter2")
    assert found.password == "hunter2"
    assert "hunter2" not in f"{found} {found!r}"


def test_a_secret_is_read_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2")
    assert secret("env:SHOP_PASSWORD") == "hunter2"
    assert secret("vault:shop", {"vault": str.upper}) == "SHOP"
    with pytest.raises(DatabaseError, match="no environment variable NOWHERE"):
        secret("env:NOWHERE")
    with pytest.raises(DatabaseError, match="by the name of a secret") as error:
        secret("hunter2")
    assert "hunter2" not in str(error.value)


def test_a_session_can_only_read_unless_told(database: Database) -> None:
    with pytest.raises(DatabaseError, match="read-only transaction"), database.session() as session:
        session.execute("insert into t values (3)")
    with database.session(read_only=False) as session:
        session.execute("insert into t values (3); delete from t where a = 3")


def test_a_snapshot_is_of_one_moment_and_can_be_shared(database: Database) -> None:
    def count(session: object) -> int:
        return int(session.execute("select count(*) from t").fetchone()[0])  # type: ignore[attr-defined]

    with database.session(snapshot=True) as first, database.session(read_only=False) as writer:
        name = first.execute("select pg_export_snapshot()").fetchone()[0]
        writer.execute("insert into t values (4)")
        with database.session(snapshot=name) as second, database.session(snapshot=True) as third:
            assert (count(first), count(second), count(third)) == (2, 2, 3)
        writer.execute("delete from t where a = 4")


def test_a_statement_ends_when_its_time_is_over(database: Database) -> None:
    with pytest.raises(DatabaseError, match="Allow more time"), database.session(statement_timeout=0.05) as session:
        session.execute("select pg_sleep(10)")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "wrong"}, "does the secret hold its password"),
        ({"name": "nowhere"}, "spelt as the database spells it"),
        ({"port": 1}, "Is the address right"),
        ({"host": "nowhere.invalid"}, "Is the address right"),
    ],
)
def test_what_goes_wrong_is_said_with_the_database_and_what_to_do(
    database: Database, change: dict[str, object], said: str
) -> None:
    wrong = replace(database, **change)  # type: ignore[arg-type]
    with pytest.raises(DatabaseError) as error, wrong.session():
        pass
    assert str(wrong) in str(error.value) and said in str(error.value)
    assert database.password not in str(error.value)


def test_a_connection_is_closed_at_the_end(database: Database) -> None:
    with database.session() as session:
        pass
    assert session.closed


def test_options_of_the_url_reach_the_driver(database: Database) -> None:
    refused = replace(database, options=(("sslmode", "require"),))
    with pytest.raises(DatabaseError, match="SSL was required"), refused.session():
        pass
