"""What else can the lab migrate from? With the profile `mariadb` there is another source, with a task of its own."""

from __future__ import annotations

from . import dms_world, mariadb
from .core import POSTGRESQL, PROFILE, Lab
from .databases import MARIADB
from .dms import Dms
from .protocol import Refusal, Service
from .world import ask

PROFILES = (POSTGRESQL, MARIADB)


def switch(lab: Lab, services: dict[str, Service], profile: str) -> None:
    """Add MariaDB's endpoints and task to the world, or take them away with all their rows. No server is started."""
    if profile not in PROFILES:
        raise Refusal("ValidationException", f"There is no profile {profile!r}; there are {', '.join(PROFILES)}.")
    dms = services["dms"]
    assert isinstance(dms, Dms)
    if profile == MARIADB:
        mariadb.find_binaries()
        dms_world.make_mariadb(dms, ask)
    elif lab.profile == MARIADB:
        dms_world.remove_mariadb(dms, ask)
        lab.databases.forget_mariadb()
    lab.database.set(PROFILE, profile)
