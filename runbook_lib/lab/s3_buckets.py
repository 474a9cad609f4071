"""Which buckets are there, and how are they set up?

Settings that change what the lab does (versioning) do so; settings that only describe (tags, encryption, public
access, notifications) are stored and shown; those that AWS would act on and the lab would not (policies, lifecycle,
replication) are refused by being absent here.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from .http import HttpRequest, HttpResponse
from .protocol import Refusal
from .s3_base import OWNER, Operations, Parameters
from .s3_routes import check_tags
from .s3_xml import DECLARATION, NAMESPACE, escape, xml_response

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")  # S3 user guide, bucket naming rules
XSI_TYPE = "CanonicalUser"
ABSENT = {  # what Get… answers when nothing was ever put
    "GetBucketPolicy": ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "GetBucketPolicyStatus": ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    "GetBucketLifecycleConfiguration": (
        "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist"),
    "GetBucketCors": ("NoSuchCORSConfiguration", "The CORS configuration does not exist"),
    "GetBucketWebsite": (
        "NoSuchWebsiteConfiguration", "The specified bucket does not have a website configuration"),
    "GetBucketReplication": (
        "ReplicationConfigurationNotFoundError", "The replication configuration was not found"),
    "GetObjectLockConfiguration": (
        "ObjectLockConfigurationNotFoundError", "Object Lock configuration does not exist for this bucket"),
}  # fmt: skip
ENCRYPTION = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]}


def check_name(name: str) -> None:
    """Refusal InvalidBucketName."""
    if NAME.fullmatch(name) and ".." not in name and not _is_address(name):
        return
    raise Refusal("InvalidBucketName", "The specified bucket is not valid.", BucketName=name[:100])


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


class BucketOperations(Operations):
    """Buckets and their settings."""

    def list_buckets(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Every bucket, or a page of those with a prefix."""
        prefix, after = parameters.get("Prefix", ""), parameters.get("ContinuationToken", "")
        region, limit = parameters.get("BucketRegion"), parameters.get("MaxBuckets", 10_000)
        found = [
            {"Name": bucket["name"], "CreationDate": bucket["created"], "BucketRegion": bucket["region"]}
            for bucket in self.store.buckets()
            if bucket["name"].startswith(prefix) and bucket["name"] > after and region in (None, bucket["region"])
        ]
        token = found[limit - 1]["Name"] if len(found) > limit else None
        return {"Buckets": found[:limit], "Owner": OWNER, "Prefix": prefix or None, "ContinuationToken": token}

    def create_bucket(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """A bucket in the region of the request; Refusal IllegalLocationConstraintException as AWS gives it."""
        name = parameters["Bucket"]
        check_name(name)
        configuration = parameters.get("CreateBucketConfiguration") or {}
        place = configuration.get("LocationConstraint")
        if (place or "us-east-1") != request.region:
            message = f"The {place or 'unspecified'} location constraint is incompatible for the region specific"
            raise Refusal("IllegalLocationConstraintException", f"{message} endpoint this request was sent to.")
        if parameters.get("ObjectLockEnabledForBucket") or parameters.get("ObjectOwnership") == "ObjectWriter":
            raise Refusal("NotImplemented", "The lab has neither object lock nor ACLs.", status=501)
        self.store.create_bucket(name, request.region)
        if configuration.get("Tags"):
            self.store.configure(name, "tags", check_tags(configuration["Tags"], 50))
        return {"Location": f"/{name}"}

    def head_bucket(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Its region; 404 without a body when it is not there."""
        return {"BucketRegion": self.bucket(parameters)["region"], "AccessPointAlias": False}

    def delete_bucket(self, parameters: Parameters, request: HttpRequest) -> None:
        """StoreRefusal BucketNotEmpty."""
        self.store.delete_bucket(self.bucket(parameters)["name"])

    def get_bucket_location(self, parameters: Parameters, request: HttpRequest) -> HttpResponse:
        """The region as the text of the root element, empty for us-east-1."""
        region = self.bucket(parameters)["region"]
        text = "" if region == "us-east-1" else escape(region)
        document = f'{DECLARATION}<LocationConstraint xmlns="{NAMESPACE}">{text}</LocationConstraint>'
        return xml_response(document.encode())

    def get_bucket_versioning(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Nothing for a bucket that never had it."""
        return {"Status": self.bucket(parameters)["versioning"] or None}

    def put_bucket_versioning(self, parameters: Parameters, request: HttpRequest) -> None:
        """Enabled or Suspended; it never goes back to none."""
        status = parameters["VersioningConfiguration"].get("Status")
        if status is None:
            message = "The Versioning element must be specified"
            raise Refusal("IllegalVersioningConfigurationException", message)
        if parameters["VersioningConfiguration"].get("MFADelete") == "Enabled" or "MFA" in parameters:
            raise Refusal("NotImplemented", "The lab has no MFA delete.", status=501)
        self.store.set_versioning(self.bucket(parameters)["name"], status)

    def _stored(self, parameters: Parameters, setting: str) -> Any:
        return self.bucket(parameters)["configuration"].get(setting)

    def _store(self, parameters: Parameters, setting: str, value: Any) -> None:
        self.store.configure(self.bucket(parameters)["name"], setting, value)

    def get_bucket_tagging(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Refusal NoSuchTagSet when there are none."""
        tags = self._stored(parameters, "tags")
        if not tags:
            raise Refusal("NoSuchTagSet", "The TagSet does not exist", status=404, BucketName=parameters["Bucket"])
        return {"TagSet": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def put_bucket_tagging(self, parameters: Parameters, request: HttpRequest) -> HttpResponse:
        """At most 50."""
        self._store(parameters, "tags", check_tags(parameters["Tagging"]["TagSet"], 50))
        return HttpResponse(204)

    def delete_bucket_tagging(self, parameters: Parameters, request: HttpRequest) -> None:
        """Remove them all."""
        self._store(parameters, "tags", None)

    def get_bucket_encryption(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """AES256 by default, as on every bucket since 2023."""
        return {"ServerSideEncryptionConfiguration": self._stored(parameters, "encryption") or ENCRYPTION}

    def put_bucket_encryption(self, parameters: Parameters, request: HttpRequest) -> None:
        """Stored and shown; Refusal for keys that the lab does not have."""
        configuration = parameters["ServerSideEncryptionConfiguration"]
        rules = [rule.get("ApplyServerSideEncryptionByDefault", {}) for rule in configuration["Rules"]]
        if any(rule.get("SSEAlgorithm", "AES256") != "AES256" for rule in rules):
            raise Refusal("NotImplemented", "The lab has no KMS keys: AES256 only.", status=501)
        self._store(parameters, "encryption", configuration)

    def delete_bucket_encryption(self, parameters: Parameters, request: HttpRequest) -> None:
        """Back to the default."""
        self._store(parameters, "encryption", None)

    def get_public_access_block(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """A new bucket blocks everything."""
        everything = dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        )
        block = self._stored(parameters, "publicAccessBlock")
        if block == "deleted":
            message = "The public access block configuration was not found"
            raise Refusal("NoSuchPublicAccessBlockConfiguration", message, status=404, BucketName=parameters["Bucket"])
        return {"PublicAccessBlockConfiguration": everything if block is None else block}

    def put_public_access_block(self, parameters: Parameters, request: HttpRequest) -> None:
        """Stored and shown: the lab answers its own credentials only."""
        self._store(parameters, "publicAccessBlock", parameters["PublicAccessBlockConfiguration"])

    def delete_public_access_block(self, parameters: Parameters, request: HttpRequest) -> None:
        """Remove it."""
        self._store(parameters, "publicAccessBlock", "deleted")

    def get_bucket_notification_configuration(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Empty when nothing was put."""
        return dict(self._stored(parameters, "notification") or {})

    def put_bucket_notification_configuration(self, parameters: Parameters, request: HttpRequest) -> None:
        """Stored and shown; the lab's S3 sends no notifications of its own."""
        self._store(parameters, "notification", parameters["NotificationConfiguration"])

    def get_bucket_ownership_controls(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """ACLs are off, as in every new bucket."""
        self.bucket(parameters)
        return {"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}}

    def get_bucket_acl(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """The owner may do everything."""
        self.bucket(parameters)
        return acl()

    def get_bucket_request_payment(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """The owner pays."""
        self.bucket(parameters)
        return {"Payer": "BucketOwner"}

    def get_bucket_accelerate_configuration(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Never set."""
        self.bucket(parameters)
        return {}

    def get_bucket_logging(self, parameters: Parameters, request: HttpRequest) -> Parameters:
        """Never set."""
        self.bucket(parameters)
        return {}

    def absent(self, parameters: Parameters, request: HttpRequest, operation: str) -> Parameters:
        """The 404 of a setting that nobody can have put."""
        code, message = ABSENT[operation]
        raise Refusal(code, message, status=404, BucketName=self.bucket(parameters)["name"])

    def delete_bucket_policy(self, parameters: Parameters, request: HttpRequest) -> None:
        """There is none."""
        self.bucket(parameters)


def acl() -> Parameters:
    """Full control for the owner."""
    return {"Owner": OWNER, "Grants": [{"Grantee": {"Type": XSI_TYPE, **OWNER}, "Permission": "FULL_CONTROL"}]}
