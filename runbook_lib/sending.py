"""What does a program say that is asked later? Run it; its output waits here in parts, to be fetched or sent to S3.

Sent to the application server as it is: the standard library only, Python 3.6 or newer. All is in one folder: `in`,
`errors`, the parts `out.0`, …, and `state`: how the program is (runs, its exit status, or trouble: see the file
`trouble`), the bytes that it said, the parts that are whole, the parts that were sent. A part goes to the URL in
`url.<number>` once that file is there. Whoever asks touches `asked`; when nobody does any more, all of it goes away.
"""
# ruff: noqa: UP006, UP007, UP031, UP035

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import IO, Callable, List, Union

ATTEMPTS = 5
LONGEST_PAUSE = 20.0  # seconds
IDLE = 30  # seconds without a byte, then a PUT is tried again
PIECE = 65536
AGAIN = {408, 429, 500, 502, 503, 504}
AGAIN_CODES = {"InternalError", "RequestTimeout", "SlowDown"}
ELEMENT = re.compile(r"<(Code|Message)>(.*?)</", re.DOTALL)


class Trouble(Exception):
    """The output does not come through; the message says why and what to do."""


class Sender:
    """The output of one program, in a folder that is the current one."""

    def __init__(self, part: int, held: int, patience: float) -> None:
        """`part` in bytes; `held` whole parts are kept here, then the program waits; `patience` in seconds."""
        self.part, self.held, self.patience = part, held, patience
        self.status, self.bytes, self.whole, self.sent = "runs", 0, 0, 0
        self._changed = threading.Condition()

    def tell(self, status: str = "", count: int = 0, whole: int = 0, sent: int = 0) -> None:
        """Change the state, for those who ask and for the other threads; trouble stays."""
        with self._changed:
            if status and self.status != "trouble":
                self.status = status
            self.bytes, self.whole, self.sent = self.bytes + count, self.whole + whole, self.sent + sent
            with open("state.new", "w") as state:
                state.write("%s %d %d %d\n" % (self.status, self.bytes, self.whole, self.sent))
            os.rename("state.new", "state")
            self._changed.notify_all()

    def guarded(self, work: Callable[[], None]) -> None:
        """Do it; what goes wrong is said in `trouble`."""
        try:
            work()
        except Trouble as trouble:
            said = str(trouble)
        except OSError as error:
            said = (
                "the program's output cannot be kept there: %s. Is there room in its temporary folder (`df`)?" % error
            )
        else:
            return
        with open("trouble", "w") as told:
            told.write(said)
        self.tell("trouble")

    def keep(self, program: "subprocess.Popen[bytes]") -> None:
        """Take what the program says to parts, until it ends."""
        assert program.stdout is not None
        while self._filled(self.whole, program.stdout.fileno()):
            with self._changed:
                self._changed.wait_for(lambda: self.whole - self.sent < self.held)
        self.tell(str(program.wait()), whole=bool(self.bytes % self.part))

    def _filled(self, number: int, stream: int) -> bool:
        """Fill one part; False at the end of the stream."""
        room = self.part
        with open("out.%d" % number, "wb", buffering=0) as out:
            while room:
                data = os.read(stream, min(PIECE, room))
                if not data:
                    return False
                room -= len(data)
                kept = 0
                while kept < len(data):
                    kept += out.write(data[kept:])
                self.tell(count=len(data), whole=not room)
        return True

    def send(self) -> None:
        """Send whole parts, in order, as their URLs come."""
        while True:
            name, url = "out.%d" % self.sent, "url.%d" % self.sent
            if self.sent < self.whole and os.path.exists(url):
                with open(url) as said:
                    delivered(name, said.read())
                os.remove(name)
                os.remove(url)
                self.tell(sent=1)
            else:
                time.sleep(0.2)

    def watch(self) -> None:
        """End all when nobody asks any more, or the folder is gone."""
        folder = os.getcwd()
        while True:
            time.sleep(min(5.0, self.patience / 4))
            try:
                quiet = time.time() - os.stat("asked").st_mtime
            except OSError:
                quiet = self.patience + 1
            if quiet > self.patience:
                shutil.rmtree(folder, ignore_errors=True)
                os.killpg(0, signal.SIGKILL)


def delivered(name: str, url: str) -> None:
    """PUT a file; `Trouble` when S3 refuses it or cannot be reached."""
    for attempt in range(ATTEMPTS):
        try:
            with open(name, "rb") as part:
                _put(url, part, os.fstat(part.fileno()).st_size)
            return
        except (OSError, http.client.HTTPException) as error:
            last = error
        try:
            _put(url, b"", 0)  # S3 may close while we still send: an empty body hears its answer
        except (OSError, http.client.HTTPException) as error:
            last = error
        time.sleep(min(LONGEST_PAUSE, 0.5 * 2**attempt))
    raise Trouble(
        "S3 cannot be reached from there (%s, %d attempts). Does it get out to %s, or need a proxy (`https_proxy` of "
        "the SSM agent)?" % (last, ATTEMPTS, url.split("/")[2])
    )


def _put(url: str, body: Union[IO[bytes], bytes], size: int) -> None:
    """One attempt: `Trouble` when it is refused; an OSError may be tried again."""
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    request = urllib.request.Request(url, body, headers, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=IDLE) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        said = dict(ELEMENT.findall(error.read(PIECE).decode("utf-8", "replace")))
        code = said.get("Code", "without a code")
        if error.code in AGAIN or code in AGAIN_CODES:
            raise OSError("%d %s" % (error.code, code)) from error
        raise Trouble(
            "S3 refused a part of it: %d %s: %s. Whoever runs this needs s3:PutObject there (and kms:GenerateDataKey "
            "where the bucket encrypts with KMS)." % (error.code, code, said.get("Message", error.reason))
        ) from error


def main(folder: str, part: int, held: int, patience: float, command: List[str]) -> None:
    """Begin, in a session of its own, so that the end of this command does not end it; returns once it is there."""
    for name in ("asked", "out.0"):
        with open(os.path.join(folder, name), "w"):
            pass
    with open(os.path.join(folder, "state"), "w") as state:
        state.write("runs 0 0 0\n")
    away, gone = os.pipe()
    child = os.fork()
    if child:
        os.close(gone)
        os.read(away, 1)  # until the other end is closed
        with open(os.path.join(folder, "pid"), "w") as pid:
            pid.write(str(child))
        return
    os.setsid()
    with open(os.path.join(folder, "in"), "rb") as said, open(os.path.join(folder, "errors"), "wb") as errors:
        null = os.open(os.devnull, os.O_RDWR)
        for standard, file in enumerate((null, null, errors.fileno())):
            os.dup2(file, standard)
        os.close(gone)
        # in the folder that commands run in: the environment's mounts may be relative to it
        program = subprocess.Popen(command, stdin=said, stdout=subprocess.PIPE)
    os.chdir(folder)
    sender = Sender(part, held, patience)
    for work in (sender.watch, lambda: sender.guarded(sender.send)):
        threading.Thread(target=work, daemon=True).start()
    sender.guarded(lambda: sender.keep(program))
    threading.Event().wait()  # what is not fetched or sent yet is still asked for


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5:])
