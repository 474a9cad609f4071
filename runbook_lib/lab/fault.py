"""What is a fault: one way in which the world can be broken, and mended?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .core import Lab
from .dms_resources import Document

Planted = dict[str, Any]  # what a fault's setting holds: its path, and what mending has to know


@dataclass(frozen=True)
class Fault:
    """One way in which the world can be broken. A fault without `plant` is a setting that the services look at."""

    name: str
    happens: str
    fails: str  # which check fails: the notebook, and the check as it is written there
    run: str  # how to see it
    repair: str
    takes_path: bool = False
    default_path: str | None = None
    plant: Callable[[Lab, str], Planted] | None = None  # gets the path, or nothing when the fault takes none
    mend: Callable[[Lab, Planted], None] | None = None
    met: Callable[[Lab, Document], bool] | None = None  # whether a replicating DMS task has met it, or never will
