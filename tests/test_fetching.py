"""Long output over SSM: through an exchange in S3, on the lab, and nothing of it stays anywhere."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import fetching, sending
from runbook_lib.aws import exchange as exchanges
from runbook_lib.aws.client import Credentials, Session
from runbook_lib.aws.exchange import Exchange
from runbook_lib.aws.ssm import RunCommand
from runbook_lib.environment import InventorySettings
from runbook_lib.errors import AwsError, ChangeRefused, CommandFailed, RunbookError, SettingsError
from runbook_lib.hosts import CommandResult
from runbook_lib.lab.core import PREMISES_REGION
from runbook_lib.managed_host import SsmHost
from runbook_lib.scanning import scan
from tests.test_scanner import agrees
from tests.throwaway import ThrowawayLab, client, connection

BUCKET = "exchange-of-the-tests"
SERVER = "application-server"


class Server(SsmHost):
    """The lab's application server; it knows which temporary folders were made there."""

    made: list[str]

    def run(self, script: str, *, timeout: int = 120, changes: bool = False) -> CommandResult:
        """See Host."""
        ran = super().run(script, timeout=timeout, changes=changes)
        if "mktemp -d" in script:
            self.made.append(ran.output.strip())
        return ran


@dataclass
class World:
    """The lab's server with an exchange, and what was recorded."""

    lab: ThrowawayLab
    s3: Any
    records: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    refusal: str | None = None

    def session(self) -> Session:
        """A session whose rails say `refusal`."""
        at = connection(self.lab)

        def guard() -> None:
            if self.refusal is not None:
                raise ChangeRefused(self.refusal)

        return Session(
            record=lambda kind, **facts: self.records.append((kind, facts)),
            endpoint_url=at["url"],
            credentials=Credentials(at["access_key"], at["secret_key"]),
            home_region="eu-central-1",
            guard=guard,
        )

    def exchange(self, address: str = f"s3://{BUCKET}/on its way", prefix: str = "data/") -> Exchange:
        """The exchange, beside a destination in the same bucket."""
        return Exchange(
            self.session(), "eu-central-1", address, "lab", lambda: (BUCKET, prefix),
            lambda *values: self.secrets.extend(values), sleep=lambda seconds: None,
        )  # fmt: skip

    def host(self, exchange: Exchange | None) -> SsmHost:
        """The lab's application server."""
        server = Server(RunCommand(self.session(), PREMISES_REGION), SERVER, exchange)
        server.made = self.folders
        return server

    def keys(self) -> list[str]:
        """What is in the bucket."""
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def notes(self) -> str:
        """What was noted."""
        return "\n".join(facts["value"] for kind, facts in self.records if kind == "note")

    def there(self) -> list[str]:
        """Temporary folders of programs on the server."""
        if not self.folders:
            return []
        return self.host(None).run(f"ls -d {' '.join(self.folders)} 2>/dev/null").output.split()


@pytest.fixture
def world(lab: ThrowawayLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A bucket, and limits that a small tree exceeds."""
    monkeypatch.setattr(fetching, "LIMIT", 10_000)
    monkeypatch.setattr(fetching, "PART", 20_000)
    s3 = client(lab, "s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    world = World(lab, s3)
    yield world
    assert world.folders == [] or world.there() == []
    assert world.keys() == []
    s3.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Names that do not compress: more than three parts."""
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(2000):
        (root / hashlib.sha256(str(number).encode()).hexdigest()).touch()
    return root


def rows(inventory: Any) -> list[dict[str, Any]]:
    return [row for batch in inventory.batches() for row in batch.to_pylist()]


def said(host: SsmHost, script: str) -> bytes:
    """All that a program says."""
    with host.stream(["sh", "-c", script], b"") as stream:
        return stream.read()


def test_a_scan_beyond_the_limit_goes_through_the_exchange_and_is_the_same(
    world: World, tree: Path, tmp_path: Path
) -> None:
    host = world.host(world.exchange())
    agrees(rows(scan(host, str(tree), tmp_path / "out", side="source")), tree)
    calls = [facts for kind, facts in world.records if kind == "aws-call" and facts["operation"] == "DeleteObject"]
    assert len(calls) >= 3
    assert all(call["changes"] for call in calls)
    assert world.notes().count("a signed URL to PUT") == len(calls)


def test_no_signature_is_written_down(world: World, tree: Path, tmp_path: Path) -> None:
    scan(world.host(world.exchange()), str(tree), tmp_path / "out", side="source")
    sent = [str(facts) for kind, facts in world.records if "X-Amz-Signature=" in str(facts)]
    assert sent, "the URLs are in SSM's commands"
    for text in sent:
        for secret in world.secrets:
            text = text.replace(secret, "")
        assert "X-Amz-Signature=" not in text
    assert "X-Amz-Signature" not in world.notes()


def test_the_bytes_are_those_that_were_said_whatever_the_parts(world: World) -> None:
    host = world.host(world.exchange())
    for length in (0, 9_999, 10_001, 20_000, 40_000, 100_003):
        script = f"yes 'a line of the answer' | head -c {length}"
        assert said(host, script) == (b"a line of the answer\n" * 5000)[:length]


def test_what_commands_can_fetch_needs_no_change(world: World) -> None:
    world.refusal = "changes are off"
    assert said(world.host(world.exchange()), "echo short") == b"short\n"


def test_a_slow_program_is_followed_from_commands_to_the_exchange(world: World) -> None:
    script = "for at in 1 2 3 4 5 6 7 8; do yes $at | head -c 9000; sleep 0.2; done"
    expected = b"".join((f"{at}\n" * 4500).encode() for at in range(1, 9))
    assert said(world.host(world.exchange()), script) == expected


def test_without_an_exchange_the_setting_is_named(world: World) -> None:
    with pytest.raises(RunbookError, match=r"inventory\.exchange.*reach: ssh"):
        said(world.host(None), "yes | head -c 50000")


def test_it_is_refused_where_nothing_may_be_changed(world: World) -> None:
    world.refusal = "environment 'lab' does not allow changes"
    with pytest.raises(ChangeRefused, match=r"does not allow changes.*inventory\.exchange"):
        said(world.host(world.exchange()), "yes | head -c 50000")


def test_a_bucket_that_is_not_there_is_named_with_the_setting(world: World) -> None:
    with pytest.raises(AwsError, match=r"inventory\.exchange, s3://no-such-bucket-here.*NoSuchBucket"):
        said(world.host(world.exchange("s3://no-such-bucket-here")), "yes | head -c 50000")


@pytest.mark.parametrize(
    ("address", "prefix"),
    [(f"s3://{BUCKET}", ""), (f"s3://{BUCKET}/data", "data/"), (f"s3://{BUCKET}/data/x/", "data/")],
)
def test_an_exchange_within_the_destination_is_refused(world: World, address: str, prefix: str) -> None:
    with pytest.raises(SettingsError, match="lies in the destination"):
        said(world.host(world.exchange(address, prefix)), "yes | head -c 50000")


def test_a_url_that_s3_refuses_says_so_with_its_code(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "frozen_credentials", lambda self: (connection(world.lab)["access_key"], "no", None))
    with pytest.raises(RunbookError, match=r"does not come through: .* 403 SignatureDoesNotMatch.*s3:PutObject"):
        said(world.host(world.exchange()), "yes | head -c 50000")


def test_a_url_that_expired_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = world.exchange()
    signed = exchanges.Parcel.url

    def late(parcel: exchanges.Parcel, number: int) -> str:
        url = signed(parcel, number)
        time.sleep(2)
        return url

    monkeypatch.setattr(exchanges, "EXPIRES", 1)
    monkeypatch.setattr(exchanges.Parcel, "url", late)
    with pytest.raises(RunbookError, match=r"403 AccessDenied: Request has expired"):
        said(world.host(exchange), "yes | head -c 50000")


def test_a_program_that_fails_after_much_output_says_why(world: World) -> None:
    with pytest.raises(CommandFailed, match="exit status 3: oh dear"):
        said(world.host(world.exchange()), "yes | head -c 50000; echo oh dear >&2; exit 3")


def test_a_reader_that_stops_early_leaves_nothing(world: World) -> None:
    with pytest.raises(KeyboardInterrupt), world.host(world.exchange()).stream(["yes"], b"") as stream:
        stream.read(25_000)
        raise KeyboardInterrupt


def test_the_program_waits_while_nobody_takes_its_parts(world: World) -> None:
    with world.host(world.exchange()).stream(["yes"], b"") as stream, pytest.raises(RunbookError, match="enough"):
        stream.read(25_000)
        (folder,) = world.there()
        for _ in range(20):
            sizes = world.host(None).run(f"cat {folder}/out.* | wc -c").output
            assert int(sizes) <= (fetching.HELD + 1) * fetching.PART
        raise RunbookError("enough")


KILLED = """
import os, signal
from runbook_lib import fetching
from tests.test_fetching import World
from tests.throwaway import ThrowawayLab, client
from pathlib import Path
fetching.LIMIT, fetching.PART, fetching.PATIENCE = 10_000, 20_000, 3
lab = ThrowawayLab(Path({state!r}))
world = World(lab, client(lab, "s3"))
with world.host(world.exchange()).stream(["yes"], b"") as stream:
    stream.read(25_000)
    print(world.there()[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_named_and_removed_by_the_next(world: World) -> None:
    text = textwrap.dedent(KILLED).format(state=str(world.lab.state))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    world.folders.append(done.stdout.strip())
    while world.there():  # the server ends by itself what nobody asks for
        time.sleep(0.2)
    left = world.keys()
    assert left
    running = f"{world.exchange().folder}another-machine/20261121T100000Z-1-0a0b0c0d/00000"
    foreign = ["on its way/of somebody else", running]
    for key in foreign:
        world.s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    assert len(said(world.host(world.exchange()), "yes | head -c 50000")) == 50_000
    assert all(key in world.notes() for key in left)
    assert sorted(world.keys()) == sorted(foreign)
    for key in foreign:
        world.s3.delete_object(Bucket=BUCKET, Key=key)


def test_the_setting_is_an_address_in_s3() -> None:
    assert InventorySettings(exchange="s3://bucket/a prefix").exchange == "s3://bucket/a prefix"
    for wrong in ("bucket/prefix", "s3://", "s3://Bucket_", "s3://b/?a"):
        with pytest.raises(ValueError, match="give a bucket and a prefix"):
            InventorySettings(exchange=wrong)


def test_a_program_is_in_a_session_of_its_own_before_its_command_ends(tmp_path: Path) -> None:
    late = "import os, time\nsoon = os.setsid\nos.setsid = lambda: (time.sleep(0.5), soon())\n"  # a busy machine
    source = late + Path(sending.__file__).read_text("utf-8")
    (tmp_path / "in").write_bytes(b"said")
    command = [sys.executable, "-c", source, str(tmp_path), "1000", "2", "60", "cat"]
    ended = subprocess.Popen(command, start_new_session=True)
    ended.wait()
    with suppress(ProcessLookupError):  # all that the command left in its group, as an agent does
        os.killpg(ended.pid, signal.SIGKILL)
    program = int((tmp_path / "pid").read_text())
    os.kill(program, 0)
    os.killpg(program, signal.SIGKILL)
