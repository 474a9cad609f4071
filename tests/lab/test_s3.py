"""The lab's S3 over real HTTP: what boto3 and a hostile client get."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from runbook_lib.lab import checksums
from runbook_lib.lab.core import CLOUD_REGION

from .s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server, client, serving

MB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("state")) as found:
        yield found


@pytest.fixture(scope="module")
def one_client(server: S3Server) -> Any:
    return client(server.url)


@pytest.fixture
def s3(server: S3Server, one_client: Any) -> Any:
    """A client of an S3 with one empty bucket."""
    server.lab.objects.clear()
    server.lab.objects.create_bucket(BUCKET, CLOUD_REGION)
    return one_client


@contextmanager
def refused(code: str, status: int | None = None) -> Iterator[None]:
    """The block ends in AWS's error of this code."""
    with pytest.raises(ClientError) as found:
        yield
    assert found.value.response["Error"]["Code"] == code, found.value
    if status is not None:
        assert found.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


@dataclass
class Raw:
    """Signed requests that boto3 would never send."""

    server: S3Server
    headers: dict[str, str] = field(default_factory=dict)

    def send(
        self, method: str, path: str, body: bytes = b"", *, declared: str = "", **headers: str
    ) -> tuple[int, bytes]:
        """Status and body; `declared` is x-amz-content-sha256, the body's own hash by default."""
        host = self.server.url.removeprefix("http://")
        declared = declared or hashlib.sha256(body).hexdigest()
        request = AWSRequest(method, f"{self.server.url}{path}", {n.replace("_", "-"): v for n, v in headers.items()})
        signer = S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", CLOUD_REGION)
        signer.payload = lambda request: declared  # type: ignore[method-assign,assignment]
        signer.add_auth(request)
        connection = http.client.HTTPConnection(host, timeout=20)
        try:
            connection.request(method, path, body, dict(request.headers))
            response = connection.getresponse()
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, response.read()
        finally:
            connection.close()


@pytest.fixture
def raw(server: S3Server, s3: Any) -> Raw:
    return Raw(server)


def body_of(response: dict[str, Any]) -> bytes:
    with response["Body"] as body:
        data: bytes = body.read()
        return data


# Objects.


def test_what_was_put_is_got_with_its_metadata_and_checksum(s3: Any) -> None:
    metadata = {"file-mtime": "1700000000123ms", "file-permissions": "0644"}
    put = s3.put_object(Bucket=BUCKET, Key="images/1.jpg", Body=b"jpeg", Metadata=metadata, ContentType="image/jpeg")
    got = s3.get_object(Bucket=BUCKET, Key="images/1.jpg", ChecksumMode="ENABLED")
    assert body_of(got) == b"jpeg"
    assert got["Metadata"] == metadata and got["ContentType"] == "image/jpeg"
    assert put["ETag"] == got["ETag"] == f'"{hashlib.md5(b"jpeg").hexdigest()}"'
    assert got["ChecksumCRC32"] == checksums.of("CRC32", b"jpeg") and got["ChecksumType"] == "FULL_OBJECT"
    assert "VersionId" not in got and got["ServerSideEncryption"] == "AES256"


def test_a_plain_put_gets_crc64nvme_as_on_s3(s3: Any, raw: Raw) -> None:
    assert raw.send("PUT", f"/{BUCKET}/k", b"plain")[0] == 200
    found = s3.head_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")
    assert found["ChecksumCRC64NVME"] == checksums.of("CRC64NVME", b"plain")


@pytest.mark.parametrize("algorithm", checksums.ALGORITHMS)
def test_every_algorithm_is_verified_stored_and_shown(s3: Any, algorithm: str) -> None:
    member = f"Checksum{algorithm}"
    wrong, right = checksums.of(algorithm, b"other"), checksums.of(algorithm, b"data")
    with refused("BadDigest", 400):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"data", **{member: wrong})
    with refused("InvalidRequest", 400):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"data", **{member: "AAA="})
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"data", **{member: right})
    assert s3.get_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")[member] == right
    assert s3.list_objects_v2(Bucket=BUCKET)["Contents"][0]["ChecksumAlgorithm"] == [algorithm]


def test_content_md5_is_verified(s3: Any, server: S3Server) -> None:
    def md5(data: bytes) -> str:
        return base64.b64encode(hashlib.md5(data).digest()).decode()

    s3.put_object(Bucket=BUCKET, Key="k", Body=b"data", ContentMD5=md5(b"data"))
    with refused("BadDigest", 400):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"dato", ContentMD5=md5(b"data"))
    with refused("InvalidDigest", 400):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"data", ContentMD5="bm8=")
    assert body_of(s3.get_object(Bucket=BUCKET, Key="k")) == b"data"
    assert sum(1 for _ in server.lab.objects.blobs.glob("*/*")) == 1


def test_a_body_that_is_not_what_was_signed_is_not_stored(s3: Any, raw: Raw) -> None:
    status, answer = raw.send("PUT", f"/{BUCKET}/k", b"sent", declared=hashlib.sha256(b"signed").hexdigest())
    assert status == 400 and b"<Code>XAmzContentSHA256Mismatch</Code>" in answer
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("bytes=0-0", b"0"), ("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-3", b"789"), ("bytes=5-99", b"56789")],
)
def test_a_range_is_a_206_with_its_place(s3: Any, asked: str, expected: bytes) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"0123456789")
    got = s3.get_object(Bucket=BUCKET, Key="k", Range=asked)
    assert body_of(got) == expected and got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["ContentRange"].endswith("/10") and "ChecksumCRC32" not in got


def test_a_range_beyond_the_end_is_a_416_and_a_senseless_one_is_ignored(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"0123456789")
    s3.put_object(Bucket=BUCKET, Key="empty", Body=b"")
    for key, asked in [("k", "bytes=10-"), ("k", "bytes=-0"), ("empty", "bytes=0-0")]:
        with refused("InvalidRange", 416):
            s3.get_object(Bucket=BUCKET, Key=key, Range=asked)
    for asked in ("bytes=5-3", "lines=1-2", "bytes=0-1,3-4"):
        assert len(body_of(s3.get_object(Bucket=BUCKET, Key="k", Range=asked))) == 10


def test_conditions_on_reading(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="k", Body=b"x")["ETag"]
    modified = s3.head_object(Bucket=BUCKET, Key="k")["LastModified"]
    earlier = modified.replace(year=modified.year - 1)
    s3.get_object(Bucket=BUCKET, Key="k", IfMatch=etag, IfUnmodifiedSince=earlier)  # If-Match wins (RFC 9110 §13.2.2)
    with refused("PreconditionFailed", 412):
        s3.get_object(Bucket=BUCKET, Key="k", IfMatch='"other"')
    with refused("PreconditionFailed", 412):
        s3.get_object(Bucket=BUCKET, Key="k", IfUnmodifiedSince=earlier)
    with refused("304", 304):
        s3.get_object(Bucket=BUCKET, Key="k", IfNoneMatch=etag)
    with refused("304", 304):
        s3.head_object(Bucket=BUCKET, Key="k", IfModifiedSince=modified)


def test_a_conditional_write_does_not_overwrite(s3: Any) -> None:
    etag = s3.put_object(Bucket=BUCKET, Key="k", Body=b"1", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"2", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"2", IfMatch='"other"')
    with refused("NoSuchKey", 404):
        s3.put_object(Bucket=BUCKET, Key="new", Body=b"2", IfMatch=etag)
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"2", IfMatch=etag)
    assert body_of(s3.get_object(Bucket=BUCKET, Key="k")) == b"2"


def test_response_headers_can_be_overridden_but_not_injected(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"1", CacheControl="no-store", ContentEncoding="gzip")
    got = s3.get_object(Bucket=BUCKET, Key="k", ResponseContentType="text/x", ResponseContentDisposition="attachment")
    assert (got["ContentType"], got["ContentDisposition"]) == ("text/x", "attachment")
    assert (got["CacheControl"], got["ContentEncoding"]) == ("no-store", "gzip")
    with refused("InvalidArgument", 400):
        s3.get_object(Bucket=BUCKET, Key="k", ResponseContentType="text/x\r\nx-evil: 1")


def test_a_head_of_nothing_is_a_404_without_a_body(s3: Any, raw: Raw) -> None:
    with refused("404", 404):
        s3.head_object(Bucket=BUCKET, Key="nothing")
    with refused("404", 404):
        s3.head_bucket(Bucket="no-such-bucket")
    assert raw.send("HEAD", f"/{BUCKET}/nothing") == (404, b"")


def test_deleting_says_204_whether_it_was_there_or_not(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")
    for _ in range(2):
        assert s3.delete_object(Bucket=BUCKET, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=BUCKET, Key="k")


def test_many_objects_are_deleted_at_once(s3: Any) -> None:
    keys = [f"k {number} & <>" for number in range(30)]
    for key in keys:
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"1")
    gone = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key} for key in [*keys, "never there"]]})
    assert [item["Key"] for item in gone["Deleted"]] == [*keys, "never there"] and "Errors" not in gone
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": str(number)} for number in range(1001)]})


def test_copies_keep_or_replace_metadata(s3: Any, server: S3Server) -> None:
    s3.put_object(
        Bucket=BUCKET, Key="a ü+%/1", Body=b"data", Metadata={"by": "me"}, Tagging="t=1", ContentType="text/x"
    )
    source = {"Bucket": BUCKET, "Key": "a ü+%/1"}
    s3.copy_object(Bucket=BUCKET, Key="b", CopySource=source)
    s3.copy_object(
        Bucket=BUCKET, Key="c", CopySource=source, Metadata={"by": "you"}, MetadataDirective="REPLACE",
        TaggingDirective="REPLACE", Tagging="t=2", ChecksumAlgorithm="SHA256",
    )  # fmt: skip
    kept, replaced = (s3.get_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED") for key in "bc")
    assert (body_of(kept), kept["Metadata"], kept["ContentType"]) == (b"data", {"by": "me"}, "text/x")
    assert (body_of(replaced), replaced["Metadata"]) == (b"data", {"by": "you"})
    assert replaced["ChecksumSHA256"] == checksums.of("SHA256", b"data")
    assert s3.get_object_tagging(Bucket=BUCKET, Key="c")["TagSet"] == [{"Key": "t", "Value": "2"}]
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=BUCKET, Key="b", CopySource=f"{BUCKET}/b")
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=BUCKET, Key="d", CopySource=f"{BUCKET}/nothing")
    with refused("PreconditionFailed", 412):
        s3.copy_object(Bucket=BUCKET, Key="d", CopySource=source, CopySourceIfMatch="other")
    s3.copy_object(Bucket=BUCKET, Key="b", CopySource=f"{BUCKET}/b", MetadataDirective="REPLACE", Metadata={"new": "1"})
    s3.delete_object(**source)
    assert body_of(s3.get_object(Bucket=BUCKET, Key="b")) == b"data"


def test_tags_of_objects(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"1", Tagging="a=1&b=x%20y")
    assert s3.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"][1] == {"Key": "b", "Value": "x y"}
    assert s3.head_object(Bucket=BUCKET, Key="k")["TagCount"] == 2
    s3.put_object_tagging(Bucket=BUCKET, Key="k", Tagging={"TagSet": [{"Key": "only", "Value": ""}]})
    assert s3.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"] == [{"Key": "only", "Value": ""}]
    s3.delete_object_tagging(Bucket=BUCKET, Key="k")
    assert s3.get_object_tagging(Bucket=BUCKET, Key="k")["TagSet"] == []
    with refused("InvalidTag"):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"", Tagging="a=1&a=2")


def test_metadata_has_a_limit(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"", Metadata={"a": "x" * 2047})
    with refused("MetadataTooLarge", 400):
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"", Metadata={"a": "x" * 2048})


def test_versions_are_kept_listed_and_deleted(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    first = s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")["VersionId"]
    second = s3.put_object(Bucket=BUCKET, Key="k", Body=b"2")["VersionId"]
    s3.put_object(Bucket=BUCKET, Key="l", Body=b"3")
    marker = s3.delete_object(Bucket=BUCKET, Key="k")
    assert marker["DeleteMarker"]
    with refused("NoSuchKey", 404):
        s3.get_object(Bucket=BUCKET, Key="k")
    with refused("MethodNotAllowed", 405):
        s3.get_object(Bucket=BUCKET, Key="k", VersionId=marker["VersionId"])
    with refused("NoSuchVersion", 404):
        s3.get_object(Bucket=BUCKET, Key="k", VersionId="never")
    assert body_of(s3.get_object(Bucket=BUCKET, Key="k", VersionId=first)) == b"1"
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": 1})
    shown = [
        (item["Key"], item["VersionId"], item["IsLatest"])
        for page in pages
        for item in page.get("Versions", []) + page.get("DeleteMarkers", [])
    ]
    assert shown[:3] == [("k", marker["VersionId"], True), ("k", second, False), ("k", first, False)]
    assert len(shown) == 4 and shown[3][2]
    s3.delete_object(Bucket=BUCKET, Key="k", VersionId=marker["VersionId"])
    s3.copy_object(Bucket=BUCKET, Key="k", CopySource={"Bucket": BUCKET, "Key": "k", "VersionId": first})
    assert body_of(s3.get_object(Bucket=BUCKET, Key="k")) == b"1"


# Multipart uploads.


def parts_of(s3: Any, upload: dict[str, Any], *bodies: bytes, **more: str) -> list[dict[str, Any]]:
    where = {name: upload[name] for name in ("Bucket", "Key", "UploadId")}
    sent = [s3.upload_part(**where, PartNumber=number, Body=body, **more) for number, body in enumerate(bodies, 1)]
    return [{"PartNumber": number, "ETag": part["ETag"]} for number, part in enumerate(sent, 1)]


def complete(s3: Any, upload: dict[str, Any], parts: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    where = {name: upload[name] for name in ("Bucket", "Key", "UploadId")}
    done: dict[str, Any] = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, **more)
    return done


def test_a_multipart_upload_becomes_one_object(s3: Any) -> None:
    data = os.urandom(12 * MB)
    config = TransferConfig(multipart_threshold=5 * MB, multipart_chunksize=5 * MB)
    s3.upload_fileobj(io.BytesIO(data), BUCKET, "big", Config=config, ExtraArgs={"Metadata": {"by": "me"}})
    found = s3.get_object(Bucket=BUCKET, Key="big", ChecksumMode="ENABLED")
    assert body_of(found) == data and found["Metadata"] == {"by": "me"}
    assert (
        found["ETag"].endswith('-3"') and found["ChecksumCRC32"].endswith("-3") and found["ChecksumType"] == "COMPOSITE"
    )
    got = s3.get_object(Bucket=BUCKET, Key="big", Range=f"bytes={5 * MB - 3}-{10 * MB + 2}")
    assert body_of(got) == data[5 * MB - 3 : 10 * MB + 3]
    part = s3.get_object(Bucket=BUCKET, Key="big", PartNumber=3)
    assert body_of(part) == data[10 * MB :] and part["PartsCount"] == 3
    with refused("InvalidPartNumber", 416):
        s3.get_object(Bucket=BUCKET, Key="big", PartNumber=4)
    asked = ["ETag", "Checksum", "ObjectParts", "ObjectSize"]
    attributes = s3.get_object_attributes(Bucket=BUCKET, Key="big", ObjectAttributes=asked)
    assert attributes["ObjectParts"]["TotalPartsCount"] == 3 and attributes["ObjectSize"] == len(data)
    behind = {"ObjectAttributes": ["ObjectParts"], "PartNumberMarker": 1}
    some = [s3.get_object_attributes(Bucket=BUCKET, Key="big", **behind, MaxParts=most) for most in (1, 5000)]
    shown = [[part["Size"] for part in page["ObjectParts"]["Parts"]] for page in some]
    assert shown == [[5 * MB], [5 * MB, 2 * MB]]
    assert [page["ObjectParts"]["IsTruncated"] for page in some] == [True, False]
    assert [page["ObjectParts"]["MaxParts"] for page in some] == [1, 1000]  # no more in one page


def test_a_full_object_checksum_is_combined_from_the_parts(s3: Any) -> None:
    data = os.urandom(6 * MB)
    upload = s3.create_multipart_upload(
        Bucket=BUCKET, Key="k", ChecksumAlgorithm="CRC64NVME", ChecksumType="FULL_OBJECT"
    )
    parts = parts_of(s3, upload, data[: 5 * MB], data[5 * MB :], ChecksumAlgorithm="CRC64NVME")
    whole = checksums.of("CRC64NVME", data)
    with refused("BadDigest", 400):
        complete(s3, upload, parts, ChecksumCRC64NVME=checksums.of("CRC64NVME", b"other"))
    assert complete(s3, upload, parts, ChecksumCRC64NVME=whole)["ChecksumCRC64NVME"] == whole
    assert s3.head_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")["ChecksumType"] == "FULL_OBJECT"


def test_a_copy_of_a_multipart_object_is_one_part(s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="k")
    complete(s3, upload, parts_of(s3, upload, b"a" * 5 * MB, b"b"))
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/k")
    whole = b"a" * 5 * MB + b"b"
    assert s3.head_object(Bucket=BUCKET, Key="copy")["ETag"] == f'"{hashlib.md5(whole).hexdigest()}"'


def test_parts_can_be_copied_from_ranges(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="source", Body=b"0123456789")
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="k")
    where = {"Bucket": BUCKET, "Key": "k", "UploadId": upload["UploadId"], "CopySource": f"{BUCKET}/source"}
    part = s3.upload_part_copy(**where, PartNumber=1, CopySourceRange="bytes=3-5")["CopyPartResult"]
    with refused("InvalidArgument", 400):
        s3.upload_part_copy(**where, PartNumber=2, CopySourceRange="bytes=3-10")
    complete(s3, upload, [{"PartNumber": 1, "ETag": part["ETag"]}])
    assert body_of(s3.get_object(Bucket=BUCKET, Key="k")) == b"345"


def test_wrong_completions_are_refused_and_the_upload_stays(s3: Any) -> None:
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="k")
    parts = parts_of(s3, upload, b"small", b"x")
    with refused("EntityTooSmall", 400):
        complete(s3, upload, parts)
    with refused("InvalidPartOrder", 400):
        complete(s3, upload, parts[::-1])
    with refused("InvalidPart", 400):
        complete(s3, upload, [{"PartNumber": 1, "ETag": '"0"'}])
    with refused("InvalidPart", 400):
        complete(s3, upload, [{"PartNumber": 7, "ETag": parts[0]["ETag"]}])
    with refused("MalformedXML", 400):
        complete(s3, upload, [])
    complete(s3, upload, parts[:1])
    with refused("NoSuchUpload", 404):
        complete(s3, upload, parts[:1])
    assert body_of(s3.get_object(Bucket=BUCKET, Key="k")) == b"small"


def test_open_uploads_and_their_parts_are_listed_and_aborted(s3: Any, server: S3Server) -> None:
    uploads = [s3.create_multipart_upload(Bucket=BUCKET, Key=key) for key in ("a/1", "a/2", "b", "b")]
    parts_of(s3, uploads[2], b"1", b"22", b"333")
    where = {"Bucket": BUCKET, "Key": "b", "UploadId": uploads[2]["UploadId"]}
    pages = s3.get_paginator("list_parts").paginate(**where, PaginationConfig={"PageSize": 2})
    assert [part["Size"] for page in pages for part in page["Parts"]] == [1, 2, 3]
    for size in (1, 2, 10):
        found = s3.get_paginator("list_multipart_uploads").paginate(Bucket=BUCKET, PaginationConfig={"PageSize": size})
        assert [item["Key"] for page in found for item in page["Uploads"]] == ["a/1", "a/2", "b", "b"]
    rolled = s3.list_multipart_uploads(Bucket=BUCKET, Delimiter="/")
    assert rolled["CommonPrefixes"] == [{"Prefix": "a/"}] and len(rolled["Uploads"]) == 2
    for upload in uploads:
        s3.abort_multipart_upload(**{name: upload[name] for name in ("Bucket", "Key", "UploadId")})
    with refused("NoSuchUpload", 404):
        s3.list_parts(**where)
    assert list(server.lab.objects.blobs.glob("*/*")) == []


def test_a_replaced_multipart_object_can_still_be_read_by_who_had_begun(s3: Any) -> None:
    data = os.urandom(10 * MB)
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="k")
    complete(s3, upload, parts_of(s3, upload, data[: 5 * MB], data[5 * MB :]))
    body = s3.get_object(Bucket=BUCKET, Key="k")["Body"]
    begun = body.read(1000)
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"new")
    assert begun + body.read() == data


# Buckets.


def test_a_bucket_is_created_found_and_deleted(s3: Any) -> None:
    here = {"LocationConstraint": CLOUD_REGION}
    s3.create_bucket(Bucket="another-bucket", CreateBucketConfiguration=here)
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["another-bucket", BUCKET]
    assert s3.get_bucket_location(Bucket="another-bucket")["LocationConstraint"] == CLOUD_REGION
    assert s3.head_bucket(Bucket="another-bucket")["BucketRegion"] == CLOUD_REGION
    with refused("BucketAlreadyOwnedByYou", 409):
        s3.create_bucket(Bucket="another-bucket", CreateBucketConfiguration=here)
    with refused("IllegalLocationConstraintException", 400):
        s3.create_bucket(Bucket="a-third-bucket")
    s3.put_object(Bucket="another-bucket", Key="k", Body=b"")
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket="another-bucket")
    s3.delete_object(Bucket="another-bucket", Key="k")
    s3.delete_bucket(Bucket="another-bucket")
    with refused("NoSuchBucket", 404):
        s3.list_objects_v2(Bucket="another-bucket")


@pytest.mark.parametrize("name", ["UPPER", "a..b", "127.0.0.1", "-dash", "x" * 64])
def test_odd_bucket_names_are_refused(raw: Raw, name: str) -> None:
    status, answer = raw.send("PUT", f"/{name}")
    assert status == 400 and b"<Code>InvalidBucketName</Code>" in answer


def test_settings_are_stored_and_shown(s3: Any) -> None:
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=BUCKET)
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": [{"Key": "by", "Value": "the runbook"}]})
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == [{"Key": "by", "Value": "the runbook"}]
    block = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": True,
        "BlockPublicPolicy": False,
        "RestrictPublicBuckets": False,
    }
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=block)
    assert s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"] == block
    queue = {"QueueArn": "arn:aws:sqs:eu-central-1:123456789012:q", "Events": ["s3:ObjectCreated:*"], "Id": "one"}
    s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": [queue]})
    assert s3.get_bucket_notification_configuration(Bucket=BUCKET)["QueueConfigurations"] == [queue]
    rules = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    assert s3.get_bucket_acl(Bucket=BUCKET)["Grants"][0]["Permission"] == "FULL_CONTROL"


@pytest.mark.parametrize(
    ("ask", "code"),
    [
        (lambda s3: s3.get_bucket_policy(Bucket=BUCKET), "NoSuchBucketPolicy"),
        (lambda s3: s3.get_bucket_lifecycle_configuration(Bucket=BUCKET), "NoSuchLifecycleConfiguration"),
        (lambda s3: s3.put_bucket_policy(Bucket=BUCKET, Policy="{}"), "NotImplemented"),
        (lambda s3: s3.select_object_content(
            Bucket=BUCKET, Key="k", Expression="x", ExpressionType="SQL", InputSerialization={}, OutputSerialization={}
        ), "NotImplemented"),
        (lambda s3: s3.put_object(Bucket=BUCKET, Key="k", ServerSideEncryption="aws:kms"), "NotImplemented"),
        (lambda s3: s3.put_object(Bucket=BUCKET, Key="k", ACL="public-read"), "AccessControlListNotSupported"),
        (lambda s3: s3.put_object(Bucket=BUCKET, Key="k", StorageClass="FLOPPY"), "InvalidArgument"),
        (lambda s3: s3.list_objects_v2(Bucket=BUCKET, ContinuationToken="!"), "InvalidArgument"),
        (lambda s3: s3.list_objects_v2(Bucket=BUCKET, ExpectedBucketOwner="210987654321"), "AccessDenied"),
    ],
)  # fmt: skip
def test_what_the_lab_does_not_do_is_said(s3: Any, ask: Callable[[Any], Any], code: str) -> None:
    with refused(code):
        ask(s3)


# Names.

NAMES = [
    "..", "../../etc/passwd", "a/../b", "/leading", "//", "a//b", "trailing/", "a b", "a+b", "a%2Fb", "%", "&<>\"'",
    "new\nline", "tab\t", "\r", "\x01\x1f\x7f", "\U0001f600", "caf\u00e9", "cafe\u0301", "x" * 1024, "\u00e9" * 512,
    "?query=1", "#fragment", ".", "con", "*", "~", "\ufffd", "-", "\\",
]  # fmt: skip


def test_every_name_comes_back_as_it_went_in(s3: Any) -> None:
    for name in NAMES:
        s3.put_object(Bucket=BUCKET, Key=name, Body=name.encode())
    listed = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]  # boto3 asks for encoding-type=url
    assert listed == sorted(NAMES, key=str.encode)
    for name in NAMES:
        assert body_of(s3.get_object(Bucket=BUCKET, Key=name)) == name.encode()
        s3.copy_object(Bucket=BUCKET, Key="copy", CopySource={"Bucket": BUCKET, "Key": name})
        assert body_of(s3.get_object(Bucket=BUCKET, Key="copy")) == name.encode()
        s3.delete_object(Bucket=BUCKET, Key=name)
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["copy"]


def test_names_stay_inside_the_labs_folder(s3: Any, server: S3Server) -> None:
    before = {path for path in server.lab.folder.root.parent.rglob("*") if "blobs" not in path.parts}
    for name in ("../../../escaped", "/tmp/escaped", "..\\escaped"):
        s3.put_object(Bucket=BUCKET, Key=name, Body=b"x")
    after = {path for path in server.lab.folder.root.parent.rglob("*") if "blobs" not in path.parts}
    assert {path for path in after - before if "lab.sqlite" not in path.name} == set()


@pytest.mark.parametrize(
    ("path", "code"), [("%FF%FE", b"InvalidURI"), ("a%00b", b"InvalidURI"), ("%C0%AF", b"InvalidURI")]
)
def test_names_that_are_no_text_are_a_clear_400(raw: Raw, path: str, code: bytes) -> None:
    for method in ("PUT", "GET"):
        status, answer = raw.send(method, f"/{BUCKET}/{path}")
        assert status == 400 and b"<Code>" + code + b"</Code>" in answer


def test_an_over_long_name_is_refused_with_its_size(s3: Any) -> None:
    with refused("KeyTooLongError", 400):
        s3.put_object(Bucket=BUCKET, Key="x" * 1025, Body=b"")
    with refused("KeyTooLongError", 400):
        s3.get_object(Bucket=BUCKET, Key="\u00e9" * 513)


def test_a_header_that_is_no_text_is_refused(s3: Any, server: S3Server) -> None:
    url = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "k"})
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    connection.request("PUT", url.removeprefix(server.url), b"x", {"Content-Type": b"caf\xe9"})
    response = connection.getresponse()
    assert response.status == 400 and b"<Code>InvalidArgument</Code>" in response.read()
    connection.close()


# Raw requests.


def framed(data: bytes, trailer: str = "") -> bytes:
    pieces = [data[at : at + 9000] for at in range(0, len(data), 9000)]
    body = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return body + b"0\r\n" + (f"{trailer}\r\n" if trailer else "").encode() + b"\r\n"


def send_framed(raw: Raw, data: bytes, trailer: str, length: int | None = None) -> tuple[int, bytes]:
    return raw.send(
        "PUT", f"/{BUCKET}/k", framed(data, trailer), declared="STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        content_encoding="aws-chunked", x_amz_decoded_content_length=str(len(data) if length is None else length),
        x_amz_trailer="x-amz-checksum-crc32c",
    )  # fmt: skip


def test_a_chunked_body_is_stored_without_its_framing(s3: Any, raw: Raw) -> None:
    data = os.urandom(100_000)
    assert send_framed(raw, data, f"x-amz-checksum-crc32c:{checksums.of('CRC32C', data)}")[0] == 200
    found = s3.get_object(Bucket=BUCKET, Key="k", ChecksumMode="ENABLED")
    assert body_of(found) == data and found["ChecksumCRC32C"] == checksums.of("CRC32C", data)
    assert "ContentEncoding" not in found


@pytest.mark.parametrize(
    ("trailer", "length", "code"),
    [
        ("x-amz-checksum-crc32c:AAAAAA==", None, b"BadDigest"),
        ("x-amz-checksum-crc32c:AAA=", None, b"InvalidRequest"),
        ("", None, b"MalformedTrailerError"),
        ("x-amz-checksum-crc32c:AAAAAA==", 99_999, b"IncompleteBody"),
        ("x-amz-checksum-crc32c:AAAAAA==", 100_001, b"IncompleteBody"),
    ],
)
def test_a_chunked_body_that_is_not_right_is_not_stored(
    s3: Any, raw: Raw, trailer: str, length: int | None, code: bytes
) -> None:
    status, answer = send_framed(raw, b"a" * 100_000, trailer, length)
    assert status == 400 and b"<Code>" + code + b"</Code>" in answer
    assert s3.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
    assert list(raw.server.lab.objects.blobs.glob("*/*")) == []


def test_a_connection_that_ends_early_stores_nothing(s3: Any, server: S3Server) -> None:
    url = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "k"})
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    connection.putrequest("PUT", url.removeprefix(server.url))
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(b"x" * 300_000)
    connection.close()
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="after", Body=b"")  # the server is well


@pytest.mark.parametrize(
    "body",
    [
        b"<not xml", b"\xff\xfe\x00", b"<Tagging/>", b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]>"
        b"<Tagging><TagSet><Tag><Key>&b;</Key><Value/></Tag></TagSet></Tagging>", b"", b"[]" * 10, b"<a>" * 100_000,
    ],
)  # fmt: skip
def test_malformed_xml_is_a_clear_400(raw: Raw, body: bytes) -> None:
    status, answer = raw.send("PUT", f"/{BUCKET}?tagging", body)
    assert status == 400 and b"<Code>MalformedXML</Code>" in answer and b"root:" not in answer


def test_a_document_without_end_is_refused(raw: Raw) -> None:
    status, answer = raw.send("PUT", f"/{BUCKET}?tagging", b"<a>" + b" " * (9 * MB))
    assert status == 400 and b"<Code>MaxMessageLengthExceeded</Code>" in answer


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/{BUCKET}?max-keys=-1", 400, b"InvalidArgument"),
        ("GET", f"/{BUCKET}?max-keys=many", 400, b"InvalidArgument"),
        ("GET", f"/{BUCKET}?list-type=2&encoding-type=rot13", 400, b"InvalidArgument"),
        ("GET", f"/{BUCKET}?prefix=%FF", 400, b"InvalidURI"),
        ("GET", f"/{BUCKET}?versions&version-id-marker=x", 400, b"InvalidArgument"),
        ("POST", f"/{BUCKET}", 405, b"MethodNotAllowed"),
        ("PATCH", f"/{BUCKET}/k", 405, b"MethodNotAllowed"),
        ("DELETE", "/", 405, b"MethodNotAllowed"),
        ("PUT", f"/{BUCKET}/k?partNumber=1&uploadId=none", 404, b"NoSuchUpload"),
        ("PUT", f"/{BUCKET}/k?partNumber=zero&uploadId=none", 400, b"InvalidArgument"),
        ("GET", "/no-such-bucket/k", 404, b"NoSuchBucket"),
        ("GET", f"/{BUCKET}/nothing", 404, b"NoSuchKey"),
        ("GET", f"/{BUCKET}?metrics", 501, b"NotImplemented"),
    ],
)
def test_odd_requests_get_s3s_own_errors(raw: Raw, method: str, path: str, status: int, code: bytes) -> None:
    found, answer = raw.send(method, path)
    assert found == status and b"<Code>" + code + b"</Code>" in answer and b"<RequestId>" in answer


def test_max_keys_0_and_more_than_1000(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"")
    none = s3.list_objects_v2(Bucket=BUCKET, MaxKeys=0)
    assert none["KeyCount"] == 0 and not none["IsTruncated"]
    assert s3.list_objects_v2(Bucket=BUCKET, MaxKeys=5000)["MaxKeys"] == 1000


def test_a_listing_without_encoding_is_escaped(raw: Raw, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="a&<b>\r", Body=b"")
    status, answer = raw.send("GET", f"/{BUCKET}?prefix={quote('a&')}")
    assert status == 200 and b"<Key>a&amp;&lt;b&gt;&#xd;</Key>" in answer


# Memory and kills.


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """S3 in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(tmp_path)]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    yield running, running.stdout.readline().strip()
    running.kill()
    running.wait()


class Zeros(io.RawIOBase):
    """Many bytes that take no memory."""

    def __init__(self, size: int) -> None:
        self.left = self.size = size

    def read(self, size: int = -1, /) -> bytes:
        count = min(self.left, size if size >= 0 else self.left)
        self.left -= count
        return bytes(count)

    def readable(self) -> bool:
        return True


def put_stream(s3: Any, url: str, key: str, size: int) -> None:
    """A plain PUT of many bytes, presigned: boto3 itself would read it twice."""
    signed = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": key})
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    source = Zeros(size)
    connection.request(
        "PUT", signed.removeprefix(url), iter(lambda: source.read(MB), b""), {"Content-Length": str(size)}
    )
    response = connection.getresponse()
    assert response.status == 200, response.read()
    connection.close()


def test_a_large_object_goes_up_and_down_in_little_memory(process: tuple[subprocess.Popen[str], str]) -> None:
    running, url = process
    s3, size = client(url), 192 * MB
    put_stream(s3, url, "plain", size)
    config = TransferConfig(multipart_threshold=8 * MB, multipart_chunksize=16 * MB, max_concurrency=2)
    s3.upload_fileobj(Zeros(size), BUCKET, "parts", Config=config)
    s3.copy_object(Bucket=BUCKET, Key="copy", CopySource=f"{BUCKET}/parts")
    for key in ("plain", "parts", "copy"):
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"]
        assert sum(len(piece) for piece in body.iter_chunks(MB)) == size
    peak = int(running.communicate(timeout=30)[0])
    assert peak < 150 * MB


def test_a_server_killed_in_mid_put_keeps_what_it_acknowledged(
    process: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    running, url = process
    s3 = client(url)
    for number in range(20):
        s3.put_object(Bucket=BUCKET, Key=f"k{number}", Body=str(number).encode() * 1000)
    signed = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "half"})
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.putrequest("PUT", signed.removeprefix(url))
    connection.putheader("Content-Length", str(40 * MB))
    connection.endheaders(b"x" * 20 * MB)
    running.kill()
    running.wait()
    connection.close()
    with serving(tmp_path) as again:
        after = client(again.url)
        assert after.list_objects_v2(Bucket=BUCKET)["KeyCount"] == 20
        for number in range(20):
            assert body_of(after.get_object(Bucket=BUCKET, Key=f"k{number}")) == str(number).encode() * 1000
        assert sum(1 for _ in again.lab.objects.blobs.glob("*/*")) == 20
