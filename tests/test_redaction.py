"""Secrets that are known or have a shape of their own reach no file; what must be read stays readable."""

from __future__ import annotations

import base64
import html
import json
import os
import re
import secrets
import subprocess
import time
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from runbook_lib import redaction
from runbook_lib.errors import SettingsError
from runbook_lib.evidence.events import Events
from runbook_lib.evidence.folder import RunFolder
from runbook_lib.redaction import MASK, masked, refuse_secrets
from tests import notebooks
from tests.throwaway import ThrowawayLab, connection

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJlLW9mLWl0"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nabcdef\n-----END RSA PRIVATE KEY-----"
TOKEN = "IQoJb3JpZ2luX2VjE" + "Ab1/" * 20


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is not known to the next."""
    monkeypatch.setattr(redaction, "_known", set())
    monkeypatch.setattr(redaction, "_expression", None)
    monkeypatch.setattr(redaction, "_broken", None)
    yield


@pytest.mark.parametrize(
    ("text", "secret", "rule"),
    [
        ("id AKIAIOSFODNN7EXAMPLE.", "AKIAIOSFODNN7EXAMPLE", "access key id"),
        (f"token: {TOKEN}", TOKEN, "session token"),
        (PEM, "MIIEpAIBAAKCAQEA", "private key"),
        (json.dumps({"key": PEM}), "MIIEpAIBAAKCAQEA", "private key"),
        ("postgresql://app:hunter2@db/shop", "hunter2", "connection string"),
        (f"Cookie: {JWT};", JWT, "JSON web token"),
        ("Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop", "authorization"),
        ("{'authorization': 'Basic dXNlcjpwYXNzd29yZA=='}", "dXNlcjpwYXNzd29yZA", "authorization"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Signature=fe5f80f77d5fa3be&x=1", "fe5f80f77d5fa3be", "signed URL"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI/K7MDENG", "secret beside its name"),
        ("<SecretAccessKey>wJalrXUtnFEMI</SecretAccessKey>", "wJalrXUtnFEMI", "secret beside its name"),
        ('{"password": "with a blank"}', "with a blank", "secret beside its name"),
        (r"{\"Password\": \"hunter22\"}", "hunter22", "secret beside its name"),
        ("host=db password=hunter22 user=app", "hunter22", "connection string"),
        ("host=db user=app password=abc", "=abc", "connection string"),
        ("password=abc&ssl=1&user=app;", "=abc", "connection string"),
        ("Server=db;User Id=app;Pwd=hunter22;", "hunter22", "connection string"),
        ("postgresql://app:hunt/er@2@db/shop", "er@2", "connection string"),
        ("create user app identified by 'hunter22'", "hunter22", "password in SQL"),
        ("ALTER ROLE app PASSWORD 'hunter22'", "hunter22", "password in SQL"),
        ("curl -H 'X: Bearer abcdefghijklmnop'", "abcdefghijklmnop", "authorization"),
        ('pass\x1b[36mword\x1b[39m=\x1b[33m"with a blank"\x1b[0m', "with a blank", "secret beside its name"),
        (r"\u001b[36mpassword\u001b[39m=\u001b[33m'hunter22'\u001b[0m", "hunter22", "secret beside its name"),
        ("&quot;password&quot;: &quot;hunter22&quot;", "hunter22", "secret beside its name"),
        ("export PGPASSWORD=hunter22", "hunter22", "secret beside its name"),
    ],
)
def test_a_secret_is_known_by_its_shape(text: str, secret: str, rule: str) -> None:
    counted: Counter[str] = Counter()
    shown = masked(text, counted)
    assert secret not in shown
    assert counted == {rule: 1}
    assert masked(shown) == shown, "what is masked stays as it is"
    assert redaction.found(text) and not redaction.found(shown)


@pytest.mark.parametrize(
    "text",
    [
        "arn:aws:datasync:eu-central-1:123456789012:task/task-0a1b2c3d4e5f",
        "connect(password=self.password)",
        "password = None  # env:VARIABLE",
        "password='secretsmanager:migration-lab/source'",
        "https://eu-central-1.console.aws.amazon.com/a:b",
        "the continuation token is next_token=abc",
        "SECRET_NAME = 'secret_key'",
        "the bearer of bad news",
        "https://host:8080/users/me@example.com",
        "PWD=/srv/data; ls",
        "\x1b[31mnothing secret in it\x1b[0m",
        "1" * 64,
    ],
)
def test_what_must_be_read_stays_readable(text: str) -> None:
    assert masked(text) == text


def test_a_name_that_says_something_about_a_secret_is_none() -> None:
    refuse_secrets({"token_minutes": 5, "token_count": 7, "password_changed_at": "2026-01-01", "pwd": "env:PW"})
    assert masked({"credentials_expire": "2026-01-01", "workload": "load"}) == {
        "credentials_expire": "2026-01-01", "workload": "load"
    }  # fmt: skip


def test_a_known_value_that_is_a_word_is_masked_as_a_word_only(forgotten: None) -> None:
    redaction.register("postgres")
    assert (
        masked("psql -U postgres, source-postgresql on postgres_1")
        == f"psql -U {MASK}, source-postgresql on postgres_1"
    )


def test_where_a_shell_stands_is_no_secret(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", "/srv/migration")
    monkeypatch.setenv("ODBC_PWD", "hunter22222")
    assert masked("see /srv/migration/outputs; hunter22222") == f"see /srv/migration/outputs; {MASK}"


def test_what_is_no_text_is_masked_where_its_text_has_to_be(forgotten: None) -> None:
    redaction.register(value := 'it\'s <a> "plant"ed & known')
    raw = value.encode()
    assert masked({"b": b"x" + raw, (value,): 1, "password": {value: 1}, "n": 5}) == {
        "b": f"b'x{MASK}'", f"('{MASK}',)": 1, "password": {MASK: MASK}, "n": 5
    }  # fmt: skip
    assert value[:4] not in masked(repr([raw, raw + b"!"]))
    assert masked({"confirm": 123456789012}, share=True) == {"confirm": MASK}


def test_what_looks_like_a_secret_does_not_depend_on_who_asks(forgotten: None) -> None:
    redaction.register("shop-to-cloud")
    assert masked("task shop-to-cloud") == f"task {MASK}"
    assert not redaction.found("task shop-to-cloud")


def test_the_memory_that_guards_side_effects_is_found_again_whatever_values_are_known(
    tmp_path: Path, forgotten: None
) -> None:
    memory = Events(tmp_path / "memory.jsonl", share=False)
    bucket, task = "arn:aws:s3:::migration-lab/task", "arn:aws:datasync:eu-central-1:123456789012:task/migration"
    memory.remember(f"datasync.start {task}", {"arn": task, "known": [bucket]})
    redaction.register("migration", "hunter22")
    memory.remember(f"datasync.start {bucket}", {"arn": task, "known": [bucket], "said": "by hunter22"})
    assert memory.recall(f"datasync.start {task}") == {"arn": task, "known": [bucket]}
    assert memory.recall(f"datasync.start {bucket}") == {"arn": task, "known": [bucket], "said": f"by {MASK}"}
    assert "hunter22" not in memory.path.read_text()


def test_no_shape_takes_longer_than_its_text_is_long() -> None:
    for part in (
        "eyJ-",
        "eyJabcdefgh.-",
        "://a:b",
        "password=",
        "host=a ",
        "password '",
        "bearer ",
        "identified with ",
    ):
        began = time.process_time()
        masked(part * (200_000 // len(part)))
        assert time.process_time() - began < 2, part


def test_accounts_and_arns_are_masked_in_what_is_shared_only(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "account 123456789012 has arn:aws:s3:::bucket/key"
    assert masked(text) == text
    monkeypatch.setenv("RUNBOOK_MASK", "share")
    assert masked(text) == f"account {MASK} has {MASK}"
    assert masked(text, share=False) == text


def test_everything_below_a_secrets_name_is_masked_but_the_name_of_a_secret() -> None:
    given = {
        "credentials": {"user": "u1", "key": ["abc", 5]},
        "password": "env:PGPASSWORD",
        "NextToken": "t",
        "ok": True,
    }
    assert masked(given) == {
        "credentials": {"user": MASK, "key": [MASK, MASK]}, "password": "env:PGPASSWORD", "NextToken": "t", "ok": True
    }  # fmt: skip


@pytest.mark.parametrize(
    "parameters",
    [
        {"db_password": "hunter22"},
        {"source": {"token": "abc"}},
        {"list": [{"api_key": 123456}]},
        {"db": {"pw": "hunter22"}},
        {"db_pwd": "hunter22"},
        {"pgpass": "hunter22"},
    ],
)
def test_a_parameter_that_is_a_secret_is_refused_with_the_way_to_name_one(parameters: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"=env:VARIABLE, .*=secretsmanager:NAME or .*=ssm:NAME"):
        refuse_secrets(parameters)


def test_the_name_of_a_secret_is_a_good_parameter() -> None:
    refuse_secrets({"db_password": "env:PGPASSWORD", "password": "secretsmanager:lab/source", "token": "ssm:/x/y"})


def test_the_engine_refuses_a_secret_before_anything_is_written(tmp_path: Path) -> None:
    source = notebooks.notebook(tmp_path / "in.ipynb", "1", db_password=None)
    command = [*notebooks.PAPERMILL, str(source), str(tmp_path / "out.ipynb")]
    done = subprocess.run([*command, "-p", "db_password", "hunter22"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "db_password=env:VARIABLE" in done.stderr
    assert not (tmp_path / "out.ipynb").exists()


ENCODINGS = {
    "plain": str,
    "base64": lambda v: base64.b64encode(v.encode()).decode(),
    "base64 after one byte": lambda v: base64.b64encode(b"u" + v.encode() + b"!").decode(),
    "base64 after two bytes": lambda v: base64.b64encode(b"u:" + v.encode() + b"!!").decode(),
    "base64 for URLs": lambda v: base64.urlsafe_b64encode(v.encode()).decode().rstrip("="),
    "hexadecimal": lambda v: v.encode().hex(),
    "URL": lambda v: urllib.parse.quote_plus(v),
    "JSON": json.dumps,
    "HTML": lambda v: html.escape(v),
    "repr": repr,
    "JSON in HTML": lambda v: json.dumps(v).replace("&", r"\u0026").replace("<", r"\u003c").replace("'", r"\u0027"),
    "HTML by number": lambda v: "".join(f"&#{ord(letter)};" for letter in v),
    "HTML by hexadecimal number": lambda v: v.replace("&", "&#x26;").replace("'", "&#x27;"),
    "URL twice": lambda v: urllib.parse.quote(urllib.parse.quote(v, safe=""), safe=""),
    "URL in small letters, twice": lambda v: re.sub(
        "%25..", lambda code: code[0].lower(), urllib.parse.quote(urllib.parse.quote(v, safe=""), safe="")
    ),
    "URL, every letter": lambda v: "".join(f"%{byte:02x}" for byte in v.encode()),
    "JSON by number": lambda v: "".join(f"\\u{ord(letter):04x}" for letter in v),
    "base64 in lines": lambda v: base64.encodebytes(b"x" * 44 + v.encode() + b"y" * 20).decode(),
    "base64 as Windows has it": lambda v: base64.b64encode(f"$password = '{v}'".encode("utf-16-le")).decode(),
    "hexadecimal as Windows has it": lambda v: v.encode("utf-16-le").hex(),
    "bytes in a list": lambda v: repr([v.encode(), b'"']),
}
PLACES = (
    "stdout", "stderr", "stdout in chunks", "result", "html", "markdown", "json bundle", "display metadata",
    "exception", "source", "widget", "svg", "update", "event", "event key", "latex", "javascript", "csv", "warning",
    "parameter", "colours",
)  # fmt: skip


def _rot(value: str) -> str:
    """A value as the test's notebook carries it, which must not be the value."""
    return value.encode().hex()[::-1]


PLANT = """
import json, os, sys, warnings
from IPython.display import HTML, JSON, Javascript, Latex, Markdown, SVG, display
from comm import create_comm
from runbook_lib.evidence.events import Events
read = lambda texts: [bytes.fromhex(one[::-1]).decode() for one in texts]
planted = {place: read(texts) for place, texts in json.load(open("planted")).items()}
create_comm(target_name="runbook.engine", data={"secrets": read(json.load(open("known")))})
"""
SHOW = """
for text in planted["stdout"]: print(text)
for text in planted["stderr"]: print(text, file=sys.stderr)
for text in planted["stdout in chunks"]:
    for letter in text:
        print(letter, end=""); sys.stdout.flush()
    print()
for text in planted["colours"]: print(f"\x1b[31m{text[:7]}\x1b[0m{text[7:]}")
for text in planted["html"]: display(HTML(f"<p title='{text}'>{text}</p>"))
for text in planted["markdown"]: display(Markdown(f"**{text}**"))
for text in planted["json bundle"]: display(JSON({"deep": [{"x": text}]}))
for text in planted["display metadata"]: display({"text/plain": "x"}, raw=True, metadata={"seen": text})
for text in planted["svg"]: display(SVG(f"<svg xmlns='http://www.w3.org/2000/svg'><desc><![CDATA[{text}]]></desc></svg>"))
for text in planted["latex"]: display(Latex(text))
for text in planted["javascript"]: display(Javascript(f"// {text}"))
for text in planted["csv"]: display({"text/csv": f"a,{text}"}, raw=True)
for text in planted["warning"]: warnings.warn(text)
handle = display("nothing", display_id=True)
for text in planted["update"]: handle.update({"text/plain": text}, raw=True)
import ipywidgets
display(ipywidgets.VBox([ipywidgets.Label(text) for text in planted["widget"]]))
events = Events(__import__("pathlib").Path(os.environ["RUNBOOK_RUN"]) / "events.jsonl")
from runbook_lib import redaction
redaction.register(*read(json.load(open("known"))))
for text in planted["event"]: events("note", text=text)
for text in planted["event key"]: events("note", value={text: 1})
planted["result"]
"""


FAIL = """
def connect(name, password):
    raise ValueError(planted["exception"])

connect("db", password="hunter2-in-the-source")
"""
COLOURS = re.compile(r"(?:\x1b|\\u001b)\[[0-9;]*m")


def test_hundreds_of_planted_secrets_in_many_places_reach_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: None
) -> None:
    monkeypatch.setenv("RUNBOOK_OUTPUTS", str(tmp_path / "outputs"))
    run = RunFolder.create("lab", "headless")
    values = {
        (place, name): f"s{secrets.token_hex(6)}/+&'{secrets.token_urlsafe(9)}"
        for place in PLACES
        for name in ENCODINGS
    }
    written = {key: ENCODINGS[key[1]](value) for key, value in values.items()}
    assert len(values) == 441
    planted = {place: [_rot(written[place, name]) for name in ENCODINGS] for place in PLACES}
    (tmp_path / "planted").write_text(json.dumps(planted))
    (tmp_path / "known").write_text(json.dumps([_rot(value) for value in values.values()]))
    in_source = [f"text = {written['source', name]!r}" for name in ENCODINGS]
    source = notebooks.notebook(tmp_path / "step.ipynb", PLANT, *in_source, SHOW, FAIL, note=None)
    parameter = json.dumps([written["parameter", name] for name in ENCODINGS])
    command = [*notebooks.PAPERMILL, "--log-output", "--cwd"]
    done = subprocess.run(
        [*command, str(tmp_path), str(source), str(run.path / "step.ipynb"), "-y", f"note: {parameter}"],
        env={**os.environ, "RUNBOOK_RUN": str(run.path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ValueError" in done.stderr, done.stderr[-2000:]
    kept = {path.name: path.read_text() for path in run.path.iterdir()} | {"terminal": done.stdout + done.stderr}
    kept = {name: COLOURS.sub("", text) for name, text in kept.items()}
    survivors = [
        (key, name)
        for name, text in kept.items()
        for key, value in values.items()
        for form in {value, written[key], json.dumps(written[key])[1:-1]}
        if form in text
    ]
    assert survivors == []
    assert [name for name, text in kept.items() if "hunter2" in text] == []
    rules = [event for event in Events(run.path / "events.jsonl").read() if event["kind"] == "maskings"][-1]["rules"]
    assert rules["known value"] >= 220
    assert nbformat.read(run.path / "step.ipynb", as_version=4).metadata.runbook.status == "bug"


def test_a_notebook_of_ten_megabytes_is_masked_in_seconds(forgotten: None) -> None:
    redaction.register(*(secrets.token_urlsafe(24) for _ in range(12)))
    text = "".join(
        f"{number:08} arn:aws:s3:::bucket/images/{number:08}.jpg size=123456 ok\n" for number in range(160_000)
    )
    began = time.process_time()
    assert masked(text) == text
    assert time.process_time() - began < 10


def test_the_credentials_of_the_session_are_known_to_kernel_and_runner(lab: ThrowawayLab, tmp_path: Path) -> None:
    lab.reset("00")
    run = RunFolder.create("lab", "headless")
    leak = (
        "import base64\n"
        "secret = rb.session._boto.get_credentials().secret_key\n"
        "rb.record('note', text=secret)\n"
        "for letter in secret: print(letter, end='', flush=True)\n"
        "print(base64.b64encode(b':' + secret.encode()).decode())"
    )
    opened = "from runbook_lib import Runbook\nrb = Runbook.open('lab', notebook='00_start_here')\nrb"
    source = notebooks.notebook(tmp_path / "step.ipynb", opened, leak)
    command = [*notebooks.PAPERMILL, "--log-output"]
    done = subprocess.run(
        [*command, str(source), str(run.path / "step.ipynb")],
        env={**os.environ, "RUNBOOK_RUN": str(run.path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    secret = str(connection(lab)["secret_key"])
    kept = {path.name: path.read_text() for path in run.path.iterdir()} | {"terminal": done.stdout + done.stderr}
    forms = (secret, base64.b64encode(b":" + secret.encode()).decode())
    assert [name for name, text in kept.items() if any(form in text for form in forms)] == []
    assert all("MASKED" in kept[name] for name in ("step.ipynb", "events.jsonl", "terminal"))
    assert any(event.get("masked") == {"known value": 1} for event in run.events.read() if event["kind"] == "note")
