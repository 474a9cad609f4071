"""Storage Gateway's operations, its refreshes, events, metrics and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runbook_lib.lab.core import PREMISES_REGION
from runbook_lib.lab.protocol import Refusal
from runbook_lib.lab.share_settings import SHARE

from .gateway_world import BUCKET, REFRESHED, ROLE, World

NOWHERE = "arn:aws:storagegateway:eu-central-1:123456789012:share/share-00000000"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path).furnish()
    yield made
    made.gateways.stop()


def refused(world: World, operation: str, **parameters: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        world.call(operation, **parameters)
    assert caught.value.code == "InvalidGatewayRequestException"
    return caught.value


def describe(world: World, arn: str = "") -> dict[str, Any]:
    answer = world.call("DescribeNFSFileShares", FileShareARNList=[arn or world.arn])
    (share,) = answer["NFSFileShareInfoList"]
    found: dict[str, Any] = share
    return found


# Gateways and shares.


def test_a_gateway_runs_and_is_listed_in_its_region_only(world: World) -> None:
    seen = world.call("DescribeGatewayInformation", GatewayARN=world.gateway)
    assert (seen["GatewayName"], seen["GatewayState"], seen["GatewayType"]) == ("file-gateway", "RUNNING", "FILE_S3")
    assert seen["CloudWatchLogGroupARN"].endswith(":log-group:/aws/storagegateway/file-gateway:*")
    assert [g["GatewayARN"] for g in world.call("ListGateways")["Gateways"]] == [world.gateway]
    assert world.call("ListGateways", region=PREMISES_REGION)["Gateways"] == []


def test_a_gateway_changes_its_name_and_its_log(world: World) -> None:
    answer = world.call("UpdateGatewayInformation", GatewayARN=world.gateway, GatewayName="renamed")
    assert answer == {"GatewayARN": world.gateway, "GatewayName": "renamed"}
    world.call("UpdateGatewayInformation", GatewayARN=world.gateway, CloudWatchLogGroupARN="")
    world.put("../hostile")
    world.refresh()
    assert world.bus.lines == []


def test_a_share_shows_what_was_asked_for_and_awss_defaults(world: World) -> None:
    share = describe(world)
    assert share["FileShareStatus"] == "AVAILABLE"
    assert share["FileShareName"] == "migration-share"
    assert share["LocationARN"] == f"arn:aws:s3:::{BUCKET}"
    assert share["Squash"] == "RootSquash" and share["ReadOnly"] is False
    assert share["NFSFileShareDefaults"]["FileMode"] == "0666"
    assert "Directory" not in share and "ClientToken" not in share
    assert len(world.arn) >= 50


def test_the_same_client_token_makes_one_share(world: World) -> None:
    parameters = {"GatewayARN": world.gateway, "Role": ROLE, "LocationARN": f"arn:aws:s3:::{BUCKET}/two"}
    first = world.call("CreateNFSFileShare", ClientToken="twice", FileShareName="two", **parameters)
    assert world.call("CreateNFSFileShare", ClientToken="twice", FileShareName="two", **parameters) == first


def test_a_further_share_has_a_directory_of_its_own_and_shows_the_bucket_at_once(world: World) -> None:
    world.put("two/f", b"x")
    arn = world.share(f"arn:aws:s3:::{BUCKET}/two/", FileShareName="two")
    directory = world.root.parent / describe(world, arn)["FileShareId"]
    assert (directory / "f").read_bytes() == b"x"
    assert world.listing() == []


def test_shares_are_listed_page_by_page(world: World) -> None:
    arns = [world.arn] + [world.share(f"arn:aws:s3:::{BUCKET}/{n}", FileShareName=f"share {n}") for n in range(2)]
    seen, marker = [], {}
    while True:
        answer = world.call("ListFileShares", GatewayARN=world.gateway, Limit=1, **marker)
        seen += [share["FileShareARN"] for share in answer["FileShareInfoList"]]
        if "NextMarker" not in answer:
            break
        marker = {"Marker": answer["NextMarker"]}
    assert seen == arns
    assert refused(world, "ListFileShares", Marker="forged").members["error"] == {"errorCode": "InvalidParameters"}


def test_a_share_is_updated(world: World) -> None:
    world.call("UpdateNFSFileShare", FileShareARN=world.arn, Squash="NoSquash", FileShareName="other")
    share = describe(world)
    assert (share["Squash"], share["FileShareName"], share["Path"]) == ("NoSquash", "other", "/other")


def test_a_deleted_share_uploads_first_and_leaves_the_objects(world: World) -> None:
    world.put("a", b"x")
    world.refresh()
    (world.root / "mine").write_bytes(b"x")
    world.call("DeleteFileShare", FileShareARN=world.arn)
    for thread in list(world.gateways._shares._threads):
        thread.join()
    assert world.keys() == ["a", "mine"]
    assert world.listing() == []
    assert world.call("ListFileShares")["FileShareInfoList"] == []
    assert world.lab.database.read("select * from share_entries") == []


def test_a_forced_deletion_does_not_wait_for_what_cannot_be_uploaded(world: World) -> None:
    world.put("f", b"somebody else's")
    (world.root / "f").write_bytes(b"the application's")
    assert not world.settled()
    world.call("DeleteFileShare", FileShareARN=world.arn, ForceDelete=True)
    for thread in list(world.gateways._shares._threads):
        thread.join()
    assert world.body("f") == b"somebody else's"
    assert world.call("ListFileShares")["FileShareInfoList"] == []


def test_tags_are_added_listed_and_removed(world: World) -> None:
    for arn in (world.gateway, world.arn):
        world.call("AddTagsToResource", ResourceARN=arn, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
        world.call("RemoveTagsFromResource", ResourceARN=arn, TagKeys=["a"])
        assert world.call("ListTagsForResource", ResourceARN=arn)["Tags"] == [{"Key": "b", "Value": "2"}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"LocationARN": "arn:aws:s3:::no-such-bucket"}, "no bucket"),
        ({"LocationARN": "arn:aws:s3:::dotted.bucket"}, "dotted"),
        ({"Squash": "NoSquish"}, "Squash"),
        ({"CacheAttributes": {"CacheStaleTimeoutInSeconds": 60}}, "300"),
        ({"NotificationPolicy": '{"Upload":{}}'}, "NotificationPolicy"),
        ({"DefaultStorageClass": "S3_GLACIER"}, "DefaultStorageClass"),
        ({"FileShareName": "migration-share"}, "already"),
        ({"ObjectACL": "everybody"}, "ObjectACL"),
        ({"NFSFileShareDefaults": {"FileMode": "0999"}}, "FileMode"),
    ],
)
def test_a_share_that_cannot_be_is_refused(world: World, change: dict[str, Any], said: str) -> None:
    parameters = {"GatewayARN": world.gateway, "Role": ROLE, "LocationARN": f"arn:aws:s3:::{BUCKET}", **change}
    error = refused(world, "CreateNFSFileShare", ClientToken="another", **{"FileShareName": "new", **parameters})
    assert said in error.message
    assert error.members["error"] == {"errorCode": "InvalidParameters"}


def test_what_is_not_there_is_refused(world: World) -> None:
    for operation in ("RefreshCache", "NotifyWhenUploaded", "DeleteFileShare", "UpdateNFSFileShare"):
        assert "not found" in refused(world, operation, FileShareARN=NOWHERE).message
    refused(world, "DescribeNFSFileShares", FileShareARNList=[NOWHERE])
    refused(world, "DescribeNFSFileShares", FileShareARNList=[world.arn] * 11)
    error = refused(world, "DescribeCache", GatewayARN=NOWHERE.replace("share/share", "gateway/sgw"))
    assert error.members["error"] == {"errorCode": "GatewayNotFound"}


# Refreshing.


def test_the_refresh_event_carries_the_notification_the_times_and_the_folders(world: World) -> None:
    world.put("a/1", b"")
    answer = world.call("RefreshCache", FileShareARN=world.arn)
    assert answer["FileShareARN"] == world.arn
    event = world.bus.event(answer["NotificationId"])
    assert (event["region"], event["source"], event["detail_type"]) == ("eu-central-1", "aws.storagegateway", REFRESHED)
    assert event["resources"] == [world.arn, world.gateway]
    detail = event["detail"]
    assert (detail["event-type"], detail["folderList"]) == ("refresh-complete", ["/"])
    assert detail["started"] <= detail["completed"]
    assert world.listing() == ["a", "a/1"]


@pytest.mark.parametrize("folder", ["/images/", "images//a", "/../etc", "//", "/.", "a\0b", "\ud800"])
def test_a_folder_with_a_trailing_slash_or_dots_is_refused(world: World, folder: str) -> None:
    error = refused(world, "RefreshCache", FileShareARN=world.arn, FolderList=[folder])
    assert error.members["error"] == {"errorCode": "InvalidParameters"}


def test_a_folder_with_dots_is_told_about_dots(world: World) -> None:
    assert "no '..'" in refused(world, "RefreshCache", FileShareARN=world.arn, FolderList=["/../etc"]).message


def test_a_third_refresh_in_flight_is_refused(world: World) -> None:
    share, _ = world.held()
    with share.lock:  # the accepted ones wait
        ids = [world.call("RefreshCache", FileShareARN=world.arn)["NotificationId"] for _ in range(2)]
        assert "refresh" in refused(world, "RefreshCache", FileShareARN=world.arn).message
    for identity in ids:
        world.bus.event(identity)


def test_a_repeat_within_the_spacing_is_accepted_and_evicts_nothing(world: World) -> None:
    world.lab.database.set("pace", 0.001)  # 60 s become 60 ms, the floor 3 ms
    world.put("first", b"")
    accepted = world.gateways._shares.accept_refresh
    long = 60.0
    first = accepted(world.arn, ["/"], True, long)
    world.bus.event(str(first))
    world.put("second", b"")
    world.bus.event(str(accepted(world.arn, ["/"], True, long)))
    assert world.listing() == ["first"]
    world.bus.event(str(accepted(world.arn, ["/"], True, 0.0)))
    assert world.listing() == ["first", "second"]


def test_a_lost_event_does_not_lose_the_refresh(world: World) -> None:
    world.lab.database.set("faults", {"refresh-event-lost": {}})
    world.put("a", b"")
    world.call("RefreshCache", FileShareARN=world.arn)
    for thread in list(world.gateways._shares._threads):
        thread.join()
    assert world.listing() == ["a"]
    assert world.bus.events == []
    world.lab.database.set("faults", {})
    world.refresh()


def test_a_refresh_accepted_before_a_kill_is_finished_at_the_next_start(world: World) -> None:
    world.put("a", b"")
    world.gateways.stop()
    job = {"NotificationId": "n-1", "FileShareARN": world.arn, "Folders": ["/"], "Recursive": True,
           "Evicts": True, "Started": 0.0}  # fmt: skip
    world.lab.database.put("storagegateway.refresh", "n-1", job)
    leftover = world.lab.folder.staging / "share-leftover"
    leftover.mkdir()
    world.restart()
    world.bus.event("n-1")
    assert world.listing() == ["a"]
    assert not leftover.exists()


def test_a_share_of_a_bucket_that_is_gone_keeps_its_files_and_its_refresh_never_completes(world: World) -> None:
    world.put("a", b"x")
    world.refresh()
    world.lab.objects.delete(BUCKET, "a")
    world.lab.objects.delete_bucket(BUCKET)
    world.call("RefreshCache", FileShareARN=world.arn)
    world.bus.wait(lambda: world.bus.types() == ["RefreshFailed"])
    assert world.listing() == ["a"]


def test_a_share_that_is_being_made_is_not_refreshed(world: World) -> None:
    world.lab.database.update(SHARE, world.arn, FileShareStatus="CREATING")
    assert "CREATING" in refused(world, "RefreshCache", FileShareARN=world.arn).message
    world.restart()  # and the next daemon makes it
    for thread in list(world.gateways._shares._threads):
        thread.join()
    assert describe(world)["FileShareStatus"] == "AVAILABLE"


# Uploads, the cache and metrics.


def test_the_upload_notice_comes_when_all_that_was_there_is_in_the_bucket(world: World) -> None:
    (world.root / "f").write_bytes(b"x")
    answer = world.call("NotifyWhenUploaded", FileShareARN=world.arn)
    event = world.bus.event(answer["NotificationId"])
    assert world.keys() == ["f"]
    assert event["detail_type"] == "Storage Gateway File Upload Event"
    assert event["detail"]["event-type"] == "upload-complete"
    assert event["detail"]["request-received"] <= event["detail"]["completed"]


def test_the_cache_is_dirty_until_the_upload_and_clean_after_it(world: World) -> None:
    world.put("f", bytes(1000))
    world.refresh()
    share, _ = world.held()
    with share.lock:
        (world.root / "f").write_bytes(bytes(5000))
        dirty = world.call("DescribeCache", GatewayARN=world.gateway)
        assert 0 < dirty["CacheDirtyPercentage"] < dirty["CacheUsedPercentage"]
    assert world.settled()
    clean = world.call("DescribeCache", GatewayARN=world.gateway)
    assert clean["CacheDirtyPercentage"] == 0
    assert clean["CacheUsedPercentage"] == 100 * 5000 / clean["CacheAllocatedInBytes"]
    assert clean["CacheHitPercentage"] == 100


def test_metrics_are_published_for_the_share_and_its_gateway(world: World) -> None:
    def published() -> set[tuple[str, str, float]]:
        return {
            (datapoint["name"], "+".join(datapoint["dimensions"]), datapoint["value"])
            for datapoint in world.bus.metrics
            if datapoint["namespace"] == "AWS/StorageGateway"
        }

    expected = {
        (name, dimensions, 0.0)
        for name in ("CachePercentDirty", "FilesFailingUpload")
        for dimensions in ("ShareId", "GatewayId+GatewayName")
    }
    world.bus.wait(lambda: expected <= published())
