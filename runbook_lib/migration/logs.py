"""Does the task's log hold known trouble, and what is to be done about it?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..aws.watch import LogLine
from ..display import Shown, Table, plural

LIMIT = 200_000  # lines that are read


@dataclass(frozen=True)
class Known:
    """A line that everybody meets once: what it means and what to do."""

    name: str
    pattern: str
    means: str
    do: str
    ends: str = ""  # a later line with this pattern ends it


KNOWN = (
    Known(
        "swap pause",
        r"Reading from source is paused. Total storage used by swap files exceeded",
        "The sorter's swap files reached their fixed limit of 1,048,576,000 bytes (1,000 MiB): the target is too slow "
        "for the source's changes. The task stays `running`, and SwapUsage does not count it.",
        "Speed up the target: BatchApplyEnabled, ParallelApplyThreads, indexes for the changed rows; or raise "
        "MemoryLimitTotal and MemoryKeepTime; or split the task. Wait for the line that it is resumed.",
        ends=r"Reading from source is resumed",
    ),
    Known(
        "disk pause",
        r"Reading from source is paused. .*(disk|storage)",
        "The replication instance's disk is nearly full.",
        "Give it more storage, or end the transactions that are open at the source for long.",
        ends=r"Reading from source is resumed",
    ),
    Known(
        "duplicate key",
        r"duplicate key value violates|Duplicate entry|Key already exists in unique index",
        "A row was on the target already: somebody wrote there, the table was not empty, or a sequence is behind.",
        "Look into awsdms_apply_exceptions; compare the rows below; correct the target or reload the table.",
    ),
    Known(
        "leftover control tables",
        r'relation "awsdms_\w+" already exists|Table .awsdms_\w+. already exists',
        "Control tables or their indexes of an earlier task are in the way.",
        "Drop those that no task uses any more, then resume.",
    ),
    Known(
        "no impact",
        r"had no impact when applied|awsdms_apply_exceptions table for details",
        "An update or a delete found no row on the target: a row was lost there.",
        "Look into awsdms_apply_exceptions; compare the rows below; reload the table.",
    ),
    Known(
        "permission",
        r"permission denied for|Access denied for user|must be owner of",
        "The endpoint's user may not read or write a table: it stays in full load.",
        "Grant it (and alter the default privileges, for tables to come), then reload the table.",
    ),
    Known(
        "no replica identity",
        r"does not have a replica identity",
        "A table without a key is published: its updates and deletes fail at the source, for the application.",
        "alter table … replica identity full; or take it out of the mapping.",
    ),
    Known(
        "unload failed",
        r"Failed execute unload command|1020403",
        "The full load of a table ended; what failed stands in the lines before it.",
        "Mend what those lines say, then reload the table.",
    ),
    Known(
        "validation failed",
        r"\[VALIDATOR.*Validation Failed key",
        "DMS's own validation found a row that differs.",
        "See awsdms_validation_failures and the comparison below.",
    ),
)


@dataclass(frozen=True)
class Trouble:
    """A known line, or an error that is not known, and how often it came."""

    name: str
    count: int
    means: str
    do: str
    line: str  # the last one
    at: datetime  # of it, UTC


@dataclass(frozen=True, repr=False)
class LogReading(Shown):
    """What was found in a task's log."""

    group: str
    enabled: bool
    lines: int
    troubles: tuple[Trouble, ...]
    since: datetime | None = None  # UTC
    cut: bool = False  # there are more lines than were read

    @property
    def ok(self) -> bool:
        """A finding: there is a log, it was read to its end, and there is no trouble in it that has not ended."""
        return self.enabled and self.lines > 0 and not self.troubles and not self.cut

    @property
    def reason(self) -> str:
        """The troubles by name."""
        if not self.enabled:
            return "the task does not log: Logging.EnableLogging is false"
        if not self.lines:
            return f"{self.group} has no line of this task: is dms-cloudwatch-logs-role there?"
        found = "; ".join(f"{t.name} ({plural(t.count, 'line')}): {t.line[:200]}" for t in self.troubles[:3])
        found += f"; and {len(self.troubles) - 3} more" if len(self.troubles) > 3 else ""
        if self.cut and not found:
            return f"no trouble in the first {LIMIT:,} lines, and there are more: set logs_since to a later time"
        return found or "no known trouble, and no error"

    def headline(self) -> str:
        """How much was read."""
        since = f"; since {self.since.isoformat(sep=' ', timespec='seconds')}" if self.since else ""
        cut = f" (only the first {LIMIT:,})" if self.cut else ""
        return f"{plural(self.lines, 'line')} read{cut}{since}: {self.reason}."

    def tables(self) -> list[Table]:
        """Each trouble, what it means and what to do; its time is the one to give as `logs_since` when it is mended.

        Where none is left: what was looked for.
        """
        rows = [(t.name, t.count, _after(t.at), t.means, t.do) for t in self.troubles]
        if rows:
            return [Table(("Trouble", "Lines", "logs_since, when mended (UTC)", "It means", "What to do"), rows)]
        known = [(known.name, known.means, known.do) for known in KNOWN]
        return [Table(("Looked for", "It would mean", "What to do then"), known)] if self.lines else []


def read(group: str, lines: Iterable[LogLine], since: datetime | None = None) -> LogReading:
    """Look for the known lines, and for `]E:` lines that are not known; what a later line ends is no trouble.

    The newest trouble comes first. Troubles before `since` (UTC) were dealt with: they are read, and not judged.
    """
    counts: Counter[str] = Counter()
    last: dict[str, LogLine] = {}
    number, cut = 0, False
    for number, line in enumerate(lines, start=1):
        if number > LIMIT:
            number, cut = LIMIT, True
            break
        for ended in (known for known in KNOWN if known.ends and re.search(known.ends, line.text)):
            counts.pop(ended.name, None)
        name = _named(line.text)
        if name and (since is None or line.at >= since):
            counts[name] += 1
            last[name] = line
    means = {known.name: (known.means, known.do) for known in KNOWN}
    unknown = ("An error that this table does not know.", "Read it in its context in the log.")
    troubles = tuple(
        Trouble(name, counts[name], *means.get(name, unknown), line.text.strip(), line.at)
        for name, line in sorted(last.items(), key=lambda item: item[1].at, reverse=True) if counts[name]
    )  # fmt: skip
    return LogReading(group, True, number, troubles, since, cut)


def _after(at: datetime) -> str:
    """The next whole second: what came before it is not judged again when it is given as `logs_since`."""
    return (at.replace(microsecond=0) + timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S")


def _named(text: str) -> str | None:
    found = next((known.name for known in KNOWN if re.search(known.pattern, text)), None)
    return found or ("error" if re.search(r"\]E:", text) else None)
