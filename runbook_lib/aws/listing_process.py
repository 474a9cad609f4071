"""How a listing process starts: with botocore, and without the AWS CRT that botocore loads where it is installed.

Loading it takes a tenth of a second, most of it to gather entropy, and 6 MB. S3's signature does not need it; checksums
load it when they do.
"""

from __future__ import annotations

import gc
import sys
import threading
from typing import Any, cast

SELDOM = 200_000  # objects between two looks for cycles: a page has thousands, and no cycles
CRT = "awscrt"


def main() -> None:
    """Serve jobs from standard input."""
    modules = cast(dict[str, Any], sys.modules)
    modules[CRT] = None  # an import of it fails, as where it is not installed
    from . import listing_worker

    del modules[CRT]
    gc.freeze()
    gc.set_threshold(SELDOM)
    listing_worker.run(sys.stdin.buffer, sys.stdout.buffer, threading.Event())


if __name__ == "__main__":
    main()
