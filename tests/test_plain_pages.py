"""A page of LIST is read as XML reads it, or it is left to XML."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as some

from runbook_lib.aws import pages, plain_pages
from runbook_lib.aws.plain_pages import entries
from runbook_lib.aws.wire import Door, Refused, Torn
from tests.s3_stub_pages import Bucket, Object, asked_of, body

DOOR = Door("http://x", "bench", "eu-central-1")
HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>bench</Name><Prefix></Prefix><KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys>"
    "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
)
END = "</ListBucketResult>"
ODD_DAY = "2024-02-29T23:59:59.999Z"
CHECKSUM = "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"


def entry(
    key: str, *, stamp: str = "2026-11-21T10:00:00.000Z", etag: str = "0a1b-2", size: object = 7, middle: str = CHECKSUM
) -> str:
    """An entry as S3 writes it."""
    return (
        f"<Contents><Key>{key}</Key><LastModified>{stamp}</LastModified><ETag>&quot;{etag}&quot;</ETag>{middle}"
        f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def page(*those: str, count: int | None = None, head: str = HEAD, end: str = END) -> bytes:
    """A page of these entries."""
    return (head.format(count=len(those) if count is None else count) + "".join(those) + end).encode()


def outcome(text: bytes, prefix: str, plain: Any) -> object:
    """What a page comes to: its rows as a block has them and all else, or the error."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pages, "entries", plain)
        try:
            found = pages.read(text, prefix, DOOR)
            rows = pages.Rows()
            rows.add(found)
            return found.keys, found.folders, found.token, rows.encoded("s")
        except (Torn, Refused, ValueError, OverflowError) as error:
            return type(error)


def same(text: bytes, prefix: str = "") -> bool:
    """Whether both ways come to the same."""
    return outcome(text, prefix, entries) == outcome(text, prefix, lambda text: None)


def test_a_page_as_s3_writes_it_is_read_without_xml() -> None:
    checksums = {"SHA256": "x", "CRC32C": "y"}
    objects = [
        Object("a file.txt", 5), Object("b/", 0), Object("ü", 3, storage_class="GLACIER"), Object("c+%", 1 << 44),
        Object("d", 9, checksums=checksums, checksum_type="COMPOSITE", etag="0a-12"),
    ]  # fmt: skip
    bucket, asked = Bucket(objects), {"list-type": "2", "encoding-type": "url"}
    query = asked_of(asked)
    text = b"".join(bytes(piece) for piece in body(bucket, "bench", asked, query, bucket.page(query)))
    assert entries(text) is not None and same(text)
    assert pages.read(text, "", DOOR).keys == sorted(each.key for each in objects)
    assert entries(page(entry("k", middle=""))) is not None  # as before 2025, when LIST said nothing of checksums


def test_entries_that_are_written_alike_are_not_looked_at_tag_by_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_pages, "_each", lambda text: None)
    text = page(entry("a"), entry("b/", size=0), entry("c", size=10**17, etag="1b0a-2"), entry("d", stamp=ODD_DAY))
    assert entries(text) is not None and same(text)
    assert entries(page(entry("a"), entry("b", middle=""))) is None


ODD = {
    "torn": page(entry("a"), entry("b"))[:-40],
    "torn in the first entry": page(entry("a"))[:300],
    "an entry less than counted": page(entry("a"), count=2),
    "a folder": page(entry("a"), "<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>", count=2),
    "a folder before": page("<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>", entry("c"), count=2),
    "text between entries": page(entry("a"), "\n ", entry("b"), count=2),
    "text within an entry": page(entry("a").replace("<Size>", " <Size>")),
    "an element twice": page(entry("a").replace("<Size>", "<Key>b</Key><Size>")),
    "an owner": page(entry("a", middle="<Owner><ID>x</ID></Owner>")),
    "an owner with a size": page(entry("a", middle="<Owner><Size>1</Size></Owner>")),
    "reordered": page(entry("a", middle="").replace("<Size>7</Size>", "").replace("<ETag>", "<Size>7</Size><ETag>")),
    "another tag in the second": page(entry("a"), entry("b").replace("LastModified", "LostModified")),
    "another tag in the second, as long": page(entry("a"), entry("b").replace("<Size>7</Size>", "<Sise>7</Sise>")),
    "an element in the second time": page(entry("a"), entry("b", stamp="2026-11-21<b>10:00</b>Z!")),
    "an entity in the second time": page(entry("a"), entry("b", stamp="2026-11-21&#84;10:00:00Z")),
    "an entity in the second ETag": page(entry("a"), entry("b").replace("0a1b-2", "0&gt;-2")),
    "the second stored elsewhere": page(entry("a"), entry("b").replace("STANDARD", "GLACIER")),
    "no size": page(entry("a").replace("<Size>7</Size>", "")),
    "an empty key": page(entry("")),
    "a size that is none": page(entry("a", size="7e3")),
    "a negative size": page(entry("a", size="-7")),
    "a size with a space": page(entry("a", size=" 7")),
    "a size beyond 64 bits": page(entry("a", size="9" * 19)),
    "a time without a part of a second": page(entry("a", stamp="2026-11-21T10:00:00Z")),
    "a time with a zone as long": page(entry("a", stamp="2026-11-21T10:00:00+0900")),
    "a time with a space": page(entry("a"), entry("b", stamp="2026-11-21 10:00:00.000Z")),
    "a time that is no digits": page(entry("a"), entry("b", stamp="2026-11-2xT10:00:00.000Z")),
    "a second that is no day": page(entry("a"), entry("b", stamp="2026-02-30T10:00:00.000Z")),
    "an ETag that is empty": page(entry("a"), entry("b", etag="")),
    "a quote in an ETag": page(entry("a"), entry("b", etag='"0a1b"')),
    "a value moved to the next": page(entry("a", size=71), entry("b", size=7, etag="0a1b-22")),
    "a time that is none": page(entry("a", stamp="2026-99-21T10:00:00.000Z")),
    "an entity": page(entry("a&amp;b")),
    "an entity nobody defined": page(entry("a&b;")),
    "a control character": page(entry("a\x01b")),
    "a comment that hides an entry": page("<!--", entry("a"), "-->", entry("b"), count=1),
    "a comment open to the end": page("<!--", entry("a"), count=1),
    "characters as they are": page("<Other><![CDATA[", entry("a"), "]]></Other>", count=0),
    "an instruction": page("<?do ", entry("a"), "?>", count=0),
    "a deeper entry": page("<Other>", entry("a"), "</Other>", entry("b"), count=1),
    "a deeper entry at the end": page("<Other>", entry("b"), "</Other>", count=0),
    "another encoding": page(entry("ä"), head=HEAD.replace("UTF-8", "ISO-8859-1")),
    "another encoding of ASCII": page(entry("a+AOQ-"), head=HEAD.replace("UTF-8", "UTF-7")),
    "an encoding nobody has": page(entry("a"), head=HEAD.replace("UTF-8", "X")),
    "a document type": page(entry("a"), head=HEAD.replace("\n", '\n<!DOCTYPE ListBucketResult [<!ENTITY e "x">]>')),
    "no namespace": page(entry("a"), head=HEAD.replace(' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', "")),
    "another namespace": page(entry("a"), head=HEAD.replace("2006", "2027")),
    "keys that are not encoded": page(entry("a+b%20c"), head=HEAD.replace("<EncodingType>url</EncodingType>", "")),
    "no declaration": page(entry("a"), head=HEAD.partition("\n")[2]),
    "not the last, and no token": page(entry("a"), head=HEAD.replace("false", "true")),
    "an error": b"<Error><Code>SlowDown</Code></Error>",
    "an error with entries": b"<Error>" + entry("a").encode() + b"</ListBucketResult>",
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_a_page_that_is_odd_comes_to_what_xml_says(name: str) -> None:
    assert same(ODD[name])
    assert same(ODD[name], "a")


keys = some.text(some.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
spelt = keys.flatmap(lambda key: some.sampled_from([quote_plus(key, safe="/"), key, escape(key)]))
sizes = some.integers(0, 10**20).map(str) | some.sampled_from(["", "-1", "1_0", "٣", "0x1", " 1", "007"])
algorithms = some.sampled_from(["CRC64NVME", "SHA256", "CRC32", "crc32", ""])
middles = some.lists(algorithms, max_size=3).map(
    lambda those: "".join(f"<ChecksumAlgorithm>{one}</ChecksumAlgorithm>" for one in those)
)
pieces = some.sampled_from(
    [
        *(f"<{name}>" for name in (*pages.VALUES, "Contents", "Owner", "CommonPrefixes")), "<Contents/>", "</Contents>",
        "</Key>", "</Size>", "</ListBucketResult>", "&quot;", "&amp;", "<!--", "-->", "<![CDATA[", "]]>", "<?x ", "?>",
        "\n",
    ]
)  # fmt: skip
stamps = some.datetimes().map("{:%Y-%m-%dT%H:%M:%S.000Z}".format) | some.sampled_from(["2026-11-21T10:00:00Z", "now"])
etags = some.sampled_from(["0a1b-2", "0a", "", "0a1b-31", "A", '"'])
whole = some.builds(entry, spelt, stamp=stamps, etag=etags, size=sizes, middle=middles | some.just(CHECKSUM))
alike = some.builds(entry, some.text("ab/%+-", min_size=1), stamp=stamps, etag=etags, size=some.integers(0, 10**18 - 1))


@given(some.lists(whole, max_size=4), some.sampled_from([0, 0, -1, 1]), some.sampled_from(["", "a", "a/"]))
def test_random_entries_are_read_as_xml_reads_them(those: list[str], more: int, prefix: str) -> None:
    assert same(page(*those, count=len(those) + more), prefix)


@given(some.lists(alike, min_size=1, max_size=9), some.sampled_from(["", "a", "a/"]))
def test_entries_that_are_written_alike_are_read_as_xml_reads_them(those: list[str], prefix: str) -> None:
    assert same(page(*those), prefix)


@given(some.lists(alike | whole, min_size=1, max_size=3), some.data())
def test_a_page_with_something_put_in_cut_out_or_moved_is_read_as_xml_reads_it(
    those: list[str], data: some.DataObject
) -> None:
    text = page(*those, count=data.draw(some.integers(0, 4))).decode()
    at, to = sorted(data.draw(some.tuples(some.integers(0, len(text)), some.integers(0, len(text)))))
    put = data.draw(pieces | some.just(text[at:to]) | some.text(max_size=3))
    where = data.draw(some.sampled_from([at, to]))
    assert same((text[:at] + put + text[where:]).encode("utf-8", "replace"))


@given(some.lists(whole, min_size=1, max_size=3), pieces, some.data())
def test_a_piece_between_two_tags_is_read_as_xml_reads_it(those: list[str], put: str, data: some.DataObject) -> None:
    text = page(*those).decode()
    at = data.draw(some.sampled_from([place for place, letter in enumerate(text) if letter in "<>"]))
    assert same((text[:at] + put + text[at:]).encode("utf-8", "replace"))
