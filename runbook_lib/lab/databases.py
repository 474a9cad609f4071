"""Which databases does the lab migrate? Two PostgreSQL servers: the source with a shop in it, and an empty target.

With the profile `mariadb` (profiles.py) there is a third: another source, whose rows go to a database of their own.
They start on first use and stop with the lab; a server that dies while they are up is started again. What a server
holds at first is made once for each state folder, as a template, and copied: a reset costs no second seeding.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LabError
from . import mariadb, shop, shop_mariadb
from .postgres import SUPERUSER, Server, find_binaries
from .processes import HOST

if TYPE_CHECKING:
    import psycopg
    import pymysql

SIDES = ("source", "target")
MARIADB = "mariadb"
DATABASE = "shop"
READER = "runbook"  # whose password the secrets hold
SECRETS = {"source": "migration-lab/source", "target": "migration-lab/target", MARIADB: "migration-lab/mariadb"}
ENGINES = {"source": "postgres", "target": "postgres", MARIADB: "mariadb"}  # in the secrets' words
LOOK = 0.5  # seconds between two looks at servers that are up
PATIENCE = 3  # seconds that a server gets to end its sessions

log = logging.getLogger(__name__)


class Databases:
    """The servers of one lab. Nothing is made before it is used."""

    def __init__(self, root: Path) -> None:
        folder = root / "databases"
        self._cache = root / "databases-cache"
        self._lock = threading.RLock()
        self._over: threading.Event | None = None  # set: the supervisor ends; None: the servers are not up
        self._closed = False
        self._pgpass = root / "pgpass"
        self._passwords = _passwords(root / "databases.json")
        self.source, self.target = (Server(folder / side, self.password(side)) for side in SIDES)
        self.mariadb = mariadb.Server(folder / MARIADB, self.password(MARIADB, mariadb.SUPERUSER))
        self._watched: dict[str, Server | mariadb.Server] = {}  # what was started here, and is started again

    def server(self, side: str) -> Server:
        """`source` or `target`."""
        return {"source": self.source, "target": self.target}[side]

    def port(self, side: str) -> int:
        """Where a server listens; the servers that never ran are started for it."""
        server = self.mariadb if side == MARIADB else self.server(side)
        if not server.port:
            self.ready(mariadb=side == MARIADB)
        return server.port

    def password(self, side: str, user: str = SUPERUSER) -> str:
        """A role's password; the same for the life of the state folder, resets included."""
        return self._passwords[side][user]

    def ready(self, *, mariadb: bool = False) -> None:
        """Both accept connections and hold at least what they held at first; with `mariadb` all three.

        Whoever calls this waits for it.
        """
        with self._lock:
            if self._closed:
                raise LabError("The lab is stopping.")
            self._ready()
            if mariadb and not (MARIADB in self._watched and self.mariadb.pid):
                self.mariadb.start()
                shop_mariadb.found(self.mariadb, self._passwords[MARIADB])
                shop_mariadb.found_target(self.target)
                self._watched[MARIADB] = self.mariadb

    def _ready(self) -> None:
        if self._over is None or not (self.source.pid and self.target.pid):
            self._make_room()
            with ThreadPoolExecutor(2) as both:
                list(both.map(self._raise, SIDES))
            self._watched |= {side: self.server(side) for side in SIDES}
            if self._over is None:
                self._over = threading.Event()
                threading.Thread(target=self._supervise, args=(self._over,), name="databases", daemon=True).start()

    def _make_room(self) -> None:
        """Remove templates of other editions."""
        for edition in self._cache.glob("*/"):
            if edition.name != shop.edition():
                for path in edition.glob("*/"):  # what else lies there is no server
                    Server(path, "").stop()
                shutil.rmtree(edition)

    def _raise(self, side: str) -> None:
        """Start a server, with a copy of its template when there is no data."""
        server = self.server(side)
        if not server.exists:
            server.copy(self._template(side))
        server.start()

    def _template(self, side: str) -> Server:
        """A stopped server as it is at first. Its folder appears when it is complete; a killed one is begun anew."""
        templates = self._cache / shop.edition()
        template = Server(templates / side, self.password(side))
        if template.exists:
            return template
        half_made = Server(templates / f"{side}.new", template.password)
        half_made.empty()
        half_made.start()
        shop.found(half_made, side, DATABASE, self._passwords[side])
        half_made.stop()
        half_made.folder.rename(template.folder)
        return template

    def _supervise(self, over: threading.Event) -> None:
        """Start again what dies, until it is over."""
        while not over.wait(LOOK):
            with self._lock:
                for side, server in self._watched.items():
                    if over.is_set() or server.pid is not None:
                        continue
                    log.warning("The %s database has died; it is started again", side)
                    try:
                        server.start()
                    except LabError:
                        log.exception("The %s database does not come back; the next look tries again", side)

    def connect(
        self, side: str, user: str = SUPERUSER, database: str = DATABASE, **options: Any
    ) -> psycopg.Connection[Any]:
        """A session on one side, autocommit unless told; starts the servers when they are not up."""
        import psycopg

        self.ready()
        given = {"password": self.password(side, user)} | options
        try:
            return self.server(side).connect(database, user, **given)
        except psycopg.OperationalError:  # it died since, or recovers from a killed session
            self.ready()
            self.server(side).start()
            return self.server(side).connect(database, user, **given)

    def connect_mariadb(
        self, user: str = mariadb.SUPERUSER, database: str | None = None, **options: Any
    ) -> pymysql.Connection[Any]:
        """A session of the third server, which is ready then."""
        self.ready(mariadb=True)
        given = {"password": self.password(MARIADB, user)} | options
        return self.mariadb.connect(database, user, **given)

    @property
    def up(self) -> dict[str, bool]:
        """Which servers run, whoever started them; the third is told of when it was made."""
        found = {side: self.server(side).pid is not None for side in SIDES}
        return found | ({MARIADB: self.mariadb.pid is not None} if self.mariadb.exists else {})

    def described(self, *, mariadb: bool = False) -> dict[str, Any]:
        """What somebody needs who connects, passwords by role included. They are up afterwards."""
        self.ready(mariadb=mariadb)
        sides = {
            side: {"host": HOST, "port": self.port(side), "database": DATABASE, "users": self._passwords[side]}
            for side in (*SIDES, *([MARIADB] if mariadb else []))
        }
        lines = [
            f"{HOST}:{sides[side]['port']}:*:{user}:{password}\n"
            for side in SIDES
            for user, password in self._passwords[side].items()
        ]
        _write(self._pgpass, "".join(lines))
        return {"sides": sides, "psql": find_binaries().tool("psql"), "pgpass": str(self._pgpass)}

    def secrets(self, *, mariadb: bool = False) -> dict[str, dict[str, Any]]:
        """What Secrets Manager says, by name: as RDS writes it. The servers are up afterwards: a port is in it."""
        self.ready(mariadb=mariadb)
        return {
            SECRETS[side]: {
                "username": READER,
                "password": self.password(side, READER),
                "engine": ENGINES[side],
                "host": HOST,
                "port": self.port(side),
                "dbname": DATABASE,
            }
            for side in (*SIDES, *([MARIADB] if mariadb else []))
        }

    def stop(self) -> bool:
        """End all, also those that a killed lab left; False when none ran.

        The target is the first: a source waits for who reads from it.
        """
        with self._lock:
            if self._over is not None:
                self._over.set()
                self._over = None
            self._watched.clear()
            halves = [Server(path, "") for path in self._cache.glob("*/*.new")]
            every: list[Server | mariadb.Server] = [self.target, self.source, self.mariadb, *halves]
            running = [server for server in every if server.pid is not None]
            for server in running:
                server.stop(patience=PATIENCE)
            return bool(running)

    def close(self) -> None:
        """End all for good: whoever comes later is refused."""
        with self._lock:
            self._closed = True
            self.stop()

    def forget(self) -> None:
        """End all and delete what they hold. Passwords and PostgreSQL's ports stay, and the templates."""
        with self._lock:
            self.stop()
            for side in SIDES:
                self.server(side).empty()
            self.mariadb.remove()

    def forget_mariadb(self) -> None:
        """End the third server and delete what it holds, and what its rows went to on the target."""
        with self._lock:
            self._watched.pop(MARIADB, None)
            self.mariadb.remove()
            if self.target.exists:
                self.ready()
                shop_mariadb.drop_target(self.target)


def _passwords(path: Path) -> dict[str, dict[str, str]]:
    """Random ones, made once; only the owner may read the file."""
    known: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    roles = {**{side: shop.roles(side) for side in SIDES}, MARIADB: shop_mariadb.roles()}
    made = {side: {role: secrets.token_urlsafe(18) for role in roles[side]} for side in roles.keys() - known.keys()}
    if made:
        _write(path, json.dumps(known | made, indent=1))
    return known | made


def _write(path: Path, text: str) -> None:
    """Store a secret text, all or nothing, mode 0600."""
    half_made = path.with_suffix(".new")
    half_made.unlink(missing_ok=True)
    descriptor = os.open(half_made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    half_made.rename(path)
