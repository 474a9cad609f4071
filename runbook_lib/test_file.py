"""The new file that proves the way: created on the NFS server, and removed again when asked."""

from __future__ import annotations

from dataclasses import dataclass

from .application_server import ApplicationServer
from .display import Shown, Table
from .errors import RunbookError
from .settings import Knobs
from .sides import FileFacts
from .transfer import Transfer


@dataclass(frozen=True, repr=False)
class Created(Shown):
    """What became of the new file."""

    how: str
    wanted: bool
    original: FileFacts | None = None
    copy: FileFacts | None = None

    @property
    def ok(self) -> bool:
        """A finding: the copy has the original's content, or no file was wanted."""
        if not self.wanted:
            return True
        return self.original is not None and self.copy is not None and self.original.sha256 == self.copy.sha256

    @property
    def reason(self) -> str:
        """What happened."""
        return self.how

    def headline(self) -> str:
        """What happened."""
        return self.how

    def tables(self) -> list[Table]:
        """Both files."""
        both = [facts for facts in (self.original, self.copy) if facts is not None]
        rows = [(facts.path, f"{facts.size:,} bytes", facts.sha256) for facts in both]
        return [Table(("File", "Size", "SHA-256"), rows)] if rows else []


@dataclass(frozen=True, repr=False)
class Undone(Shown):
    """What was removed."""

    how: tuple[str, ...]
    ok: bool = True

    @property
    def reason(self) -> str:
        """What was removed."""
        return " ".join(self.how)

    def headline(self) -> str:
        """What was removed."""
        return self.reason


class TestFile:
    """The test file of the environment; `rb.file`."""

    __test__ = False  # pytest: this is not a test class

    def __init__(self, server: ApplicationServer, datasync: Transfer, knobs: Knobs) -> None:
        self._server, self._datasync, self._knobs = server, datasync, knobs

    @property
    def wanted(self) -> bool:
        """Is the file asked for? Not by an environment without it, and not when it is to be removed."""
        return bool(self._knobs.create and not self._knobs.undo)

    def create(self) -> Created:
        """Copy the image to the new name, unless it is there already with the same content.

        Raises `RunbookError` when another file has that name: nothing is overwritten.
        """
        new = self._knobs.new_file
        if self._knobs.undo:
            return Created("Not created: the undo below is asked for.", False)
        if not self._knobs.create:
            return Created("Not created: this environment says `create: false`.", False)
        original = self._server.facts("source", self._knobs.source_file)
        if self._server.exists("source", new):
            copy = self._server.facts("source", new)
            if copy.sha256 != original.sha256:
                raise RunbookError(
                    f"{copy.path} is there already and is another file. Nothing was overwritten: choose another name "
                    "with the parameter `new_file`."
                )
            return Created("Already there, with the same content: nothing was copied.", True, original, copy)
        result = self._server.copy(self._knobs.source_file, new)
        return Created(
            f"Created on the NFS server: {result.headline()}", True, original, self._server.facts("source", new)
        )

    def undo(self) -> Undone:
        """Remove the new file, and its object when `undo_object` says so too; only a file that the image's copy is."""
        if not self._knobs.undo:
            return Undone(("Nothing was undone: set the parameter `undo = True` to remove the file.",))
        new = self._knobs.new_file
        done = []
        if self._server.exists("source", new):
            original = self._server.facts("source", self._knobs.source_file)
            if self._server.facts("source", new).sha256 != original.sha256:
                raise RunbookError(f"{new} is not a copy of {self._knobs.source_file}: it was not removed.")
            done.append(f"Removed from the NFS server: {self._server.remove('source', new).headline()}.")
        else:
            done.append("The file is not on the NFS server.")
        if self._knobs.undo_object:
            self._datasync.delete_object(new)
            done.append("Its object was deleted from the bucket; the share shows it until the next refresh.")
        else:
            done.append(
                "Its object stays in the bucket, if DataSync copied it: set `undo_object = True` to delete that too."
            )
        return Undone(tuple(done), not self._server.exists("source", new))
