"""What has a replication instance left? Measured for CloudWatch as long as the instance exists and databases are up.

The instance of the lab is this machine: memory and disk are its own, swap is what the lab's processes have there.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .dms_resources import INSTANCE

if TYPE_CHECKING:
    from .core import Lab

NAMESPACE = "AWS/DMS"
PERIOD = 3.0  # seconds between two datapoints
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
            for name, (value, unit) in left(self._lab).items():
                self._lab.bus.metric(
                    region=region, namespace=NAMESPACE, name=name, value=value, unit=unit, dimensions=dimensions
                )


def left(lab: Lab) -> dict[str, tuple[float, str]]:
    """What the replication instance has left, in bytes, and how busy it is."""
    return {
        "FreeableMemory": (float(psutil.virtual_memory().available), "Bytes"),
        "SwapUsage": (float(_swapped(lab)), "Bytes"),
        "FreeStorageSpace": (float(shutil.disk_usage(lab.folder.root).free), "Bytes"),
        "CPUUtilization": (psutil.cpu_percent(None), "Percent"),
    }


def _swapped(lab: Lab) -> int:
    """Bytes of the lab's processes in swap; on a system that does not tell, of all processes."""
    if not Path("/proc/self/status").exists():
        return int(psutil.swap_memory().used)
    total = 0
    for process in _processes(lab):
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
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
