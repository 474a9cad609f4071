"""What is measured of inventories, each in a process of its own: `python -m tests.benchmarks.inventory_work NAME …`.

Prints one line of JSON: seconds and CPU-seconds (`wall`, `cpu`, children included) of every step after import, and
what the comparison found.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REGION, BUCKET = "eu-central-1", "bucket"
KEYS = ("AKIAQWERTYUIOPASDFGH", "a-secret-of-the-benchmark")
BOTO3_KEYS = 50_000
said: dict[str, Any] = {}


@contextmanager
def step(name: str) -> Iterator[None]:
    """Keep what a step cost."""
    began, before = time.monotonic(), _cpu()
    yield
    said[name] = {"wall": round(time.monotonic() - began, 3), "cpu": round(_cpu() - before, 3)}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def whole(tree: str, url: str, folder: str, threads: str, processes: str) -> None:
    """Scan and list, compare by size; the inventories are written."""
    from runbook_lib.at_once import at_once
    from runbook_lib.inventory.merge import compare
    from runbook_lib.inventory.rules import Rules

    with step("after import"):
        with step("scan and list"):
            source, bucket = at_once(
                lambda planned, told: _scanned(tree, Path(folder) / "source", int(processes), planned, told),
                lambda keys, told: _listed(url, Path(folder) / "bucket", keys, int(threads), told),
                lambda said: None,
            )
        with step("compare"):
            found = compare(source, bucket, level="size", rules=Rules(), out=Path(folder) / "differences")
    said["files"] = found.files
    said["parquet"] = str(found.parquet)


def lists(url: str, folder: str, inventory: str) -> None:
    """LIST alone, its ranges cut from an inventory of the source."""
    from runbook_lib.inventory.store import Inventory

    with step("list"):
        said["keys"] = _listed(url, Path(folder), Inventory.open(Path(inventory)), 16).rows


def boto3_lists(url: str) -> None:
    """LIST alone by the stock paginator, of the first keys: each costs the same. The entries are thrown away."""
    import boto3

    client = boto3.client(
        "s3", region_name=REGION, endpoint_url=url, aws_access_key_id=KEYS[0], aws_secret_access_key=KEYS[1]
    )
    with step("list"):
        asked = client.get_paginator("list_objects_v2")
        pages = asked.paginate(Bucket=BUCKET, PaginationConfig={"MaxItems": BOTO3_KEYS})
        said["keys"] = sum(len(page["Contents"]) for page in pages)


def compares(folder: str) -> None:
    """Two inventories that are there, by size."""
    from runbook_lib.inventory.merge import compare
    from runbook_lib.inventory.rules import Rules
    from runbook_lib.inventory.store import Inventory

    sides = [Inventory.open(Path(folder) / name) for name in ("source", "bucket")]
    with step("compare"):
        found = compare(*sides, level="size", rules=Rules(), out=Path(folder) / "differences")
    said["counts"] = {count.difference: count.lines for count in found.counts}


def fills(folder: str) -> None:
    """Checksums of all files, filled into two inventories: what comes back from both ends is made up, 64 at a time."""
    import pyarrow as pa

    from runbook_lib.digesting import Beat, Reading, Wanted, digested
    from runbook_lib.inventory.schema import SCHEMA
    from runbook_lib.inventory.store import Inventory
    from runbook_lib.scanning import DIGEST

    schema = pa.schema([SCHEMA.field(name) for name in DIGEST])

    def made_up(wanted: Sequence[Wanted], beat: Beat) -> Iterator[pa.RecordBatch]:
        for at in range(0, len(wanted), 64):
            rows = [
                {"key": key, "size": 5, "mtime_ns": 1, "checksum_algorithm": algorithm, "checksum_type": "FULL_OBJECT",
                 "checksum": "c" * 64} for key, algorithm, _ in wanted[at : at + 64]
            ]  # fmt: skip
            yield pa.RecordBatch.from_pylist(rows, schema=schema)

    sides = [Inventory.open(Path(folder) / name) for name in ("source", "bucket")]
    with tempfile.TemporaryDirectory(dir=folder) as sums, step("fill"):
        reading = Reading(made_up, made_up, lambda keys: {}, {"SHA256"}, "SHA256")
        said["files"] = digested(*sides, Path(sums), reading)[0].facts["read"]


def joins(folder: str) -> None:
    """The same by DuckDB: the repository's statement, and a bare outer join by size."""
    import duckdb

    from runbook_lib.inventory.sql import on_duckdb
    from runbook_lib.inventory.store import Inventory

    source, bucket = (Inventory.open(Path(folder) / name) for name in ("source", "bucket"))
    with step("bare join"), duckdb.connect() as memory:
        sides = [memory.read_parquet([str(path) for path in each.files]) for each in (source, bucket)]
        for name, side in zip("so", sides, strict=True):
            side.create_view(name)
        differing = "select count(*) from s full outer join o using (key) where s.size is distinct from o.size"
        ((said["bare"],),) = memory.sql(differing).fetchall()
    with step("join.sql"):
        said["found"] = sum(
            batch.num_rows for batch in on_duckdb(source, bucket, memory="4GB", spill=Path(folder) / "spill")
        )


def hashes(tree: str, processes: str) -> None:
    """CRC64NVME of every file of a folder, as the content level asks for them; against one core, and a bare read."""
    from awscrt import checksums

    from runbook_lib.hosts import ProcessHost
    from runbook_lib.scanning import ScanOptions, digests

    paths = sorted(Path(tree).iterdir())
    total = sum(path.stat().st_size for path in paths)
    buffer = bytearray(8 << 20)
    with step("checksum"):
        for _ in range(total // len(buffer)):
            checksums.crc64nvme(buffer)
    host, options = ProcessHost("localhost", lambda: None), ScanOptions(processes=int(processes), nice=0)
    wanted: list[tuple[str, str, tuple[int, ...]]] = [(path.name, "CRC64NVME", ()) for path in paths]
    for state in ("disk", "memory"):
        if state == "disk":
            _forget(paths)
        with step(f"read from {state}"):
            for path in paths:
                _read(path, buffer)
        if state == "disk":
            _forget(paths)
        with step(f"digests from {state}"):
            rows = sum(batch.num_rows for batch in digests(host, tree, wanted, options))
        assert rows == len(paths)
    said["bytes"] = total


def _read(path: Path, buffer: bytearray) -> None:
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _forget(paths: list[Path]) -> None:
    """Have the next read come from the disk, where the system can be asked for that."""
    for path in paths if hasattr(os, "posix_fadvise") else ():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _scanned(tree: str, folder: Path, processes: int, planned: Any, told: Any) -> Any:
    from runbook_lib.hosts import ProcessHost
    from runbook_lib.scanning import ScanOptions, scan

    host, options = ProcessHost("localhost", lambda: None), ScanOptions(processes=processes, nice=0)
    return scan(host, tree, folder, side="source", options=options, progress=told, planned=planned)


def _listed(url: str, folder: Path, keys: Any, threads: int, told: Any = None) -> Any:
    from runbook_lib.aws.client import Credentials, Session
    from runbook_lib.aws.listing import ListOptions, list_bucket

    session = Session(
        record=lambda kind, **fields: None, endpoint_url=url, credentials=Credentials(*KEYS), home_region=REGION
    )
    options = ListOptions(connections=threads)
    return list_bucket(session, REGION, BUCKET, "", folder, cut_from=keys, options=options, progress=told)


WORK: dict[str, Callable[..., None]] = {
    "whole": whole, "lists": lists, "boto3": boto3_lists, "compares": compares, "fills": fills, "joins": joins,
    "hashes": hashes,
}  # fmt: skip

if __name__ == "__main__":
    WORK[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(said))
