"""Is everything there that the later steps need: agent, task, share, application server, permissions? Only looks."""

from __future__ import annotations

from dataclasses import dataclass

from .application_server import ApplicationServer
from .aws.client import Session
from .aws.datasync import DataSync
from .aws.executions import Task
from .aws.identity import Identity, Permission, Probe, probe
from .aws.ssm import RunCommand
from .aws.storage_gateway import FileShare, StorageGateway
from .display import Shown, Table, plural
from .sides import Side


@dataclass(frozen=True, repr=False)
class Answer(Shown):
    """One question of the preflight and its answer."""

    ok: bool
    reason: str
    rows: tuple[tuple[str, ...], ...] = ()

    def headline(self) -> str:
        """The answer."""
        return self.reason

    def tables(self) -> list[Table]:
        """What was looked at."""
        return [Table(("Looked at", "Seen"), self.rows, limit=40)] if self.rows else []


def agent_online(datasync: DataSync, task: Task) -> Answer:
    """Every agent of the task's source is ONLINE."""
    agents = [datasync.agent_status(arn) for arn in task.agent_arns]
    offline = [name for name, status in agents if status != "ONLINE"]
    said = f"offline: {', '.join(offline)}" if offline else f"{plural(len(agents), 'agent')} online"
    return Answer(bool(agents) and not offline, said if agents else "the task's source has no agent", tuple(agents))


def task_available(task: Task) -> Answer:
    """The task can be started, or is running."""
    ok = task.status in ("AVAILABLE", "RUNNING", "QUEUED")
    why = f" ({task.error})" if task.error else ""
    rows = (
        ("Task", task.name),
        ("Mode", task.mode),
        ("From", task.source.uri),
        ("To", task.destination.uri),
        ("Schedule", task.schedule or "none"),
    )
    return Answer(ok, f"the task {task.name} is {task.status}{why}", rows)


def same_place(task: Task, share: FileShare, gateway: StorageGateway) -> Answer:
    """The share shows the bucket and prefix that the task writes to, is available, and its gateway runs."""
    writes = f"s3://{task.destination.bucket}/{task.destination.prefix}"
    shows = f"s3://{share.bucket}/{share.prefix}"
    state = gateway.gateway(share.gateway_arn)
    problems = [
        f"the task writes to {writes} and the share {share.name} shows {shows}" if writes != shows else "",
        f"the share {share.name} is {share.status}" if share.status != "AVAILABLE" else "",
        f"the gateway {state.name} is {state.state}" if state.state != "RUNNING" else "",
    ]
    found = "; ".join(problem for problem in problems if problem)
    rows = (
        ("The task writes to", writes),
        ("The share shows", shows),
        ("Share", share.status),
        ("Gateway", state.state),
    )
    return Answer(not found, found or f"the task and the share {share.name} both point at {writes}", rows)


def server_reachable(run_command: RunCommand | None, instance: str, server: ApplicationServer) -> Answer:
    """The application server answers and sees both mounts. Runs `ls` there unless SSM says that it is not online."""
    if run_command is not None:
        found = run_command.instance(instance)
        if found.ping != "Online":
            return Answer(False, f"SSM has lost the application server {instance}: {found.ping}")
    rows = []
    sides: tuple[Side, ...] = ("source", "share")
    for side in sides:
        listing = server.ls(side)
        rows.append((f"`{listing.command}`", f"{plural(len(listing.names), 'name')}"))
        if not listing.names:
            return Answer(False, f"`{listing.command}` shows nothing: is it mounted?", tuple(rows))
    return Answer(True, f"the application server {instance} answers and sees both mounts", tuple(rows))


@dataclass(frozen=True, repr=False)
class Permissions(Shown):
    """What IAM's simulation says about the actions that the notebooks need."""

    permissions: tuple[Permission, ...]

    @property
    def ok(self) -> bool:
        """A finding: nothing is denied. What could not be asked is said, and the step that needs it will tell."""
        return bool(self.permissions) and not self._denied

    @property
    def _denied(self) -> list[str]:
        return [p.action for p in self.permissions if p.allowed is False]

    @property
    def reason(self) -> str:
        """What is denied or could not be asked."""
        unknown = [p for p in self.permissions if p.allowed is None]
        if self._denied:
            return f"IAM would deny {', '.join(self._denied)}"
        if unknown:
            return f"IAM could not be asked about {plural(len(unknown), 'action')} ({unknown[0].decision})"
        return f"IAM would allow all {plural(len(self.permissions), 'action')}"

    def headline(self) -> str:
        """The verdict."""
        return self.reason

    def tables(self) -> list[Table]:
        """Every action that is not allowed."""
        rest = [(p.action, p.decision) for p in self.permissions if p.allowed is not True]
        return [Table(("Action", "Decision"), rest, limit=40)] if rest else []


def permissions(session: Session, region: str, identity: Identity, actions: list[Probe]) -> Permissions:
    """Ask IAM's simulation about actions; nothing is done."""
    return Permissions(tuple(probe(session, region, identity, actions)))
