"""Notebook 06 on a broken world: each planted fault fails the check that is meant for it, and mending it repairs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from runbook_lib import Runbook
from runbook_lib.errors import AwsError, CheckFailed, DatabaseError, SettingsError
from runbook_lib.settings import PACKAGE_ROOT
from tests.servers import need_mariadb
from tests.throwaway import ThrowawayLab

SETTLED = {"patience_seconds": 6, "timeout_minutes": 0.5}  # on a lab everything arrives in seconds
ROWS = "The rows are the same on both sides"
LAG = "The lag is zero now"


def walk(environment: str, **parameters: Any) -> Runbook:
    """Run the notebook's own code cells in this process, to their end or to the first check that fails."""
    names: dict[str, Any] = {}
    for cell in nbformat.read(PACKAGE_ROOT / "notebooks/06_validate_dms.ipynb", as_version=4).cells:
        if cell.cell_type != "code":
            continue
        try:
            exec(cell.source, names)
        except CheckFailed:
            break
        if "parameters" in cell.metadata.get("tags", []):
            names.update(environment=environment, **parameters)
    rb = names["rb"]
    assert isinstance(rb, Runbook)
    return rb


def now() -> str:
    return datetime.now(UTC).isoformat()


def failed(rb: Runbook) -> list[tuple[str, str]]:
    """The checks that failed, and why."""
    return [(check.name, check.sentence()) for check in rb.checks if not check.ok]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The lab's environment with less patience."""
    data = yaml.safe_load((PACKAGE_ROOT / "parameters/lab.yaml").read_text())
    data["environment"] = "impatient"
    data["notebooks"]["06_validate_dms"] |= SETTLED
    file = tmp_path_factory.mktemp("environment") / "impatient.yaml"
    file.write_text(yaml.safe_dump(data))
    return str(file)


@pytest.fixture(scope="module")
def validated(lab: ThrowawayLab, environment: str) -> Iterator[str]:
    """A task that replicates, everything repaired and proven."""
    lab.reset("06")
    rb = walk(environment)
    assert not failed(rb), failed(rb)
    assert len(rb.checks) == 14
    yield environment
    lab.reset("00")


@pytest.fixture(autouse=True)
def mended(lab: ThrowawayLab) -> Iterator[None]:
    yield
    lab.verb("mend")


def test_a_second_walk_starts_nothing_repairs_nothing_and_is_green(validated: str) -> None:
    rb = walk(validated, logs_since=None)
    assert not failed(rb), failed(rb)
    recorded = [event for event in rb.run.events.read() if event["kind"] in ("sql-end", "aws-call")]
    changes = [event.get("operation") or event["kind"] for event in recorded if event.get("changes")]
    assert changes == ["StartReplicationTask", "sql-end", "sql-end"]  # of the first walk, in the same run folder


@pytest.mark.parametrize(
    ("fault", "check", "said"),
    [
        ("dms-role-missing", "The roles that DMS needs exist", "dms-vpc-role: missing"),
        ("endpoint-failing", "Both endpoints answer", "target-postgres: "),
        ("table-without-grants", "Every mapped table is loaded", "shop.returns"),
        ("apply-conflict", "What was captured was applied", "Key (id)=(-17)"),
        ("target-row-changed", ROWS, "shop.customers: 1 different"),
        ("target-row-lost", ROWS, "shop.customers: 1 missing on target"),
        ("sequence-behind", "No sequence is behind", "shop.orders_id_seq is behind"),
        ("replication-lag", LAG, "was not on the target"),
        ("swap-pause", "The logs have no known trouble", "swap pause"),
    ],
)
def test_a_planted_fault_fails_the_check_meant_for_it_and_mending_repairs(
    lab: ThrowawayLab, validated: str, fault: str, check: str, said: str
) -> None:
    before = now()
    lab.verb("break", fault)
    found = failed(walk(validated, apply_repairs="nothing", logs_since=before))
    assert [name for name, _ in found] == [check], found
    assert said in found[0][1]
    lab.verb("mend", fault)
    rb = Runbook.open(validated, notebook="06_validate_dms")
    assert rb.dms._wait(rb.dms.loaded, lambda loaded: loaded.ok, timeout=20).ok  # PostgreSQL tries again after 5 s
    again = failed(walk(validated, apply_repairs="nothing", logs_since=now()))
    assert not again, again


def test_a_row_that_differs_is_shown_with_its_key_and_both_values(lab: ThrowawayLab, validated: str) -> None:
    lab.verb("break", "target-row-changed")
    rb = Runbook.open(validated, notebook="06_validate_dms")
    shown = repr(rb.dms.compare_rows())
    assert "id=42" in shown and "name" in shown and " jr." in shown


def test_the_logs_tell_the_swap_pause_and_what_to_do(lab: ThrowawayLab, validated: str) -> None:
    before = now()
    lab.verb("break", "swap-pause")
    rb = Runbook.open(validated, notebook="06_validate_dms", logs_since=before)
    logs = rb.dms._wait(rb.dms.logs, lambda seen: not seen.ok, timeout=10)
    assert "swap pause (1 line)" in logs.reason and "1048576000 bytes" in logs.reason
    assert "BatchApplyEnabled" in repr(logs)
    lab.verb("mend")
    assert rb.dms._wait(rb.dms.logs, lambda seen: seen.ok, timeout=10).ok


def test_a_sequence_that_is_behind_collides_for_real_and_is_repaired_when_asked(
    lab: ThrowawayLab, validated: str
) -> None:
    lab.verb("break", "sequence-behind")
    rb = Runbook.open(validated, notebook="06_validate_dms")
    seen = rb.dms.sequences()
    insert = "insert into shop.orders (customer_id, placed_at, total) values (1, now(), 1)"
    with pytest.raises(DatabaseError, match="duplicate key"), rb.dms.target.session(read_only=False) as session:
        session.execute(insert)
    assert "select setval('shop.orders_id_seq'" in repr(seen)
    assert rb.dms.repair_sequences(seen).ok


def test_changes_that_are_off_leave_everything_as_it_is(lab: ThrowawayLab, validated: str, tmp_path: Path) -> None:
    data = yaml.safe_load(Path(validated).read_text()) | {"environment": "looking", "allow_changes": False}
    data["notebooks"]["06_validate_dms"] |= {"apply_repairs": "nothing", "heartbeat_table": None, "start_task": False}
    data["notebooks"]["06_validate_dms"]["exclude"] = ["shop.runbook_heartbeat"]
    file = tmp_path / "looking.yaml"
    file.write_text(yaml.safe_dump(data))
    rb = walk(str(file), logs_since=now())
    assert not failed(rb), failed(rb)
    assert not [event for event in rb.run.events.read() if event.get("changes") and event["kind"] != "note"]
    assert "no heartbeat row was asked for" in next(c.reason for c in rb.checks if c.name == LAG)


def test_wrong_credentials_and_a_secret_that_is_not_there_are_clear_errors(validated: str, tmp_path: Path) -> None:
    data = yaml.safe_load(Path(validated).read_text()) | {"environment": "wrong"}
    file = tmp_path / "wrong.yaml"
    data["dms"]["source"]["password"] = "env:NOT_THE_PASSWORD"
    file.write_text(yaml.safe_dump(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOT_THE_PASSWORD", "guess")
        with pytest.raises(DatabaseError, match=r"password authentication failed.*Is it the right user"):
            _ = Runbook.open(str(file), notebook="06_validate_dms").dms.scope
    with pytest.raises(SettingsError, match="NOT_THE_PASSWORD is not set"):
        _ = Runbook.open(str(file), notebook="06_validate_dms").dms.scope
    data["dms"]["source"]["password"] = "secretsmanager:migration-lab/elsewhere"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(AwsError, match="ResourceNotFoundException"):
        _ = Runbook.open(str(file), notebook="06_validate_dms").dms.scope


def test_an_environment_without_databases_has_no_dms(validated: str, tmp_path: Path) -> None:
    data = yaml.safe_load(Path(validated).read_text()) | {"environment": "files", "dms": None}
    file = tmp_path / "files.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(SettingsError, match="has no section `dms`"):
        _ = Runbook.open(str(file), notebook="06_validate_dms").dms


def test_a_full_load_from_mariadb_is_proven_and_a_row_that_differs_is_told(lab: ThrowawayLab) -> None:
    need_mariadb()
    lab.reset("06")
    try:
        rb = walk("lab-mariadb")
        assert not failed(rb), failed(rb)
        not_asked = ["What was captured was applied", LAG, "Apply mode suits the load"]
        assert [check.name for check in rb.checks if not check.asked] == not_asked
        ends = [event for event in rb.run.events.read() if event["kind"] == "aws-call" and event.get("changes")]
        assert [event["operation"] for event in ends] == ["StartReplicationTask"]
        with rb.dms.target.session(read_only=False) as session:
            session.execute("set role dms")
            session.execute("update shop.customers set name = name || ' ' where id = 42")
        ((name, said),) = failed(walk("lab-mariadb"))  # it is not started again: the row stays as it is
        assert name == ROWS and "shop.customers: 1 different" in said
    finally:
        lab.verb("profile", "postgresql")
