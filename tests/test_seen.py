"""No hash that was seen is forgotten, and few others look as if they were."""

from __future__ import annotations

import numpy as np
import pytest

from runbook_lib.inventory import seen
from runbook_lib.inventory.seen import Hashes, Seen, SeenTwice


def hashes(count: int) -> Hashes:
    return np.random.default_rng(7).integers(0, 1 << 64, count, np.uint64)


@pytest.mark.parametrize("bits", [4, 27])
def test_what_was_seen_is_known(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "BITS", bits)
    some = Seen()
    assert not some.has(hashes(1000)).any()
    some.add(hashes(1000))
    assert some.has(hashes(1000)).all()


def test_few_others_look_as_if_they_were_seen() -> None:
    some, twice = Seen(), SeenTwice()
    seen_ones, others = np.split(hashes(200_000), 2)
    some.add(seen_ones)
    twice.add(seen_ones)
    assert some.has(others).sum() < 200
    assert twice.has(seen_ones).sum() < 200


@pytest.mark.parametrize("bits", [4, 27])
def test_what_was_seen_twice_is_known_within_a_batch_and_across(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "BITS", bits)
    first, second, third = np.split(hashes(3000), 3)
    twice = SeenTwice()
    for some in (first, np.concatenate([second, third, second]), first[:1]):
        twice.add(some)
    assert twice.has(second).all()
    assert twice.has(first[:1]).all()
    assert bits == 4 or not twice.has(third).any()
