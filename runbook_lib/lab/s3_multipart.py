"""How does an object arrive in parts? CreateMultipartUpload to CompleteMultipartUpload."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from .checksums import COMPOSITE, FULL_OBJECT
from .http import HttpRequest
from .object_rows import Blob, StoredObject
from .protocol import Refusal
from .s3_base import OWNER, Operations, Parameters, invalid, version_of, write_condition
from .s3_lists import MOST, common_prefix, limit_of
from .s3_objects import CHECKSUM_MEMBERS, LARGEST_COPY, ObjectOperations, checksum_members
from .s3_upload import described, receive, supported
from .s3_xml import url_encode
from .uploads import Part, Upload, assemble

SMALLEST_PART = 5 << 20  # bytes, of every part but the last (S3 user guide, multipart upload limits)
LARGEST_OBJECT = 50 << 40  # bytes (S3 user guide, multipart upload limits, since December 2025)
MOST_PARTS = 10_000
CRCS = ("CRC32", "CRC32C", "CRC64NVME")
COPY_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{1,18})")


def checksum_plan(parameters: Parameters) -> tuple[str, str]:
    """Algorithm and type of an upload; Refusal InvalidRequest for the pairs S3 does not have."""
    algorithm = supported(parameters.get("ChecksumAlgorithm") or "CRC64NVME")
    kind = parameters.get("ChecksumType") or (FULL_OBJECT if algorithm == "CRC64NVME" else COMPOSITE)
    if (kind == FULL_OBJECT and algorithm not in CRCS) or (kind == COMPOSITE and algorithm == "CRC64NVME"):
        message = f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
        raise Refusal("InvalidRequest", message)
    return algorithm, kind


class MultipartOperations(Operations):
    """Multipart uploads."""

    def upload(self, parameters: Parameters) -> Upload:
        """The open upload that is meant; Refusal NoSuchUpload."""
        self.bucket(parameters)
        found = self.uploads.find(parameters["Bucket"], parameters["Key"], parameters["UploadId"])
        if found is None:
            raise no_such_upload(parameters["UploadId"])
        return found

    def create_multipart_upload(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Open an upload."""
        bucket = self.bucket(parameters)
        algorithm, kind = checksum_plan(parameters)
        asked = parameters.get("ChecksumAlgorithm") is not None
        body = {"object": described(parameters, request), "algorithm": algorithm, "checksum_type": kind, "asked": asked}
        upload = self.uploads.create(bucket["name"], parameters["Key"], body)
        return {
            "Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.id, "ServerSideEncryption": "AES256",
            "ChecksumAlgorithm": algorithm if asked else None, "ChecksumType": kind if asked else None,
        }  # fmt: skip

    def upload_part(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Keep a part that arrived whole and is what it was said to be."""
        upload, number = self.upload(parameters), part_number(parameters)
        blob, declared = receive(self.store, request, [upload.algorithm])
        if upload.body["asked"] and declared.algorithm not in (None, upload.algorithm):
            self.store.discard(blob)
            message = "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}"
            raise Refusal("InvalidRequest", message.format(upload.algorithm.lower(), str(declared.algorithm).lower()))
        part = self._keep(upload, number, blob)
        sums = {upload.algorithm: part.checksum}
        if declared.algorithm is not None and declared.algorithm != upload.algorithm:
            sums = {declared.algorithm: blob.checksums.get(declared.algorithm, blob.crc64nvme)}
        members = {CHECKSUM_MEMBERS[name]: value for name, value in sums.items()}
        return {"ETag": f'"{part.md5}"', "ServerSideEncryption": "AES256", **members}

    def _keep(self, upload: Upload, number: int, blob: Blob) -> Part:
        try:
            part = self.uploads.add(upload, number, blob)
        except BaseException:
            self.store.discard(blob)
            raise
        if part is None:
            self.store.discard(blob)
            raise no_such_upload(upload.id)
        return part

    def upload_part_copy(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """A part from a range of an object."""
        upload, number = self.upload(parameters), part_number(parameters)
        objects = ObjectOperations(self.lab)
        while True:
            source = objects.source_of(parameters)
            start, end = copy_span(parameters.get("CopySourceRange"), source)
            try:
                with self.store.open_exactly(source, start, end) as reader:
                    blob = self.store.stage(reader, [upload.algorithm])
                break
            except FileNotFoundError:
                continue  # replaced meanwhile
        part = self._keep(upload, number, blob)
        origin = self.store.bucket(source.bucket) or {"versioning": ""}
        return {
            "CopySourceVersionId": version_of(origin, source),
            "ServerSideEncryption": "AES256",
            "CopyPartResult": {
                "ETag": f'"{part.md5}"', "LastModified": part.modified,
                CHECKSUM_MEMBERS[upload.algorithm]: part.checksum,
            },
        }  # fmt: skip

    def complete_multipart_upload(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Make the object of the parts that the client lists; Refusal InvalidPart, InvalidPartOrder, EntityTooSmall."""
        bucket, upload = self.bucket(parameters), self.upload(parameters)
        listed = (parameters.get("MultipartUpload") or {}).get("Parts") or []
        parts = chosen(listed, self.uploads.parts(upload), upload)
        expected_size = parameters.get("MpuObjectSize")
        if expected_size is not None and sum(part.size for part in parts) != int(expected_size):
            message = "The provided 'x-amz-mp-object-size' header value does not match what was computed."
            raise Refusal("InvalidRequest", message)
        self._check_whole(parameters, upload, parts)
        stored = self.uploads.complete(upload, parts, write_condition(parameters))
        if stored is None:
            raise no_such_upload(upload.id)
        return {
            "Location": f"http://{request.headers['host']}/{upload.bucket}/{url_encode(upload.key)}",
            "Bucket": upload.bucket, "Key": upload.key, "ETag": f'"{stored.etag}"', "ServerSideEncryption": "AES256",
            "VersionId": version_of(bucket, stored), **checksum_members(stored.checksums, stored.checksum_type),
        }  # fmt: skip

    def _check_whole(self, parameters: Parameters, upload: Upload, parts: list[Part]) -> None:
        """Hold the whole object's checksum against the one the client sent."""
        kind = parameters.get("ChecksumType")
        if kind is not None and kind != upload.checksum_type:
            message = f"The upload was created using the {upload.checksum_type} checksum mode."
            raise Refusal("InvalidRequest", f"{message} The complete request must use the same checksum mode.")
        wanted = parameters.get(CHECKSUM_MEMBERS[upload.algorithm])
        if wanted is None:
            return
        found = assemble(self.store, upload, parts).checksums[upload.algorithm]
        if wanted.partition("-")[0] != found.partition("-")[0]:
            raise Refusal("BadDigest", f"The {upload.algorithm} you specified did not match the calculated checksum.")

    def abort_multipart_upload(self, parameters: Parameters, request: HttpRequest) -> None:
        """Close it and forget its parts."""
        self.uploads.abort(self.upload(parameters))

    def list_parts(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """One page of parts by number."""
        upload, limit = self.upload(parameters), min(parameters.get("MaxParts", MOST), MOST)
        marker = int(parameters.get("PartNumberMarker") or 0)
        found = self.uploads.parts(upload, marker, limit + 1)
        parts = found[:limit]
        return {
            "Bucket": upload.bucket, "Key": upload.key, "UploadId": upload.id, "Initiator": OWNER, "Owner": OWNER,
            "StorageClass": upload.body["object"]["storage_class"], "PartNumberMarker": str(marker),
            "NextPartNumberMarker": str(parts[-1].number if parts else 0), "MaxParts": limit,
            "IsTruncated": len(found) > limit, "ChecksumAlgorithm": upload.algorithm,
            "ChecksumType": upload.checksum_type,
            "Parts": [
                {
                    "PartNumber": part.number, "LastModified": part.modified, "ETag": f'"{part.md5}"',
                    "Size": part.size, CHECKSUM_MEMBERS[upload.algorithm]: part.checksum,
                }
                for part in parts
            ],
        }  # fmt: skip

    def list_multipart_uploads(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """One page of open uploads by key and age."""
        bucket, limit = self.bucket(parameters), limit_of(parameters, "MaxUploads")
        prefix, delimiter = parameters.get("Prefix", ""), parameters.get("Delimiter", "")
        key_marker, id_marker = parameters.get("KeyMarker", ""), parameters.get("UploadIdMarker", "")
        everything = [upload for upload in self.uploads.all(bucket["name"]) if upload.key.startswith(prefix)]
        marker = key_marker.encode()
        behind = [u for u in everything if u.key.encode() > marker or _after(u, key_marker, id_marker, everything)]
        uploads: list[Upload] = []
        prefixes: list[str] = []
        truncated = False
        for upload in behind:
            rolled = common_prefix(upload.key, prefix, delimiter)
            if rolled is not None and rolled in (*prefixes[-1:], key_marker):
                continue
            if len(uploads) + len(prefixes) == limit:
                truncated = True
                break
            if rolled is None:
                uploads.append(upload)
            else:
                prefixes.append(rolled)
        last_key = max([upload.key for upload in uploads[-1:]] + prefixes[-1:], key=str.encode, default="")
        is_upload = bool(uploads) and uploads[-1].key == last_key
        write = url_encode if parameters.get("EncodingType") == "url" else str
        return {
            "Bucket": bucket["name"], "KeyMarker": write(key_marker), "UploadIdMarker": id_marker,
            "Prefix": write(prefix), "Delimiter": write(delimiter) if delimiter else None,
            "EncodingType": parameters.get("EncodingType"), "MaxUploads": limit, "IsTruncated": truncated,
            "NextKeyMarker": write(last_key) if truncated else None,
            "NextUploadIdMarker": uploads[-1].id if truncated and is_upload else None,
            "Uploads": [_listed(upload, write(upload.key)) for upload in uploads],
            "CommonPrefixes": [{"Prefix": write(name)} for name in prefixes],
        }  # fmt: skip


def _after(upload: Upload, key_marker: str, id_marker: str, everything: list[Upload]) -> bool:
    """Whether an upload of the marker's own key comes behind the marked one."""
    same = [other.id for other in everything if other.key == key_marker]
    return upload.key == key_marker and id_marker in same and same.index(upload.id) > same.index(id_marker)


def _listed(upload: Upload, key: str) -> dict[str, Any]:
    return {
        "UploadId": upload.id, "Key": key, "Initiated": upload.created, "Owner": OWNER, "Initiator": OWNER,
        "StorageClass": upload.body["object"]["storage_class"], "ChecksumAlgorithm": upload.algorithm,
        "ChecksumType": upload.checksum_type,
    }  # fmt: skip


def no_such_upload(identity: str) -> Refusal:
    """AWS's words."""
    message = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted"
    return Refusal("NoSuchUpload", f"{message} or completed.", status=404, UploadId=identity[:200])


def part_number(parameters: Parameters) -> int:
    """1 to 10,000."""
    number = int(parameters["PartNumber"])
    if not 1 <= number <= MOST_PARTS:
        message = f"Part number must be an integer between 1 and {MOST_PARTS}, inclusive"
        raise invalid("partNumber", number, message)
    return number


def copy_span(text: str | None, source: StoredObject) -> tuple[int, int]:
    """x-amz-copy-source-range as [start, end)."""
    if text is None:
        if source.size > LARGEST_COPY:
            message = f"The specified copy source is larger than the maximum allowable size: {LARGEST_COPY}"
            raise Refusal("InvalidRequest", message)
        return 0, source.size
    found = COPY_RANGE.fullmatch(text.strip())
    if found is None or int(found[1]) > int(found[2]):
        message = "The x-amz-copy-source-range value must be of the form bytes=first-last"
        raise invalid("x-amz-copy-source-range", text, message)
    if int(found[2]) >= source.size:
        message = f"Range specified is not valid for source object of size: {source.size}"
        raise invalid("x-amz-copy-source-range", text, message)
    return int(found[1]), int(found[2]) + 1


def chosen(listed: list[dict[str, Any]], uploaded: list[Part], upload: Upload) -> list[Part]:
    """The uploaded parts that the client lists, held against what it says of each."""
    if not listed:
        raise Refusal("MalformedXML", "The XML you provided was not well-formed or did not validate: it lists no part.")
    numbers = [int(item.get("PartNumber", 0)) for item in listed]
    if any(first >= second for first, second in pairwise(numbers)):
        message = "The list of parts was not in ascending order. Parts must be ordered by part number."
        raise Refusal("InvalidPartOrder", message, UploadId=upload.id)
    by_number = {part.number: part for part in uploaded}
    parts = []
    for number, item in zip(numbers, listed, strict=True):
        part, etag = by_number.get(number), str(item.get("ETag", "")).strip('"')
        checksum = item.get(CHECKSUM_MEMBERS[upload.algorithm])
        if part is None or part.md5 != etag or checksum not in (None, part.checksum):
            message = "One or more of the specified parts could not be found. The part may not have been uploaded,"
            message += " or the specified entity tag may not match the part's entity tag."
            raise Refusal("InvalidPart", message, UploadId=upload.id, PartNumber=number, ETag=etag[:100])
        parts.append(part)
    for part in parts[:-1]:
        if part.size < SMALLEST_PART:
            raise Refusal(
                "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size",
                ProposedSize=part.size, MinSizeAllowed=SMALLEST_PART, PartNumber=part.number, ETag=part.md5,
            )  # fmt: skip
    if sum(part.size for part in parts) > LARGEST_OBJECT:
        raise Refusal("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.")
    return parts
