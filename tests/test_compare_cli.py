"""`runbook compare-tables`: what a person types, what is printed, and the exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from runbook_lib import Runbook, cli, compare_cli, tables
from runbook_lib.databases import Database
from runbook_lib.errors import DatabaseError
from runbook_lib.settings import PACKAGE_ROOT
from tests.servers import in_mariadb, in_postgresql, mariadb_server, postgresql, series
from tests.throwaway import ThrowawayLab

SCRIPT = """
create table orders (id int primary key, total numeric); insert into orders select i, i from generate_series(1, 9) i"""
Compare = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Database]]:
    """Two databases; one row of `orders` differs, all of `same` are the same."""
    with postgresql(tmp_path_factory.mktemp("server")) as server:
        same = f"{SCRIPT}; create table same as select * from orders; alter table same add primary key (id)"
        yield [
            in_postgresql(server, "a", same),
            in_postgresql(server, "b", f"{same}; update orders set total = 5.0 where id = 5"),
        ]


@pytest.fixture
def compare(sides: list[Database]) -> Compare:
    """Runs the command; answers with its exit code, standard output and standard error."""

    def run(*arguments: str, passwords: bool = True, **variables: str) -> tuple[int, str, str]:
        where = [str(side) for side in sides]
        secrets = ["--source-password", "env:SECRET", "--target-password", "env:SECRET"] if passwords else []
        command = [sys.executable, "-m", "runbook_lib.cli", "compare-tables", *where, *arguments, *secrets]
        environment = {**os.environ, "SECRET": sides[0].password, **variables}
        done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE_ROOT, env=environment)
        assert sides[0].password not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def test_equal_tables_end_with_0(compare: Compare) -> None:
    code, said, _ = compare("public.same")
    assert (code, said.splitlines()[0]) == (
        0, "The rows are the same. 9 rows in 1 table are the same, by md5 of every row's canonical text.",
    )  # fmt: skip


def test_a_difference_ends_with_1_and_is_shown(compare: Compare) -> None:
    code, said, _ = compare("--pause", "0")
    assert code == 1
    assert "public.orders: 1 different. It still held after 3 rounds of looking again." in said
    assert said.splitlines()[-1].split() == ["id=5", "different", "total", "5", "5.0"]


def test_the_result_can_be_had_for_machines(compare: Compare) -> None:
    code, said, _ = compare("--json", "--rounds", "0", "--exclude", "%same")
    found = json.loads(said)
    assert (code, [table["name"] for table in found["tables"]]) == (1, ["public.orders"])
    assert found["tables"][0]["differences"][0]["target"] == {"id": "5", "total": "5.0"}


def test_a_terminal_is_told_how_far_it_is_and_what_machines_read_stays_json(compare: Compare) -> None:
    terminal = {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "200"}
    code, said, aside = compare("public.same", "--json", **terminal)
    assert (code, json.loads(said)["ok"], "\x1b" in said) == (0, True, False)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", aside)
    assert re.search(r"public\.same \(1 of 1\), comparing .* 9/9", shown), shown
    _, said, aside = compare("public.orders", "--json", "--rounds", "0", **terminal)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", aside)
    assert re.search(r"public\.orders \(1 of 1\), comparing 1 differ .* 9/9", shown), shown
    assert json.loads(said)["tables"][0]["different"] == 1
    assert not compare("public.same", "--json")[2].strip()  # no terminal, no bar


def test_tables_that_dms_keeps_for_itself_are_left_out_unless_they_are_named(
    compare: Compare, sides: list[Database]
) -> None:
    with sides[1].session(read_only=False) as session:
        session.execute("create table awsdms_status (n int primary key)")
    try:
        code, said, aside = compare("--exclude", "%orders")
        assert (code, "awsdms" in said, "Left out, as DMS's own: public.awsdms_status." in aside) == (0, False, True)
        assert compare("public.awsdms_status")[0] == 1
    finally:
        with sides[1].session(read_only=False) as session:
            session.execute("drop table awsdms_status")


def test_a_side_of_an_environment_that_is_none_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["runbook", "compare-tables", "lab:src", "lab:target"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, "lab:source or lab:target" in capsys.readouterr().err) == (2, True)


def test_what_was_found_is_kept_with_the_environment_that_was_opened_and_no_row_of_it(
    sides: list[Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    kept: list[dict[str, Any]] = []

    class Shop:
        def __init__(self, name: str) -> None:
            opened.append(name)

        def database(self, side: str) -> Database:
            return sides[("source", "target").index(side)]

        def keep(self, found: dict[str, Any]) -> None:
            kept.append(found)

    app = typer.Typer()
    compare_cli.register(app, Shop)
    done = CliRunner().invoke(app, ["shop:source", "shop:target", "public.orders", "--pause", "0"])
    assert (done.exit_code, opened, len(kept)) == (1, ["shop"], 1), done.output
    assert (kept[0]["ok"], kept[0]["tables"][0]["different"], kept[0]["source"]) == (False, 1, str(sides[0]))
    assert "differences" not in kept[0]["tables"][0]
    monkeypatch.setattr(tables, "compare", lambda *_: (_ for _ in ()).throw(DatabaseError("an index lies")))
    assert isinstance(CliRunner().invoke(app, ["shop:source", "shop:target"]).exception, DatabaseError)
    assert (kept[1]["ok"], kept[1]["reason"]) == (False, "an index lies")


def test_the_labs_databases_are_compared_and_the_record_of_the_run_says_so(lab: ThrowawayLab) -> None:
    lab.reset("06")
    rb = Runbook.open("lab", notebook="06_validate_dms")
    assert rb.dms.replicate().ok
    command = [sys.executable, "-m", "runbook_lib.cli", "compare-tables", "lab:source", "lab:target", "shop.%"]
    command += ["--exclude", "shop.runbook_heartbeat"]
    try:
        same = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE_ROOT)
        assert same.returncode == 0, same.stdout + same.stderr
        with rb.dms.target.session(read_only=False) as session:
            session.execute("set role dms")
            session.execute("update shop.customers set name = name || ' ' where id = 42")
        other = subprocess.run([*command, "--pause", "0"], capture_output=True, text=True, cwd=PACKAGE_ROOT)
        assert (other.returncode, "shop.customers: 1 different" in other.stdout) == (1, True), other.stderr
        kept = [event for event in rb.run.events.read() if event.get("key") == "tables compared"]
        assert [(event["command"], event["value"]["ok"]) for event in kept] == [
            ("runbook compare-tables", True), ("runbook compare-tables", False),
        ]  # fmt: skip
        assert kept[0]["value"]["source"] == str(rb.dms.source)
        assert sum(table["source_rows"] for table in kept[0]["value"]["tables"]) > 1000
    finally:
        lab.reset("00")


def test_a_mariadb_is_compared_by_its_address_gently_and_under_other_names(
    sides: list[Database], tmp_path: Path
) -> None:
    made = SCRIPT.replace("from generate_series(1, 9) i", f"from (select seq i from {series(1, 9)}) n").split(";")
    with mariadb_server(tmp_path / "maria") as server:
        maria = in_mariadb(server, "shop", made)
        command = [
            sys.executable, "-m", "runbook_lib.cli", "compare-tables", str(maria), str(sides[0]), "shop.orders",
            "--source-password", "env:MARIA", "--target-password", "env:SECRET", "--gentle", "--pause", "0",
        ]  # fmt: skip
        secrets = {**os.environ, "MARIA": maria.password, "SECRET": sides[0].password}
        said = [
            subprocess.run([*command, *more], capture_output=True, text=True, cwd=PACKAGE_ROOT, env=secrets)
            for more in (["--rename", "shop.orders=public.same"], ["--rename", "shop.orders=public.sam"], [])
        ]
    assert command[4].startswith("mysql://")
    assert [done.returncode for done in said] == [0, 1, 1], [done.stderr for done in said]
    assert said[0].stdout.startswith("The rows are the same. 9 rows in 1 table are the same")
    assert "not on the target, where it is to be called public.sam" in said[1].stdout
    assert "shop.orders: not on the target" in said[2].stdout


def test_columns_can_be_left_out(compare: Compare) -> None:
    assert compare("public.orders", "--column", "public.orders=id")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["public.ordres"], 3, "Did you mean public.orders?"),
        (["--method", "sha"], 2, "md5 or native"),
        (["--column", "public.orders"], 2, "write schema.table=name,name"),
        (["--rounds", "-1"], 2, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    compare: Compare, arguments: list[str], code: int, said: str
) -> None:
    found, out, err = compare(*arguments)
    assert (found, said in out + err) == (code, True), out + err


def test_a_folder_as_checkpoint_is_an_error_in_a_sentence(compare: Compare, tmp_path: Path) -> None:
    code, out, err = compare("public.same", "--checkpoint", str(tmp_path))
    assert (code, "cannot be used: Is a directory" in out + err) == (3, True), out + err


def test_a_bug_ends_with_4_and_not_as_a_difference_would(
    sides: list[Database], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", sides[0].password)
    password = ["--source-password", "env:SECRET", "--target-password", "env:SECRET"]
    monkeypatch.setattr(sys, "argv", ["runbook", "compare-tables", *map(str, sides), "public.same", *password])
    monkeypatch.setattr(tables, "compare", lambda *_: 1 / 0)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, "ZeroDivisionError" in capsys.readouterr().err) == (4, True)


def test_a_password_is_taken_by_name_only(compare: Compare, sides: list[Database]) -> None:
    code, out, err = compare("--source-password", sides[0].password[:6], passwords=False)
    assert (code, "by the name of a secret" in " ".join((out + err).split())) == (2, True)
    code, out, err = compare("public.same", passwords=False)
    assert (code, "no password supplied" in out + err) == (3, True)
