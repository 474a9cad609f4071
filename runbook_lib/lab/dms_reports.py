"""What does a task tell its operator? Log lines, events and datapoints, about what really happened."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .dms_machine import NAMESPACE
from .dms_resources import INSTANCE, Document
from .dms_roles import LOGS_ROLE

if TYPE_CHECKING:
    from .core import Lab

_EVENTS = {
    "DMS-EVENT-0069": ("StateChange", "REPLICATION_TASK_STARTED"),
    "DMS-EVENT-0079": ("StateChange", "REPLICATION_TASK_STOPPED"),
    "DMS-EVENT-0078": ("Failure", "REPLICATION_TASK_FAILED"),
    "DMS-EVENT-0081": ("StateChange", "REPLICATION_TASK_RELOADING_TABLES"),
    "DMS-EVENT-0091": ("StateChange", "REPLICATION_TASK_READING_PAUSED_SWAP_FILES"),
    "DMS-EVENT-0093": ("StateChange", "REPLICATION_TASK_READING_RESUMED"),
}  # DMS user guide, event categories and event messages
_logger = logging.getLogger(__name__)


class Reports:
    """The log stream and the events of one task."""

    def __init__(self, lab: Lab, task: Document) -> None:
        self._lab = lab
        self.arn: str = task["ReplicationTaskArn"]
        self.resource = self.arn.rpartition(":")[2]
        self._region = self.arn.split(":")[3]
        instance = lab.database.get(INSTANCE, task["ReplicationInstanceArn"]) or {}
        self.instance: str = instance.get("ReplicationInstanceIdentifier", "")
        self._logging = task["ReplicationTaskSettings"]["Logging"]["EnableLogging"]

    def say(self, component: str, text: str, level: str = "I") -> None:
        """A line of the task's log: level I, W or E. Delivery is best effort, as AWS's is."""
        _logger.info("DMS task %s [%s]%s: %s", self.resource, component, level, text)
        if not self._logging:
            return
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S:%f")
        line = f"{stamp} [{component:<16}]{level}:  {text}"
        group, stream = f"dms-tasks-{self.instance}", f"dms-task-{self.resource}"
        if self._lab.bus.has_role(LOGS_ROLE):
            self._lab.bus.log(region=self._region, group=group, stream=stream, lines=[line])

    def tell(self, event_id: str, message: str) -> None:
        """An event on the default bus."""
        category, kind = _EVENTS[event_id]
        console = f"https://console.aws.amazon.com/dms/v2/home?region={self._region}#taskDetails/{self.resource}"
        self._lab.bus.emit(
            region=self._region,
            source="aws.dms",
            detail_type="DMS Replication Task State Change",
            resources=[self.arn],
            detail={
                "type": "REPLICATION_TASK",
                "category": category,
                "eventType": kind,
                "eventId": event_id,
                "resourceLink": console,
                "detailMessage": message,
            },
        )

    def measure(self, values: dict[str, tuple[float, str]]) -> None:
        """Datapoints of now, of the task: name -> (value, CloudWatch's unit)."""
        dimensions = {"ReplicationInstanceIdentifier": self.instance, "ReplicationTaskIdentifier": self.resource}
        for name, (value, unit) in values.items():
            self._lab.bus.metric(
                region=self._region, namespace=NAMESPACE, name=name, value=value, unit=unit, dimensions=dimensions
            )
