"""Where is a password? References to secrets, resolved when they are needed and kept nowhere."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from ..errors import SettingsError
from .client import Session

FORMS = "secretsmanager:NAME, ssm:NAME or env:VARIABLE"


@dataclass(frozen=True)
class Secret:
    """What a secret holds; fields that it does not name are empty."""

    password: str = field(repr=False)
    user: str = ""
    host: str = ""
    port: int = 0
    database: str = ""


def resolve(session: Session, region: str, reference: str) -> Secret:
    """The secret that `secretsmanager:NAME`, `ssm:NAME` or `env:VARIABLE` names.

    A value that is a JSON object is read as RDS and DMS write it: username, password, host, port, dbname
    (Secrets Manager user guide, JSON structure of database credential secrets).
    """
    kind, _, name = reference.partition(":")
    if kind == "env":
        if name not in os.environ:
            raise SettingsError(f"{reference}: the environment variable {name} is not set. Set it, and run this again.")
        return _parsed(os.environ[name], reference)
    if kind == "secretsmanager":
        answer = session.client("secretsmanager", region).look("get_secret_value", SecretId=name)
        if "SecretString" not in answer:
            raise SettingsError(f"{reference} is a binary secret: a password, or RDS's JSON, is needed as text.")
        return _parsed(answer["SecretString"], reference)
    if kind == "ssm":
        answer = session.client("ssm", region).look("get_parameter", Name=name, WithDecryption=True)
        return _parsed(answer["Parameter"]["Value"], reference)
    raise SettingsError(f"a password is given by the name of a secret ({FORMS}), never by its value.")


def _parsed(text: str, reference: str) -> Secret:
    try:
        found = json.loads(text)
    except ValueError:
        return Secret(text)
    if not isinstance(found, dict):
        return Secret(text)
    if "password" not in found:
        raise SettingsError(f"{reference} is a JSON object without `password`; it has {', '.join(sorted(found))}.")
    return Secret(
        str(found["password"]), str(found.get("username", "")), str(found.get("host", "")),
        int(found.get("port") or 0), str(found.get("dbname", "")),
    )  # fmt: skip
