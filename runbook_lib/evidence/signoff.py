"""Who answers for a plan or a run: signatures of people, each in a file of its own, over the hash of what they saw."""

from __future__ import annotations

import getpass
import json
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ..errors import EvidenceError
from . import keys
from .files import ENVELOPE, PLAN, RUN, SIGNATURES, STATEMENT_TYPE, as_json, sha256, write_whole

SIGNATURE_TYPE = "urn:migration-runbook:signature:v1"
ROLES = ("operator", "approver", "acceptance")


@dataclass(frozen=True)
class Signature:
    """One signature whose bytes are right; whether the signer is who it says, only the fingerprint can tell."""

    file: str
    subject: str  # plan.json or run.json
    digest: str  # the SHA-256 of what was signed
    role: str
    name: str
    comment: str
    ticket: str | None
    signed: datetime
    fingerprint: str


def sign(target: Path, role: str, comment: str, ticket: str | None = None, name: str | None = None) -> Path:
    """Sign a plan or a sealed run (its folder or file); the new file. `EvidenceError` when there is nothing to sign."""
    if role not in ROLES:
        raise EvidenceError(f"nobody signs as {role!r}: {', '.join(ROLES)}.")
    subject = signable(target)
    signer, now = keys.own_key(), datetime.now(UTC)
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": subject.name, "digest": {"sha256": sha256(subject)}}],
        "predicateType": SIGNATURE_TYPE,
        "predicate": {
            "role": role,
            "name": name or getpass.getuser(),
            "host": socket.gethostname(),
            "comment": comment,
            "ticket": ticket,
            "signed": now.isoformat(timespec="seconds"),
            "signer": keys.about(signer),
        },
    }
    folder = subject.parent / SIGNATURES
    folder.mkdir(exist_ok=True)
    file = folder / f"{subject.stem}.{role}-{now:%Y%m%dT%H%M%S%fZ}.dsse.json"
    write_whole(file, keys.envelope(as_json(statement), signer), 0o444)
    return file


def signable(target: Path) -> Path:
    """What a signature is about: `plan.json`, or `run.json` of a sealed run."""
    if target.is_dir():
        target = target / (RUN if (target / ENVELOPE).exists() else PLAN)
    if target.name not in (RUN, PLAN) or not target.is_file():
        raise EvidenceError(f"there is no plan and no sealed run at {target}: seal the run first, or make the plan.")
    return target


def signatures(folder: Path, subject: Literal["plan.json", "run.json"]) -> list[Signature]:
    """The signatures that a folder holds for its plan or its run, oldest first; `EvidenceError` when one is wrong."""
    stem = subject.removesuffix(".json")
    return [read(path) for path in sorted((folder / SIGNATURES).glob(f"{stem}.*.dsse.json"))]


def read(path: Path) -> Signature:
    """One signature file."""
    try:
        opened = keys.opened(path.read_bytes())
        statement: dict[str, Any] = json.loads(opened.payload)
        (subject,), said = statement["subject"], statement["predicate"]
        if statement["predicateType"] != SIGNATURE_TYPE:
            raise EvidenceError("it is no signature of a person")
        return Signature(
            file=path.name,
            subject=subject["name"],
            digest=subject["digest"]["sha256"],
            role=said["role"],
            name=said["name"],
            comment=said["comment"],
            ticket=said["ticket"],
            signed=datetime.fromisoformat(said["signed"]),
            fingerprint=opened.fingerprint,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise EvidenceError(f"{path.name} is no signature: {type(error).__name__}") from error
    except EvidenceError as error:
        raise EvidenceError(f"{path.name}: {error}") from error
