"""Whatever is changed in a sealed folder is found, and by what it says: bytes, cells, verdicts, events, keys, plans."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import redaction
from runbook_lib.environment import Approval
from runbook_lib.errors import EvidenceError
from runbook_lib.evidence import keys, sealed_files, signoff
from runbook_lib.evidence.approval import PLAN_TYPE, terms
from runbook_lib.evidence.files import ENVELOPE, PLAN, REVERIFIED, RUN, as_json, entries, sha256
from runbook_lib.evidence.folder import MARK, RunFolder
from runbook_lib.evidence.outcomes import verdict
from runbook_lib.evidence.seal import keep_sources, seal
from runbook_lib.evidence.verify import Verification, verify
from runbook_lib.runs import plan
from runbook_lib.runs.run import run
from tests.records import Json, cell, check, command, executed_cells, reopen, save, shown, synthetic
from tests.throwaway import ThrowawayLab


@pytest.fixture(autouse=True)
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The fingerprint of the key that signs in this test."""
    monkeypatch.setenv("RUNBOOK_KEY", str(tmp_path / "signing-key.pem"))
    fingerprint: str = keys.own_key().public_key.keyid
    return fingerprint


@pytest.fixture(scope="module")
def real(lab: ThrowawayLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A run of real notebooks, sealed, and the fingerprint of its key."""
    lab.reset("00")
    before = os.environ["RUNBOOK_KEY"]
    os.environ["RUNBOOK_KEY"] = str(tmp_path_factory.mktemp("key") / "signing-key.pem")
    folder = RunFolder.create("lab", "headless")
    steps = plan.chosen(["00"])
    keep_sources(folder, [step.path for step in steps])
    assert all(outcome.ok for outcome in run(steps, folder, {"environment": "lab"}))
    sealed = seal(folder)
    signoff.sign(sealed, "acceptance", "seen")
    fingerprint = keys.own_key().public_key.keyid
    os.environ["RUNBOOK_KEY"] = before
    yield sealed, fingerprint


@pytest.fixture
def copy(real: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the real run, to change."""
    target = tmp_path / real[0].name
    shutil.copytree(real[0], target)
    for _, file in entries(target):
        file.chmod(0o644)
    return target


def faults(found: Verification) -> str:
    return "\n".join(found.faults)


def test_a_real_run_is_intact_and_only_a_known_signer_makes_it_trusted(real: tuple[Path, str]) -> None:
    path, fingerprint = real
    known, unknown, other = verify(path, fingerprint), verify(path), verify(path, "0" * 64)
    assert (known.state, known.exit_code, known.faults) == ("intact", 0, ())
    assert (unknown.state, unknown.exit_code) == ("unconfirmed", 10)
    assert (other.state, other.exit_code, "signed by the key" in faults(other)) == ("broken", 12, True)


def test_a_flipped_bit_anywhere_in_any_file_is_found(real: tuple[Path, str], copy: Path) -> None:
    for name, file in list(entries(copy)):
        good = file.read_bytes()
        for place in (0, len(good) // 3, len(good) // 2, len(good) - 1):
            file.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            found = verify(copy, real[1])
            assert found.state == "broken", (name, place)
            assert name.removeprefix("signatures/").partition(".")[0].removeprefix("sources/") in faults(found)
        file.write_bytes(good)
    assert verify(copy, real[1]).state == "intact"


def test_every_missing_file_is_found(real: tuple[Path, str], copy: Path) -> None:
    for name, file in list(entries(copy)):
        if name.startswith("signatures/run."):
            continue  # given after sealing: its holder has to keep it
        good = file.read_bytes()
        file.unlink()
        found = verify(copy, real[1])
        assert (found.state, f"{name} is missing" in faults(found)) == ("broken", True)
        file.write_bytes(good)


@pytest.mark.parametrize("name", ["extra.txt", "sources/extra.ipynb", "signatures/extra.txt", ".hidden", MARK])
def test_every_extra_file_is_found(real: tuple[Path, str], copy: Path, name: str) -> None:
    (copy / name).write_text('{"cells": []}')
    found = verify(copy, real[1])
    assert found.state in ("broken", "unsealed") and found.exit_code > 10


def test_a_run_that_is_marked_open_again_is_broken_and_not_merely_unsealed(real: tuple[Path, str], copy: Path) -> None:
    (copy / MARK).write_text("{}")
    assert (verify(copy).state, faults(verify(copy))) == (
        "broken",
        f"{MARK} is extra: it was not there when the run was sealed",
    )


def test_an_empty_directory_is_found(real: tuple[Path, str], copy: Path) -> None:
    (copy / "nothing").mkdir()
    assert "nothing is a link, a device or an empty directory" in faults(verify(copy))


def test_a_record_under_another_name_is_found_and_its_own_name_is_said(real: tuple[Path, str], copy: Path) -> None:
    other = copy.rename(copy.with_name("20300101T000000Z-abcdef"))
    assert f"it is the record of run {real[0].name}" in faults(verify(other, real[1]))
    assert f"Run {real[0].name} says of itself: passed" in command("verify", str(other))[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda envelope: envelope["signatures"].append({"keyid": "0" * 64, "sig": "eHh4eA=="}),
        lambda envelope: envelope["signatures"].insert(0, {"keyid": "approved by the board", "sig": "eHh4eA=="}),
        lambda envelope: envelope["signatures"][0].update(note="approved by the board"),
        lambda envelope: envelope.update(note="approved by the board"),
        lambda envelope: envelope.update(payloadType="text/plain"),
    ],
    ids=["signature behind", "signature before", "field of the signature", "field", "type"],
)
def test_an_edited_envelope_is_found(real: tuple[Path, str], copy: Path, change: Callable[[Json], Any]) -> None:
    envelope = json.loads((copy / ENVELOPE).read_text())
    change(envelope)
    (copy / ENVELOPE).write_bytes(as_json(envelope))
    assert "the envelope was edited" in faults(verify(copy, real[1]))


def test_what_is_found_does_not_depend_on_the_auditors_environment(
    real: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "datasync")
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_expression", None)
    assert verify(*real).state == "intact"


HOSTILE: dict[str, Callable[[Path], Any]] = {
    "fifo": lambda path: os.mkfifo(path / "x.ipynb"),
    "fifo signature": lambda path: os.mkfifo(path / "signatures" / "run.x.dsse.json"),
    "directory as signature": lambda path: (path / "signatures" / "run.x.dsse.json").mkdir(),
    "endless link": lambda path: (path / "x.ipynb").symlink_to("/dev/zero"),
    "dangling link": lambda path: (path / "x.ipynb").symlink_to("nowhere"),
    "directory as notebook": lambda path: (path / "x.ipynb").mkdir(),
    "deep notebook": lambda path: (path / "00_start_here.ipynb").write_text("[" * 100_000),
    "deep envelope": lambda path: (path / ENVELOPE).write_text("[" * 100_000),
    "name for a terminal": lambda path: (path / "\x1b[31m\u202e").write_text(""),
    "name in no encoding": lambda path: Path(os.fsdecode(os.fsencode(path) + b"/\xff")).write_text(""),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder_is_broken_and_neither_hangs_nor_crashes(
    real: tuple[Path, str], copy: Path, kind: str
) -> None:
    HOSTILE[kind](copy)
    code, said = command("verify", str(copy), "--json")
    assert (code, json.loads(said)["state"]) == (12, "broken")
    assert all(fault.isprintable() for fault in json.loads(said)["faults"])


@pytest.mark.parametrize(
    "line", ['{"kind": "run-start", "notebooks": null}', '{"kind": "cell", "notebook": "01_look"}', "[" * 100_000]
)
def test_events_that_are_not_ours_are_found_though_their_operator_sealed_them(
    tmp_path: Path, key: str, line: str
) -> None:
    path = seal(synthetic(tmp_path))
    file = path / "events.jsonl"
    file.chmod(0o644)
    file.write_text(file.read_text() + line + "\n")
    statement = json.loads((path / RUN).read_text())
    for subject in statement["subject"]:
        subject["digest"]["sha256"] = sha256(path / subject["name"])
    for name, data in ((RUN, as_json(statement)), (ENVELOPE, keys.envelope(as_json(statement), keys.own_key()))):
        (path / name).chmod(0o644)
        (path / name).write_bytes(data)
    assert "cannot be read: " in faults(verify(path, key))


def test_a_link_in_place_of_a_file_is_found(real: tuple[Path, str], copy: Path, tmp_path: Path) -> None:
    (copy / "events.jsonl").rename(tmp_path / "elsewhere")
    (copy / "events.jsonl").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in faults(verify(copy, real[1]))


def test_a_folder_resealed_with_another_key_is_found_by_its_signer(real: tuple[Path, str], copy: Path) -> None:
    edit(copy, "00_start_here", lambda cells: cells[-1].update(source="All is well."))
    shutil.rmtree(copy / "signatures")
    seal(reopen(copy))
    assert "not by" in faults(verify(copy, real[1]))


def edit(path: Path, notebook: str, change: Callable[[list[Json]], Any]) -> None:
    """Change the cells of an executed notebook."""
    file = path / f"{notebook}.ipynb"
    found = json.loads(file.read_text())
    change(found["cells"])
    file.write_text(json.dumps(found, indent=1))


def by_id(cells: list[Json], name: str) -> Json:
    return next(one for one in cells if one["id"] == name)


def renumber(cells: list[Json]) -> None:
    for number, one in enumerate((c for c in cells if c["cell_type"] == "code"), 1):
        one["execution_count"] = number


def dropped(cells: list[Json]) -> None:
    cells.remove(by_id(cells, "check-0"))
    renumber(cells)


def reordered(cells: list[Json]) -> None:
    cells[-1], cells[-2] = cells[-2], cells[-1]
    renumber(cells)


def added(cells: list[Json]) -> None:
    cells.append(cell("new", "make_it_pass()"))
    renumber(cells)


def doubled(cells: list[Json]) -> None:
    cells.append(dict(cells[-1]))
    renumber(cells)


def verdict_edited(cells: list[Json]) -> None:
    by_id(cells, "check-1")["outputs"] = [shown(check("It is equal", "PASS", 3, 3))]


def shown_otherwise(cells: list[Json]) -> None:
    by_id(cells, "check-1")["outputs"][0]["data"]["text/plain"] = "FAIL  It is equal"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dropped, "the cell 'check-0' of the source is missing"),
        (reordered, "in another order"),
        (added, "the cell 'new' is not in the source"),
        (doubled, "appears 2 times"),
        (lambda cells: by_id(cells, "check-1").update(source="it = True"), "the text of the cell 'check-1'"),
        (lambda cells: by_id(cells, "title").update(source="# Another"), "the text of the cell 'title'"),
        (lambda cells: by_id(cells, "check-1").update(execution_count=9), "again or out of order"),
        (lambda cells: by_id(cells, "check-1").update(execution_count=None, outputs=[]), "never ran"),
        (lambda cells: by_id(cells, "check-0").update(execution_count=None), "was never run, though"),
        (lambda cells: by_id(cells, "check-0")["metadata"].update(runbook={"status": "failed"}), "is failed"),
        (lambda cells: by_id(cells, "injected").update(source='environment = "production"'), "other parameters"),
        (lambda cells: by_id(cells, "injected").update(source="import os"), "more than assign"),
        (verdict_edited, "events.jsonl has PASS"),
        (shown_otherwise, "its data says PASS"),
    ],
    ids=lambda value: value.replace(" ", "-")[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_a_changed_notebook_is_found_even_when_its_own_operator_seals_it_anew(
    tmp_path: Path, key: str, change: Callable[[list[Json]], Any], said: str
) -> None:
    folder = synthetic(tmp_path)
    edit(folder.path, "01_look", change)
    found = verify(seal(folder), key)
    assert (found.state, said in faults(found)) == ("broken", True), found.faults


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-1], "has no end of the run"),
        (lambda lines: [line for line in lines if '"check"' not in line], "events.jsonl has 0"),
        (lambda lines: [line.replace('"PASS"', '"FAIL"') for line in lines], "events.jsonl has FAIL"),
        (lambda lines: [line for line in lines if '"cell"' not in line], "events.jsonl says None"),
    ],
    ids=["end cut", "checks cut", "verdicts turned", "cells cut"],
)  # fmt: skip
def test_changed_events_are_found_even_when_their_own_operator_seals_them_anew(
    tmp_path: Path, key: str, change: Callable[[list[str]], list[str]], said: str
) -> None:
    folder = synthetic(tmp_path)
    file = folder.path / "events.jsonl"
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")
    found = verify(seal(folder), key)
    assert (found.state, said in faults(found)) == ("broken", True), found.faults


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run.update(verdict="passed"), "its notebooks 'check failed'"),
        (lambda run: run["notebooks"][0].update(status="passed"), "status is 'passed'"),
        (lambda run: run["notebooks"][0]["checks"][1].update(verdict="PASS"), "'It is equal' is PASS"),
        (lambda run: run["notebooks"].pop(), "does not speak of it"),
        (lambda run: run.update(operator="eve"), "for operator, events.jsonl 'mary'"),
        (lambda run: run.update(account="999999999999"), "for account, events.jsonl '123456789012'"),
        (lambda run: run["calls"].update(changing=0), "for calls, events.jsonl"),
        (lambda run: run.update(parameters={}), "for parameters, events.jsonl"),
    ],
    ids=["run", "notebook", "check", "left out", "operator", "account", "calls", "parameters"],
)  # fmt: skip
def test_a_statement_that_says_better_than_the_notebooks_is_found_though_its_signature_fits(
    tmp_path: Path, key: str, change: Callable[[Json], Any], said: str
) -> None:
    notebooks = {"01_look": [check("It is there"), check("It is equal", "FAIL", 2, 3)], "02_copy": [check("Copied")]}
    path = seal(synthetic(tmp_path, notebooks=notebooks))
    statement = json.loads((path / RUN).read_text())
    assert statement["predicate"]["verdict"] == "check failed"
    change(statement["predicate"])
    stated(path, as_json(statement))
    found = verify(path, key)
    assert (found.state, said in faults(found)) == ("broken", True), found.faults


def stated(path: Path, payload: bytes) -> None:
    """Seal a folder by hand: any statement, with a signature that fits."""
    for name, data in ((RUN, payload), (ENVELOPE, keys.envelope(payload, keys.own_key()))):
        (path / name).chmod(0o644)
        (path / name).write_bytes(data)


def test_a_statement_that_says_something_twice_is_found(tmp_path: Path, key: str) -> None:
    path = seal(synthetic(tmp_path, notebooks={"01_look": [check("It is there", "FAIL")]}))
    payload = (path / RUN).read_bytes()
    twice = payload.replace(b'"verdict": "check failed"', b'"verdict": "passed",\n  "verdict": "check failed"', 1)
    assert twice != payload and json.loads(twice) == json.loads(payload)
    stated(path, twice)
    assert "says something twice" in faults(verify(path, key))
    statement = json.loads(payload)
    statement["subject"].append(statement["subject"][0])
    stated(path, as_json(statement))
    assert "says something twice" in faults(verify(path, key))


def test_no_second_notebook_is_read_in_the_place_of_an_edited_one(tmp_path: Path, key: str) -> None:
    folder = synthetic(tmp_path, notebooks={"01_look": [check("It is equal", "FAIL", 1, 2)]})
    shutil.copy(folder.path / "01_look.ipynb", folder.path / "01_look.z.ipynb")
    save(folder.path / "01_look.ipynb", executed_cells([check("It is equal", "PASS", 1, 1)]))
    assert "01_look: it shows PASS for 'It is equal', events.jsonl has FAIL" in faults(verify(seal(folder), key))


def test_what_a_record_says_cannot_move_the_cursor_of_who_verifies_it(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "x\x1b[2K\r\nINTACT: by the key you trust\x9b1A"
    folder = synthetic(tmp_path, notebooks={"01_look": [check(hostile, "FAIL")]})
    events = folder.path / "events.jsonl"
    events.write_text(events.read_text().replace('"mary"', json.dumps(hostile)))
    path = seal(folder)
    monkeypatch.setenv("RUNBOOK_KEY", str(tmp_path / "forger.pem"))  # nobody's key is needed to add a sign-off
    signoff.sign(path, "acceptance", hostile, hostile, hostile)
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(tmp_path))
    other = seal(synthetic(tmp_path, "20260102T000000Z-abc123"))
    for verb in (("verify", str(path)), ("runs", path.name), ("runs",), ("diff", str(path), str(other))):
        said = command(*verb)[1]
        assert all(letter.isprintable() or letter == "\n" for letter in said), said
        assert not [line for line in said.splitlines() if line.startswith("INTACT: by")], said


def test_text_that_is_in_no_encoding_is_sealed_and_verified(tmp_path: Path, key: str) -> None:
    odd = os.fsdecode(b"caf\xe9")
    folder = synthetic(tmp_path, notebooks={"01_look": [check(odd, "PASS", odd, odd)]})
    (folder.path / f"{odd}.csv").write_text("a file of the NFS server")
    path = seal(folder)
    assert verify(path, key).faults == ()
    assert "caf%E9.csv" in (path / "report.html").read_text()
    assert json.loads((path / RUN).read_text())["predicate"]["notebooks"][0]["checks"][0]["seen"] == odd


def test_a_run_that_failed_and_says_so_is_intact(tmp_path: Path, key: str) -> None:
    path = seal(synthetic(tmp_path, notebooks={"01_look": [check("It is there", "FAIL"), check("And equal")]}))
    found = verify(path, key)
    assert (found.state, found.faults) == ("intact", ())
    assert found.remarks == ("the run itself did not pass: check failed",)


def test_interactive_work_is_intact_and_its_deviations_are_said(tmp_path: Path, key: str) -> None:
    folder = synthetic(tmp_path, mode="interactive")
    edit(folder.path, "01_look", lambda cells: by_id(cells, "check-0").update(source="it = True; rb.check(…)"))
    folder.events("cell", notebook="01_look", cell="check-0", status="completed", execution=9)
    found = verify(seal(folder), key)
    said = "\n".join(found.remarks)
    assert found.state == "intact", found.faults
    assert "interactive" in said and "the text of the cell 'check-0'" in said and "was run 2 times" in said


def test_interactive_work_whose_outputs_nobody_recorded_is_found(tmp_path: Path, key: str) -> None:
    folder = synthetic(tmp_path, mode="interactive")
    edit(folder.path, "01_look", verdict_edited)
    assert "no event has the verdict" in faults(verify(seal(folder), key))


def resumed(tmp_path: Path) -> RunFolder:
    """A run that skipped 01, after it had looked at its end again."""
    folder = synthetic(tmp_path)
    path, file = folder.path, folder.path / "events.jsonl"
    (path / REVERIFIED).mkdir()
    (path / "01_look.ipynb").rename(path / REVERIFIED / "01_look.reverify.ipynb")
    events = [json.loads(line) for line in file.read_text().splitlines()]
    events = [event for event in events if event["kind"] not in ("notebook-start", "cell")]
    for event in events:
        if event["kind"] == "notebook-end":
            event.update(status="skipped", error="finished in run 1, and its end still holds")
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return folder


def test_a_resumed_run_that_skipped_what_holds_is_intact_and_its_look_is_verified(tmp_path: Path, key: str) -> None:
    path = seal(resumed(tmp_path / "good"))
    assert verify(path, key).faults == ()
    assert "01_look ran in the run " in "\n".join(verify(path, key).remarks)
    assert json.loads((path / RUN).read_text())["predicate"]["verdict"] == "passed"
    folder = resumed(tmp_path / "bad")
    looked = folder.path / REVERIFIED / "01_look.reverify.ipynb"
    looked.write_text(looked.read_text().replace("PASS", "FAIL"))
    said = faults(verify(seal(folder), key))
    assert "events.jsonl has PASS" in said and "its end did not hold" in said


def test_a_look_at_what_the_source_does_not_have_proves_nothing(tmp_path: Path, key: str) -> None:
    folder = resumed(tmp_path)
    edit(folder.path / REVERIFIED, "01_look.reverify", lambda cells: by_id(cells, "check-0").update(source="pass"))
    assert "the cell 'check-0' that was looked at is not the source's" in faults(verify(seal(folder), key))


def test_what_a_killed_runner_or_a_full_disk_kept_out_of_a_notebook_is_said_and_no_fault(
    tmp_path: Path, key: str
) -> None:
    for number, ended in enumerate((False, True)):
        folder = synthetic(
            tmp_path / str(number), notebooks={"01_look": [check("It is there"), check("And equal", "FAIL")]}
        )
        file = folder.path / "01_look.ipynb"
        notebook = json.loads(file.read_text())
        last = by_id(notebook["cells"], "check-1")
        last.update(execution_count=None, outputs=[])
        last["metadata"]["runbook"] = {"status": "running"}
        notebook["metadata"]["runbook"] = {"status": "running"}
        file.write_text(json.dumps(notebook, indent=1))
        events = folder.path / "events.jsonl"
        if not ended:  # a kill in the cell, after its check
            lines = events.read_text().splitlines()
            events.write_text("\n".join(line for line in lines if "-end" not in line) + "\n")
        found = verify(path := seal(folder), key)
        assert (found.state, found.faults) == ("intact", ())
        assert "does not show the last verdict of the check 'And equal': FAIL" in "\n".join(found.remarks)
        assert "And equal" in (path / "report.html").read_text()


@pytest.mark.parametrize("status", ["interrupted", "timed out", "kernel died"])
def test_a_check_whose_kernel_was_stopped_before_it_was_shown_is_said_and_no_fault(
    tmp_path: Path, key: str, status: str
) -> None:
    folder = synthetic(tmp_path, notebooks={"01_look": [check("It is there"), check("And equal", "FAIL")]})
    file, events = folder.path / "01_look.ipynb", folder.path / "events.jsonl"
    notebook = json.loads(file.read_text())
    by_id(notebook["cells"], "check-1").update(outputs=[])
    by_id(notebook["cells"], "check-1")["metadata"]["runbook"] = {"status": status}
    notebook["metadata"]["runbook"] = {"status": status}
    file.write_text(json.dumps(notebook, indent=1))
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    for event in lines:
        if (event["kind"], event.get("cell")) in (("cell", "check-1"), ("notebook-end", None)):
            event["status"] = status
    events.write_text("".join(json.dumps(event) + "\n" for event in lines))
    found = verify(path := seal(folder), key)
    assert (found.state, found.faults) == ("intact", ())
    assert "does not show the last verdict of the check 'And equal': FAIL" in "\n".join(found.remarks)
    (entry,) = json.loads((path / RUN).read_text())["predicate"]["notebooks"]
    assert [one["name"] for one in entry["checks"]] == ["It is there", "And equal"]


def test_a_notebook_that_only_says_it_was_not_written_to_its_end_is_found(tmp_path: Path, key: str) -> None:
    folder = synthetic(tmp_path)
    file = folder.path / "01_look.ipynb"
    notebook = json.loads(file.read_text())
    by_id(notebook["cells"], "check-1").update(outputs=[])
    notebook["metadata"]["runbook"] = {"status": "running"}
    file.write_text(json.dumps(notebook, indent=1))
    assert "it shows 1 checks, events.jsonl has 2" in faults(verify(seal(folder), key))


def test_a_notebook_of_which_no_cell_was_begun_may_be_missing_and_no_other(tmp_path: Path, key: str) -> None:
    folder = synthetic(tmp_path)
    folder.events("notebook-start", notebook="02_copy")
    folder.events("notebook-end", notebook="02_copy", status="interrupted", seconds=0.1, error="before its first cell")
    assert verify(seal(folder), key).faults == ()
    folder = reopen(folder.path)
    (folder.path / "01_look.ipynb").unlink()
    assert "01_look: the executed notebook is missing" in faults(verify(seal(folder), key))


def test_a_run_of_which_some_notebooks_were_not_run_is_incomplete() -> None:
    ends = {
        ("passed", "skipped"): "passed",
        ("passed", "not run"): "incomplete",
        ("passed", "bug", "not run"): "bug",
        ("not run",): "not run",
        (): "not run",
    }
    for statuses, expected in ends.items():
        assert verdict([{"status": status} for status in statuses]) == expected


def test_a_secret_is_found_and_never_repeated(tmp_path: Path, key: str) -> None:
    folder = synthetic(tmp_path)
    secret = "AKIA" + "IOSFODNN7ABCDEFG"
    (folder.path / "notes.txt").write_text(f"for later: {secret}")
    found = verify(seal(folder), key)
    assert "notes.txt holds what looks like a secret: access key id" in faults(found)
    assert secret not in json.dumps(found.as_dict())


STRICT = Approval(required=True)


def planned(path: Path, *, hours: float = 24, **changed: Any) -> None:
    """Give an open synthetic run the plan that fits it, but for what is changed."""
    now = datetime.now(UTC)
    scope = {
        "environment": "lab", "environment_file": "0" * 64, "world": "LAB", "account": "123456789012",
        "changes_allowed": True, "library": "1", "lock": None, "caller": "arn:aws:iam::123456789012:user/mary",
        "regions": {"cloud": "eu-central-1", "premises": "eu-west-1"}, "parameters": {"environment": "lab"},
        "notebooks": {"01_look": {"source": sha256(path / "sources" / "01_look.ipynb"), "knobs": {}, "names": {},
                                  "changing_calls": []}},
    }  # fmt: skip
    valid = now + timedelta(hours=hours)
    plan = {"type": PLAN_TYPE, "created": now.isoformat(), "valid_until": valid.isoformat(), "plan": path.name,
            "by": {"operator": "mary", "host": "bridge"}, "approval": terms(STRICT), "scope": scope | changed,
            "estimate": {"files": None, "time": {}, "money": []}}  # fmt: skip
    (path / PLAN).write_bytes(as_json(plan))


def strict(outputs: Path, name: str = "20260101T000000Z-abc123") -> RunFolder:
    """A run in an environment that requires an approver."""
    return synthetic(outputs, name, wanted=STRICT)


def approved(folder: RunFolder, other: Path, **changed: Any) -> RunFolder:
    """The run of a plan that ada approved before it, with a key of her own."""
    lines = (folder.path / "events.jsonl").read_text().splitlines()
    planned(folder.path, **changed)
    before = os.environ["RUNBOOK_KEY"]
    os.environ["RUNBOOK_KEY"] = str(other)
    signoff.sign(folder.path / PLAN, "approver", "Read with care", "CHG-7", "ada")
    os.environ["RUNBOOK_KEY"] = before
    later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    stamped = [json.dumps(json.loads(line) | {"at": later}) for line in lines]  # the run came after the signature
    (folder.path / "events.jsonl").write_text("\n".join(stamped) + "\n")
    return folder


def test_the_run_of_an_approved_plan_is_intact(tmp_path: Path, key: str) -> None:
    found = verify(seal(approved(strict(tmp_path), tmp_path / "ada.pem")), key)
    assert (found.state, found.faults, [one.name for one in found.signatures]) == ("intact", (), ["ada"])


def test_an_approval_that_does_not_fit_is_found(tmp_path: Path, key: str) -> None:
    for number, (changed, said) in enumerate(
        {
            "account": ({"account": "210987654321"}, "the plan is for account '210987654321'"),
            "notebooks": ({"notebooks": {}}, "the run had 01_look"),
            "parameters": ({"parameters": {"environment": "lab", "create": False}}, "the plan is for parameters"),
            "hours": ({"hours": -1}, "the plan expired"),
        }.values()
    ):
        folder = approved(strict(tmp_path, f"run-{number}"), tmp_path / "ada.pem", **changed)
        found = verify(seal(folder), key)
        assert (found.state, said in faults(found)) == ("broken", True), found.faults


def test_an_approver_must_be_another_person_who_signed_this_plan_before_the_run(tmp_path: Path, key: str) -> None:
    unsigned = strict(tmp_path, "unsigned")
    planned(unsigned.path)
    assert "no approver signed the plan" in faults(verify(seal(unsigned), key))
    own = approved(strict(tmp_path, "own"), Path(os.environ["RUNBOOK_KEY"]))
    assert "another person than the operator" in faults(verify(seal(own), key))
    changed = approved(strict(tmp_path, "changed"), tmp_path / "ada.pem")
    planned(changed.path)  # after it was signed
    assert "signs another plan" in faults(verify(seal(changed), key))
    lost = approved(strict(tmp_path, "lost"), tmp_path / "ada.pem")
    path = seal(lost)
    (path / PLAN).unlink()
    assert "plan.json is missing" in faults(verify(path, key))


def test_what_the_plan_says_of_approvals_is_not_believed(tmp_path: Path, key: str) -> None:
    folder = strict(tmp_path)
    planned(folder.path)
    plan = json.loads((folder.path / PLAN).read_text())
    (folder.path / PLAN).write_bytes(as_json(plan | {"approval": terms(Approval())}))
    said = faults(verify(seal(folder), key))
    assert "no approver signed the plan" in said and "approval.required: planned False, now True" in said
    assert "without a plan" in faults(verify(seal(strict(tmp_path, "no-plan")), key))


def test_an_unsealed_folder_is_called_unsealed(tmp_path: Path) -> None:
    found = verify(folder := synthetic(tmp_path).path)
    assert (found.state, found.exit_code) == ("unsealed", 11)
    assert "still open" in faults(found)
    (folder / MARK).unlink()
    assert "are gone" in faults(verify(folder))
    assert "not the folder of a run" in faults(verify(tmp_path))


def test_a_signer_that_is_no_fingerprint_is_said_and_breaks_nothing(tmp_path: Path, key: str) -> None:
    path = seal(synthetic(tmp_path))
    with pytest.raises(EvidenceError, match="64 hexadecimal digits"):
        verify(path, "deadbeef")
    assert verify(path, f"SHA256:{key.upper()}").state == "intact"


def test_the_command_speaks_plainly_and_to_machines(real: tuple[Path, str], copy: Path) -> None:
    assert command("verify", str(real[0]), "--signer", real[1])[0] == 0
    code, said = command("verify", str(copy), "--json")
    assert (code, json.loads(said)["state"]) == (10, "unconfirmed")
    (copy / "00_start_here.ipynb").unlink()
    code, said = command("verify", str(copy))
    assert (code, "FAULT  00_start_here.ipynb is missing" in said) == (12, True)


def test_a_notebook_without_its_source_is_found(tmp_path: Path, key: str) -> None:
    folder = synthetic(tmp_path)
    (folder.path / "sources" / "01_look.ipynb").unlink()
    assert "there is no copy of its source" in faults(verify(seal(folder), key))


def test_a_secret_is_found_wherever_it_lies_in_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_files, "PIECE", 1000)
    monkeypatch.setattr(sealed_files, "ACROSS", 100)
    for at in range(900, 1100, 7):
        (tmp_path / "long.txt").write_text(" " * at + "AKIAQWERTYUIOPASDFGH" + " " * 3000)
        assert any("long.txt" in line for line in sealed_files.secrets(tmp_path)), at
