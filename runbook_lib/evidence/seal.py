"""How is a run closed? With the hash of every file in one in-toto Statement, signed, and a report for people."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import EvidenceError
from ..settings import project_root
from . import keys, outcomes
from .files import (
    ENVELOPE,
    HALF,
    PLAN,
    REPORT,
    RUN,
    SOURCES,
    STATEMENT_TYPE,
    as_json,
    entries,
    in_utf8,
    regular,
    sha256,
    write_whole,
)
from .folder import MARK, RunFolder
from .provenance import provenance
from .record import Record
from .report import report
from .written import without_secrets

RUN_TYPE = "urn:migration-runbook:run:v1"
WHO = ("operator", "host", "python", "libraries", "code")


def keep_sources(run_folder: RunFolder, notebooks: Iterable[Path]) -> None:
    """Copy the notebooks as they are before they are run; what must never be written down is masked in them too."""
    target = run_folder.path / SOURCES
    target.mkdir(exist_ok=True)
    for path in notebooks:
        write_whole(target / path.name, without_secrets(path.read_bytes()))


@contextmanager
def sealed(run_folder: RunFolder) -> Iterator[None]:
    """Seal the run when the block ends, however it ends."""
    try:
        with run_folder.running():
            yield
    finally:
        seal(run_folder)


def seal(run_folder: RunFolder) -> Path:
    """Close a run folder: report, `run.json`, signature; the folder.

    `EvidenceError` leaves it open: what is still running, or cannot be written.
    """
    path = run_folder.path
    try:
        with _alone(run_folder):
            _close(run_folder)
    except OSError as error:
        raise EvidenceError(
            f"the run {path.name} could not be sealed: {error}. It stays open: `runbook seal {path.name}` tries again."
        ) from error
    return path


def _close(run_folder: RunFolder) -> None:
    path = run_folder.path
    _tidy(path)
    if run_folder.about["mode"] == "interactive":
        _mask(run_folder)
    signer = keys.own_key()
    predicate = summary(run_folder) | {"signer": keys.about(signer)}
    write_whole(path / REPORT, in_utf8(report(path, predicate, hashes(path))))
    statement = as_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": value}} for name, value in hashes(path).items()],
            "predicateType": RUN_TYPE,
            "predicate": predicate,
        }
    )
    write_whole(path / RUN, statement)
    write_whole(path / ENVELOPE, keys.envelope(statement, signer))
    for name, file in entries(path):
        if name != MARK:  # sealing may be begun again until the mark is gone
            file.chmod(0o444)  # a JupyterLab that is still open cannot save into a sealed run
    (path / MARK).unlink()


@contextmanager
def _alone(run_folder: RunFolder) -> Iterator[None]:
    """Nobody writes the record meanwhile; `EvidenceError` when somebody does now."""
    with (run_folder.path / MARK).open("r+b") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EvidenceError(
                f"run {run_folder.run_id} is still running, pid {run_folder.about.get('pid')}: it is sealed at its end."
            ) from error
        yield


def _mask(run_folder: RunFolder) -> None:
    """Mask what a person's notebooks still hold: their sources, and what was shown in pieces."""
    for file in sorted(run_folder.path.glob("*.ipynb")):
        counted: Counter[str] = Counter()
        data = file.read_bytes()
        kept = without_secrets(data, counted)
        if kept != data:
            write_whole(file, kept)
            run_folder.events("maskings", notebook=file.stem, rules=dict(counted))


def _tidy(path: Path) -> None:
    """Take away what is no part of the record: checkpoints, halves of an earlier attempt, empty folders."""
    for folder in sorted(path.rglob(".ipynb_checkpoints")):
        shutil.rmtree(folder)
    for name in (REPORT, RUN, ENVELOPE):
        (path / name).unlink(missing_ok=True)
    for _, file in list(entries(path)):
        if HALF.fullmatch(file.name):
            file.unlink()
    for folder in sorted(path.rglob("*/"), reverse=True):
        if not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    linked = [name for name, file in entries(path) if not regular(file)]
    if linked:
        raise EvidenceError(
            f"{path.name} holds links, whose content can change without the folder: {', '.join(linked)}. "
            "Put the files themselves there, or take the links away."
        )


def hashes(path: Path) -> dict[str, str]:
    """The SHA-256 of every file that a seal covers, by name."""
    return {name: sha256(file) for name, file in entries(path) if name not in (MARK, RUN, ENVELOPE)}


def summary(run_folder: RunFolder) -> dict[str, Any]:
    """What is said of a run in its statement: who, where, with what, how it ended, and what was masked."""
    record, mode = Record.read(run_folder.path), run_folder.about["mode"]
    notebooks = outcomes.outcomes(record, mode)
    return {
        "run": run_folder.run_id,
        "mode": mode,
        "resumes": run_folder.about.get("resumes"),
        "verdict": outcomes.verdict(notebooks),
        "sealed": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": run_folder.about["environment"],
        "started": run_folder.about["opened"],
        **({} if record.last("run-start") else provenance()),
        **told(record),
        **_approval(run_folder.path),
        "lock": _lock(),
        "notebooks": notebooks,
    }


def told(record: Record) -> dict[str, Any]:
    """What the events alone say of a run: a statement must say the same. None for what it did not live to learn."""
    began, opened, identity = record.last("run-start"), record.last("open"), record.last("identity")
    times = [event["at"] for event in record.events]
    calls = record.calls()
    return {
        **({name: began[name] for name in WHO} if began else {}),
        **({"started": times[0]} if times else {}),
        "ended": times[-1] if times else None,
        "world": opened.get("world"),
        "endpoint": opened.get("endpoint"),
        "account": opened.get("account"),
        "caller": identity.get("arn"),
        "regions": identity.get("regions"),
        "ticket": record.last("ticket").get("ticket"),
        "parameters": began.get("parameters", {}),
        "calls": {"changing": _sum(calls, True), "looking": _sum(calls, False)},
        "maskings": record.maskings(),
    }


def _sum(calls: dict[tuple[str, str, bool], int], changing: bool) -> int:
    return sum(count for (_, _, changes), count in calls.items() if changes is changing)


def _approval(path: Path) -> dict[str, Any]:
    """The plan that the run had, by its hash."""
    return {"plan": sha256(path / PLAN) if (path / PLAN).exists() else None}


def _lock() -> str | None:
    """The hash of the list of dependencies; None where the runbook is installed without it."""
    path = project_root() / "requirements.lock"
    return sha256(path) if path.exists() else None


def find(name: str, outputs: Path) -> Path:
    """A run's folder by path, id, or the beginning of an id; `EvidenceError` when that is none or several."""
    given = Path(name).expanduser()
    if given.is_dir() and (os.sep in name or not (outputs / name).is_dir()):
        return given
    if os.sep in name:
        raise EvidenceError(f"there is no folder {name}: `runbook runs` lists the runs.")
    fitting = [path for path in sorted(outputs.glob(f"{name}*")) if path.is_dir()] if name else []
    if len(fitting) != 1:
        several = f"could be {', '.join(path.name for path in fitting[:5])}" if fitting else "matches no run"
        raise EvidenceError(f"{name!r} {several}: `runbook runs` lists them.")
    return fitting[0]


def newest_open(outputs: Path) -> Path:
    """The newest run that is open and not running; `EvidenceError` when there is none."""
    found = [RunFolder(mark.parent) for mark in sorted(outputs.glob(f"*/{MARK}"), reverse=True)]
    for run_folder in found:
        if run_folder.about["mode"] != "plan" and not _running(run_folder):
            return run_folder.path
    raise EvidenceError("no run is open, or those that are still run: `runbook runs` lists them.")


def _running(run_folder: RunFolder) -> bool:
    try:
        with _alone(run_folder):
            return False
    except EvidenceError:
        return True
