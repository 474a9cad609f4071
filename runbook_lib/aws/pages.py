"""What does a page of ListObjectsV2 say? Its keys and values as columns; with guards against a page that lies."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, repeat
from typing import Any
from urllib.parse import unquote_plus

from lxml import etree

from ..inventory.encoding import Column, encode, numbers, some_strings
from .plain_pages import entries
from .wire import Door, Torn, refuse

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
STANDARD = b"<StorageClass>STANDARD</StorageClass>"
VALUES = ("Key", "LastModified", "ETag", "Size", "StorageClass")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_mine = threading.local()


@dataclass
class Page:
    """One page; keys are relative to the listed prefix."""

    keys: list[str]
    modified: list[str]
    etags: list[str]
    sizes: list[str]
    classes: list[str]
    folders: list[str]  # common prefixes, when a delimiter was asked for
    token: str | None  # where the next page begins


class _Reader:
    """A parser and compiled expressions: lxml's are for one thread."""

    def __init__(self) -> None:
        self.parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True, remove_blank_text=False)
        self.found = {
            space: {name: self._texts(space, name) for name in VALUES} for space in (NAMESPACE, "")
        }  # fmt: skip

    @staticmethod
    def _texts(space: str, name: str) -> Any:
        path = f"s:Contents/s:{name}/text()" if space else f"Contents/{name}/text()"
        return etree.XPath(path, namespaces={"s": space} if space else None, smart_strings=False)


def read(body: bytes, prefix: str, door: Door) -> Page:
    """A page's values; `Torn` when it is not whole or not what it counts, `wire.Refused` when it is an error."""
    plain = entries(body)
    root = _parsed(body if plain is None else plain[0])
    name = etree.QName(root)
    if name.localname == "Error":
        refuse("LIST", door, 200, root.findtext("{*}Code") or "", root.findtext("{*}Message") or "")
    if name.localname != "ListBucketResult":
        raise Torn(f"a page that begins as {name.localname}, not as ListBucketResult")
    if plain is not None and root.getroottree().docinfo.encoding in ("UTF-8", None):
        return _page(root, name.namespace, prefix, plain[1])
    root = root if plain is None else _parsed(body)
    return _page(root, name.namespace, prefix, _columns(root, name.namespace, body.count(STANDARD)))


def _parsed(body: bytes) -> Any:
    if not hasattr(_mine, "reader"):
        _mine.reader = _Reader()
    try:
        return etree.fromstring(body, _mine.reader.parser)
    except etree.XMLSyntaxError as error:
        raise Torn(f"a page that is not XML to its end ({error})") from error


def _columns(root: Any, space: str | None, standard: int) -> list[list[str]]:
    """The values of all entries; without the classes when as many are STANDARD as there are keys."""
    tag, found = f"{{{space}}}" if space else "", _mine.reader.found.get(space or "")
    count = int(root.findtext(f"{tag}KeyCount") or -1) - len(root.findall(f"{tag}CommonPrefixes"))
    wanted = VALUES[:-1] if standard == count else VALUES
    columns = [found[value](root) for value in wanted] if found else [[]]
    if {len(column) for column in columns} == {count}:
        return columns
    # Some element is empty or missing: other servers leave out the ETag or the storage class.
    rows = [[item.findtext(f"{tag}{value}") or "" for value in VALUES] for item in root.iterfind(f"{tag}Contents")]
    return [[row[at] for row in rows] for at in range(len(VALUES))]


def _page(root: Any, space: str | None, prefix: str, columns: list[list[str]]) -> Page:
    tag = f"{{{space}}}" if space else ""
    folders = [element.findtext(f"{tag}Prefix") or "" for element in root.iterfind(f"{tag}CommonPrefixes")]
    said = int(root.findtext(f"{tag}KeyCount") or -1)
    if len(columns[0]) + len(folders) != said:
        raise Torn(f"a page that counts {said} keys and has {len(columns[0]) + len(folders)}")
    keys = columns[0]
    if root.findtext(f"{tag}EncodingType") == "url":
        keys, folders = _decoded(keys), _decoded(folders)
    token = root.findtext(f"{tag}NextContinuationToken")
    if root.findtext(f"{tag}IsTruncated") == "true" and not token:
        raise Torn("a page that is not the last one and does not say where the next begins")
    if any(not key.startswith(prefix) for key in keys[:1] + keys[-1:]):
        raise Torn(f"a page with keys that do not begin with {prefix!r}")
    cut = len(prefix)
    relative = [key[cut:] for key in keys] if cut else keys
    modified, etags, sizes = columns[1:4]
    classes = columns[4] if len(columns) > 4 else []  # all are STANDARD
    return Page(relative, modified, etags, sizes, classes, [folder[cut:] for folder in folders], token)


def _decoded(keys: list[str]) -> list[str]:
    joined = "".join(keys)
    if "%" not in joined and "+" not in joined:
        return keys
    return [unquote_plus(key) if "%" in key or "+" in key else key for key in keys]


def up_to(page: Page, last: str | None) -> bool:
    """Cut the page after the key `last`; True when it reached beyond it."""
    if last is None or not page.keys or page.keys[-1] < last:
        return False
    at = bisect_right(page.keys, last)
    for column in (page.keys, page.modified, page.etags, page.sizes, page.classes):
        del column[at:]
    return True


def microseconds(stamp: str) -> int:
    """An ISO time with its zone as microseconds since 1970."""
    moment = datetime.fromisoformat(stamp)
    if moment.tzinfo is None:
        raise ValueError(f"{stamp!r} has no time zone")
    return (moment - EPOCH) // MICROSECOND


class Rows:
    """Rows of pages on their way to a block: already bytes, so that many threads can hold some."""

    def __init__(self) -> None:
        self.count = 0
        self._keys: list[bytes] = []
        self._lengths = array("i")
        self._kinds = bytearray()
        self._sizes: list[bytes] = []
        self._modified: list[bytes] = []
        self._etags: list[bytes] = []
        self._etag_lengths = array("i")
        self._classes: dict[int, bytes] = {}

    def add(self, page: Page) -> None:
        """A page's rows."""
        keys = page.keys
        sizes = list(map(int, page.sizes))
        folders = bytes(len(keys))
        if "/\n" in "\n".join((*keys, "")):  # otherwise there is none
            folders = bytes(map(str.endswith, keys, repeat("/")))
            sizes = [0 if folder else size for folder, size in zip(folders, sizes, strict=True)]
        self._kinds += folders
        text = "".join(keys).encode()
        self._keys.append(text)
        self._lengths.extend(_lengths(keys if text.isascii() else [key.encode() for key in keys]))
        moments = {stamp: microseconds(stamp) for stamp in set(page.modified)}  # whole seconds: they repeat
        self._sizes.append(numbers("q", sizes)[1])
        self._modified.append(numbers("q", map(moments.__getitem__, page.modified))[1])
        etags = "".join(page.etags)
        each = page.etags if '"' not in etags else [etag.strip('"') for etag in page.etags]
        self._etags.append("".join(each).encode())
        self._etag_lengths.extend(_lengths(each))
        if set(page.classes) - {"STANDARD", ""}:
            odd = ((row, name) for row, name in enumerate(page.classes) if name not in ("STANDARD", ""))
            self._classes.update((self.count + row, name.encode()) for row, name in odd)
        self.count += len(page.keys)

    def encoded(self, shard: str) -> bytes:
        """These rows as a block."""
        columns: dict[str, Column | None] = {
            "key": _strings(self._lengths, self._keys),
            "kind": [b"", bytes(self._kinds)],
            "size": [b"", b"".join(self._sizes)],
            "last_modified_us": [b"", b"".join(self._modified)],
            "etag": _strings(self._etag_lengths, self._etags),
            "storage_class": some_strings(self.count, self._classes),
        }
        return encode(shard, self.count, columns)


def _lengths(texts: Sequence[str | bytes]) -> array[int]:
    """How long each is."""
    lengths = list(map(len, texts))
    return array("i", lengths)


def _strings(lengths: Iterable[int], texts: list[bytes]) -> Column:
    offsets = numbers("i", accumulate(lengths, initial=0))[1]
    return [b"", offsets, b"".join(texts)]
