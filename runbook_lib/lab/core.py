"""What every part of the lab shares: its folder, database, object store, bus, faults and pace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .database import Database
from .databases import MARIADB, Databases
from .workload import Workload

if TYPE_CHECKING:
    from .objects import ObjectStore

ACCOUNT = "123456789012"  # moto's account, and AWS's own in examples
CLOUD_REGION = "eu-central-1"  # where DataSync, the gateway and the bucket are activated
PREMISES_REGION = "eu-west-1"  # the workshop's "on-premises" region, where the application server is
PROFILE, POSTGRESQL = "profile", "postgresql"  # a setting, and what it is when it is not MARIADB


@dataclass(frozen=True)
class Folder:
    """The lab's state on disk; everything below one git-ignored folder."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "lab.sqlite"

    @property
    def blobs(self) -> Path:
        """Bytes of objects, one file each."""
        return self.root / "blobs"

    @property
    def application(self) -> Path:
        """The application server's home: commands run here, and its mounts are below `mnt/`."""
        return self.root / "application-server"

    @property
    def export(self) -> Path:
        """What the NFS server exports as `/media/data`; the application server mounts it as `mnt/data`."""
        return self.application / "mnt" / "data"

    @property
    def share(self) -> Path:
        """The gateway's file share as the application server mounts it: `mnt/fgw`."""
        return self.application / "mnt" / "fgw"

    @property
    def staging(self) -> Path:
        """Half-made files, on the same file system as their destination; emptied at every start."""
        return self.root / "staging"

    @property
    def log(self) -> Path:
        """What the daemon writes to its standard output and error."""
        return self.root / "lab.log"

    @property
    def connection(self) -> Path:
        """URL and credentials for clients, as JSON; mode 0600."""
        return self.root / "connection.json"


class Bus(Protocol):
    """Where the lab's own services publish; backed by moto's EventBridge, Logs and CloudWatch."""

    def emit(self, *, region: str, source: str, detail_type: str, resources: list[str], detail: dict[str, Any]) -> None:
        """Put one event on the default bus of a region."""

    def log(self, *, region: str, group: str, stream: str, lines: list[str]) -> None:
        """Append lines to a log stream; group and stream are made when missing."""

    def metric(
        self, *, region: str, namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str]
    ) -> None:
        """Put one datapoint of now."""

    def has_role(self, name: str) -> bool:
        """Whether IAM has a role."""

    def make_role(self, name: str) -> None:
        """Make one of DMS's roles, as DMS wants it."""

    def drop_role(self, name: str) -> None:
        """Take one of DMS's roles away."""


class Lab:
    """Held open by the daemon for its life, by tests and by the world's builder for a while."""

    def __init__(self, folder: Folder, bus: Bus) -> None:
        from .objects import ObjectStore  # objects.py is also used without a Lab, by the transfer worker

        for path in (folder.root, folder.blobs, folder.staging, folder.export, folder.share):
            path.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.database = Database(folder.database)
        self.objects: ObjectStore = ObjectStore(self.database, folder.blobs)
        self.databases = Databases(folder.root)
        self.workload = Workload(self.database, self.databases)
        self.bus = bus
        self.account = ACCOUNT
        self._hurrying = False

    @property
    def pace(self) -> float:
        """How much of its AWS-like minimum each state lasts: 0 = only the real work, 1 = as shown to people."""
        return 0.0 if self._hurrying else float(self.database.setting("pace", 0.0))

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Pace 0 whatever is set, while the world is built. Not stored: a killed builder leaves the pace as it was."""
        self._hurrying = True
        try:
            yield
        finally:
            self._hurrying = False

    @property
    def profile(self) -> str:
        """What databases are migrated from: `postgresql`, or `mariadb` as well."""
        return str(self.database.setting(PROFILE, POSTGRESQL))

    def secrets(self) -> dict[str, dict[str, Any]]:
        """What Secrets Manager holds: how to reach the databases."""
        return self.databases.secrets(mariadb=self.profile == MARIADB)

    def fault(self, name: str) -> dict[str, Any] | None:
        """The planted fault's arguments, or None when it is not planted."""
        found: dict[str, Any] | None = self.database.setting("faults", {}).get(name)
        return found

    def linger(self, began: float, floor: float) -> None:
        """Let a state last at least `floor` seconds × pace since `began` (time.monotonic)."""
        rest = floor * self.pace - (time.monotonic() - began)
        if rest > 0:
            time.sleep(rest)
