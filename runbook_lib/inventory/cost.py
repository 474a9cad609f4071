"""What does a comparison cost at AWS? Estimated before from the counts, stated after from the requests sent; USD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..display import plural

GIB, TIB = 1024**3, 1024**4
SEEN = "2026-11-21"  # when these were written down; the pages themselves have the last word
LIST_PAGE, MILLION = 1000, 1_000_000  # keys
FIRST = 1  # the LIST that asks where the bucket is and whether we may
OWN = 1  # the object in which DataSync keeps what it knows of the top folder
LEAST = 0.001  # of a GiB that is written out


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
KMS = Price("KMS requests", "request", 0.03 / 10_000, "aws.amazon.com/kms/pricing")
OUT = Price("Data out of AWS to the internet", "GiB", 0.09, "aws.amazon.com/ec2/pricing/on-demand")
ATHENA = Price("Athena, data scanned", "GiB", 5.0 / 1024, "aws.amazon.com/athena/pricing")


@dataclass(frozen=True)
class Item:
    """So much of one thing."""

    price: Price
    count: float
    where: str = ""  # when it comes to that; empty: in any case

    @property
    def usd(self) -> float:
        """What it costs."""
        return self.count * self.price.usd

    def __str__(self) -> str:
        return f"{self.price.what}: {plural_of(self.count, self.price.unit)}"


@dataclass(frozen=True)
class Cost:
    """What is charged, item by item."""

    items: tuple[Item, ...]
    spent: bool = False  # counted, not estimated
    perhaps: tuple[Item, ...] = ()  # what may come to it, each with its `where`

    @property
    def usd(self) -> float:
        """What is charged in any case."""
        return sum(item.usd for item in self.items)

    @property
    def most(self) -> float:
        """In all, if it comes to everything that may."""
        return self.usd + sum(item.usd for item in self.perhaps)

    def sentence(self) -> str:
        """One line: the sum, what makes it, and how sure that is."""
        if not self.items:
            return "Nothing was asked of AWS that it charges for."
        how = "AWS charges" if self.spent else "AWS will charge"
        parts = ", ".join(map(str, self.items))
        return f"{how} {dollars(self.usd)} ({parts}; us-east-1 prices as noted on {SEEN}){self._perhaps()}."

    def _perhaps(self) -> str:
        said = ""
        for where in dict.fromkeys(item.where for item in self.perhaps):
            some = [item for item in self.perhaps if item.where == where]
            said += f"; up to {dollars(sum(item.usd for item in some), about='')} more where {where}"
            said += f" ({', '.join(map(str, some))})"
        return said


def dollars(usd: float, about: str = "about ") -> str:
    """'about $1,200.00', 'less than $0.01'; without `about` an upper bound: '$0.01'."""
    return f"{about}${usd:,.2f}" if usd >= 0.01 else f"{'less than ' if about else ''}$0.01"


def plural_of(count: float, unit: str) -> str:
    """'1 request', '1,200 requests', '0.5 GiB', 'less than 0.001 GiB'."""
    if unit == "request":
        return plural(round(count), unit)
    if count < LEAST:
        return f"less than {LEAST} {unit}"
    return f"{count:,.0f} {unit}" if count >= 100 else f"{count:,.3g} {unit}"


def estimate(
    level: str,
    objects: int,
    *,
    size: int = 0,
    sample: int = 0,
    links: int = 0,
    computable: bool = True,
    listed: bool = True,
) -> Cost:
    """Before: `level` names, size, metadata, content or sample; `size` are the bytes of all objects.

    `sample` is how many objects a sample reads; `links` how many are links, whose targets have to be read.
    `computable`: the checksum that S3 usually keeps can be computed beside the files. `listed`: by LIST, not by S3
    Inventory. What may come to it is said apart: that KMS is asked, and that objects are read, which is the dearest by
    far.
    """
    some = {"metadata": objects + OWN, "content": objects + OWN, "sample": min(sample, objects)}.get(level, 0)
    read = min(some, objects) if level in ("content", "sample") else 0
    no = "no checksum" if computable else "no checksum that the application server can compute (it has no CRC64NVME)"
    where = f"S3 keeps {no}, so that objects are read"
    perhaps = (
        Item(READ, 2 * read, where),  # a HEAD and a GET
        Item(OUT, size * read / max(objects, 1) / GIB, where),
        Item(KMS, some + 2 * read, "objects are encrypted with SSE-KMS without a bucket key"),
    )
    sure = (
        Item(LISTED, FIRST + (-(-(objects + OWN) // LIST_PAGE)) if listed else 0),
        Item(READ, some + (links if level in ("metadata", "content") else 0)),
    )
    return Cost(_counted(sure), perhaps=_counted(perhaps))


def spent(requests: Mapping[str, int], *, read: int = 0) -> Cost:
    """After: the requests that were sent (as inventories count them, by kind, and KMS by S3); bytes read."""
    reads = sum(requests.get(kind, 0) for kind in ("HEAD", "GET", "ATTRIBUTES"))
    lists, kms = requests.get("LIST", 0), requests.get("KMS", 0)
    return Cost(_counted((Item(LISTED, lists), Item(READ, reads), Item(KMS, kms), Item(OUT, read / GIB))), spent=True)


def listing(used: int) -> str:
    """Before LIST begins beside a scan: the source's file system has so many entries in use; 0: it does not say."""
    pages = -(-(used or MILLION) // LIST_PAGE)
    whose = "a million objects" if not used else f"as many objects as the source's file system has entries ({used:,})"
    return (
        f"LIST goes on beside the scan: for {whose}, AWS charges {dollars(LISTED.usd * pages)} (us-east-1 price as "
        f"noted on {SEEN}). What it all costs is said when they are counted."
    )


def athena(scanned: int) -> Cost:
    """A query of Athena over this many bytes of inventories; the least that is charged is 10 MB."""
    return Cost((Item(ATHENA, max(scanned, 10_000_000) / GIB),))


def _counted(items: tuple[Item, ...]) -> tuple[Item, ...]:
    return tuple(item for item in items if item.count)
