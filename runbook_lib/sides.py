"""What was seen on the NFS server and on the share: listings, files and digests, and how the two sides differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .display import Shown, plural, size
from .inventory import METADATA_KEY

Side = Literal["source", "share"]
SIDES: tuple[Side, Side] = ("source", "share")
LABELS = {"source": "NFS server", "share": "file share"}


@dataclass(frozen=True, repr=False)
class Listing(Shown):
    """What `ls` printed for a folder."""

    side: Side
    command: str
    names: tuple[str, ...]
    truncated: bool
    missing: bool = False  # the folder is not there

    @property
    def ok(self) -> bool:
        """A finding: the folder is not empty."""
        return bool(self.names)

    @property
    def reason(self) -> str:
        """What was seen."""
        return f"`{self.command}` shows {plural(len(self.names), 'name')}"

    def shows(self, name: str) -> Shows:
        """A finding: `ls` shows this name."""
        return Shows(name, self)

    def headline(self) -> str:
        """The command and its first lines."""
        cut = "\n(cut: the listing is longer than a command's output)" if self.truncated else ""
        more = f"\n… and {len(self.names) - 10:,} more" if len(self.names) > 10 else ""
        none = "\n(there is no such folder)" if self.missing else ""
        return "\n".join([f"$ {self.command}", *self.names[:10]]) + more + cut + none


@dataclass(frozen=True)
class Shows:
    """Whether a listing shows a name."""

    name: str
    listing: Listing

    @property
    def ok(self) -> bool:
        """True when it does."""
        return self.name in self.listing.names

    @property
    def reason(self) -> str:
        """What the listing shows."""
        among = ", ".join(self.listing.names[:10]) or "nothing"
        return f"{self.name} is {'' if self.ok else 'not '}among what `{self.listing.command}` shows: {among}"


@dataclass(frozen=True, repr=False)
class FileFacts(Shown):
    """One file as the application server sees it."""

    side: Side
    path: str
    size: int
    sha256: str

    @property
    def ok(self) -> bool:
        """A finding: it was opened and read to its end."""
        return True

    @property
    def reason(self) -> str:
        """What was seen."""
        return f"{self.path} can be read on the {LABELS[self.side]}"

    def headline(self) -> str:
        """What was read."""
        return f"{self.path} on the {LABELS[self.side]}: {size(self.size)} read, SHA-256 {self.sha256}"


@dataclass(frozen=True, repr=False)
class ListingDifference(Shown):
    """What `ls -A` shows on one side only: the first names, and how many there are."""

    folder: str
    only_source: tuple[str, ...]
    only_share: tuple[str, ...]
    looked_at: int
    source_count: int
    share_count: int

    @property
    def ok(self) -> bool:
        """A finding: both show the same names, but for DataSync's own metadata file on the share."""
        expected = int(METADATA_KEY in self.only_share)
        return self.looked_at > 0 and self.source_count == 0 and self.share_count == expected

    @property
    def reason(self) -> str:
        """What differs."""
        if not self.looked_at:
            return f"`ls` shows nothing in {self.folder}"
        here = _first(self.only_source, self.source_count)
        return f"only on the NFS server: {here}; only on the share: {_first(self.only_share, self.share_count)}"

    def headline(self) -> str:
        """What differs."""
        return f"`ls -A` shows {plural(self.looked_at, 'name')} in {self.folder} of the NFS server; {self.reason}."


def _first(names: tuple[str, ...], count: int) -> str:
    """'nothing'; or the first names, and how many more there are."""
    shown = names[:5]
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return f"{', '.join(shown)}{more}" if shown else f"{count:,} names" if count else "nothing"


@dataclass(frozen=True, repr=False)
class Same(Shown):
    """Whether a file has the same content on two sides."""

    source: FileFacts
    share: FileFacts

    @property
    def ok(self) -> bool:
        """A finding: both were read and their hashes are equal."""
        return self.source.ok and self.share.ok and self.source.sha256 == self.share.sha256

    @property
    def reason(self) -> str:
        """Both sides."""
        return f"{self.source.headline()}; {self.share.headline()}"

    def headline(self) -> str:
        """Both sides, one a line."""
        return f"{self.source.headline()}\n{self.share.headline()}"
