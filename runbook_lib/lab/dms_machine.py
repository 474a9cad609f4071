"""What has a replication instance left? Measured for CloudWatch as long as the instance exists and databases are up.

The lab's instance has the memory of its class and the storage that it was made with. What is taken of them is measured:
memory by the lab's own processes, which do its work; storage by what logical decoding has spilled, as DMS's sorter has
its swap files there. Swap is what those processes have in it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from .dms_resources import INSTANCE

if TYPE_CHECKING:
    from .core import Lab

NAMESPACE = "AWS/DMS"
PERIOD = 3.0  # seconds between two datapoints
GIB = 1 << 30
PROC = Path("/proc")
LARGE = {"t": 8, "c": 4, "r": 16}  # GiB of a class's size `large`, by the first letter of its family, as EC2 has them
SIZES = {"nano": 1 / 16, "micro": 1 / 8, "small": 1 / 4, "medium": 1 / 2, "large": 1.0, "xlarge": 2.0}  # times that
_logger = logging.getLogger(__name__)


class Machine:
    """A thread that measures for all instances."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dms-machine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(PERIOD)

    def _run(self) -> None:
        while not self._over.wait(PERIOD):
            try:
                if any(self._lab.databases.up.values()):
                    self._measure()
            except Exception:
                _logger.exception("The replication instances were not measured")
        self._lab.database.close()

    def _measure(self) -> None:
        for instance in self._lab.database.all(INSTANCE):
            region = instance["ReplicationInstanceArn"].split(":")[3]
            dimensions = {"ReplicationInstanceIdentifier": instance["ReplicationInstanceIdentifier"]}
            for name, (value, unit) in left(self._lab, instance).items():
                self._lab.bus.metric(
                    region=region, namespace=NAMESPACE, name=name, value=value, unit=unit, dimensions=dimensions
                )


def left(lab: Lab, instance: Mapping[str, Any]) -> dict[str, tuple[float, str]]:
    """What a replication instance has left, in bytes, and how busy it is."""
    memory = memory_of(str(instance["ReplicationInstanceClass"])) - _resident(lab)
    storage = int(instance["AllocatedStorage"]) * GIB - _spilled(lab)
    return {
        "FreeableMemory": (float(max(0, memory)), "Bytes"),
        "SwapUsage": (float(_swapped(lab)), "Bytes"),
        "FreeStorageSpace": (float(max(0, storage)), "Bytes"),
        "CPUUtilization": (psutil.cpu_percent(None), "Percent"),
    }


def memory_of(machine: str) -> int:
    """Bytes of memory of a class such as dms.t3.medium; of one that nobody knows, this computer's."""
    family, _, size = machine.removeprefix("dms.").partition(".")
    many = size.removesuffix("xlarge")
    times = 2.0 * int(many) if size.endswith("xlarge") and many.isdigit() else SIZES.get(size)
    if times is None or family[:1] not in LARGE:
        return int(psutil.virtual_memory().total)
    return int(LARGE[family[:1]] * times * GIB)


def _resident(lab: Lab) -> int:
    """Bytes that the lab's processes have in memory for themselves; what they share is counted nowhere."""
    total = 0
    for process in _processes(lab):
        try:
            total += process.memory_full_info().uss
        except psutil.Error:  # it has ended
            continue
    return total


def _spilled(lab: Lab) -> int:
    """Bytes of transactions that do not fit into the memory of logical decoding at the source, until they commit."""
    total = 0
    for folder, _, names in os.walk(lab.databases.source.data / "pg_replslot"):
        for name in names:
            with suppress(OSError):  # it has been read, and is gone
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def _swapped(lab: Lab) -> int:
    """Bytes of the lab's processes in swap; on a system that does not tell, of all processes."""
    if not (PROC / "self/status").exists():
        return int(psutil.swap_memory().used)
    total = 0
    for process in _processes(lab):
        try:
            lines = (PROC / str(process.pid) / "status").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmSwap:"))
    return total


def _processes(lab: Lab) -> Iterator[psutil.Process]:
    """The lab's own process, and the servers'."""
    yield psutil.Process(os.getpid())
    for server in (lab.databases.source, lab.databases.target, lab.databases.mariadb):
        if server.pid is None:
            continue
        try:
            postmaster = psutil.Process(server.pid)
            yield postmaster
            yield from postmaster.children()
        except psutil.NoSuchProcess:
            continue
