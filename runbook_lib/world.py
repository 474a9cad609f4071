"""Where calls go: the public AWS endpoints, or the embedded lab, which is started when it does not run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from .aws.client import Credentials
from .environment import Environment
from .errors import LabError


@dataclass(frozen=True)
class Endpoint:
    """Where an environment's calls go."""

    world: str  # LAB or AWS: said in every record; nothing behaves differently for it
    url: str | None
    credentials: Credentials | None
    pace: float  # how much of AWS's minimum waits applies: 1 at AWS


AWS = Endpoint("AWS", None, None, 1.0)


def endpoint_of(environment: Environment) -> Endpoint:
    """The endpoint of an environment; starts the lab for one that has a `lab:` section."""
    if environment.lab is None:
        return AWS
    wished = {"--pace": environment.lab.pace, "--profile": environment.lab.profile}
    options = [text for name, value in wished.items() if value is not None for text in (name, str(value))]
    command = [sys.executable, "-m", "runbook_lib.lab", "start", "--json", *options]
    started = subprocess.run(command, capture_output=True, text=True, check=False)
    if started.returncode != 0:
        said = (started.stderr or started.stdout).strip().removeprefix("runbook lab start: ").rstrip(".")
        advice = "See `runbook lab logs`; `runbook lab reset` makes a new one."
        raise LabError(f"The lab did not start as asked: {said}. {advice}")
    found = json.loads(started.stdout)
    return Endpoint("LAB", found["url"], Credentials(found["access_key"], found["secret_key"]), float(found["pace"]))
