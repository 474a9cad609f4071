"""A lab's front door on a real port, with a small service of its own and a small S3 behind it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pytest

from runbook_lib.lab.core import CLOUD_REGION, Bus, Folder, Lab
from runbook_lib.lab.databases import Databases
from runbook_lib.lab.front import Front
from runbook_lib.lab.http import HttpRequest, HttpResponse
from runbook_lib.lab.moto_bridge import Moto, MotoBus
from runbook_lib.lab.protocol import Call, Refusal, Service
from runbook_lib.lab.server import Server

ACCESS_KEY = "AKIAQWERTYUIOPASDFGH"
SECRET_KEY = "a-secret-of-the-tests-and-of-nothing-else"


class SmallDataSync(Service):
    """Three operations: one answers, one refuses, one has a bug."""

    name = "datasync"
    invalid = "InvalidRequestException"

    def list_agents(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        return {"Agents": [{"Name": call.region, "AgentArn": f"arn:aws:datasync:{call.region}:{call.account}:agent/a"}]}

    def delete_agent(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        raise Refusal("InvalidRequestException", "It is in use.", errorCode="AgentInUse")

    def list_locations(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        raise KeyError("a bug")


@dataclass
class SmallS3:
    """Keeps what was put in full; answers a GET of `…/large` with a long stream."""

    stored: dict[str, int] = field(default_factory=dict)
    requests: list[HttpRequest] = field(default_factory=list)

    def handle(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        if request.method == "PUT":
            size = 0
            while piece := request.body.read(1 << 20):
                size += len(piece)
            self.stored[request.path] = size
            return HttpResponse(200, [("ETag", '"0"')])
        if request.path.endswith("/large"):
            return HttpResponse(200, [("Content-Length", str(64 << 20))], (bytes(1 << 20) for _ in range(64)))
        return HttpResponse(200, [("Content-Type", "text/plain")], b"some content")


@dataclass
class Door:
    """A listening front and clients for it."""

    url: str
    front: Front
    s3: SmallS3
    bus: Bus
    control: list[tuple[str, dict[str, Any]]]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def client(self, service: str, *, region: str = CLOUD_REGION, **options: Any) -> Any:
        """A boto3 client that does not retry."""
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY} | options
        config = botocore.config.Config(retries={"max_attempts": 0}, proxies={})
        return boto3.client(service, region_name=region, endpoint_url=self.url, config=config, **keys)


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder with the databases' templates, made once for all tests (dms_world.sown)."""
    root = tmp_path_factory.mktemp("seed")
    databases = Databases(root)
    databases.ready()
    databases.close()
    return root


@pytest.fixture(scope="session")
def moto() -> Moto:
    """moto, once in this process: its state is global."""
    loaded = Moto(ACCESS_KEY, SECRET_KEY)
    loaded.load()
    return loaded


@pytest.fixture(scope="module")
def door(moto: Moto, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    bus = MotoBus(moto)
    lab = Lab(Folder(tmp_path_factory.mktemp("state")), bus)
    s3, asked = SmallS3(), []

    def control(verb: str, parameters: dict[str, Any]) -> Any:
        asked.append((verb, parameters))
        return {"done": verb}

    front = Front(ACCESS_KEY, SECRET_KEY, {"datasync": SmallDataSync(lab)}, s3, moto, control)
    server = Server(front, 0)
    url = server.listen()
    server.run()
    moto.backend("iam", "aws")
    yield Door(url, front, s3, bus, asked)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    stopper.join()
