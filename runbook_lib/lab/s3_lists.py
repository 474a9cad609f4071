"""What is in a bucket? LIST in its three forms, in S3's order, written fast: a page is 1,000 keys."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .http import HttpRequest, HttpResponse
from .object_rows import StoredObject, successor
from .objects import ObjectStore
from .s3_base import OWNER, Operations, Parameters, invalid
from .s3_xml import DECLARATION, NAMESPACE, escape, iso_time, url_encode, xml_response

MOST = 1000  # keys and common prefixes in a page
FIRST_LOOK = 16  # rows fetched where a common prefix may let us jump


@dataclass
class Page:
    """One page: entries and common prefixes in order. `last` is where the next page goes on."""

    contents: list[StoredObject] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    truncated: bool = False
    last: str = ""

    @property
    def count(self) -> int:
        """S3's KeyCount: a common prefix counts once."""
        return len(self.contents) + len(self.prefixes)


def common_prefix(key: str, prefix: str, delimiter: str) -> str | None:
    """What a key is rolled up into, None when it stands for itself."""
    if not delimiter:
        return None
    at = key.find(delimiter, len(prefix))
    return None if at < 0 else key[: at + len(delimiter)]


def list_page(store: ObjectStore, bucket: str, prefix: str, delimiter: str, after: str, limit: int) -> Page:
    """The page behind `after`, a key or a common prefix that was shown. A common prefix costs one look, not a scan."""
    page = Page()
    if limit == 0:
        return page
    shown = common_prefix(after, prefix, delimiter) if after.startswith(prefix) else None
    skipped = shown if shown == after else None
    start = "" if skipped is None else successor(skipped)
    while start is not None:
        rolled = None
        for stored in _from(store, bucket, prefix, after, start, FIRST_LOOK if delimiter else limit + 1):
            if page.count == limit:
                page.truncated = True
                return page
            rolled = common_prefix(stored.key, prefix, delimiter)
            if rolled is not None:
                page.prefixes.append(rolled)
                page.last = rolled
                break
            page.contents.append(stored)
            page.last = stored.key
        if rolled is None:
            return page
        start = successor(rolled)
    return page


def _from(store: ObjectStore, bucket: str, prefix: str, after: str, start: str, first: int) -> Iterator[StoredObject]:
    """Objects from a place on, in looks that grow: the reader may jump away after the first."""
    limit = first
    while True:
        found = None
        count = 0
        for found in store.list(bucket, prefix, after, limit, start=start):
            count += 1
            yield found
        if found is None or count < limit:
            return
        after, limit = found.key, min(limit * 4, MOST)


def token_of(last: str) -> str:
    """An opaque continuation token."""
    return base64.urlsafe_b64encode(last.encode()).decode()


def place_of(token: str) -> str:
    """Where a continuation token goes on; Refusal InvalidArgument."""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise invalid("continuation-token", token, "The continuation token provided is incorrect") from error


def limit_of(parameters: Parameters, name: str = "MaxKeys") -> int:
    """How many entries a page may have; Refusal InvalidArgument."""
    limit = int(parameters.get(name, MOST))
    if not 0 <= limit <= 2**31 - 1:
        raise invalid("max-keys", limit, f"Argument max-keys must be an integer between 0 and {2**31 - 1}")
    return min(limit, MOST)


def writer_of(parameters: Parameters) -> Callable[[str], str]:
    """How keys are written: as text, or percent-encoded when encoding-type=url was asked for."""
    return url_encode if parameters.get("EncodingType") == "url" else escape


def _element(name: str, text: str | None) -> str:
    return "" if text is None else f"<{name}>{text}</{name}>" if text else f"<{name}/>"


def _entry(stored: StoredObject, key: str) -> str:
    """The members that an object and a version have in common."""
    algorithms = "".join(f"<ChecksumAlgorithm>{name}</ChecksumAlgorithm>" for name in stored.checksums)
    return (
        f"<Key>{key}</Key><LastModified>{iso_time(stored.last_modified)}</LastModified>"
        f"<ETag>&quot;{stored.etag}&quot;</ETag>{algorithms}<ChecksumType>{stored.checksum_type}</ChecksumType>"
        f"<Size>{stored.size}</Size>"
    )


OWNED = f"<Owner><ID>{OWNER['ID']}</ID></Owner>"


def _contents(page: Page, write: Callable[[str], str], owner: str) -> str:
    entries = [
        f"<Contents>{_entry(stored, write(stored.key))}{owner}"
        f"<StorageClass>{stored.storage_class}</StorageClass></Contents>"
        for stored in page.contents
    ]
    prefixes = [f"<CommonPrefixes><Prefix>{write(name)}</Prefix></CommonPrefixes>" for name in page.prefixes]
    return "".join(entries + prefixes)


def _document(root: str, inner: str) -> HttpResponse:
    return xml_response(f'{DECLARATION}<{root} xmlns="{NAMESPACE}">{inner}</{root}>'.encode())


def _header(parameters: Parameters, write: Callable[[str], str], limit: int, truncated: bool) -> str:
    delimiter = parameters.get("Delimiter")
    return "".join([
        _element("Name", escape(parameters["Bucket"])),
        _element("Prefix", write(parameters.get("Prefix", ""))),
        _element("Delimiter", write(delimiter) if delimiter else None),
        _element("MaxKeys", str(limit)),
        _element("EncodingType", parameters.get("EncodingType")),
        _element("IsTruncated", "true" if truncated else "false"),
    ])  # fmt: skip


class ListOperations(Operations):
    """ListObjects, ListObjectsV2 and ListObjectVersions."""

    def list_objects_v2(self, parameters: Parameters, request: HttpRequest) -> HttpResponse:
        """One page; the continuation token wins over start-after."""
        self.bucket(parameters)
        token, start_after = parameters.get("ContinuationToken"), parameters.get("StartAfter")
        after = place_of(token) if token is not None else start_after or ""
        limit, write = limit_of(parameters), writer_of(parameters)
        prefix, delimiter = parameters.get("Prefix", ""), parameters.get("Delimiter", "")
        page = list_page(self.store, parameters["Bucket"], prefix, delimiter, after, limit)
        inner = "".join([
            _header(parameters, write, limit, page.truncated),
            _element("KeyCount", str(page.count)),
            _element("ContinuationToken", token),
            _element("NextContinuationToken", token_of(page.last) if page.truncated else None),
            _element("StartAfter", write(start_after) if start_after else None),
            _contents(page, write, OWNED if parameters.get("FetchOwner") else ""),
        ])  # fmt: skip
        return _document("ListBucketResult", inner)

    def list_objects(self, parameters: Parameters, request: HttpRequest) -> HttpResponse:
        """The old form: NextMarker comes with a delimiter only, else the last key is the marker."""
        self.bucket(parameters)
        limit, write = limit_of(parameters), writer_of(parameters)
        prefix, delimiter = parameters.get("Prefix", ""), parameters.get("Delimiter", "")
        marker = parameters.get("Marker", "")
        page = list_page(self.store, parameters["Bucket"], prefix, delimiter, marker, limit)
        inner = "".join([
            _header(parameters, write, limit, page.truncated),
            _element("Marker", write(marker)),
            _element("NextMarker", write(page.last) if page.truncated and delimiter else None),
            _contents(page, write, OWNED),
        ])  # fmt: skip
        return _document("ListBucketResult", inner)

    def list_object_versions(self, parameters: Parameters, request: HttpRequest) -> HttpResponse:
        """Versions and delete markers, the newest of a key first."""
        self.bucket(parameters)
        limit, write = limit_of(parameters), writer_of(parameters)
        key_marker, version_marker = parameters.get("KeyMarker", ""), parameters.get("VersionIdMarker", "")
        if version_marker and not key_marker:
            message = "A version-id marker cannot be specified without a key marker."
            raise invalid("version-id-marker", version_marker, message)
        entries, prefixes, last, truncated = self._versions(parameters, key_marker, version_marker, limit)
        shown = [
            f"<{'DeleteMarker' if v.delete_marker else 'Version'}>{_version(v, write, newest)}"
            f"</{'DeleteMarker' if v.delete_marker else 'Version'}>"
            for v, newest in entries
        ]
        shown += [f"<CommonPrefixes><Prefix>{write(name)}</Prefix></CommonPrefixes>" for name in prefixes]
        inner = "".join([
            _header(parameters, write, limit, truncated),
            _element("KeyMarker", write(key_marker)),
            _element("VersionIdMarker", escape(version_marker)),
            _element("NextKeyMarker", write(last[0]) if truncated else None),
            _element("NextVersionIdMarker", last[1] if truncated and last[1] else None),
            *shown,
        ])  # fmt: skip
        return _document("ListVersionsResult", inner)

    def _versions(
        self, parameters: Parameters, key_marker: str, version_marker: str, limit: int
    ) -> tuple[list[tuple[StoredObject, bool]], list[str], tuple[str, str], bool]:
        """Versions (and whether each is its key's latest), common prefixes, the last shown, whether there is more."""
        prefix, delimiter = parameters.get("Prefix", ""), parameters.get("Delimiter", "")
        entries: list[tuple[StoredObject, bool]] = []
        prefixes: list[str] = []
        shown = common_prefix(key_marker, prefix, delimiter) if key_marker.startswith(prefix) else None
        seen = shown if shown == key_marker else None
        last, newest_of = (key_marker, version_marker), key_marker if version_marker else None
        place = last
        while True:
            rows = list(self.store.versions(parameters["Bucket"], prefix, *place, MOST))
            for stored in rows:
                rolled = common_prefix(stored.key, prefix, delimiter)
                if rolled is not None and rolled == seen:
                    continue
                if len(entries) + len(prefixes) >= limit:
                    return entries, prefixes, last, limit > 0
                if rolled is not None:
                    seen, last = rolled, (rolled, "")
                    prefixes.append(rolled)
                    continue
                entries.append((stored, stored.key != newest_of))
                newest_of, last = stored.key, (stored.key, stored.version_id)
            if len(rows) < MOST:
                return entries, prefixes, last, False
            place = (rows[-1].key, rows[-1].version_id)


def _version(stored: StoredObject, write: Callable[[str], str], newest: bool) -> str:
    latest = f"<VersionId>{stored.version_id}</VersionId><IsLatest>{'true' if newest else 'false'}</IsLatest>{OWNED}"
    if stored.delete_marker:
        return f"<Key>{write(stored.key)}</Key>{latest}<LastModified>{iso_time(stored.last_modified)}</LastModified>"
    return f"{_entry(stored, write(stored.key))}<StorageClass>{stored.storage_class}</StorageClass>{latest}"
