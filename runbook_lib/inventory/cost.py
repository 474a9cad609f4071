"""What does a comparison cost at AWS? Estimated before from the counts, stated after from the requests sent; USD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..display import plural

GIB, TIB = 1024**3, 1024**4
SEEN = "2026-11-21"  # when these were written down; the pages themselves have the last word
LIST_PAGE = 1000  # keys


@dataclass(frozen=True)
class Price:
    """A unit price, for an estimate only: on demand, in USD, us-east-1; see the price page of your region."""

    what: str
    unit: str
    usd: float
    page: str
    region: str = "us-east-1"
    as_of: str = SEEN


LISTED = Price("S3 LIST and PUT requests", "request", 0.005 / 1000, "aws.amazon.com/s3/pricing")
READ = Price("S3 HEAD and GET requests", "request", 0.0004 / 1000, "aws.amazon.com/s3/pricing")
KMS = Price("KMS requests, for objects encrypted with SSE-KMS", "request", 0.03 / 10_000, "aws.amazon.com/kms/pricing")
OUT = Price("Data out of AWS to the internet", "GiB", 0.09, "aws.amazon.com/ec2/pricing/on-demand")
ATHENA = Price("Athena, data scanned", "TiB", 5.0, "aws.amazon.com/athena/pricing")


@dataclass(frozen=True)
class Item:
    """So much of one thing."""

    price: Price
    count: float

    @property
    def usd(self) -> float:
        """What it costs."""
        return self.count * self.price.usd


@dataclass(frozen=True)
class Cost:
    """What is charged, item by item."""

    items: tuple[Item, ...]
    spent: bool = False  # counted, not estimated

    @property
    def usd(self) -> float:
        """In all."""
        return sum(item.usd for item in self.items)

    def sentence(self) -> str:
        """One line: the sum, what makes it, and how sure that is."""
        if not self.items:
            return "Nothing was asked of AWS that it charges for."
        parts = ", ".join(f"{item.price.what}: {plural_of(item.count, item.price.unit)}" for item in self.items)
        about = f"about ${self.usd:,.2f}" if self.usd >= 0.01 else "less than $0.01"
        how = "AWS charges" if self.spent else "AWS will charge"
        return f"{how} {about} ({parts}; us-east-1 prices as noted on {SEEN})."


def plural_of(count: float, unit: str) -> str:
    """'1 request', '1,200 requests', '0.5 GiB'."""
    if unit == "request":
        return plural(round(count), unit)
    return f"{count:,.0f} {unit}" if count >= 100 else f"{count:,.3g} {unit}"


def estimate(
    level: str,
    objects: int,
    *,
    size: int = 0,
    sample: int = 0,
    stored: bool = True,
    kms: bool = False,
    outside: bool = True,
) -> Cost:
    """Before: `level` names, size, metadata, content or sample; `size` are the bytes of all objects.

    `sample` is how many objects a sample reads. `stored`: S3 keeps checksums of the content, so that none is read.
    `outside`: what is read leaves AWS, which is the dearest by far.
    """
    heads = objects if level in ("metadata", "content") else sample
    gets = 0 if stored else (objects if level == "content" else sample)
    share = gets / objects if objects else 0.0
    return _cost(-(-objects // LIST_PAGE) or 1, heads, gets, int(size * share), kms=kms, outside=outside, spent=False)


def spent(requests: Mapping[str, int], *, read: int = 0, kms: bool = False, outside: bool = True) -> Cost:
    """After: the requests that were sent (LIST, HEAD, GET, as inventories count them) and the bytes read."""
    lists, heads, gets = (requests.get(kind, 0) for kind in ("LIST", "HEAD", "GET"))
    return _cost(lists, heads, gets, read, kms=kms, outside=outside, spent=True)


def athena(scanned: int) -> Cost:
    """A query of Athena over this many bytes of inventories; the least that is charged is 10 MB."""
    return Cost((Item(ATHENA, max(scanned, 10_000_000) / TIB),))


def _cost(lists: int, heads: int, gets: int, read: int, *, kms: bool, outside: bool, spent: bool) -> Cost:
    items = [Item(LISTED, lists), Item(READ, heads + gets)]
    if kms:
        items.append(Item(KMS, gets))
    if outside:
        items.append(Item(OUT, read / GIB))
    return Cost(tuple(item for item in items if item.count), spent)
