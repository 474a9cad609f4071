"""A run is closed with the hash of every file, signed, whatever became of it; people sign for it later."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.errors import EvidenceError
from runbook_lib.evidence import keys, schemas, signoff
from runbook_lib.evidence.files import ENVELOPE, RUN, entries
from runbook_lib.evidence.folder import MARK, RunFolder
from runbook_lib.evidence.seal import find, newest_open, seal, sealed
from runbook_lib.evidence.verify import verify
from tests.records import check, synthetic
from tests.test_cli import runbook
from tests.throwaway import ThrowawayLab


@pytest.fixture(autouse=True)
def own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys" / "signing-key.pem"
    monkeypatch.setenv("RUNBOOK_KEY", str(path))
    return path


def statement(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / RUN).read_text())
    return found


def test_a_run_of_the_command_is_sealed_at_its_end_and_verifies(lab: ThrowawayLab) -> None:
    lab.reset("00")
    code, said = runbook("run", "03", "--ticket", "CHG-7")  # nothing was copied yet
    assert (code, "Sealed: " in said) == (3, True), said
    path = find(said.split()[1].rstrip(":"), Path(os.environ["RUNBOOK_OUTPUTS"]))
    run = statement(path)["predicate"]
    assert schemas.objections("run-v1", statement(path)) == ""
    assert [(one["name"], one["status"]) for one in run["notebooks"]] == [("03_inspect_transfer_stats", "failed")]
    assert (run["verdict"], run["ticket"], run["world"], run["account"]) == ("failed", "CHG-7", "LAB", "123456789012")
    assert run["notebooks"][0]["checks"][0]["verdict"] == "PASS"
    found = verify(path, keys.own_key().public_key.keyid)
    assert (found.state, found.faults) == ("intact", ())
    assert "the run itself did not pass: failed" in found.remarks


def test_the_statement_has_the_hash_of_every_file(tmp_path: Path) -> None:
    path = seal(synthetic(tmp_path))
    subjects = {one["name"]: one["digest"]["sha256"] for one in statement(path)["subject"]}
    found = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in entries(path)}
    assert subjects == {name: value for name, value in found.items() if name not in (RUN, ENVELOPE)}
    assert {"01_look.ipynb", "sources/01_look.ipynb", "events.jsonl", "report.html"} == subjects.keys()


def test_the_statement_fits_the_published_schema(tmp_path: Path) -> None:
    for number, mode in enumerate(("headless", "interactive")):
        path = seal(synthetic(tmp_path, f"2026010{number}T000000Z-aaaaaa", mode=mode))
        assert schemas.objections("run-v1", statement(path)) == ""
    wrong = statement(path)
    del wrong["predicate"]["verdict"]
    assert "verdict" in schemas.objections("run-v1", wrong)


def test_the_key_is_made_on_first_use_for_its_owner_alone(own_key: Path) -> None:
    first = keys.own_key().public_key.keyid
    assert (own_key.stat().st_mode & 0o777, own_key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert keys.own_key().public_key.keyid == first
    assert [file.name for file in own_key.parent.iterdir()] == [own_key.name]
    own_key.chmod(0o644)
    with pytest.raises(EvidenceError, match="can be read by others"):
        keys.own_key()


def test_the_fingerprint_is_what_openssl_says(own_key: Path) -> None:
    fingerprint = keys.own_key().public_key.keyid
    command = ["openssl", "pkey", "-in", str(own_key), "-pubout", "-outform", "DER"]
    try:
        der = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no openssl on this machine")
    assert hashlib.sha256(der).hexdigest() == fingerprint


def test_two_processes_that_make_the_key_at_once_get_the_same(own_key: Path) -> None:
    code = "from runbook_lib.evidence import keys; print(keys.own_key().public_key.keyid)"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert len({process.communicate()[0] for process in both}) == 1


def test_a_sealed_run_is_closed_and_its_files_are_read_only(tmp_path: Path) -> None:
    path = seal(synthetic(tmp_path))
    assert not (path / MARK).exists()
    assert {file.stat().st_mode & 0o222 for _, file in entries(path)} == {0}


def test_what_is_no_part_of_the_record_is_taken_away_and_links_are_refused(tmp_path: Path) -> None:
    folder = synthetic(tmp_path)
    (folder.path / ".ipynb_checkpoints").mkdir()
    (folder.path / ".ipynb_checkpoints" / "01_look-checkpoint.ipynb").write_text("{}")
    (folder.path / "link").symlink_to(folder.path / "events.jsonl")
    with pytest.raises(EvidenceError, match="holds links"):
        seal(folder)
    (folder.path / "link").unlink()
    assert not any("checkpoint" in name for name, _ in entries(seal(folder)))


def test_a_seal_that_cannot_be_written_leaves_the_run_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = synthetic(tmp_path)

    def full(path: Path, data: bytes, mode: int = 0o644) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("runbook_lib.evidence.seal.write_whole", full)
        with pytest.raises(EvidenceError, match=r"No space left.*It stays open"):
            seal(folder)
    assert (folder.path / MARK).exists() and not (folder.path / ENVELOPE).exists()
    assert verify(folder.path).state == "unsealed"
    assert verify(seal(folder)).state == "unconfirmed"


def test_people_sign_a_sealed_run_later_and_it_stays_intact(tmp_path: Path) -> None:
    path = seal(synthetic(tmp_path))
    file = signoff.sign(path, "acceptance", "Seen with the owner of the data", "CHG-7", "ada")
    assert schemas.objections("signature-v1", json.loads(keys.opened(file.read_bytes()).payload)) == ""
    found = verify(path)
    assert (found.state, [(one.role, one.name, one.ticket) for one in found.signatures]) == (
        "unconfirmed", [("acceptance", "ada", "CHG-7")])  # fmt: skip


def test_a_key_that_signed_as_two_people_is_said_of_both_and_the_trusted_one_of_neither(tmp_path: Path) -> None:
    path = seal(synthetic(tmp_path))
    for name in ("ada", "bob"):
        signoff.sign(path, "acceptance", "Seen", "CHG-7", name)
    said = [remark for remark in verify(path).remarks if "holds the key" in remark]
    assert [remark.split()[1] for remark in said] == ["ada", "bob"]
    fingerprint = keys.about(keys.own_key())["fingerprint"]
    trusted = verify(path, f"SHA256:{fingerprint.upper()}")
    assert (trusted.state, [remark for remark in trusted.remarks if "holds the key" in remark]) == ("intact", [])


def test_an_open_run_cannot_be_signed_and_nobody_signs_as_something_else(tmp_path: Path) -> None:
    folder = synthetic(tmp_path)
    with pytest.raises(EvidenceError, match="seal the run first"):
        signoff.sign(folder.path, "operator", "…")
    with pytest.raises(EvidenceError, match="operator, approver, acceptance"):
        signoff.sign(seal(folder), "king", "…")


def test_a_run_that_still_runs_is_not_sealed_and_is_not_the_newest_open_one(tmp_path: Path) -> None:
    older = synthetic(tmp_path, "20260101T000000Z-aaaaaa")
    folder = RunFolder(synthetic(tmp_path, "20260102T000000Z-bbbbbb").path)
    with folder.running():
        with pytest.raises(EvidenceError, match="20260102T000000Z-bbbbbb is still running, pid"):
            seal(folder)
        assert newest_open(tmp_path) == older.path
        assert not (folder.path / RUN).exists()
    assert newest_open(tmp_path) == folder.path
    with sealed(folder):
        pass
    assert verify(folder.path).state == "unconfirmed"


def test_a_run_whose_runner_was_killed_can_be_sealed(tmp_path: Path) -> None:
    folder = synthetic(tmp_path)
    code = (
        "import sys, pathlib; from runbook_lib.evidence.folder import RunFolder; "
        "held = RunFolder(pathlib.Path(sys.argv[1])).running(); held.__enter__(); "
        "print('runs', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None and runner.stdout.readline() == "runs\n"
        with pytest.raises(EvidenceError, match="still running"):
            seal(folder)
        runner.kill()
    assert verify(seal(folder)).state == "unconfirmed"


def test_a_kernel_does_not_write_into_another_run_when_its_own_was_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = seal(synthetic(tmp_path))
    monkeypatch.setenv("RUNBOOK_RUN", str(path))
    with pytest.raises(EvidenceError, match=r"RUNBOOK_RUN names .* was it sealed meanwhile"):
        RunFolder.join_or_create("lab")


def test_the_notebooks_of_a_person_are_masked_when_they_are_sealed(tmp_path: Path) -> None:
    folder = synthetic(tmp_path, mode="interactive")
    file = folder.path / "01_look.ipynb"
    notebook = json.loads(file.read_text())
    notebook["cells"][1]["source"] = ["it = 1\n", 'db = "postgresql://app:n0body-knows-1t@db/shop"']
    notebook["cells"][1]["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": [f"AKIA{'A' * 8}"]},
        {"output_type": "stream", "name": "stdout", "text": [f"{'A' * 8}\n"]},
    ]
    file.write_text(json.dumps(notebook))
    untouched = synthetic(tmp_path, "20260102T000000Z-bbbbbb", mode="interactive")
    before = (untouched.path / "01_look.ipynb").read_bytes()
    path = seal(folder)
    assert verify(path).state == "unconfirmed", verify(path).faults
    assert "n0body-knows-1t" not in file.read_text() and "AAAA" not in file.read_text()
    assert statement(path)["predicate"]["maskings"] == {"access key id": 1, "connection string": 1}
    assert (seal(untouched) / "01_look.ipynb").read_bytes() == before


def test_an_empty_folder_is_no_part_of_the_record(tmp_path: Path) -> None:
    folder = synthetic(tmp_path)
    (folder.path / "signatures" / "below").mkdir(parents=True)
    path = seal(folder)
    assert verify(path).faults == () and not (path / "signatures").exists()


def test_the_newest_open_run_is_the_one_to_seal(tmp_path: Path) -> None:
    seal(synthetic(tmp_path, "20260103T000000Z-cccccc"))
    synthetic(tmp_path, "20260101T000000Z-aaaaaa")
    newer = synthetic(tmp_path, "20260102T000000Z-bbbbbb", mode="interactive")
    assert newest_open(tmp_path) == newer.path
    assert find("20260102", tmp_path) == newer.path
    with pytest.raises(EvidenceError, match="could be"):
        find("2026", tmp_path)
    with pytest.raises(EvidenceError, match=r"there is no folder .*typo"):
        find(str(tmp_path / "typo"), tmp_path)


def test_a_runner_that_was_killed_is_sealed_as_killed(tmp_path: Path) -> None:
    folder = synthetic(tmp_path, notebooks={"01_look": [check("It is there")]})
    lines = (folder.path / "events.jsonl").read_text().splitlines(keepends=True)
    (folder.path / "events.jsonl").write_text("".join(lines[:-2]))  # no end of the notebook, none of the run
    path = seal(folder)
    assert statement(path)["predicate"]["verdict"] == "killed"
    assert verify(path).state == "unconfirmed"
