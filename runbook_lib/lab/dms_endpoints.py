"""Which databases do DMS's tasks go between, and does a connection to each really succeed?

The endpoints of the world are the lab's own databases: their address and password are the lab's, wherever the servers
listen. An endpoint of somebody else has what it was given.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from .databases import MARIADB
from .dms_instances import Instances
from .dms_resources import (
    CONNECTION,
    ENDPOINT,
    INSTANCE,
    TASK,
    Document,
    check_name,
    chosen,
    filtered,
    merged,
    paged,
)  # fmt: skip
from .processes import HOST
from .protocol import Call, Refusal

TESTING_SECONDS = 2.0  # times pace
PATIENCE = 10  # seconds for one attempt to connect
_SHOWN = (
    "EndpointIdentifier", "EndpointType", "EngineName", "Username", "ServerName", "Port", "DatabaseName",
    "ExtraConnectionAttributes", "EndpointArn", "SslMode",
)  # fmt: skip
_CONNECTED = (
    "ReplicationInstanceArn", "EndpointArn", "Status", "LastFailureMessage", "EndpointIdentifier",
    "ReplicationInstanceIdentifier",
)  # fmt: skip
_DISPLAYED = {"postgres": "PostgreSQL", "aurora-postgresql": "PostgreSQL", MARIADB: "MariaDB"}  # by EngineName
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a database is and how to get in."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)


class Endpoints(Instances):
    """Endpoints and the tests of their connections."""

    def start(self) -> None:
        """A test that a killed daemon was in the middle of has failed."""
        for connection in self.lab.database.all(CONNECTION):
            if connection["Status"] == "testing":
                self._tested(connection, "The lab was stopped during the test.")

    def create_endpoint(self, parameters: Document, call: Call) -> Document:
        """CreateEndpoint; the lab has PostgreSQL, and MariaDB as a source."""
        name = parameters["EndpointIdentifier"].lower()
        check_name(name, "EndpointIdentifier", 255)
        engine = parameters["EngineName"]
        if engine not in _DISPLAYED or (engine == MARIADB and parameters["EndpointType"] != "source"):
            raise Refusal(
                "InvalidParameterValueException",
                "The lab's endpoints are of the engine postgres; a source may be of the engine mariadb.",
            )
        with self.lock:
            self.unused(ENDPOINT, "EndpointIdentifier", name, call)
            endpoint: Document = {
                "SslMode": "none",
                **chosen(parameters, *_SHOWN, "Password"),
                **_from_settings(parameters),
                "EndpointIdentifier": name,
                "EndpointArn": self.new_arn(call, ENDPOINT, parameters.get("ResourceIdentifier")),
                "Tags": merged([], parameters.get("Tags")),
            }
            self.lab.database.put(ENDPOINT, endpoint["EndpointArn"], endpoint)
        return {"Endpoint": self._endpoint_shown(endpoint)}

    def attach(self, endpoint_arn: str, side: str) -> None:
        """Make an endpoint the lab's own `source`, `target` or `mariadb` database. For the world's builder."""
        self.lab.database.update(ENDPOINT, endpoint_arn, Side=side)

    def address(self, endpoint: Document) -> Address:
        """Where an endpoint's database is; starts the lab's databases when it is one of theirs and they never ran."""
        side = endpoint.get("Side")
        database, user = endpoint.get("DatabaseName", ""), endpoint.get("Username", "")
        password = endpoint.get("Password", "")
        if side is None:
            port = endpoint.get("Port", 3306 if endpoint["EngineName"] == MARIADB else 5432)
            return Address(endpoint.get("ServerName", ""), port, database, user, password)
        databases = self.lab.databases
        return Address(HOST, databases.port(side), database, user, password or databases.password(side, user))

    def _endpoint_shown(self, endpoint: Document) -> Document:
        displayed = _DISPLAYED[endpoint["EngineName"]]
        return {**chosen(endpoint, *_SHOWN), "EngineDisplayName": displayed, "Status": "active"}

    def describe_endpoints(self, parameters: Document, call: Call) -> Document:
        """DescribeEndpoints; never a password."""
        getters = {
            "endpoint-arn": lambda endpoint: str(endpoint["EndpointArn"]),
            "endpoint-id": lambda endpoint: str(endpoint["EndpointIdentifier"]),
            "endpoint-type": lambda endpoint: str(endpoint["EndpointType"]),
            "engine-name": lambda endpoint: str(endpoint["EngineName"]),
        }
        found = filtered(self.here(ENDPOINT, call), parameters, getters, "Endpoints")
        shown = []
        for endpoint in found:
            address = self.address(endpoint)
            shown.append(self._endpoint_shown({**endpoint, "ServerName": address.host, "Port": address.port}))
        return paged(shown, "Endpoints", parameters)

    def modify_endpoint(self, parameters: Document, call: Call) -> Document:
        """ModifyEndpoint; its connections have to be tested again."""
        with self.lock:
            endpoint = self.find(ENDPOINT, parameters["EndpointArn"], call)
            if parameters.get("EngineName", endpoint["EngineName"]) != endpoint["EngineName"]:
                raise Refusal("InvalidParameterValueException", "The lab does not change the engine of an endpoint.")
            changes = chosen(parameters, *_SHOWN, "Password") | _from_settings(parameters)
            with self.lab.database.writing():
                endpoint = self.lab.database.update(ENDPOINT, endpoint["EndpointArn"], **changes)
                if changes.keys() & {"ServerName", "Port"}:
                    endpoint = self.lab.database.update(ENDPOINT, endpoint["EndpointArn"], Side=None)
                for connection in self._connections(call):
                    if connection["EndpointArn"] == endpoint["EndpointArn"]:
                        self.lab.database.delete(CONNECTION, _identity(connection))
        return {"Endpoint": self._endpoint_shown(endpoint)}

    def delete_endpoint(self, parameters: Document, call: Call) -> Document:
        """DeleteEndpoint; refused while a task has it."""
        with self.lock:
            endpoint = self.find(ENDPOINT, parameters["EndpointArn"], call)
            arn = endpoint["EndpointArn"]
            for task in self.here(TASK, call):
                if arn in (task["SourceEndpointArn"], task["TargetEndpointArn"]):
                    used = f"Endpoint {arn} is part of the task {task['ReplicationTaskIdentifier']}; delete it first."
                    raise Refusal("InvalidResourceStateFault", used)
            self.lab.database.delete(ENDPOINT, arn)
        return {"Endpoint": {**self._endpoint_shown(endpoint), "Status": "deleting"}}

    # Connections.

    def _connections(self, call: Call) -> list[Document]:
        at = [call.region, call.account]
        return [found for found in self.lab.database.all(CONNECTION) if found["EndpointArn"].split(":")[3:5] == at]

    def connected(self, instance_arn: str, endpoint_arn: str) -> bool:
        """Whether the last test of a connection was successful."""
        found = self.lab.database.get(CONNECTION, f"{instance_arn} {endpoint_arn}")
        return found is not None and found["Status"] == "successful"

    def test_connection(self, parameters: Document, call: Call) -> Document:
        """TestConnection: `testing`, and a thread that connects."""
        with self.lock:
            connection = self._connection(parameters, call)
            earlier = self.lab.database.get(CONNECTION, _identity(connection))
            if earlier is not None and earlier["Status"] == "testing":
                raise Refusal("InvalidResourceStateFault", "The connection is already being tested.")
            self.lab.database.put(CONNECTION, _identity(connection), {**connection, "Status": "testing"})
        endpoint = self.find(ENDPOINT, connection["EndpointArn"], call)
        threading.Thread(target=self._test, args=(connection, endpoint), name="dms-test", daemon=True).start()
        return {"Connection": {**connection, "Status": "testing"}}

    def _connection(self, parameters: Document, call: Call) -> Document:
        instance = self.find(INSTANCE, parameters["ReplicationInstanceArn"], call)
        endpoint = self.find(ENDPOINT, parameters["EndpointArn"], call)
        return {
            **chosen(instance, "ReplicationInstanceArn", "ReplicationInstanceIdentifier"),
            **chosen(endpoint, "EndpointArn", "EndpointIdentifier"),
        }

    def _test(self, connection: Document, endpoint: Document) -> None:
        began = time.monotonic()
        try:
            failure = self._failure(endpoint)
        except Exception as error:
            log.exception("The connection test of %s failed", endpoint["EndpointIdentifier"])
            failure = f"Test Endpoint failed: {type(error).__name__}: {error}"
        self.lab.linger(began, TESTING_SECONDS)
        self._tested(connection, failure)
        self.lab.database.close()

    def _failure(self, endpoint: Document) -> str:
        """Why a connection fails, in DMS's words; nothing when it succeeds."""
        import psycopg
        import pymysql

        if endpoint.get("Side") is not None:
            self.lab.databases.ready(mariadb=self.lab.profile == MARIADB)
        address = self.address(endpoint)
        connect = _connect_mariadb if endpoint["EngineName"] == MARIADB else _connect_postgres
        try:
            connect(address)
        except (psycopg.Error, pymysql.MySQLError) as error:
            said = " ".join(str(error).split())
            return (
                "Test Endpoint failed: Application-Status: 1020912, Application-Message: Cannot connect to ODBC "
                f"provider Network error has occurred, Application-Detailed-Message: RetCode: SQL_ERROR Message: {said}"
            )
        return ""

    def _tested(self, connection: Document, failure: str) -> None:
        status = "failed" if failure else "successful"
        with self.lock, self.lab.database.writing():
            if self.lab.database.get(CONNECTION, _identity(connection)) is None:
                return  # deleted, or the endpoint modified, meanwhile
            tested = {**connection, "Status": status, "LastFailureMessage": failure}
            self.lab.database.put(CONNECTION, _identity(connection), tested)

    def record_connection(self, instance_arn: str, endpoint_arn: str, call: Call) -> None:
        """Write down a successful test that nobody made: the world's, whose databases do not run yet."""
        names = {"ReplicationInstanceArn": instance_arn, "EndpointArn": endpoint_arn}
        connection = self._connection(names, call)
        tested = {**connection, "Status": "successful", "LastFailureMessage": ""}
        self.lab.database.put(CONNECTION, _identity(connection), tested)

    def describe_connections(self, parameters: Document, call: Call) -> Document:
        """DescribeConnections: the last test of each."""
        getters = {
            "endpoint-arn": lambda connection: str(connection["EndpointArn"]),
            "replication-instance-arn": lambda connection: str(connection["ReplicationInstanceArn"]),
        }
        found = filtered(self._connections(call), parameters, getters, "Connections")
        return paged([chosen(connection, *_CONNECTED) for connection in found], "Connections", parameters)

    def delete_connection(self, parameters: Document, call: Call) -> Document:
        """DeleteConnection: the test is forgotten."""
        identity = f"{parameters['ReplicationInstanceArn']} {parameters['EndpointArn']}"
        with self.lock:
            connection = self.lab.database.get(CONNECTION, identity)
            if connection is None or connection not in self._connections(call):
                raise Refusal("ResourceNotFoundFault", "No Connections found matching given filter")
            self.lab.database.delete(CONNECTION, identity)
        return {"Connection": {**chosen(connection, *_CONNECTED), "Status": "deleting"}}


def _identity(connection: Document) -> str:
    return f"{connection['ReplicationInstanceArn']} {connection['EndpointArn']}"


def _from_settings(parameters: Document) -> Document:
    """What an endpoint's settings for its engine say instead of its own members."""
    settings = parameters.get("PostgreSQLSettings", {}) | parameters.get("MySQLSettings", {})
    return chosen(settings, "ServerName", "Port", "DatabaseName", "Username", "Password")


def _connect_postgres(address: Address) -> None:
    import psycopg

    psycopg.connect(
        host=address.host, port=address.port, dbname=address.database, user=address.user,
        password=address.password, connect_timeout=PATIENCE,
    ).close()  # fmt: skip


def _connect_mariadb(address: Address) -> None:
    import pymysql

    pymysql.connect(
        host=address.host, port=address.port, user=address.user, password=address.password, connect_timeout=PATIENCE,
    ).close()  # fmt: skip
