"""Is the target behind the source now: by DMS's metrics, and by a row that we write and wait for?"""

from __future__ import annotations

from dataclasses import dataclass

from ..aws.watch import Metric
from ..display import Shown, Table, duration, plural

LATENCIES = ("CDCLatencySource", "CDCLatencyTarget")  # seconds
WAITING = ("CDCIncomingChanges", "CDCChangesMemoryTarget", "CDCChangesDiskTarget")  # changes


@dataclass(frozen=True, repr=False)
class Lag(Shown):
    """Fresh datapoints of the task, and how long a heartbeat took; None: it did not arrive, or was not sent."""

    metrics: tuple[Metric, ...]
    heartbeat: float | None  # seconds
    heartbeat_sent: bool
    patience: float  # seconds that we waited for the heartbeat
    captures: bool = True  # the task replicates changes
    statement: str = ""  # of the heartbeat, at the source

    @property
    def ok(self) -> bool:
        """A finding: there are fresh datapoints, the newest are zero, and the heartbeat arrived if one was sent."""
        return self.by_metric and (self.heartbeat is not None or not self.heartbeat_sent)

    @property
    def by_metric(self) -> bool:
        """What the metrics say: zero, and not merely nothing."""
        return bool(self.metrics) and all(metric.newest == 0 for metric in self.metrics)

    @property
    def reason(self) -> str:
        """What is not zero, or not there."""
        said = [f"no fresh datapoint of {m.name}, and that is not zero" for m in self.metrics if m.newest is None]
        said += [f"{m.name} is {m.newest:g}" for m in self.metrics if m.newest]
        if self.heartbeat_sent and self.heartbeat is None:
            said.append(f"a row written at the source was not on the target after {self.patience:.0f} s")
        if said:
            return "; ".join(said)
        if not self.captures:
            return "a full load alone follows no changes"
        if not self.metrics:
            return "the task publishes no metrics"
        zero = f"{plural(len(self.metrics), 'metric')} at zero"
        arrived = f"a row written at the source was on the target after {duration(self.heartbeat)}"
        return f"{zero}, and {arrived}" if self.heartbeat_sent else f"{zero}; no heartbeat row was asked for"

    def headline(self) -> str:
        """The verdict, and what was written for it."""
        written = f" Written at the source for it: {self.statement}" if self.statement else ""
        return f"Lag: {self.reason}.{written}"

    def tables(self) -> list[Table]:
        """Each metric."""
        rows = [
            (
                metric.name,
                "seconds" if metric.name in LATENCIES else "changes waiting",
                "no datapoint" if metric.newest is None else f"{metric.newest:g}",
                metric.points[0].at.isoformat(sep=" ", timespec="seconds") if metric.points else "",
            )
            for metric in self.metrics
        ]
        return [Table(("Metric", "Unit", "Newest", "Of the minute (UTC)"), rows)] if rows else []
