"""Which entries has a page of LIST that is written exactly as S3 writes it? Read by one expression, not as XML.

Four times as fast as a tree, and proved on the bytes: the expression fixes every tag and its order, allows only
characters that XML and every encoding of S3 leave as they are, and what it found is as long as all that stands between
the first entry and the page's end. Where all entries are written like the first one, the expression need not even look
at the tags: written again from what it found, they are the same text. `pages.py` reads the rest of the page as XML, and
every other page as a whole.
"""

from __future__ import annotations

import re
from functools import cache

OPEN, CLOSE, END = b"<Contents>", b"</Contents>", b"</ListBucketResult>"
USUAL = "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
ENTRY = re.compile(
    "<Contents>"
    r"<Key>([!-%'-;=?-~]++)</Key>"  # printable, without & < >: with encoding-type=url all that S3 writes
    r"<LastModified>([-0-9T:.Z]++)</LastModified>"
    r"<ETag>&quot;([-0-9a-f]++)&quot;</ETag>"
    rf"({USUAL}|(?:<ChecksumAlgorithm>[A-Z0-9]++</ChecksumAlgorithm>)*+(?:<ChecksumType>[A-Z_]++</ChecksumType>)?+)"
    r"<Size>([0-9]{1,18}+)</Size>"
    r"<StorageClass>([A-Z_]++)</StorageClass>"
    "</Contents>"
)
FIXED = len(
    "<Contents><Key></Key><LastModified></LastModified><ETag>&quot;&quot;</ETag><Size></Size>"
    "<StorageClass></StorageClass></Contents>"
)


KEY, MODIFIED, ETAG = "<Contents><Key>", "</Key><LastModified>", "</LastModified><ETag>&quot;"
PLAIN = bytes(sorted({*range(0x20, 0x7F)} - {*b"&<>"}))  # characters that are no markup


def entries(body: bytes) -> tuple[bytes, list[list[str]]] | None:
    """The page without its entries, and their keys, times, ETags, sizes, classes; None: it is written otherwise."""
    start, stop = body.find(OPEN), body.rfind(CLOSE) + len(CLOSE)
    # What ends the page also closes its root: the entries stand directly in that, whatever is before them.
    if start < 0 or body[stop:] != END or b"<!" in body[:start] or not body[start:stop].isascii():
        return None
    text = body[start:stop].decode("ascii")
    columns = _alike(text) or _each(text)
    return None if columns is None else (body[:start] + END, columns)


def _alike(text: str) -> list[list[str]] | None:
    """The columns of entries that differ from the first one only in their values, with times and ETags as long."""
    like = ENTRY.match(text)
    if like is None:
        return None
    size, end = f"&quot;</ETag>{like[4]}<Size>", f"</Size><StorageClass>{like[6]}</StorageClass></Contents>"
    found = _jumping(len(like[2]), len(like[3]), len(size), len(end)).split(text)
    values = keys, modified, etags, sizes = [found[at::5] for at in range(1, 5)]
    again = [end + KEY, "", MODIFIED, "", ETAG, "", size, ""] * len(keys)
    for at, column in enumerate(values):
        again[2 * at + 1 :: 8] = column
    again[:1] = [KEY]
    if "".join([*again, end]) != text or "".join(found).encode().translate(None, PLAIN):
        return None
    return [keys, modified, etags, sizes, [like[6]] * len(keys)]


@cache
def _jumping(modified: int, etag: int, size: int, end: int) -> re.Pattern[str]:
    """Finds the values of entries whose other parts have these lengths, without a look at them."""
    over = rf".{{{len(MODIFIED)}}}(.{{{modified}}}).{{{len(ETAG)}}}(.{{{etag}}}).{{{size}}}([0-9]{{1,18}}+).{{{end}}}"
    return re.compile(f"{KEY}([^<]++){over}", re.DOTALL)


def _each(text: str) -> list[list[str]] | None:
    """The columns of entries of which each may have other checksums, another class, an ETag of another length."""
    found = ENTRY.findall(text)
    if len(text) != FIXED * len(found) + len("".join(map("".join, found))):
        return None
    keys, modified, etags, _, sizes, classes = map(list, zip(*found, strict=True))
    return [keys, modified, etags, sizes, classes]
