"""What the application sees: the NFS mount and the file share, through commands on the application server."""

from __future__ import annotations

import base64
import gzip
import posixpath
from collections.abc import Callable
from datetime import UTC, datetime

from .errors import NotFound, RunbookError, SettingsError
from .hosts import CommandResult, Host, quoted
from .inventory import Entry, parse_scan
from .sides import LABELS, SIDES, FileFacts, Listing, ListingDifference, Same, Side

MISSING = 44  # the exit status with which our scripts say that something is not there
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


class ListingTooLong(RunbookError):
    """A listing is too long to be fetched through commands."""


class ApplicationServer:
    """The machine with both mounts. Looking changes nothing; `copy` and `remove` change the source."""

    def __init__(
        self,
        host: Host,
        *,
        source_mount: str,
        share_mount: str,
        privilege: str,
        in_scope: Callable[[str], bool] = lambda path: True,
    ) -> None:
        """`in_scope` tells whether a path is among those that the DataSync task copies (its filters)."""
        self.host = host
        self._in_scope = in_scope
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
        """What the application sees with `ls`; `hidden` with `ls -A`. The share may not have the folder yet."""
        whole = self.path(side, folder)
        shown = quoted(["ls", "-A" if hidden else "", whole])
        result = self.host.run(f"test -e {quoted([whole])} || exit {MISSING}; LC_ALL=C {shown}", timeout=60)
        if result.exit_status == MISSING and side == "share":
            return Listing(side, shown, (), False, missing=True)
        if result.exit_status == MISSING:
            raise NotFound(f"{whole} is not on the {LABELS[side]}. Is it mounted, and is the path right?")
        lines = result.required().output.rstrip("\n").split("\n") if result.output else []
        return Listing(side, shown, tuple(lines), result.truncated)

    def exists(self, side: Side, path: str) -> bool:
        """Is there a file or folder of this name?"""
        return self.host.run(quoted(["test", "-e", self.path(side, path)]), timeout=60).ok

    def facts(self, side: Side, path: str) -> FileFacts:
        """Open a file and read it to its end; `NotFound` when it is not there."""
        whole = self.path(side, path)
        name = quoted([whole])
        script = f"test -f {name} || exit {MISSING}; wc -c < {name} && {_hasher()} && $hasher {name}"
        result = self.host.run(script, timeout=600)
        if result.exit_status == MISSING:
            raise NotFound(f"{whole} is not on the {LABELS[side]}.")
        fields = result.required().output.split()
        return FileFacts(side, whole, int(fields[0]), fields[1])

    def scan(self, side: Side) -> list[Entry]:
        """Every entry below a mount with its metadata, compressed on the server and fetched in pieces.

        Raises `ListingTooLong` when it is too long for that, `CommandFailed` when a folder cannot be read: a walk
        that is not complete proves nothing.
        """
        whole = quoted([self.path(side)])
        made = self.host.run(
            f't=$(mktemp) && trap \'rm -f "$t.raw"\' EXIT && cd {whole} && {{ {SCAN}\n}} > "$t.raw" && '
            f'gzip -n < "$t.raw" | base64 | tr -d "\\n" > "$t" && echo "$t" && wc -c < "$t" && head -c {CHUNK} "$t"',
            timeout=3600,
        ).required()
        temporary, length, *first = made.output.split()
        try:
            if int(length) > SCAN_LIMIT:
                raise ListingTooLong(
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

    def newest(self, side: Side) -> tuple[int, datetime | None]:
        """How many entries are below a mount, and the last change of any of them (UTC); for trees of any length."""
        script = f"cd {quoted([self.path(side)])} && find . -printf '%C@\\n' | LC_ALL=C sort -n"
        result = self.host.run(script + " | awk 'END { print NR, $1 }'", timeout=3600).required()
        count, newest = result.output.split()
        return int(count), datetime.fromtimestamp(float(newest), UTC)

    def same_file(self, path: str) -> Same:
        """Open a file on both sides, read it to its end and compare."""
        return Same(self.facts("source", path), self.facts("share", path))

    def difference(self, folder: str) -> ListingDifference:
        """Compare what `ls -A` shows of a folder on both sides; compared on the server, because SSM cuts outputs.

        A folder that the share does not have yet is empty there. Names that the task's filters leave out are too.
        """
        source, share = (quoted([self.path(side, folder)]) for side in SIDES)
        script = (
            't=$(mktemp) && trap \'rm -f "$t" "$t.a" "$t.b"\' EXIT && export LC_ALL=C && '
            f'ls -A {source} > "$t.a" && if test -e {share}; then ls -A {share} > "$t.b"; else : > "$t.b"; fi && '
            'wc -l < "$t.a" && for side in 23 13; do comm -$side "$t.a" "$t.b" | wc -l; done && '
            f'for side in 23 13; do echo //; comm -$side "$t.a" "$t.b" | head -c {CHUNK // 3}; done'
        )
        head, *sides = self.host.run(script, timeout=600).required().output.split("//\n")
        looked_at, *counts = (int(number) for number in head.split())
        found = []
        for count, text in zip(counts, sides, strict=True):
            names = [name for name in text.split("\n") if name][:count]
            inside = [name for name in names if self._in_scope(posixpath.join(folder, name).lstrip("/"))]
            # beyond what could be fetched, every further name counts
            found.append((tuple(inside), len(inside) + count - len(names)))
        return ListingDifference(folder, found[0][0], found[1][0], looked_at, found[0][1], found[1][1])

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
