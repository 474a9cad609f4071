"""What does evidence cost? CPU of `runbook run` beside bare papermill in one process, on the same notebooks and lab.

The sides alternate; each is a process that is waited for with its kernels. Medians and the difference are printed.
"""

from __future__ import annotations

import os
import statistics
import sys

from tests.benchmarks.bench_run import measured
from tests.throwaway import throwaway_lab

PAIRS = int(os.environ.get("PAIRS", "10"))
NUMBERS = ("00", "01", "02", "03", "04", "05")

# Bare papermill still needs the import without the grammar of IRIs, a run for its kernels, and a folder to write to.
BARE = """
import os, sys, tempfile
from runbook_lib.runs import plan
from runbook_lib.runs.run import import_papermill
papermill = import_papermill()
from runbook_lib.evidence.folder import RunFolder
folder = RunFolder.create("lab", "headless")
os.environ["RUNBOOK_RUN"] = str(folder.path)
os.environ["RUNBOOK_ENGINE"] = "1"
for step in plan.chosen(sys.argv[1:]):
    output = str(folder.path / step.path.name)
    papermill.execute_notebook(str(step.path), output, {"environment": "lab"}, progress_bar=False)
"""


def main() -> None:
    """Alternate both sides and print."""
    ours, bare = [], []
    with throwaway_lab() as lab:
        for pair in range(PAIRS + 1):
            lab.reset("00")
            bare_cpu = measured([sys.executable, "-c", BARE, *NUMBERS])[1]
            lab.reset("00")
            our_cpu = measured([sys.executable, "-m", "runbook_lib.cli", "run", *NUMBERS])[1]
            if pair:  # the first is the warm-up
                ours.append(our_cpu)
                bare.append(bare_cpu)
    more = [mine - theirs for mine, theirs in zip(ours, bare, strict=True)]
    aim = 0.5 * len(NUMBERS) + 1
    print(f"{PAIRS} alternated pairs after one to warm up; medians (min-max), CPU s")
    for name, values in (("runbook run", ours), ("bare papermill in one process", bare), ("evidence", more)):
        print(f"{name:32} {statistics.median(values):6.2f} ({min(values):.2f}-{max(values):.2f})")
    print(f"aim for evidence: at most {aim:.1f} (0.5 a notebook and 1 a run)")


if __name__ == "__main__":
    main()
