"""As whom does the lab run a database server, on which port, and how does it end?"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from ..errors import LabError

HOST = "127.0.0.1"
NOBODY = 65534  # database servers refuse to be root; this user needs no entry in /etc/passwd
ENDING = 1.0  # seconds


def unprivileged(command: Sequence[str]) -> list[str]:
    """The command as a database server accepts it; for root as `nobody`, who may still reach root's folders."""
    if os.geteuid() != 0:
        return list(command)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LabError(
            "Database servers refuse to run as root, and there is no `setpriv`: run the lab as another user."
        )
    reach = "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"
    return [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *reach, *command]


def own(*paths: Path) -> None:
    """Give files to the user that the servers run as."""
    for path in paths if os.geteuid() == 0 else ():
        os.chown(path, NOBODY, NOBODY)


def reap(pid: int) -> bool:
    """Whether the process was our child and has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return False


def end(pid: int, gentle: Sequence[signal.Signals], ended: Callable[[], bool], patience: float) -> None:
    """End a server by one signal after the other, each with its patience in seconds, and SIGKILL as the last.

    A stopped or hanging server hears the last only, and its children with it. LabError when it survives that, too.
    """
    for number in (*gentle, signal.SIGKILL):
        _send(number, pid)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if reap(pid) or ended():
                return
            time.sleep(0.01)
    raise LabError(f"The process {pid} does not end, not even by SIGKILL: `ps -o stat,wchan,args -p {pid}` says why.")


def _send(number: signal.Signals, pid: int) -> None:
    try:
        server = psutil.Process(pid)
        family = [server, *(server.children(recursive=True) if number == signal.SIGKILL else [])]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def free_port() -> int:
    """A port of the loopback interface that nobody has now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def taken(port: int) -> bool:
    """Whether somebody listens there, and goes on: a killed server's port is free a moment later."""
    deadline = time.monotonic() + ENDING
    while _listens(port):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.02)
    return False


def _listens(port: int) -> bool:
    """Connections that are still ending do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
