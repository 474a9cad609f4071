"""What may an environment file say? `parameters/<environment>.yaml` as models, with the defaults of every key."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Regions(_Strict):
    """Where things are activated: DataSync, gateway and bucket in `cloud`, the application server in `premises`."""

    cloud: str
    premises: str


class LabSettings(_Strict):
    """Present when the environment is the embedded lab."""

    pace: float | None = Field(default=None, ge=0, le=10)  # None: leave the lab as it is
    profile: Literal["postgresql", "mariadb"] | None = None  # mariadb: a source more; None: leave the lab as it is


class ApplicationServer(_Strict):
    """The machine that sees both mounts, and how it is reached."""

    reach: Literal["ssm", "ssh", "local"] = "ssm"
    instance: str  # SSM: managed instance id or name; SSH: host as in ~/.ssh/config; local: any label
    source_mount: str = "/mnt/data"
    share_mount: str = "/mnt/fgw"
    privilege: Literal["", "sudo"] = "sudo"  # put before commands that change a mount

    @model_validator(mode="after")
    def _two_mounts(self) -> ApplicationServer:
        if self.source_mount.rstrip("/") == self.share_mount.rstrip("/"):
            raise ValueError("source_mount and share_mount are the same: comparing a mount with itself proves nothing")
        return self


class DataSyncSettings(_Strict):
    """The task of the last copy, by name or ARN; None when there is only one."""

    task: str | None = None


class StorageGatewaySettings(_Strict):
    """The file share the application reads, by name, id or ARN; None when there is only one."""

    share: str | None = None


class DatabaseSide(_Strict):
    """How we reach a database ourselves. What is None comes from the secret, else from the DMS endpoint."""

    password: str | None = None  # the name of a secret: secretsmanager:NAME, ssm:NAME or env:VARIABLE
    user: str | None = None
    host: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    database: str | None = None
    options: dict[str, str] = {}  # of the driver, such as sslmode: verify-full and sslrootcert

    @field_validator("password")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and value.partition(":")[0] not in ("secretsmanager", "ssm", "env"):
            raise PydanticCustomError(
                "secret", "give the name of a secret (secretsmanager:NAME, ssm:NAME, env:VARIABLE)"
            )
        return value


class DmsSettings(_Strict):
    """The replication task, by name or ARN (None when there is only one), and the databases at its ends."""

    task: str | None = None
    source: DatabaseSide = DatabaseSide()
    target: DatabaseSide = DatabaseSide()


GENTLE = {"entries_per_second": 2000.0, "bytes_per_second": 50e6, "requests_per_second": 50.0}
LATEST = "latest"  # the bucket's latest S3 Inventory, where it was made after the last copy
Level = Literal["names", "size", "metadata", "sample", "content"]


class InventorySettings(_Strict):
    """How the files of the sides are listed and compared: how much at a time, and how gently."""

    processes: int = Field(default=2, ge=1, le=64)  # that scan, list or hash at the same time
    connections: int = Field(default=16, ge=1, le=128)  # to S3, of each process
    entries_per_second: float | None = Field(default=None, gt=0)  # on the NFS server; None: as fast as it goes
    bytes_per_second: float | None = Field(default=None, gt=0)  # read there, for checksums
    requests_per_second: float | None = Field(default=None, gt=0)  # to S3
    privilege: Literal["", "sudo"] = ""  # put before what reads there, where the user may not read everything
    s3_inventory: str | None = None  # s3://bucket/…/manifest.json, or latest: stands in for LIST; None: LIST
    exchange: str | None = None  # s3://bucket/prefix: what is too long for SSM's commands goes through it

    def gently(self) -> dict[str, float]:
        """One process, and of each rate the lower one: this section's, or what a busy server bears."""
        rates = {name: min(getattr(self, name) or rate, rate) for name, rate in GENTLE.items()}
        return {"processes": 1, **rates}

    @field_validator("s3_inventory")
    @classmethod
    def _manifest(cls, value: str | None) -> str | None:
        if value not in (None, LATEST) and not (value.startswith("s3://") and value.endswith("manifest.json")):
            raise ValueError(f"give an S3 Inventory's manifest, s3://bucket/path/manifest.json, or {LATEST}")
        return value

    @field_validator("exchange")
    @classmethod
    def _place(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^?#]*)?", value):
            raise ValueError("give a bucket and a prefix for what is on its way: s3://bucket/prefix")
        return value


class Approval(_Strict):
    """Whether changes need a plan that another person than the operator signed as approver."""

    required: bool = False
    approvers: tuple[str, ...] = ()  # fingerprints of the keys that may; none: any key but the operator's
    valid_hours: float = Field(default=24, gt=0)  # a plan that is older has to be made and signed anew


class StartHere(_Strict):
    """Knobs of 00_start_here: none."""


class CreateTestFile(_Strict):
    """Knobs of 01_create_test_file; paths are relative to the source mount."""

    source_file: str = "images/00001.jpg"
    new_file: str = "new-image.jpg"
    create: bool = True
    undo: bool = False
    undo_object: bool = False


class RunDatasyncTask(_Strict):
    """Knobs of 02_run_datasync_task."""

    task: str | None = None
    timeout_minutes: float = Field(default=120, gt=0)


class InspectTransferStats(_Strict):
    """Knobs of 03_inspect_transfer_stats."""

    task: str | None = None
    history: int = Field(default=5, ge=1, le=100)
    path: str | None = None  # the object to look at; None: the test file
    level: Level = "metadata"  # how far every file at the source is compared with its object
    sample: int = Field(default=3000, ge=1)  # files that level `sample` reads


class RefreshGatewayCache(_Strict):
    """Knobs of 04_refresh_gateway_cache; folder `/` is everything, else one directory below the share."""

    share: str | None = None
    path: str | None = None  # the file to look for with `ls`; None: the test file
    folder: str = "/"
    timeout_minutes: float = Field(default=30, gt=0)


class VerifyListing(_Strict):
    """Knobs of 05_verify_listing; scope `folder` reads the files of the new file's directory, `everything` all."""

    path: str | None = None
    level: Literal["names", "size", "metadata"] = "metadata"  # how far every file is compared with the share's
    scope: Literal["folder", "everything"] = "folder"


class ValidateDms(_Strict):
    """Knobs of 06_validate_dms."""

    task: str | None = None
    start_task: bool = False  # start a task that does not run, or resume it
    create_roles: bool = False
    apply_repairs: Literal["nothing", "before cutover", "everything"] = "nothing"
    heartbeat_table: str | None = None  # schema.table of the source with id, beat, token; None: no heartbeat is written
    exclude: list[str] = []  # schema.table patterns that are not compared
    may_be_empty: list[str] = []  # … that may have no row on either side
    gentle: bool = False  # one session, small ranges, rests as long as it worked
    method: Literal["md5", "native"] = "md5"
    rounds: int = Field(default=3, ge=1, le=20)  # how often differing rows are looked at again
    workers: int = Field(default=2, ge=1, le=32)  # sessions a side at most: one for every two million rows
    logs_since: datetime | None = None  # UTC; earlier lines were dealt with; None: since the task was last started
    headroom: int = Field(default=1000, ge=0)  # how far beyond the last key a sequence is set
    timeout_minutes: float = Field(default=120, gt=0)  # for the full load, DMS's validation, connection tests
    patience_seconds: float = Field(default=120, gt=0)  # for changes and heartbeats to arrive
    least_storage_gb: float = Field(default=5, ge=0)
    least_memory_mb: float = Field(default=256, ge=0)

    @field_validator("logs_since", mode="wrap")
    @classmethod
    def _utc(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            found = handler(value)
        except ValidationError as error:
            raise PydanticCustomError("time", 'write a time in UTC as "2026-11-21 12:00"') from error
        return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found


class Notebooks(_Strict):
    """Knobs of each notebook, as the environment sets them."""

    start_here: StartHere = Field(default=StartHere(), alias="00_start_here")
    create_test_file: CreateTestFile = Field(default=CreateTestFile(), alias="01_create_test_file")
    run_datasync_task: RunDatasyncTask = Field(default=RunDatasyncTask(), alias="02_run_datasync_task")
    inspect_transfer_stats: InspectTransferStats = Field(
        default=InspectTransferStats(), alias="03_inspect_transfer_stats"
    )
    refresh_gateway_cache: RefreshGatewayCache = Field(default=RefreshGatewayCache(), alias="04_refresh_gateway_cache")
    verify_listing: VerifyListing = Field(default=VerifyListing(), alias="05_verify_listing")
    validate_dms: ValidateDms = Field(default=ValidateDms(), alias="06_validate_dms")


class Environment(_Strict):
    """One environment file."""

    environment: str  # the name that records carry; the file's own name
    account: str = Field(pattern=r"^\d{12}$")
    confirm: str | None = None  # the account again: changes happen only when it is named
    allow_changes: bool = False
    regions: Regions
    profile: str | None = None
    role_arn: str | None = None
    lab: LabSettings | None = None
    application_server: ApplicationServer
    datasync: DataSyncSettings = DataSyncSettings()
    storage_gateway: StorageGatewaySettings = StorageGatewaySettings()
    dms: DmsSettings | None = None  # None: no databases are migrated, and 06 is left out
    inventory: InventorySettings = InventorySettings()
    approval: Approval = Approval()
    notebooks: Notebooks = Notebooks()

    @property
    def left_out(self) -> tuple[str, ...]:
        """The notebooks that are not for this environment."""
        return ("06_validate_dms",) if self.dms is None else ()

    @field_validator("account", "confirm", mode="before")
    @classmethod
    def _account_text(cls, value: Any) -> Any:
        # YAML and papermill's -p read 012345678901 as a number
        return f"{value:012d}" if isinstance(value, int) and not isinstance(value, bool) else value
