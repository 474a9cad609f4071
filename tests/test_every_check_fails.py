"""Each check that no planted fault of the lab reaches fails too when the world is wrong, and says what it saw."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import Runbook
from runbook_lib import share as share_module
from runbook_lib.errors import CheckFailed
from tests.test_journey import execute, mended, other_account, text, verdicts
from tests.throwaway import ThrowawayLab, client

__all__ = ["mended"]  # the fixture that mends the lab after each test

HERE = {"account": "123456789012", "confirm": "123456789012"}


def export(lab: ThrowawayLab) -> Path:
    return lab.state / "application-server/mnt/data"


def fails(outcome: Any, check: str, said: str) -> None:
    """The check, and only it, failed; the notebook says what was seen."""
    assert outcome.status == "check failed", outcome
    assert [name for name, verdict in verdicts(outcome).items() if verdict == "FAIL"] == [check]
    assert said in text(outcome), outcome.error


def test_a_task_whose_source_cannot_be_mounted_cannot_be_started(lab: ThrowawayLab, tmp_path: Path) -> None:
    lab.reset("02")
    datasync = client(lab, "datasync")
    (task,) = datasync.list_tasks()["Tasks"]
    ends = datasync.describe_task(TaskArn=task["TaskArn"])
    (agent,) = datasync.list_agents()["Agents"]
    source = datasync.create_location_nfs(
        ServerHostname="elsewhere.example", Subdirectory="/media/data", OnPremConfig={"AgentArns": [agent["AgentArn"]]}
    )["LocationArn"]
    broken = {"SourceLocationArn": source, "DestinationLocationArn": ends["DestinationLocationArn"]}
    datasync.create_task(Name="broken", **broken)
    (copied,) = execute("02", task="broken")
    fails(copied, "The DataSync task can be started", "UNAVAILABLE")
    (looked,) = execute("00", environment=other_account(tmp_path, datasync={"task": "broken"}, **HERE))
    fails(looked, "The DataSync task can be started", "UNAVAILABLE")


def test_a_share_on_another_bucket_is_not_the_same_place(lab: ThrowawayLab, tmp_path: Path) -> None:
    lab.reset("00")
    gateway = client(lab, "storagegateway")
    (known,) = gateway.list_file_shares()["FileShareInfoList"]
    gateway.create_nfs_file_share(
        ClientToken="another", GatewayARN=known["GatewayARN"], Role="arn:aws:iam::123456789012:role/migration-lab",
        LocationARN="arn:aws:s3:::migration-lab-reports", FileShareName="reports",
    )  # fmt: skip
    (looked,) = execute("00", environment=other_account(tmp_path, storage_gateway={"share": "reports"}, **HERE))
    fails(looked, "The share shows the bucket and prefix that the task writes to", "s3://migration-lab-reports/")


def test_a_denied_action_is_named(lab: ThrowawayLab) -> None:
    lab.reset("00")
    deny = {"Effect": "Deny", "Action": "datasync:StartTaskExecution", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
    client(lab, "iam").put_user_policy(UserName="participant", PolicyName="no", PolicyDocument=document)
    (looked,) = execute("00")
    fails(looked, "IAM denies nothing that the later steps need", "IAM would deny datasync:StartTaskExecution")


def test_an_nfs_server_that_is_not_mounted_is_not_a_source(lab: ThrowawayLab) -> None:
    lab.reset("02")
    images = export(lab) / "images"
    images.rename(lab.state / "images-elsewhere")
    (export(lab) / "new-image.jpg").unlink()
    (copied,) = execute("02")
    (lab.state / "images-elsewhere").rename(images)
    fails(copied, "The source was listed, and it is not empty", "1 entry found at the source")


def test_more_than_what_differed_is_noticed(lab: ThrowawayLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.reset("02")
    rb = Runbook.open("lab", notebook="02_run_datasync_task")
    pending = rb.datasync.pending()
    (export(lab) / "images" / "meanwhile.jpg").write_bytes(b"written between the count and the start")
    execution = rb.datasync.run(pending)
    with pytest.raises(CheckFailed, match="expected 2, seen 4"):
        rb.check_equal("x", expected=rb.datasync.expected(pending, execution), actual=execution.items_transferred)
    assert "FAIL  x" in capsys.readouterr().out


def test_a_failed_run_fails_03_and_its_report_names_the_file(lab: ThrowawayLab) -> None:
    lab.reset("02")
    lab.verb("break", "unreadable-file", "--path", "new-image.jpg")
    execute("02")
    (looked,) = execute("03")
    fails(looked, "The latest execution succeeded and nothing failed", "ERROR")
    rb = Runbook.open("lab", notebook="03_inspect_transfer_stats")
    report = rb.datasync.report(rb.datasync.history().latest)
    assert not report.ok
    assert "new-image.jpg" in report.reason


def test_a_report_that_lists_something_else_than_the_statistics_is_noticed(lab: ThrowawayLab) -> None:
    lab.reset("03")
    s3 = client(lab, "s3")
    rb = Runbook.open("lab", notebook="03_inspect_transfer_stats")
    execution = rb.datasync.history().latest.short_id
    for item in s3.list_objects_v2(Bucket="migration-lab-reports")["Contents"]:
        if execution in item["Key"] and ".files-transferred-" in item["Key"]:
            s3.delete_object(Bucket="migration-lab-reports", Key=item["Key"])
    (looked,) = execute("03")
    fails(looked, "The report and the statistics agree", "the report lists 0 transferred items, the statistics count 2")


def test_an_empty_folder_is_not_a_listing(lab: ThrowawayLab) -> None:
    lab.reset("04")
    (export(lab) / "empty").mkdir()
    (looked,) = execute("04", path="empty/x")
    fails(looked, "Both sides were listed before the refresh", "shows nothing")


def test_a_file_that_was_not_copied_stays_absent_after_the_refresh(
    lab: ThrowawayLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share_module, "LS_PATIENCE", 0.2)
    lab.reset("02")
    rb = Runbook.open("lab", notebook="04_refresh_gateway_cache")
    absent = rb.share.absent("/")
    assert rb.share.refresh("/", absent).ok
    with pytest.raises(CheckFailed, match="expected 0, seen 1"):
        rb.check_equal("x", expected=0, actual=rb.share.wait_visible(absent).count)


def test_a_file_on_one_side_only_is_named(lab: ThrowawayLab) -> None:
    lab.reset("05")
    (export(lab) / "extra").write_text("not copied")
    (verified,) = execute("05")
    fails(verified, "Nothing differs but DataSync's own metadata file", "only on the NFS server: extra")


def test_a_copy_that_differs_from_its_original_is_noticed(lab: ThrowawayLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.reset("01")
    rb = Runbook.open("lab", notebook="01_create_test_file")
    copy: Callable[[str, str], Any] = rb.server.copy

    def torn(source: str, destination: str) -> Any:
        done = copy(source, destination)
        (export(lab) / destination).write_bytes(b"half")
        return done

    monkeypatch.setattr(rb.server, "copy", torn)
    with pytest.raises(CheckFailed):
        rb.check("x", rb.file.create())
    (export(lab) / "new-image.jpg").unlink()
    with pytest.raises(CheckFailed, match=r"new-image\.jpg is not among"):
        rb.check("x", rb.server.ls("source").shows("new-image.jpg"))


def test_an_undo_that_did_not_remove_its_file_is_noticed(lab: ThrowawayLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.reset("02")
    rb = Runbook.open("lab", notebook="01_create_test_file", undo=True)
    removed = rb.server.ls("source")
    monkeypatch.setattr(rb.server, "remove", lambda side, path: removed)
    with pytest.raises(CheckFailed):
        rb.check("x", rb.file.undo(), asked=rb.knobs.undo)
