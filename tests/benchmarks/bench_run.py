"""How long does `make run` take, and how much CPU beside six bare kernels that import the same things?

Each side is a process of its own and is waited for with its children, so that the operating system counts their CPU.
The two sides alternate; medians and ratios are printed.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time

from tests.throwaway import throwaway_lab

ROUNDS = int(os.environ.get("ROUNDS", "5"))

KERNELS = """
import nbformat
from nbclient import NotebookClient
for plots in (False, False, False, True, False, False):
    cells = ["import runbook_lib.runbook, boto3"] + (["import matplotlib.figure"] if plots else [])
    NotebookClient(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])).execute()
"""


def measured(command: list[str]) -> tuple[float, float]:
    """Wall seconds and CPU seconds (user and system, with all children) of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Alternate both sides and print."""
    with throwaway_lab() as lab:
        rows = []
        for round_ in range(ROUNDS + 1):
            lab.reset("00")
            run = measured([sys.executable, "-m", "runbook_lib.cli", "run"])
            bare = measured([sys.executable, "-c", KERNELS])
            if round_:  # the first is the warm-up
                rows.append((*run, *bare))
    walls, cpus, bare_walls, bare_cpus = (list(column) for column in zip(*rows, strict=True))
    print(f"{ROUNDS} alternated rounds after one to warm up; medians (min-max)")
    for name, values in (
        ("runbook run, 00 to 05, wall s", walls),
        ("runbook run, runner and kernels, CPU s", cpus),
        ("six bare kernels, wall s", bare_walls),
        ("six bare kernels, CPU s", bare_cpus),
    ):
        print(f"{name:42} {statistics.median(values):6.2f} ({min(values):.2f}-{max(values):.2f})")
    ratios = [cpu / bare for cpu, bare in zip(cpus, bare_cpus, strict=True)]
    print(f"{'CPU ratio, runbook run / bare kernels':42} {statistics.median(ratios):6.2f} (aim: at most 2)")
    print("The lab's own CPU is not in either side: it is a daemon of its own.")


if __name__ == "__main__":
    main()
