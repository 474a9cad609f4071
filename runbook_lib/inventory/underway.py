"""Which keys cut a tree into ranges, before its scan has ended and after?"""

from __future__ import annotations

from .reading import Inventory


class Underway:
    """What a scan that goes on knows of its keys: those that cut its shards, and in the end all of them.

    Ranges are cut by the first ones; what a range leaves over is cut by all keys, once they are known.
    """

    def __init__(self, cuts: list[str]) -> None:
        self._cuts = cuts
        self.inventory: Inventory | None = None  # set when it is made, by another thread

    @property
    def rows(self) -> int:
        """How many keys there are; 0: nobody knows yet."""
        return self.inventory.rows if self.inventory else 0

    def cut(self, ranges: int) -> list[str]:
        """Keys that cut it into at most so many ranges."""
        return self.inventory.cut(ranges) if self.inventory else thinned(self._cuts, ranges - 1)


def thinned(cuts: list[str], most: int) -> list[str]:
    """So many of the cuts at most, evenly."""
    return cuts if len(cuts) <= most else [cuts[at * len(cuts) // most] for at in range(most)]
