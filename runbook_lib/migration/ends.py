"""How do we reach a database of the migration ourselves: what the environment says, then the secret, then DMS?"""

from __future__ import annotations

from ..aws.dms import Endpoint
from ..aws.secrets import Secret
from ..databases import ENGINES, Database
from ..environment import DatabaseSide
from ..errors import SettingsError


def database(side: str, given: DatabaseSide, secret: Secret, endpoint: Endpoint) -> Database:
    """The database at an endpoint; `SettingsError` for an engine whose rows we cannot compare."""
    if endpoint.engine not in ENGINES:
        raise SettingsError(
            f"the {side} endpoint {endpoint.name} is {endpoint.engine}: rows are compared between PostgreSQL, "
            "MySQL and MariaDB."
        )
    found = Database(
        engine=ENGINES[endpoint.engine],
        host=given.host or secret.host or endpoint.host,
        port=given.port or secret.port or endpoint.port,
        name=given.database or secret.database or endpoint.database,
        user=given.user or secret.user or endpoint.user,
        password=secret.password,
        options=tuple(sorted(given.options.items())),
    )
    needed = [("host", found.host), ("user", found.user)]
    if found.engine == "postgresql":  # MySQL's endpoints name no database: the tables' schemas are theirs
        needed.append(("database", found.name))
    lacking = [what for what, value in needed if not value]
    if lacking:
        raise SettingsError(
            f"nothing says the {' and the '.join(lacking)} of the {side} database: set `dms.{side}.{lacking[0]}` in "
            "the environment's file."
        )
    return found
