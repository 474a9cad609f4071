"""Which names are the same but for their case or their Unicode form? In memory that does not grow with them.

Case is compared as file systems that ignore it do, letter by letter ('ß' is not 'ss'). Hashes of folded names, kept in
fixed memory, tell who may have another spelling; these few are sorted by their folded names, and looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import differences as d
from .differences import Mask
from .folding import RESPELLED, TWINS, Folding
from .lines import read
from .reading import Inventory
from .runs import KEY, is_ascii, merged, whole
from .seen import Hashes, Seen, SeenTwice
from .spilled import Spilled

ALONE = pa.array([d.MISSING, d.EXTRA])
NAMED = ["key", "spelled", *d.DIFFERENCES.names[1:]]  # a line whose `key` is its folded name
BY_NAME = [*KEY, ("difference", "ascending"), ("spelled", "ascending")]
LINE, TWIN, PAIR = range(3)  # where a line comes from
FROM = d.DIFFERENCES.append(pa.field("from", pa.int8()))


def may_collide(keys: pa.Array) -> bool:
    """Whether another name could differ from one of these by case or form only: not when all is plain lower case."""
    return not (is_ascii(keys) and pc.ascii_lower(keys).equals(keys))


def decomposed(keys: pa.Array) -> int:
    """How many are not in Unicode's composed form (NFC): S3 keeps them so, and other systems may look for the other."""
    if is_ascii(keys):
        return 0
    odd = keys.filter(pc.invert(pc.string_is_ascii(keys)))
    return int(pc.sum(pc.not_equal(odd, pc.utf8_normalize(odd, "NFC"))).as_py() or 0)


def twins(source: Inventory, folder: Path) -> Iterator[pa.RecordBatch]:
    """Keys of one side of which another one differs by case or Unicode form only; lines of the result, in order."""
    lines = Spilled(folder / "twins", d.ORDER)
    for batch in _alike(source, folder / "alike").batches():
        same = _same_as_before(batch, "key")
        chosen = np.flatnonzero(same | np.append(same[1:], False))
        lines.write(_respelled(batch.take(chosen), batch.take(np.where(same, -1, 1)[chosen] + chosen)))
    return lines.batches()


def _alike(source: Inventory, folder: Path) -> Spilled:
    """By folded name: keys of which another one may have the same, and a few more."""
    suspects, twice = Spilled(folder, BY_NAME), SeenTwice()
    with Folding(TWINS) as folding:
        for batch in source.batches(["key"]):
            twice.add(folding.hashes(batch.column("key")))
        for batch in source.batches(["key", "kind", "size"]):
            some = batch.filter(pa.array(twice.has(folding.hashes(batch.column("key")))))
            for lines in d.said(d.SAME_BUT_CASE, some, None, fails=False).to_batches():
                suspects.write(_named(some.column("key"), lines, folding))
    return suspects


def pairs(found: Path, folder: Path) -> Iterator[pa.RecordBatch]:
    """Of a file of lines, what is missing and extra under two spellings, in order: a line for each two.

    The line has the missing key; the extra key comes as an `extra` line. `told` puts them in the place of both.
    """
    lines = Spilled(folder / "pairs", d.ORDER)
    for batch in _apart(found, folder / "apart").batches():
        mine, theirs = _paired(batch)
        lines.write(_respelled(mine, theirs))
        lines.write(pa.RecordBatch.from_arrays(theirs.columns[1:], schema=d.DIFFERENCES))
    return lines.batches()


def _apart(found: Path, folder: Path) -> Spilled:
    """By folded name: what is missing where the same may be extra, the other way round, and a few more."""
    suspects, missing, extra = Spilled(folder, BY_NAME), Seen(), Seen()
    with Folding(RESPELLED) as folding:
        for _, hashes, ours in _alone(found, folding):
            missing.add(hashes[ours])
            extra.add(hashes[~ours])
        for batch, hashes, ours in _alone(found, folding):
            some = batch.filter(pa.array(np.where(ours, extra.has(hashes), missing.has(hashes))))
            suspects.write(_named(_bare(some.column("key")), some, folding))
    return suspects


def told(
    lines: Iterator[pa.RecordBatch], twins: Iterator[pa.RecordBatch], pairs: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The lines in order, with twins between them; what is missing and extra under two spellings is one line."""
    runs = [whole(_from(place, run)) for place, run in ((LINE, lines), (TWIN, twins), (PAIR, pairs))]
    for batch in merged(runs, [*d.ORDER, ("from", "descending")]):
        of = np.asarray(batch.column("from"))
        paired = pc.is_in(batch.column("key"), value_set=batch.column("key").filter(pa.array(of == PAIR)))
        gone = pc.and_(paired, pc.is_in(batch.column("difference"), value_set=ALONE))
        said = _same_as_before(batch, "key") & _same_as_before(batch, "difference") & (of == TWIN)
        kept = batch.filter(pc.invert(pc.or_(gone, pa.array(said))))
        yield pa.RecordBatch.from_arrays(kept.columns[:-1], schema=d.DIFFERENCES)


def _alone(found: Path, folding: Folding) -> Iterator[tuple[pa.RecordBatch, Hashes, Mask]]:
    """What is on one side only, with the hashes of its folded names, and whether it is missing."""
    for batch in read(found):
        some = batch.filter(pc.is_in(batch.column("difference"), value_set=ALONE))
        missing = pc.equal(some.column("difference"), d.MISSING).to_numpy(zero_copy_only=False)
        yield some, folding.hashes(_bare(some.column("key"))), missing


def _bare(keys: pa.Array) -> pa.Array:
    return pc.ascii_rtrim(keys, "/")


def _named(names: pa.Array, lines: pa.RecordBatch, folding: Folding) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([folding.names(names), *lines.columns], NAMED)


def _paired(rows: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Of whole names in order, the first missing and the first extra of each, the second ones, and so on."""
    at = np.arange(rows.num_rows)
    same = _same_as_before(rows, "key")
    begins = ~(same & _same_as_before(rows, "difference"))
    number = at - np.maximum.accumulate(np.where(begins, at, 0))
    code = np.cumsum(~same) * rows.num_rows + number
    missing = pc.equal(rows.column("difference"), d.MISSING).to_numpy(zero_copy_only=False)
    mine, theirs = np.flatnonzero(missing), np.flatnonzero(~missing)
    _, ours, others = np.intersect1d(code[mine], code[theirs], assume_unique=True, return_indices=True)
    return rows.take(mine[ours]), rows.take(theirs[others])


def _respelled(rows: pa.RecordBatch, others: pa.RecordBatch) -> pa.RecordBatch:
    """A line for each two of the same folded name."""
    keys, spelled = rows.column("spelled"), others.column("spelled")
    mine, theirs = _bare(keys), _bare(spelled)
    form = pc.equal(pc.utf8_normalize(mine, "NFC"), pc.utf8_normalize(theirs, "NFC"))
    but = pc.if_else(pc.equal(mine, theirs), d.KIND, pc.if_else(form, d.SAME_BUT_FORM, d.SAME_BUT_CASE))
    fails, kind, size = (rows.column(name) for name in ("fails", "kind", "source_bytes"))
    columns = [keys, but, fails, kind, keys, spelled, size, others.column("other_bytes")]
    return pa.RecordBatch.from_arrays(columns, schema=d.DIFFERENCES)


def _from(place: int, run: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in run:
        yield pa.RecordBatch.from_arrays([*batch.columns, pa.repeat(np.int8(place), batch.num_rows)], schema=FROM)


def _same_as_before(rows: pa.RecordBatch, name: str) -> Any:
    """Whether a column has the value of the row before."""
    column = rows.column(name)
    return np.append(False, pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False))
