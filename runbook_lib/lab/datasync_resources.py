"""How are DataSync's resources named, found, listed and tagged?"""

from __future__ import annotations

import operator
import re
import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from .datasync_options import invalid
from .protocol import Call, Refusal, Service, page

if TYPE_CHECKING:
    from .core import Lab

Document = dict[str, Any]
AGENT, LOCATION, TASK, EXECUTION = "datasync.agent", "datasync.location", "datasync.task", "datasync.execution"
_WORDS = {AGENT: "Agent", LOCATION: "Location", TASK: "Sync task", EXECUTION: "Task execution"}


class Resources(Service):
    """What the operations on agents, locations, tasks and executions share."""

    name: ClassVar[str] = "datasync"
    invalid: ClassVar[str] = "InvalidRequestException"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.lock = threading.RLock()  # held while a decision about tasks and executions is made and written

    def refuse_invalid(self, message: str) -> Refusal:
        """A request that the model forbids."""
        return invalid(message)

    def new_arn(self, call: Call, kind: str, prefix: str) -> str:
        """A fresh ARN in the caller's region and account."""
        return f"arn:aws:datasync:{call.region}:{call.account}:{kind}/{prefix}-{secrets.token_hex(9)[:17]}"

    def find(self, kind: str, arn: str, call: Call) -> Document:
        """A resource of the caller's region; DataSync has no not-found error but InvalidRequestException."""
        document = self.lab.database.get(kind, arn)
        if document is None or arn.split(":")[3:5] != [call.region, call.account]:
            raise invalid(f"{_WORDS[kind]} {arn} is not found.", "NotFound")
        return document

    def here(self, kind: str, member: str, call: Call) -> list[Document]:
        """All resources of the caller's region."""
        at = [call.region, call.account]
        return [d for d in self.lab.database.all(kind) if d[member].split(":")[3:5] == at]

    def listed(self, items: list[Document], member: str, parameters: Document) -> Document:
        """A page of a list; MaxResults at most and by default 100 (DataSync API reference)."""
        found, token = page(items, parameters, size="MaxResults", token="NextToken", default=100)
        return {member: found, "NextToken": token}

    # Tags.

    def _tagged(self, arn: str, call: Call) -> tuple[str, Document]:
        if "/execution/" in arn:
            return EXECUTION, self.find(EXECUTION, arn, call)
        kind = {"agent": AGENT, "location": LOCATION, "task": TASK}.get(arn.split(":")[5].split("/")[0])
        if kind is None:
            raise invalid(f"The lab has no {arn}", "NotFound")
        return kind, self.find(kind, arn, call)

    def list_tags_for_resource(self, parameters: Document, call: Call) -> Document:
        """ListTagsForResource."""
        _, document = self._tagged(parameters["ResourceArn"], call)
        return self.listed(document["Tags"], "Tags", parameters)

    def tag_resource(self, parameters: Document, call: Call) -> Document:
        """TagResource."""
        with self.lock:
            kind, document = self._tagged(parameters["ResourceArn"], call)
            tags = merged(document["Tags"], parameters["Tags"])
            self.lab.database.update(kind, parameters["ResourceArn"], Tags=tags)
        return {}

    def untag_resource(self, parameters: Document, call: Call) -> Document:
        """UntagResource."""
        with self.lock:
            kind, document = self._tagged(parameters["ResourceArn"], call)
            tags = [tag for tag in document["Tags"] if tag["Key"] not in parameters["Keys"]]
            self.lab.database.update(kind, parameters["ResourceArn"], Tags=tags)
        return {}


def merged(old: list[dict[str, str]], new: list[dict[str, str]] | None) -> list[dict[str, str]]:
    """Tags with others set over them; Refusal above 50 (DataSync API reference)."""
    tags = {tag["Key"]: tag for tag in [*old, *(new or [])]}
    if len(tags) > 50:
        raise invalid("A resource has at most 50 tags")
    return list(tags.values())


def chosen(document: Document, *members: str) -> Document:
    """Those members of a document that it has."""
    return {name: document[name] for name in members if document.get(name) is not None}


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "LessThan": operator.lt,
    "LessThanOrEqual": operator.le,
    "GreaterThan": operator.gt,
    "GreaterThanOrEqual": operator.ge,
}


def passes(value: str | float, test: Document) -> bool:
    """Whether a value passes one entry of a Filters list; times are compared as times."""
    values: list[Any] = list(test["Values"])
    if isinstance(value, float):
        values = [_moment(text) for text in values]
    match test["Operator"]:
        case "Equals" | "In":
            return value in values
        case "NotEquals":
            return value not in values
        case "Contains":
            return any(str(v) in str(value) for v in values)
        case "NotContains":
            return not any(str(v) in str(value) for v in values)
        case "BeginsWith":
            return any(str(value).startswith(str(v)) for v in values)
        case other:
            return all(_TESTS[other](value, v) for v in values)


def _moment(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise invalid(f"{text[:50]!r} is not a time") from error


def now() -> float:
    """Epoch seconds."""
    return time.time()
