"""Does a plan or a statement have the form that this project publishes for it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "schema"


def schema(name: str) -> dict[str, Any]:
    """A published JSON schema: plan-v1, run-v1 or signature-v1."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def objections(name: str, value: Any) -> str:
    """The first thing that a schema says against a value, or ''."""
    from jsonschema import Draft202012Validator

    worst = next(iter(sorted(Draft202012Validator(schema(name)).iter_errors(value), key=lambda e: list(e.path))), None)
    return f"{worst.json_path}: {worst.message[:200]}" if worst else ""
