"""Which replication instances are there, and which subnets do they stand in?"""

from __future__ import annotations

from .dms_resources import (
    INSTANCE,
    SUBNETS,
    TASK,
    Document,
    Resources,
    check_name,
    chosen,
    filtered,
    merged,
    now,
    paged,
)
from .dms_roles import VPC_ROLE
from .protocol import Call, Refusal

ENGINE_VERSION = "3.5.4"  # from 3.6.1 on validation failures go to awsdms_validation_failures_v2
_CREATING_SECONDS = 3.0  # times pace
_SHOWN = (
    "ReplicationInstanceIdentifier", "ReplicationInstanceClass", "AllocatedStorage", "InstanceCreateTime",
    "AvailabilityZone", "PreferredMaintenanceWindow", "MultiAZ", "EngineVersion", "AutoMinorVersionUpgrade",
    "ReplicationInstanceArn", "PubliclyAccessible", "NetworkType",
)  # fmt: skip


class Instances(Resources):
    """Replication instances are documents: what they run are the tasks."""

    def create_replication_subnet_group(self, parameters: Document, call: Call) -> Document:
        """CreateReplicationSubnetGroup; the lab has no network, so the subnets are only remembered."""
        name = parameters["ReplicationSubnetGroupIdentifier"].lower()
        check_name(name, "ReplicationSubnetGroupIdentifier", 255)
        with self.lock:
            self._require_role()
            self.unused(SUBNETS, "ReplicationSubnetGroupIdentifier", name, call)
            group = {
                "ReplicationSubnetGroupArn": self.new_arn(call, SUBNETS),
                "ReplicationSubnetGroupIdentifier": name,
                "ReplicationSubnetGroupDescription": parameters["ReplicationSubnetGroupDescription"],
                "SubnetIds": parameters["SubnetIds"],
                "Tags": merged([], parameters.get("Tags")),
            }
            self.lab.database.put(SUBNETS, group["ReplicationSubnetGroupArn"], group)
        return {"ReplicationSubnetGroup": _subnets_shown(group)}

    def describe_replication_subnet_groups(self, parameters: Document, call: Call) -> Document:
        """DescribeReplicationSubnetGroups."""
        getters = {"replication-subnet-group-id": lambda group: str(group["ReplicationSubnetGroupIdentifier"])}
        found = filtered(self.here(SUBNETS, call), parameters, getters, "Replication Subnet Groups")
        return paged([_subnets_shown(group) for group in found], "ReplicationSubnetGroups", parameters)

    def create_replication_instance(self, parameters: Document, call: Call) -> Document:
        """CreateReplicationInstance."""
        name = parameters["ReplicationInstanceIdentifier"].lower()
        check_name(name, "ReplicationInstanceIdentifier", 63)
        with self.lock:
            self._require_role()
            self.unused(INSTANCE, "ReplicationInstanceIdentifier", name, call)
            instance: Document = {
                "AllocatedStorage": 50,
                "AvailabilityZone": f"{call.region}a",
                "PreferredMaintenanceWindow": "sun:03:00-sun:03:30",
                "MultiAZ": False,
                "EngineVersion": ENGINE_VERSION,
                "AutoMinorVersionUpgrade": True,
                "PubliclyAccessible": True,
                "NetworkType": "IPV4",
                **chosen(parameters, *_SHOWN, "ReplicationSubnetGroupIdentifier"),
                "ReplicationInstanceIdentifier": name,
                "ReplicationInstanceArn": self.new_arn(call, INSTANCE, parameters.get("ResourceIdentifier")),
                "InstanceCreateTime": now(),
                "MadeBy": now() + _CREATING_SECONDS * self.lab.pace,
                "Tags": merged([], parameters.get("Tags")),
            }
            self.lab.database.put(INSTANCE, instance["ReplicationInstanceArn"], instance)
        return {"ReplicationInstance": self._shown(instance, call)}

    def _require_role(self) -> None:
        if not self.lab.bus.has_role(VPC_ROLE):
            raise Refusal(
                "AccessDeniedFault",
                f"The IAM Role arn:aws:iam::{self.lab.account}:role/{VPC_ROLE} is not configured properly.",
            )

    def _shown(self, instance: Document, call: Call) -> Document:
        groups = [
            _subnets_shown(group)
            for group in self.here(SUBNETS, call)
            if group["ReplicationSubnetGroupIdentifier"] == instance.get("ReplicationSubnetGroupIdentifier")
        ]
        status = "creating" if now() < instance["MadeBy"] else "available"
        return {
            **chosen(instance, *_SHOWN),
            "ReplicationInstanceStatus": status,
            "ReplicationSubnetGroup": groups[0] if groups else None,
        }

    def describe_replication_instances(self, parameters: Document, call: Call) -> Document:
        """DescribeReplicationInstances."""
        getters = {
            "replication-instance-arn": lambda instance: str(instance["ReplicationInstanceArn"]),
            "replication-instance-id": lambda instance: str(instance["ReplicationInstanceIdentifier"]),
            "replication-instance-class": lambda instance: str(instance["ReplicationInstanceClass"]),
            "engine-version": lambda instance: str(instance["EngineVersion"]),
        }
        found = filtered(self.here(INSTANCE, call), parameters, getters, "Replication Instances")
        return paged([self._shown(instance, call) for instance in found], "ReplicationInstances", parameters)

    def modify_replication_instance(self, parameters: Document, call: Call) -> Document:
        """ModifyReplicationInstance; at once, there is no maintenance window in the lab."""
        with self.lock:
            instance = self.find(INSTANCE, parameters["ReplicationInstanceArn"], call)
            changes = chosen(
                parameters, "AllocatedStorage", "ReplicationInstanceClass", "PreferredMaintenanceWindow", "MultiAZ",
                "EngineVersion", "AutoMinorVersionUpgrade",
            )  # fmt: skip
            instance = self.lab.database.update(INSTANCE, instance["ReplicationInstanceArn"], **changes)
        return {"ReplicationInstance": self._shown(instance, call)}

    def delete_replication_instance(self, parameters: Document, call: Call) -> Document:
        """DeleteReplicationInstance; refused while it has tasks."""
        with self.lock:
            instance = self.find(INSTANCE, parameters["ReplicationInstanceArn"], call)
            arn = instance["ReplicationInstanceArn"]
            if any(task["ReplicationInstanceArn"] == arn for task in self.here(TASK, call)):
                raise Refusal("InvalidResourceStateFault", f"Replication Instance {arn} has tasks; delete them first.")
            self.lab.database.delete(INSTANCE, arn)
        return {"ReplicationInstance": {**self._shown(instance, call), "ReplicationInstanceStatus": "deleting"}}


def _subnets_shown(group: Document) -> Document:
    return {
        **chosen(group, "ReplicationSubnetGroupIdentifier", "ReplicationSubnetGroupDescription"),
        "VpcId": "vpc-0a1b2c3d4e5f60718",
        "SubnetGroupStatus": "Complete",
        "Subnets": [{"SubnetIdentifier": subnet, "SubnetStatus": "Active"} for subnet in group["SubnetIds"]],
    }
