"""How much of what a cell says is kept? A program that prints without end must fill neither memory nor disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..checks import MIME_TYPE
from ..display import plural

FIRST = 1 << 20  # characters of a stream, from its beginning
LAST = 64 << 10  # characters of a stream, from its end
DISPLAYED = 64 << 20  # characters of everything else that a cell shows
LINE = 4096  # characters that a line may still have when FIRST are reached: no secret is cut in two
SHOWS = frozenset({"display_data", "execute_result"})


@dataclass
class _Stream:
    """What one of a cell's streams said."""

    kept: int = 0  # characters
    left_out: int = 0
    full: bool = False
    last: str = ""

    def take(self, text: str) -> str:
        """The part of the text that is kept at once."""
        here = text
        if self.full or self.kept + len(text) > FIRST:
            here, self.full = "" if self.full else _to_the_end_of_its_line(text, FIRST - self.kept), True
            rest = text[len(here) :]
            self.left_out += len(rest)
            self.last = (self.last + rest)[-LAST:]
        self.kept += len(here)
        return here

    def rest(self) -> str:
        """What is said where something was left out, with the last lines; '' where nothing was."""
        if not self.left_out:
            return ""
        lines = self.last if len(self.last) == self.left_out else self.last.partition("\n")[2]
        gone = self.left_out - len(lines)
        return f"\n[{gone:,} characters that this cell printed are left out here]\n{lines}" if gone else lines


def _to_the_end_of_its_line(text: str, room: int) -> str:
    """What fits, to the end of the line in which the room ends; nothing where that line is very long."""
    end = text.find("\n", room, room + LINE)
    return text[: end + 1] if end >= 0 else text[: text.rfind("\n", 0, room) + 1]


class Bounds:
    """What is kept of one cell's outputs; what is left out is counted, and said where it is missing."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._displayed = 0  # characters
        self._left_out = 0  # outputs

    def admit(self, message: dict[str, Any]) -> bool:
        """Whether a message's output is kept; the text of a stream is cut to what is. Checks always are."""
        kind, content = message["msg_type"], message["content"]
        if kind == "clear_output":
            self._begin()
        elif kind == "stream":
            content["text"] = self._streams.setdefault(content["name"], _Stream()).take(content["text"])
            return bool(content["text"])
        elif kind in SHOWS and MIME_TYPE not in content["data"]:
            self._displayed += sum(len(str(value)) for value in content["data"].values())
            self._left_out += self._displayed > DISPLAYED
            return self._displayed <= DISPLAYED
        return True

    def rest(self) -> Iterator[tuple[str, str]]:
        """Streams and what they still say, at the end of the cell."""
        for name, stream in self._streams.items():
            if said := stream.rest():
                yield name, said
        if self._left_out:
            yield "stderr", f"\n[{plural(self._left_out, 'output')} of this cell left out]\n"
