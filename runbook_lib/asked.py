"""What was asked of a comparison of files, and can it be gone on with? Only as the same, on the same day."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .errors import InventoryError, SettingsError
from .file_sides import LABELS, Against, Origin
from .inventory.reading import MANIFEST, Inventory, hashed
from .inventory.rules import Level
from .inventory.writing import put

WISH = "asked.json"  # what a folder's comparison is
DONE = "comparison.json"  # beside the inventories; a folder without it is gone on with
FRESH = timedelta(hours=24)  # an inventory that is older is made anew
READ = ("content", "sample")  # levels that read what is in the files


@dataclass(frozen=True)
class Wish:
    """What is to be compared, and how far."""

    level: Level
    against: Against = "bucket"
    within: str | None = None  # only the files directly in this folder
    take: int = 3000  # files that level `sample` reads
    seed: int | None = None  # … and by which they are drawn; None: any
    source: Origin = "scan"  # where the source's files come from

    def refuse(self) -> None:
        """`SettingsError` for what cannot be compared."""
        if self.source == self.against == "report":
            raise SettingsError("A comparison of the report with the report says nothing: scan one side.")
        if self.against == "report" and self.level in READ:
            raise SettingsError(
                f"DataSync's report has no content, so level {self.level} cannot be compared with it. Choose metadata, "
                "or compare with the bucket."
            )
        if self.seed is not None and self.seed < 0:
            raise SettingsError(f"seed {self.seed}: give 0 or more, or none.")
        if self.take < 1:
            raise SettingsError(f"A sample of {self.take} files says nothing: take 1 or more.")

    @property
    def stem(self) -> str:
        """How its folders are named, but for the number."""
        scope = "-folder" if self.within is not None else ""
        return f"{self.against}-{self.level}{scope}{'' if self.source == 'scan' else '-from-report'}"


@dataclass(frozen=True)
class Asked:
    """A wish with all else that decides the result."""

    wish: Wish
    sides: dict[str, Any]  # what `FileSides.terms` says
    of: dict[str, str]  # the inventories of an earlier comparison: SHA-256 of their manifests, by name
    began: datetime

    @classmethod
    def read(cls, folder: Path) -> Asked:
        """What a folder was begun with; `InventoryError` when nobody can tell."""
        try:
            said = json.loads((folder / WISH).read_text("utf-8"))
            began = datetime.fromisoformat(said["began"])
            return cls(Wish(**said["wish"]), said["sides"], said["of"], began)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InventoryError(
                f"{folder / WISH} does not say what was compared there: {error!r}. Choose another folder."
            ) from error

    def put(self, folder: Path) -> None:
        """Keep it with the comparison."""
        put(folder / WISH, json.dumps({**asdict(self), "began": self.began.isoformat()}, indent=1).encode())

    def unlike(self, known: Asked) -> list[str]:
        """What differs from a comparison that was begun; nothing: it can be gone on with."""
        mine, theirs = ({**asdict(one.wish), **one.sides, "of": one.of} for one in (self, known))
        if self.wish.seed is None:
            mine["seed"] = theirs["seed"]
        return sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))

    def age(self, now: datetime) -> timedelta:
        """How long ago it was begun."""
        return now - self.began


def asked(wish: Wish, sides: dict[str, Any], of: Path | None) -> Asked:
    """What is asked now; `of` is the folder of an earlier comparison, of the same source and day.

    Was it with the same other side, its inventories are taken; else that of the source.
    """
    wish.refuse()
    now = datetime.now(UTC)
    whole = Asked(wish, json.loads(json.dumps(sides)), {}, now)
    if of is None:
        return whole
    known, names = Asked.read(of), {*whole.sides, "source"}
    serve = list(LABELS)
    if known.wish.against != wish.against:
        serve = ["source" if wish.source == "scan" else "report"]
        names -= {"s3_inventory"} if wish.source == "report" else {"s3_inventory", "report"}
    other = [name for name in whole.unlike(known) if name in names]
    if other:
        raise InventoryError(
            f"{of} is of other sides (another {', '.join(other)}), so it cannot be looked at further. Compare without "
            "`of`."
        )
    if known.age(now) > FRESH:
        ago = lasted(known.age(now))
        raise InventoryError(f"{of} was begun {ago} ago: too old. Compare one side alone, without `of`.")
    manifests = {name: of / name / MANIFEST for name in serve}
    return replace(whole, of={name: hashed(path) for name, path in manifests.items() if path.exists()})


def placed(folder: Path, wanted: Asked) -> Path:
    """The folder of a comparison: one that was begun as the same today and did not end, else a new one."""
    numbers = {path: path.name[len(wanted.wish.stem) + 1 :] for path in folder.glob(f"{wanted.wish.stem}-[0-9]*")}
    taken = {int(number): path for path, number in numbers.items() if number.isdecimal()}
    for _, path in sorted(taken.items(), reverse=True):
        if not (path / DONE).exists() and (path / WISH).exists():
            known = Asked.read(path)
            if not wanted.unlike(known) and known.age(wanted.began) <= FRESH:
                return path
    return folder / f"{wanted.wish.stem}-{max(taken, default=0) + 1:02}"


@contextmanager
def begun(folder: Path, wanted: Asked) -> Iterator[tuple[Asked, str | None]]:
    """Hold a folder and what it was begun with, with a seed; and when it is gone on with, how old what it has is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise SettingsError(f"{folder} cannot be used: {error.strerror}. Choose another folder.") from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InventoryError(
                f"Another process is comparing into {folder}. Let it end, or choose another folder."
            ) from error
        if (folder / WISH).exists():
            known = _gone_on_with(folder, wanted)
            yield known, _so_old(folder, known, wanted.began)
        elif any(folder.iterdir()):
            raise SettingsError(f"{folder} has files of something else. Choose another folder, or a new one.")
        else:
            seed = secrets.randbits(32) if wanted.wish.seed is None else wanted.wish.seed
            new = replace(wanted, wish=replace(wanted.wish, seed=seed))
            new.put(folder)
            yield new, None
    finally:
        os.close(held)


def _gone_on_with(folder: Path, wanted: Asked) -> Asked:
    if (folder / DONE).exists():
        raise SettingsError(
            f"{folder} has a finished comparison already: {DONE} there says what it found. Choose another folder."
        )
    known = Asked.read(folder)
    other = wanted.unlike(known)
    if other:
        raise InventoryError(
            f"{folder} was begun with another {', '.join(other)}, and can only be gone on with as it was begun "
            f"(see {WISH} there). Ask for the same again, or choose another folder."
        )
    if known.age(wanted.began) > FRESH:
        raise InventoryError(
            f"{folder} was begun {lasted(known.age(wanted.began))} ago: what it has is too old. Choose another folder."
        )
    return known


def _so_old(folder: Path, known: Asked, now: datetime) -> str:
    """How old the inventories are that an earlier call left."""
    kept = {name: folder / name for name in LABELS if (folder / name / MANIFEST).exists()}
    ages = [f"{LABELS[name]} as {lasted(now - Inventory.open(path).began)} ago" for name, path in kept.items()]
    whole = f"This goes on with what was begun {lasted(known.age(now))} ago"
    return f"{whole}: {', '.join(ages)}." if ages else f"{whole}."


def lasted(time: timedelta) -> str:
    """'26 h 5 min', '3 min', '12 s'."""
    minutes, seconds = divmod(round(time.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
