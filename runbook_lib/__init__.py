"""Migration Runbook: the library behind the notebooks. `Runbook.open(environment, notebook=…)` is the way in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runbook import Runbook as Runbook

__all__ = ["Runbook"]

# Read when Arrow is loaded, unless that has happened already.
# Its own allocators keep what they no longer need, a quarter more memory, and are no faster.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def __getattr__(name: str) -> Any:
    # boto3 is imported when a notebook opens the runbook, not by every `import runbook_lib` of a command
    if name == "Runbook":
        from .runbook import Runbook

        return Runbook
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
