"""What does S3 do with one object: put, get, head, delete, copy, tags, attributes?"""

from __future__ import annotations

from typing import Any

from .checksums import FULL_OBJECT
from .http import HttpRequest, HttpResponse
from .object_rows import Blob, NewObject, StoredObject
from .protocol import Refusal
from .s3_base import (
    Operations,
    Parameters,
    failed_condition,
    invalid,
    matches,
    no_such_bucket,
    version_of,
    write_condition,
)
from .s3_buckets import acl
from .s3_reading import object_headers, read_conditions, span, stream
from .s3_routes import check_tags, parse_query, split_path
from .s3_upload import described, receive, supported
from .uploads import checksum_of

CHECKSUM_MEMBERS = {
    "CRC32": "ChecksumCRC32", "CRC32C": "ChecksumCRC32C", "CRC64NVME": "ChecksumCRC64NVME",
    "SHA1": "ChecksumSHA1", "SHA256": "ChecksumSHA256",
}  # fmt: skip
LARGEST_COPY = 5 << 30  # bytes in one CopyObject (S3 API reference)
MOST_KEYS = 1000  # in one DeleteObjects
MOST_PARTS_SHOWN = 1000  # in one GetObjectAttributes, whatever is asked


def checksum_members(stored_or_sums: dict[str, str], kind: str | None = FULL_OBJECT) -> dict[str, str | None]:
    """Checksums as output members."""
    return {**{CHECKSUM_MEMBERS[name]: value for name, value in stored_or_sums.items()}, "ChecksumType": kind}


def copy_conditions(parameters: Parameters, stored: StoredObject) -> None:
    """The x-amz-copy-source-if-… headers; raises 412."""
    modified = int(stored.last_modified)
    match, none_match = parameters.get("CopySourceIfMatch"), parameters.get("CopySourceIfNoneMatch")
    if match is not None:
        if not matches(match, stored):
            raise failed_condition("x-amz-copy-source-If-Match")
    elif modified > parameters.get("CopySourceIfUnmodifiedSince", modified):
        raise failed_condition("x-amz-copy-source-If-Unmodified-Since")
    if none_match is not None:
        if matches(none_match, stored):
            raise failed_condition("x-amz-copy-source-If-None-Match")
    elif "CopySourceIfModifiedSince" in parameters and modified <= parameters["CopySourceIfModifiedSince"]:
        raise failed_condition("x-amz-copy-source-If-Modified-Since")


class ObjectOperations(Operations):
    """Single objects."""

    def put_object(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Store a body that arrived whole and is what it was said to be."""
        bucket = self.bucket(parameters)
        if "WriteOffsetBytes" in parameters:
            raise Refusal("NotImplemented", "Appending is for directory buckets.", status=501)
        members = described(parameters, request)
        blob, declared = receive(self.store, request)
        if declared.algorithm is not None:
            members["checksums"] = {declared.algorithm: checksum_of(blob, declared.algorithm)}
        new = NewObject(bucket["name"], parameters["Key"], blob, **members)
        return self._written(bucket, self._commit(new, parameters))

    def _commit(self, new: NewObject, parameters: Parameters) -> StoredObject:
        try:
            return self.store.commit([new], write_condition(parameters))[0]
        except BaseException:
            self.store.discard(new.blob)
            raise

    def _written(self, bucket: dict[str, Any], stored: StoredObject) -> Parameters:
        return {
            "ETag": f'"{stored.etag}"',
            "ServerSideEncryption": "AES256",
            "VersionId": version_of(bucket, stored),
            **checksum_members(stored.checksums, stored.checksum_type),
        }

    def get_object(self, parameters: Parameters, request: HttpRequest) -> HttpResponse:
        """The bytes, or a range of them, streamed; a replace meanwhile does not mix versions."""
        bucket = self.bucket(parameters)
        while True:
            stored = self.object(parameters)
            read_conditions(parameters, stored)
            within = span(parameters, stored)
            try:
                source = self.store.open_exactly(stored, *within[:2])
            except FileNotFoundError:
                continue  # replaced between the look and the open
            headers = object_headers(parameters, stored, bucket, within)
            return HttpResponse(206 if within[2] else 200, headers, stream(source))

    def head_object(self, parameters: Parameters, request: HttpRequest) -> HttpResponse:
        """What GET would say, without the bytes."""
        bucket = self.bucket(parameters)
        stored = self.object(parameters)
        read_conditions(parameters, stored)
        within = span(parameters, stored)
        return HttpResponse(206 if within[2] else 200, object_headers(parameters, stored, bucket, within))

    def delete_object(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """204 whether it was there or not."""
        bucket = self.bucket(parameters)
        if "IfMatch" in parameters:
            found = self.object(parameters)
            if not matches(parameters["IfMatch"], found):
                raise failed_condition("If-Match")
        gone = self.store.delete(bucket["name"], parameters["Key"], parameters.get("VersionId"))
        if gone is None:
            return {"VersionId": parameters.get("VersionId")}
        return {"VersionId": version_of(bucket, gone), "DeleteMarker": gone.delete_marker or None}

    def delete_objects(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Up to 1,000 keys or versions."""
        bucket = self.bucket(parameters)
        wanted, quiet = parameters["Delete"]["Objects"], parameters["Delete"].get("Quiet", False)
        if not 1 <= len(wanted) <= MOST_KEYS:
            raise Refusal("MalformedXML", f"The XML you provided names {len(wanted)} keys, not 1 to {MOST_KEYS}.")
        deleted = [self._delete_one(bucket, item["Key"], item.get("VersionId")) for item in wanted]
        return {"Deleted": [] if quiet else deleted}

    def _delete_one(self, bucket: dict[str, Any], key: str, version: str | None) -> Parameters:
        gone = self.store.delete(bucket["name"], key, version)
        if gone is None or not gone.delete_marker:
            return {"Key": key, "VersionId": version}
        return {"Key": key, "VersionId": version, "DeleteMarker": True, "DeleteMarkerVersionId": gone.version_id}

    def source_of(self, parameters: Parameters) -> StoredObject:
        """The object that x-amz-copy-source names, its conditions held."""
        text, _, query = parameters["CopySource"].partition("?")
        bucket, key = split_path(text)
        if not bucket or not key:
            message = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
            raise invalid("x-amz-copy-source", text, message)
        if self.store.bucket(bucket) is None:
            raise no_such_bucket(bucket)
        version = parse_query(query).get("versionId")
        where: Parameters = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
        stored = self.object(where)
        copy_conditions(parameters, stored)
        return stored

    def copy_object(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """A server-side copy; a single file is shared on disk, not copied."""
        bucket = self.bucket(parameters)
        source = self.source_of(parameters)
        if source.size > LARGEST_COPY:
            message = f"The specified copy source is larger than the maximum allowable size: {LARGEST_COPY}"
            raise Refusal("InvalidRequest", message)
        members = self._copied_members(parameters, request, source, bucket["name"])
        source, blob = self._copied_blob(parameters, source)
        algorithm = parameters.get("ChecksumAlgorithm") or next(iter(source.checksums))
        members["checksums"] = {algorithm: checksum_of(blob, algorithm)}
        new = NewObject(bucket["name"], parameters["Key"], blob, **members)
        stored = self._commit(new, parameters)
        written = self._written(bucket, stored)
        origin = self.store.bucket(source.bucket) or bucket
        return {
            "CopySourceVersionId": version_of(origin, source),
            "VersionId": written["VersionId"],
            "ServerSideEncryption": "AES256",
            "CopyObjectResult": {
                "ETag": written["ETag"],
                "LastModified": stored.last_modified,
                **checksum_members(stored.checksums, stored.checksum_type),
            },
        }

    def _copied_members(
        self, parameters: Parameters, request: HttpRequest, source: StoredObject, bucket: str
    ) -> dict[str, Any]:
        given = described(parameters, request)
        replacing = parameters.get("MetadataDirective") == "REPLACE"
        same_place = (source.bucket, source.key) == (bucket, parameters["Key"])
        changes = replacing or "StorageClass" in parameters or "x-amz-server-side-encryption" in request.headers
        if same_place and not changes and "?" not in parameters["CopySource"]:
            message = (
                "This copy request is illegal because it is trying to copy an object to itself without changing the"
                " object's metadata, storage class, website redirect location or encryption attributes."
            )
            raise Refusal("InvalidRequest", message)
        if not replacing:
            given.update(metadata=source.metadata, content_type=source.content_type, headers=source.headers)
        if parameters.get("TaggingDirective") != "REPLACE":
            given["tags"] = source.tags
        return given

    def _copied_blob(self, parameters: Parameters, source: StoredObject) -> tuple[StoredObject, Blob]:
        """The source and its bytes, staged: a second name for its one file, else a copy."""
        while True:
            algorithm = parameters.get("ChecksumAlgorithm") or next(iter(source.checksums))
            try:
                if source.path is not None and algorithm in source.checksums:
                    path, sums = self.store.link(source.path), source.checksums
                    return source, Blob(path, source.size, source.etag, sums.get("CRC64NVME", ""), sums)
                with self.store.open_exactly(source) as reader:
                    return source, self.store.stage(reader, [supported(algorithm)])
            except FileNotFoundError:
                source = self.source_of(parameters)  # replaced meanwhile

    def get_object_tagging(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """An empty set when there are none."""
        stored = self.object(parameters)
        tags = [{"Key": key, "Value": value} for key, value in stored.tags.items()]
        return {"TagSet": tags, "VersionId": version_of(self.bucket(parameters), stored)}

    def put_object_tagging(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Replaces all of them."""
        stored = self.object(parameters)
        self.store.set_tags(stored, check_tags(parameters["Tagging"]["TagSet"]))
        return {"VersionId": version_of(self.bucket(parameters), stored)}

    def delete_object_tagging(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Removes all of them."""
        stored = self.object(parameters)
        self.store.set_tags(stored, {})
        return {"VersionId": version_of(self.bucket(parameters), stored)}

    def get_object_acl(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """The owner may do everything."""
        self.object(parameters)
        return acl()

    def get_object_attributes(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Those that were asked for; the ETag here has no quotes."""
        stored = self.object(parameters)
        version = version_of(self.bucket(parameters), stored)
        composite = any(segment.checksums for segment in stored.segments)
        limit = min(parameters.get("MaxParts", MOST_PARTS_SHOWN), MOST_PARTS_SHOWN)
        after = int(parameters.get("PartNumberMarker") or 0)
        numbered = [
            {"PartNumber": number, "Size": segment.size, **_sums(segment.checksums)}
            for number, segment in enumerate(stored.segments, 1)
            if number > after
        ]
        count = len(stored.segments)
        parts = {
            "TotalPartsCount": count, "PartNumberMarker": str(after), "MaxParts": limit,
            "IsTruncated": len(numbered) > limit, "Parts": numbered[:limit],
            "NextPartNumberMarker": str(after + len(numbered[:limit])),
        }  # fmt: skip
        known: Parameters = {
            "ETag": stored.etag,
            "Checksum": checksum_members(stored.checksums, stored.checksum_type),
            "ObjectParts": None if not stored.segments else parts if composite else {"TotalPartsCount": count},
            "StorageClass": stored.storage_class,
            "ObjectSize": stored.size,
        }
        asked = {name: value for name, value in known.items() if name in parameters["ObjectAttributes"]}
        return {"LastModified": stored.last_modified, "VersionId": version, **asked}


def _sums(checksums: dict[str, str]) -> dict[str, str]:
    return {CHECKSUM_MEMBERS[name]: value for name, value in checksums.items()}
