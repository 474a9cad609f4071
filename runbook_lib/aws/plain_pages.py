"""Which entries has a page of LIST that is written exactly as S3 writes it? Read by one expression, not as XML.

Four times as fast as a tree, and proved on the bytes: the expression fixes every tag and its order, allows only
characters that XML and every encoding of S3 leave as they are, and what it found is as long as all that stands between
the first entry and the page's end. `pages.py` reads the rest of the page as XML, and every other page as a whole.
"""

from __future__ import annotations

import re

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


def entries(body: bytes) -> tuple[bytes, list[list[str]]] | None:
    """The page without its entries, and their keys, times, ETags, sizes, classes; None: it is written otherwise."""
    start, stop = body.find(OPEN), body.rfind(CLOSE) + len(CLOSE)
    # What ends the page also closes its root: the entries stand directly in that, whatever is before them.
    if start < 0 or body[stop:] != END or b"<!" in body[:start] or not body[start:stop].isascii():
        return None
    text = body[start:stop].decode("ascii")
    found = ENTRY.findall(text)
    if len(text) != FIXED * len(found) + len("".join(map("".join, found))):
        return None
    keys, modified, etags, _, sizes, classes = map(list, zip(*found, strict=True))
    return body[:start] + END, [keys, modified, etags, sizes, classes]
