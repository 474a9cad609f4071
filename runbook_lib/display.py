"""How results look: text and HTML from one description, live for a person, one static output for the record."""

from __future__ import annotations

import base64
import html
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.cells import cell_len

from .checks import MIME_TYPE, Check


def mode() -> Literal["live", "static"]:
    """'live' when a person is at the front end, 'static' under papermill, nbclient, nbval and plain Python.

    nbclient and nbval send allow_stdin=False with every cell, JupyterLab sends True; ipykernel keeps it.
    RUNBOOK_UI=live|static overrides.
    """
    forced = os.environ.get("RUNBOOK_UI")
    if forced == "live":
        return "live"
    if forced == "static":
        return "static"
    ipython = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(ipython, "kernel", None)
    return "live" if getattr(kernel, "_allow_stdin", False) else "static"


def in_notebook() -> bool:
    """True inside any kernel."""
    ipython = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(ipython, "kernel", None) is not None


class Shown:
    """Base of everything with a look: subclasses say `lines()` and, where a table helps, `tables()`."""

    def headline(self) -> str:
        """Verdict first, then the sentence."""
        raise NotImplementedError

    def tables(self) -> list[Table]:
        """Tables below the headline."""
        return []

    def __repr__(self) -> str:
        return "\n".join([self.headline(), *(str(table) for table in self.tables())])

    def _repr_html_(self) -> str:
        head = _coded(self.headline()).replace("\n", "<br>")
        return f"<p>{head}</p>" + "".join(table.html() for table in self.tables())


class Table:
    """Rows under column heads; at most `limit` are shown, with the count of the rest."""

    def __init__(
        self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, limit: int = 20, title: str = "", rest: str = ""
    ) -> None:
        self.columns = list(columns)
        self.rows = [["" if value is None else str(value) for value in row] for row in rows]
        self.limit = limit
        self.title = title
        self.rest = rest

    def _more(self) -> str:
        hidden = len(self.rows) - self.limit
        return f"… and {hidden:,} more{self.rest}" if hidden > 0 else ""

    def __str__(self) -> str:
        rows = self.rows[: self.limit]
        whole = [self.columns, *rows] if any(self.columns) else rows
        widths = [max(cell_len(row[i]) for row in whole) for i in range(len(self.columns))] if whole else []
        lines = ["  ".join(map(_padded, row, widths)).rstrip() for row in whole]
        return "\n".join(([self.title] if self.title else []) + lines + ([self._more()] if self._more() else []))

    __repr__ = __str__

    def html(self) -> str:
        """The same as an HTML table; GitHub strips the one style, which is for JupyterLab's ragged right."""
        left = 'style="text-align:left"'
        head = "".join(f'<th scope="col" {left}>{_coded(name)}</th>' for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td {left}>{_coded(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows[: self.limit]
        )
        caption = f"<caption>{_coded(self.title)}</caption>" if self.title else ""
        header = f"<thead><tr>{head}</tr></thead>" if any(self.columns) else ""
        more = f"<p>{html.escape(self._more())}</p>" if self._more() else ""
        return f"<table>{caption}{header}<tbody>{body}</tbody></table>{more}"

    _repr_html_ = html


@dataclass(frozen=True)
class Plot:
    """A picture with the sentence that says what it shows."""

    sentence: str
    png: bytes

    def __repr__(self) -> str:
        return self.sentence

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": self.sentence, "image/png": base64.b64encode(self.png).decode()}


def _padded(cell: str, width: int) -> str:
    """Filled up to a width on the screen, where Korean and Japanese characters are two wide."""
    return cell + " " * (width - cell_len(cell))


def show(bundle: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
    """Emit one output: a MIME bundle in a kernel, its plain text elsewhere."""
    if in_notebook():
        from IPython.display import display

        display(bundle, raw=True, metadata=metadata or {})  # type: ignore[no-untyped-call]
    else:
        print(bundle["text/plain"])


def show_check(check: Check, metadata: dict[str, Any]) -> None:
    """One verdict for people (text, HTML) and for machines (JSON; what varies between runs is in the metadata)."""
    lines = [f"{check.verdict}  {check.name}"]
    mark = "❌" if not check.ok else "✅" if check.asked else "➖"
    marked = f"<p>{mark} <b>{check.verdict}</b> {_coded(check.name)}"
    seen = check.reason or (f"{check.seen!r}, as expected" if check.expected is not None else "")
    if check.ok and seen:
        lines.append(f"      seen: {seen}")
        marked += f"<br><small>seen: {_coded(seen)}</small>"
    if not check.ok:
        lines.append(f"      reason: {check.sentence()}")
        marked += f"<br>{_coded(check.sentence())}"
        if check.hint:
            lines.append(f"      what to do: {check.hint}")
            marked += f"<br><b>What to do:</b> {_linked(check.hint)}"
    bundle = {"text/plain": "\n".join(lines), "text/html": marked + "</p>", MIME_TYPE: check.body()}
    show(bundle, {MIME_TYPE: metadata})


def _linked(hint: str) -> str:
    """Notebook names in a hint become links that work in JupyterLab and in HTML exports."""
    return re.sub(r"(\d\d_\w+)(?:\.ipynb)?", r'<a href="\1.ipynb">\1</a>', _coded(hint))


def _coded(text: str) -> str:
    """Escaped text whose `backticks` are code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


class Progress:
    """A heartbeat: a line that updates in place for a person; nothing in records, whose result comes after it."""

    MIN_INTERVAL = 0.25  # seconds between updates

    def __init__(self, title: str, estimate: float | None = None) -> None:
        self.title = title
        self.estimate = estimate
        self._handle: Any = None
        self._shown_at = 0.0

    def beat(self, state: str, elapsed: float) -> None:
        """Show a state and the seconds so far beside the estimate."""
        if mode() == "static" or not in_notebook():
            return
        now = time.monotonic()
        if self._handle is not None and now - self._shown_at < self.MIN_INTERVAL:
            return
        self._shown_at = now
        guess = f" (the last one took {self.estimate:.0f} s)" if self.estimate and self.estimate >= 1 else ""
        text = f"{self.title}: {state}, {elapsed:.0f} s{guess}"
        bundle = {"text/plain": text, "text/html": f"<p>⏳ {html.escape(text)}</p>"}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)


def printable(said: object, keep: str = "") -> str:
    """A text of others, such as a name in a record, without what a terminal would obey; `keep` stays as it is."""
    return "".join(one if one.isprintable() or one in keep else ascii(one)[1:-1] for one in str(said))


def plural(count: int, noun: str) -> str:
    """'1 file', '2 files', '1 directory', '2 directories', '2 keys'."""
    if count == 1:
        return f"1 {noun}"
    ends_in_ies = noun.endswith("y") and noun[-2:-1] not in "aeiou"
    return f"{count:,} {noun[:-1]}ies" if ends_in_ies else f"{count:,} {noun}s"


def size(count: int) -> str:
    """A number of bytes with thousands separators and its unit."""
    return f"{count:,} bytes"


def duration(seconds: float | None) -> str:
    """Seconds as '1.234 s'."""
    return "" if seconds is None else f"{seconds:.3f} s"
