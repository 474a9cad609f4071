"""All runs at a glance, quickly; one of them in full; open, broken and planned ones too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runbook_lib.evidence import provenance
from runbook_lib.evidence.files import RUN
from runbook_lib.evidence.folder import RunFolder
from runbook_lib.evidence.listing import Listed, listed, runs
from runbook_lib.evidence.seal import seal
from tests.records import check, command, synthetic


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's runs are."""
    monkeypatch.setenv("RUNBOOK_KEY", str(tmp_path / "signing-key.pem"))
    path = tmp_path / "outputs"
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(path))
    return path


def test_runs_are_listed_newest_first_with_their_verdicts(outputs: Path) -> None:
    checks = [check("It is there"), check("It was asked", "NOT ASKED"), check("It is equal", "FAIL")]
    seal(synthetic(outputs, "20260101T000000Z-aaaaaa"))
    seal(synthetic(outputs, "20260102T000000Z-bbbbbb", {"01_look": checks}))
    synthetic(outputs, "20260103T000000Z-cccccc", mode="interactive")
    found = [(one.run[-6:], one.state, one.verdict, one.held, one.asked) for one in runs(outputs)]
    assert found == [
        ("cccccc", "open", "", None, None),
        ("bbbbbb", "sealed", "check failed", 1, 2),
        ("aaaaaa", "sealed", "passed", 2, 2),
    ]


def test_a_plan_is_listed_as_one_and_a_broken_record_does_not_hide_the_others(outputs: Path) -> None:
    broken = seal(synthetic(outputs, "20260101T000000Z-aaaaaa"))
    (broken / RUN).chmod(0o644)
    (broken / RUN).write_text("{}")
    RunFolder.create("lab", "plan")
    (outputs / ".memory").mkdir()
    (outputs / "README.md").write_text("…")
    assert [one.state for one in runs(outputs)] == ["plan", "broken"]


def test_a_renamed_run_is_listed_by_its_own_name_and_as_renamed(outputs: Path) -> None:
    seal(synthetic(outputs, "20260101T000000Z-aaaaaa")).rename(outputs / "20260102T000000Z-bbbbbb")
    assert [(one.run, one.state) for one in runs(outputs)] == [("20260101T000000Z-aaaaaa", "renamed")]


def test_a_run_that_is_sealed_or_moved_meanwhile_is_listed_all_the_same(outputs: Path) -> None:
    folder = synthetic(outputs)
    shutil.rmtree(folder.path)
    assert (listed(folder.path).state, listed(folder.path).verdict) == ("broken", "cannot be read: FileNotFoundError")


def test_files_that_are_not_run_do_not_make_the_code_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGE_ROOT", tmp_path)
    (tmp_path / "runbook_lib").mkdir()
    (tmp_path / "runbook_lib" / "a.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=mary", "-c", "user.email=mary@example.com"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / "notes.txt").write_text("mine")
    assert provenance.provenance()["code"]["dirty"] is False
    (tmp_path / "runbook_lib" / "b.py").write_text("")
    assert provenance.provenance()["code"]["dirty"] is True


def test_neither_the_list_nor_a_verdict_needs_a_lab(outputs: Path, tmp_path: Path) -> None:
    path = seal(synthetic(outputs))
    code = (
        "import sys; from runbook_lib.cli import app; "
        "sys.modules.update(dict.fromkeys(('runbook_lib.lab', 'runbook_lib.runbook', 'moto', 'boto3'))); "
        "app(sys.argv[1:])"
    )
    for arguments, code_ in ((["runs"], 0), (["runs", path.name], 0), (["verify", path.name], 10)):
        done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, path.name in done.stdout) == (code_, True), done.stderr
    assert not any("lab" in one.name for one in tmp_path.iterdir())


def test_a_thousand_runs_are_listed_in_about_a_second(outputs: Path) -> None:
    notebooks = {f"0{number}_look": [check(f"Check {one} holds") for one in range(4)] for number in range(6)}
    path = seal(synthetic(outputs, "20260101T000000Z-000000", notebooks))
    for number in range(1, 1000):
        copy = outputs / f"20260101T000000Z-{number:06}"
        copy.mkdir()
        for name in ("run.json", "run.dsse.json"):
            shutil.copyfile(path / name, copy / name)
    began = time.process_time()
    found = list(runs(outputs))
    assert (len(found), {one.asked for one in found}) == (1000, {24})
    assert time.process_time() - began < 1.5


def test_the_command_lists_them_and_shows_one(outputs: Path) -> None:
    assert "There is no run yet" in command("runs")[1]
    seal(synthetic(outputs, "20260101T000000Z-aaaaaa"))
    synthetic(outputs, "20260102T000000Z-bbbbbb")
    listed = command("runs")[1]
    assert "20260101T000000Z-aaaaaa" in listed and "passed" in listed and "open" in listed
    code, said = command("runs", "20260101")
    assert code == 0 and "It is equal" in said and "account 123456789012" in said
    assert json.loads(command("runs", "20260101", "--json")[1])["verdict"] == "passed"
    assert [one["state"] for one in json.loads(command("runs", "--json")[1])] == ["open", "sealed"]


def test_the_keys_for_machines_are_these() -> None:
    assert list(Listed.__dataclass_fields__) == [
        "run", "state", "verdict", "mode", "environment", "account", "started", "operator",
        "notebooks", "held", "asked",
    ]  # fmt: skip


def test_an_open_run_is_sealed_by_the_command_once(outputs: Path) -> None:
    synthetic(outputs, mode="interactive")
    code, said = command("seal")
    assert (code, "fingerprint" in said) == (0, True)
    assert "no run is open" in command("seal")[1]
    assert "is not open" in command("seal", "20260101")[1]
    assert command("sign", "20260101", "--as", "acceptance", "--comment", "seen")[0] == 0
    assert "SIGNED run.json as acceptance" in command("verify", "20260101")[1]
