"""Has it happened: a rule and a queue of our own that hear EventBridge events, removed when done."""

from __future__ import annotations

import json
import secrets
from types import TracebackType
from typing import Any

from ..errors import AccessDenied, RunbookError
from .client import Session

PREFIX = "migration-runbook-"
PROBE = "migration-runbook.probe"  # the source of our own events
PROBES = 18  # times 5 s
TAGS = {"created-by": "migration-runbook"}


class Listener:
    """Hears the events that match a pattern, between `with` and its end.

    The rule and queue are made before the thing that is waited for is started: a quick refresh's event would be
    missed otherwise. When a permission is missing, `denied` says so and nothing is heard: look at the world instead.
    """

    def __init__(self, session: Session, region: str, account: str, pattern: dict[str, Any]) -> None:
        self._events = session.client("events", region)
        self._sqs = session.client("sqs", region)
        self._record = session.record
        self._region, self._account = region, account
        self._pattern = {**pattern, "source": [*pattern["source"], PROBE]}
        self.name = PREFIX + secrets.token_hex(6)
        self.denied: str | None = None
        self._queue_url: str | None = None
        self._undo: list[tuple[Any, str, dict[str, Any]]] = []

    def __enter__(self) -> Listener:
        try:
            self._create()
        except AccessDenied as error:
            self.denied = str(error)
            self._remove()
        except BaseException:
            self._remove()
            raise
        return self

    def _create(self) -> None:
        partition = self._pattern["resources"][0].split(":")[1]
        arn = f"arn:{partition}:events:{self._region}:{self._account}:rule/{self.name}"
        queue_arn = f"arn:{partition}:sqs:{self._region}:{self._account}:{self.name}"
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "events.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": queue_arn,
                    "Condition": {"ArnEquals": {"aws:SourceArn": arn}},
                }
            ],
        }
        attributes = {"Policy": json.dumps(policy), "MessageRetentionPeriod": "3600"}
        self._queue_url = self._sqs.change("create_queue", QueueName=self.name, Attributes=attributes, tags=TAGS)[
            "QueueUrl"
        ]
        self._undo.append((self._sqs, "delete_queue", {"QueueUrl": self._queue_url}))
        tags = [{"Key": key, "Value": value} for key, value in TAGS.items()]
        self._events.change(
            "put_rule", Name=self.name, EventPattern=json.dumps(self._pattern), State="ENABLED", Tags=tags
        )
        self._undo.append((self._events, "delete_rule", {"Name": self.name}))
        answer = self._events.change("put_targets", Rule=self.name, Targets=[{"Id": "queue", "Arn": queue_arn}])
        self._undo.append((self._events, "remove_targets", {"Rule": self.name, "Ids": ["queue"]}))
        if answer.get("FailedEntryCount"):
            raise RunbookError(f"EventBridge did not take the queue as a target: {answer['FailedEntries']}")
        self._probe()

    def _probe(self) -> None:
        """Send events of our own until one arrives: a new rule takes up to a minute or so to work.

        An event of what we wait for could be lost in that time. Without the permission to send, we go on as we are.
        """
        probe = {
            "Source": PROBE,
            "DetailType": self._pattern["detail-type"][0],
            "Resources": self._pattern["resources"],
            "Detail": "{}",
        }
        for _ in range(PROBES):
            try:
                self._events.change("put_events", Entries=[probe])
            except AccessDenied as error:
                self._record("note", key="events.probe", value=str(error))
                return
            if self.heard(5):
                return

    def heard(self, seconds: int = 1) -> list[dict[str, Any]]:
        """The events that arrived since the last call, waiting up to `seconds` for the first. At least once each."""
        if self._queue_url is None or self.denied:
            return []
        answer = self._sqs.look(
            "receive_message", QueueUrl=self._queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=seconds
        )
        events = []
        for message in answer.get("Messages", []):
            events.append(json.loads(message["Body"]))
            self._sqs.change("delete_message", QueueUrl=self._queue_url, ReceiptHandle=message["ReceiptHandle"])
        return events

    def _remove(self) -> None:
        while self._undo:
            client, operation, parameters = self._undo.pop()
            try:
                client.change(operation, **parameters)
            except RunbookError as error:  # keep removing the others; what stays behind is named in the record
                self._record("left-behind", what=f"{operation} {self.name}", why=str(error))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()


def refresh_pattern(gateway_arn: str, share_arn: str) -> dict[str, Any]:
    """The refresh-complete events of a share: AWS's example rule matches the gateway, events carry both ARNs."""
    return {
        "source": ["aws.storagegateway"],
        "resources": [gateway_arn, share_arn],
        "detail-type": ["Storage Gateway Refresh Cache Event"],
    }
