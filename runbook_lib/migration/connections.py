"""Do both endpoints answer, now, from the replication instance?"""

from __future__ import annotations

from dataclasses import dataclass

from ..aws.dms import Connection, Endpoint
from ..display import Shown, Table


@dataclass(frozen=True, repr=False)
class Connections(Shown):
    """Both endpoints, as the replication instance reached them just now."""

    source: Endpoint
    target: Endpoint
    tests: tuple[Connection, ...]

    @property
    def ok(self) -> bool:
        """A finding: both were reached."""
        return len(self.tests) == 2 and all(test.status == "successful" for test in self.tests)

    @property
    def reason(self) -> str:
        """Which was not, and why."""
        failed = [
            f"{test.endpoint}: {test.failure or test.status}" for test in self.tests if test.status != "successful"
        ]
        both = f"{self.source.name} and {self.target.name} were reached from the replication instance"
        return "; ".join(failed) or both

    def headline(self) -> str:
        """The verdict."""
        return f"{self.reason[0].upper()}{self.reason[1:]}."

    def tables(self) -> list[Table]:
        """Each endpoint."""
        rows = [
            (end.name, end.engine, end.database, end.user, test.status)
            for end, test in zip((self.source, self.target), self.tests, strict=True)
        ]
        return [Table(("Endpoint", "Engine", "Database", "User", "Connection"), rows)]
