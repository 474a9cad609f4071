"""What do S3's groups of operations share: the store, and the refusals every one of them may give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .core import ACCOUNT, Lab
from .http import HttpRequest, HttpResponse
from .object_rows import Check, StoredObject
from .protocol import Refusal
from .s3_xml import S3Refusal, http_time
from .uploads import Uploads

Parameters = dict[str, Any]
Answer = dict[str, Any] | HttpResponse | None
Operation = Callable[[Parameters, HttpRequest], Answer]
NOT_HERE = "A header you provided implies functionality that is not implemented"
OWNER = {"ID": "79a59df900b949e55d96a1e698fbacedfd6e09d98eacf8f8d5218e7cd47ef2be"}  # S3 user guide's canonical user


class Operations:
    """A group of S3 operations: one method each, `(parameters, request) -> output members or a response`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.store = lab.objects
        self.uploads = Uploads(lab.objects)

    def bucket(self, parameters: Parameters) -> dict[str, Any]:
        """The bucket that is meant; Refusal NoSuchBucket, AccessDenied for another owner's."""
        name = parameters["Bucket"]
        found = self.store.bucket(name)
        if found is None:
            raise no_such_bucket(name)
        if parameters.get("ExpectedBucketOwner", ACCOUNT) != ACCOUNT:
            raise Refusal("AccessDenied", "Access Denied", status=403)
        return found

    def object(self, parameters: Parameters, key: str | None = None) -> StoredObject:
        """The object or version that is meant; Refusal NoSuchKey, NoSuchVersion, MethodNotAllowed (delete marker)."""
        bucket = self.bucket(parameters)
        name, version = key or parameters["Key"], parameters.get("VersionId")
        found = self.store.look(bucket["name"], name, version)
        if found is not None and not found.delete_marker:
            return found
        if found is None:
            if version is not None:
                message = "The specified version does not exist."
                raise Refusal("NoSuchVersion", message, status=404, Key=name, VersionId=version)
            raise Refusal("NoSuchKey", "The specified key does not exist.", status=404, Key=name)
        headers = [("x-amz-delete-marker", "true"), ("x-amz-version-id", found.version_id)]
        if version is None:
            raise S3Refusal("NoSuchKey", "The specified key does not exist.", status=404, headers=headers, Key=name)
        headers += [("Last-Modified", http_time(found.last_modified)), ("Allow", "DELETE")]
        message = "The specified method is not allowed against this resource."
        raise S3Refusal("MethodNotAllowed", message, status=405, headers=headers, ResourceType="DeleteMarker")


def no_such_bucket(name: str) -> Refusal:
    """AWS's words."""
    return Refusal("NoSuchBucket", "The specified bucket does not exist", status=404, BucketName=name)


def invalid(name: str, value: Any, message: str) -> Refusal:
    """InvalidArgument about one argument."""
    return Refusal("InvalidArgument", message, ArgumentName=name, ArgumentValue=str(value)[:200])


def version_of(bucket: dict[str, Any], stored: StoredObject) -> str | None:
    """The version id to show: none in a bucket that never had versioning."""
    return stored.version_id if bucket["versioning"] else None


def write_condition(parameters: Parameters) -> Check | None:
    """If-None-Match: * and If-Match on a write; Refusal PreconditionFailed, NoSuchKey, NotImplemented."""
    absent, match = parameters.get("IfNoneMatch"), parameters.get("IfMatch")
    if absent is None and match is None:
        return None
    if absent is not None and absent.strip() != "*":
        raise Refusal("NotImplemented", NOT_HERE, status=501)

    def check(current: StoredObject | None) -> None:
        found = None if current is None or current.delete_marker else current
        if absent is not None and found is not None:
            raise failed_condition("If-None-Match")
        if match is not None:
            if found is None:
                raise Refusal("NoSuchKey", "The specified key does not exist.", status=404, Key=parameters["Key"])
            if not matches(match, found):
                raise failed_condition("If-Match")

    return check


def matches(condition: str, stored: StoredObject) -> bool:
    """Whether an If-(None-)Match header names this object's ETag."""
    wanted = {item.strip().strip('"') for item in condition.split(",")}
    return "*" in wanted or stored.etag in wanted


def failed_condition(which: str) -> Refusal:
    """412 in AWS's words."""
    message = "At least one of the pre-conditions you specified did not hold"
    return Refusal("PreconditionFailed", message, status=412, Condition=which)
