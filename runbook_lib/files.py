"""Is every file on the other side: the same name, size, metadata and content? Inventories made, then compared."""

from __future__ import annotations

import base64
import html
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .asked import DONE, READ, Wish, asked, begun, placed
from .at_once import at_once
from .display import Plot, Shown, Table, plural
from .display import Progress as Line
from .environment import LATEST
from .file_sides import (
    LABELS,
    Against,
    FileSides,
    Origin,
    Told,
    directly_in,
    inventory_moment,
    known_by,
    require_folder,
)
from .inventory import cost
from .inventory.merge import compare
from .inventory.progress import Look
from .inventory.result import Comparison
from .inventory.rules import Level
from .inventory.sampling import sample
from .inventory.schema import LINK
from .inventory.store import MANIFEST, Inventory
from .inventory.underway import Underway
from .inventory.writing import put
from .scanning import Planned, Report

USUAL = "CRC64NVME"  # the checksum that S3 keeps of an object when its writer gives none
MANY_MORE = 1.1  # times the source's entries: what it costs is estimated again
HEADED = ("metadata", "content", "sample")  # levels that need more of an object than LIST says


@dataclass(frozen=True, repr=False)
class FileComparison(Shown):
    """A comparison, what it asked of AWS, and where its evidence lies."""

    comparison: Comparison
    estimated: cost.Cost  # once the source was known
    spent: cost.Cost
    joined: cost.Cost  # what Athena would charge for a join of the two inventories
    folder: Path
    notes: tuple[str, ...] = ()  # how old what was compared is, where it is not of now
    scope: str = ""  # what was left out, where not everything was compared
    as_of: str = ""  # when the bucket was so, where that is not now

    @property
    def ok(self) -> bool:
        """A finding: files were compared, and nothing differs."""
        return self.comparison.ok

    @property
    def reason(self) -> str:
        """What was found."""
        return " ".join(filter(None, (self.comparison.reason, self.as_of, self.scope)))

    @property
    def elsewhere(self) -> str:
        """What the same costs where Athena joins the two inventories."""
        usd = cost.dollars(self.joined.usd)
        return f"Athena would join the two inventories (join.sql) for {usd}: {', '.join(map(str, self.joined.items))}."

    def headline(self) -> str:
        """The verdict, then what a reader has to know of it, and what it cost."""
        said = [self.scope] if self.scope else []
        return "\n".join([*said, self.comparison.headline(), *self.notes, self.spent.sentence()])

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
        costs = {
            "estimated": self.estimated.usd, "at_most": self.estimated.most, "spent": self.spent.usd,
            "athena": self.joined.usd,
        }  # fmt: skip
        usd = {name: round(value, 6) for name, value in costs.items()}
        whole = {**self.comparison.body(), "reason": self.reason}
        return {**whole, "notes": self.notes, "usd": usd, "cost": self.spent.sentence()}


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
        said: Callable[[str], None] = lambda sentence: None,
    ) -> FileComparison:
        """Compare every file of the NFS server with the bucket, the share or DataSync's report; changes nothing.

        `source="report"` takes what the task's latest execution saw instead of a scan. `within` is a folder: only the
        files directly in it are compared. `take` is how many files level `sample` reads, drawn with `seed`.

        `of` is an earlier comparison, whose inventories are looked at further instead of new ones: both, or the
        source's where it was with another side. What an earlier call left unfinished is gone on with, on the same day
        and with all that decides the result unchanged. `told` hears how far it is, `said` what it will cost, as soon as
        the source is known: before more is asked of S3 than a LIST, which goes on beside the scan of a large tree.
        """
        wish = Wish(level, against, within, take, seed, source)
        wish.refuse()
        earlier = None if of is None else of.folder
        wanted = asked(wish, self.sides.terms(wish.source, wish.against), earlier)
        folder = out or placed(self._folder() / "files", wanted)
        with begun(folder, wanted) as (known, so_old):
            seen = {name: (folder if earlier is None or name not in known.of else earlier) / name for name in LABELS}
            notes = [so_old] if so_old else []
            before = Counter(self.sides.session.asked)
            sides, why = self.sides.decided(seen["bucket"]) if against == "bucket" else (self.sides, "")
            if why:
                said(why)
                notes.append(why)
            files = Files(sides, self._folder, self._record)
            found = files._compared(known.wish, folder, seen, told or _line(wish), said, notes, before)
            put(folder / DONE, json.dumps(found.body(), indent=1).encode())
        self._record("note", key="files compared", value={**found.body(), "folder": folder.name})
        return found

    def _compared(
        self,
        wish: Wish,
        folder: Path,
        seen: Mapping[str, Path],
        told: Told,
        said: Callable[[str], None],
        notes: list[str],
        before: Counter[str],
    ) -> FileComparison:
        """`seen` says where the inventories of what was scanned and listed are; what is made of them is in `folder`.

        `before` is what S3 had been asked when it began.
        """
        sides, against, reads = self.sides, wish.against, wish.level in READ
        requests = Counter[str]()
        if against == "bucket":
            requests += _asked_before(folder / "bucket")
        source, other, estimated = self._sides(wish, seen, told, said, notes)
        latest = sides.settings.s3_inventory == LATEST
        notes += [*known_by(source, wish.level, latest), *known_by(other, wish.level, latest)]
        as_of = inventory_moment(other, wish.level)
        if wish.within is not None:
            require_folder(wish.within, (source, other))
            source, other = (directly_in(side, wish.within, folder / f"{side.side}-folder") for side in (source, other))
        drawn = sample(source, wish.take, wish.seed or 0, sides.filters) if wish.level == "sample" else None
        keys = None if drawn is None else drawn.keys
        if wish.level in HEADED and against == "bucket":
            if other.rows > MANY_MORE * max(source.rows, 1) and drawn is None:  # each is asked for, wanted or not
                estimated = self._estimate(wish, other)
                said(f"The bucket has {plural(other.rows, 'object')}, more than the source. {estimated.sentence()}")
            requests += _asked_before(folder / "bucket-described")
            other = sides.described(other, folder / "bucket-described", keys, told, reads)
        read = 0
        if reads:
            sent = Counter(sides.session.asked)
            source, other = sides.with_checksums(against, source, other, folder / "with-checksums", keys, told)
            if against == "bucket":
                read = other.facts["read_bytes"]
                requests += Counter(other.facts["requests"]) - (sides.session.asked - sent)  # those of earlier calls
        late: Counter[str] = Counter()  # what the second look read
        comparison = compare(
            source, other, level=wish.level, rules=sides.rules(against, wish.source), out=folder, sample=drawn,
            progress=told,
            recheck=None if against == "report" else lambda keys: sides.again(against, source, other, keys, reads),
            digest=sides.read_again(against, late) if reads and against != "report" else None,
        )  # fmt: skip
        if against == "bucket":
            read += late["bytes"]
        requests += sides.session.asked - before
        joined = cost.athena(sum(part.stored for side in (source, other) for part in side.parts))
        spent = cost.spent(requests, read=read)
        scope = "" if wish.within is None else f"Only the files directly in /{wish.within.strip('/')} were compared."
        return FileComparison(comparison, estimated, spent, joined, folder, tuple(notes), scope, as_of)

    def _sides(
        self, wish: Wish, seen: Mapping[str, Path], told: Told, said: Callable[[str], None], notes: list[str]
    ) -> tuple[Inventory, Inventory, cost.Cost]:
        """The inventories of both sides; and what it will all cost, which is said as soon as the source is known."""
        sides, estimated = self.sides, cost.Cost(())

        def first(planned: Planned, told: Report) -> Inventory:
            nonlocal estimated
            if wish.source == "report":
                source = sides.reported(seen["report"])
            else:
                source = sides.scanned("source", seen["source"], told, planned)
            estimated = self._estimate(wish, source)
            if estimated.items:
                said(estimated.sentence())
            return source

        def beginning(used: int) -> None:
            self._record("note", key="files: estimated cost of LIST", value=cost.listing(used))
            said(cost.listing(used))

        def after_all(why: str) -> None:
            said(why)
            notes.append(why)

        def second(source: Inventory | Underway, told: Report) -> Inventory:
            return sides.listed(source, seen["bucket"], told, after_all)

        if wish.against == "bucket" and sides.manifest is None:
            source, other = at_once(first, second, told, beginning)
        else:
            source = first(lambda cuts, used: None, told)
            if wish.against == "bucket":
                other = second(source, told)
            elif wish.against == "share":
                other = sides.scanned("share", seen["share"], told)
            else:
                other = sides.reported(seen["report"])
        return source, other, estimated

    def _estimate(self, wish: Wish, source: Inventory) -> cost.Cost:
        """What it will cost, as soon as the source is known."""
        if wish.against != "bucket":  # what the gateway has to fetch for it is the gateway's own traffic
            return cost.Cost(())
        sides = self.sides
        found = cost.estimate(
            wish.level, source.rows, size=source.bytes, sample=wish.take, links=source.kinds.get(LINK, 0),
            listed=sides.manifest is None,
            computable=wish.level not in READ or USUAL in sides.computable,
        )  # fmt: skip
        self._record("note", key="files: estimated cost", value=found.sentence())
        return found


def _asked_before(folder: Path) -> Counter[str]:
    """What an inventory asked for that an earlier call finished."""
    if not (folder / MANIFEST).exists():
        return Counter()
    return Counter(Inventory.open(folder).facts.get("requests", {}))


def _line(wish: Wish) -> Told:
    """A line on the screen that says how far it is."""
    line = Line(f"Comparing files with the {wish.against}")

    def told(said: Look) -> None:
        now = time.monotonic()
        line.beat(said.sentence(now), now - said.began)

    return told
