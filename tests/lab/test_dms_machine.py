"""The lab's replication instance has the memory of its class, as EC2 has it."""

from __future__ import annotations

import psutil
import pytest

from runbook_lib.lab.dms_machine import GIB, memory_of


@pytest.mark.parametrize(
    ("machine", "gib"),
    [("dms.t3.micro", 1), ("dms.t3.medium", 4), ("dms.c5.large", 4), ("dms.r5.large", 16), ("dms.r6i.24xlarge", 768)],
)
def test_a_class_has_its_memory(machine: str, gib: int) -> None:
    assert memory_of(machine) == gib * GIB


@pytest.mark.parametrize("machine", ["dms.x9.large", "dms.t3.mega", "large", ""])
def test_an_unknown_class_has_this_computers(machine: str) -> None:
    assert memory_of(machine) == psutil.virtual_memory().total
