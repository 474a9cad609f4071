"""Do memory and disk of the replication instance suffice, and does the way of applying changes suit the load?"""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..aws.dms import DmsTask, Instance, TableStatistics
from ..aws.watch import Metric
from ..display import Shown, Table, plural

GB = 1 << 30
MB = 1 << 20
INSTANCE_METRICS = ("FreeableMemory", "SwapUsage", "FreeStorageSpace")  # bytes
BUSY = 1000  # changes a second from which batch apply pays: our rule of thumb, a setting says otherwise


@dataclass(frozen=True, repr=False)
class Capacity(Shown):
    """What the instance has left, and what its memory and its disk are used for."""

    task: DmsTask
    instance: Instance
    metrics: tuple[Metric, ...]
    least_storage: int  # bytes
    least_memory: int  # bytes

    @property
    def ok(self) -> bool:
        """A finding: everything was measured, and nothing is short."""
        return bool(self.metrics) and not self._problems

    @property
    def _values(self) -> dict[str, float | None]:
        return {metric.name: metric.newest for metric in self.metrics}

    @property
    def _problems(self) -> list[str]:
        values = self._values
        said = [
            f"no fresh datapoint of {name}, and that is not enough" for name, value in values.items() if value is None
        ]
        storage, memory, swap = (values.get(name) for name in ("FreeStorageSpace", "FreeableMemory", "SwapUsage"))
        if storage is not None and storage < self.least_storage:
            said.append(f"FreeStorageSpace is {_size(storage)}, less than {_size(self.least_storage)}")
        if memory is not None and swap is not None and memory < self.least_memory and swap > self.least_memory:
            said.append(f"FreeableMemory is {_size(memory)} while SwapUsage is {_size(swap)}: memory is short")
        if self.instance.status != "available":
            said.append(f"the instance {self.instance.name} is {self.instance.status}")
        return said

    @property
    def reason(self) -> str:
        """What is short."""
        if not self.metrics:
            return "the instance publishes no metrics"
        least = f"more than {_size(self.least_storage)} of disk are free, and memory is not short"
        return "; ".join(self._problems) or least

    def headline(self) -> str:
        """The instance."""
        i = self.instance
        return (
            f"{i.name} is {i.status}: {i.machine}, {i.storage} GB, DMS {i.engine_version}, "
            f"maintenance {i.maintenance}. FreeableMemory counts caches that can be given back, so it is read "
            "together with SwapUsage."
        )

    def tables(self) -> list[Table]:
        """The measurements, then what memory and disk hold."""
        measured = [(m.name, "no datapoint" if m.newest is None else _size(m.newest)) for m in self.metrics]
        return [
            Table(("Metric", "Newest"), measured),
            Table(("Buffer", "Its size", "What it holds, and what happens when it is full"), self._buffers()),
        ]

    def _buffers(self) -> list[tuple[str, str, str]]:
        get = self.task.setting
        limit, keep = get("ChangeProcessingTuning", "MemoryLimitTotal"), get("ChangeProcessingTuning", "MemoryKeepTime")
        count = get("StreamBufferSettings", "StreamBufferCount")
        each = get("StreamBufferSettings", "StreamBufferSizeInMB")
        stream = f"{count} × {each} MB" if count and each else "DMS's default"
        return [
            (
                "CDC (sorter)",
                f"{limit} MB for {keep} s",
                "transactions until they commit; over MemoryLimitTotal or older than MemoryKeepTime they go to disk",
            ),
            ("incoming stream", stream, "what was read at the source and not sorted; full, reading waits"),
            ("outgoing stream", stream, "what goes to the target; full, the sorter waits for the target"),
            (
                "disk",
                f"{self.instance.storage} GB",
                "the sorter's swap files (reading pauses at 1,000 MiB of them), changes cached during the load, logs",
            ),
        ]


@dataclass(frozen=True, repr=False)
class ApplyMode(Shown):
    """Whether changes are applied one transaction after the other, or in batches, beside the load that there is."""

    task: DmsTask
    statistics: tuple[TableStatistics, ...]
    keyless: tuple[str, ...]  # mapped tables without a primary or unique key
    seconds: float  # since the full load was finished
    waiting: float | None  # changes that wait for the target, by the newest datapoint; None: there is none

    @property
    def batch(self) -> bool:
        """What is set: TargetMetadata.BatchApplyEnabled."""
        return bool(self.task.setting("TargetMetadata", "BatchApplyEnabled", False))

    @property
    def rate(self) -> float:
        """Changes a second since the full load."""
        return sum(table.captured.total for table in self.statistics) / max(self.seconds, 1.0)

    @property
    def _pressed(self) -> bool:
        return self.rate >= BUSY or (self.waiting or 0.0) >= BUSY

    @property
    def ok(self) -> bool:
        """A finding: the mode that is set suits what was seen."""
        return not self._advice

    @property
    def _advice(self) -> str:
        if self.batch and self.keyless:
            return (
                f"batch apply writes only inserts to tables without a key ({', '.join(self.keyless)}): "
                "give them one, or use transactional apply"
            )
        if not self.batch and self._pressed:
            return "the target does not keep up one transaction at a time: batch apply suits this load"
        return ""

    @property
    def reason(self) -> str:
        """What is set and what would suit."""
        if not self.task.captures:
            return "a full load alone applies no changes"
        if self._advice:
            return self._advice
        if not self.batch:
            return f"transactional apply suits a load of fewer than {BUSY:,} changes a second or waiting"
        if self._pressed:
            return f"batch apply suits a load of {BUSY:,} changes a second or waiting, and more"
        return (
            f"batch apply does no harm where every table has a key; fewer than {BUSY:,} changes a second or waiting "
            "do not need it"
        )

    def headline(self) -> str:
        """What is set."""
        return f"{'Batch' if self.batch else 'Transactional'} apply is set; {self.reason}."

    def tables(self) -> list[Table]:
        """What is set beside what was counted, and the setting to change."""
        total = sum(table.captured.total for table in self.statistics)
        rows = [
            ("BatchApplyEnabled", str(self.batch).lower()),
            ("MemoryLimitTotal", f"{self.task.setting('ChangeProcessingTuning', 'MemoryLimitTotal')} MB"),
            ("MemoryKeepTime", f"{self.task.setting('ChangeProcessingTuning', 'MemoryKeepTime')} s"),
            ("Captured since the full load", plural(total, "change")),
            ("Waiting for the target", "no datapoint" if self.waiting is None else plural(int(self.waiting), "change")),
            ("Mapped tables without a key", ", ".join(self.keyless) or "none"),
        ]
        if self._advice:
            change = {"TargetMetadata": {"BatchApplyEnabled": not self.batch}}
            rows.append(("To change, with the task stopped", json.dumps(change)))
        return [Table(("Setting or counter", "Value"), rows)]


def _size(count: float) -> str:
    """Bytes in the unit that reads best."""
    return f"{count / GB:,.1f} GB" if count >= GB else f"{count / MB:,.0f} MB"
