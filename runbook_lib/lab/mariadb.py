"""How is a MariaDB server started from a system's binaries, without its packages' service, root or a system user?

As for PostgreSQL (postgres.py): a data folder of the lab, loopback only, a password, nothing outside the folder.
The binaries are those of `mariadb-server-core`: from RUNBOOK_MARIADB_BIN, the PATH, or /usr/sbin. What makes the data
folder needs `my_print_defaults` too, which Debian keeps in `mariadb-client-core`.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ..errors import LabError
from .processes import HOST, end, free_port, own, reap, taken, unprivileged

if TYPE_CHECKING:
    import pymysql

SUPERUSER = "root"
SETTINGS = {
    "bind-address": HOST,
    "skip-name-resolve": "1",
    "socket": "socket",  # in the data folder; it cannot be left out
    "aria-log-dir-path": ".",  # it asks access(2), which denies `nobody` a path through root's closed folders
    "character-set-server": "utf8mb4",
    "innodb-flush-log-at-trx-commit": "2",  # what is acknowledged survives a SIGKILL; a power cut is not covered
    "innodb-buffer-pool-size": "64M",
    "innodb-log-file-size": "16M",  # it is written in full when the folder is made
    "performance-schema": "0",
}
OWNER = """\
delete from mysql.global_priv where user in ('', 'root') and host not in ('localhost', '127.0.0.1');
flush privileges;
alter user root@localhost identified by '{password}';
create or replace user root@'127.0.0.1' identified by '{password}';
grant all on *.* to root@'127.0.0.1' with grant option;
"""


@dataclass(frozen=True)
class Binaries:
    """`mariadbd` and what makes its data folder."""

    server: Path
    install: Path


def find_binaries() -> Binaries:
    """The first that are there; LabError when there are none."""
    return _find(os.environ.get("RUNBOOK_MARIADB_BIN"), os.environ.get("PATH", os.defpath))


@functools.cache
def _find(forced: str | None, path: str) -> Binaries:
    system = os.pathsep.join([path, "/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin"])
    where = os.pathsep.join([forced, str(Path(forced).parent / "bin")]) if forced else system
    found = {name: shutil.which(name, path=where) for name in ("mariadbd", "mariadb-install-db")}
    found["my_print_defaults"] = shutil.which("my_print_defaults", path=os.pathsep.join([where, system]))
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise LabError(
            f"There is no {' and no '.join(missing)} in {where}. Install MariaDB (`apt-get install "
            "mariadb-server-core mariadb-client-core`; `brew install mariadb`), or set RUNBOOK_MARIADB_BIN to the "
            "folder that holds it."
        )
    return Binaries(Path(str(found["mariadbd"])), Path(str(found["mariadb-install-db"])))


class Server:
    """One server: a folder, a port and a password. Held open by the lab."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder = folder
        self.password = password

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Everything the server said."""
        return self.folder / "log"

    @property
    def exists(self) -> bool:
        """Whether it was created, completely."""
        return (self.folder / "created").exists()

    @property
    def port(self) -> int:
        """Where it listens, kept over restarts; 0 before the first start."""
        kept = self.folder / "port"
        return int(kept.read_text()) if kept.exists() else 0

    def create(self) -> None:
        """Make the data directory; what a killed creation left is thrown away."""
        if self.exists:
            return
        self.remove()
        self.folder.mkdir(parents=True, mode=0o700)
        own(self.folder)
        files = [f"--{name}={SETTINGS[name]}" for name in ("aria-log-dir-path", "innodb-log-file-size")]
        how = ["--auth-root-authentication-method=normal", "--skip-test-db", f"--tmpdir={self.folder}", *files]
        command = [str(find_binaries().install), "--no-defaults", f"--datadir={self.data}", *how]
        done = subprocess.run(unprivileged(command), capture_output=True, text=True, cwd="/")
        if done.returncode != 0:
            said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
            raise LabError(f"mariadb-install-db failed in {self.folder}: {said[0] if said else done.returncode}")
        (self.folder / "created").touch()

    def start(self, *, patience: float = 60) -> None:
        """Start it, or find the one that runs; the port is kept unless somebody else listens there. Seconds."""
        self.create()
        if self.running:
            return
        if self.pid is None:
            if not self.port or taken(self.port):
                (self.folder / "port").write_text(str(free_port()))
            self._spawn()
        deadline = time.monotonic() + patience
        while not self.running:
            if self.pid is None or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").splitlines()[-1:] or ["it said nothing"]
                raise LabError(f"MariaDB did not start in {self.folder}: {said[0][:500]}")
            time.sleep(0.02)

    def _spawn(self) -> None:
        """Start it; it sets its passwords before it listens."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix="owner") as owner, self.log.open("a") as log:
            owner.write(OWNER.format(password=self.password.replace("\\", "\\\\").replace("'", "\\'")))
            owner.flush()
            own(Path(owner.name))
            place = [f"--datadir={self.data}", f"--port={self.port}", f"--init-file={owner.name}"]
            place.append(f"--tmpdir={self.folder}")  # one that starts deletes what others have in a shared one
            process = subprocess.Popen(
                unprivileged([str(find_binaries().server), "--no-defaults", *place, *settings]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
            )  # fmt: skip
            (self.folder / "pid").write_text(str(process.pid))
            while process.poll() is None and not self.running:  # it reads the file while it starts
                time.sleep(0.02)

    def stop(self, *, patience: float = 30) -> None:
        """End it and wait until it is gone: sessions are cut off, nothing is lost. LabError when it does not end."""
        pid = self.pid
        if pid is not None:  # a killed one recovers at the next start
            end(pid, (signal.SIGTERM,), lambda: self.pid != pid, patience)

    def remove(self) -> None:
        """Stop it and delete its folder."""
        self.stop()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    @property
    def running(self) -> bool:
        """Whether its process lives and a connection succeeds."""
        import pymysql

        if self.pid is None:
            return False
        try:
            self.connect("mysql", connect_timeout=5).close()
            return True
        except pymysql.OperationalError:
            return False

    @property
    def pid(self) -> int | None:
        """The server's process id; None when none lives for this folder."""
        try:
            pid = int((self.folder / "pid").read_text())
        except (OSError, ValueError):
            return None
        try:
            if reap(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return None
            return pid if f"--datadir={self.data}" in psutil.Process(pid).cmdline() else None
        except psutil.NoSuchProcess:
            return None

    def connect(self, database: str | None, user: str = SUPERUSER, **options: Any) -> pymysql.Connection[Any]:
        """A session of the superuser, or of another user when its password is given; autocommit unless told."""
        import pymysql

        given: dict[str, Any] = {"password": self.password, "autocommit": True, "connect_timeout": 10}
        place: dict[str, Any] = {"host": HOST, "port": self.port, "database": database, "charset": "utf8mb4"}
        return pymysql.connect(user=user, **(place | given | options))
