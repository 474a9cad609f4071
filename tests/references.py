"""Make the notebooks' reference outputs anew, or say which are stale: `python -m tests.references [--check]`.

Each notebook runs on a throw-away lab that is reset to the world the notebook starts from. What is stored is
sanitised like nbval sanitises, and carries the hash of the sources that made it, so that freshness is a comparison
of hashes and not a second execution.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import nbformat

from runbook_lib.runs.plan import steps

HERE = Path(__file__).resolve().parent
HASH = "reference_of"  # notebook metadata: the hash of the sources the outputs were made from


def source_hash(notebook: Any) -> str:
    """The hash of everything that is executed: the code cells, their ids and tags, in order."""
    cells = [[c["id"], c.source, c.metadata.get("tags", [])] for c in notebook.cells if c.cell_type == "code"]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def rules() -> list[tuple[re.Pattern[str], str]]:
    """The sanitising rules that nbval uses too."""
    parser = configparser.RawConfigParser()
    parser.read(HERE / "nbval_sanitize.cfg")
    return [(re.compile(parser[name]["regex"]), parser[name]["replace"]) for name in parser.sections()]


def sanitised(value: Any, patterns: list[tuple[re.Pattern[str], str]]) -> Any:
    """Text anywhere inside, sanitised."""
    if isinstance(value, str):
        for pattern, replacement in patterns:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, list):
        return [sanitised(item, patterns) for item in value]
    if isinstance(value, dict):
        return {key: item if key == "image/png" else sanitised(item, patterns) for key, item in value.items()}
    return value


def stale(path: Path) -> str:
    """Why a stored reference is no good, or ''."""
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    never = [cell["id"] for cell in code if cell.execution_count is None]
    if never:
        return f"cells that were never executed: {', '.join(never)}"
    if notebook.metadata.get(HASH) != source_hash(notebook):
        return "its sources changed since its outputs were made"
    return ""


def make(path: Path) -> None:
    """Execute a notebook and store its sanitised outputs beside its sources."""
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook, timeout=600, coalesce_streams=True, resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    patterns = rules()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [nbformat.from_dict(sanitised(output, patterns)) for output in cell.outputs]
            for output in cell.outputs:
                output.pop("metadata", None)
                if output.output_type in ("display_data", "execute_result"):
                    output["metadata"] = {}
                    output.data.pop("image/png", None)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        HASH: source_hash(notebook),
    }
    path.write_text(nbformat.writes(notebook, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Make all references, or check them."""
    if "--check" in sys.argv:
        found = {step.name: stale(step.path) for step in steps()}
        for name, why in found.items():
            if why:
                print(f"STALE {name}: {why}. Run `make references`.")
        return int(any(found.values()))
    from tests.throwaway import throwaway_lab

    with throwaway_lab() as lab:
        for step in steps():
            lab.reset(step.name[:2])
            make(step.path)
            print(f"made {step.path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
