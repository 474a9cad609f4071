"""What is here and what is there, both looked at in the time that the slower one takes: a scan, and LIST beside it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from .errors import RunbookError
from .inventory.progress import Beside, Look, Progress
from .inventory.reading import Inventory
from .inventory.underway import Underway

BEAT = 0.5  # seconds between two looks at a listing that goes on alone

Planned = Callable[[list[str], int], None]
Scan = Callable[[Planned, Callable[[Progress], None]], Inventory]
Listing = Callable[[Inventory | Underway, Callable[[Progress], None]], Inventory]


def at_once(
    scan: Scan, listing: Listing, told: Callable[[Look], None], beginning: Callable[[int], None] = lambda used: None
) -> tuple[Inventory, Inventory]:
    """The inventories of a scan and of a listing that begins as soon as the scan has a plan; `beginning` hears of it,
    and how many entries the scanned file system has in use (0: it does not say).

    After the scan where that has no plan: the tree is small, or its inventory is there already. What goes wrong with
    either stops the other the next time that this says how far it is, and is raised; what is finished of both is kept,
    as each keeps it.
    """
    aside = _Aside(listing, beginning)
    try:
        source = scan(aside.begin, lambda said: told(aside.beside(said)))
        return source, aside.end(source, told)
    finally:
        aside.stop()


class _Aside:
    """A listing in a thread of its own, once it has begun."""

    def __init__(self, listing: Listing, beginning: Callable[[int], None]) -> None:
        self._listing, self._beginning = listing, beginning
        self._pool = ThreadPoolExecutor(1)
        self._stopped = threading.Event()
        self._listed: Future[Inventory] | None = None
        self._keys = Underway([])
        self._latest: Progress | None = None

    def begin(self, cuts: list[str], used: int) -> None:
        """List in ranges of these keys; without any, later."""
        if cuts:
            self._beginning(used)
            self._keys = Underway(cuts)
            self._listed = self._pool.submit(contextvars.copy_context().run, self._listing, self._keys, self._beat)

    def _beat(self, said: Progress) -> None:
        if self._stopped.is_set():
            raise RunbookError("The listing was stopped, because the scan beside it was.")
        self._latest = said

    def beside(self, said: Progress) -> Look:
        """How far both are; raises what went wrong with the listing."""
        if self._listed is not None and self._listed.done():
            self._listed.result()
            return said
        return said if self._latest is None else Beside(said, self._latest)

    def end(self, source: Inventory, told: Callable[[Look], None]) -> Inventory:
        """The listing's inventory; `source` are all keys by now."""
        if self._listed is None:
            return self._listing(source, told)
        self._keys.inventory = source
        while not wait([self._listed], BEAT).done:
            if self._latest is not None:
                told(self._latest)
        return self._listed.result()

    def stop(self) -> None:
        """Leave nothing behind."""
        self._stopped.set()
        self._pool.shutdown()
