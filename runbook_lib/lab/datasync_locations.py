"""Which agents are there, and which ends can a transfer have?"""

from __future__ import annotations

import os
import re
from typing import Any

from .datasync_options import invalid
from .datasync_resources import AGENT, LOCATION, TASK, Document, Resources, chosen, merged, now, passes
from .protocol import Call
from .transfer_source import Tree

SERVER = "nfs.on-premises.lab"  # the only NFS server that answers in the lab
EXPORT = "/media/data"  # what it exports: core.Folder.export
# The models' patterns for Subdirectory use \p{Zs}, which Python's re does not know.
_SUBDIRECTORY = re.compile(r"[a-zA-Z0-9_\-+./() \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]*")
_PLATFORM = {"Version": "2.0.1784900000.1-migration-lab"}


class Locations(Resources):
    """Agents, NFS and S3 locations."""

    # Agents.

    def create_agent(self, parameters: Document, call: Call) -> Document:
        """CreateAgent; an activation key works once."""
        with self.lock:
            key = parameters["ActivationKey"]
            if any(agent["ActivationKey"] == key for agent in self.lab.database.all(AGENT)):
                raise invalid("The activation key is invalid or was used already.", "ActivationFailed")
            agent = {
                "AgentArn": self.new_arn(call, "agent", "agent"),
                "Name": parameters.get("AgentName", ""),
                "ActivationKey": key,
                "CreationTime": now(),
                "Tags": merged([], parameters.get("Tags")),
            }
            self.lab.database.put(AGENT, agent["AgentArn"], agent)
        return {"AgentArn": agent["AgentArn"]}

    @property
    def agent_status(self) -> str:
        """ONLINE, or OFFLINE with the planted fault; the lab's agents run on one machine."""
        return "ONLINE" if self.lab.fault("agent-offline") is None else "OFFLINE"

    def describe_agent(self, parameters: Document, call: Call) -> Document:
        """DescribeAgent."""
        agent = self.find(AGENT, parameters["AgentArn"], call)
        online = self.agent_status == "ONLINE"
        return {
            **chosen(agent, "AgentArn", "Name", "CreationTime"),
            "Status": self.agent_status,
            "LastConnectionTime": now() if online else agent["CreationTime"],
            "EndpointType": "PUBLIC",
            "Platform": _PLATFORM,
        }

    def list_agents(self, parameters: Document, call: Call) -> Document:
        """ListAgents."""
        agents = [
            {**chosen(agent, "AgentArn", "Name"), "Status": self.agent_status, "Platform": _PLATFORM}
            for agent in self.here(AGENT, "AgentArn", call)
        ]
        return self.listed(agents, "Agents", parameters)

    def update_agent(self, parameters: Document, call: Call) -> Document:
        """UpdateAgent: its name."""
        with self.lock:
            self.find(AGENT, parameters["AgentArn"], call)
            self.lab.database.update(AGENT, parameters["AgentArn"], Name=parameters.get("Name", ""))
        return {}

    def delete_agent(self, parameters: Document, call: Call) -> Document:
        """DeleteAgent; refused while a location uses it."""
        with self.lock:
            arn = parameters["AgentArn"]
            self.find(AGENT, arn, call)
            users = [d["LocationArn"] for d in self.lab.database.all(LOCATION) if arn in d.get("AgentArns", [])]
            if users:
                raise invalid(f"Agent {arn} is used by {', '.join(users)}.", "InUse")
            self.lab.database.delete(AGENT, arn)
        return {}

    # Locations.

    def create_location_nfs(self, parameters: Document, call: Call) -> Document:
        """CreateLocationNfs; a path that the lab's server does not export is refused, another server is not asked."""
        for arn in parameters["OnPremConfig"]["AgentArns"]:
            self.find(AGENT, arn, call)
        subdirectory = _checked(parameters["Subdirectory"])
        host = parameters["ServerHostname"]
        folder = "/" + subdirectory.strip("/")
        if host == SERVER:
            self._check_export(folder)
        uri = f"nfs://{host}{folder if folder == '/' else folder + '/'}"
        return self._create_location(
            call,
            parameters,
            LocationUri=uri,
            Host=host,
            Folder=folder,
            AgentArns=parameters["OnPremConfig"]["AgentArns"],
            MountOptions={"Version": parameters.get("MountOptions", {}).get("Version", "AUTOMATIC")},
        )

    def _check_export(self, folder: str) -> None:
        """Refusal when a folder is not exported, or a symbolic link stands on the way to it."""
        below = export_path(folder)
        if below is None:
            raise invalid(f"The server {SERVER} exports {EXPORT}, and {folder} is not in it.")
        try:
            Tree(str(self.lab.folder.export), below).close()
        except FileNotFoundError:
            return  # as on AWS the mount is tried by the task, which then is UNAVAILABLE
        except OSError as error:
            raise invalid(f"{folder} cannot be mounted from {SERVER}: {error.strerror or error}") from error

    def create_location_s3(self, parameters: Document, call: Call) -> Document:
        """CreateLocationS3; the bucket must be there."""
        subdirectory = _checked(parameters.get("Subdirectory", ""))
        if subdirectory != "/" and subdirectory.startswith("/"):
            raise invalid("An S3 prefix cannot begin with a slash")
        match = re.fullmatch(r"arn:aws:s3:::([a-z0-9][a-z0-9.\-]{1,61}[a-z0-9])", parameters["S3BucketArn"])
        if match is None:
            raise invalid(f"The lab has buckets only, no {parameters['S3BucketArn']}")
        if self.lab.objects.bucket(match[1]) is None:
            raise invalid(f"DataSync bucket access test failed: could not perform s3:ListBucket in bucket {match[1]}.")
        prefix = subdirectory.strip("/")
        return self._create_location(
            call,
            parameters,
            LocationUri=f"s3://{match[1]}/{prefix + '/' if prefix else ''}",
            Bucket=match[1],
            Prefix=prefix + "/" if prefix else "",
            S3StorageClass=parameters.get("S3StorageClass", "STANDARD"),
            S3Config=parameters["S3Config"],
        )

    def _create_location(self, call: Call, parameters: Document, **members: Any) -> Document:
        arn = self.new_arn(call, "location", "loc")
        tags = merged([], parameters.get("Tags"))
        self.lab.database.put(LOCATION, arn, {"LocationArn": arn, "CreationTime": now(), "Tags": tags, **members})
        return {"LocationArn": arn}

    def _location(self, kind: str, parameters: Document, call: Call) -> Document:
        location = self.find(LOCATION, parameters["LocationArn"], call)
        if not location["LocationUri"].startswith(kind + "://"):
            raise invalid(f"Location {location['LocationArn']} is not of type {kind.upper()}.")
        return location

    def describe_location_nfs(self, parameters: Document, call: Call) -> Document:
        """DescribeLocationNfs."""
        location = self._location("nfs", parameters, call)
        members = chosen(location, "LocationArn", "LocationUri", "MountOptions", "CreationTime")
        return {**members, "OnPremConfig": {"AgentArns": location["AgentArns"]}}

    def describe_location_s3(self, parameters: Document, call: Call) -> Document:
        """DescribeLocationS3."""
        location = self._location("s3", parameters, call)
        return chosen(location, "LocationArn", "LocationUri", "S3StorageClass", "S3Config", "CreationTime")

    def list_locations(self, parameters: Document, call: Call) -> Document:
        """ListLocations; every filter must pass."""
        found = []
        for location in self.here(LOCATION, "LocationArn", call):
            uri = location["LocationUri"]
            values = {
                "LocationUri": uri,
                "LocationType": uri.partition(":")[0].upper(),
                "CreationTime": location["CreationTime"],
            }
            if all(passes(values[test["Name"]], test) for test in parameters.get("Filters", [])):
                found.append(chosen(location, "LocationArn", "LocationUri"))
        return self.listed(found, "Locations", parameters)

    def delete_location(self, parameters: Document, call: Call) -> Document:
        """DeleteLocation; refused while a task uses it."""
        with self.lock:
            arn = parameters["LocationArn"]
            self.find(LOCATION, arn, call)
            users = [
                task["TaskArn"]
                for task in self.lab.database.all(TASK)
                if arn in (task["SourceLocationArn"], task["DestinationLocationArn"])
            ]
            if users:
                raise invalid(f"Location {arn} is used by {', '.join(users)}.", "InUse")
            self.lab.database.delete(LOCATION, arn)
        return {}


def _checked(subdirectory: str) -> str:
    if not _SUBDIRECTORY.fullmatch(subdirectory):
        raise invalid(f"Subdirectory {subdirectory[:100]!r} has characters that DataSync does not take")
    if "//" in subdirectory or {".", ".."} & set(subdirectory.split("/")):
        raise invalid("Subdirectory cannot contain //, . or ..")
    return subdirectory


def export_path(folder: str) -> str | None:
    """A folder of the server relative to its export; None when it is outside."""
    if os.path.commonpath([folder, EXPORT]) != EXPORT:
        return None
    return folder.removeprefix(EXPORT).strip("/")


def mount_problem(location: Document, export: str) -> str | None:
    """Why an NFS location cannot be mounted now; None when it can."""
    if location["Host"] != SERVER:
        return f"the server {location['Host']} does not answer"
    below = export_path(location["Folder"])
    if below is None:
        return f"{SERVER} exports {EXPORT} only"
    try:
        Tree(export, below).close()
    except OSError as error:
        return f"{error.strerror or error}"
    return None
