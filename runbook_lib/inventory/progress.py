"""How far is a scan, a listing or a comparison? What a bar or a line on the screen needs to know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One look at work under way."""

    side: str  # which side, or what is compared
    doing: str  # listing, scanning, comparing …
    entries: int  # so far
    bytes: int  # of the files among them
    requests: int  # sent to AWS so far
    expected: int | None  # entries in all, as far as is known
    began: float  # time.monotonic() at the start
    before: int = 0  # entries of these that an earlier, interrupted call had finished
    size: int | None = None  # bytes in all, where bytes are what takes the time: the time that is left is by these
    bytes_before: int = 0  # … of `bytes`, as `before` of `entries`

    def rate(self, now: float) -> float:
        """Entries a second since the start; `now` is time.monotonic()."""
        return (self.entries - self.before) / max(now - self.began, 1e-9)

    def left(self, now: float) -> float | None:
        """Seconds that are left at this rate; None when nobody knows how much there is."""
        whole, done, before = self.expected, self.entries, self.before
        if self.size is not None:
            whole, done, before = self.size, self.bytes, self.bytes_before
        if not whole or done <= before:
            return None
        return max(whole - done, 0) * max(now - self.began, 1e-9) / (done - before)

    def sentence(self, now: float) -> str:
        """The same for a line on the screen."""
        left = self.left(now)
        of = f" of about {self.expected:,}" if self.expected else ""
        end = "" if left is None else f", about {_lasting(left)} left"
        if self.size is not None:
            fast = (self.bytes - self.bytes_before) / max(now - self.began, 1e-9)
            read = f"{_sized(self.bytes)} of about {_sized(self.size)}, {_sized(fast)} a second"
            return f"{self.side}: {self.doing}, {read}, {self.entries:,}{of} files{end}"
        return f"{self.side}: {self.doing}, {self.entries:,}{of} entries, {self.rate(now):,.0f} a second{end}"


@dataclass(frozen=True)
class Beside:
    """One look at two pieces of work that go on at once."""

    one: Progress
    other: Progress

    @property
    def doing(self) -> str:
        """What each does."""
        return f"{self.one.doing}, {self.other.doing}"

    @property
    def began(self) -> float:
        """time.monotonic() when the first of them began."""
        return min(self.one.began, self.other.began)

    def sentence(self, now: float) -> str:
        """Both, on one line."""
        return f"{self.one.sentence(now)}; {self.other.sentence(now)}"


Look = Progress | Beside


def _sized(count: float) -> str:
    """'12 bytes', '3.4 GiB'."""
    units = iter(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    while count >= 1024 and (larger := next(units, None)) is not None:
        count, unit = count / 1024, larger
    return f"{count:.0f} bytes" if unit == "bytes" else f"{count:,.1f} {unit}"


def _lasting(seconds: float) -> str:
    """'30 s', '12 min', '3 h 5 min': no more exact than an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
