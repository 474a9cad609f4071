"""Notebook 06 on a broken world: each planted fault fails the check that is meant for it, and mending it repairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from runbook_lib import Runbook
from runbook_lib.databases import Database
from runbook_lib.errors import AwsError, ChangeRefused, CheckFailed, DatabaseError, SettingsError
from runbook_lib.settings import PACKAGE_ROOT
from tests.servers import need_mariadb
from tests.throwaway import ThrowawayLab, client

SETTLED = {"patience_seconds": 6, "timeout_minutes": 0.5}  # on a lab everything arrives in seconds
ROWS = "The rows are the same on both sides"
LAG = "The lag is zero now"
LOGS = "The logs have no known trouble"
VALIDATED = "DMS's own validation says Validated"
OBJECTS = "Nothing is missing on the target"


def walk(environment: str, *, on: bool = False, **parameters: Any) -> Runbook:
    """Run the notebook's own code cells in this process, to their end or, unless `on`, to the first failing check."""
    names: dict[str, Any] = {}
    for cell in nbformat.read(PACKAGE_ROOT / "notebooks/06_validate_dms.ipynb", as_version=4).cells:
        if cell.cell_type != "code":
            continue
        try:
            exec(cell.source, names)
        except CheckFailed:
            if not on:
                break
        if "parameters" in cell.metadata.get("tags", []):
            names.update(environment=environment, **parameters)
    rb = names["rb"]
    assert isinstance(rb, Runbook)
    return rb


def now() -> str:
    return datetime.now(UTC).isoformat()


def owner_of_the_source(lab: ThrowawayLab) -> Database:
    """The shop's own connection."""
    side = json.loads(lab.verb("databases", "--json", "--show-passwords"))["sides"]["source"]
    return Database("postgresql", side["host"], side["port"], side["database"], "shop", side["users"]["shop"])


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
    lab.mend()


def test_a_second_walk_starts_nothing_repairs_nothing_and_is_green(validated: str) -> None:
    rb = walk(validated, logs_since=None)
    assert not failed(rb), failed(rb)
    recorded = [event for event in rb.run.events.read() if event["kind"] in ("sql-end", "aws-call")]
    changes = [event.get("operation") or event["kind"] for event in recorded if event.get("changes")]
    assert changes == ["StartReplicationTask", "sql-end", "sql-end"]  # of the first walk, in the same run folder


# The check that is meant for it comes first, then those that are no less true.
FAULTS = {
    "dms-role-missing": ("dms-vpc-role: missing", ["The roles that DMS needs exist"]),
    "endpoint-failing": ("target-postgres: ", ["Both endpoints answer"]),
    "table-without-grants": ("shop.returns", ["Every mapped table is loaded", VALIDATED, ROWS, LOGS]),
    "apply-conflict": ("Key (id)=(-17)", ["What was captured was applied", VALIDATED, ROWS, LOGS]),
    "target-row-changed": ("shop.customers: 1 different", [ROWS]),
    "target-row-lost": ("shop.customers: 1 missing on target", [ROWS]),
    "sequence-behind": ("shop.orders_id_seq is behind", ["No sequence is behind"]),
    "replication-lag": ("was not on the target", [LAG]),
    "swap-pause": ("swap pause", [LOGS, LAG]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_fails_the_check_meant_for_it_and_no_other_but_what_is_true_and_mending_repairs(
    lab: ThrowawayLab, validated: str, fault: str
) -> None:
    before, (said, checks) = now(), FAULTS[fault]
    lab.verb("break", fault)
    found = failed(walk(validated, on=True, apply_repairs="nothing", logs_since=before))
    assert [name for name, _ in found] == checks, found
    assert said in found[0][1]
    lab.verb("mend", fault)
    rb = Runbook.open(validated, notebook="06_validate_dms")
    assert rb.dms._wait(rb.dms.loaded, lambda loaded: loaded.ok, timeout=20).ok  # PostgreSQL tries again after 5 s
    again = failed(walk(validated, on=True, apply_repairs="nothing", logs_since=now()))
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
    lab.mend()
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


def test_it_is_green_while_changes_go_on_and_tells_the_one_row_that_differs(lab: ThrowawayLab, validated: str) -> None:
    lab.verb("workload", "start", "--rate", "50")
    try:
        rb = Runbook.open(validated, notebook="06_validate_dms")
        found = rb.dms.compare_rows()
        assert found.ok, found  # whether something was under way in that moment or not
        lab.verb("break", "target-row-changed")
        found = rb.dms.compare_rows()
        assert found.rounds == rb.knobs.rounds > 0
        differing = [(table.name, d.key, d.columns) for table in found.compared for d in table.differences]
        assert differing == [("shop.customers", {"id": "42"}, ("name",))], found
    finally:
        lab.verb("workload", "stop")


def test_every_statement_of_a_repair_is_shown_and_recorded_before_it_runs(
    lab: ThrowawayLab, validated: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rb = Runbook.open(validated, notebook="06_validate_dms", apply_repairs="everything")
    with rb.dms.target.session(read_only=False) as session:
        session.execute("set role dms")
        session.execute("drop index shop.orders_note_idx")
        session.execute("alter table shop.customers drop constraint customers_email_key")
    missing = rb.dms.missing_objects()
    assert not missing.ok
    capsys.readouterr()
    seen = len(list(rb.run.events.read()))
    assert rb.dms.repair_objects(missing).ok
    events = [event for event in list(rb.run.events.read())[seen:] if event["kind"] in ("sql", "sql-end")]
    assert [event["kind"] for event in events] == ["sql"] * len(missing.objects) + ["sql-end"]
    shown = capsys.readouterr().out
    assert all(f"{event['statement']};" in shown for event in events[:-1]), shown


def test_before_the_cutover_all_is_made_but_what_would_stop_the_replication(lab: ThrowawayLab, validated: str) -> None:
    rb = Runbook.open(validated, notebook="06_validate_dms", apply_repairs="before cutover")
    with rb.dms.target.session(read_only=False) as session:
        session.execute("set role dms")
        session.execute("drop index shop.orders_note_idx")
        session.execute("drop trigger orders_audit on shop.orders")
        session.execute("alter table shop.payments drop constraint payments_order_id_fkey")
    left = rb.dms.repair_objects(rb.dms.missing_objects())
    assert {(found.kind, found.name) for found in left.objects} == {
        ("trigger", "orders_audit"), ("foreign key", "payments_order_id_fkey"),
    }  # fmt: skip
    assert "at cutover" in repr(left) and not left.ok
    everything = Runbook.open(validated, notebook="06_validate_dms", apply_repairs="everything")
    assert everything.dms.repair_objects(left).ok


def test_repairs_outside_what_was_confirmed_change_nothing(lab: ThrowawayLab, validated: str) -> None:
    lab.verb("break", "sequence-behind")
    rb = Runbook.open(validated, notebook="06_validate_dms", apply_repairs="everything", confirm="999999999999")
    behind, before = rb.dms.sequences(), len(list(rb.run.events.read()))
    assert not behind.ok
    with pytest.raises(ChangeRefused, match="confirm"):
        rb.dms.repair_sequences(behind)
    assert not rb.dms.sequences().ok
    assert not [event for event in list(rb.run.events.read())[before:] if event["kind"] in ("sql", "sql-end")]


def test_roles_are_made_and_completed_only_when_that_is_asked_for(lab: ThrowawayLab, validated: str) -> None:
    iam = client(lab, "iam")
    nobody = {
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]
    }
    iam.update_assume_role_policy(
        RoleName="dms-vpc-role", PolicyDocument=json.dumps({"Version": "2012-10-17", **nobody})
    )
    (attached,) = iam.list_attached_role_policies(RoleName="dms-cloudwatch-logs-role")["AttachedPolicies"]
    iam.detach_role_policy(RoleName="dms-cloudwatch-logs-role", PolicyArn=attached["PolicyArn"])
    looked = Runbook.open(validated, notebook="06_validate_dms").dms.roles()
    assert (looked.ok, looked.created) == (False, ())
    assert (
        "dms-vpc-role: does not trust" in looked.reason
        and "dms-cloudwatch-logs-role: lacks the policy" in looked.reason
    )
    made = Runbook.open(validated, notebook="06_validate_dms", create_roles=True).dms.roles()
    assert (made.ok, set(made.created)) == (True, {"dms-vpc-role", "dms-cloudwatch-logs-role"})
    lab.verb("break", "dms-role-missing")
    made = Runbook.open(validated, notebook="06_validate_dms", create_roles=True).dms.roles()
    assert (made.ok, made.created) == (True, ("dms-vpc-role",))


def test_a_table_whose_rows_nothing_tells_apart_breaks_the_source_and_is_told_with_the_cure(
    lab: ThrowawayLab, validated: str
) -> None:
    shop = owner_of_the_source(lab)
    with shop.session(read_only=False) as session:
        session.execute("alter table shop.audit_log replica identity default")
    try:
        scope = Runbook.open(validated, notebook="06_validate_dms").dms.scope
        assert not scope.ok and "alter table shop.audit_log replica identity full" in scope.reason
        with (
            pytest.raises(DatabaseError, match="does not have a replica identity"),
            shop.session(read_only=False) as session,
        ):
            session.execute("delete from shop.audit_log")
    finally:
        with shop.session(read_only=False) as session:
            session.execute("alter table shop.audit_log replica identity full")


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
