"""What does a file share show? A real directory with what its gateway knows of the bucket, stale until refreshed.

A refresh lists the bucket, makes every changed file beside the share and then renames them in all at once. What the
application has changed and the gateway has not uploaded yet is never overwritten. (On AWS a file's bytes come at the
first read; here they are there at once.)
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from .core import Lab
from .share_known import Known, identity, signature
from .share_listing import Listing
from .share_refresh import Changes, Materialiser, Wanted
from .share_settings import SHARE, ShareSettings

STAGED = "share-"  # prefix of the folders below staging


class Share:
    """One file share, held open by the gateway."""

    def __init__(self, lab: Lab, arn: str) -> None:
        self.lab = lab
        self.arn = arn
        document = lab.database.get(SHARE, arn)
        if document is None:
            raise KeyError(arn)
        self.share_id = str(document["FileShareId"])
        directory = lab.folder.root / document["Directory"]
        directory.mkdir(parents=True, exist_ok=True)
        self.root = Path(os.path.realpath(directory))
        self.known = Known(lab.database, self.share_id)
        self.lock = threading.RLock()  # whoever decides about files or entries holds it

    @property
    def settings(self) -> ShareSettings:
        """The settings of now."""
        return ShareSettings.load(self.lab.database, self.arn)

    def look(self, path: str) -> os.stat_result | None:
        """What is at a path, following no link anywhere; None when there is nothing."""
        full = self.root / path
        if os.path.realpath(full.parent) != str(full.parent):
            return None
        try:
            return os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def recover(self) -> None:
        """Settle what a killed refresh left; know nothing when the directory is not the one we knew."""
        name, inode = f"storagegateway.root {self.share_id}", os.stat(self.root).st_ino
        with self.lock:
            if self.lab.database.setting(name) not in (None, inode):
                self.known.clear()  # its files did not vanish by the application's doing: nothing is to be deleted
                self.refresh([""], recursive=True)
            self.known.recover(self.root)
            self.lab.database.set(name, inode)

    def refresh(self, folders: Sequence[str], *, recursive: bool) -> None:
        """Show what the bucket holds in these folders ('' is the top), as far as the gateway knows the folders.

        A folder becomes known by refreshing its parent (Storage Gateway API, RefreshCache).
        """
        with self.lock:
            settings, known = self.settings, self.known.all()
            listing = Listing(self.lab.objects, settings.bucket, settings.prefix, recursive)
            for folder in folders:
                if folder and not (folder in known and known[folder].folder):
                    settings.health(
                        self.lab.bus, "FolderUnknown", [f"/{folder}"], "RefreshCache",
                        "The gateway does not know this folder: refresh its parent first.",
                    )  # fmt: skip
                    continue
                listing.add(folder)
            listing.finish()
            unshown = dict.fromkeys(listing.unshown, "No file in the share can have this name.")
            with tempfile.TemporaryDirectory(prefix=STAGED, dir=self.lab.folder.staging) as workshop:
                hands = Materialiser(self.root, self.look, self.lab.objects, settings.defaults, Path(workshop))
                changes = Changes()
                gone = [entry for path, entry in known.items() if listing.covers(path)]
                gone = [e for e in gone if e.path not in (listing.folders if e.folder else listing.files)]
                for entry in gone:
                    hands.consider_removal(entry, changes)
                for path in sorted(listing.folders):
                    hands.consider(Wanted(path, True, listing.folders[path]), known.get(path), changes)
                for path, stored in listing.files.items():
                    before = known.get(path)
                    if before is None or before.folder or before.object != identity(stored):
                        hands.consider(Wanted(path, False, stored), before, changes)
                self.known.plan(changes.plans)
                hands.carry_out(changes, listing.folders)
            kept = [*changes.known, *(known[path] for path in changes.failed if path in known)]
            self.known.put(kept)
            self.known.forget({*changes.forgotten, *changes.failed} - {entry.path for entry in kept})
            for key, reason in (unshown | changes.failed).items():
                settings.health(self.lab.bus, "NotShown", [key], "RefreshCache", reason)

    def empty(self) -> None:
        """Remove the share's files and what is known of them; the bucket keeps its objects."""
        with self.lock:
            self.known.clear()
            for path in self.root.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def differs(self, path: str, seen: os.stat_result | None) -> bool:
        """Whether a path is not as the gateway knows it."""
        entry = self.known.get(path)
        return (signature(seen) if seen else None) != (entry.signature if entry else None)
