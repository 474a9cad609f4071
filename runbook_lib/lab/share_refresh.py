"""How does a share come to show another listing: what is made, removed, or left to the application?"""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .objects import ObjectStore, StoredObject
from .share_known import Entry, Plan, identity, signature
from .share_metadata import Attributes, Defaults, attributes, stays_inside

LONGEST_TARGET = 4096  # bytes of a link's target
ROOT = os.geteuid() == 0


@dataclass(frozen=True)
class Wanted:
    """A path as the bucket has it; a folder's object may be missing."""

    path: str
    folder: bool
    stored: StoredObject | None


@dataclass
class Changes:
    """What a refresh will do, and what is known after it."""

    plans: list[Plan] = field(default_factory=list)
    staged: dict[str, Path] = field(default_factory=dict)  # by path in the share; parents stand before children
    restyled: dict[str, Attributes] = field(default_factory=dict)  # folders that are there
    removed: list[Entry] = field(default_factory=list)
    known: list[Entry] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # path -> why it could not be shown

    def plan(self, plan: Plan) -> None:
        """Something will look like this."""
        self.plans.append(plan)

    def leave(self, wanted: Wanted, entry: Entry | None, seen: os.stat_result | None) -> None:
        """The application's change stays and will be uploaded; the gateway knows of the bucket's object now."""
        before = entry.signature if entry and seen is None else ""
        self.known.append(Entry(wanted.path, wanted.folder, identity(wanted.stored), before, 0))


class Materialiser:
    """Makes files for one refresh. `look` sees a path of the share without following links."""

    def __init__(
        self,
        root: Path,
        look: Callable[[str], os.stat_result | None],
        store: ObjectStore,
        defaults: Defaults,
        workshop: Path,
    ) -> None:
        self._root, self._look, self._store = root, look, store
        self._defaults, self._workshop = defaults, workshop

    # Deciding, and making beside the share.

    def consider_removal(self, entry: Entry, changes: Changes) -> None:
        """The bucket has it no more: remove it, unless the application made it into something of its own."""
        seen = self._look(entry.path)
        if seen is None or (not entry.folder and signature(seen) != entry.signature):
            changes.forgotten.append(entry.path)
            return
        changes.removed.append(entry)
        changes.plan(Plan(entry.path, entry.folder, "", "", 0))

    def consider(self, wanted: Wanted, entry: Entry | None, changes: Changes) -> None:
        """Make what the bucket has, unless the application changed, made or removed it and that is not uploaded."""
        if entry is not None and entry.folder == wanted.folder and entry.object == identity(wanted.stored):
            return
        seen = self._look(wanted.path)
        same_kind = entry is not None and entry.folder == wanted.folder
        if seen is None:
            if same_kind and entry is not None and entry.signature:
                changes.leave(wanted, entry, None)
            else:
                self._stage(wanted, changes)
        elif entry is not None and signature(seen) == entry.signature:
            if same_kind and wanted.folder:
                self._restyle(wanted, seen, changes)
            else:
                self._stage(wanted, changes)
        elif entry is None and self._looks_alike(wanted, seen):
            known = Entry(wanted.path, wanted.folder, identity(wanted.stored), signature(seen), seen.st_size)
            changes.known.append(known)
        else:
            changes.leave(wanted, entry, seen)

    def _attributes(self, wanted: Wanted) -> Attributes:
        stored = wanted.stored
        found = attributes(
            stored.metadata if stored else {},
            stored.last_modified if stored else time.time(),
            folder=wanted.folder,
            defaults=self._defaults,
        )
        if not wanted.folder or ROOT:
            return found
        mode = found.mode | 0o700  # without root the lab could not look into the folder any more
        return Attributes(mode, found.owner, found.group, found.mtime, found.atime)

    def _looks_alike(self, wanted: Wanted, seen: os.stat_result) -> bool:
        """Whether a file that the gateway does not know is what the bucket has: it knew it once."""
        if wanted.stored is None or wanted.folder:
            return wanted.folder and stat.S_ISDIR(seen.st_mode)
        same = (seen.st_size, seen.st_mtime_ns) == (wanted.stored.size, self._attributes(wanted).mtime)
        return stat.S_ISREG(seen.st_mode) and same

    def _stage(self, wanted: Wanted, changes: Changes) -> None:
        staged = self._workshop / str(len(changes.staged))
        style = self._attributes(wanted)
        try:
            if wanted.folder:
                staged.mkdir()
            elif not self._fill(staged, wanted, style):
                return
            dress(staged, style)
            seen = os.lstat(staged)
        except OSError as error:
            changes.failed[wanted.path] = f"It cannot be made: {error.strerror}."
            return
        changes.staged[wanted.path] = staged
        size = 0 if wanted.folder else seen.st_size
        changes.plan(Plan(wanted.path, wanted.folder, identity(wanted.stored), signature(seen), size))

    def _fill(self, staged: Path, wanted: Wanted, style: Attributes) -> bool:
        """Write an object's bytes, or make its link; False when it was replaced or deleted since it was listed."""
        stored = wanted.stored
        assert stored is not None
        try:
            if style.link and stored.size <= LONGEST_TARGET:
                with self._store.open_exactly(stored) as source:
                    text = source.read()
                target = os.fsdecode(text)
                if stays_inside(wanted.path, target):
                    os.symlink(target, staged)
                else:  # it would lead out of the share: show where to, and lead nowhere
                    staged.write_bytes(text)
            elif stored.path is not None:
                shutil.copyfile(stored.path, staged)
            else:
                with self._store.open_exactly(stored) as source, staged.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
        except FileNotFoundError:
            return False  # the next refresh shows what became of it
        return True

    def _restyle(self, wanted: Wanted, seen: os.stat_result, changes: Changes) -> None:
        style = self._attributes(wanted)
        owner = (style.owner, style.group) if ROOT else (seen.st_uid, seen.st_gid)
        changes.restyled[wanted.path] = style
        planned = f"folder {style.mode:o} {owner[0]} {owner[1]}"
        changes.plan(Plan(wanted.path, True, identity(wanted.stored), planned, 0))

    # Doing it.

    def carry_out(self, changes: Changes, folders: Mapping[str, StoredObject | None]) -> None:
        """Remove, rename in and restyle, in one burst; folders get their times last, since children change them."""
        touched = {posixpath.dirname(path) for path in changes.staged}
        for entry in reversed(changes.removed):  # children before their folders
            touched.add(posixpath.dirname(entry.path))
            self._remove(entry, changes)
        objects = {plan.path: plan for plan in changes.plans if plan.signature}
        for path, staged in changes.staged.items():
            try:
                if not self._is_folder(posixpath.dirname(path)):
                    raise NotADirectoryError(errno.ENOTDIR, "the application has something else in its folder's place")
                os.replace(staged, self._root / path)
            except OSError as error:
                changes.failed[path] = f"It cannot be put into the share: {error.strerror}."
        for path, style in changes.restyled.items():
            dress(self._root / path, style)
        for path in (touched & folders.keys()) | {path for path in changes.staged if objects[path].folder}:
            if folders[path] is not None and self._is_folder(path):
                style = self._attributes(Wanted(path, True, folders[path]))
                os.utime(self._root / path, ns=(style.atime, style.mtime))
        for path, plan in objects.items():
            if path not in changes.failed:
                changes.known.append(Entry(path, plan.folder, plan.object, plan.signature, plan.size))

    def _is_folder(self, path: str) -> bool:
        seen = self._look(path)
        return seen is not None and stat.S_ISDIR(seen.st_mode)

    def _remove(self, entry: Entry, changes: Changes) -> None:
        full = self._root / entry.path
        changes.forgotten.append(entry.path)
        try:
            if entry.folder:
                full.rmdir()
            else:
                full.unlink()
        except OSError as error:
            if not entry.folder:
                changes.failed[entry.path] = f"It cannot be removed: {error.strerror}."
            # a folder that is not empty holds what the application made: it stays, as the application's


def dress(path: Path, style: Attributes) -> None:
    """Give a file, folder or link its owner (as root), mode and times."""
    if ROOT:
        os.chown(path, style.owner, style.group, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(style.mode)
    os.utime(path, ns=(style.atime, style.mtime), follow_symlinks=False)
