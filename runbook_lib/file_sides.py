"""What is on each side? Inventories of the NFS server, the bucket and the share, made where the environment says."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from . import scanning
from .application_server import ApplicationServer
from .aws import heads, latest_inventory, listing, stored_inventory
from .aws.client import Session
from .aws.executions import Task, TaskExecution
from .digesting import Beat, Digests, Reading, Wanted, digested, read_again, to_read
from .display import plural
from .environment import LATEST, InventorySettings
from .errors import NotFound, SettingsError, TooOld
from .filters import Filters
from .inventory.progress import Look, Progress
from .inventory.reading import MANIFEST
from .inventory.recheck import Digest
from .inventory.rules import Rules
from .inventory.runs import conform
from .inventory.schema import FILE
from .inventory.store import Inventory, Writer, begun_with
from .inventory.underway import Underway
from .scanning import Planned, Report
from .sides import SIDES, Side

Origin = Literal["scan", "report"]
Against = Literal["bucket", "share", "report"]
Told = Callable[[Look], None]
ASKED_FOR = ("metadata", "content")  # levels that ask for every object now
BY_LIST = "The bucket is asked by LIST."
LABELS = {"source": "the NFS server", "share": "the file share", "bucket": "the bucket", "report": "DataSync's report"}
FROM = {"scan": LABELS["source"], "report": "the NFS server, as DataSync's report shows it"}
PREFERRED = ("CRC64NVME", "SHA256")  # for what is read on both sides: the first that the machine can compute
UNKEPT = {"mtime": "Mtime", "mode": "PosixPermissions", "uid": "Uid", "gid": "Gid"}  # by which option of the task


@dataclass(frozen=True)
class FileSides:
    """The sides of one environment. Everything here only looks."""

    session: Session
    region: str
    server: ApplicationServer
    task: Task
    settings: InventorySettings
    report: Callable[[Path], Inventory]  # of the latest execution, made in a folder
    latest: Callable[[], TaskExecution]  # … itself; `NotFound` when there is none
    found: str | None = None  # the manifest that `decided` found, where the environment wishes the latest

    @cached_property
    def filters(self) -> Filters:
        """What the task copies."""
        return Filters(self.task.includes, self.task.excludes)

    @property
    def scan_options(self) -> scanning.ScanOptions:
        """How the mounts are looked at."""
        return scanning.ScanOptions(
            processes=self.settings.processes,
            entries_per_second=self.settings.entries_per_second,
            bytes_per_second=self.settings.bytes_per_second,
            filters=self.filters,
            privilege="sudo -n" if self.settings.privilege else "",
        )

    @property
    def list_options(self) -> listing.ListOptions:
        """How S3 is asked."""
        return listing.ListOptions(
            processes=self.settings.processes,
            connections=self.settings.connections,
            requests_per_second=self.settings.requests_per_second,
        )

    def rules(self, against: Against, origin: Origin) -> Rules:
        """What is compared: not what the task was told not to keep. Sides are called by who looked at them."""
        lost = {name for name, option in UNKEPT.items() if self.task.options.get(option) == "NONE"}
        fields = frozenset({"mtime", "mode", "uid", "gid", "target"}) - lost
        prefix = self.task.destination.prefix
        return Rules(self.filters, fields, labels=(FROM[origin], LABELS[against]), prefix=prefix)

    def terms(self, *names: Origin | Against) -> dict[str, Any]:
        """What decides what is on the sides of these names."""
        task = self.task
        return {
            "endpoint": self.session.endpoint_url,
            "region": self.region,
            "task": task.arn,
            "places": [task.source.uri, task.destination.uri],
            "filters": [task.includes, task.excludes],
            "options": {option: task.options.get(option) for option in UNKEPT.values()},
            "server": self.server.host.name,
            "mounts": [self.server.path(side) for side in SIDES],
            "s3_inventory": self.settings.s3_inventory if "bucket" in names else None,
            "report": self.latest().arn if "report" in names else None,
        }

    def scanned(
        self, side: Side, folder: Path, progress: Report, planned: Planned = lambda cuts, used: None
    ) -> Inventory:
        """What is on a mount of the application server; `planned`: see `scanning.scan`."""
        root, options = self.server.path(side), self.scan_options
        if (folder / MANIFEST).exists():
            about = {"side": side, "root": root, "host": self.server.host.name, **options.left_out()}
            return Inventory.open(folder, of=about)
        host = self.server.host
        return scanning.scan(host, root, folder, side=side, options=options, progress=progress, planned=planned)

    def reported(self, folder: Path) -> Inventory:
        """What the task's latest execution says that it saw at the source."""
        if (folder / MANIFEST).exists():
            return Inventory.open(folder, of={"side": "report", "root": self.latest().arn})
        found = self.report(folder)
        self.session.count(found.facts["requests"])
        return found

    @property
    def manifest(self) -> str | None:
        """Of the S3 Inventory that stands in for LIST."""
        return self.found if self.settings.s3_inventory == LATEST else self.settings.s3_inventory

    def decided(self, folder: Path) -> tuple[FileSides, str]:
        """The same with the latest S3 Inventory, where that is wished; or why the bucket is to be asked by LIST.

        What lies in the folder of the bucket's inventory, or was begun there, stays what it is.
        """
        if self.settings.s3_inventory != LATEST:
            return self, ""
        if (folder / MANIFEST).exists():
            return replace(self, found=Inventory.open(folder).facts.get("manifest")), ""
        begun = begun_with(folder)
        if begun is not None:
            return replace(self, found=begun.get("manifest")), ""
        place, (since, because) = self.task.destination, self._last_copy()
        try:
            made = latest_inventory.latest(self.session, self.region, place.bucket, place.prefix)
        except NotFound as error:
            return self, f"{BY_LIST} {error}"
        if made.created < since:
            when = f"{made.created:%Y-%m-%d %H:%M:%S} UTC"
            return self, f"{BY_LIST} The latest S3 Inventory, {made.manifest}, is of {when}, and {because}."
        return replace(self, found=made.manifest), ""

    def listed(
        self,
        source: Inventory | Underway,
        folder: Path,
        progress: Report,
        told: Callable[[str], None] = lambda sentence: None,
    ) -> Inventory:
        """What is in the bucket: by LIST, or from an S3 Inventory where the environment names one.

        `told` hears why it is LIST after all: the task has run since the latest S3 Inventory was chosen.
        """
        place, manifest = self.task.destination, self.manifest
        latest = self.settings.s3_inventory == LATEST
        if (folder / MANIFEST).exists():
            about = {"side": "bucket", "root": f"s3://{place.bucket}/{place.prefix}"}
            return Inventory.open(folder, of=about if manifest is None or latest else {**about, "manifest": manifest})
        if manifest is not None:
            since, because = self._last_copy()
            try:
                found = stored_inventory.from_s3_inventory(
                    self.session, self.region, manifest, place.bucket, place.prefix, folder,
                    since=since, because=because,
                )  # fmt: skip
            except (TooOld, NotFound) as error:
                if not latest:
                    raise type(error)(f"{error} Or leave `s3_inventory` out: then it is LIST.") from error
                told(f"{BY_LIST} {error}")
                shutil.rmtree(folder, ignore_errors=True)  # what was begun of it
            else:
                self.session.count(found.facts["requests"])
                return found
        return listing.list_bucket(
            self.session, self.region, place.bucket, place.prefix, folder,
            cut_from=source, options=self.list_options, progress=progress,
        )  # fmt: skip

    def _last_copy(self) -> tuple[datetime, str]:
        """When the task last wrote, and how that is known; AWS lists the executions of 30 days."""
        now = datetime.now(UTC)
        try:
            ended = self.latest().ended
        except NotFound:
            return now - timedelta(days=30), "the task may have run since: AWS lists executions of 30 days only"
        if ended is None:
            return now, "the task is running"
        return ended, f"the task's last execution ended later, at {ended:%Y-%m-%d %H:%M:%S} UTC"

    def described(
        self, listed: Inventory, folder: Path, keys: Sequence[str] | None, progress: Report, content: bool
    ) -> Inventory:
        """The bucket's inventory with metadata and checksums of all objects, or of some keys: a HEAD each.

        `content`: of several checksums one that the application server can compute.
        """
        if (folder / MANIFEST).exists():
            return Inventory.open(folder, of={"side": "bucket", "root": listed.root, "listed": listed.made_of})
        place = self.task.destination
        return heads.describe(
            self.session, self.region, place.bucket, place.prefix, listed, folder,
            keys=keys, computable=self.computable if content else None, options=self.list_options, progress=progress,
        )  # fmt: skip

    @cached_property
    def computable(self) -> frozenset[str]:
        """The checksum algorithms that the application server can compute."""
        return scanning.capabilities(self.server.host, self.scan_options)

    def reading(self, against: Against) -> Reading:
        """How the content of both sides is read."""
        algorithm = next(name for name in PREFERRED if name in self.computable)
        place, options = self.task.destination, self.list_options

        def of_mount(side: Side) -> Digests:
            root = self.server.path(side)
            return lambda wanted, beat: scanning.digests(self.server.host, root, wanted, self.scan_options, beat)

        def of_bucket(wanted: Sequence[Wanted], beat: Beat) -> Iterable[pa.RecordBatch]:
            pairs = [(key, name) for key, name, _ in wanted]
            return heads.content(self.session, self.region, place.bucket, place.prefix, pairs, options, beat)

        def parts(keys: Sequence[str]) -> dict[str, tuple[int, ...]]:
            return heads.part_sizes(self.session, self.region, place.bucket, place.prefix, keys, options)

        if against == "bucket":
            sent = self.session.asked.copy
            return Reading(of_mount("source"), of_bucket, parts, self.computable, algorithm, sent)
        return Reading(of_mount("source"), of_mount("share"), parts, self.computable, algorithm)

    def with_checksums(
        self,
        against: Against,
        source: Inventory,
        other: Inventory,
        folder: Path,
        keys: Sequence[str] | None,
        told: Told,
    ) -> tuple[Inventory, Inventory]:
        """Both inventories with checksums of the same algorithm."""
        began = time.monotonic()

        files = source.kinds.get(FILE, 0) if keys is None else len(keys)
        reading = self.reading(against)
        size = to_read(source, other, reading, keys)
        before: tuple[int, int] | None = None  # what an earlier call had read: the first that is said

        def progress(done: int, read: int) -> None:
            nonlocal before
            before = before or (done, read)
            what = "both sides", "reading content"
            told(Progress(*what, done, read, 0, files, began, before[0], size=size, bytes_before=before[1]))

        return digested(source, other, folder, reading, keys, progress)

    def read_again(self, against: Against, read: Counter[str]) -> Digest:
        """Reads the content of a few entries; `read` counts the files and bytes read of the other side."""
        reading = self.reading(against)

        def digest(
            ours: pa.RecordBatch, theirs: pa.RecordBatch, keys: Sequence[str] | None
        ) -> tuple[pa.RecordBatch, pa.RecordBatch]:
            here, there = read_again(ours, theirs, reading, keys)
            read.update(files=there.read, bytes=there.read_bytes)
            return here.rows, there.rows

        return digest

    def again(
        self, against: Against, source: Inventory, other: Inventory, keys: list[str], content: bool
    ) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Rows of some keys of both inventories, as they are now; a mount has to be the one that was scanned.

        `content`: see `described`.
        """
        place = self.task.destination
        here = self._look_again("source", source, keys)
        if against == "share":
            there = self._look_again("share", other, keys)
        else:
            bucket, prefix, options = place.bucket, place.prefix, self.list_options
            computable = self.computable if content else None
            there = heads.look_again(self.session, self.region, bucket, prefix, keys, options, computable=computable)
        return conform(here), conform(there)

    def _look_again(self, side: Side, seen: Inventory, keys: list[str]) -> pa.RecordBatch:
        root, top = self.server.path(side), seen.facts.get("top")
        return scanning.look_again(self.server.host, root, keys, self.scan_options, top)


def inventory_moment(inventory: Inventory, level: str) -> str:
    """When the bucket was so, where an S3 Inventory says what is in it; else nothing."""
    if inventory.facts.get("method") != "S3 Inventory":
        return ""
    what = "The list of the bucket's objects" if level in ASKED_FOR else "The bucket"
    return f"{what} is as S3 Inventory had it at {inventory.ended:%Y-%m-%d %H:%M:%S} UTC."


def known_by(inventory: Inventory, level: str, latest: bool) -> list[str]:
    """What a reader has to know of an inventory that is not of now, or not whole.

    `latest`: a configuration of the bucket named the S3 Inventory.
    """
    facts, when = inventory.facts, f"{inventory.ended:%Y-%m-%d %H:%M} UTC"
    if facts.get("method") == "S3 Inventory":
        trusted = ", as its configuration says now" if latest else ""
        unseen = "added to the bucket"
        if level not in ASKED_FOR:
            but = " (but for the files of the sample)" if level == "sample" else ""
            unseen = f"changed, added or deleted in the bucket{but}"
        return [
            f"{inventory_moment(inventory, level)} What was {unseen} since then is not seen, but where something "
            f"differed: that was looked at again now. {facts['manifest']} is trusted to list every object below the "
            f"prefix{trusted}."
        ]
    if facts.get("method") != "DataSync task report":
        return []
    notes = [f"DataSync's report is of the execution that ended at {when}: what changed since then is not in it."]
    for section, count in facts.get("counted", {}).items():
        listed = facts["listed"][section]
        if listed < count:
            notes.append(
                f"DataSync's report lists {listed:,} of {plural(count, 'item')} that were {section} by its statistics: "
                "not all. Set the task's report to list successes of both, or scan."
            )
    return notes


def require_folder(within: str, sides: Sequence[Inventory]) -> None:
    """SettingsError when neither side has such a folder: that is a mistyped name, and nothing would be compared."""
    name = within.strip("/")
    if name and not any(_has_folder(side, name) for side in sides):
        labels = " nor ".join(LABELS[side.side] for side in sides)
        raise SettingsError(f"Neither {labels} has a folder /{name}: give its path from the top, as in images/2024.")


def _has_folder(inventory: Inventory, name: str) -> bool:
    """Whether there is a folder of that name, or anything in it; '0' comes after '/'."""
    return any(batch.num_rows for batch in inventory.batches(["key"], f"{name}/", f"{name}0"))


def directly_in(inventory: Inventory, within: str, folder: Path) -> Inventory:
    """Only the files and links that are directly in one folder of an inventory ('' is the top)."""
    about = {"of": inventory.made_of, "within": within}
    if (folder / MANIFEST).exists():
        return Inventory.open(folder, of={"side": inventory.side, "root": inventory.root, **about})
    start = f"{within.strip('/')}/" if within.strip("/") else ""
    stop = f"{start[:-1]}0" if start else None  # '0' comes after '/'
    with Writer(folder, side=inventory.side, root=inventory.root, parameters=about) as writer:
        if "all" not in writer.finished:
            with writer.shard("all", 0) as shard:
                for batch in inventory.batches(None, start or None, stop):
                    rest = pa.compute.utf8_slice_codeunits(batch.column("key"), start=len(start))
                    below = pa.compute.match_substring(rest, "/")
                    shard.write(batch.filter(pa.compute.invert(below)))
        return writer.finish(seen=(inventory.began, inventory.ended), **inventory.facts)
