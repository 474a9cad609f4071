"""Which files does a record have, what are their hashes, and how is one written whole or not at all?"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RUN, ENVELOPE, REPORT = "run.json", "run.dsse.json", "report.html"
PLAN = "plan.json"  # what was approved, when the run is one of an approved plan
SOURCES = "sources"  # the notebooks as they were before the run, beside the executed ones
REVERIFIED = "reverified"  # in a resumed run: what was looked at again before it was skipped
SIGNATURES = "signatures"  # what people signed: plan.* before the run, run.* after it
HALF = re.compile(r"\.\S+\.(ipynb|json|html)\.[a-z0-9_]{8}")  # what a kill leaves of a file that is written whole
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that it is there complete, and durable when this returns, or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as temporary:
            temporary.write(data)
            temporary.flush()
            os.fsync(temporary.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def as_json(value: Any) -> bytes:
    """A value as the one text that this project writes for it: hashes and signatures are over these bytes."""
    return in_utf8(json.dumps(value, indent=1, ensure_ascii=False)) + b"\n"


def in_utf8(text: str) -> bytes:
    """A text as every reader can decode it: bytes in no encoding, such as in the name of a file, as `\\udcff`.

    Within a JSON string that is an escape, and is read back as it was.
    """
    return text.encode("utf-8", "backslashreplace")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Everything below a folder that holds nothing itself, by its name relative to the folder, sorted.

    These are files, links, devices, and directories that are empty. OSError when a directory cannot be read.
    """
    found = []
    for parent, directories, names in os.walk(folder, onerror=_raised):
        ends = [name for name in directories if (path := Path(parent) / name).is_symlink() or not any(path.iterdir())]
        for name in [*names, *ends]:
            path = Path(parent) / name
            found.append((path.relative_to(folder).as_posix(), path))
    yield from sorted(found)


def _raised(error: OSError) -> None:
    raise error


def regular(path: Path) -> bool:
    """Is it a plain file? What links and devices give can be changed without changing the folder."""
    return stat.S_ISREG(path.lstat().st_mode)
