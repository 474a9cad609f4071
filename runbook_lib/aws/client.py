"""How AWS is called: one session, explicit endpoints, calls recorded, errors translated, changes behind rails."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from ..errors import AccessDenied, AwsError, ChangeRefused, CredentialsExpired, OutcomeUnknown

DENIED = {
    "403",
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "AccessDeniedFault",
    "AuthorizationError",
}
EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
}

BULK = {"HeadObject", "GetObject"}  # one an object: counted, not listed
NORMAL = {"InvocationDoesNotExist"}  # errors that are part of a normal course: SSM just after sending

_changing: ContextVar[bool] = ContextVar("changing", default=False)  # does the caller mean to change something?


class Record(Protocol):
    """Where records go; `evidence` gives one, tests give their own."""

    def __call__(self, kind: str, **fields: Any) -> None:
        """Keep one record."""


@dataclass(frozen=True)
class Credentials:
    """Static credentials: the lab's. Never shown."""

    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return "Credentials(…)"


class Session:
    """One identity towards AWS, held open for a notebook."""

    def __init__(
        self,
        *,
        record: Record,
        endpoint_url: str | None = None,
        credentials: Credentials | None = None,
        profile: str | None = None,
        role_arn: str | None = None,
        home_region: str,
        guard: Callable[[], None] = lambda: None,
        secret: Callable[..., None] = lambda *values: None,
    ) -> None:
        """`guard` is asked before every changing call and raises `ChangeRefused` to stop it.

        `secret` is told the credentials that sign a call, which change when they are renewed.
        """
        refuse_stray_endpoints(endpoint_url)
        self.endpoint_url = endpoint_url
        self.record = record
        self.guard = guard
        self._secret = secret
        self.asked: Counter[str] = Counter()  # grows: what S3 was asked in bulk, by kind, as AWS charges it
        self.places: dict[tuple[str, str, str], tuple[str, str]] = {}  # where buckets are: `workers.door` fills it
        self._clients: dict[tuple[str, str, bool], Client] = {}
        self._bulk: Counter[str] = Counter()
        self._lock = threading.Lock()  # a scan and a listing may ask at once; boto3 makes clients in one thread only
        self._boto = self._session(credentials, profile, role_arn, home_region)
        self._watch()

    def _session(
        self, credentials: Credentials | None, profile: str | None, role_arn: str | None, region: str
    ) -> boto3.Session:
        try:
            if credentials is not None:
                base = boto3.Session(credentials.access_key, credentials.secret_key, region_name=region)
            else:
                base = boto3.Session(profile_name=profile, region_name=region)
        except ProfileNotFound as error:
            raise AwsError(
                f"{error}. Set `profile` in the environment's file to one that `aws configure list-profiles` shows."
            ) from error
        return assume(base, role_arn, region, self.endpoint_url) if role_arn else base

    def client(self, service: str, region: str, *, starts: bool = False) -> Client:
        """A client for a service in a region; `starts=True` for calls that start something: no SDK retries."""
        with self._lock:
            return self._client(service, region, starts)

    def _client(self, service: str, region: str, starts: bool) -> Client:
        key = (service, region, starts)
        if key not in self._clients:
            config = Config(
                connect_timeout=10,
                read_timeout=60,
                retries={"total_max_attempts": 1} if starts else {"mode": "standard", "total_max_attempts": 5},
                ignore_configured_endpoint_urls=True,
                s3={"addressing_style": "path"} if self.endpoint_url else None,
                proxies={} if self.endpoint_url else None,  # a lab on loopback is not behind the company's proxy
                user_agent_extra="migration-runbook",
            )
            boto = self._boto.client(service, region_name=region, endpoint_url=self.endpoint_url, config=config)
            self._clients[key] = Client(boto, service, self.guard)
        return self._clients[key]

    def count(self, requests: Mapping[str, int]) -> None:
        """Add requests to `asked`."""
        with self._lock:
            self.asked.update(requests)

    def frozen_credentials(self) -> tuple[str, str, str | None]:
        """What signs a request now: key, secret, token; renewed when they are about to end. Never shown."""
        try:
            credentials = self._boto.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            frozen = credentials.get_frozen_credentials()
        except (ClientError, BotoCoreError) as error:
            raise translated(error, "s3", "get_frozen_credentials") from error
        self._secret(frozen.secret_key, frozen.token)
        return frozen.access_key, frozen.secret_key, frozen.token

    @property
    def ca_bundle(self) -> str | None:
        """The file of certificates that the shell or the profile names."""
        named: str | None = self._boto._session.get_config_variable("ca_bundle")
        return named

    def record_bulk(self) -> None:
        """Record how many calls of the counted kinds were made since the last time."""
        counted, self._bulk = self._bulk, Counter()
        for operation, count in sorted(counted.items()):
            self.record("aws-calls", service="s3", operation=operation, count=count, changes=False)

    def _watch(self) -> None:
        """Record every call through botocore's own events, so that no call can forget to."""
        events = self._boto.events

        def before(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
            context["runbook"] = (time.monotonic(), params, _changing.get())

        def after(http_response: Any, parsed: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
            began, params, changes = context.get("runbook", (time.monotonic(), {}, False))
            metadata = parsed.get("ResponseMetadata", {})
            if model.name in BULK and "Error" not in parsed:
                self._bulk[model.name] += 1
                return
            self.record(
                "aws-call",
                service=model.service_model.service_name,
                operation=model.name,
                region=context.get("client_region"),
                parameters={name: value for name, value in params.items() if name != "Body"},
                changes=changes,
                status=metadata.get("HTTPStatusCode"),
                request_id=metadata.get("RequestId"),
                result=_identifiers(parsed),
                error=parsed.get("Error", {}).get("Code"),
                expected=parsed.get("Error", {}).get("Code") in NORMAL or None,
                seconds=round(time.monotonic() - began, 3),
            )

        def lost(exception: Exception, context: dict[str, Any], **_: Any) -> None:
            began, params, changes = context.get("runbook", (time.monotonic(), {}, False))
            seconds = round(time.monotonic() - began, 3)
            self.record("aws-call-lost", parameters=params, changes=changes, error=repr(exception), seconds=seconds)

        def signing(request_signer: Any, **_: Any) -> None:
            credentials = request_signer._credentials
            if credentials is not None:
                frozen = credentials.get_frozen_credentials()
                self._secret(frozen.secret_key, frozen.token)

        events.register("before-sign.*", signing)
        events.register("provide-client-params.*", before)
        events.register("after-call-error.*", lost)
        events.register("after-call.*", after)


class Client:
    """A boto3 client whose errors are ours and whose changes ask first."""

    def __init__(self, boto: Any, service: str, guard: Callable[[], None]) -> None:
        self.boto = boto
        self.service = service
        self._guard = guard

    def look(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """A call that changes nothing."""
        return self._call(operation, parameters)

    def change(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """A call that changes something: the rails are asked first."""
        self._guard()
        token = _changing.set(True)
        try:
            return self._call(operation, parameters)
        finally:
            _changing.reset(token)

    def pages(self, operation: str, key: str, **parameters: Any) -> Iterator[Any]:
        """All items of a paged listing."""
        try:
            for page in self.boto.get_paginator(operation).paginate(**parameters):
                yield from page.get(key, [])
        except (ClientError, BotoCoreError) as error:
            raise translated(error, self.service, operation) from error

    def _call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = getattr(self.boto, operation)(**parameters)
        except (ClientError, BotoCoreError) as error:
            raise translated(error, self.service, operation) from error
        return answer


def _identifiers(parsed: dict[str, Any]) -> dict[str, str] | None:
    """What an answer calls the thing that was started, so that a record leads to it."""
    flat = {**parsed, **(parsed["Command"] if isinstance(parsed.get("Command"), dict) else {})}
    found = {
        name: flat[name] for name in ("TaskExecutionArn", "NotificationId", "CommandId", "QueueUrl") if name in flat
    }
    return found or None


def translated(error: ClientError | BotoCoreError, service: str, operation: str) -> AwsError:
    """Our error for botocore's: what was asked, what AWS said, what to do."""
    asked = f"{service} {operation}"
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        said = error.response.get("Error", {}).get("Message", "") or code
        details = {
            "code": code,
            "operation": operation,
            "request_id": error.response["ResponseMetadata"].get("RequestId", ""),
        }
        if code in DENIED:
            return AccessDenied(
                f"{asked} was denied: {said}. `runbook doctor --iam` prints the policy that the notebooks need.",
                **details,
            )
        if code in EXPIRED:
            return CredentialsExpired(
                f"{asked}: the credentials are not valid (any more): {said}. What runs at AWS goes on. "
                "Sign in again and run this cell again: it attaches to what is running.",
                **details,
            )
        if error.response["ResponseMetadata"].get("HTTPStatusCode", 400) >= 500:
            return OutcomeUnknown(f"{asked}: {code}: {said}. It may or may not have been carried out.", **details)
        return AwsError(f"{asked}: {code}: {said}", **details)
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError)):  # nothing was sent
        return AwsError(
            f"{asked}: {error}. Check the network and the environment's regions; for the lab: `runbook lab status`.",
            operation=operation,
        )
    if isinstance(error, HTTPClientError):
        return OutcomeUnknown(
            f"{asked}: no answer came ({error}). It may or may not have been carried out.", operation=operation
        )
    if isinstance(error, (NoCredentialsError, CredentialRetrievalError, SSOError, TokenRetrievalError)):
        return CredentialsExpired(
            f"{asked}: there are no valid credentials ({error}). Sign in, or set `profile` in the environment's file.",
            operation=operation,
        )
    return AwsError(f"{asked}: {error}", operation=operation)


def default_session() -> tuple[Session, str]:
    """A session as the shell is signed in, to look only, and its region; `AwsError` when no region is set."""
    region = boto3.Session().region_name
    if region is None:
        raise AwsError("No region is set: export AWS_REGION, or set one for the profile (`aws configure`).")
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return Session(record=lambda kind, **fields: None, endpoint_url=endpoint, home_region=region), region


def refuse_stray_endpoints(endpoint_url: str | None) -> None:
    """Refuse AWS_ENDPOINT_URL* variables that disagree with the environment: other tools would obey them silently."""
    for name, value in sorted(os.environ.items()):
        if name.startswith("AWS_ENDPOINT_URL") and value.rstrip("/") != (endpoint_url or "").rstrip("/"):
            raise ChangeRefused(
                f"{name}={value} disagrees with the environment, which uses "
                f"{endpoint_url or 'the public AWS endpoints'}. "
                f"Unset it (`unset {name}`) and run again."
            )


def assume(base: boto3.Session, role_arn: str, region: str, endpoint_url: str | None) -> boto3.Session:
    """A session in a role, whose credentials botocore renews by itself."""
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

    if base.get_credentials() is None:
        raise CredentialsExpired(f"There are no credentials to assume {role_arn} with. Sign in, or set `profile`.")
    fetcher = AssumeRoleCredentialFetcher(
        client_creator=partial(base._session.create_client, region_name=region, endpoint_url=endpoint_url),
        source_credentials=base.get_credentials(),
        role_arn=role_arn,
        extra_args={"RoleSessionName": "migration-runbook"},
    )
    inner = botocore.session.Session()
    inner._credentials = DeferredRefreshableCredentials(method="assume-role", refresh_using=fetcher.fetch_credentials)
    return boto3.Session(botocore_session=inner, region_name=region)
