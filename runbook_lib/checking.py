"""How does a notebook say that a statement holds? Checks are recorded first, then shown, and a failed one stops it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .checks import Check, Finding, judge, judge_equal
from .display import Shown, Table, show_check
from .errors import CheckFailed


class Checking:
    """The checks of one notebook."""

    def __init__(self, record: Callable[..., None], about: dict[str, str]) -> None:
        """`about` names the run, the notebook and the world: each check's output carries it."""
        self.record = record
        self.checks: list[Check] = []
        self._about = about
        self._collecting = False

    def check(self, name: str, found: Finding, hint: str = "", *, asked: bool = True) -> None:
        """The runbook's sentence about a finding: recorded first, then shown; `CheckFailed` when it does not hold.

        `asked=False` says that what it is about was not wanted this time: it is shown, and not counted.
        """
        self._keep(judge(name, found, hint, asked))

    def check_equal(self, name: str, *, expected: Any, actual: Any, hint: str = "") -> None:
        """The runbook's sentence that two values are equal."""
        self._keep(judge_equal(name, expected, actual, hint))

    def _keep(self, check: Check) -> None:
        self._before_check()
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        reason = check.reason if check.ok else check.sentence()
        self.record("check", **check.body(), reason=reason)
        self.checks.append(check)
        show_check(check, {"at": at, **self._about, "reason": reason})
        if not check.ok and not self._collecting:
            raise CheckFailed(f"{check.name}: {check.sentence()}" + (f" — {check.hint}" if check.hint else ""))

    def _before_check(self) -> None:
        """What has to be in the record before a check is."""

    @contextmanager
    def checklist(self, title: str) -> Iterator[None]:
        """Collect the checks inside, show all of them, and raise at the end when one failed."""
        before = len(self.checks)
        self._collecting = True
        try:
            yield
        finally:
            self._collecting = False
        failed = [check for check in self.checks[before:] if not check.ok]
        if failed:
            raise CheckFailed(
                f"{title}: {len(failed)} of {len(self.checks) - before} checks failed: "
                + "; ".join(c.name for c in failed)
            )

    def summary(self) -> Summary:
        """What is now true: the checks of this notebook."""
        self.record("summary", checks=len(self.checks), failed=sum(not check.ok for check in self.checks))
        return Summary(tuple(self.checks), self._about["run"])


@dataclass(frozen=True, repr=False)
class Summary(Shown):
    """The checks of a notebook, listed."""

    checks: tuple[Check, ...]
    run_id: str

    def headline(self) -> str:
        """How many hold, and where they are recorded."""
        asked = [check for check in self.checks if check.asked]
        held = sum(check.ok for check in asked)
        return f"{held} of {len(asked)} checks hold. Recorded in run {self.run_id}."

    def tables(self) -> list[Table]:
        """The checks."""
        return [
            Table(("Verdict", "What is now true"), [(check.verdict, check.name) for check in self.checks], limit=100)
        ]
