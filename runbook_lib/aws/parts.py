"""In which parts was an object uploaded? GetObjectAttributes says it, a thousand parts at once; else a HEAD each.

S3 lists the parts where they have checksums of their own, as those of a composite checksum do (S3 API reference,
GetObjectAttributesParts).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lxml import etree

from .wire import Refused, Torn, Wire, attempts

# Denied by the policy, or not known to what stands before S3, or to what is not S3: then it is a HEAD a part, which
# needs no more than s3:GetObject.
WITHOUT = {400, 403, 405, 501}


@dataclass(frozen=True)
class Page:
    """Some of an object's parts, in order."""

    etag: str
    count: int | None  # parts in all; None: it was not uploaded in parts
    sizes: tuple[int, ...]  # bytes; of a thousand parts at most
    next: int | None  # behind which part the next page begins; None: this was the last


class Parts:
    """Asks for the sizes of parts; as many threads as like may."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._paged = True

    def sizes(self, name: str) -> list[int]:
        """The bytes of each part of an object; none when it is gone, changing, or was not uploaded in parts."""
        found = self._listed(name) if self._paged else None
        return self._headed(name) if found is None else found

    def _listed(self, name: str) -> list[int] | None:
        """Page by page; None when that cannot be had."""
        what = f"the parts of s3://{self._wire.door.bucket}/{name}"
        sizes: list[int] = []
        etags: set[str] = set()
        after: int | None = 0
        while after is not None:
            try:
                page = attempts(partial(self._page, name, after), self._wire.again, what)
            except Refused as refused:
                if refused.status not in WITHOUT or refused.kind == "expired":
                    raise
                page = None
            if page is None:
                self._paged = False
                return None
            if page.count is None:
                return []
            if not page.sizes:
                return None
            sizes += page.sizes
            etags.add(page.etag)
            if len(etags) > 1:
                return []
            after = page.next
        return sizes

    def _page(self, name: str, after: int) -> Page | None:
        body = self._wire.attributes(name, after)
        return Page("", None, (), None) if body is None else read(body, after)

    def _headed(self, name: str) -> list[int]:
        first = self._wire.head(name, part=1)
        if first is None:
            return []
        count, size = int(first.headers.get("x-amz-mp-parts-count", 1)), int(first.headers["content-length"])
        if count == 1:
            return [size] if "x-amz-mp-parts-count" in first.headers else []
        others = [self._wire.head(name, part=number) for number in range(2, count + 1)]
        return [] if None in others else [size, *(int(one.headers["content-length"]) for one in others if one)]


def read(body: bytes, after: int) -> Page | None:
    """A page's values; None when it is none (the object itself, say), `Torn` when it is not whole."""
    if b"<GetObjectAttributes" not in body[:500]:
        return None
    try:
        root = etree.fromstring(body)
        said = root.findtext("{*}ObjectParts/{*}PartsCount")
        sizes = tuple(int(size.text or "") for size in root.iterfind("{*}ObjectParts/{*}Part/{*}Size"))
        more = root.findtext("{*}ObjectParts/{*}IsTruncated") == "true"
        following = int(root.findtext("{*}ObjectParts/{*}NextPartNumberMarker") or "") if more and sizes else None
    except (etree.XMLSyntaxError, ValueError) as error:
        raise Torn(f"a page of parts that cannot be read ({error})") from error
    if following is not None and following <= after:
        raise Torn(f"a page of parts that goes from {after} back to {following}")
    return Page((root.findtext("{*}ETag") or "").strip('"'), None if said is None else int(said), sizes, following)
