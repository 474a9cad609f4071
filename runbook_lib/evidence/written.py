"""How is a notebook written down: its text in whole pieces, as a terminal shows it, with its secrets masked?"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from ..errors import EvidenceError
from ..redaction import masked
from .files import as_json
from .record import text


def without_secrets(data: bytes, counted: Counter[str] | None = None) -> bytes:
    """A notebook file with its secrets masked; the same bytes when it has none. `EvidenceError`: it is no notebook."""
    try:
        notebook = json.loads(data)
        notebook["cells"] = [_whole(cell) for cell in notebook["cells"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvidenceError(f"this is not a notebook: {type(error).__name__}") from error
    kept = masked(notebook, counted)
    return data if kept == notebook else as_json(kept)


def _whole(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell whose texts are no lists of lines: a secret may have several."""
    cell = {**cell, "source": text(cell["source"])}
    if "outputs" in cell:
        cell["outputs"] = joined([_output(output) for output in cell["outputs"]])
    return cell


def _output(output: dict[str, Any]) -> dict[str, Any]:
    if output["output_type"] == "stream":
        return {**output, "text": text(output["text"])}
    if "data" not in output:
        return output
    return {
        **output,
        "data": {kind: value if "json" in kind else text(value) for kind, value in output["data"].items()},
    }


def joined(outputs: list[Any]) -> list[Any]:
    """Outputs with one stream of each name, where its first part stood: a secret may be cut in two.

    nbclient's `coalesce_streams` does this too, in a time that grows with the square of a line's length.
    """
    parts: dict[str, list[str]] = {}
    found: list[Any] = []
    for output in outputs:
        if output["output_type"] != "stream":
            found.append(output)
        elif output["name"] in parts:
            parts[output["name"]].append(output["text"])
        else:
            parts[output["name"]] = [output["text"]]
            found.append(dict(output))
    for output in found:
        if output["output_type"] == "stream":
            output["text"] = _overwritten("".join(parts[output["name"]]))
    return found


def _overwritten(said: str) -> str:
    """Text as a terminal shows it: what stands before a carriage return is gone."""
    if "\r" not in said:
        return said
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in said.split("\n"))
