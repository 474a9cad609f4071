"""Make the share show what is in the bucket: what is absent, a refresh of the gateway's cache, and proof by `ls`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from .application_server import ApplicationServer
from .aws.client import Session
from .aws.events import Listener, refresh_pattern
from .aws.storage_gateway import FileShare, Refresh, StorageGateway, spacing_left
from .display import Progress, Shown, Table, duration, plural
from .errors import AccessDenied, WaitTimedOut
from .waiting import wait_until

LS_PATIENCE = 90.0  # seconds: an NFS client may serve its own cached directory for a minute (acdirmax)


@dataclass(frozen=True, repr=False)
class Absent(Shown):
    """Names that `ls` shows on the NFS server and not on the share."""

    folder: str
    names: tuple[str, ...]  # the first ones
    looked_at: int
    count: int  # how many are absent
    refreshed: bool = False  # seen after a refresh

    @property
    def ok(self) -> bool:
        """A finding: both sides were listed; absent and already visible are both good starts."""
        return self.looked_at > 0

    @property
    def reason(self) -> str:
        """What was seen."""
        if not self.looked_at:
            return f"`ls` shows nothing in {self.folder} on the NFS server"
        first = f": {', '.join(self.names[:10])}" if self.names else ""
        return f"{plural(self.looked_at, 'name')} on the NFS server, {self.count:,} of them not on the share{first}"

    def headline(self) -> str:
        """The lesson, or that there is nothing to refresh."""
        if not self.count and self.refreshed:
            return "Visible: the share shows every name that the NFS server has here."
        if not self.count:
            return (
                "Already visible: the share shows every name that the NFS server has here. There is nothing to refresh."
            )
        return (
            f"Absent: of what the NFS server has, {plural(self.count, 'name')} cannot be seen on the share. "
            "DataSync wrote to S3 behind the gateway's back."
        )

    def tables(self) -> list[Table]:
        """The names."""
        return [Table(("Absent from the share",), [(name,) for name in self.names], limit=10)] if self.names else []


@dataclass(frozen=True, repr=False)
class Refreshed(Shown):
    """What became of a refresh."""

    how: str
    complete: bool
    seconds: float | None  # from acceptance to the refresh-complete event
    folders: tuple[str, ...] = ()
    notification_id: str = ""

    @property
    def ok(self) -> bool:
        """A finding: the event came, or nothing had to be refreshed, or `ls` has to decide."""
        return self.complete

    @property
    def reason(self) -> str:
        """What happened."""
        return self.how

    def headline(self) -> str:
        """What happened."""
        return self.how

    def tables(self) -> list[Table]:
        """How long it took."""
        if not self.notification_id:
            return []
        rows = [
            ("Folders", ", ".join(self.folders)),
            ("Notification id", self.notification_id),
            ("Took", duration(self.seconds) or "not known"),
        ]
        return [Table(("Refresh", "Value"), rows)]


class Share:
    """The environment's file share; `rb.share`."""

    def __init__(
        self,
        gateway: StorageGateway,
        session: Session,
        server: ApplicationServer,
        *,
        region: str,
        account: str,
        find: Callable[[], FileShare],
        last_copy: Callable[[], datetime | None],
        recall: Callable[[str], Any],
        remember: Callable[[str, Any], None],
        spacing: float,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`last_copy`: when the last task execution ended; `spacing`: seconds between refreshes (60 at AWS)."""
        self._gateway, self._session, self._server = gateway, session, server
        self._region, self._account = region, account
        self._find, self._last_copy = find, last_copy
        self._recall, self._remember = recall, remember
        self._spacing, self._timeout = spacing, timeout
        self._clock, self._sleep = clock, sleep

    @cached_property
    def info(self) -> FileShare:
        """The share as described."""
        return self._find()

    def absent(self, folder: str = "/") -> Absent:
        """What `ls` shows on the NFS server and not on the share, in one folder."""
        seen = self._server.difference(folder)
        return Absent(folder, seen.only_source, seen.looked_at, seen.source_count)

    def refresh(self, folder: str, absent: Absent) -> Refreshed:
        """Refresh the gateway's cache of a folder ('/': everything) and wait for our event.

        Nothing is started when a refresh of ours, of this folder or above, was accepted after the last execution that
        copied anything, and `ls` misses nothing: a changed file keeps its name, so names alone would not do.
        When rules or queues are denied there is no event, and `ls` has to decide.
        """
        accepted = self._accepted()
        covered = accepted is not None and self._covered(accepted, folder)
        if covered and not absent.count:
            return Refreshed("Nothing was refreshed: the share already shows what the last copy brought.", True, None)
        if covered and not self.wait_visible(absent).count:
            return Refreshed("Adopted: a refresh of ours was accepted after the last copy.", True, None)
        self._wait_spacing()
        info = self.info
        with Listener(
            self._session, self._region, self._account, refresh_pattern(info.gateway_arn, info.arn)
        ) as listener:
            # the intent first: when no answer comes, the next refresh still keeps its distance from this one
            self._remember(f"share.refresh-asked {info.arn}", datetime.now(UTC).isoformat())
            refresh = self._gateway.refresh(info, folder)
            accepted_at = {"accepted": refresh.accepted.isoformat(), "id": refresh.notification_id, "folder": folder}
            self._remember(f"share.refresh {info.arn}", accepted_at)
            if listener.denied:
                return Refreshed(
                    f"Accepted; no event can be heard ({listener.denied}), so `ls` decides.",
                    True,
                    None,
                    refresh.folders,
                    refresh.notification_id,
                )
            return self._completed(listener, refresh)

    def _completed(self, listener: Listener, refresh: Refresh) -> Refreshed:
        progress = Progress("Refresh of the gateway's cache")
        began = self._clock()

        def heard() -> bool:
            return any(_is_ours(event, refresh.notification_id) for event in listener.heard())

        try:
            wait_until(
                heard,
                bool,
                timeout=self._timeout,
                what=f"the refresh-complete event of {refresh.notification_id}",
                heartbeat=lambda _, elapsed: progress.beat("waiting for the refresh-complete event", elapsed),
                first=0.0,
                longest=2.0,
                clock=self._clock,
                sleep=self._sleep,
            )
        except AccessDenied as error:
            return Refreshed(
                f"Accepted; no event can be heard ({error}), so `ls` decides.",
                True, None, refresh.folders, refresh.notification_id,
            )  # fmt: skip
        except WaitTimedOut:
            # Events are best effort (EventBridge user guide), so a missing one is a finding and `ls` still looks.
            return Refreshed(
                f"The refresh was accepted, but its refresh-complete event did not come within {self._timeout:.0f} s. "
                "The refresh itself may be done: `ls` below tells, and running this notebook again looks there first.",
                False, None, refresh.folders, refresh.notification_id,
            )  # fmt: skip
        return Refreshed(
            "Complete: the event of our refresh came.",
            True,
            self._clock() - began,
            refresh.folders,
            refresh.notification_id,
        )

    def wait_visible(self, absent: Absent) -> Absent:
        """Look with `ls` until nothing is absent any more, for at most 90 s; what is still absent then is returned."""
        try:
            return wait_until(
                lambda: replace(self.absent(absent.folder), refreshed=True),
                lambda seen: not seen.count or not (set(seen.names) & set(absent.names)),
                timeout=LS_PATIENCE if absent.count else 0.0,
                what="the share to show the new names",
                longest=5.0,
                clock=self._clock,
                sleep=self._sleep,
            )
        except WaitTimedOut:
            return replace(self.absent(absent.folder), refreshed=True)

    def _accepted(self) -> datetime | None:
        known = self._recall(f"share.refresh {self.info.arn}")
        return datetime.fromisoformat(known["accepted"]) if known else None

    def _covered(self, accepted: datetime, folder: str) -> bool:
        ended = self._last_copy()
        known = self._recall(f"share.refresh {self.info.arn}")["folder"].strip("/")
        wide_enough = known == "" or f"{folder.strip('/')}/".startswith(f"{known}/")
        return ended is not None and accepted > ended and wide_enough

    def _wait_spacing(self) -> None:
        asked = self._recall(f"share.refresh-asked {self.info.arn}")
        rest = spacing_left(datetime.fromisoformat(asked) if asked else None, self._spacing)
        if rest > 0:
            Progress("Storage Gateway ignores a refresh within a minute of the last", rest).beat("waiting", 0.0)
            self._sleep(rest)


def _is_ours(event: dict[str, Any], notification_id: str) -> bool:
    detail = event.get("detail", {})
    return bool(detail.get("event-type") == "refresh-complete" and detail.get("notification-id") == notification_id)
