"""What asks S3: jobs come in as JSON lines, blocks of columns go out; no boto3, no pyarrow, little memory.

A process of its own (`listing_process`), or for a few keys threads of ours.

The first line says where (`wire.Door`); each job brings fresh credentials, so that hours outlive an assumed role's one.
Jobs: `keys`, the keys after one, up to another, `pages` at most; `cuts`, where the folders beside a key begin; `head`,
the rows of keys; `content`, the same with the bytes read and hashed; `parts`, the sizes of an upload's parts.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from operator import lt
from typing import Any, BinaryIO

from botocore.credentials import ReadOnlyCredentials

from ..inventory.encoding import begin, end_of_shard, end_of_stream, say
from .content import hashed
from .object_headers import Row, archived, encoded, row_of
from .pages import Page, Rows, read, up_to
from .parts import Parts
from .wire import Door, Refused, Wire, attempts

ROWS = 10_000  # of a block, at least, but for a range's last: what each range holds …
HELD = 96_000  # … and all of them together
FEWEST = 4  # ranges at a time
SPARE = 2  # pages that may wait to be parsed
LATEST = 40  # pages by which the gate goes …
MANY = 100  # … that have so many keys
AT_ONCE = 2_048  # rows of a block of HEADs
LONGEST_TARGET = 4096  # bytes; PATH_MAX
TO_HEAD = "unreadable: HTTP"  # how the row of a key begins to say that S3 does not show it, and the status after it
BEAT = 0.5  # seconds between two words about bytes read
ALL_DENIED = 20  # so many keys and all of them denied: that is no matter of one object


class Gate:
    """How many ranges are listed at a time: as many as it takes that there is always a page to be parsed, no more.

    A far endpoint needs many; a near one needs few, and what more of them would hold is saved. So many as pages can be
    parsed while one is away: by the quicker ones of the latest, as many a page waits for this process itself.
    """

    def __init__(self, most: int) -> None:
        self._most, self._fewest = most, min(FEWEST, most)
        self.limit = self._fewest
        self._inside = 0
        self._away: deque[float] = deque(maxlen=LATEST)  # seconds from request to answer
        self._each: deque[float] = deque(maxlen=LATEST)  # seconds of parsing for a key
        self._keys = 0  # of a whole page
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._inside < self.limit)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify()

    def saw(self, away: float, parsing: float, keys: int) -> None:
        """A page of so many keys took so many seconds to come, and to be parsed."""
        if keys < MANY:
            return
        with self._changed:
            self._away.append(away)
            self._each.append(parsing / keys)
            self._keys = max(self._keys, keys)
            wanted = _quick(self._away) / max(_quick(self._each) * self._keys, 1e-6) + SPARE
            self.limit = max(self._fewest, round(min(wanted, self._most)))
            self._changed.notify_all()


def _quick(seconds: Collection[float]) -> float:
    """A tenth of them are less."""
    return sorted(seconds)[len(seconds) // 10]


class Worker:
    """One bucket's connections, and the jobs that are done with them."""

    def __init__(self, door: Door, write: Callable[[bytes], None], stopped: threading.Event) -> None:
        self.wire = Wire(door, stopped=stopped)
        self._stopped = stopped
        self._parts = Parts(self.wire)
        self._write = write
        self._gate = Gate(door.connections)
        self._reading = threading.Lock()  # one page is parsed at a time: a page's tree is ten times its text
        self._requests = ThreadPoolExecutor(door.connections)
        self._jobs = ThreadPoolExecutor(door.connections)
        self._counting = threading.Lock()
        self._bytes, self._beaten = 0, time.monotonic()

    def serve(self, lines: BinaryIO) -> None:
        """Do jobs until there are no more: all were answered then, or who gave them is gone."""
        for line in lines:
            job = json.loads(line)
            self.wire.credentials = ReadOnlyCredentials(*job.pop("credentials"))
            self._jobs.submit(self._done, job)
        self._stopped.set()
        self._jobs.shutdown()
        self._requests.shutdown()

    def _done(self, job: dict[str, Any]) -> None:
        shard = job.pop("shard")
        try:
            facts = getattr(self, job.pop("do"))(shard, **job)
            self._write(end_of_shard(shard, requests=dict(self.wire.counts), **facts))
        except Refused as refused:
            self._write(say(shard, refused=str(refused), kind=refused.kind, code=refused.code))
        except Exception as error:  # whatever it is, the other side has to hear of it
            self._write(say(shard, refused=f"{type(error).__name__}: {error}. Report this.", kind="other", code=""))
            raise

    def keys(self, shard: str, prefix: str, after: str, last: str | None, pages: int | None) -> dict[str, Any]:
        """Keys after one, up to and with another; `left` is what it left over after so many pages."""
        with self._gate:
            return self._keys(shard, prefix, after, last, pages)

    def _keys(self, shard: str, prefix: str, after: str, last: str | None, pages: int | None) -> dict[str, Any]:
        rows, token, done, reached = Rows(), None, 0, after
        while True:
            page = self._page(prefix, token, **({"start-after": prefix + after} if prefix + after else {}))
            if page.keys and (page.keys[0] <= reached or not all(map(lt, page.keys, page.keys[1:]))):
                raise Refused(
                    f"LIST of s3://{self.wire.door.bucket}/{prefix} gives keys that are not in UTF-8 order: a page "
                    f"begins with {page.keys[0]!r}, after {reached!r}. A directory bucket lists so, and an endpoint "
                    "that does not go on where its continuation token says. Use a general purpose bucket, and ask S3 "
                    "itself, not what is before it; or name an S3 Inventory."
                )
            beyond = up_to(page, last)
            reached = page.keys[-1] if page.keys else reached
            rows.add(page)
            token, done = page.token, done + 1
            ended = beyond or token is None
            enough = pages is not None and done >= pages and reached != after  # S3 may answer pages without keys
            if rows.count and (ended or rows.count >= self._enough() or enough):
                self._write(rows.encoded(shard))
                rows = Rows()
            if ended:
                return {"after": after, "last": last}
            if enough:
                return {"after": after, "last": reached, "left": [reached, last]}

    def cuts(self, shard: str, prefix: str, after: str, last: str | None, wanted: int) -> dict[str, Any]:
        """Keys after `after` that cut what follows: where the folders begin that lie beside those it is in."""
        found: set[str] = set()
        above = [after[: at + 1] for at, letter in enumerate(after) if letter == "/"]
        for folder in ["", *above]:
            begin_at = prefix + (after or "")
            query = {"delimiter": "/"} | ({"start-after": begin_at} if begin_at else {})
            page = self._page(prefix + folder, None, **query)
            names = (folder + name for name in page.folders)
            found |= {name for name in names if name > after and (last is None or name < last)}
            if len(found) >= wanted:
                break
        return {"cuts": sorted(found), "after": after, "last": last}

    def _enough(self) -> int:
        return min(ROWS, HELD // self._gate.limit)

    def _page(self, prefix: str, token: str | None, **query: str) -> Page:
        query = {"encoding-type": "url", "prefix": prefix, **query}
        if token is not None:
            query = {name: value for name, value in query.items() if name != "start-after"}
            query["continuation-token"] = token
        # An error that comes as a page, and a page that is not whole, are found by reading it: asked again from here.
        what = f"LIST of s3://{self.wire.door.bucket}/{prefix}"

        def once() -> Page:
            asked = time.monotonic()
            body = self.wire.page(**query)
            away = time.monotonic() - asked
            with self._reading:
                began = time.monotonic()
                page = read(body, prefix, self.wire.door)
                self._gate.saw(away, time.monotonic() - began, len(page.keys))
                return page

        return attempts(once, self.wire.again, what)

    def head(self, shard: str, prefix: str, keys: list[str], computable: list[str] | None) -> dict[str, Any]:
        """Rows of keys as HEAD shows them, in the order given; what is gone has none."""
        return self._rows(shard, prefix, [(key, None) for key in keys], computable)

    def content(self, shard: str, prefix: str, wanted: list[tuple[str, str]]) -> dict[str, Any]:
        """The same with the bytes read, and hashed with the algorithm given."""
        return self._rows(shard, prefix, wanted)

    def _rows(self, shard: str, prefix: str, wanted: list[Any], computable: list[str] | None = None) -> dict[str, Any]:
        size = max(1, min(32, len(wanted) // self.wire.door.connections))
        some = [wanted[at : at + size] for at in range(0, len(wanted), size)]
        denied, gone, rows, doubtful = 0, 0, list[Row](), False
        for found in self._requests.map(
            lambda few: [self._row(prefix, key, algorithm, computable) for key, algorithm in few], some
        ):
            here = [row for row in found if row is not None]
            gone += len(found) - len(here)
            refused = [row["problem"] for row in here if row.get("problem", "").startswith(TO_HEAD)]
            if refused and not doubtful:
                self._sure(prefix)
            doubtful = doubtful or bool(refused)
            denied += sum(problem.startswith(f"{TO_HEAD} 403") for problem in refused)
            rows += here
            if len(rows) >= AT_ONCE:
                self._write(encoded(shard, rows))
                rows = []
        if doubtful:
            self._sure(prefix)
        if denied == len(wanted) >= ALL_DENIED:
            raise Refused(
                f"HEAD of each of {denied} keys of s3://{self.wire.door.bucket}/{prefix} was denied. It needs "
                "s3:GetObject (and kms:Decrypt for SSE-KMS); `runbook doctor --iam` prints the policy.",
                kind="denied",
            )
        if rows:
            self._write(encoded(shard, rows))
        return {"gone": gone}

    def _sure(self, prefix: str) -> None:
        """Raise what is wrong with every request, such as expired credentials: a refused HEAD has no body to say it."""
        self._page(prefix, None, **{"max-keys": "1"})

    def _row(self, prefix: str, key: str, algorithm: str | None, computable: list[str] | None) -> Row | None:
        """One key's row; None when it is gone, with a `problem` when S3 does not show it."""
        name = prefix + key
        try:
            answer = self.wire.head(name)
            if answer is None:
                return None
            row = row_of(key, answer.headers, computable)
            if row["kind"] == "link" and algorithm is None:
                row.update(self._target(name, answer.headers))
        except Refused as refused:
            if refused.status not in (400, 403) or refused.kind == "expired":
                raise
            kind = "folder" if key.endswith("/") else "file"
            return {"key": key, "kind": kind, "problem": f"{TO_HEAD} {refused.status} to HEAD"}
        return row if algorithm is None else hashed(self.wire, name, row, answer.headers, algorithm, self._beat)

    def _beat(self, count: int) -> None:
        """Say now and then how many bytes of objects were read: one object can take hours."""
        with self._counting:
            self._bytes += count
            now = time.monotonic()
            if now - self._beaten < BEAT:
                return
            said, self._bytes, self._beaten = self._bytes, 0, now
        self._write(say("", bytes=said))

    def _target(self, name: str, headers: Any) -> Row:
        """Where a link points: DataSync keeps that as the object's bytes."""
        if why := archived(headers):
            return {"problem": why}
        if int(headers["content-length"]) > LONGEST_TARGET:
            return {"problem": f"unreadable: a link whose target is longer than {LONGEST_TARGET} bytes"}
        try:
            return {"target": self.wire.get(name, {}).decode()}
        except UnicodeDecodeError:
            return {"problem": "not UTF-8: the link's target"}

    def parts(self, shard: str, prefix: str, keys: list[str]) -> dict[str, Any]:
        """The sizes of the parts of objects that were uploaded in parts; () of one that was not."""
        sizes = self._requests.map(lambda key: self._parts.sizes(prefix + key), keys)
        return {"parts": dict(zip(keys, sizes, strict=True))}


def run(lines: BinaryIO, out: BinaryIO, stopped: threading.Event) -> None:
    """Serve jobs from `lines`, blocks to `out`; once it is `stopped`, nothing more is asked."""
    lock = threading.Lock()

    def write(frame: bytes) -> None:
        with lock:
            out.write(frame)
            out.flush()

    write(begin())
    Worker(Door(**json.loads(lines.readline())), write, stopped).serve(lines)
    write(end_of_stream())
