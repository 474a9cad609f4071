"""What does a million files look like? A tree of small files, and the bucket beside it with 53 differences planted.

Departments hold projects hold batches of 100 files, so a million files have 10,420 folders. All of it follows from the
number of files alone: another process makes the same keys.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BATCH, PROJECT, DEPARTMENT = 100, 25, 20  # files of a batch, batches of a project, projects of a department
MISSING, WRONG, EXTRA = 37, 11, 5
WRITTEN = 1_700_000_000  # seconds since 1970: of the first file; the bucket's objects came later
UPLOADED = 1_750_000_000
LARGEST = 4096  # bytes of a file: one block


@dataclass(frozen=True)
class Planted:
    """The keys that differ, by kind."""

    missing: frozenset[str]
    size: frozenset[str]
    extra: frozenset[str]

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.missing) + len(self.size) + len(self.extra)


def folder(batch: int) -> str:
    """The folder of a batch, with its final slash."""
    project = batch // PROJECT
    return f"department-{project // DEPARTMENT:04d}/project-{project:05d}/batch-{batch:06d}/"


def key(number: int) -> str:
    """The key of a file."""
    return f"{folder(number // BATCH)}file-{number:08d}.pdf"


def size(number: int) -> int:
    """Bytes of a file."""
    return number * 7919 % LARGEST + 1


def folders(files: int) -> list[str]:
    """Every folder's key, parents first."""
    parents = (folder(batch).split("/") for batch in range(-(-files // BATCH)))
    return list(dict.fromkeys("/".join(parts[:depth]) + "/" for parts in parents for depth in (1, 2, 3)))


def planted(files: int) -> Planted:
    """Which keys differ: missing and wrong in the bucket, or only there. Needs 48 files."""
    chosen = random.Random(files).sample(range(files), MISSING + WRONG)
    extra = frozenset(f"{folder(n * 7 % -(-files // BATCH))}only-in-the-bucket-{n}.pdf" for n in range(EXTRA))
    return Planted(frozenset(map(key, chosen[:MISSING])), frozenset(map(key, chosen[MISSING:])), extra)


def objects(files: int) -> Iterator[tuple[str, int, float]]:
    """The bucket beside the tree: key, size and time of writing, the folders' keys as DataSync makes them."""
    differing = planted(files)
    yield from ((each, 0, UPLOADED) for each in folders(files))
    yield from ((each, 1, UPLOADED) for each in differing.extra)
    for number in range(files):
        name = key(number)
        if name not in differing.missing:
            yield name, size(number) + (name in differing.size), UPLOADED + number // 100


def plant(root: Path, files: int) -> Path:
    """Make the tree of files full of zeros under `root`, which does not exist yet."""
    root.mkdir(parents=True)
    zeros = memoryview(bytes(LARGEST))
    for each in folders(files):
        os.mkdir(root / each)
    for batch in range(-(-files // BATCH)):
        inside = os.open(root / folder(batch), os.O_RDONLY | os.O_DIRECTORY)
        for number in range(batch * BATCH, min(files, (batch + 1) * BATCH)):
            handle = os.open(f"file-{number:08d}.pdf", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=inside)
            os.write(handle, zeros[: size(number)])
            os.utime(handle, (WRITTEN + number, WRITTEN + number))
            os.close(handle)
        os.close(inside)
    for each in folders(files):
        os.utime(root / each, (WRITTEN, WRITTEN))
    return root
