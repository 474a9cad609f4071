"""How does long output come from a server without AWS tools? Through a bucket: the server PUTs to URLs signed here.

The objects lie below `<prefix>migration-runbook/<environment>/<machine>/<when>-<process>-<random>/`, and are deleted
once they are read. What an interrupted run left there is removed by the next one that uses the exchange.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError

from ..errors import AwsError, ChangeRefused, SettingsError
from .client import Session, translated
from .s3 import S3
from .workers import USUAL, door

EXPIRES = 3600  # seconds that a URL is good for
ABANDONED = timedelta(hours=2)  # older than this, an object is nobody's: a URL is used within EXPIRES
PIECE = 8 * 1024 * 1024  # bytes of one GET
ATTEMPTS = 5


@dataclass(frozen=True)
class Exchange:
    """A place in S3 that output goes through, by the settings' `inventory.exchange`."""

    session: Session
    region: str
    address: str  # s3://bucket or s3://bucket/prefix
    environment: str  # its name
    destination: Callable[[], tuple[str, str]]  # bucket and prefix that the files are copied to: not a place for ours
    secret: Callable[..., None]  # told what must not be written down
    sleep: Callable[[float], None] = time.sleep

    @property
    def bucket(self) -> str:
        """The address's bucket."""
        return urlsplit(self.address).netloc

    @property
    def folder(self) -> str:
        """Where the objects of this environment lie, and nothing else."""
        prefix = self.address.removeprefix(f"s3://{self.bucket}").strip("/")
        return f"{prefix}/".lstrip("/") + f"migration-runbook/{quote(self.environment)}/"

    def open(self, host: str) -> Parcel:
        """Begin with the output of a program on `host`; removes what interrupted runs left.

        Raises `SettingsError` when it lies in the destination, `ChangeRefused` where nothing may be changed.
        """
        bucket, prefix = self.destination()
        if bucket == self.bucket and self.folder.startswith(prefix):
            raise SettingsError(
                f"inventory.exchange: {self.address} lies in the destination s3://{bucket}/{prefix}, where it would be "
                "taken for migrated files. Name another bucket, or a prefix beside the destination's."
            )
        try:
            self.session.guard()
        except ChangeRefused as refused:
            raise ChangeRefused(
                f"{refused} (The answer of {host} is too long for commands, and to send it through {self.address}, "
                "`inventory.exchange`, objects are written there and deleted. `reach: ssh` does without.)"
            ) from refused
        try:
            self._sweep()
            url = door(self.session, self.region, self.bucket, self.folder, USUAL).url
        except AwsError as error:
            error.args = (f"inventory.exchange, {self.address}: {error}",)
            raise
        begun = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        own = f"{quote(socket.gethostname())}/{begun}-{os.getpid()}-{secrets.token_hex(4)}/"
        self.session.record("note", key="exchange", value=f"the answer of {host} goes through {self._named(own)}")
        return Parcel(self, url, self.folder + own)

    def objects(self, prefix: str) -> list[dict[str, Any]]:
        """What lies there, as LIST shows it."""
        return list(S3(self.session, self.region).keys(self.bucket, prefix))

    def delete(self, keys: list[str]) -> None:
        """Delete objects; a change, so the rails are asked."""
        for key in keys:
            S3(self.session, self.region).delete(self.bucket, key)

    def _sweep(self) -> None:
        """Remove what interrupted runs left, and say so."""
        now = datetime.now(UTC)
        left = [
            item["Key"] for item in self.objects(self.folder)
            if _orphan(item["Key"][len(self.folder) :]) or now - item["LastModified"] > ABANDONED
        ]  # fmt: skip
        if left:
            named = f"{', '.join(left[:10])}{', …' if len(left) > 10 else ''}"
            said = f"removes {len(left)} objects that an interrupted run left in s3://{self.bucket}: {named}"
            self.session.record("note", key="exchange", value=said)
            self.delete(left)

    def _named(self, own: str) -> str:
        return f"s3://{self.bucket}/{self.folder}{own}"


class Parcel:
    """One program's output on its way."""

    def __init__(self, exchange: Exchange, url: str, folder: str) -> None:
        """`url` is the bucket's, as boto3 asks it; `folder` is only this parcel's."""
        self._exchange, self._url, self.folder = exchange, url, folder
        self._client = exchange.session.client("s3", exchange.region)

    def url(self, number: int) -> str:
        """Where a part may be PUT, for an hour from now; a change, so the rails are asked."""
        session, key = self._exchange.session, self._key(number)
        session.guard()
        session.record("note", key="exchange", value=f"a signed URL to PUT s3://{self._exchange.bucket}/{key}")
        request = AWSRequest("PUT", f"{self._url}/{quote(key, safe='/~')}")
        credentials = ReadOnlyCredentials(*session.frozen_credentials())
        S3SigV4QueryAuth(credentials, "s3", self._exchange.region, expires=EXPIRES).add_auth(request)
        query = urlsplit(request.url).query
        self._exchange.secret(query, query.rpartition("X-Amz-Signature=")[2])
        return str(request.url)

    def read(self, number: int, size: int) -> Iterator[bytes]:
        """A part that was sent; its object is deleted at the end."""
        key = self._key(number)
        for at in range(0, size, PIECE):
            yield self._piece(key, at, min(at + PIECE, size) - at)
        self._exchange.delete([key])

    def close(self) -> None:
        """Delete all that is left of it."""
        self._exchange.delete([item["Key"] for item in self._exchange.objects(self.folder)])

    def _piece(self, key: str, at: int, size: int) -> bytes:
        """Some bytes of an object, asked again when the answer is torn."""
        where = {"Bucket": self._exchange.bucket, "Key": key, "Range": f"bytes={at}-{at + size - 1}"}
        for attempt in range(ATTEMPTS):
            body = self._client.look("get_object", **where)["Body"]
            try:
                data: bytes = body.read()
            except BotoCoreError as error:
                if attempt + 1 == ATTEMPTS:
                    raise translated(error, "s3", "get_object") from error
                self._exchange.sleep(0.5 * 2**attempt)
                continue
            break
        if len(data) < size:
            raise AwsError(
                f"s3://{self._exchange.bucket}/{key} is shorter than what was sent. Does something else write there? "
                "Choose a bucket of your own for `inventory.exchange`, then run it again."
            )
        return data

    def _key(self, number: int) -> str:
        return f"{self.folder}{number:05}"


def _orphan(below: str) -> bool:
    """Is it a part of a process of this machine that has ended? `below` the environment's folder."""
    machine, _, rest = below.partition("/")
    parts = rest.split("-")
    if machine != quote(socket.gethostname()) or len(parts) < 3 or not re.fullmatch(r"\d{1,9}", parts[1]):
        return False
    try:
        os.kill(int(parts[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
