"""What does a kernel say past Jupyter, straight to the terminal? Nobody masks that, so it goes to us instead.

ipykernel writes what a cell's programs say into the notebook, and the same once more to where it was started from: the
runner's terminal. The notebook has its copy masked; ours is shown, masked, when it alone can say why a kernel died.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import threading

from ..redaction import masked

KEPT = 64 << 10  # bytes: the last words


class Aside:
    """A pipe that a kernel has for its stdout and stderr, and the last that came through it."""

    def __init__(self) -> None:
        self._end = secrets.token_bytes(16)  # processes that a cell leaves running keep the pipe open: its end is said
        self._said, self._cut = b"", False
        self._reading, self.writing = os.pipe()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while self._end not in self._said:
            said = self._said + os.read(self._reading, KEPT)
            self._said, self._cut = said[-KEPT:], self._cut or len(said) > KEPT

    def close(self, *, show: bool) -> None:
        """Everything that was said so far has come; `show` its last words, masked."""
        os.write(self.writing, self._end)
        self._reader.join()
        os.close(self.writing)
        os.close(self._reading)
        words = self._said.partition(self._end)[0].decode("utf-8", "replace")
        whole = words.partition("\n")[2] if self._cut else words  # no half of a secret
        if show and whole.strip():
            print(f"The kernel's last words:\n{masked(whole).rstrip()}", file=sys.stderr)


def nobody_listens() -> None:
    """The terminal is closed: what would be written there goes nowhere, and does not fail."""
    with open(os.devnull, "wb") as nowhere:
        for number in (1, 2):
            if closed(number):
                os.dup2(nowhere.fileno(), number)


def closed(number: int) -> bool:
    """Was this a terminal that has gone? What is redirected into a file or to /dev/null stays so."""
    about, null = os.fstat(number), os.stat(os.devnull)
    return stat.S_ISCHR(about.st_mode) and about.st_rdev != null.st_rdev and not os.isatty(number)
