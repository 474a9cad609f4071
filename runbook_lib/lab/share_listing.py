"""What should a share show, by what the bucket holds now?

A LIST of the folders asked for, turned into paths. Keys that no file can be named after are not shown, neither is a
file whose name a folder needs as well.
"""

from __future__ import annotations

import posixpath
import sys
import unicodedata
from dataclasses import dataclass, field

from .objects import ObjectStore, StoredObject
from .share_metadata import showable

LAST = "\U0010ffff"  # sorts behind everything that a key continues with


@dataclass
class Listing:
    """Paths by what they are; a folder without an object of its own is implied by what it contains."""

    store: ObjectStore
    bucket: str
    prefix: str
    recursive: bool
    asked: set[str] = field(default_factory=set)
    files: dict[str, StoredObject] = field(default_factory=dict)
    folders: dict[str, StoredObject | None] = field(default_factory=dict)
    unshown: list[str] = field(default_factory=list)  # keys

    def add(self, folder: str) -> None:
        """List one folder ('' is the share's top)."""
        self.asked.add(folder)
        base = f"{self.prefix}{folder}/" if folder else self.prefix
        if self.recursive:
            for stored in self.store.list(self.bucket, base):
                self._add(stored, folder)
        else:
            self._add_level(base, folder)

    def _add(self, stored: StoredObject, folder: str) -> None:
        relative = stored.key[len(self.prefix) :]
        path = showable(relative)
        if path is None:
            if relative:  # the prefix itself is the share's top
                self.unshown.append(stored.key)
            return
        if relative.endswith("/"):
            self.folders[path] = stored
        else:
            self.files[path] = stored
        while path != folder and (path := posixpath.dirname(path)) and path not in self.folders:
            self.folders[path] = None

    def _add_level(self, base: str, folder: str) -> None:
        after: str | None = ""
        while after is not None:
            after = self._add_until_subfolder(base, folder, after)

    def _add_until_subfolder(self, base: str, folder: str, after: str) -> str | None:
        """Take keys up to a subfolder, and say behind which key to go on; None at the end."""
        for stored in self.store.list(self.bucket, base, after):
            name, slash, deeper = stored.key[len(base) :].partition("/")
            if not slash:
                self._add(stored, folder)
                continue
            path = showable(f"{folder}/{name}" if folder else name)
            if path is None:
                self.unshown.append(stored.key)
            else:
                self.folders[path] = None if deeper else stored
                if folder:
                    self.folders.setdefault(folder, None)
            return f"{base}{name}/{LAST}"
        return None

    def finish(self) -> None:
        """Take out what cannot stand beside the rest."""
        clashing = self.files.keys() & self.folders.keys()
        if sys.platform == "darwin":  # names that differ in case or composition are one file there
            taken: set[str] = {_folded(path) for path in self.folders}
            for path in self.files:
                if _folded(path) in taken:
                    clashing.add(path)
                taken.add(_folded(path))
        for path in clashing:
            self.unshown.append(self.files.pop(path).key)

    def covers(self, path: str) -> bool:
        """Whether the listing says everything about a path: if it is not in it, it is no more."""
        if self.recursive:
            return any(not folder or path == folder or path.startswith(f"{folder}/") for folder in self.asked)
        while path:
            parent = posixpath.dirname(path)
            if path in self.asked or parent in self.asked:
                return True
            if parent in self.folders:
                return False
            path = parent
        return False


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()
