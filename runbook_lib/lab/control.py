"""What can be done to a lab as a whole: build its world, plant and mend faults, set its pace, look at it."""

from __future__ import annotations

import inspect
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import RunbookError
from .core import Bus, Folder, Lab
from .databases import MARIADB, Databases
from .protocol import Refusal, Service

log = logging.getLogger(__name__)

Builder = Callable[[Lab], dict[str, Service]]


def lab_services(lab: Lab) -> dict[str, Service]:
    """The lab's own control planes, by signing name."""
    from .datasync import DataSync
    from .dms import Dms
    from .ssm import Ssm
    from .storagegateway import StorageGateway

    return {service.name: service for service in (DataSync(lab), StorageGateway(lab), Ssm(lab), Dms(lab))}


@dataclass
class Control:
    """A lab and its services, held by whoever holds the folder: the daemon, or a verb while none is running."""

    lab: Lab
    services: dict[str, Service] = field(default_factory=dict)  # the same dict for life; its members change at a reset
    builder: Builder = lab_services
    forget: Callable[[], None] = lambda: None  # what else a reset must empty: moto

    def start(self) -> None:
        """Recover what a killed daemon left, start the services, and build the world when there is none."""
        self.lab.objects.recover()
        worldless = self.lab.database.setting("world") is None
        if worldless:
            self._empty()  # what a builder that was killed left
        self._start_services()
        if worldless:
            self._build("00")

    def stop(self) -> None:
        """Stop the services, the workload and the databases; nothing runs afterwards."""
        self.lab.workload.pause()
        for service in reversed(list(self.services.values())):
            service.stop()
        self.lab.databases.stop()

    def go_on(self) -> None:
        """Take over what ran before: databases that a killed daemon left, and the workload when it is on."""
        up = self.lab.databases.up
        if any(up.values()):
            which = {"mariadb": up.get(MARIADB, False)}
            threading.Thread(target=self.lab.databases.ready, kwargs=which, name="databases-adopt", daemon=True).start()
        self.lab.workload.resume()

    def _start_services(self) -> None:
        self.services.update(self.builder(self.lab))
        for service in self.services.values():
            service.start()

    def _empty(self) -> None:
        from . import world

        world.empty(self.lab)

    def _build(self, at: str) -> None:
        from . import world

        world.build(self.lab, self.services, at=at)

    def reset(self, at: str = "00") -> dict[str, Any]:
        """The world as notebook `at` finds it, in services with no memory. Pace, profile and credentials stay."""
        from . import world

        if at not in world.POINTS:
            raise Refusal("ValidationException", f"There is no world {at!r}; give one of {', '.join(world.POINTS)}.")
        self.stop()
        self.lab.database.set("world", None)  # a daemon killed in the middle builds it anew
        self._empty()
        self.forget()
        self._start_services()
        self._build(at)
        return {"at": at, "profile": self.lab.profile}

    def pace(self, pace: float) -> dict[str, Any]:
        """0: each state lasts as long as its work; 1: at least as long as people are used to from AWS."""
        if not isinstance(pace, (int, float)) or not 0 <= pace <= 10:
            raise Refusal("ValidationException", f"The pace is between 0 and 10, not {pace}.")
        self.lab.database.set("pace", pace)
        return {"pace": pace}

    def profile(self, profile: str | None = None) -> dict[str, Any]:
        """What databases are migrated from, changed first when one is given."""
        from . import profiles

        if profile is not None:
            profiles.switch(self.lab, self.services, profile)
        return {"profile": self.lab.profile}

    def plant(self, fault: str, path: str | None = None) -> dict[str, Any]:
        """Break something; with the DMS tasks that have not met it yet."""
        from . import faults

        faults.plant(self.lab, self.services, fault, path)
        return {"faults": self.lab.database.setting("faults", {}), "unmet": faults.unmet(self.lab, fault)}

    def mend(self, fault: str | None = None) -> dict[str, Any]:
        """Repair one fault, or all."""
        from . import faults

        faults.mend(self.lab, self.services, fault)
        return {"faults": self.lab.database.setting("faults", {})}

    def databases(self) -> dict[str, Any]:
        """Start them; where they are and who may ask. The passwords are in there."""
        return self.lab.databases.described(mariadb=self.lab.profile == MARIADB)

    def workload(self, action: str, rate: float | None = None) -> dict[str, Any]:
        """start, stop or status."""
        workload = self.lab.workload
        if action == "start":
            workload.start(**({} if rate is None else {"rate": rate}))
        elif action == "stop":
            workload.stop()
        elif action != "status":
            raise Refusal("ValidationException", f"workload start, stop or status, not {action[:40]!r}.")
        return workload.status()

    def status(self) -> dict[str, Any]:
        """Counts and settings, read from the database only."""
        database = self.lab.database
        kinds = database.read("select kind, count(*) from documents group by kind order by kind")
        buckets = [bucket["name"] for bucket in self.lab.objects.buckets()]
        return {
            "state": str(self.lab.folder.root),
            "pace": self.lab.pace,
            "profile": self.lab.profile,
            "faults": database.setting("faults", {}),
            "world": database.setting("world"),
            "databases": self.lab.databases.up,
            "workload": self.lab.workload.status(),
            "counts": {
                **{kind: count for kind, count in kinds},
                **{f"objects in {name}": sum(1 for _ in self.lab.objects.list(name)) for name in buckets},
            },
        }

    def perform(self, verb: str, parameters: dict[str, Any]) -> Any:
        """A verb by its name; the world's and the faults' own complaints become refusals."""
        verbs: dict[str, Callable[..., Any]] = {
            "status": self.status,
            "reset": self.reset,
            "pace": self.pace,
            "profile": self.profile,
            "break": self.plant,
            "mend": self.mend,
            "databases": self.databases,
            "workload": self.workload,
        }
        if verb not in verbs:
            raise Refusal("UnknownOperationException", f"The lab has no verb {verb[:40]!r}; it has {', '.join(verbs)}.")
        try:
            inspect.signature(verbs[verb]).bind(**parameters)
        except TypeError as error:
            raise Refusal("ValidationException", f"{verb}: {error}") from error
        try:
            return verbs[verb](**parameters)
        except RunbookError as error:
            raise Refusal("ValidationException", str(error)) from error


class SilentBus:
    """For a verb that works while no daemon runs: nobody can be subscribed, and log lines end with a daemon anyway."""

    def emit(self, *, region: str, source: str, detail_type: str, resources: list[str], detail: dict[str, Any]) -> None:
        """Nobody listens."""

    def log(self, *, region: str, group: str, stream: str, lines: list[str]) -> None:
        """Nobody reads."""

    def metric(
        self, *, region: str, namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str]
    ) -> None:
        """Nobody looks."""

    def has_role(self, name: str) -> bool:
        """IAM ends with a daemon, and begins with DMS's roles."""
        return True

    def make_role(self, name: str) -> None:
        """There is no IAM."""

    def drop_role(self, name: str) -> None:
        """There is no IAM; a daemon that starts looks at the planted faults."""


def open_lab(folder: Folder, bus: Bus) -> Lab:
    """The lab of a folder; every path below it is the owner's only."""
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.root.chmod(0o700)
    return Lab(folder, bus)


def wipe(folder: Folder) -> None:
    """Remove a state that this version cannot read; connection, locks and log stay."""
    Databases(folder.root).forget()
    for path in folder.root.glob("lab.sqlite*"):
        path.unlink()
    for directory in (folder.blobs, folder.staging, folder.application):
        shutil.rmtree(directory, ignore_errors=True)
