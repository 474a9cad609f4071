"""Which rows take part in a comparison? A task's filters, applied to whole columns."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from ..filters import Filters, Pattern
from .entries import METADATA_KEY
from .runs import below, one, up_to


class Scope:
    """Lets through what the filters do, and counts the rest; DataSync's own object is counted apart."""

    def __init__(self, filters: Filters | None) -> None:
        self._includes = _expression(filters.includes) if filters else None
        self._excludes = _expression(filters.excludes) if filters else None
        self.left_out = 0
        self.datasync_objects = 0

    def inside(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that take part; they are in order of their keys."""
        keys = batch.column("key")
        begin, end = below(keys, METADATA_KEY), up_to(keys, METADATA_KEY)
        if begin < end:
            self.datasync_objects += 1
            batch = one([batch.slice(0, begin), batch.slice(end)])
            keys = batch.column("key")
        if not (self._includes or self._excludes) or not batch.num_rows:
            return batch
        wanted = self._wanted(keys)
        self.left_out += batch.num_rows - pc.sum(wanted).as_py()
        return batch.filter(wanted)

    def _wanted(self, keys: pa.Array) -> pa.Array:
        folders = pc.ends_with(keys, "/")
        paths = pc.if_else(folders, pc.utf8_slice_codeunits(keys, start=0, stop=-1), keys)
        paths = pc.binary_join_element_wise("", paths, "/")
        wanted = pc.match_substring_regex(paths, self._includes) if self._includes else pa.repeat(True, len(keys))
        if self._excludes:
            wanted = pc.and_(wanted, pc.invert(pc.match_substring_regex(paths, self._excludes)))
        return wanted


def _expression(patterns: list[Pattern]) -> str | None:
    """The patterns as one expression for RE2, which never goes back and so has no atomic groups."""
    if not patterns:
        return None
    texts = [pattern.expression.pattern.replace("(?>", "(?:").replace(r"\Z", r"\z") for pattern in patterns]
    return f"(?s)\\A(?:{'|'.join(texts)})"
