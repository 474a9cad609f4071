"""Which of a location's paths does a DataSync filter let through?

A filter is one string of patterns joined by `|`, relative to the location: `/folder` means the folder and all below
it, `*` stands for anything, `\\` escapes `*`, `|` and itself, and is ignored before anything else and at the end.
Include patterns may have `*` only at their end (DataSync user guide, filtering). How a pattern without a leading `/`
or `*` is read is not documented: here it matches at any depth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


class FilterError(ValueError):
    """A filter that DataSync would refuse."""


@dataclass(frozen=True)
class Pattern:
    """One pattern, compiled; `head` is what every match begins with.

    `texts` are the literals between its stars, the first empty where anything may stand before: for the scanner.
    """

    expression: re.Pattern[str]
    head: str
    anchored: bool
    texts: tuple[str, ...]

    def could_be_below(self, folder: str) -> bool:
        """Whether something inside a folder may match although the folder itself does not."""
        return not self.anchored or self.head.startswith(folder + "/") or (folder + "/").startswith(self.head)


def split(text: str) -> list[list[str]]:
    """The patterns of a filter, each as the literal texts between its stars."""
    patterns: list[list[str]] = [[""]]
    characters = iter(text)
    for character in characters:
        if character == "\\":
            patterns[-1][-1] += next(characters, "")
        elif character == "|":
            patterns.append([""])
        elif character == "*":
            patterns[-1].append("")
        else:
            patterns[-1][-1] += character
    return [pattern for pattern in patterns if pattern != [""]]


def _compile(texts: list[str]) -> Pattern:
    texts = list(texts)
    if texts[-1].endswith("/") and texts != ["/"]:
        texts[-1] = texts[-1][:-1]  # `/folder/` is `/folder`
    if texts in (["/"], ["", ""]):
        texts = ["/", ""]  # `/` alone is everything below the top
    anchored = texts[0].startswith("/")
    start = re.escape(texts[0]) if anchored or not texts[0] else r"(?:.*/)" + re.escape(texts[0])
    # All but the last piece are matched at their first place and never tried again: no pattern takes exponential time.
    middle = "".join(f"(?>.*?{re.escape(text)})" for text in texts[1:-1])
    last = "" if len(texts) == 1 else ".*" + re.escape(texts[-1])
    plain = tuple(texts) if anchored or not texts[0] else ("", "/" + texts[0], *texts[1:])
    return Pattern(re.compile(start + middle + last + r"(?:/.*)?\Z", re.DOTALL), texts[0], anchored, plain)


class Filters:
    """An execution's include and exclude filter together. Paths are relative, without a leading slash."""

    def __init__(self, includes: str | None, excludes: str | None) -> None:
        included = split(includes or "")
        for texts in included:
            if any(texts[1:]) or len(texts) > 2:
                pattern = "*".join(texts)
                raise FilterError(f"An include filter can have * only as the last character of a pattern: {pattern}")
        self.includes = [_compile(texts) for texts in included]
        self.excludes = [_compile(texts) for texts in split(excludes or "")]
        self.some = bool(self.includes or self.excludes)

    def included(self, path: str) -> bool:
        """Whether the include filter lets a path through; the top folder is in scope only without such a filter."""
        if not self.includes:
            return True
        return path != "" and any(pattern.expression.match("/" + path) for pattern in self.includes)

    def excluded(self, path: str) -> bool:
        """Whether the exclude filter stops a path; of the top folder only its content can be excluded."""
        return path != "" and any(pattern.expression.match("/" + path) for pattern in self.excludes)

    def leads_to_included(self, folder: str) -> bool:
        """Whether a folder must be listed because something inside it may be included."""
        return folder == "" or any(pattern.could_be_below("/" + folder) for pattern in self.includes)

    def in_scope(self, path: str) -> bool:
        """Whether a path takes part at all; decides about deletions at the destination too."""
        return self.included(path) and not self.excluded(path)
