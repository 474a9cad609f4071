"""Are the files of a folder those that were sealed, and do the signatures beside them fit?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import redaction
from ..errors import EvidenceError
from . import signoff
from .files import ENVELOPE, PLAN, RUN, SIGNATURES, entries, regular, sha256

EXTRA = "{} is extra: it was not there when the run was sealed"

PIECE, ACROSS = 8 << 20, 64 << 10  # bytes held at a time, and of the longest secret


def files(folder: Path, statement: dict[str, Any]) -> Iterator[str]:
    """Edited, missing and extra files."""
    wanted = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    found = dict(entries(folder))
    for name in sorted(wanted.keys() - found.keys()):
        yield f"{name} is missing"
    for name, path in found.items():
        if not regular(path):
            yield f"{name} is a link, a device or an empty directory, not a file"
        elif name in wanted:
            if sha256(path) != wanted[name]:
                yield f"{name} was edited"
        elif name not in (RUN, ENVELOPE) and not _late_signature(name):
            yield EXTRA.format(name)


def _late_signature(name: str) -> bool:
    """A sign-off of the sealed run may come later; what it says is judged by itself."""
    return name.startswith(f"{SIGNATURES}/run.") and name.endswith(".dsse.json") and name.count("/") == 1


def signatures(folder: Path) -> tuple[list[signoff.Signature], list[str]]:
    """The signatures of people that are right, and sentences about those that are not."""
    found, wrong = [], []
    for path in sorted((folder / SIGNATURES).glob("*.dsse.json")):
        try:
            one = signoff.read(path)
        except EvidenceError as error:
            wrong.append(f"{SIGNATURES}/{error}")
            continue
        subject = folder / (RUN if path.name.startswith("run.") else PLAN)
        if one.subject != subject.name or not subject.is_file() or sha256(subject) != one.digest:
            wrong.append(f"{SIGNATURES}/{path.name} signs something else than {subject.name}")
        else:
            found.append(one)
    return found, wrong


def secrets(folder: Path) -> Iterator[str]:
    """Files in which something looks like a secret; which rule, and never the value.

    Inventories (Parquet: names and sizes of files, compressed) are not looked into.
    """
    for name, path in entries(folder):
        if regular(path) and path.suffix != ".parquet":
            rules = sorted({rule for piece in _pieces(path) for rule in redaction.found(piece)})
            yield from (f"{name} holds what looks like a secret: {rule}" for rule in rules)


def _pieces(path: Path) -> Iterator[str]:
    """A file's text in pieces; each begins with the end of the one before, for what lies across."""
    with path.open("rb") as file:
        before = b""
        while piece := file.read(PIECE):
            yield (before + piece).decode("utf-8", "replace")
            before = piece[-ACROSS:]
