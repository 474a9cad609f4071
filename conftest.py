"""nbval over `notebooks/`: a throw-away lab for the session, reset to the world that each notebook starts from."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from runbook_lib.evidence.changer import Changer
from tests.references import stale
from tests.throwaway import ThrowawayLab, throwaway_lab

STACK = pytest.StashKey[ExitStack]()
LAB = pytest.StashKey[ThrowawayLab]()
READY = pytest.StashKey[set[Path]]()


def pytest_configure() -> None:
    """What tests see of signals does not depend on who started them: under `nohup` and `&` children ignore some."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


def _lab(config: pytest.Config) -> ThrowawayLab:
    """The session's lab (with xdist, the worker's), started when it is first needed."""
    if LAB not in config.stash:
        stack = config.stash.setdefault(STACK, ExitStack())
        config.stash[LAB] = stack.enter_context(throwaway_lab())
    return config.stash[LAB]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before a notebook's first cell and before nbval starts its kernel: is the reference fresh, and the world."""
    if item.path.suffix != ".ipynb":
        return
    ready = item.config.stash.setdefault(READY, set())
    if item.path in ready:
        return
    ready.add(item.path)
    why = stale(item.path)
    if why:
        pytest.fail(f"{item.path.name}: {why}. Run `make references`.", pytrace=False)
    _lab(item.config).reset(item.path.name[:2])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the lab and remove its folder."""
    if STACK in config.stash:
        config.stash[STACK].close()


@pytest.fixture(scope="session")
def lab(pytestconfig: pytest.Config) -> Iterator[ThrowawayLab]:
    """The session's lab; a participant's is never touched."""
    yield _lab(pytestconfig)


@pytest.fixture(autouse=True)
def nobody_holds_on(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What this process changed ends with the test: the next test's runner must not find the environment taken."""
    held: dict[Path, Changer] = {}
    monkeypatch.setattr(Changer, "of_process", lambda path: held.setdefault(path, Changer(path)))
    yield
    for changer in held.values():
        changer.close()
