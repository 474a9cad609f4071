"""What does the file gateway know: its shares, and refreshing what it knows of the bucket."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..errors import Ambiguous, NotFound
from .client import Session


@dataclass(frozen=True)
class FileShare:
    """An NFS file share as described."""

    arn: str
    name: str
    gateway_arn: str
    status: str
    bucket: str
    prefix: str  # '' or 'a/b/'
    read_only: bool
    squash: str
    stale_timeout: int  # seconds; 0: the gateway never looks by itself


@dataclass(frozen=True)
class Gateway:
    """A gateway as described."""

    arn: str
    name: str
    state: str


@dataclass(frozen=True)
class Refresh:
    """An accepted refresh: accepted is not done; done is the refresh-complete event with this notification id."""

    notification_id: str
    accepted: datetime  # UTC
    folders: tuple[str, ...]


class StorageGateway:
    """Storage Gateway in one region, held open."""

    def __init__(self, session: Session, region: str) -> None:
        self._client = session.client("storagegateway", region)
        self._starter = session.client("storagegateway", region, starts=True)

    def shares(self) -> list[FileShare]:
        """Every NFS file share of the region."""
        listed = self._client.pages("list_file_shares", "FileShareInfoList")
        arns = [item["FileShareARN"] for item in listed if item["FileShareType"] == "NFS"]
        found = []
        for at in range(0, len(arns), 10):  # DescribeNFSFileShares takes 1-10 ARNs
            answer = self._client.look("describe_nfs_file_shares", FileShareARNList=arns[at : at + 10])
            found += [_share(item) for item in answer["NFSFileShareInfoList"]]
        return found

    def share(self, name: str | None) -> FileShare:
        """A share by name, id or ARN; None: the only one. `NotFound` and `Ambiguous` say what the candidates are."""
        shares = self.shares()
        fitting = [s for s in shares if name in (None, s.name, s.arn, s.arn.rpartition("/")[2])]
        candidates = ", ".join(sorted(s.name or s.arn for s in shares)) or "none"
        if not fitting:
            raise NotFound(f"There is no NFS file share {name!r} here. Shares in this region: {candidates}.")
        if len(fitting) > 1:
            raise Ambiguous(
                f"Several file shares fit {name or 'no name'!r}. Name one with the parameter `share`: {candidates}."
            )
        return fitting[0]

    def gateway(self, arn: str) -> Gateway:
        """A gateway by ARN."""
        answer = self._client.look("describe_gateway_information", GatewayARN=arn)
        return Gateway(arn, answer.get("GatewayName", ""), answer.get("GatewayState", ""))

    def refresh(self, share: FileShare, folder: str) -> Refresh:
        """Ask the gateway to look at the bucket again: everything for '/', else one folder and what is below it.

        Folders are named without a trailing slash and without the bucket (Storage Gateway API, RefreshCache).
        """
        folders = ["/" + folder.strip("/")]
        answer = self._starter.change("refresh_cache", FileShareARN=share.arn, FolderList=folders, Recursive=True)
        return Refresh(answer["NotificationId"], datetime.now(UTC), tuple(folders))

    def cache_dirty_percent(self, gateway_arn: str) -> float:
        """How much of the cache waits to be uploaded, in percent; it must be 0 before a gateway is stopped."""
        return float(self._client.look("describe_cache", GatewayARN=gateway_arn).get("CacheDirtyPercentage", 0.0))


def spacing_left(accepted: datetime | None, spacing: float, now: float | None = None) -> float:
    """Seconds until another refresh does anything: within 60 s of the last one it evicts nothing (RefreshCache)."""
    if accepted is None:
        return 0.0
    return max(spacing - ((now if now is not None else time.time()) - accepted.timestamp()), 0.0)


def _share(item: dict[str, Any]) -> FileShare:
    bucket, _, prefix = item["LocationARN"].rpartition(":::")[2].partition("/")
    return FileShare(
        arn=item["FileShareARN"],
        name=item.get("FileShareName", ""),
        gateway_arn=item["GatewayARN"],
        status=item["FileShareStatus"],
        bucket=bucket,
        prefix=f"{prefix.strip('/')}/" if prefix.strip("/") else "",
        read_only=item.get("ReadOnly", False),
        squash=item.get("Squash", ""),
        stale_timeout=item.get("CacheAttributes", {}).get("CacheStaleTimeoutInSeconds", 0),
    )
