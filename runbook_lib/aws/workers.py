"""Who asks S3? Processes with a `listing_worker`, or threads of ours for a few keys.

They are given jobs and send blocks, which are read here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, cast
from urllib.parse import urlsplit

from botocore.httpsession import get_cert_path

from ..errors import AccessDenied, AwsError, CredentialsExpired
from ..inventory.blocks import Block, read_blocks
from . import listing_process, listing_worker
from .client import Session
from .wire import Door

ERRORS: dict[str, type[AwsError]] = {"denied": AccessDenied, "expired": CredentialsExpired}
OPERATIONS = {
    "LIST": "ListObjectsV2", "HEAD": "HeadObject", "GET": "GetObject", "ATTRIBUTES": "GetObjectAttributes",
}  # fmt: skip
SCOPE = re.compile(r"Credential=[^/]+/\d+/([^/]+)/")
BEAT = 0.5  # seconds between two looks at the progress
LINGER = 2.0  # seconds that a thread which is stopped has to end
# glibc: an arena for each thread would keep what each once needed; a page's memory is used again, not given back.
MEMORY = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}
Job = dict[str, Any]


@dataclass(frozen=True)
class ListOptions:
    """How many at once, and how gently."""

    processes: int = 2
    connections: int = 16  # of each process, at most
    requests_per_second: float | None = None  # all processes together; None: as fast as it goes
    timeout: float = 60.0  # seconds without a byte
    method: str = "pages"  # or boto3: its own paginator, twenty times slower
    range_keys: int = 19_900  # of a range at most, as the source has them: a little less than 20 pages
    pages: int = 50  # of a range at most; what is left of it is cut again


USUAL = ListOptions()


def door(session: Session, region: str, bucket: str, prefix: str, options: ListOptions) -> Door:
    """Where boto3 itself would ask: one LIST of one key says so, and whether it is allowed; once for a session."""
    if prefix and not prefix.endswith("/"):
        raise AwsError(f"The prefix {prefix!r} of s3://{bucket} does not end in '/'. Add it: a folder is meant.")
    place = (region, bucket, prefix)
    if place not in session.places:
        session.places[place] = _place(session, region, bucket, prefix)
        session.count({"LIST": 1})
    url, proxy = session.places[place]
    ca = session.ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or str(get_cert_path(True))
    return Door(
        url, bucket, region, ca, proxy or None, options.connections, options.requests_per_second, options.timeout
    )


def _place(session: Session, region: str, bucket: str, prefix: str) -> tuple[str, str]:
    """The address of a bucket, and the proxy on the way there ('' for none), as boto3 takes them."""
    client = session.client("s3", region)
    sent: list[tuple[str, str]] = []
    mine = threading.get_ident()  # another thread may ask another bucket meanwhile

    def look(request: Any, **_: Any) -> None:
        if threading.get_ident() != mine:
            return
        authorization = request.headers.get("Authorization", b"")
        text = authorization.decode() if isinstance(authorization, bytes) else authorization
        sent.append((request.url, text))

    client.boto.meta.events.register("before-send.s3", look)
    try:
        client.look("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    finally:
        client.boto.meta.events.unregister("before-send.s3", look)
    at, signed = urlsplit(sent[-1][0]), SCOPE.search(sent[-1][1])
    if signed and signed[1] != region:
        raise AwsError(f"s3://{bucket} is in {signed[1]}, it was asked in {region}. Correct the environment's regions.")
    url = f"{at.scheme}://{at.netloc}{at.path.rstrip('/')}"
    return url, "" if session.endpoint_url else _proxy(at.scheme, at.netloc)


def _proxy(scheme: str, host: str) -> str:
    return "" if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme, "")


def sent(counts: Mapping[str, int]) -> int:
    """Requests sent: neither what S3 asked of KMS for them, nor the pauses before some."""
    return sum(counts[kind] for kind in OPERATIONS if kind in counts)


class Workers:
    """Workers at one door; `processes` 0: threads of this process, for a few keys."""

    def __init__(self, session: Session, door: Door, processes: int, slots: int) -> None:
        """`slots` is how many jobs a worker is given at once; they share the door's requests per second.

        What they send is added to the session's `asked`.
        """
        self._session, self._slots = session, slots
        rate = door.requests_per_second
        self._door = replace(door, requests_per_second=rate / max(1, processes)) if rate else door
        self._processes = processes
        self._lock = threading.RLock()
        self._ended = threading.Condition(self._lock)
        self._more: deque[Job] = deque()
        self._jobs: Iterator[Job] = iter(())
        self._handle: Callable[[Block], Iterable[Job]] = lambda block: ()
        self._open: list[_Worker] = []
        self._failed: BaseException | None = None
        self._stopped = False

    def run(
        self,
        jobs: Iterable[Job],
        handle: Callable[[Block], Iterable[Job]],
        beat: Callable[[Counter[str]], None] = lambda counts: None,
    ) -> Counter[str]:
        """Have the jobs done; `handle` is given each block, by several threads, and may return more jobs.

        Returns how many requests of each kind were sent.
        """
        self._jobs, self._handle, self._stopped = iter(jobs), handle, False
        self._open = [_Worker(self._door, self._processes > 0) for _ in range(max(1, self._processes))]
        threads = [threading.Thread(target=self._read, args=(worker,), daemon=True) for worker in self._open]
        try:
            self._feed()
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) and self._failed is None:
                with self._ended:
                    self._ended.wait(BEAT)
                beat(self._counts())
        finally:
            with self._lock:
                self._stopped = True
            for worker in self._open:
                worker.stop()
            for worker, thread in zip(self._open, threads, strict=True):
                if thread.ident is not None:
                    thread.join(None if self._processes else LINGER)
                if not thread.is_alive():  # else a thread of ours waits for S3, asks nothing more, and ends by itself
                    worker.close()
            self._record()
        if self._failed is not None:
            raise self._failed
        beat(self._counts())
        return self._counts()

    def _counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for worker in self._open:
            total.update(worker.requests)
        return total

    def _record(self) -> None:
        self._session.count(self._counts())
        for kind, count in sorted(self._counts().items()):
            if kind in OPERATIONS and count:
                self._session.record("aws-calls", service="s3", operation=OPERATIONS[kind], count=count, changes=False)

    def _feed(self) -> None:
        """Give each worker as many jobs as it should have; close it when there will be no more."""
        with self._lock:
            for worker in () if self._stopped else self._open:
                while worker.outstanding < self._slots and (job := self._next()) is not None:
                    worker.give({**job, "credentials": self._session.frozen_credentials()})
            if all(worker.outstanding == 0 for worker in self._open):
                for worker in self._open:
                    worker.no_more()

    def _next(self) -> Job | None:
        return self._more.popleft() if self._more else next(self._jobs, None)

    def _read(self, worker: _Worker) -> None:
        """One worker's blocks until it ends."""
        try:
            for block in read_blocks(cast(BinaryIO, worker.out)):
                if "refused" in block.facts:
                    kind = ERRORS.get(block.facts["kind"], AwsError)
                    raise kind(block.facts["refused"], code=block.facts["code"])
                if block.end:
                    worker.requests = Counter(block.facts.pop("requests"))
                if self._stopped:
                    return
                more = list(self._handle(block))
                with self._lock:
                    self._more += more
                    worker.outstanding -= block.end
                if block.end:
                    self._feed()
        except BaseException as error:  # raised again by `run`, in the caller's thread
            with self._lock:
                if self._failed is None:
                    self._failed = error
                    if said := worker.last_words():
                        error.add_note(said)
        finally:
            with self._ended:
                self._ended.notify_all()


class _Worker:
    """A process of its own, or a thread that speaks the same way."""

    def __init__(self, door: Door, process: bool) -> None:
        self.outstanding = 0
        self.requests: Counter[str] = Counter()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        self._lines: IO[bytes]
        self.out: IO[bytes]
        if process:
            self._start()
        else:
            self._begin()
        self._lines.write(json.dumps(asdict(door)).encode() + b"\n")

    def _start(self) -> None:
        path = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", listing_process.__name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._said, env={**os.environ, "PYTHONPATH": path, **MEMORY},
        )  # fmt: skip
        assert self._process.stdin is not None and self._process.stdout is not None
        self._lines, self.out = self._process.stdin, self._process.stdout

    def _begin(self) -> None:
        jobs, ours = os.pipe()
        blocks, theirs = os.pipe()
        self._lines, self.out = os.fdopen(ours, "wb"), os.fdopen(blocks, "rb")

        def serve() -> None:
            with suppress(BrokenPipeError), os.fdopen(jobs, "rb") as lines, os.fdopen(theirs, "wb") as out:
                listing_worker.run(lines, out, self._stopped)

        threading.Thread(target=serve, daemon=True).start()

    def give(self, job: Job) -> None:
        """One more job; one that is gone does not hear of it, and whoever reads its answers says so."""
        self.outstanding += 1
        with suppress(BrokenPipeError):
            self._lines.write(json.dumps(job).encode() + b"\n")
            self._lines.flush()

    def no_more(self) -> None:
        """Let it end when its jobs are done."""
        if not self._lines.closed:
            self._lines.close()

    def stop(self) -> None:
        """Have it do nothing more; a process that still has jobs is killed."""
        self._stopped.set()
        if self._process is not None and self.outstanding:
            self._process.kill()
        with suppress(BrokenPipeError):  # it is gone
            self.no_more()

    def close(self) -> None:
        """Leave nothing open; a thread that still has jobs ends when it writes."""
        if self._process is not None:
            self._process.wait()
        self.out.close()
        self._said.close()

    def last_words(self) -> str:
        """What a process wrote to its standard error."""
        self._said.seek(0)
        return self._said.read()[-2000:].decode(errors="replace")
