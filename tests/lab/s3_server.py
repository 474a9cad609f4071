"""The lab's S3 on a real port and nothing else; as a program it prints its URL, and its peak memory when stdin ends."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.config

from runbook_lib.lab.control import SilentBus
from runbook_lib.lab.core import CLOUD_REGION, Folder, Lab
from runbook_lib.lab.front import Front
from runbook_lib.lab.moto_bridge import Moto
from runbook_lib.lab.s3 import S3
from runbook_lib.lab.server import Server

ACCESS_KEY = "AKIAQWERTYUIOPASDFGH"
SECRET_KEY = "a-secret-of-the-tests-and-of-nothing-else"
BUCKET = "migration-lab"


@dataclass(frozen=True)
class S3Server:
    """Where it listens, and the lab behind it."""

    url: str
    lab: Lab


@contextmanager
def serving(folder: Path) -> Iterator[S3Server]:
    """S3 over a state folder, with a bucket."""
    lab = Lab(Folder(folder), SilentBus())
    lab.objects.recover()
    if lab.objects.bucket(BUCKET) is None:
        lab.objects.create_bucket(BUCKET, CLOUD_REGION)
    front = Front(ACCESS_KEY, SECRET_KEY, {}, S3(lab), Moto(ACCESS_KEY, SECRET_KEY), lambda verb, parameters: None)
    server = Server(front, 0)
    url = server.listen()
    server.run()
    try:
        yield S3Server(url, lab)
    finally:
        server.stop()


def client(url: str, **options: Any) -> Any:
    """A boto3 client that does not retry."""
    config = botocore.config.Config(retries={"max_attempts": 0}, proxies={}, max_pool_connections=20)
    keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "config": config}
    return boto3.client("s3", region_name=CLOUD_REGION, endpoint_url=url, **{**keys, **options})


def peak_memory() -> int:
    """This process's largest resident set so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: ru_maxrss would count the process that started this one, too
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    with serving(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())) as s3:
        print(s3.url, flush=True)
        sys.stdin.read()
        print(peak_memory(), flush=True)
