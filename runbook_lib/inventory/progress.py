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

    def rate(self, now: float) -> float:
        """Entries a second since the start; `now` is time.monotonic()."""
        return (self.entries - self.before) / max(now - self.began, 1e-9)

    def left(self, now: float) -> float | None:
        """Seconds that are left at this rate; None when nobody knows how many entries there are."""
        if not self.expected or self.entries <= self.before:
            return None
        return max(self.expected - self.entries, 0) / self.rate(now)

    def sentence(self, now: float) -> str:
        """The same for a line on the screen."""
        left = self.left(now)
        of = f" of about {self.expected:,}" if self.expected else ""
        end = "" if left is None else f", about {_lasting(left)} left"
        return f"{self.side}: {self.doing}, {self.entries:,}{of} entries, {self.rate(now):,.0f} a second{end}"


def _lasting(seconds: float) -> str:
    """'30 s', '12 min', '3 h 5 min': no more exact than an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
