"""Has anybody touched this record since, and does it agree with itself? Offline, with what the folder holds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ..display import printable
from ..environment import Approval
from ..errors import EvidenceError
from . import approval, cells, keys, outcomes, schemas, sealed_files, signoff
from .files import ENVELOPE, PLAN, RUN, as_json
from .folder import MARK, RunFolder
from .record import Notebook, Record, body, latest
from .seal import RUN_TYPE, told

State = Literal["intact", "unconfirmed", "unsealed", "broken"]
EXIT_CODES: dict[State, int] = {"intact": 0, "unconfirmed": 10, "unsealed": 11, "broken": 12}
FINGERPRINT = re.compile("[0-9a-f]{64}")
SENTENCES: dict[State, str] = {
    "intact": "INTACT: nothing was touched since it was sealed, by the key you trust.",
    "unconfirmed": "INTACT, signed by an unconfirmed key: compare the fingerprint with one you got elsewhere, "
    "and pass it as --signer.",
    "unsealed": "UNSEALED: nothing proves what this folder held when the run ended.",
    "broken": "BROKEN: do not rely on this record.",
}


@dataclass(frozen=True)
class Verification:
    """What was found in a run folder."""

    folder: str
    state: State
    faults: tuple[str, ...]  # each one is a reason not to rely on the record
    remarks: tuple[str, ...]  # what an auditor should know of a record that is intact
    run: dict[str, Any] | None  # the statement's predicate, as far as it could be read
    signatures: tuple[signoff.Signature, ...] = ()

    @property
    def exit_code(self) -> int:
        """Of `runbook verify`."""
        return EXIT_CODES[self.state]

    @property
    def sentence(self) -> str:
        """The state in plain words."""
        return SENTENCES[self.state]

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        run = self.run or {}
        return {
            "folder": self.folder,
            "state": self.state,
            "sentence": self.sentence,
            "exit_code": self.exit_code,
            "run": run.get("run"),
            "verdict": run.get("verdict"),
            "signer": run.get("signer", {}).get("fingerprint"),
            "faults": list(self.faults),
            "remarks": list(self.remarks),
            "signatures": [
                {"as": s.role, "name": s.name, "signed": s.signed.isoformat(), "fingerprint": s.fingerprint,
                 "subject": s.subject, "ticket": s.ticket, "comment": s.comment}
                for s in self.signatures
            ],
        }  # fmt: skip


def verify(folder: Path, signer: str | None = None) -> Verification:
    """Judge a run folder; `signer` is the fingerprint of the key that is trusted."""
    name = folder.resolve().name
    trusted = signer.lower().removeprefix("sha256:") if signer else None
    if not folder.is_dir():
        raise EvidenceError(f"there is no run folder {folder}")
    if trusted and not FINGERPRINT.fullmatch(trusted):
        raise EvidenceError(f"{signer!r} is no fingerprint of a key: that has 64 hexadecimal digits.")
    if not (folder / ENVELOPE).exists() and not (folder / RUN).exists():
        return Verification(name, "unsealed", (printable(_without_seal(folder, name)),), (), None)
    unfinished = printable(f"sealing it did not come to its end: `runbook seal {name}` finishes it")
    try:
        statement, fingerprint = _statement(folder)
    except EvidenceError as error:
        if (folder / MARK).exists():
            return Verification(name, "unsealed", (unfinished,), (), None)
        return Verification(name, "broken", (printable(str(error)),), (), None)
    run = statement["predicate"]
    signatures: list[signoff.Signature] = []
    lost: list[str] = []
    faults = _listed(lambda: sealed_files.files(folder, statement), "the folder")
    if faults == [sealed_files.EXTRA.format(MARK)] and _listed(lambda: _marked(folder), MARK) == [name]:
        return Verification(name, "unsealed", (unfinished,), (), run)
    if not faults:  # what is read from here on are the files that were sealed, and plain ones
        signatures, wrong = sealed_files.signatures(folder)
        faults += wrong
        faults += _listed(lambda: _content(folder, run, lost), "what the folder holds")
        faults += _listed(lambda: _approved(folder, run), "its approval")
        faults += _listed(lambda: sealed_files.secrets(folder), "a file")
    if run["run"] != name:
        faults.insert(0, f"it is the record of run {run['run']}, and its folder is called {name}: rename it back")
    if trusted and fingerprint != trusted:
        faults.insert(0, f"it is signed by the key {fingerprint}, not by {signer}")
    state: State = "broken" if faults else "intact" if trusted else "unconfirmed"
    remarks = tuple(printable(one) for one in [*_remarks(run), *_strangers(signatures, trusted), *lost])
    return Verification(name, state, tuple(printable(one) for one in faults), remarks, run, tuple(signatures))


def _without_seal(folder: Path, name: str) -> str:
    """Why a folder has no seal, and what to do."""
    if (folder / MARK).exists():
        return f"it is still open: `runbook seal {name}` closes it when nothing runs in it any more"
    if (folder / "events.jsonl").exists():
        return f"{RUN} and {ENVELOPE} are gone, and only they prove something: take the whole folder from a copy of it"
    return "it is not the folder of a run: `runbook runs` lists those"


def _listed(look: Callable[[], Iterable[str]], what: str) -> list[str]:
    """What is wrong; whatever somebody has made of a file is a fault, and not an accident of ours."""
    try:
        return list(look())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [f"{what} cannot be read: {type(error).__name__}: {error}"]


def _statement(folder: Path) -> tuple[dict[str, Any], str]:
    """The statement, whose signature fits; and the fingerprint of its key."""
    for name in (RUN, ENVELOPE):
        if not (folder / name).is_file():
            raise EvidenceError(f"{name} is missing")
    try:
        opened = keys.opened((folder / ENVELOPE).read_bytes())
    except EvidenceError as error:
        raise EvidenceError(f"{ENVELOPE}: {error}") from error
    if opened.payload != (folder / RUN).read_bytes():
        raise EvidenceError(f"{RUN} is not what was signed: it was edited")
    statement: dict[str, Any] = json.loads(opened.payload)
    try:
        wrong = schemas.objections("run-v1", statement)
    except RecursionError as error:
        raise EvidenceError(f"{RUN} cannot be read: RecursionError") from error
    if wrong or statement["predicateType"] != RUN_TYPE:
        raise EvidenceError(f"{RUN} is not a statement of this version: {wrong or statement['predicateType']}")
    names = [subject["name"] for subject in statement["subject"]]
    if as_json(statement) != opened.payload or len(set(names)) < len(names):
        raise EvidenceError(f"{RUN} says something twice, or is not written as a seal writes it")
    return statement, opened.fingerprint


def _marked(folder: Path) -> list[str]:
    """The run that the mark of an open run is about."""
    return [str(RunFolder(folder).about["run"])]


def _content(folder: Path, run: dict[str, Any], lost: list[str]) -> list[str]:
    """Does the record agree with itself: statement, notebooks, sources, events? What it lost on its way is no fault."""
    try:
        record = Record.read(folder)
    except EvidenceError as error:
        return [str(error)]
    lost += _lost(record, run)
    said = [
        f"{RUN} says {run[name]!r} for {name}, events.jsonl {value!r}"
        for name, value in told(record).items()
        if run[name] != value
    ]
    now = {entry["name"]: entry for entry in outcomes.outcomes(record, run["mode"])}
    for entry in run["notebooks"]:
        found = now.pop(entry["name"], None)
        if found is None:
            said.append(f"{entry['name']}: the statement speaks of it, and nothing in the folder does")
            continue
        said += [f"{entry['name']}: {RUN} and the folder disagree: {one}" for one in _disagreement(entry, found)]
        said += [f"{entry['name']}: {one}" for one in _notebook(record, entry, run)]
    said += [f"{name}: the folder holds it, and {RUN} does not speak of it" for name in now]
    if run["verdict"] != outcomes.verdict(run["notebooks"]):
        said.append(f"{RUN} says {run['verdict']!r}, its notebooks {outcomes.verdict(run['notebooks'])!r}")
    if run["mode"] == "headless" and run["verdict"] == outcomes.PASSED and not record.last("run-end"):
        said.append("events.jsonl has no end of the run: its last lines are missing")
    return said


def _disagreement(entry: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    for key in entry:
        if key != "checks" and entry[key] != found.get(key):
            yield f"{key} is {entry[key]!r}, and was {found.get(key)!r}"
    written, shown = latest(entry["checks"]), latest(found["checks"])
    for name in [*written, *(name for name in shown if name not in written)]:
        if written.get(name) != shown.get(name):
            said, seen = written.get(name, {}).get("verdict"), shown.get(name, {}).get("verdict")
            yield f"the check {name!r} is {said}, and in the notebook {seen}"


def _notebook(record: Record, entry: dict[str, Any], run: dict[str, Any]) -> list[str]:
    """What is wrong with one executed notebook."""
    executed, source = record.executed.get(entry["name"]), record.sources.get(entry["name"])
    if executed is None and entry["status"] == outcomes.SKIPPED:
        return _skipped(record, entry["name"])
    if executed is None:
        began = entry["status"] == outcomes.PASSED or set(record.cells(entry["name"]).values()) - {"not run"}
        needed = began and entry["status"] != outcomes.KILLED and run["mode"] != "interactive"
        return ["the executed notebook is missing"] if needed else []
    events = record.checks(entry["name"])
    said = cells.contradictions(executed)
    shown = [body(check) for check in executed.checks]
    if run["mode"] == "interactive":
        known = {json.dumps(event, sort_keys=True) for event in events}
        lost = [check["name"] for check in shown if json.dumps(check, sort_keys=True) not in known]
        return [*said, *(f"no event has the verdict that it shows for {name!r}" for name in lost)]
    if source is None:
        said.append("there is no copy of its source")
    else:
        said += cells.deviations(source, executed)
    said += [*cells.disorder(executed), *cells.injected(executed, run["parameters"])]
    behind = outcomes.behind(executed, entry["status"])
    if shown != (events[: len(shown)] if behind else events):
        said.append(_unlike(shown, events))
    said += _cell_ends(executed, record.cells(entry["name"]), ("running", "not run") if behind else ())
    if entry["status"] == outcomes.PASSED:
        said += _not_passed(executed)
    return said


def _skipped(record: Record, name: str) -> list[str]:
    """What is wrong with a notebook of which a resumed run only looked at the end."""
    looked, events = record.reverified.get(f"{name}.reverify"), record.checks(name)
    shown = [body(check) for check in looked.checks] if looked else []
    said = [_unlike(shown, events)] if shown != events else []
    if looked and name in record.sources:
        said += cells.foreign(record.sources[name], looked)
    if looked and (looked.error or looked.unfinished or any(check["verdict"] == "FAIL" for check in shown)):
        said.append("it is called skipped, and its end did not hold")
    return [*said, *(cells.contradictions(looked) if looked else [])]


def _cell_ends(executed: Notebook, ends: dict[str, str], open_ends: tuple[str, ...]) -> Iterator[str]:
    """Cells of which notebook and events say different things; after `open_ends` the events go on."""
    for cell in executed.cells:
        if cell.runs and cell.status not in open_ends and cell.status != ends.get(cell.id):
            yield f"the cell {cell.id!r} is {cell.status}, and events.jsonl says {ends.get(cell.id)}"


def _not_passed(executed: Notebook) -> Iterator[str]:
    """What a notebook that is called passed must not have."""
    if executed.error or any(check["verdict"] == "FAIL" for check in executed.checks):
        yield "it is called passed, and shows a failure"
    if executed.unfinished:
        yield f"it is called passed, and these cells never ran: {', '.join(cell.id for cell in executed.unfinished)}"
    for cell in executed.cells:
        if cell.runs and cell.status not in (None, "completed"):
            yield f"it is called passed, and the cell {cell.id!r} is {cell.status}"


def _unlike(shown: list[dict[str, Any]], events: list[dict[str, Any]]) -> str:
    one = next((n for n, pair in enumerate(zip(shown, events, strict=False)) if pair[0] != pair[1]), None)
    if one is None:
        return f"it shows {len(shown)} checks, events.jsonl has {len(events)}"
    return (
        f"it shows {shown[one]['verdict']} for {shown[one]['name']!r}, "
        f"events.jsonl has {events[one]['verdict']} for {events[one]['name']!r}"
    )


def _approved(folder: Path, run: dict[str, Any]) -> list[str]:
    """Does the run fit the plan that it was approved by, and was it approved as the environment asked then?"""
    path, record = folder / PLAN, Record.read(folder)
    wanted = [Approval.model_validate(event["approval"]) for event in record.of_kind("open")]
    if not path.exists():
        if run["plan"]:
            return ["the plan that the run was approved by is missing"]
        changed = run["calls"]["changing"] and any(terms.required for terms in wanted)
        return ["the environment requires an approver, and the run changed something without a plan"] if changed else []
    try:
        plan = approval.read_plan(path)
        signed = signoff.signatures(folder, "plan.json")
        at, key = datetime.fromisoformat(run["started"]), run["signer"]["fingerprint"]
        said = [
            one
            for terms in dict.fromkeys(wanted)
            for one in approval.objections(path, signed, terms, operator=run["operator"], key=key, at=at)
        ]
        return [*said, *approval.departures(plan, run)]
    except EvidenceError as error:
        return [str(error)]


def _lost(record: Record, run: dict[str, Any]) -> Iterator[str]:
    """What a notebook does not show that could not be written to its end."""
    for entry in run["notebooks"] if run["mode"] == "headless" else ():
        executed = record.executed.get(entry["name"])
        if executed is not None and outcomes.behind(executed, entry["status"]):
            said = cells.unshown(executed, record.of(entry["name"]))
            yield from (f"{entry['name']}: {one}" for one in said)


def _strangers(signatures: Iterable[signoff.Signature], trusted: str | None) -> Iterator[str]:
    """Signatures of people prove a key, and no name; who signs a run afterwards needs nobody's leave."""
    for fingerprint, name in dict.fromkeys((one.fingerprint, one.name) for one in signatures):
        if fingerprint == trusted:
            continue
        yield f"that {name} holds the key {fingerprint} is what its holder says: compare it with one you got elsewhere"


def _remarks(run: dict[str, Any]) -> Iterator[str]:
    if run["mode"] == "interactive":
        yield "the work was interactive: a person chose which cells to run, and when"
    if run["verdict"] != outcomes.PASSED:
        yield f"the run itself did not pass: {run['verdict']}"
    skipped = [entry["name"] for entry in run["notebooks"] if entry["status"] == outcomes.SKIPPED]
    if skipped:
        yield (
            f"{', '.join(skipped)} ran in the run {run['resumes']}, whose record has to be verified too; here it was "
            "only looked whether what was true at their end still is"
        )
    for entry in run["notebooks"]:
        yield from (f"{entry['name']}: {said}" for said in entry.get("deviations", ()))
    if (run["code"] or {}).get("dirty"):
        yield "the code had changes that are in no commit"
