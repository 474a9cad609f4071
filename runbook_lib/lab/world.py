"""What does a new lab hold? The workshop at the start of its module 4, or a few notebooks later."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import dms_world, images
from .core import ACCOUNT, CLOUD_REGION, PROFILE, Lab
from .databases import MARIADB
from .datasync import DataSync
from .datasync_locations import EXPORT, SERVER
from .dms import Dms
from .protocol import Call, Service
from .ssm import Ssm
from .storagegateway import StorageGateway

POINTS = ("00", "01", "02", "03", "04", "05", "06")  # the notebook that finds the world like this
BUCKET = "migration-lab"
REPORTS = "migration-lab-reports"
AGENT, TASK = "on-premises-agent", "nfs-to-s3"
GATEWAY, SHARE = "file-gateway", "migration-share"
INSTANCE = "application-server"
LOG_GROUP = "/aws/datasync"
NEW_FILE = "new-image.jpg"  # what notebook 01 makes of the first picture
FILES = 202  # what a BASIC task counts the first time: 200 pictures, their folder and the top folder
ROLE = f"arn:aws:iam::{ACCOUNT}:role/migration-lab"


def build(lab: Lab, services: dict[str, Service], at: str = "00") -> None:
    """Make the world that notebook `at` finds, in an empty lab, through the services' own operations."""
    world = _World(lab, services)
    with lab.hurried():
        world.make()
        _walk(world, at)
    built = datetime.now(UTC).isoformat(timespec="seconds")
    lab.database.set("world", {"at": at, "built": built})


def _walk(world: _World, at: str) -> None:
    """Do what the notebooks before `at` do; 00, 03 and 05 change nothing."""
    deeds: dict[str, Callable[[], None]] = {"01": world.create_file, "02": world.copy, "04": world.refresh}
    for notebook, deed in deeds.items():
        if notebook < at:
            deed()


class _World:
    """A world being made; what was made is remembered for the next step."""

    def __init__(self, lab: Lab, services: dict[str, Service]) -> None:
        self.lab = lab
        datasync, gateway, ssm = services["datasync"], services["storagegateway"], services["ssm"]
        dms = services["dms"]
        assert isinstance(datasync, DataSync) and isinstance(gateway, StorageGateway)
        assert isinstance(ssm, Ssm) and isinstance(dms, Dms)
        self.datasync, self.gateway, self.ssm, self.dms = datasync, gateway, ssm, dms
        self.task = self.share = ""

    def make(self) -> None:
        """The workshop at the start of module 4: copied once, refreshed once."""
        self._fill_export()
        for bucket in (BUCKET, REPORTS):
            self.lab.objects.create_bucket(bucket, CLOUD_REGION)
        self.task = self._make_task()
        self.copy()
        self.share = self._make_share()
        self.refresh()
        self.ssm.register(INSTANCE)
        dms_world.make(self.dms, ask)
        if self.lab.profile == MARIADB:
            dms_world.make_mariadb(self.dms, ask)

    def _fill_export(self) -> None:
        export = self.lab.folder.export
        images.lay_out(export / "images", self.lab.folder.root / "images-cache")
        export.chmod(0o755)
        os.utime(export, (images.FIRST_TAKEN,) * 2)

    def _make_task(self) -> str:
        agent = ask(self.datasync, "CreateAgent", ActivationKey="NFSTO-S3LAB-AGENT-ONPRE-MISES", AgentName=AGENT)
        source = ask(
            self.datasync,
            "CreateLocationNfs",
            ServerHostname=SERVER,
            Subdirectory=EXPORT,
            OnPremConfig={"AgentArns": [agent["AgentArn"]]},
        )
        destination = ask(
            self.datasync,
            "CreateLocationS3",
            S3BucketArn=f"arn:aws:s3:::{BUCKET}",
            S3Config={"BucketAccessRoleArn": ROLE},
        )
        reports = {"S3BucketArn": f"arn:aws:s3:::{REPORTS}", "BucketAccessRoleArn": ROLE}
        task = ask(
            self.datasync,
            "CreateTask",
            Name=TASK,
            SourceLocationArn=source["LocationArn"],
            DestinationLocationArn=destination["LocationArn"],
            CloudWatchLogGroupArn=f"arn:aws:logs:{CLOUD_REGION}:{ACCOUNT}:log-group:{LOG_GROUP}:*",
            TaskMode="BASIC",
            Options={"VerifyMode": "ONLY_FILES_TRANSFERRED", "LogLevel": "TRANSFER"},
            TaskReportConfig={
                "Destination": {"S3": reports},
                "OutputType": "STANDARD",
                "ReportLevel": "SUCCESSES_AND_ERRORS",
            },
        )
        return str(task["TaskArn"])

    def _make_share(self) -> str:
        gateway = ask(
            self.gateway,
            "ActivateGateway",
            ActivationKey="FILEG-ATEWA-YLABO-NPREM-ISES0",
            GatewayName=GATEWAY,
            GatewayTimezone="GMT",
            GatewayRegion=CLOUD_REGION,
            GatewayType="FILE_S3",
        )
        share = ask(
            self.gateway,
            "CreateNFSFileShare",
            ClientToken="migration-share",
            GatewayARN=gateway["GatewayARN"],
            Role=ROLE,
            LocationARN=f"arn:aws:s3:::{BUCKET}",
            FileShareName=SHARE,
        )
        return str(share["FileShareARN"])

    def create_file(self) -> None:
        """What notebook 01 does: copy the first picture to the top of the export, as of now."""
        export = self.lab.folder.export
        shutil.copyfile(export / "images" / images.name(1), export / NEW_FILE)
        (export / NEW_FILE).chmod(0o644)

    def copy(self) -> None:
        """What notebook 02 does: run the task, to its end."""
        started = ask(self.datasync, "StartTaskExecution", TaskArn=self.task)
        execution = self.datasync.finish(started["TaskExecutionArn"])
        if execution["Status"] != "SUCCESS":
            raise RuntimeError(f"The world's copy ended in {execution['Status']}: {execution['Result']}")

    def refresh(self) -> None:
        """What notebook 04 does: the share shows what the bucket holds."""
        self.gateway.refresh_now(self.share)


def ask(service: Service, operation: str, **parameters: Any) -> dict[str, Any]:
    """Call an operation as a client in the cloud's region does, validation and all."""
    call = Call(operation, CLOUD_REGION, ACCOUNT, "the-world")
    answer: dict[str, Any] = json.loads(service.answer(operation, json.dumps(parameters).encode(), call))
    return answer


def empty(lab: Lab) -> None:
    """Forget everything but the pace and the profile, and remove all files. The services must be stopped.

    The export, the share and the application server's home stay as directories: kernels and shells may stand in them.
    """
    lab.databases.forget()
    with lab.database.writing() as cursor:
        tables = cursor.execute("select name from sqlite_master where type = 'table' and name not like 'sqlite_%'")
        for table in [row["name"] for row in tables]:
            kept = f" where name not in ('pace', '{PROFILE}')" if table == "settings" else ""
            cursor.execute(f'delete from "{table}"{kept}')
    folder = lab.folder
    for directory in (folder.export, folder.share, folder.blobs, folder.staging):
        _clear(directory.iterdir())
    mounts = folder.export.parent
    _clear(path for path in mounts.iterdir() if path not in (folder.export, folder.share))
    _clear(path for path in folder.application.iterdir() if path != mounts)


def _clear(paths: Iterable[Path]) -> None:
    """Remove files and trees, also those that somebody made unreadable."""
    for path in list(paths):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            continue
        path.chmod(0o700)
        for parent, folders, _ in os.walk(path):
            for name in folders:
                if not (Path(parent) / name).is_symlink():
                    (Path(parent) / name).chmod(0o700)
        shutil.rmtree(path)
