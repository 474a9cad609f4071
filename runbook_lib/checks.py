"""Does a statement of the runbook hold? Findings and verdicts, as plain values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

MIME_TYPE = "application/vnd.runbook.check+json"


@runtime_checkable
class Finding(Protocol):
    """Something that was seen and knows whether it is good: what `rb.check` takes."""

    @property
    def ok(self) -> bool:
        """True when it is as it should be. Nothing looked at is not ok."""

    @property
    def reason(self) -> str:
        """Why it is not ok, in a sentence; or what was seen."""


@dataclass(frozen=True)
class Check:
    """One statement of the runbook with its verdict."""

    name: str
    ok: bool
    expected: Any = None
    seen: Any = None
    reason: str = ""
    hint: str = ""
    asked: bool = True  # False: what the check is about was not asked for

    @property
    def verdict(self) -> str:
        """PASS, FAIL, or NOT ASKED for a check of something that was not wanted this time."""
        if not self.asked:
            return "NOT ASKED"
        return "PASS" if self.ok else "FAIL"

    def body(self) -> dict[str, Any]:
        """What is equal on every run: the JSON that executed notebooks carry for auditors."""
        expected, seen = (_carried(plain(value)) for value in (self.expected, self.seen))
        return {"name": self.name, "verdict": self.verdict, "expected": expected, "seen": seen}

    def sentence(self) -> str:
        """The reason of a failure, with what was expected and seen."""
        parts = [self.reason] if self.reason else []
        if self.expected is not None or self.seen is not None:
            parts.append(f"expected {self.expected!r}, seen {self.seen!r}")
        return "; ".join(parts) or "it does not hold"


def plain(value: Any) -> Any:
    """A value as JSON keeps it: scalars as they are, containers of them, everything else as text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)


def _carried(value: Any) -> Any:
    """A plain value that is the same in events and in a kernel's messages: these know no NaN, and UTF-8 only."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_carried(item) for item in value]
    if isinstance(value, dict):
        return {_carried(key): _carried(item) for key, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def judge(name: str, found: Finding, hint: str = "", asked: bool = True) -> Check:
    """The check of a finding; one that was not asked for says nothing."""
    return Check(_carried(name), found.ok or not asked, reason=found.reason, hint=hint, asked=asked)


def judge_equal(name: str, expected: Any, seen: Any, hint: str = "", reason: str = "") -> Check:
    """The check that two values are equal."""
    return Check(_carried(name), plain(expected) == plain(seen), expected, seen, reason, hint)
