"""Is every file on the other side: the same name, size, metadata and content? Inventories made, then compared."""

from __future__ import annotations

import base64
import html
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .display import Plot, Shown, Table
from .display import Progress as Line
from .errors import InventoryError
from .file_sides import Against, FileSides, Told, directly_in
from .inventory import cost
from .inventory.merge import compare
from .inventory.progress import Progress
from .inventory.result import Comparison
from .inventory.rules import Level
from .inventory.sampling import sample
from .inventory.store import Inventory
from .inventory.writing import put

WISH = "asked.json"  # what a folder's comparison is
DONE = "comparison.json"  # beside the inventories; a folder without it is gone on with
HEADED = ("metadata", "content", "sample")  # levels that need more of an object than LIST says
READ = ("content", "sample")


@dataclass(frozen=True, repr=False)
class FileComparison(Shown):
    """A comparison, what it asked of AWS, and where its evidence lies."""

    comparison: Comparison
    estimated: cost.Cost  # once the source was known, before S3 was asked
    spent: cost.Cost
    folder: Path

    @property
    def ok(self) -> bool:
        """A finding: files were compared, and nothing differs."""
        return self.comparison.ok

    @property
    def reason(self) -> str:
        """What was found."""
        return self.comparison.reason

    def headline(self) -> str:
        """The verdict, then what it cost."""
        return f"{self.comparison.headline()}\n{self.spent.sentence()}"

    def tables(self) -> list[Table]:
        """The sides and the differences."""
        return self.comparison.tables()

    def plot(self) -> Plot:
        """Where the differences are."""
        return self.comparison.plot()

    def _repr_html_(self) -> str:
        whole = super()._repr_html_()
        if not self.comparison.failing:
            return whole
        plot = self.plot()
        picture = base64.b64encode(plot.png).decode()
        return f'{whole}<img alt="{html.escape(plot.sentence)}" src="data:image/png;base64,{picture}">'

    def body(self) -> dict[str, Any]:
        """The same for machines."""
        usd = {"estimated": round(self.estimated.usd, 6), "spent": round(self.spent.usd, 6)}
        return {**self.comparison.body(), "usd": usd, "cost": self.spent.sentence()}


Origin = Literal["scan", "report"]


@dataclass(frozen=True)
class Wish:
    """What is to be compared, and how far."""

    level: Level
    against: Against = "bucket"
    within: str | None = None  # only the files directly in this folder
    take: int = 3000  # files that level `sample` reads
    seed: int | None = None  # … and by which they are drawn; None: any
    source: Origin = "scan"  # where the source's files come from


class Files:
    """The files of the NFS server beside those of the bucket or the share; `rb.files`."""

    def __init__(self, sides: FileSides, folder: Callable[[], Path], record: Callable[..., None]) -> None:
        """`folder` is where the run keeps its files; `record` keeps a line of its record."""
        self.sides, self._folder, self._record = sides, folder, record

    def compare(
        self,
        level: Level = "size",
        *,
        against: Against = "bucket",
        within: str | None = None,
        take: int = 3000,
        seed: int | None = None,
        source: Origin = "scan",
        of: FileComparison | None = None,
        out: Path | None = None,
        told: Told | None = None,
    ) -> FileComparison:
        """Compare every file of the NFS server with the bucket, the share or DataSync's report; changes nothing.

        `source="report"` takes what the task's latest execution saw instead of a scan. `within` is a folder: only the
        files directly in it are compared. `take` is how many files level `sample` reads, drawn with `seed`.

        `of` is an earlier comparison of the same two sides, whose inventories are looked at further instead of new
        ones. What an earlier call left unfinished is gone on with. `told` hears how far it is.
        """
        wish = Wish(level, against, within, take, seed, source)
        folder = out or self._place(wish)
        wish = _begun(folder, wish)
        found = self._compared(wish, folder, folder if of is None else of.folder, told or _line(wish))
        put(folder / DONE, json.dumps(found.body(), indent=1).encode())
        self._record("note", key="files compared", value={**found.body(), "folder": folder.name})
        return found

    def _place(self, wish: Wish) -> Path:
        """The folder of a comparison: the unfinished one of this kind, else a new one."""
        scope = "-folder" if wish.within is not None else ""
        stem = f"{wish.against}-{wish.level}{scope}{'' if wish.source == 'scan' else '-from-report'}"
        taken = sorted((self._folder() / "files").glob(f"{stem}-[0-9]*"))
        if taken and not (taken[-1] / DONE).exists():
            return taken[-1]
        return self._folder() / "files" / f"{stem}-{len(taken) + 1:02}"

    def _compared(self, wish: Wish, folder: Path, seen: Path, told: Told) -> FileComparison:
        """`seen` has the inventories of what was scanned and listed; more goes to `folder`."""
        sides, against = self.sides, wish.against
        if wish.source == "report":
            source = sides.reported(seen / "report")
        else:
            source = sides.scanned("source", seen / "source", told)
        estimated = self._estimate(wish, source)
        requests: Counter[str] = Counter()
        if against == "bucket":
            other = sides.listed(source, seen / "bucket", told)
            requests.update(other.facts.get("requests", {}))
        elif against == "share":
            other = sides.scanned("share", seen / "share", told)
        else:
            other = sides.reported(seen / "report")
        if wish.within is not None:
            source, other = (directly_in(side, wish.within, folder / f"{side.side}-folder") for side in (source, other))
        drawn = sample(source, wish.take, wish.seed or 0, sides.filters) if wish.level == "sample" else None
        keys = None if drawn is None else drawn.keys
        if wish.level in HEADED and against == "bucket":
            other = sides.described(other, folder / "bucket-described", keys, told)
            requests.update(other.facts["requests"])
        read = 0
        if wish.level in READ:
            source, other = sides.with_checksums(against, source, other, folder / "with-checksums", keys)
            if against == "bucket":
                requests["GET"] += other.facts["read"]
                read = other.facts["read_bytes"]
        comparison = compare(
            source, other, level=wish.level, rules=sides.rules(against), out=folder, sample=drawn,
            recheck=None if against == "report" else lambda keys: sides.again(against, keys),
        )  # fmt: skip
        if against == "bucket" and comparison.again is not None:
            requests["HEAD"] += comparison.again.keys
        return FileComparison(comparison, estimated, cost.spent(requests, read=read), folder)

    def _estimate(self, wish: Wish, source: Inventory) -> cost.Cost:
        """What it will cost, said before S3 is asked."""
        if wish.against != "bucket":  # what the gateway has to fetch for it is the gateway's own traffic
            return cost.Cost(())
        found = cost.estimate(wish.level, source.rows, size=source.bytes, sample=wish.take)
        self._record("note", key="files: estimated cost", value=found.sentence())
        return found


def _begun(folder: Path, wish: Wish) -> Wish:
    """The wish of a folder: a new one's is kept there, with a seed; one that is gone on with has to be the same."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / DONE).exists():
        raise InventoryError(f"{folder} has a finished comparison already. Choose another folder.")
    if (folder / WISH).exists():
        known = Wish(**json.loads((folder / WISH).read_text("utf-8")))
        if known != replace(wish, seed=known.seed) or wish.seed not in (None, known.seed):
            raise InventoryError(f"{folder} was begun as {known}, and cannot be gone on with as {wish}.")
        return known
    wish = replace(wish, seed=secrets.randbits(32) if wish.seed is None else wish.seed)
    put(folder / WISH, json.dumps(asdict(wish)).encode())
    return wish


def _line(wish: Wish) -> Told:
    """A line on the screen that says how far it is."""
    line = Line(f"Comparing files with the {wish.against}")

    def told(said: Progress) -> None:
        now = time.monotonic()
        line.beat(said.sentence(now), now - said.began)

    return told
