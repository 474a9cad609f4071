"""Where is the lab of this state folder, and which key opens it? Also: one daemon per folder, and how to talk to it."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from ..errors import LabError
from .core import ACCOUNT, CLOUD_REGION, PREMISES_REGION, Folder

STATE_VARIABLE = "RUNBOOK_LAB_STATE"
KEY_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


def default_state() -> Path:
    """The state folder when none is named: $RUNBOOK_LAB_STATE, else `.lab` in the checkout or the current folder."""
    named = os.environ.get(STATE_VARIABLE)
    if named:
        return Path(named).expanduser().resolve()
    project = Path(__file__).resolve().parents[2]
    return (project if (project / "pyproject.toml").is_file() else Path.cwd()) / ".lab"


@dataclass(frozen=True)
class Connection:
    """What a client needs; stored as connection.json, readable by its owner only."""

    url: str  # "" until the lab listened for the first time
    access_key: str
    secret_key: str = field(repr=False)
    regions: dict[str, str]
    account: str
    pid: int

    @property
    def port(self) -> int:
        """The port to listen on again; 0 for any."""
        return int(self.url.rpartition(":")[2]) if self.url else 0

    def public(self) -> dict[str, Any]:
        """As it is stored and printed for clients."""
        return asdict(self)

    def write(self, folder: Folder) -> None:
        """Store it, all or nothing, mode 0600."""
        path = folder.connection.with_suffix(".new")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            json.dump(self.public(), file, indent=1)
        os.replace(path, folder.connection)

    def at(self, url: str) -> Connection:
        """The same lab, listening here, in this process."""
        return replace(self, url=url, pid=os.getpid())

    def call(self, verb: str, parameters: dict[str, Any] | None = None, *, timeout: float = 30) -> Any:
        """Ask the running daemon; LabError with its message when it refuses or does not answer."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        body = json.dumps(parameters or {})
        signed = AWSRequest("POST", f"{self.url}/_lab/{verb}", data=body, headers={"Content-Type": "application/json"})
        credentials = Credentials(self.access_key, self.secret_key)
        SigV4Auth(credentials, "lab", self.regions["cloud"]).add_auth(signed)
        request = urllib.request.Request(
            f"{self.url}/_lab/{verb}", data=body.encode(), headers=dict(signed.headers.items()), method="POST"
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
        try:
            with opener.open(request, timeout=timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise LabError(_message(error.read())) from error
        except (OSError, ValueError) as error:
            raise LabError(f"No lab answers at {self.url}: {error}. Start it with `runbook lab start`.") from error

    def alive(self, timeout: float = 5) -> bool:
        """Whether our own daemon answers there: it proves that it knows the secret."""
        nonce = secrets.token_hex(16)
        try:
            answer = self.call("ping", {"nonce": nonce}, timeout=timeout)
        except LabError:
            return False
        proof = answer.get("proof", "") if isinstance(answer, dict) else ""
        return hmac.compare_digest(proof, self.proof(nonce))

    def proof(self, nonce: str) -> str:
        """What only somebody with the secret can answer to a nonce."""
        return hmac.new(self.secret_key.encode(), nonce.encode(), hashlib.sha256).hexdigest()


def read_connection(folder: Folder) -> Connection | None:
    """The stored connection; None before the first start. It says nothing about whether the lab is running."""
    try:
        return Connection(**json.loads(folder.connection.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise LabError(f"{folder.connection} is damaged ({error}): delete it and start the lab again.") from error


def new_connection() -> Connection:
    """Fresh random credentials for a new state folder."""
    access_key = "AKIA" + "".join(secrets.choice(KEY_ALPHABET) for _ in range(16))
    regions = {"cloud": CLOUD_REGION, "premises": PREMISES_REGION}
    return Connection("", access_key, secrets.token_urlsafe(30), regions, ACCOUNT, 0)


@contextmanager
def holding(folder: Folder, name: str, *, patience: float) -> Iterator[IO[str]]:
    """Hold a lock of the folder; LabError when somebody else keeps it for `patience` seconds.

    A POSIX record lock: it ends with this process however that ends, and forked children do not inherit it.
    """
    folder.root.mkdir(parents=True, exist_ok=True)
    os.chmod(folder.root, 0o700)
    with open(folder.root / f"{name}.lock", "a+") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError) as error:
                if time.monotonic() > deadline:
                    raise LabError(f"Another process (pid {_owner(folder, name)}) holds {folder.root}.") from error
                time.sleep(0.02)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file
        file.truncate(0)


def _owner(folder: Folder, name: str) -> str:
    return (folder.root / f"{name}.lock").read_text() or "unknown"


def owner(folder: Folder, name: str) -> int | None:
    """The process id in a lock file: right as long as the lock is held; a clean end empties it."""
    try:
        text = (folder.root / f"{name}.lock").read_text()
    except FileNotFoundError:
        return None
    return int(text) if text.isdigit() else None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:300].decode("utf-8", "replace")
