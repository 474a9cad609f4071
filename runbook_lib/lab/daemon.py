"""How does a lab come to life, and how does it end? One daemon per state folder, started by whoever needs it first."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ..errors import LabError
from .connection import Connection, holding, new_connection, owner, read_connection
from .control import Control, SilentBus, lab_services, open_lab, wipe
from .core import Folder, Lab
from .database import SchemaMismatch
from .databases import Databases
from .front import Front
from .moto_bridge import Moto, MotoBus
from .server import Server

LOCK = "lab"  # held by the daemon for its life
START_LOCK = "start"  # held by who starts it
LOG_LIMIT = 5 << 20  # bytes; a longer log is set aside at the next start
STOP_PATIENCE = 10.0  # seconds from the request to stop to SIGKILL

log = logging.getLogger(__name__)


class Daemon:
    """A running lab: its world, its services, moto and the port."""

    def __init__(self, folder: Folder) -> None:
        from .s3 import S3

        self.folder = folder
        self.connection = read_connection(folder) or new_connection()
        self._stopping = threading.Event()
        moto = Moto(self.connection.access_key, self.connection.secret_key)
        self.control = Control(open_lab(folder, MotoBus(moto)), builder=lab_services, forget=moto.reset)
        moto.secrets = self.control.lab.secrets
        self.front = Front(
            access_key=self.connection.access_key,
            secret_key=self.connection.secret_key,
            services=self.control.services,
            s3=S3(self.control.lab),
            moto=moto,
            control=self.perform,
            denied=lambda service: service == "events" and self.control.lab.fault("events-denied") is not None,
        )
        self.server = Server(self.front, self.connection.port)

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `stop`. connection.json is written when requests are answered."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        url = self.server.listen()
        self.front.moto.load()
        self.control.start()
        self.control.go_on()
        self.connection = self.connection.at(url)
        self.connection.write(self.folder)
        self.server.run()
        log.info("The lab listens at %s", url)
        self._stopping.wait()
        self._end()

    def _end(self) -> None:
        """Finish the requests in flight, then the services. A long poll is not waited for."""
        stopper = threading.Thread(target=self.server.stop, name="stop", daemon=True)
        stopper.start()
        stopper.join(self.server.shutdown_timeout + 0.5)
        self.control.stop()
        self.control.lab.databases.close()  # who is still inside starts none
        log.info("The lab has stopped")

    def perform(self, verb: str, parameters: dict[str, Any]) -> Any:
        """A control request."""
        if verb == "ping":
            with self.front.gate.passing():
                return {"proof": self.connection.proof(str(parameters.get("nonce", "")))}
        if verb == "stop":
            self._stopping.set()
            return {}
        if verb == "status":
            return {"url": self.connection.url, "pid": os.getpid(), **self.control.status()}
        if verb in ("pace", "databases", "workload"):  # the world stays as it is: requests go on
            return self.control.perform(verb, parameters)
        with self.front.gate.closed():
            return self.control.perform(verb, parameters)


def serve(folder: Folder) -> None:
    """Be the daemon, in the foreground; ends the process. LabError when the folder has one already."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("botocore", "werkzeug", "moto", "watchdog", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with holding(folder, LOCK, patience=STOP_PATIENCE):
        status = 0
        try:
            Daemon(folder).run()
        except Exception as error:
            log.exception("The lab ends")
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            status = 1
        logging.shutdown()
        sys.stderr.flush()
        os._exit(status)  # neither a thread in a long poll nor one that failed to start keeps a dead lab alive


def start(folder: Folder, *, patience: float = 60) -> Connection:
    """The connection of a lab that answers; starts it when it does not run. Several may call this at once."""
    with holding(folder, START_LOCK, patience=patience):
        connection = read_connection(folder)
        if connection is not None and connection.url and connection.alive():
            return connection
        process = _spawn(folder)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            connection = read_connection(folder)
            if connection is not None and connection.url and connection.alive(timeout=2):
                return read_connection(folder) or connection  # the first look may have been at the last daemon's
            if process.poll() is not None:
                raise LabError(f"The lab did not start: {_last_line(folder)} (all of it: {folder.log})")
            time.sleep(0.03)
        process.terminate()
        raise LabError(f"The lab was not ready after {patience:.0f} s; {folder.log} has the reason.")


def _spawn(folder: Folder) -> subprocess.Popen[bytes]:
    """A process of its own session, without the caller's AWS settings."""
    if folder.log.exists() and folder.log.stat().st_size > LOG_LIMIT:
        folder.log.replace(folder.log.with_suffix(".log.1"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
    descriptor = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "runbook_lib.lab", "serve", "--state", str(folder.root)],
            cwd=Path(__file__).resolve().parents[2],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _last_line(folder: Folder) -> str:
    lines = folder.log.read_text(errors="replace").split("\n") if folder.log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def running(folder: Folder) -> bool:
    """Whether some process is the daemon of this folder: it holds the lock, answering or not."""
    if not folder.root.is_dir():
        return False
    try:
        with holding(folder, LOCK, patience=0):
            return False
    except LabError:
        return True


def stop(folder: Folder) -> bool:
    """End the daemon and wait until it is gone; False when none runs."""
    pid = owner(folder, LOCK)
    if not running(folder):
        return _stop_orphans(folder)
    connection = read_connection(folder)
    if connection is not None and connection.url and connection.alive(timeout=2):
        connection.call("stop")
    elif pid is not None:  # it holds the lock, so the pid in it is its own
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_PATIENCE
    while running(folder):
        if time.monotonic() > deadline:
            if pid is None:
                raise LabError(f"The lab of {folder.root} does not stop.")
            os.kill(pid, signal.SIGKILL)
            deadline += STOP_PATIENCE
        time.sleep(0.02)
    _stop_orphans(folder)
    return True


def _stop_orphans(folder: Folder) -> bool:
    """End the databases of a lab that was killed; False when none runs."""
    if not folder.root.is_dir():
        return False
    with holding(folder, LOCK, patience=STOP_PATIENCE):
        return Databases(folder.root).stop()


def perform(folder: Folder, verb: str, parameters: dict[str, Any]) -> Any:
    """A verb on a lab: the daemon does it when there is one, else this process."""
    if running(folder):
        connection = read_connection(folder)
        if connection is None or not connection.url:
            raise LabError("The lab is just starting for the first time; try again in a few seconds.")
        return connection.call(verb, parameters, timeout=120)
    with holding(folder, LOCK, patience=STOP_PATIENCE):
        control = Control(_open_offline(folder, verb))
        if verb in ("break", "mend", "profile"):
            control.start()
        try:
            return control.perform(verb, parameters)
        finally:
            control.stop()


def _open_offline(folder: Folder, verb: str) -> Lab:
    """The lab of a folder; a reset may throw away what another version wrote."""
    try:
        return open_lab(folder, SilentBus())
    except SchemaMismatch:
        if verb != "reset":
            raise
        wipe(folder)
        return open_lab(folder, SilentBus())
