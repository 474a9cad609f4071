"""How is a file share set up just now, and how does its gateway say what happens to it?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .core import Bus
from .database import Database
from .share_metadata import Defaults

GATEWAY = "storagegateway.gateway"  # kinds of documents
SHARE = "storagegateway.share"
STORAGE_CLASSES = {
    "S3_STANDARD": "STANDARD",
    "S3_INTELLIGENT_TIERING": "INTELLIGENT_TIERING",
    "S3_STANDARD_IA": "STANDARD_IA",
    "S3_ONEZONE_IA": "ONEZONE_IA",
}


@dataclass(frozen=True)
class ShareSettings:
    """What a share's and its gateway's documents say."""

    arn: str
    share_id: str
    gateway_arn: str
    gateway_id: str
    gateway_name: str
    region: str
    role: str
    bucket: str
    prefix: str  # empty, or ending in "/"
    read_only: bool
    guess_type: bool
    storage_class: str
    settling: float | None  # seconds before an upload's notice; None: no notices
    defaults: Defaults
    log_group: str  # empty: health is not logged

    @classmethod
    def load(cls, database: Database, arn: str) -> ShareSettings:
        """The settings of now; KeyError when the share or its gateway is gone."""
        share = database.get(SHARE, arn)
        gateway = database.get(GATEWAY, share["GatewayARN"]) if share else None
        if share is None or gateway is None:
            raise KeyError(arn)
        bucket, prefix = bucket_and_prefix(share["LocationARN"])
        default = share["NFSFileShareDefaults"]
        policy = json.loads(share["NotificationPolicy"]).get("Upload")
        return cls(
            arn=arn,
            share_id=share["FileShareId"],
            gateway_arn=share["GatewayARN"],
            gateway_id=gateway["GatewayId"],
            gateway_name=gateway["GatewayName"],
            region=arn.split(":")[3],
            role=share["Role"],
            bucket=bucket,
            prefix=prefix,
            read_only=share["ReadOnly"],
            guess_type=share["GuessMIMETypeEnabled"],
            storage_class=STORAGE_CLASSES[share["DefaultStorageClass"]],
            settling=None if policy is None else float(policy["SettlingTimeInSeconds"]),
            defaults=Defaults(
                default["OwnerId"], default["GroupId"], int(default["FileMode"], 8), int(default["DirectoryMode"], 8)
            ),
            log_group=gateway["CloudWatchLogGroupARN"].partition(":log-group:")[2].removesuffix(":*"),
        )

    def health(self, bus: Bus, kind: str, keys: Iterable[str], operation: str, reason: str) -> None:
        """Health-log lines as the gateway writes them (File Gateway user guide, monitoring): JSON, ms as text.

        Kinds are AWS's where AWS has one (InvalidObjectState, …); `reason` is the lab's addition.
        """
        if not self.log_group:
            return
        now = str(int(time.time() * 1000))
        lines = [
            json.dumps(
                {
                    "severity": "ERROR",
                    "bucket": self.bucket,
                    "roleArn": self.role,
                    "source": self.share_id,
                    "type": kind,
                    "operation": operation,
                    "key": key,
                    "gateway": self.gateway_id,
                    "timestamp": now,
                    "reason": reason,
                }
            )
            for key in keys
        ]
        bus.log(region=self.region, group=self.log_group, stream=self.share_id, lines=lines)

    def emit(self, bus: Bus, detail_type: str, detail: dict[str, Any]) -> None:
        """An event of this share (File Gateway user guide, monitoring)."""
        resources = [self.arn, self.gateway_arn]
        bus.emit(
            region=self.region, source="aws.storagegateway", detail_type=detail_type, resources=resources, detail=detail
        )


def bucket_and_prefix(location: str) -> tuple[str, str]:
    """Bucket and prefix of a LocationARN; the prefix is empty or ends in a slash."""
    bucket, _, prefix = location.partition(":::")[2].partition("/")
    return bucket, f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
