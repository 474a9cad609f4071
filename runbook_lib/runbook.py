"""The one object a notebook talks to: it opens the environment and hangs the parts on it, with no logic of its own."""

from __future__ import annotations

import os
import posixpath
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from . import permissions, picker, preflight, redaction
from .application_server import ApplicationServer
from .aws import identity
from .aws import secrets as aws_secrets
from .aws.client import Session
from .aws.datasync import DataSync
from .aws.dms import Dms, DmsTask
from .aws.dms import Endpoint as DmsEndpoint
from .aws.executions import Task
from .aws.s3 import S3
from .aws.ssm import RunCommand
from .aws.storage_gateway import FileShare, StorageGateway
from .checking import Checking
from .databases import Database
from .environment import LATEST, DmsSettings, Environment
from .errors import ChangeRefused, SettingsError
from .evidence import approval, kernel
from .evidence.changer import Changer
from .evidence.folder import ONLY_LOOKING, RunFolder, changer_path, memory
from .filters import Filters
from .hosts import Host, ProcessHost
from .managed_host import SsmHost
from .migration import DatabaseMigration, ends
from .settings import knobs, load_environment, overridden
from .share import Share
from .test_file import TestFile
from .transfer import Transfer
from .world import Endpoint, endpoint_of

if TYPE_CHECKING:  # pyarrow is imported when files are compared
    from .aws.exchange import Exchange
    from .files import Files


class Runbook(Checking):
    """An environment, opened for one notebook."""

    def __init__(
        self, environment: Environment, notebook: str, passed: dict[str, Any], run: RunFolder, endpoint: Endpoint
    ) -> None:
        self.environment = environment
        self.notebook = notebook
        confirm = passed.pop("confirm", None)
        command = passed.pop("command", None)
        self._confirm = str(confirm).zfill(12) if confirm is not None else environment.confirm
        self.knobs = knobs(environment, notebook, passed)
        self.run = run
        self.endpoint = endpoint
        self._account_seen = False
        self._allowed = False
        record = run.events.bind(
            **({"command": command} if command else {"notebook": notebook}),
            environment=environment.environment,
            world=endpoint.world,
            endpoint=endpoint.url or "public AWS endpoints",
            account=environment.account,
            **({"looking": True} if os.environ.get(ONLY_LOOKING) else {}),
        )
        super().__init__(record, {"run": run.run_id, "notebook": notebook, "world": endpoint.world})
        self.session = Session(
            record=self.record,
            endpoint_url=endpoint.url,
            credentials=endpoint.credentials,
            profile=environment.profile,
            role_arn=environment.role_arn,
            home_region=environment.regions.cloud,
            guard=self._allow_change,
            secret=redaction.register,
        )
        self.memory = memory(environment.environment, environment.account)
        kernel.join(record, notebook, run.path)
        self.record("open", knobs=self.knobs.as_dict(), approval=approval.terms(environment.approval))

    @classmethod
    def open(cls, environment: str, *, notebook: str, **passed: Any) -> Runbook:
        """Read `parameters/<environment>.yaml`, start the lab if it is one, and join the open run.

        Keywords that are not None win over the environment's knobs. `command` is what a person typed where no notebook
        is open: the record says that, and the knobs are those of `notebook`.
        """
        loaded = load_environment(environment)
        endpoint = endpoint_of(loaded)
        return cls(loaded, notebook, passed, RunFolder.join_or_create(loaded.environment), endpoint)

    # where am I

    @cached_property
    def identity(self) -> identity.Identity:
        """Who we are, as STS says."""
        found = identity.identity(self.session, self.environment.regions.cloud)
        self.record(
            "identity", arn=found.arn, account_of_caller=found.account, regions=self.environment.regions.model_dump()
        )
        return found

    def headline(self) -> str:
        """Account, regions, environment."""
        regions = self.environment.regions
        return (
            f"{self.endpoint.world}: account {self.identity.account}, cloud region {regions.cloud}, "
            f"on-premises region {regions.premises}, environment {self.environment.environment!r}, "
            f"as {self.identity.arn}"
        )

    def __repr__(self) -> str:
        return self.headline()

    def _allow_change(self) -> None:
        """The rails, and a line in the record about what they decided."""
        try:
            self._rails()
            self._changer.hold(self.run.run_id)
        except ChangeRefused as refused:
            self.record("guard", allowed=False, reason=str(refused))
            raise
        if not self._allowed:
            self._allowed = True
            self.record("guard", allowed=True, reason="changes are on, and the account is the one that is confirmed")

    @cached_property
    def _changer(self) -> Changer:
        about = self.environment
        return Changer.of_process(changer_path(about.environment, about.account, lab=about.lab is not None))

    def _rails(self) -> None:
        """Changes are on, STS returns the environment's account, and `confirm` names it."""
        if os.environ.get(ONLY_LOOKING):
            raise ChangeRefused("This notebook was finished by an earlier run: its postconditions are only looked at.")
        if kernel.orphaned():
            raise ChangeRefused("What ran this notebook has ended, so nothing more is changed: `runbook run --resume`.")
        account, where = self.environment.account, f"environment {self.environment.environment!r}"
        if not self.environment.allow_changes:
            raise ChangeRefused(
                f"{where} does not allow changes: set `allow_changes: true` in its file when that is meant."
            )
        if self._confirm != account:
            raise ChangeRefused(
                f"{where} is for account {account}; `confirm` must name it before anything is changed "
                f"(it is {self._confirm!r}): "
                f'set the parameter confirm = "{account}" in this notebook, or pass `-p confirm={account}`.'
            )
        if not self._account_seen:
            if self.identity.account != account:
                raise ChangeRefused(
                    f"{where} is for account {account}, but these credentials belong to {self.identity.account} "
                    f"({self.identity.arn}). Sign in to the right account, or set `profile`."
                )
            self._approved(where)
            self._account_seen = True

    def _approved(self, where: str) -> None:
        """The run is one of a plan that another person signed, where the environment asks for that."""
        if not self.environment.approval.required:
            return
        here = {
            "environment": self.environment.environment,
            "world": self.endpoint.world,
            "account": self.identity.account,
            "caller": self.identity.arn,
            "regions": self.environment.regions.model_dump(),
        }
        missing = approval.missing(self.run.path, self.environment.approval, here, self.notebook, self.knobs.as_dict())
        if missing:
            raise ChangeRefused(
                f"{where}: {'; '.join(missing)}. Make a plan (`runbook run --plan`), let it be signed, and run it with "
                "--approved."
            )

    def _remember(self, key: str, value: Any) -> None:
        """Durable for later runs, and a line in this run's record."""
        self.memory.remember(key, value)
        self.record("note", key=key, value=value)

    def _before_check(self) -> None:
        self.session.record_bulk()

    # the parts

    @cached_property
    def _datasync(self) -> DataSync:
        return DataSync(
            self.session, self.environment.regions.cloud, recall=self.memory.recall, remember=self._remember
        )

    @cached_property
    def _gateway(self) -> StorageGateway:
        return StorageGateway(self.session, self.environment.regions.cloud)

    @cached_property
    def _run_command(self) -> RunCommand | None:
        reach = self.environment.application_server.reach
        return RunCommand(self.session, self.environment.regions.premises) if reach == "ssm" else None

    @cached_property
    def _exchange(self) -> Exchange | None:
        """Where the server's long answers go through."""
        from .aws.exchange import Exchange

        about = self.environment
        if about.inventory.exchange is None:
            return None
        return Exchange(
            self.session,
            about.regions.cloud,
            about.inventory.exchange,
            about.environment,
            destination=lambda: (self.datasync.task.destination.bucket, self.datasync.task.destination.prefix),
            secret=redaction.register,
        )

    @cached_property
    def server(self) -> ApplicationServer:
        """The application server with both mounts."""
        server = self.environment.application_server
        host: Host
        if self._run_command is not None:
            host = SsmHost(self._run_command, server.instance, self._exchange)
        else:
            host = ProcessHost(server.instance, self._allow_change, ssh=server.reach == "ssh")
        return ApplicationServer(
            host,
            source_mount=server.source_mount,
            share_mount=server.share_mount,
            privilege=server.privilege,
            in_scope=lambda path: self._filters.in_scope(path),
        )

    @cached_property
    def _filters(self) -> Filters:
        return Filters(self.datasync.task.includes, self.datasync.task.excludes)

    @cached_property
    def datasync(self) -> Transfer:
        """The last copy: its task, run and statistics."""
        return Transfer(
            self._datasync,
            S3(self.session, self.environment.regions.cloud),
            self.server,
            find_task=self._find_task,
            timeout=60 * self._knob("timeout_minutes", 120),
        )

    @property
    def files(self) -> Files:
        """The files of the NFS server beside those of the bucket and the share."""
        return self.files_as()

    def files_as(self, **settings: Any) -> Files:
        """The same, looked at with other settings than the environment's section `inventory`."""
        from .file_sides import FileSides
        from .files import Files

        wins = overridden(self.environment.inventory, settings, "inventory")
        region, task = self.environment.regions.cloud, self.datasync.task
        report, latest = self.datasync.report_inventory, lambda: self.datasync.history(1).latest
        sides = FileSides(self.session, region, self.server, task, wins, report, latest)
        return Files(sides, lambda: self.run.path, self.record)

    @cached_property
    def share(self) -> Share:
        """The file share and its refresh."""
        return Share(
            self._gateway,
            self.session,
            self.server,
            region=self.environment.regions.cloud,
            account=self.environment.account,
            find=self._find_share,
            last_copy=self._last_copy,
            recall=self.memory.recall,
            remember=self._remember,
            spacing=60 * self.endpoint.pace,
            timeout=60 * self._knob("timeout_minutes", 30),
        )

    @cached_property
    def dms(self) -> DatabaseMigration:
        """The database migration: its task, and the rows on both sides."""
        settings = self.environment.dms
        if settings is None:
            raise SettingsError(f"environment {self.environment.environment!r} has no section `dms`: 06 is not for it.")
        return DatabaseMigration(
            self.session,
            self.environment.regions.cloud,
            find_task=lambda dms: self._find_dms_task(dms, settings),
            database=lambda side, endpoint: self._database(side, settings, endpoint),
            wishes=self.knobs,
            allow_change=self._allow_change,
        )

    def _find_dms_task(self, dms: Dms, settings: DmsSettings) -> DmsTask:
        return picker.pick("task", self._knob("task", None) or settings.task, dms.task, dms.task_names)

    def _database(self, side: str, settings: DmsSettings, endpoint: DmsEndpoint) -> Database:
        given = settings.source if side == "source" else settings.target
        secret = aws_secrets.Secret("")
        if given.password is not None:
            secret = aws_secrets.resolve(self.session, self.environment.regions.cloud, given.password)
        return ends.database(side, given, secret, endpoint)

    @cached_property
    def file(self) -> TestFile:
        """The test file of 01."""
        return TestFile(self.server, self.datasync, self.knobs)

    def _knob(self, name: str, default: Any) -> Any:
        return self.knobs.as_dict().get(name, default)

    def _find_task(self) -> Task:
        name = self._knob("task", None) or self.environment.datasync.task
        names = lambda: sorted(called or arn for arn, called in self._datasync.task_names().items())  # noqa: E731
        return picker.pick("task", name, self._datasync.task, names)

    def _find_share(self) -> FileShare:
        name = self._knob("share", None) or self.environment.storage_gateway.share
        return picker.pick(
            "share", name, self._gateway.share, lambda: sorted(s.name or s.arn for s in self._gateway.shares())
        )

    def _last_copy(self) -> datetime | None:
        """When the last execution that copied anything ended."""
        executions = self._datasync.executions(self.datasync.task, 100)
        return max((e.ended for e in executions if e.ended and e.items_transferred), default=None)

    @property
    def test_file(self) -> str:
        """The path of the file that 01 creates, relative to both mounts."""
        path: str = self._knob("path", None) or self._knob(
            "new_file", self.environment.notebooks.create_test_file.new_file
        )
        return path

    @property
    def test_folder(self) -> str:
        """The directory of the test file, '/' for the top."""
        return "/" + posixpath.dirname(self.test_file)

    @property
    def test_name(self) -> str:
        """The name of the test file, as `ls` shows it."""
        return posixpath.basename(self.test_file)

    @property
    def listed_folder(self) -> str:
        """Where 04 looks with `ls`: the test file's directory when it is in the refreshed folder, else that folder."""
        refreshed = "/" + self.knobs.folder.strip("/")
        inside = refreshed == "/" or f"{self.test_folder}/".startswith(f"{refreshed}/")
        return self.test_folder if inside else refreshed

    @property
    def scope_folder(self) -> str | None:
        """Whose files are read and compared: the test file's directory; None: everything."""
        return None if self.knobs.scope == "everything" else self.test_folder

    # preflight

    def agent_online(self) -> preflight.Answer:
        """Is the task's agent online?"""
        return preflight.agent_online(self._datasync, self.datasync.task)

    def task_available(self) -> preflight.Answer:
        """Can the task be started?"""
        return preflight.task_available(self.datasync.task)

    def same_place(self) -> preflight.Answer:
        """Do task and share point at the same bucket and prefix?"""
        return preflight.same_place(self.datasync.task, self.share.info, self._gateway)

    def server_reachable(self) -> preflight.Answer:
        """Does the application server answer and see both mounts?"""
        return preflight.server_reachable(self._run_command, self.environment.application_server.instance, self.server)

    def permitted(self) -> preflight.Permissions:
        """Do the permissions suffice for all notebooks? Asked of IAM's simulation; nothing is done."""
        regions, account = self.environment.regions, self.environment.account
        probes = [
            identity.Probe(
                permissions.resource(action, account),
                regions.premises if action.startswith("ssm:") else regions.cloud,
                action,
            )
            for action in permissions.wanted(self.environment.inventory.s3_inventory == LATEST)
        ]
        return preflight.permissions(self.session, regions.cloud, self.identity, probes)

    def listed(self, path: str) -> preflight.Answer:
        """Does `ls` on the share show a file? And if not, is it on the NFS server at all?"""
        if self.server.exists("share", path):
            return preflight.Answer(True, f"{path} is on the share")
        if self.server.exists("source", path):
            return preflight.Answer(False, f"{path} is on the NFS server and not on the share")
        return preflight.Answer(False, f"{path} is not on the NFS server either: 01_create_test_file creates it")
