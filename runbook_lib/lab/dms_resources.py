"""How are DMS's resources named, found, filtered, paged and tagged?"""

from __future__ import annotations

import re
import secrets
import string
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from .protocol import Call, Refusal, Service, page

if TYPE_CHECKING:
    from .core import Lab

Document = dict[str, Any]
INSTANCE, SUBNETS, ENDPOINT = "dms.instance", "dms.subnets", "dms.endpoint"
CONNECTION, TASK, TABLE = "dms.connection", "dms.task", "dms.table"
_MEMBERS = {
    INSTANCE: ("rep", "ReplicationInstanceArn"),
    SUBNETS: ("subgrp", "ReplicationSubnetGroupArn"),
    ENDPOINT: ("endpoint", "EndpointArn"),
    TASK: ("task", "ReplicationTaskArn"),
}
_WORDS = {INSTANCE: "Replication Instance", SUBNETS: "Replication Subnet Group", ENDPOINT: "Endpoint", TASK: "Task"}
_LETTERS = string.ascii_uppercase + string.digits
Getter = Callable[[Document], str]


class Resources(Service):
    """What the operations on instances, endpoints and tasks share."""

    name: ClassVar[str] = "dms"
    invalid: ClassVar[str] = "InvalidParameterValueException"  # not in the SDK's model, as much of what DMS answers

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        self.lock = threading.RLock()  # held while a decision about resources is made and written

    def new_arn(self, call: Call, kind: str, chosen_id: str | None = None) -> str:
        """A fresh ARN in the caller's region; its last part is the external resource id, which may be chosen."""
        if chosen_id is not None:
            check_name(chosen_id, "ResourceIdentifier", 31)
        identity = chosen_id or "".join(secrets.choice(_LETTERS) for _ in range(26))
        arn = f"arn:aws:dms:{call.region}:{call.account}:{_MEMBERS[kind][0]}:{identity}"
        if self.lab.database.get(kind, arn) is not None:
            raise Refusal("ResourceAlreadyExistsFault", f"{_WORDS[kind]} {arn} already exists.")
        return arn

    def find(self, kind: str, arn: str, call: Call) -> Document:
        """A resource of the caller's region, or ResourceNotFoundFault."""
        document = self.lab.database.get(kind, arn)
        if document is None or arn.split(":")[3:5] != [call.region, call.account]:
            raise Refusal("ResourceNotFoundFault", f"{_WORDS[kind]} {arn} not found.")
        return document

    def here(self, kind: str, call: Call) -> list[Document]:
        """All resources of the caller's region."""
        at, member = [call.region, call.account], _MEMBERS[kind][1]
        return [document for document in self.lab.database.all(kind) if document[member].split(":")[3:5] == at]

    def unused(self, kind: str, member: str, name: str, call: Call) -> None:
        """Refusal of a name that another resource of the kind has; names are not case-sensitive."""
        if any(document[member].lower() == name.lower() for document in self.here(kind, call)):
            raise Refusal("ResourceAlreadyExistsFault", f"{_WORDS[kind]} {name} already exists.")

    # Tags.

    def _tagged(self, arn: str, call: Call) -> tuple[str, Document]:
        part = arn.split(":")[5:6]
        for kind, (word, _) in _MEMBERS.items():
            if part == [word]:
                return kind, self.find(kind, arn, call)
        raise Refusal("ResourceNotFoundFault", f"Resource {arn} not found.")

    def list_tags_for_resource(self, parameters: Document, call: Call) -> Document:
        """ListTagsForResource, of one or of several."""
        arns = parameters.get("ResourceArnList") or [parameters.get("ResourceArn") or ""]
        found = [(arn, self._tagged(arn, call)[1]["Tags"]) for arn in arns]
        many = "ResourceArnList" in parameters
        return {"TagList": [{**tag, **({"ResourceArn": arn} if many else {})} for arn, tags in found for tag in tags]}

    def add_tags_to_resource(self, parameters: Document, call: Call) -> Document:
        """AddTagsToResource."""
        with self.lock:
            kind, document = self._tagged(parameters["ResourceArn"], call)
            tags = merged(document["Tags"], parameters["Tags"])
            self.lab.database.update(kind, parameters["ResourceArn"], Tags=tags)
        return {}

    def remove_tags_from_resource(self, parameters: Document, call: Call) -> Document:
        """RemoveTagsFromResource."""
        with self.lock:
            kind, document = self._tagged(parameters["ResourceArn"], call)
            tags = [tag for tag in document["Tags"] if tag["Key"] not in parameters["TagKeys"]]
            self.lab.database.update(kind, parameters["ResourceArn"], Tags=tags)
        return {}


def merged(old: list[dict[str, str]], new: list[dict[str, str]] | None) -> list[dict[str, str]]:
    """Tags with others set over them."""
    return list({tag["Key"]: {"Value": "", **tag} for tag in [*old, *(new or [])]}.values())


def chosen(document: Document, *members: str) -> Document:
    """Those members of a document that it has."""
    return {name: document[name] for name in members if document.get(name) is not None}


def filtered(items: list[Document], parameters: Document, getters: dict[str, Getter], what: str) -> list[Document]:
    """What passes all filters. With filters and nothing that passes DMS answers ResourceNotFoundFault, not []."""
    tests = parameters.get("Filters") or []
    for test in tests:
        if test["Name"] not in getters:
            raise Refusal("InvalidParameterValueException", f"Unrecognized filter name {test['Name'][:100]!r}.")
    found = [item for item in items if all(getters[test["Name"]](item) in test["Values"] for test in tests)]
    if tests and not found:
        raise Refusal("ResourceNotFoundFault", f"No {what} found matching given filter")
    return found


def paged(items: list[Document], member: str, parameters: Document, *, most: int = 100) -> Document:
    """A page of a list: MaxRecords is 20 to `most`, and 100 by default (DMS API reference)."""
    size = parameters.get("MaxRecords")
    if size is not None and not 20 <= size <= most:
        raise Refusal("InvalidParameterValueException", f"MaxRecords must be between 20 and {most}, it is {size}.")
    found, marker = page(items, parameters, size="MaxRecords", token="Marker", default=100)
    return {member: found, "Marker": marker}


def check_name(name: str, member: str, longest: int) -> None:
    """Refusal of what DMS allows in no identifier: it starts with a letter, has letters, digits and single hyphens."""
    if len(name) > longest or not re.fullmatch(r"[A-Za-z](-?[A-Za-z0-9])*", name):
        raise Refusal(
            "InvalidParameterValueException",
            f"{member} {name[:100]!r} is not valid: it has 1 to {longest} ASCII letters, digits and hyphens, begins "
            "with a letter, and neither ends with a hyphen nor has two in a row.",
        )


def now() -> float:
    """Epoch seconds."""
    return time.time()
