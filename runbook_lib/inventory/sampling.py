"""Which files does a sample take, and what does a sample without a difference say about all files?"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from math import exp, lgamma

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..filters import Filters
from .reading import Inventory
from .schema import FILE, KINDS
from .scope import Scope

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sample:
    """Files chosen at random: each set of so many files was as likely as any other."""

    keys: tuple[str, ...]  # in order
    of: int  # files there were to choose from
    seed: int

    @property
    def fewer_than(self) -> int:
        """When none of the sample differs: fewer than so many of all files do, with 95 % confidence.

        Exact for a sample without replacement: the least number of differing files among all of which a sample of
        this size would have missed every one with a probability of less than 5 %.
        """
        return bisect_left(
            range(self.of + 1), True, lo=1, key=lambda bad: _missed(self.of, len(self.keys), bad) < 1 - CONFIDENCE
        )


def _missed(files: int, taken: int, bad: int) -> float:
    """The probability that a sample has none of the bad ones: C(files - bad, taken) / C(files, taken)."""
    if bad > files - taken:
        return 0.0
    good = files - bad
    return exp(lgamma(good + 1) - lgamma(good - taken + 1) - lgamma(files + 1) + lgamma(files - taken + 1))


def sample(inventory: Inventory, count: int, seed: int, filters: Filters | None = None) -> Sample:
    """So many files of the inventory (all, when there are not more), the same for the same seed; memory: their keys."""
    of = sum(len(files) for files in _files(inventory, filters))
    numbers = np.sort(np.random.default_rng(seed).choice(of, size=min(count, of), replace=False, shuffle=False))
    keys: list[str] = []
    passed = 0
    for files in _files(inventory, filters):
        first, end = np.searchsorted(numbers, [passed, passed + len(files)])
        keys += files.take(pa.array(numbers[first:end] - passed)).to_pylist()
        passed += len(files)
    return Sample(tuple(keys), of, seed)


def _files(inventory: Inventory, filters: Filters | None) -> Iterator[pa.Array]:
    """The keys of files that the filters let through."""
    scope = Scope(filters)
    for batch in inventory.batches(["key", "kind"]):
        yield scope.inside(batch.filter(pc.equal(batch.column("kind").indices, KINDS.index(FILE)))).column("key")
