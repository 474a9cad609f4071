"""Open JupyterLab on a working copy without outputs, so nobody sees the answers first or dirties the references."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat

from ..errors import RunbookError
from ..evidence.folder import RunFolder
from .plan import steps


def working_copy(run_folder: RunFolder) -> Path:
    """The notebooks in the run folder, without outputs."""
    for step in steps():
        target = run_folder.path / step.path.name
        if not target.exists():
            notebook = nbformat.read(step.path, as_version=4)
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
            target.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")
    return run_folder.path


def open_jupyter(run_folder: RunFolder, arguments: list[str]) -> None:
    """Replace this process by JupyterLab on the working copy; more arguments are JupyterLab's own."""
    folder = working_copy(run_folder)
    try:
        import jupyterlab  # noqa: F401
    except ModuleNotFoundError as error:
        raise RunbookError(
            "JupyterLab is not installed: `make jupyter` sets everything up, or `pip install jupyterlab`."
        ) from error
    os.environ["RUNBOOK_RUN"] = str(folder)
    # a terminal in JupyterLab finds `runbook`, for the lab's faults
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    # no question about news, and none asked of the network
    config = [str(Path(__file__).with_name("jupyter_config")), os.environ.get("JUPYTER_CONFIG_PATH", "")]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, config))
    root = [f"--ServerApp.root_dir={folder}", "--LabApp.default_url=/lab/tree/00_start_here.ipynb"]
    as_root = ["--ServerApp.allow_root=True"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *root, *as_root, *arguments])
