"""What did a scanning or listing process see? Its blocks of columns as Arrow batches, no value touched in Python.

`encoding.py` has the format and writes it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from ..errors import CommandFailed, TornStream
from .encoding import ALIGNED, FORMAT
from .runs import nulls
from .schema import KINDS, SCHEMA

LONGEST_HEADER = 64 * 1024 * 1024  # bytes; a plan of many shards is the longest
ADVICE = "Was the process stopped, or the connection lost? Run it again: finished shards are kept."


@dataclass(frozen=True)
class Block:
    """One frame of a stream: rows of a shard, the end of one (`end`), or only facts."""

    shard: str
    batch: pa.RecordBatch | None
    end: bool = False
    facts: dict[str, Any] = field(default_factory=dict)


def read_blocks(stream: IO[bytes]) -> Iterator[Block]:
    """The frames of a stream up to its end; raises `TornStream`, or `CommandFailed` with what the other end says."""
    first = _header(stream)
    if first.get("runbook") != "blocks":
        raise TornStream(f"The answer does not begin as a stream of blocks but with {str(first)[:200]}. {ADVICE}")
    if first["format"] != FORMAT:
        raise TornStream(f"The stream has format {first['format']}, this runbook reads {FORMAT}: update the older one.")
    while True:
        header = _header(stream)
        if "end of stream" in header:
            return
        if "error" in header:
            raise CommandFailed(header["error"])
        if "length" not in header:
            yield Block(header["shard"], None, header.get("end", False), header["facts"])
        else:
            yield Block(header["shard"], _batch(header, _payload(stream, header)))


def _header(stream: IO[bytes]) -> dict[str, Any]:
    line = stream.readline(LONGEST_HEADER)
    try:
        header = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        header = None
    if not isinstance(header, dict):
        got = f"{line[:200]!r} stands where a frame should begin" if line else "it ends without its end"
        raise TornStream(f"The stream of blocks is torn: {got}. {ADVICE}")
    return header


def _payload(stream: IO[bytes], header: dict[str, Any]) -> bytes:
    """The bytes of one block, checked."""
    payload = stream.read(header["length"])
    if len(payload) < header["length"]:
        raise TornStream(f"The stream of blocks is torn: {len(payload)} of {header['length']} bytes came. {ADVICE}")
    try:
        payload = zlib.decompress(payload) if header["zlib"] else payload
    except zlib.error as error:
        raise TornStream(f"A block of shard {header['shard']} is damaged ({error}). {ADVICE}") from error
    if len(payload) != header["size"]:
        raise TornStream(f"A block of shard {header['shard']} is damaged: its length is not right. {ADVICE}")
    return payload


def _batch(header: dict[str, Any], payload: bytes) -> pa.RecordBatch:
    """A record batch over the payload's own memory."""
    rows, at = header["rows"], 0
    buffer = pa.py_buffer(payload)
    buffers: dict[str, list[pa.Buffer | None]] = {}
    for name, lengths in header["columns"].items():
        found: list[pa.Buffer | None] = []
        for length in lengths:
            found.append(buffer.slice(at, length))
            at += length + -length % ALIGNED
        found[0] = found[0] if lengths[0] else None
        buffers[name] = found
    unknown = set(buffers) - set(SCHEMA.names)
    if unknown:
        raise TornStream(f"A block has columns that inventories do not have: {sorted(unknown)}. Update the older side.")
    batch = pa.RecordBatch.from_arrays([_column(one, rows, buffers.get(one.name)) for one in SCHEMA], schema=SCHEMA)
    batch.validate(full=True)
    return batch


def _column(one: pa.Field, rows: int, buffers: list[pa.Buffer | None] | None) -> pa.Array:
    if not buffers:
        return nulls(rows, one.type)
    if pa.types.is_dictionary(one.type):
        return pa.DictionaryArray.from_arrays(pa.Array.from_buffers(pa.int8(), rows, buffers), KINDS)
    return pa.Array.from_buffers(one.type, rows, buffers)
