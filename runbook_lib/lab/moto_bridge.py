"""How do requests and the lab's own events reach moto's STS, IAM, SQS, EventBridge, Logs, CloudWatch and secrets?

moto is imported in a background thread once the lab listens; who needs it earlier waits. Its state is in memory:
rules, queues, log lines and datapoints end with the daemon or with a reset.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC
from typing import Any
from urllib.parse import parse_qs, unquote

from . import dms_roles
from .core import ACCOUNT, CLOUD_REGION
from .http import Headers, HttpResponse
from .protocol import Refusal, decode, service_model
from .signature import Secret

SECRETS = "secretsmanager"
SERVICES = frozenset({"sts", "iam", "sqs", "events", "logs", "monitoring", SECRETS})  # by signing name
USER = "participant"
LOG_GROUPS = {CLOUD_REGION: ("/aws/datasync", "dms-tasks-migration-instance")}  # the world's; there after every start
ADMINISTRATOR = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
PARTITION = "aws"
SECRET_TEXT = "A database of the lab"

log = logging.getLogger(__name__)


class Moto:
    """moto in this process, with the lab's user in its IAM."""

    def __init__(self, access_key: str, secret_key: str) -> None:
        self._access_key = access_key
        self._secret_key = secret_key
        self._ready = threading.Event()
        self._fault: BaseException | None = None
        self._application: Any = None
        self._backends: Any = None
        self.secrets: Callable[[], dict[str, dict[str, Any]]] = dict  # by name; asked when somebody asks for secrets
        self._known: dict[str, str] = {}  # the secrets that were put in, as text
        self._lock = threading.Lock()

    def load(self) -> None:
        """Import moto now, in the background."""
        threading.Thread(target=self._load, name="moto-import", daemon=True).start()

    def _load(self) -> None:
        try:
            from moto import backends
            from moto.moto_server import werkzeug_app

            # Not by moto's environment variable: that is read once, when whoever was first imported moto.
            vars(werkzeug_app)["DISABLE_GLOBAL_CORS"] = True
            self._backends = backends
            self._application = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
            self._populate()
        except BaseException as error:
            self._fault = error
            log.exception("moto cannot be imported")
        finally:
            self._ready.set()

    def backend(self, service: str, region: str) -> Any:
        """A moto backend; waits for the import. Region is "aws" for IAM and STS."""
        self._ready.wait()
        if self._fault is not None:
            raise RuntimeError(f"moto cannot be imported: {self._fault}") from self._fault
        return self._backends.get_backend(service)[ACCOUNT][region]

    def _populate(self) -> None:
        """What moto starts with: the lab's user and its key, DMS's roles, and the world's log groups."""
        iam = self._backends.get_backend("iam")[ACCOUNT][PARTITION]
        user = iam.create_user(CLOUD_REGION, USER)
        policy = iam.create_policy(
            description="Everything in the lab",
            path="/",
            policy_document=json.dumps(ADMINISTRATOR),
            policy_name="AdministratorAccess",
            tags=[],
        )
        iam.attach_user_policy(policy.arn, USER)
        key = user.create_access_key(prefix="AKIA")
        key.access_key_id, key.secret_access_key = self._access_key, self._secret_key
        iam.access_keys[self._access_key] = key
        dms_roles.make_policies(iam, ACCOUNT, CLOUD_REGION)
        for role in dms_roles.POLICIES:
            dms_roles.make_role(iam, role)
        for region, groups in LOG_GROUPS.items():
            for group in groups:
                self._backends.get_backend("logs")[ACCOUNT][region].ensure_log_group(group)

    def reset(self) -> None:
        """Forget everything but the lab's own user; queues, rules and log lines go."""
        self.backend("iam", PARTITION)
        from moto.core.base_backend import BackendDict

        BackendDict.reset()
        self._known = {}
        self._populate()

    def renew_secrets(self) -> None:
        """Put in the lab's secrets: each once, and again when it changes. What somebody makes of them stays."""
        backend = self.backend(SECRETS, CLOUD_REGION)
        with self._lock:
            for name, content in self.secrets().items():
                text = json.dumps(content)
                if name not in self._known:
                    backend.create_secret(name, text, None, SECRET_TEXT, [], None, None, [], False)
                elif self._known[name] != text:
                    backend.update_secret(name, secret_string=text)
                self._known[name] = text

    def temporary(self, access_key: str) -> Secret | None:
        """The secret of a key that AssumeRole issued in this lab."""
        if not access_key.startswith("ASIA"):
            return None
        role = self.backend("sts", PARTITION).get_assumed_role_from_access_key(access_key)
        if role is None:
            return None
        expires = role.expiration.replace(tzinfo=UTC).timestamp()  # moto's times are naive UTC
        return Secret(role.secret_access_key, role.session_token, expires)

    def answer(self, method: str, path: str, query: str, headers: Headers, body: bytes) -> HttpResponse:
        """moto's answer to a request that is already authenticated."""
        self.backend("iam", PARTITION)
        environ = _environ(method, path, query, headers, body)
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, response_headers: list[tuple[str, str]], *_: Any) -> None:
            started.append((status, response_headers))

        try:
            parts = self._application(environ, start)
        except NotImplementedError as error:
            raise Refusal("NotImplemented", f"The lab does not have this: {error}", status=501) from error
        try:
            answer = b"".join(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        status, response_headers = started[0]
        kept = [pair for pair in response_headers if pair[0].lower() not in ("content-length", "connection", "server")]
        return HttpResponse(int(status[:3]), kept, answer)


def serves(path: str) -> bool:
    """Whether moto's services have a path: the root, and a queue's own. Not moto's own interface, however spelt."""
    return re.fullmatch(r"/(\d{12}/[A-Za-z0-9_-]+(\.fifo)?)?", unquote(path)) is not None


def refuse_malformed(service: str, query: str, headers: Headers, body: bytes) -> None:
    """Refusal of what no SDK sends and moto trips over: an unknown operation, a body that is none."""
    model = service_model("cloudwatch" if service == "monitoring" else service)
    compressed = "content-encoding" in headers  # as boto3 sends a large PutMetricData; moto unpacks it
    target = headers.get("x-amz-target")
    if target is not None:
        operation = target.rpartition(".")[2]
        if operation not in model.operation_names:
            raise Refusal("UnknownOperationException", f"{service} has no operation {operation[:100]!r}")
        shape = model.operation_model(operation).input_shape
        missing = set() if compressed else set(getattr(shape, "required_members", ())) - decode(body).keys()
        if missing:
            raise Refusal("ValidationException", f"{operation} needs {', '.join(sorted(missing))}.")
    elif not compressed:
        try:
            action = parse_qs(f"{query}&{body.decode()}").get("Action", [""])[0]
        except ValueError as error:
            raise Refusal("SerializationException", f"The request body is not a form: {error}") from error
        if action not in model.operation_names:
            raise Refusal("InvalidAction", f"The action {action[:100]!r} is not valid for {service}.")


def _environ(method: str, path: str, query: str, headers: Headers, body: bytes) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": headers["host"].rpartition(":")[2],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": headers.get("content-type", ""),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers.items():
        if name not in ("content-length", "content-type", "transfer-encoding") and "_" not in name:
            environ["HTTP_" + name.upper().replace("-", "_")] = value
    return environ


class MotoBus:
    """`core.Bus` over moto's backends. A failure to publish is logged and never fails what was being published."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto
        self._lock = threading.Lock()  # moto's log streams and datapoints are plain lists
        self._minutes: dict[tuple[Any, ...], Any] = {}  # the newest datapoint of each metric
        self._stored: Any = None  # moto's list that they are in; a reset makes another

    def emit(self, *, region: str, source: str, detail_type: str, resources: list[str], detail: dict[str, Any]) -> None:
        """Put one event on the default bus of a region."""
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": detail_type,
            "source": source,
            "account": ACCOUNT,
            "time": time.time(),  # moto writes it as text when it delivers
            "region": region,
            "resources": resources,
            "detail": detail,
        }
        rules = self._moto.backend("events", region).describe_event_bus("default").rules
        for rule in list(rules.values()):
            if rule.state != "ENABLED":
                continue
            try:  # each rule by itself (moto's put_events ends at the first target that is gone)
                rule.send_to_targets(copy.deepcopy(event), transform_input=False)
            except Exception:
                log.exception("The event %s of %s was not delivered by rule %s", detail_type, source, rule.name)

    def log(self, *, region: str, group: str, stream: str, lines: list[str]) -> None:
        """Append lines to a log stream; group and stream are made when missing."""
        now = int(time.time() * 1000)
        try:
            with self._lock:
                logs = self._moto.backend("logs", region)
                logs.ensure_log_group(group)
                logs.ensure_log_stream(group, stream)
                logs.put_log_events(group, stream, [{"timestamp": now, "message": line} for line in lines])
        except Exception:
            log.exception("%d lines were not logged to %s", len(lines), group)

    def metric(
        self, *, region: str, namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str]
    ) -> None:
        """Put one datapoint of now. The last one of each minute stays, as it is all that is left of it on AWS later."""
        datum = {
            "MetricName": name,
            "Value": value,
            "Unit": unit,
            "Dimensions": [{"Name": key, "Value": text} for key, text in dimensions.items()],
        }
        try:
            with self._lock:
                stored = self._moto.backend("cloudwatch", region).metric_data
                if stored is not self._stored:
                    self._stored, self._minutes = stored, {}
                which = (namespace, name, *sorted(dimensions.items()))
                last, minute = self._minutes.get(which), int(time.time()) // 60
                if last is not None and last[0] == minute:
                    last[1].value = float(value)
                    return
                self._moto.backend("cloudwatch", region).put_metric_data(namespace, [datum])
                self._minutes[which] = (minute, stored[-1])
        except Exception:
            log.exception("The datapoint %s %s was not stored", namespace, name)

    def has_role(self, name: str) -> bool:
        """Whether IAM has a role."""
        return dms_roles.has_role(self._moto.backend("iam", PARTITION), name)

    def make_role(self, name: str) -> None:
        """Make one of DMS's roles, as DMS wants it."""
        dms_roles.make_role(self._moto.backend("iam", PARTITION), name)

    def drop_role(self, name: str) -> None:
        """Take one of DMS's roles away."""
        dms_roles.drop_role(self._moto.backend("iam", PARTITION), name)
