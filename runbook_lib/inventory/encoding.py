"""How do rows travel from a scanning or listing process to ours? As blocks of columns, in Arrow's own layout.

A stream is a first line `{"runbook": "blocks", …}`, then frames: a line of JSON, and where that has a `length`, so many
bytes of payload. A frame is a block of rows of one shard, the end of a shard, a word on the way (`facts`), an error,
or the end of the stream, without which it is torn. `blocks.py` reads it.

Sent to the application server as it is: the standard library only, Python 3.6 or newer.
"""
# ruff: noqa: UP006, UP035, UP045

import json
import sys
import zlib
from array import array
from itertools import accumulate, chain
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

FORMAT = 1
ALIGNED = 8  # every buffer begins at a multiple of this
Column = List[bytes]  # validity (empty: nothing is null), values; of strings: validity, offsets, text


def numbers(code: str, values: Iterable[int], nulls: Iterable[int] = (), rows: int = 0) -> Column:
    """A column of integers: `code` is array's (b, i, q); `nulls` are the rows, of `rows`, that have no value."""
    made = values if isinstance(values, array) else array(code, list(values))  # of a list it is made three times faster
    if sys.byteorder == "big":
        made = array(code, made)
        made.byteswap()
    return [_validity(rows, nulls), made.tobytes()]


def some_numbers(code: str, rows: int, values: Mapping[int, int]) -> Optional[Column]:
    """A column that is null but for a few rows; None (leave it out) when there are none."""
    if not values:
        return None
    made = array(code, bytes(rows * array(code).itemsize))
    for row, value in values.items():
        made[row] = value
    return [_present(rows, values), numbers(code, made)[1]]


def strings(values: Sequence[bytes], nulls: Iterable[int] = ()) -> Column:
    """A column of strings; the rows in `nulls` should be b""."""
    offsets = numbers("i", accumulate(chain((0,), map(len, values))))[1]
    return [_validity(len(values), nulls), offsets, b"".join(values)]


def some_strings(rows: int, values: Mapping[int, bytes]) -> Optional[Column]:
    """A column of strings that is null but for a few rows; None (leave it out) when there are none."""
    if not values:
        return None
    column = strings([values.get(row, b"") for row in range(rows)])
    return [_present(rows, values), *column[1:]]


def _validity(rows: int, nulls: Iterable[int]) -> bytes:
    bits = bytearray()
    for row in nulls:
        bits = bits or bytearray(b"\xff" * ((rows + 7) // 8))
        bits[row >> 3] &= ~(1 << (row & 7)) & 0xFF
    return bytes(bits)


def _present(rows: int, there: Iterable[int]) -> bytes:
    bits = bytearray((rows + 7) // 8)
    for row in there:
        bits[row >> 3] |= 1 << (row & 7)
    return bytes(bits)


def encode(shard: str, rows: int, columns: Mapping[str, Optional[Column]], compress: int = 0) -> bytes:
    """One block of a shard's rows; columns as in `schema.SCHEMA` (`kind` as its int8 codes), None or left out: null."""
    layout: Dict[str, List[int]] = {}
    pieces: List[bytes] = []
    for name, buffers in columns.items():
        if buffers is not None:
            layout[name] = [len(buffer) for buffer in buffers]
            for buffer in buffers:
                pieces += [buffer, b"\0" * (-len(buffer) % ALIGNED)]
    payload = b"".join(pieces)
    return frame(payload, compress, shard=shard, rows=rows, columns=layout)


def frame(payload: bytes, compress: int = 0, **header: Any) -> bytes:
    """A header line and its payload; what is compressed, for it crosses a network, has zlib's own checksum."""
    sent = zlib.compress(payload, compress) if compress else payload
    header.update(size=len(payload), length=len(sent), zlib=bool(compress))
    return json.dumps(header).encode() + b"\n" + sent


def begin() -> bytes:
    """The stream's first line."""
    return json.dumps({"runbook": "blocks", "format": FORMAT}).encode() + b"\n"


def say(shard: str = "", **facts: Any) -> bytes:
    """A word on the way: a plan, how far it is."""
    return json.dumps({"shard": shard, "facts": facts}).encode() + b"\n"


def end_of_shard(shard: str, **facts: Any) -> bytes:
    """All rows of this shard have been written."""
    return json.dumps({"shard": shard, "end": True, "facts": facts}).encode() + b"\n"


def failure(message: str) -> bytes:
    """Why the stream ends here without its end; `message` says what to do next."""
    return json.dumps({"error": message}).encode() + b"\n"


def end_of_stream() -> bytes:
    """Nothing comes after this."""
    return b'{"end of stream": true}\n'
