"""A plan shows what would happen and changes nothing; its run is refused when anything is not as it was approved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runbook_lib import preview
from runbook_lib.errors import ChangeRefused, EvidenceError
from runbook_lib.evidence import keys, schemas, signoff
from runbook_lib.evidence.approval import read_plan
from runbook_lib.evidence.events import Events
from runbook_lib.evidence.folder import RunFolder
from runbook_lib.evidence.seal import keep_sources, seal
from runbook_lib.evidence.verify import verify
from runbook_lib.runbook import Runbook
from runbook_lib.runs import plan
from runbook_lib.runs.run import Outcome, run
from runbook_lib.settings import environment_file, load_environment
from runbook_lib.world import endpoint_of
from tests.records import check, command, synthetic
from tests.throwaway import ThrowawayLab, client

STEPS = plan.chosen(["01"])


@pytest.fixture(autouse=True)
def world(lab: ThrowawayLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A lab before 01, outputs and a key of this test's own; the library is the same from plan to run."""
    monkeypatch.setenv("RUNBOOK_KEY", str(tmp_path / "mary.pem"))
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setattr(preview, "_library", lambda: "the same")
    yield
    monkeypatch.undo()


@pytest.fixture
def strict(tmp_path: Path) -> str:
    """An environment that requires an approver."""
    settings = yaml.safe_load(environment_file("lab").read_text())
    settings |= {"environment": "strict", "approval": {"required": True}}
    path = tmp_path / "strict.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def made(environment: str = "lab", **parameters: Any) -> Path:
    return preview.make(environment, STEPS, {"environment": environment, **parameters})


def approved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ada signs with a key of her own."""
    with monkeypatch.context() as ada:
        ada.setenv("RUNBOOK_KEY", str(path.parent.parent / "ada.pem"))
        signoff.sign(path, "approver", "Read with care", "CHG-7", "ada")


def execute(environment: str, approved_plan: Path | None = None) -> tuple[RunFolder, Outcome]:
    """Run 01 as the command does."""
    folder = RunFolder.create(Path(environment).stem, "headless")
    keep_sources(folder, [step.path for step in STEPS])
    parameters = {"environment": environment}
    if approved_plan is not None:
        preview.compare(approved_plan, environment, STEPS, parameters, folder)
    (outcome,) = run(STEPS, folder, parameters)
    return folder, outcome


def test_a_plan_resolves_names_and_changes_nothing(lab: ThrowawayLab) -> None:
    lab.reset("01")
    before = client(lab, "s3").list_objects_v2(Bucket="migration-lab")["KeyCount"]
    path = made()
    scope = read_plan(path)["scope"]
    entry = scope["notebooks"]["01_create_test_file"]
    assert entry["names"]["DataSync task nfs-to-s3"].startswith("arn:aws:datasync:eu-central-1:123456789012:task/")
    assert entry["changing_calls"] == ["s3:DeleteObject", "ssm:SendCommand"]
    assert entry["knobs"]["new_file"] == "new-image.jpg"
    assert (scope["account"], scope["world"]) == ("123456789012", "LAB")
    calls = [event for event in Events(path.parent / "events.jsonl").read() if event["kind"] == "aws-call"]
    assert calls and not any(call["changes"] for call in calls)
    assert not (lab.state / "application-server/mnt/data/new-image.jpg").exists()
    assert client(lab, "s3").list_objects_v2(Bucket="migration-lab")["KeyCount"] == before


def test_the_estimate_is_of_former_runs_of_the_environment_that_passed(tmp_path: Path) -> None:
    for number, verdict in enumerate(("PASS", "PASS", "FAIL")):
        name = f"2026010{number + 1}T000000Z-aaaaaa"
        seal(synthetic(tmp_path / "outputs", name, {"01_create_test_file": [check("A", verdict)]}))
    estimate = read_plan(made())["estimate"]
    assert estimate["time"] == {"01_create_test_file": {"seconds": 1.5, "of_runs": 2}}
    for line in estimate["money"]:
        assert line["usd"] == pytest.approx(line["quantity"] * line["usd_a_unit"], abs=1e-6)
        assert line["price_region"] and line["price_as_of"] and line["price_page"]


def test_a_plan_fits_the_published_schema_and_nothing_else_does(lab: ThrowawayLab) -> None:
    lab.reset("03")  # with an execution, so that there is an estimate
    path = made()
    content = json.loads(path.read_text())
    assert schemas.objections("plan-v1", content) == "" and content["estimate"]["money"]
    for wrong in ({"created": "2026-01-01T00:00:00"}, {"type": "urn:another"}, {"extra": 1}):
        assert schemas.objections("plan-v1", content | wrong)


def test_the_command_prints_the_plan(lab: ThrowawayLab) -> None:
    code, said = command("run", "01", "--plan")
    assert code == 0
    for part in ("DataSync task nfs-to-s3: arn:aws:", "s3:DeleteObject", "no former run", "Nothing was changed"):
        assert part in said, said


def test_a_run_that_is_not_the_planned_one_is_refused_with_the_difference(
    lab: ThrowawayLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made()
    folder = RunFolder.create("lab", "headless")
    with pytest.raises(ChangeRefused, match=r"new_file: planned 'new-image.jpg', now 'other.jpg'"):
        preview.compare(path, "lab", STEPS, {"environment": "lab", "new_file": "other.jpg"}, folder)
    with pytest.raises(ChangeRefused, match=r"notebooks\.00_start_here is not in the plan"):
        preview.compare(path, "lab", plan.chosen(["00", "01"]), {"environment": "lab"}, folder)
    monkeypatch.setattr(preview, "_library", lambda: "another")
    with pytest.raises(ChangeRefused, match="library: planned 'the same', now 'another'"):
        preview.compare(path, "lab", STEPS, {"environment": "lab"}, folder)
    assert not (folder.path / "plan.json").exists()


def test_a_plan_that_expired_or_was_edited_after_it_was_signed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = made()
    approved(path, monkeypatch)
    content = json.loads(path.read_text())
    path.chmod(0o644)
    path.write_text(json.dumps(content | {"valid_until": "2020-01-01T00:00:00+00:00"}))
    with pytest.raises(ChangeRefused) as refused:
        preview.compare(path, "lab", STEPS, {"environment": "lab"}, RunFolder.create("lab", "headless"))
    assert "signs another plan" in str(refused.value) and "valid until 2020" in str(refused.value)
    path.write_text("{}")
    with pytest.raises(EvidenceError, match="runbook run --plan"):
        read_plan(path)


def test_a_plan_that_was_written_by_hand_does_not_help(lab: ThrowawayLab, strict: str, tmp_path: Path) -> None:
    lab.reset("01")
    folder = RunFolder.create("strict", "headless")
    keep_sources(folder, [STEPS[0].path])
    content = json.loads(made(strict).read_text())
    for changed, said in (
        ({"scope": {}}, "is not a plan"),
        ({"approval": {"required": False, "approvers": [], "valid_hours": 24}}, "approval.required: planned False"),
        ({"valid_until": "2099-01-01T00:00:00+00:00", "created": "2020-01-01T00:00:00+00:00"}, "the plan expired"),
        ({"created": "2099-01-01T00:00:00+00:00"}, "after the run began"),
        ({"scope": content["scope"] | {"account": "210987654321"}}, "the plan is for account '210987654321'"),
        ({"scope": content["scope"] | {"notebooks": {}}}, "the plan is not for 01_create_test_file"),
        ({"scope": _with(content["scope"], "source", "0" * 64)}, "is not the notebook that was planned"),
        ({"scope": _with(content["scope"], "knobs", {"new_file": "x"})}, "01_create_test_file: knob"),
    ):
        (folder.path / "plan.json").write_text(json.dumps(content | changed))
        with pytest.raises(ChangeRefused) as refused:
            rb(strict, folder)._allow_change()
        assert said in str(refused.value)
    assert all(event["allowed"] is False for event in folder.events.read() if event["kind"] == "guard")


def _with(scope: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    entry = scope["notebooks"]["01_create_test_file"] | {name: value}
    return scope | {"notebooks": {"01_create_test_file": entry}}


def rb(environment: str, folder: RunFolder) -> Runbook:
    """The runbook as a kernel of the run opens it."""
    loaded = load_environment(environment)
    return Runbook(loaded, "01_create_test_file", {}, folder, endpoint_of(loaded))


def test_an_environment_can_require_an_approver_and_then_nothing_is_changed_without(
    lab: ThrowawayLab, strict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.reset("01")
    _, outcome = execute(strict)
    assert "not one of an approved plan" in outcome.error
    assert not (lab.state / "application-server/mnt/data/new-image.jpg").exists()
    path = made(strict)
    signoff.sign(path, "approver", "I approve of myself")
    with pytest.raises(ChangeRefused, match="must be another person than the operator"):
        execute(strict, path)
    approved(path, monkeypatch)
    folder, outcome = execute(strict, path)
    assert outcome.ok, outcome.error
    found = verify(seal(folder), keys.own_key().public_key.keyid)
    assert (found.state, found.faults) == ("intact", ())
    assert sorted(one.role for one in found.signatures) == ["approver", "approver"]
    assert "Read with care" in (folder.path / "report.html").read_text()
