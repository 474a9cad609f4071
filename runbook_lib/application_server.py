"""What the application sees: the NFS mount and the file share, through commands on the application server."""

from __future__ import annotations

import base64
import gzip
import posixpath
from dataclasses import dataclass
from typing import Literal

from .display import Shown, plural, size
from .errors import NotFound, RunbookError, SettingsError
from .hosts import CommandResult, Host, quoted
from .inventory import METADATA_KEY, Entry, parse_scan

Side = Literal["source", "share"]
LABELS = {"source": "NFS server", "share": "file share"}

CHUNK = 20_000  # characters fetched by one command: below what SSM keeps of an output
SCAN_LIMIT = 400_000  # characters of compressed listing that are fetched: tens of thousands of entries

# find -printf where there is GNU find, python3 elsewhere (macOS). One record an entry, ended by NUL.
SCAN = r"""
if find . -maxdepth 0 -printf '' 2>/dev/null; then find . -printf '%y %s %T@ %C@ %m %U %G %p\0'; else python3 -c '
import os, stat, sys
def say(path):
    s = os.lstat(path)
    kind = {stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFREG: "f"}.get(stat.S_IFMT(s.st_mode), "o")
    times = ["%d.%09d" % divmod(t, 10**9) for t in (s.st_mtime_ns, s.st_ctime_ns)]
    numbers = ["%o" % stat.S_IMODE(s.st_mode), str(s.st_uid), str(s.st_gid)]
    sys.stdout.buffer.write(os.fsencode(" ".join([kind, str(s.st_size), *times, *numbers, path])) + b"\0")
say(".")
for top, folders, files in os.walk("."):
    for name in folders + files: say(os.path.join(top, name))
'; fi"""


@dataclass(frozen=True, repr=False)
class Listing(Shown):
    """What `ls` printed for a folder."""

    side: Side
    command: str
    names: tuple[str, ...]
    truncated: bool

    @property
    def ok(self) -> bool:
        """A finding: the folder is not empty."""
        return bool(self.names)

    @property
    def reason(self) -> str:
        """What was seen."""
        return f"`{self.command}` shows {plural(len(self.names), 'name')}"

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def headline(self) -> str:
        """The command and its first lines."""
        cut = "\n(cut: the listing is longer than a command's output)" if self.truncated else ""
        more = f"\n… and {len(self.names) - 10:,} more" if len(self.names) > 10 else ""
        return "\n".join([f"$ {self.command}", *self.names[:10]]) + more + cut


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
class Digest(Shown):
    """Counts and one hash over names and contents of a folder, computed on the application server."""

    side: Side
    folder: str
    files: int
    sha256: str

    @property
    def ok(self) -> bool:
        """A finding: at least one file was read."""
        return self.files > 0

    @property
    def reason(self) -> str:
        """What was seen."""
        return f"{plural(self.files, 'file')} read in {self.folder} on the {LABELS[self.side]}"

    def headline(self) -> str:
        """Counts and hash."""
        return f"{plural(self.files, 'file')} in {self.folder} on the {LABELS[self.side]}, SHA-256 {self.sha256}"


class ApplicationServer:
    """The machine with both mounts. Looking changes nothing; `copy` and `remove` change the source."""

    def __init__(self, host: Host, *, source_mount: str, share_mount: str, privilege: str) -> None:
        self.host = host
        self._mounts = {"source": source_mount, "share": share_mount}
        self._privilege = privilege

    def path(self, side: Side, relative: str = "") -> str:
        """A path below a mount; refuses to leave it."""
        mount = self._mounts[side]
        whole = posixpath.normpath(posixpath.join(mount, relative.lstrip("/")))
        if whole != mount.rstrip("/") and not whole.startswith(mount.rstrip("/") + "/"):
            raise SettingsError(f"{relative!r} leaves {mount}: give a path below the mount.")
        return whole

    def ls(self, side: Side, folder: str = "", *, hidden: bool = False) -> Listing:
        """What the application sees with `ls`; `hidden` with `ls -A`."""
        shown = quoted(["ls", "-A" if hidden else "", self.path(side, folder)])
        result = self.host.run(f"LC_ALL=C {shown}", timeout=60).required()
        return Listing(side, shown, tuple(result.output.splitlines()), result.truncated)

    def exists(self, side: Side, path: str) -> bool:
        """Is there a file or folder of this name?"""
        return self.host.run(quoted(["test", "-e", self.path(side, path)]), timeout=60).ok

    def facts(self, side: Side, path: str) -> FileFacts:
        """Open a file and read it to its end; `NotFound` when it is not there."""
        whole = self.path(side, path)
        name = quoted([whole])
        script = f"test -f {name} || exit 44; wc -c < {name} && {_hasher()} && $hasher {name}"
        result = self.host.run(script, timeout=600)
        if result.exit_status == 44:
            raise NotFound(f"{whole} is not on the {LABELS[side]}.")
        fields = result.required().output.split()
        return FileFacts(side, whole, int(fields[0]), fields[1])

    def digest(self, side: Side, folder: str = "", *, recursive: bool) -> Digest:
        """Counts and one hash over the names and contents of all files in a folder, in byte order of their names.

        `.aws-datasync-metadata` is left out: DataSync writes it, the source does not have it.
        """
        whole = self.path(side, folder)
        depth = "" if recursive else "-maxdepth 1"
        script = (
            f"t=$(mktemp) && trap 'rm -f \"$t\"' EXIT && cd {quoted([whole])} && {_hasher()} && "
            f"find . {depth} -type f ! -path ./{METADATA_KEY} -print0 | "
            'LC_ALL=C sort -z | xargs -0 -r $hasher > "$t" && '
            'wc -l < "$t" && $hasher < "$t"'
        )
        fields = self.host.run(script, timeout=3600).required().output.split()
        return Digest(side, whole, int(fields[0]), fields[1])

    def scan(self, side: Side) -> list[Entry]:
        """Every entry below a mount with its metadata, compressed on the server and fetched in pieces.

        Raises `RunbookError` when the listing is too long to be fetched through commands.
        """
        whole = quoted([self.path(side)])
        made = self.host.run(
            f't=$(mktemp) && cd {whole} && ({SCAN}) | gzip -n | base64 | tr -d "\\n" > "$t" && '
            f'echo "$t" && wc -c < "$t" && head -c {CHUNK} "$t"',
            timeout=3600,
        ).required()
        temporary, length, *first = made.output.split()
        try:
            if int(length) > SCAN_LIMIT:
                raise RunbookError(
                    f"the listing of {self.path(side)} is too long to be fetched through commands "
                    f"({int(length):,} characters)."
                )
            pieces = first + [
                self.host.run(f"tail -c +{at + 1} {quoted([temporary])} | head -c {CHUNK}").required().output.strip()
                for at in range(CHUNK, int(length), CHUNK)
            ]
        finally:
            self.host.run(quoted(["rm", "-f", temporary])).required()
        return parse_scan(gzip.decompress(base64.b64decode("".join(pieces))))

    def same_file(self, path: str) -> Same:
        """Open a file on both sides, read it to its end and compare."""
        return Same(self.facts("source", path), self.facts("share", path))

    def same_content(self, folder: str, *, recursive: bool) -> Same:
        """Compare counts and one hash over names and contents of a folder on both sides."""
        return Same(
            self.digest("source", folder, recursive=recursive), self.digest("share", folder, recursive=recursive)
        )

    def same_names(self, folder: str) -> ListingDifference:
        """Compare what `ls -A` shows of a folder on both sides."""
        return listing_difference(folder, self.ls("source", folder, hidden=True), self.ls("share", folder, hidden=True))

    def copy(self, source: str, destination: str) -> CommandResult:
        """Copy a file on the NFS server, as the workshop does it: `sudo cp /mnt/data/… /mnt/data/…`."""
        command = quoted([self._privilege, "cp", self.path("source", source), self.path("source", destination)])
        return self.host.run(command, changes=True).required()

    def remove(self, side: Side, path: str) -> CommandResult:
        """Remove one file."""
        return self.host.run(quoted([self._privilege, "rm", self.path(side, path)]), changes=True).required()


def _hasher() -> str:
    """Shell text that sets $hasher; macOS has shasum."""
    return 'hasher=$(command -v sha256sum || echo "shasum -a 256")'


@dataclass(frozen=True, repr=False)
class ListingDifference(Shown):
    """What `ls -A` shows on one side only."""

    folder: str
    only_source: tuple[str, ...]
    only_share: tuple[str, ...]
    looked_at: int

    @property
    def ok(self) -> bool:
        """A finding: both show the same names, but for DataSync's own metadata file on the share."""
        return self.looked_at > 0 and not self.only_source and not set(self.only_share) - {METADATA_KEY}

    @property
    def reason(self) -> str:
        """What differs."""
        if not self.looked_at:
            return f"`ls` shows nothing in {self.folder}"
        here, there = ", ".join(self.only_source[:5]) or "nothing", ", ".join(self.only_share[:5]) or "nothing"
        return f"only on the NFS server: {here}; only on the share: {there}"

    def headline(self) -> str:
        """What differs."""
        return f"Of {plural(self.looked_at, 'name')} in {self.folder}, {self.reason}."


@dataclass(frozen=True, repr=False)
class Same(Shown):
    """Whether two sides have the same content."""

    source: FileFacts | Digest
    share: FileFacts | Digest

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


def listing_difference(folder: str, source: Listing, share: Listing) -> ListingDifference:
    """Compare two listings of the same folder."""
    return ListingDifference(
        folder,
        tuple(name for name in source.names if name not in share),
        tuple(name for name in share.names if name not in source),
        len(source.names),
    )
