"""When is it done? One way to wait, with an end, a heartbeat and an estimate; time is an argument."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .errors import WaitTimedOut

Seen = TypeVar("Seen")


def wait_until(
    look: Callable[[], Seen],
    done: Callable[[Seen], bool],
    *,
    timeout: float,
    what: str,
    advice: str = "Run this cell again to attach to it and go on waiting.",
    heartbeat: Callable[[Seen, float], None] = lambda seen, elapsed: None,
    first: float = 0.1,
    longest: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Seen:
    """Look until done, with pauses from `first` to `longest` seconds; `WaitTimedOut` after `timeout` seconds.

    `heartbeat(seen, elapsed)` is called after every look. `what` completes the sentence "… waiting for <what>".
    """
    began, pause = clock(), first
    while True:
        seen = look()
        elapsed = clock() - began
        heartbeat(seen, elapsed)
        if done(seen):
            return seen
        if elapsed >= timeout:
            raise WaitTimedOut(
                f"Stopped waiting for {what} after {elapsed:.0f} s. It goes on by itself: nothing was cancelled. "
                + advice
            )
        sleep(min(pause, max(timeout - elapsed, 0)))
        pause = min(pause * 1.5, longest)
