"""How fast is the lab's S3, and how little memory does it need? Prints figures.

Measured through boto3 and real HTTP against a server in a process of its own: 5 GB up in one PUT and in parts, down
again, its completion; LIST of 10,000 keys; the object store's own commit and list without HTTP.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig

from runbook_lib.lab.database import Database
from runbook_lib.lab.objects import NewObject, ObjectStore
from tests.lab import s3_server
from tests.lab.s3_server import BUCKET, client
from tests.lab.test_s3 import Zeros, put_stream

MB, GB = 1 << 20, 1 << 30


@contextmanager
def timed(what: str, size: int = 0) -> Iterator[None]:
    """Prints how long the block took."""
    began = time.perf_counter()
    yield
    took = time.perf_counter() - began
    rate = f", {size / took / MB:,.0f} MB/s" if size else ""
    print(f"{what:<62} {took:8.3f} s{rate}", flush=True)


def store_alone(folder: Path) -> None:
    """The object store without HTTP."""
    store = ObjectStore(Database(folder / "lab.sqlite"), folder / "blobs")
    store.create_bucket(BUCKET, "eu-central-1")
    metadata = {"file-mtime": "1700000000123ms", "file-owner": "0", "file-group": "0", "file-permissions": "0644"}
    data = b"x" * 4096
    for batch in range(20):
        blobs = [store.stage(data) for _ in range(500)]
        objects = [NewObject(BUCKET, f"{batch:02}/{n:04}", blob, metadata) for n, blob in enumerate(blobs)]
        if batch == 19:
            with timed("store: commit of 500 new objects in one transaction"):
                store.commit(objects)
        else:
            store.commit(objects)
    with timed("store: list of 10,000"):
        assert sum(1 for _ in store.list(BUCKET)) == 10_000


def lists(s3: Any) -> None:
    """LIST of 10,000 keys, raw and parsed."""
    with timed("LIST of 10,000 keys through boto3's paginator"):
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        assert sum(page["KeyCount"] for page in pages) == 10_000


def large(s3: Any, url: str, size: int) -> None:
    """One large object every way."""
    with timed(f"PUT of {size / GB:.1f} GB", size):
        put_stream(s3, url, "plain", size)
    with timed(f"multipart upload of {size / GB:.1f} GB in parts of 64 MB (boto3, 2 threads)", size):
        config = TransferConfig(multipart_threshold=64 * MB, multipart_chunksize=64 * MB, max_concurrency=2)
        s3.upload_fileobj(Zeros(size), BUCKET, "parts", Config=config)
    completion(s3, size)
    for key in ("plain", "parts"):
        with timed(f"GET of {size / GB:.1f} GB ({key})", size):
            body = s3.get_object(Bucket=BUCKET, Key=key)["Body"]
            assert sum(len(piece) for piece in body.iter_chunks(MB)) == size


def completion(s3: Any, size: int) -> None:
    """CompleteMultipartUpload alone, of parts that were copied on the server."""
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="completed")["UploadId"]
    where = {"Bucket": BUCKET, "Key": "completed", "UploadId": upload}
    step, parts = 512 * MB, []
    for number, start in enumerate(range(0, size, step), 1):
        span = f"bytes={start}-{min(start + step, size) - 1}"
        part = s3.upload_part_copy(**where, PartNumber=number, CopySource=f"{BUCKET}/plain", CopySourceRange=span)
        parts.append({"PartNumber": number, "ETag": part["CopyPartResult"]["ETag"]})
    with timed(f"CompleteMultipartUpload of {size / GB:.1f} GB in {len(parts)} parts"):
        s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    s3.delete_object(Bucket=BUCKET, Key="completed")


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    size = int(parser.parse_args().gigabytes * GB)
    with tempfile.TemporaryDirectory() as folder:
        store_alone(Path(folder))
        command = [sys.executable, s3_server.__file__, folder]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            s3 = client(url)
            lists(s3)
            large(s3, url, size)
            print(f"{'the server’s peak resident memory':<62} {int(server.communicate(timeout=60)[0]) / MB:6.0f} MB")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
