"""A refresh is done once, for our event, and `ls` has the last word; with fakes for time and AWS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from runbook_lib import share as module
from runbook_lib.aws.storage_gateway import FileShare, Refresh, spacing_left
from runbook_lib.share import Absent, Share
from runbook_lib.sides import ListingDifference

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
INFO = FileShare("arn:share", "s", "arn:gateway", "AVAILABLE", "b", "", False, "NoSquash", 0)


class World:
    """A gateway, a listener and two listings that a test can script."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 0.0
        self.slept: list[float] = []
        self.memory: dict[str, Any] = {}
        self.refreshes: list[str] = []
        self.visible_after = 0  # looks at the share until the new name shows
        self.events: list[dict[str, Any]] = [{"detail": {"event-type": "refresh-complete", "notification-id": "ours"}}]
        self.denied: str | None = None
        self.last_copy: datetime | None = NOW
        world = self

        class FakeListener:
            def __init__(self, *_: Any) -> None:
                self.denied = world.denied

            def __enter__(self) -> FakeListener:
                return self

            def __exit__(self, *_: Any) -> None: ...

            def heard(self) -> list[dict[str, Any]]:
                return world.events

        monkeypatch.setattr(module, "Listener", FakeListener)
        self.share = Share(
            self,  # type: ignore[arg-type]
            SimpleNamespace(),  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            region="r", account="1", find=lambda: INFO, last_copy=lambda: self.last_copy,
            recall=self.memory.get, remember=self.memory.__setitem__, spacing=60, timeout=100,
            clock=lambda: self.time, sleep=self.sleep,
        )  # fmt: skip

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += max(seconds, 0.1)

    def refresh(self, share: FileShare, folder: str) -> Refresh:
        self.refreshes.append(folder)
        return Refresh("ours", datetime.now(UTC), (folder,))

    def difference(self, folder: str) -> ListingDifference:
        self.visible_after -= 1
        missing = ("new",) if self.visible_after >= 0 else ()
        return ListingDifference(folder, missing, (), 2, len(missing), 0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


ABSENT = Absent("/", ("new",), 2, 1)
NOTHING = Absent("/", (), 2, 0)


def accepted(world: World, at: datetime, folder: str = "/") -> None:
    """A refresh of ours that an earlier run remembers."""
    world.memory["share.refresh arn:share"] = {"accepted": at.isoformat(), "id": "x", "folder": folder}


def test_nothing_is_refreshed_when_nothing_is_absent_since_a_refresh_after_the_last_copy(world: World) -> None:
    accepted(world, NOW + timedelta(seconds=1))
    assert world.share.refresh("/", NOTHING).ok
    assert world.refreshes == []


def test_a_changed_file_keeps_its_name_so_names_alone_do_not_make_a_refresh_needless(world: World) -> None:
    assert world.share.refresh("/", NOTHING).ok
    assert world.refreshes == ["/"]


def test_a_refresh_of_one_folder_does_not_stand_for_everything(world: World) -> None:
    accepted(world, NOW + timedelta(seconds=1), "images")
    world.share.refresh("/", NOTHING)
    world.share.refresh("images/2025", NOTHING)
    assert world.refreshes == ["/"]


def test_a_refresh_waits_for_our_event_and_is_remembered(world: World) -> None:
    done = world.share.refresh("/", ABSENT)
    assert (done.ok, done.notification_id, world.refreshes) == (True, "ours", ["/"])
    assert world.memory["share.refresh arn:share"]["id"] == "ours"


def test_somebody_elses_event_is_not_ours(world: World) -> None:
    world.events = [{"detail": {"event-type": "refresh-complete", "notification-id": "theirs"}}]
    done = world.share.refresh("/", ABSENT)
    assert not done.ok
    assert "did not come within 100 s" in done.reason


def test_a_refresh_accepted_after_the_last_copy_is_adopted(world: World) -> None:
    accepted(world, NOW + timedelta(seconds=1))
    assert "Adopted" in world.share.refresh("/", ABSENT).how
    assert world.refreshes == []


def test_a_refresh_accepted_before_the_last_copy_does_not_count(world: World) -> None:
    accepted(world, NOW - timedelta(seconds=1))
    world.share.refresh("/", ABSENT)
    assert world.refreshes == ["/"]


def test_an_adopted_refresh_that_shows_nothing_is_done_again(world: World) -> None:
    accepted(world, NOW + timedelta(seconds=1))
    world.visible_after = 10_000
    world.share.refresh("/", ABSENT)
    assert world.refreshes == ["/"]


def test_the_minute_between_two_refreshes_is_waited_out(world: World) -> None:
    world.memory["share.refresh-asked arn:share"] = datetime.now(UTC).isoformat()
    world.share.refresh("/", ABSENT)
    assert 55 < world.slept[0] <= 60


def test_without_the_permission_to_hear_events_ls_decides(world: World) -> None:
    world.denied = "events put_rule was denied"
    done = world.share.refresh("/", ABSENT)
    assert done.ok
    assert "so `ls` decides" in done.how


def test_ls_is_repeated_because_clients_cache_directories(world: World) -> None:
    world.visible_after = 3
    assert world.share.wait_visible(ABSENT).names == ()


def test_ls_has_an_end_and_says_what_is_still_absent(world: World) -> None:
    world.visible_after = 10_000
    assert world.share.wait_visible(ABSENT).names == ("new",)
    assert world.time >= module.LS_PATIENCE


def test_spacing_counts_from_the_acceptance() -> None:
    assert spacing_left(NOW, 60, NOW.timestamp() + 45) == 15
    assert spacing_left(NOW, 60, NOW.timestamp() + 61) == 0
    assert spacing_left(None, 60) == 0
