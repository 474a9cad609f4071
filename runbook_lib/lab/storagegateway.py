"""What do the operations of an S3 File Gateway with NFS file shares answer?

Member rules are the service model's; the texts of refusals are the lab's own, since AWS does not document them.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Sequence
from typing import Any, ClassVar

from .core import ACCOUNT, Lab
from .gateway_shares import CACHE, Shares
from .protocol import UNWRITABLE, Call, Refusal, Service, page, service_model
from .share import STAGED
from .share_known import Known
from .share_settings import GATEWAY, SHARE, STORAGE_CLASSES, bucket_and_prefix

SPACING = 60.0  # seconds × pace between refreshes that evict (API, RefreshCache)
SQUASHES = ("RootSquash", "NoSquash", "AllSquash")
OURS = ("Directory", "ClientToken", "RefreshedAt")  # of a share's document; AWS does not show them
DEFAULTS: dict[str, Any] = {  # of CreateNFSFileShare (API reference)
    "EncryptionType": "SseS3",
    "KMSEncrypted": False,
    "DefaultStorageClass": "S3_STANDARD",
    "ObjectACL": "private",
    "ClientList": ["0.0.0.0/0"],
    "Squash": "RootSquash",
    "ReadOnly": False,
    "GuessMIMETypeEnabled": True,
    "RequesterPays": False,
    "CacheAttributes": {},
    "NotificationPolicy": "{}",
    "Tags": [],
}
FILE_DEFAULTS = {"FileMode": "0666", "DirectoryMode": "0777", "GroupId": 65534, "OwnerId": 65534}


def refusal(code: str, message: str) -> Refusal:
    """InvalidGatewayRequestException with one of the model's error codes."""
    return Refusal("InvalidGatewayRequestException", message, error={"errorCode": code})


class StorageGateway(Service):
    """Gateways and file shares of a region; the work is done by `Shares`."""

    name: ClassVar[str] = "storagegateway"
    invalid: ClassVar[str] = "InvalidGatewayRequestException"

    def __init__(self, lab: Lab) -> None:
        super().__init__(lab)
        Known.prepare(lab.database, [share["FileShareId"] for share in lab.database.all(SHARE)])
        self._shares = Shares(lab)

    def start(self) -> None:
        """See Service."""
        for leftover in self.lab.folder.staging.glob(f"{STAGED}*"):
            shutil.rmtree(leftover)
        self._shares.start()

    def stop(self) -> None:
        """See Service."""
        self._shares.stop()

    def refresh_now(self, share_arn: str, folders: Sequence[str] = ("/",), recursive: bool = True) -> None:
        """Refresh at once and without an event; makes a new share available. For the world's builder."""
        self._shares.refresh_now(share_arn, [folder.strip("/") for folder in folders], recursive=recursive)

    def settle(self, timeout: float) -> bool:
        """Wait until nothing waits to be uploaded; False when something cannot be, or not in `timeout` seconds."""
        return self._shares.settle(timeout)

    def refuse_invalid(self, message: str) -> Refusal:
        """See Service."""
        return refusal("InvalidParameters", message)

    # Gateways.

    def activate_gateway(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """A running S3 file gateway; the activation key is not checked."""
        if parameters.get("GatewayType", "STORED") != "FILE_S3":
            raise refusal("NotSupported", "The lab has gateways of the type FILE_S3 only.")
        if parameters["GatewayRegion"] != call.region:
            raise refusal("RegionInvalid", f"{parameters['GatewayRegion']} is not the region called, {call.region}.")
        identity, name = f"sgw-{secrets.token_hex(4).upper()}", parameters["GatewayName"]
        arn = f"arn:aws:storagegateway:{call.region}:{ACCOUNT}:gateway/{identity}"
        group = f"arn:aws:logs:{call.region}:{ACCOUNT}:log-group:/aws/storagegateway/{name}:*"
        self.lab.database.put(
            GATEWAY,
            arn,
            {
                "GatewayARN": arn,
                "GatewayId": identity,
                "GatewayName": name,
                "GatewayTimezone": parameters["GatewayTimezone"],
                "CloudWatchLogGroupARN": group,  # on AWS the console's wizard sets it
                "Tags": parameters.get("Tags", []),
            },
        )
        return {"GatewayARN": arn}

    def list_gateways(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """The region's gateways."""
        rows, marker = self._page(self._of_region(GATEWAY, call), parameters)
        shown = [
            {
                "GatewayId": gateway["GatewayId"],
                "GatewayARN": gateway["GatewayARN"],
                "GatewayType": "FILE_S3",
                "GatewayOperationalState": "ACTIVE",
                "GatewayName": gateway["GatewayName"],
                "HostEnvironment": "OTHER",
            }
            for gateway in rows
        ]
        return {"Gateways": shown, "Marker": marker}

    def describe_gateway_information(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """One gateway; it always runs."""
        gateway = self._gateway(parameters["GatewayARN"], call)
        return {
            **gateway,
            "GatewayState": "RUNNING",
            "GatewayNetworkInterfaces": [{"Ipv4Address": "127.0.0.1"}],
            "GatewayType": "FILE_S3",
            "HostEnvironment": "OTHER",
            "EndpointType": "STANDARD",
            "GatewayCapacity": "Small",
            "SupportedGatewayCapacities": ["Small"],
            "SoftwareVersion": "2.0.0",
        }

    def update_gateway_information(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Name, time zone and log group; an empty log group switches the health log off."""
        gateway = self._gateway(parameters["GatewayARN"], call)
        members = ("GatewayName", "GatewayTimezone", "CloudWatchLogGroupARN")
        changes = {member: parameters[member] for member in members if member in parameters}
        group = changes.get("CloudWatchLogGroupARN")
        if group and ":log-group:" not in group:
            raise refusal("InvalidParameters", f"{group[:200]!r} is not the ARN of a log group.")
        gateway = self.lab.database.update(GATEWAY, gateway["GatewayARN"], **changes)
        return {"GatewayARN": gateway["GatewayARN"], "GatewayName": gateway["GatewayName"]}

    def describe_cache(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """How full and how dirty the cache is, looked up now. Hits are 100 %: every file is there."""
        arn = self._gateway(parameters["GatewayARN"], call)["GatewayARN"]
        used, dirty = self._shares.cache(arn)
        return {
            "GatewayARN": arn,
            "DiskIds": ["lab-cache-disk"],
            "CacheAllocatedInBytes": CACHE,
            "CacheUsedPercentage": 100 * used / CACHE,
            "CacheDirtyPercentage": 100 * dirty / CACHE,
            "CacheHitPercentage": 100.0,
            "CacheMissPercentage": 0.0,
        }

    # File shares.

    def list_file_shares(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """The region's file shares, or one gateway's."""
        shares = self._of_region(SHARE, call)
        if "GatewayARN" in parameters:
            arn = self._gateway(parameters["GatewayARN"], call)["GatewayARN"]
            shares = [share for share in shares if share["GatewayARN"] == arn]
        rows, following = self._page(shares, parameters)
        members = ("FileShareARN", "FileShareId", "FileShareStatus", "GatewayARN")
        shown = [{"FileShareType": "NFS", **{member: share[member] for member in members}} for share in rows]
        return {"FileShareInfoList": shown, "Marker": parameters.get("Marker"), "NextMarker": following}

    def create_nfs_file_share(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """A share of a bucket or of a prefix in it; CREATING at first. The same ClientToken again is the same share."""
        gateway = self._gateway(parameters["GatewayARN"], call)
        shares = self.lab.database.all(SHARE)
        token = parameters["ClientToken"]
        again = [s for s in shares if s["ClientToken"] == token and s["GatewayARN"] == gateway["GatewayARN"]]
        if again:
            return {"FileShareARN": again[0]["FileShareARN"]}
        _check(parameters)
        location = parameters["LocationARN"]
        if not re.fullmatch(r"arn:aws:s3:::[a-z0-9][a-z0-9-]{1,61}[a-z0-9](/.*)?", location):
            raise refusal("InvalidParameters", f"{location[:200]!r} is not a bucket's ARN with a prefix, or is dotted.")
        bucket, prefix = bucket_and_prefix(location)
        if self.lab.objects.bucket(bucket) is None:
            raise refusal("InvalidParameters", f"There is no bucket {bucket}.")
        identity = f"share-{secrets.token_hex(4).upper()}"
        name = parameters.get("FileShareName") or prefix.rstrip("/").rpartition("/")[2] or bucket
        if any(s["GatewayARN"] == gateway["GatewayARN"] and s["FileShareName"] == name for s in shares):
            raise refusal("InvalidParameters", f"The gateway has a file share called {name!r} already.")
        arn = f"arn:aws:storagegateway:{call.region}:{ACCOUNT}:share/{identity}"
        document = {
            **DEFAULTS,
            **parameters,
            "NFSFileShareDefaults": FILE_DEFAULTS | parameters.get("NFSFileShareDefaults", {}),
            "FileShareARN": arn,
            "FileShareId": identity,
            "FileShareName": name,
            "FileShareStatus": "CREATING",
            "GatewayARN": gateway["GatewayARN"],
            "Path": f"/{name}",
            "Directory": self._directory(identity, shares),
        }
        self.lab.database.put(SHARE, arn, document)
        self._shares.make(arn)
        return {"FileShareARN": arn}

    def _directory(self, identity: str, shares: list[dict[str, Any]]) -> str:
        """The first share is the application server's `mnt/fgw`, a further one has a mount of its own."""
        folder = self.lab.folder
        first = str(folder.share.relative_to(folder.root))
        if all(share["Directory"] != first for share in shares):
            return first
        return str((folder.share.parent / identity).relative_to(folder.root))

    def describe_nfs_file_shares(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """1 to 10 shares."""
        found = [self._share(arn, call) for arn in parameters["FileShareARNList"]]
        shown = self._members("NFSFileShareInfo")
        return {"NFSFileShareInfoList": [{k: v for k, v in share.items() if k in shown} for share in found]}

    def update_nfs_file_share(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Change what is given; what the application wrote into a share that was read-only is uploaded then."""
        share = self._available(parameters["FileShareARN"], call)
        _check(parameters)
        members = self._members("UpdateNFSFileShareInput")
        changes = {name: value for name, value in parameters.items() if name in members}
        changes["NFSFileShareDefaults"] = share["NFSFileShareDefaults"] | parameters.get("NFSFileShareDefaults", {})
        if "FileShareName" in changes:
            changes["Path"] = f"/{changes['FileShareName']}"
        self.lab.database.update(SHARE, share["FileShareARN"], **changes)
        _, uploads = self._shares.get(share["FileShareARN"])
        uploads.scan()
        return {"FileShareARN": share["FileShareARN"]}

    def delete_file_share(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Once everything is uploaded, or with ForceDelete at once; objects stay in the bucket."""
        arn = self._share(parameters["FileShareARN"], call)["FileShareARN"]
        status = "FORCE_DELETING" if parameters.get("ForceDelete") else "DELETING"
        self.lab.database.update(SHARE, arn, FileShareStatus=status)
        self._shares.remove(arn)
        return {"FileShareARN": arn}

    def refresh_cache(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Accepted is not done: done is the refresh-complete event. At most two are in flight for a share."""
        arn = self._available(parameters["FileShareARN"], call)["FileShareARN"]
        folders = parameters.get("FolderList", ["/"])
        for folder in folders:
            parts = folder.removeprefix("/").split("/")
            if folder != "/" and (any(part in ("", ".", "..") for part in parts) or UNWRITABLE.search(folder)):
                said = "no slash at its end, no empty part, no '.', no '..', no NUL, no lone surrogate"
                raise refusal("InvalidParameters", f"Folder {folder[:200]!r}: {said}.")
        spacing = SPACING * self.lab.pace
        identity = self._shares.accept_refresh(arn, folders, parameters.get("Recursive", True), spacing)
        if identity is None:
            raise refusal("OperationAborted", "Two refreshes of this file share's cache are in flight: wait for one.")
        return {"FileShareARN": arn, "NotificationId": identity}

    def notify_when_uploaded(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """An event when all that is in the share now is in the bucket."""
        arn = self._available(parameters["FileShareARN"], call)["FileShareARN"]
        return {"FileShareARN": arn, "NotificationId": self._shares.accept_notice(arn)}

    # Tags.

    def list_tags_for_resource(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Tags of a gateway or a file share."""
        _, resource = self._resource(parameters["ResourceARN"], call)
        rows, marker = self._page(resource["Tags"], parameters)
        return {"ResourceARN": parameters["ResourceARN"], "Marker": marker, "Tags": rows}

    def add_tags_to_resource(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Add tags, or change their values."""
        kind, resource = self._resource(parameters["ResourceARN"], call)
        tags = {tag["Key"]: tag for tag in [*resource["Tags"], *parameters["Tags"]]}
        if len(tags) > 50:
            raise refusal("InvalidParameters", "A resource has at most 50 tags.")
        self.lab.database.update(kind, parameters["ResourceARN"], Tags=list(tags.values()))
        return {"ResourceARN": parameters["ResourceARN"]}

    def remove_tags_from_resource(self, parameters: dict[str, Any], call: Call) -> dict[str, Any]:
        """Remove tags by key."""
        kind, resource = self._resource(parameters["ResourceARN"], call)
        tags = [tag for tag in resource["Tags"] if tag["Key"] not in parameters["TagKeys"]]
        self.lab.database.update(kind, parameters["ResourceARN"], Tags=tags)
        return {"ResourceARN": parameters["ResourceARN"]}

    # Looking up.

    def _of_region(self, kind: str, call: Call) -> list[dict[str, Any]]:
        member = "GatewayARN" if kind == GATEWAY else "FileShareARN"
        return [document for document in self.lab.database.all(kind) if document[member].split(":")[3] == call.region]

    def _resource(self, arn: str, call: Call) -> tuple[str, dict[str, Any]]:
        if ":gateway/" in arn:
            return GATEWAY, self._gateway(arn, call)
        return SHARE, self._share(arn, call)

    def _gateway(self, arn: str, call: Call) -> dict[str, Any]:
        found = self.lab.database.get(GATEWAY, arn)
        if found is None or arn.split(":")[3] != call.region:
            raise refusal("GatewayNotFound", f"There is no gateway {arn[:200]} in {call.region}.")
        return found

    def _share(self, arn: str, call: Call) -> dict[str, Any]:
        found = self.lab.database.get(SHARE, arn)
        if found is None or arn.split(":")[3] != call.region:
            raise refusal("InvalidParameters", f"The specified file share was not found: {arn[:200]} in {call.region}.")
        return found

    def _available(self, arn: str, call: Call) -> dict[str, Any]:
        share = self._share(arn, call)
        if share["FileShareStatus"] != "AVAILABLE":
            raise refusal("OperationAborted", f"The file share is {share['FileShareStatus']}, not AVAILABLE.")
        return share

    def _members(self, shape: str) -> set[str]:
        return set(service_model(self.name).shape_for(shape).members)

    def _page(self, items: list[Any], parameters: dict[str, Any]) -> tuple[list[Any], str | None]:
        try:
            return page(items, parameters, size="Limit", token="Marker", default=100)
        except Refusal as error:
            raise refusal("InvalidParameters", error.message) from error


def _check(parameters: dict[str, Any]) -> None:
    """What the model leaves open about a share's members."""
    squash, storage = parameters.get("Squash", SQUASHES[0]), parameters.get("DefaultStorageClass", "S3_STANDARD")
    stale = parameters.get("CacheAttributes", {}).get("CacheStaleTimeoutInSeconds", 0)
    problem = None
    if squash not in SQUASHES:
        problem = f"Squash must be one of {', '.join(SQUASHES)}, not {squash!r}."
    elif storage not in STORAGE_CLASSES:
        problem = f"DefaultStorageClass must be one of {', '.join(STORAGE_CLASSES)}, not {storage!r}."
    elif stale != 0 and not 300 <= stale <= 2_592_000:
        problem = f"CacheStaleTimeoutInSeconds must be 0 or 300 to 2592000, not {stale}."
    elif not _is_policy(parameters.get("NotificationPolicy", "{}")):
        problem = 'NotificationPolicy must be {} or {"Upload": {"SettlingTimeInSeconds": seconds}}.'
    if problem:
        raise refusal("InvalidParameters", problem)


def _is_policy(text: str) -> bool:
    try:
        policy = json.loads(text)
    except ValueError:
        return False
    if not isinstance(policy, dict) or set(policy) - {"Upload"}:
        return False
    if "Upload" not in policy:
        return True
    upload = policy["Upload"]
    seconds = upload.get("SettlingTimeInSeconds") if isinstance(upload, dict) else None
    return isinstance(seconds, int) and not isinstance(seconds, bool) and seconds >= 0 and len(upload) == 1
