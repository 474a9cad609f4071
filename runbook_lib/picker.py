"""Which one is meant: a picker for a person at the keyboard; a parameter always wins; headless never asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .display import mode
from .errors import Ambiguous

Found = TypeVar("Found")

_chosen: dict[str, Any] = {}  # what was picked in this kernel, by what was asked


class ChooseFirst(Ambiguous):
    """A picker is on the screen: choose, then run the cell again."""


def pick(
    noun: str, name: str | None, find: Callable[[str | None], Found], candidates: Callable[[], list[str]]
) -> Found:
    """Find by name; when several fit and a person is there, show a picker and stop the cell until one is chosen."""
    try:
        return find(name or _chosen.get(noun))
    except Ambiguous:
        if mode() == "static":
            raise
    import ipywidgets  # only when a person is there
    from IPython.display import display

    options = [("choose…", None), *((candidate, candidate) for candidate in candidates())]
    dropdown = ipywidgets.Dropdown(options=options, description=noun, style={"description_width": "initial"})
    dropdown.observe(lambda change: _chosen.__setitem__(noun, change["new"]), names="value")
    display(dropdown)  # type: ignore[no-untyped-call]
    raise ChooseFirst(f"There are several: choose the {noun} in the list above, then run this cell again.")
