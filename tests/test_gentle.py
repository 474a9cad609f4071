"""Gentle mode: no more a second than was said, and what was said reaches the scanner and S3's door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from runbook_lib import cli, scanning
from runbook_lib.aws import wire, workers
from runbook_lib.environment import GENTLE
from runbook_lib.hosts import ProcessHost
from runbook_lib.inventory import looking
from runbook_lib.inventory.scanner import Scan
from tests.throwaway import ThrowawayLab

RATE = 50.0


class Clock:
    """Stands in for `time`; to sleep moves it on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of both paces."""
    made = Clock()
    monkeypatch.setattr(looking, "time", made)
    monkeypatch.setattr(wire, "time", made)
    return made


def scanners(rate: float | None) -> Callable[[], None]:
    """One entry of the scanner's pace."""
    pace = looking.Pace(rate)
    return lambda: pace.spent(1)


def wires(rate: float | None) -> Callable[[], None]:
    """One request of the wire's pace."""
    return wire.Pace(rate).wait


Paced = Callable[[float | None], Callable[[], None]]
BOTH = pytest.mark.parametrize("paced", [scanners, wires])


@BOTH
def test_no_more_than_so_many_a_second(paced: Paced, clock: Clock) -> None:
    one, began = paced(RATE), clock.now
    for _ in range(500):
        one()
    assert clock.now - began == pytest.approx(500 / RATE)


@BOTH
def test_what_took_longer_by_itself_is_not_slept_on(paced: Paced, clock: Clock) -> None:
    one, began = paced(RATE), clock.now
    for _ in range(100):
        clock.now += 2 / RATE  # the work itself
        one()
    assert clock.now - began == pytest.approx(200 / RATE, abs=1.1 / RATE)


@BOTH
def test_a_pause_is_made_up_for_by_one_second_at_most(paced: Paced, clock: Clock) -> None:
    one = paced(RATE)
    one()
    clock.now += 3600
    began = clock.now
    for _ in range(500):
        one()
    assert clock.now - began == pytest.approx(500 / RATE - 1)


@BOTH
def test_without_a_rate_nothing_is_slept(paced: Paced, clock: Clock) -> None:
    one, began = paced(None), clock.now
    for _ in range(500):
        one()
    assert clock.now == began


def test_the_rate_is_that_of_all_processes_together() -> None:
    here = ProcessHost("here", lambda: None)
    options = scanning.ScanOptions(processes=4, entries_per_second=2000).request(here, "scan", "/")
    assert Scan(None, options, lambda frame: None).pace.rate == 500  # type: ignore[arg-type]
    door = wire.Door("http://127.0.0.1:1/b", "b", "eu-central-1", requests_per_second=50)
    assert workers.Workers(None, door, 4, 1)._door.requests_per_second == 12.5  # type: ignore[arg-type]
    assert workers.Workers(None, door, 0, 1)._door.requests_per_second == 50  # type: ignore[arg-type]


@pytest.mark.parametrize("gentle", [True, False])
def test_gently_reaches_the_scanner_and_the_door(
    lab: ThrowawayLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gentle: bool
) -> None:
    lab.reset("03")
    requests: list[dict[str, Any]] = []
    doors: list[wire.Door] = []
    request = scanning.ScanOptions.request

    def told(self: scanning.ScanOptions, *place: Any, **more: Any) -> dict[str, Any]:
        requests.append(request(self, *place, **more))
        return requests[-1]

    def door(*place: Any) -> wire.Door:
        doors.append(wire.Door(*place))
        return doors[-1]

    monkeypatch.setattr(scanning.ScanOptions, "request", told)
    monkeypatch.setattr(workers, "Door", door)
    options = ["--gentle"] if gentle else []
    done = CliRunner().invoke(
        cli.app, ["compare-files", "lab", "--level", "metadata", "--out", str(tmp_path / "o"), *options]
    )
    assert done.exit_code == 0, done.output
    assert requests and {one["entries_per_second"] for one in requests} == {
        GENTLE["entries_per_second"] if gentle else None
    }
    assert {one["processes"] for one in requests} == {1 if gentle else 2}
    assert len(doors) > 1 and {one.requests_per_second for one in doors} == {
        GENTLE["requests_per_second"] if gentle else None
    }
