"""Which bytes is a page of LIST? Objects rendered once and cut by prefix, delimiter, start and limit."""

from __future__ import annotations

import base64
import hashlib
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from runbook_lib.lab.s3_xml import DECLARATION, NAMESPACE, escape, iso_time, url_encode

_PLAIN = re.compile(rb"[A-Za-z0-9/_.-]*")
BEYOND = b"\xff"  # after every byte of UTF-8: prefix + BEYOND sorts behind all keys with that prefix


class Object(NamedTuple):
    """What the bucket holds under a key; without a body it is `size` zeros."""

    key: str
    size: int = 0
    modified: float = 1_750_000_000  # seconds since 1970
    body: bytes | None = None
    metadata: Mapping[str, str] = {}
    checksums: Mapping[str, str] = {}
    checksum_type: str = "FULL_OBJECT"
    etag: str | None = None  # without quotes; None: of the body, where there is one
    storage_class: str = "STANDARD"
    encryption: str | None = None  # aws:kms …
    parts: tuple[int, ...] = ()  # bytes of each part of a multipart upload

    @property
    def entity_tag(self) -> str:
        """The ETag; of bodies that are made up something that looks like one."""
        return self.etag or hashlib.md5(self.key.encode() if self.body is None else self.body).hexdigest()

    @property
    def length(self) -> int:
        """Bytes."""
        return self.size if self.body is None else len(self.body)


@dataclass(frozen=True)
class Query:
    """What a LIST asks for."""

    prefix: bytes = b""
    after: bytes = b""
    delimiter: bytes = b""
    limit: int = 1000
    encoded: bool = False


@dataclass(frozen=True)
class Page:
    """Runs of entries, common prefixes, and where the next page begins (None: this was the last)."""

    runs: list[tuple[int, int]]
    prefixes: list[bytes]
    following: bytes | None

    @property
    def count(self) -> int:
        """Keys and common prefixes, as in KeyCount."""
        return sum(stop - start for start, stop in self.runs) + len(self.prefixes)


@dataclass
class Rendered:
    """All entries in one piece, and where each begins."""

    text: memoryview
    begins: array[int] = field(repr=False)

    def cut(self, start: int, stop: int) -> memoryview:
        """The entries start … stop."""
        return self.text[self.begins[start] : self.begins[stop]]


class Bucket:
    """Objects in the order of their keys' bytes."""

    def __init__(self, objects: Iterable[Object | tuple[str, int] | tuple[str, int, float]]) -> None:
        whole = (each if isinstance(each, Object) else Object(*each) for each in objects)
        self.objects = sorted(whole, key=lambda each: each.key.encode())
        self.keys = [each.key.encode() for each in self.objects]
        self._rendered: dict[bool, Rendered] = {}
        self._plain = all(map(_PLAIN.fullmatch, self.keys))

    def get(self, key: str) -> Object | None:
        """The object with that key."""
        sought = key.encode()
        at = bisect_left(self.keys, sought)
        return self.objects[at] if at < len(self.keys) and self.keys[at] == sought else None

    def page(self, query: Query) -> Page:
        """What LIST answers, as positions."""
        keys, prefix = self.keys, query.prefix
        start = max(bisect_left(keys, prefix), bisect_right(keys, query.after))
        stop = bisect_left(keys, prefix + BEYOND)
        if not query.delimiter:
            end = max(start, min(start + query.limit, stop))
            return Page([(start, end)], [], keys[end - 1] if start < end < stop else None)
        return self._folded(query, start, stop)

    def _folded(self, query: Query, start: int, stop: int) -> Page:
        keys, delimiter, skipped = self.keys, query.delimiter, len(query.prefix)
        runs: list[tuple[int, int]] = []
        prefixes: list[bytes] = []
        began, count, last = start, 0, b""
        while start < stop and count < query.limit:
            found = keys[start].find(delimiter, skipped)
            if found < 0:
                last = keys[start]
                start += 1
            else:
                runs.append((began, start))
                prefixes.append(keys[start][: found + len(delimiter)])
                last = prefixes[-1] + BEYOND
                began = start = bisect_left(keys, last, start, stop)
            count += 1
        runs.append((began, start))
        return Page([run for run in runs if run[0] < run[1]], prefixes, last if start < stop and last else None)

    def rendered(self, encoded: bool) -> Rendered:
        """All entries as XML; `encoded`: keys as encoding-type=url has them."""
        encoded = encoded or self._plain  # then no key is spelt differently
        if encoded not in self._rendered:
            spell = url_encode if encoded else escape
            pieces = [_entry(each, spell) for each in self.objects]
            begins = array("q", accumulate(map(len, pieces), initial=0))
            self._rendered[encoded] = Rendered(memoryview(b"".join(pieces)), begins)
        return self._rendered[encoded]


def _entry(each: Object, spell: Callable[[str], str]) -> bytes:
    """One <Contents>, its elements in AWS's order."""
    algorithms = "".join(f"<ChecksumAlgorithm>{name}</ChecksumAlgorithm>" for name in each.checksums or ("CRC64NVME",))
    return (
        f"<Contents><Key>{spell(each.key)}</Key><LastModified>{iso_time(each.modified)}</LastModified>"
        f"<ETag>&quot;{each.entity_tag}&quot;</ETag>{algorithms}<ChecksumType>{each.checksum_type}</ChecksumType>"
        f"<Size>{each.length}</Size><StorageClass>{each.storage_class}</StorageClass></Contents>"
    ).encode()


def body(bucket: Bucket, name: str, asked: Mapping[str, str], query: Query, page: Page) -> list[bytes | memoryview]:
    """The answer to a LIST, in pieces: version 2 where `list-type=2` was asked."""
    spell = url_encode if query.encoded else escape
    head = [f"<Name>{escape(name)}</Name><Prefix>{spell(query.prefix.decode())}</Prefix>"]
    if asked.get("list-type") == "2":
        head.append(f"<KeyCount>{page.count}</KeyCount>")
        for sent, shown in (("start-after", "StartAfter"), ("continuation-token", "ContinuationToken")):
            if sent in asked:
                head.append(f"<{shown}>{spell(asked[sent])}</{shown}>")
        if page.following is not None:
            head.append(f"<NextContinuationToken>{token(page.following)}</NextContinuationToken>")
    else:
        head.append(f"<Marker>{spell(asked.get('marker', ''))}</Marker>")
        if page.following is not None and query.delimiter:
            head.append(f"<NextMarker>{spell(page.following.removesuffix(BEYOND).decode())}</NextMarker>")
    if query.delimiter:
        head.append(f"<Delimiter>{spell(query.delimiter.decode())}</Delimiter>")
    if query.encoded:
        head.append("<EncodingType>url</EncodingType>")
    truncated = "false" if page.following is None else "true"
    head.append(f"<MaxKeys>{query.limit}</MaxKeys><IsTruncated>{truncated}</IsTruncated>")
    folded = "".join(
        f"<CommonPrefixes><Prefix>{spell(each.decode())}</Prefix></CommonPrefixes>" for each in page.prefixes
    )
    entries = bucket.rendered(query.encoded)
    return [
        f'{DECLARATION}<ListBucketResult xmlns="{NAMESPACE}">{"".join(head)}'.encode(),
        *(entries.cut(*run) for run in page.runs),
        f"{folded}</ListBucketResult>".encode(),
    ]


def token(following: bytes) -> str:
    """A continuation token: opaque to clients."""
    return base64.b64encode(following).decode()


def asked_of(parameters: Mapping[str, str]) -> Query:
    """The query of a LIST's parameters; ValueError: a token that is not ours."""
    delimiter = parameters.get("delimiter", "").encode()
    if "continuation-token" in parameters:
        after = base64.b64decode(parameters["continuation-token"], validate=True)
    else:
        after = parameters.get("start-after", parameters.get("marker", "")).encode()
        if "marker" in parameters and delimiter and after.endswith(delimiter):
            after += BEYOND  # a NextMarker that is a common prefix
    return Query(
        prefix=parameters.get("prefix", "").encode(),
        after=after,
        delimiter=delimiter,
        limit=min(1000, int(parameters.get("max-keys", "1000"))),
        encoded=parameters.get("encoding-type") == "url",
    )
