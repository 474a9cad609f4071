"""Where does the task stand: full load, cached changes, ongoing replication? And how long was it in each?"""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ..aws.dms import DmsTask, TableStatistics
from ..display import Shown, Table, duration, plural

Stage = Literal["not started", "full load", "cached changes", "ongoing replication", "stopped", "failed"]
COLOURS = {"full load": "#3b6fb6", "cached changes": "#e0912f", "ongoing replication": "#4c9a52"}
SHOWN = 20  # tables in the plot


@dataclass(frozen=True)
class Span:
    """A stage of the task or of one of its tables; `until` is None while it lasts."""

    stage: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, repr=False)
class Phase(Shown):
    """A task and its tables at one moment."""

    task: DmsTask
    statistics: tuple[TableStatistics, ...]
    at: datetime
    done: str = ""  # what was done to get here
    lost: int = 0  # changes that DMS could not apply, wrote down and left out: nobody waits for them

    @property
    def stage(self) -> Stage:
        """The stage the task is in."""
        task = self.task
        if task.status in ("failed", "failed-move"):
            return "failed"
        if task.status in ("ready", "creating"):
            return "not started"
        if task.status in ("stopped", "stopping", "deleting"):
            return "stopped"
        unloaded = task.kind != "cdc" and task.load_finished is None
        if not self.statistics or task.loading or task.queued or unloaded:
            return "full load"
        return "ongoing replication" if self.waiting == 0 else "cached changes"

    @property
    def waiting(self) -> int:
        """Changes that were captured and are still to be applied."""
        gap = sum(max(table.captured.total - table.applied.total, 0) for table in self.statistics)
        return max(gap - self.lost, 0)

    @property
    def ok(self) -> bool:
        """A finding: changes are applied as they come, or a full-load-only task came to its good end."""
        if not self.task.captures:
            return "FULL_LOAD_ONLY_FINISHED" in self.task.stop_reason
        return self.stage == "ongoing replication" and self.task.status == "running"

    @property
    def reason(self) -> str:
        """The stage, and why it is there."""
        why = self.task.failure or self.task.stop_reason
        because = f" ({why})" if why and self.stage in ("stopped", "failed") else ""
        behind = f", {plural(self.waiting, 'change')} to apply" if self.stage == "cached changes" else ""
        stuck = [f"{table.name}: {table.state}" for table in self.statistics if table.state != "Table completed"]
        named = f"; {', '.join(stuck[:5])}" if stuck and self.stage == "full load" else ""
        return f"the task {self.task.name} is {self.task.status}, in the stage {self.stage}{behind}{because}{named}"

    def headline(self) -> str:
        """What was done, and the stage."""
        return f"{self.done} The{self.reason[3:]}.".strip()

    def tables(self) -> list[Table]:
        """Each stage with its beginning, its end and how long it took."""
        rows = [
            (span.stage, _clock(span.since), _clock(span.until) or "now", duration(_seconds(span, self.at)))
            for span in self.spans()
        ]
        return [Table(("Stage", "From (UTC)", "To (UTC)", "Took"), rows)] if rows else []

    def spans(self) -> list[Span]:
        """The stages of the whole task. Changes that came meanwhile are cached until the last table is loaded."""
        task = self.task
        if task.load_started is None:
            return [Span("ongoing replication", task.started, task.stopped)] if task.started else []
        ends = [table.load_ended for table in self.statistics if table.load_ended]
        spans = [Span("full load", task.load_started, task.load_finished)]
        if task.captures and task.load_finished and ends:
            spans.append(Span("cached changes", min(*ends, task.load_finished), task.load_finished))
            ended = task.stopped if self.stage == "stopped" else None
            spans.append(Span("ongoing replication", task.load_finished, ended))
        return spans

    def timeline(self) -> Timeline:
        """The same for each table, to be drawn."""
        finished = self.task.load_finished
        rows = []
        for table in self.statistics:
            spans = []
            if table.load_started:
                spans.append(Span("full load", table.load_started, table.load_ended))
            if table.load_ended and self.task.captures:
                spans.append(Span("cached changes", table.load_ended, finished))
            if finished and table.load_ended and self.task.captures:
                spans.append(Span("ongoing replication", finished, None))
            rows.append((table.name, tuple(spans)))
        return Timeline(tuple(rows), self.at)


@dataclass(frozen=True, repr=False)
class Timeline(Shown):
    """When each table was loaded, had its cached changes applied, and has been replicating."""

    rows: tuple[tuple[str, tuple[Span, ...]], ...]
    at: datetime

    def headline(self) -> str:
        """What the picture shows, for those who do not see it."""
        loaded = sum(any(span.stage == "full load" and span.until for span in spans) for _, spans in self.rows)
        drawn = f", the first {SHOWN} drawn" if len(self.rows) > SHOWN else ""
        return (
            f"One line a table, from left to right full load, cached changes, ongoing replication: "
            f"{loaded} of {plural(len(self.rows), 'table')} loaded{drawn}."
        )

    def _repr_html_(self) -> str | None:  # type: ignore[override]
        """None where there is a picture: front ends would show the text in its place."""
        return None if any(spans for _, spans in self.rows) else super()._repr_html_()

    def _repr_png_(self) -> bytes | None:
        """The picture; none when there is nothing to draw."""
        drawn = [(name, spans) for name, spans in self.rows if spans][:SHOWN]
        if not drawn:
            return None
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 0.9 + 0.3 * len(drawn)), layout="constrained")
        axes = figure.add_subplot()
        origin = min(span.since for _, spans in drawn for span in spans)
        named: set[str] = set()
        for line, (_, spans) in enumerate(drawn):
            for span in spans:
                left = (span.since - origin).total_seconds()
                label = "" if span.stage in named else span.stage
                axes.barh(line, _seconds(span, self.at), left=left, color=COLOURS[span.stage], label=label, height=0.6)
                named.add(span.stage)
        axes.set_yticks(range(len(drawn)), [name for name, _ in drawn])
        axes.invert_yaxis()
        figure.suptitle(self.headline(), fontsize="small", wrap=True)
        axes.set_xlabel("seconds since the start of the full load")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2 - 1 / (2 + len(drawn))), ncols=3, frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=110)
        return picture.getvalue()


def _seconds(span: Span, now: datetime) -> float:
    return max(((span.until or now) - span.since).total_seconds(), 0.0)


def _clock(at: datetime | None) -> str:
    return at.isoformat(sep=" ", timespec="seconds") if at else ""
