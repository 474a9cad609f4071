"""What is a name without its case and its Unicode form, and the hash of that? DuckDB says it of whole columns."""

from __future__ import annotations

import pyarrow as pa

from .seen import Hashes

# Of all names of one side, and of those that only one side has: these are composed before their case is folded, too
TWINS = "nfc_normalize(lower(name))"
RESPELLED = "nfc_normalize(lower(nfc_normalize(name)))"


class Folding:
    """One way to fold names."""

    def __init__(self, expression: str) -> None:
        import duckdb

        self._expression = expression
        self._database = duckdb.connect(config={"threads": 1})

    def names(self, names: pa.Array) -> pa.Array:
        """The folded names."""
        return self._said(self._expression, names)

    def hashes(self, names: pa.Array) -> Hashes:
        """Their hashes: equal where the folded names are."""
        hashes: Hashes = self._said(f"hash({self._expression})", names).to_numpy()
        return hashes

    def _said(self, expression: str, names: pa.Array) -> pa.Array:
        rows = self._database.from_arrow(pa.table({"name": names}))
        return rows.project(expression).to_arrow_table().column(0).combine_chunks()

    def __enter__(self) -> Folding:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()
