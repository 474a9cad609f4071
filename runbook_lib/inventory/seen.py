"""Was a hash seen before? In memory that is the same for any number of hashes: it may say so of one that was not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
BITS = 27  # of a hash, that choose one of as many bits: 16 MB. Of 8 million others, 6 % look as if they were seen


class Seen:
    """Hashes that were seen."""

    def __init__(self) -> None:
        self._bytes = np.zeros(1 << (BITS - 3), np.uint8)

    def add(self, hashes: Hashes) -> None:
        """See them."""
        at, bits = _bits(hashes)
        np.bitwise_or.at(self._bytes, at, bits)

    def has(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which were seen, and a few more."""
        at, bits = _bits(hashes)
        return np.asarray(self._bytes[at] & bits, bool)


class SeenTwice:
    """Hashes that were seen more than once."""

    def __init__(self) -> None:
        self._once, self._twice = Seen(), Seen()

    def add(self, hashes: Hashes) -> None:
        """See them."""
        ordered = np.sort(hashes)
        self._twice.add(ordered[1:][ordered[1:] == ordered[:-1]])
        self._twice.add(hashes[self._once.has(hashes)])
        self._once.add(hashes)

    def has(self, hashes: Hashes) -> npt.NDArray[np.bool_]:
        """Which were seen twice, and a few more."""
        return self._twice.has(hashes)


def _bits(hashes: Hashes) -> tuple[Any, Any]:
    """Of each hash: which byte, and which bit of it."""
    high = hashes >> np.uint64(64 - BITS)
    return high >> np.uint64(3), np.left_shift(np.uint8(1), (high & np.uint64(7)).astype(np.uint8))
