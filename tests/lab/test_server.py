"""What the lab's front door lets in, and how it says no."""

from __future__ import annotations

import http.client
import json
import re
import resource
import socket
import sys
import threading
import urllib.request

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from runbook_lib.lab.core import ACCOUNT, CLOUD_REGION
from tests.lab.conftest import ACCESS_KEY, SECRET_KEY, Door

Answer = tuple[int, dict[str, str], bytes]


def send(door: Door, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """One raw request."""
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    connection.request(
        method, path, body=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def signed(door: Door, service: str, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """One request, rightly signed."""
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    request = AWSRequest(method, door.url + path, data=body, headers=names)
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    kind(Credentials(ACCESS_KEY, SECRET_KEY), service, CLOUD_REGION).add_auth(request)
    return send(door, method, path, body, **dict(request.headers.items()))


def code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    answer = error.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]


def test_a_signed_json_request_reaches_its_service(door: Door) -> None:
    answer = door.client("datasync").list_agents()
    assert answer["Agents"][0]["Name"] == CLOUD_REGION
    assert re.fullmatch(r"[0-9a-f-]{36}", answer["ResponseMetadata"]["RequestId"])


def test_a_refusal_carries_code_members_and_headers(door: Door) -> None:
    arn = f"arn:aws:datasync:{CLOUD_REGION}:{ACCOUNT}:agent/agent-0123456789abcdef0"
    with pytest.raises(ClientError) as error:
        door.client("datasync").delete_agent(AgentArn=arn)
    assert code_of(error) == (400, "InvalidRequestException")
    assert error.value.response["errorCode"] == "AgentInUse"
    assert error.value.response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-errortype"] == "InvalidRequestException"


@pytest.mark.parametrize(
    ("service", "operation", "unknown", "wrong"),
    [
        ("datasync", "list_agents", "UnrecognizedClientException", "InvalidSignatureException"),
        ("events", "list_rules", "UnrecognizedClientException", "InvalidSignatureException"),
        ("s3", "list_buckets", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
        ("sts", "get_caller_identity", "InvalidClientTokenId", "SignatureDoesNotMatch"),
    ],
)
def test_a_strangers_key_and_a_wrong_secret_are_403_in_the_services_own_words(
    door: Door, service: str, operation: str, unknown: str, wrong: str
) -> None:
    with pytest.raises(ClientError) as error:
        getattr(door.client(service, aws_access_key_id="AKIASTRANGER00000000"), operation)()
    assert code_of(error) == (403, unknown)
    with pytest.raises(ClientError) as error:
        getattr(door.client(service, aws_secret_access_key="guessed"), operation)()
    assert code_of(error) == (403, wrong)


@pytest.mark.parametrize(
    "authorization", [None, "garbage", "AWS4-HMAC-SHA256 Credential=x, SignedHeaders=y, Signature=z"]
)
def test_missing_and_garbage_signatures_are_403_for_json_and_for_s3(door: Door, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    json_code = "MissingAuthenticationTokenException" if authorization is None else "IncompleteSignatureException"
    status, _, body = send(door, "POST", "/", b"{}", X_Amz_Target="FmrsService.ListAgents", **headers)
    assert (status, json.loads(body)["__type"]) == (403, json_code)
    status, _, body = send(door, "GET", "/bucket/key", **headers)
    assert (status, re.search(rb"<Code>(.*)</Code>", body)[1]) == (403, b"AccessDenied")  # type: ignore[index]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "bucket.localhost"])
def test_another_host_name_is_refused_before_anything_else(door: Door, host: str) -> None:
    status, headers, _ = send(door, "POST", "/", b"{}", Host=host, X_Amz_Target="FmrsService.ListAgents")
    assert status == 403 and headers["x-amzn-errortype"] == "AccessDenied"


def test_no_answer_has_a_cors_header_and_options_is_refused(door: Door) -> None:
    preflight = {"Origin": "http://evil.example", "Access_Control_Request_Method": "POST"}
    answers = [
        send(door, "OPTIONS", "/", **preflight),
        send(door, "GET", "/bucket", Origin="http://evil.example"),
        signed(
            door,
            "sts",
            "POST",
            "/",
            b"Action=GetCallerIdentity&Version=2011-06-15",
            Content_Type="application/x-www-form-urlencoded",
            Origin="http://evil.example",
        ),
    ]
    assert [status for status, _, _ in answers] == [403, 403, 200]
    assert not [name for _, headers, _ in answers for name in headers if name.startswith("access-control")]


def test_cbor_gets_a_clear_json_refusal(door: Door) -> None:
    path = "/service/FmrsService/operation/ListAgents"
    for headers in ({"smithy_protocol": "rpc-v2-cbor"}, {"Content_Type": "application/cbor"}):
        status, _, body = signed(door, "datasync", "POST", path, b"\xa0", **headers)
        assert (status, json.loads(body)["__type"]) == (400, "UnsupportedProtocolException")
        assert "JSON" in json.loads(body)["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_malformed_body_is_a_serialization_exception(door: Door, body: bytes) -> None:
    status, _, answer = signed(door, "datasync", "POST", "/", body, X_Amz_Target="FmrsService.ListAgents")
    assert (status, json.loads(answer)["__type"]) == (400, "SerializationException")


def test_unknown_operations_services_and_paths_are_refused(door: Door) -> None:
    for service, path, target in [
        ("datasync", "/", "FmrsService.MakeCoffee"),
        ("datasync", "/", ""),
        ("datasync", "/elsewhere", "FmrsService.ListAgents"),
        ("ec2", "/", "x.y"),
        ("lab", "/elsewhere", "x.y"),
    ]:
        status, _, body = signed(door, service, "POST", path, b"{}", X_Amz_Target=target)
        assert (status, json.loads(body)["__type"]) == (400, "UnknownOperationException"), (service, path)


def test_a_bug_is_an_internal_failure_without_its_insides(door: Door) -> None:
    with pytest.raises(ClientError) as error:
        door.client("datasync").list_locations()
    assert code_of(error) == (500, "InternalFailure") and "a bug" not in str(error.value)


def test_a_huge_document_is_refused(door: Door) -> None:
    status, _, body = signed(door, "datasync", "POST", "/", bytes(11 << 20), X_Amz_Target="FmrsService.ListAgents")
    assert (status, json.loads(body)["__type"]) == (413, "RequestEntityTooLargeException")


def test_motos_own_interface_is_closed(door: Door) -> None:
    for service in ("sts", "iam"):
        assert signed(door, service, "POST", "/moto-api/reset")[0] == 400
    assert send(door, "POST", "/moto-api/reset")[0] == 403
    assert signed(door, "s3", "POST", "/moto-api/reset")[2] == b"some content"  # a bucket's name to S3, not to moto


def test_a_presigned_get_works_without_headers(door: Door) -> None:
    url = door.client("s3").generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "a b/ä+c"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
        assert answer.read() == b"some content"


def test_s3_sees_the_path_and_the_headers_as_they_were_sent(door: Door) -> None:
    door.client("s3").put_object(Bucket="b", Key="a b//../ä", Body=b"12345", Metadata={"with_underscore": "1"})
    request = door.s3.requests[-1]
    assert request.path == "/b/a%20b//../%C3%A4" and request.headers["x-amz-meta-with_underscore"] == "1"
    assert door.s3.stored[request.path] == 5


def test_a_body_with_another_hash_than_declared_is_refused_by_the_reader(door: Door) -> None:
    request = AWSRequest("PUT", door.url + "/b/changed", data=b"honest", headers={})
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", CLOUD_REGION).add_auth(request)
    status, _, body = send(door, "PUT", "/b/changed", b"forged", **dict(request.headers.items()))
    assert status == 400 and b"<Code>XAmzContentSHA256Mismatch</Code>" in body
    assert "/b/changed" not in door.s3.stored


def test_an_s3_request_must_declare_its_payload(door: Door) -> None:
    request = AWSRequest("GET", door.url + "/b/key", headers={})
    SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", CLOUD_REGION).add_auth(request)
    assert b"<Code>InvalidRequest</Code>" in send(door, "GET", "/b/key", **dict(request.headers.items()))[2]


def test_bodies_stream_both_ways_in_bounded_memory(door: Door) -> None:
    client, size = door.client("s3"), 256 << 20
    piece = bytes(1 << 20)

    class Zeros:
        """A long file that was never in memory."""

        def __init__(self) -> None:
            self.at = 0

        def read(self, wanted: int = -1) -> bytes:
            count = min(wanted if wanted >= 0 else size, size - self.at, len(piece))
            self.at += count
            return piece[:count]

        def seek(self, offset: int, whence: int = 0) -> int:
            self.at = offset if whence == 0 else size + offset
            return self.at

        def tell(self) -> int:
            return self.at

    before = peak()
    client.put_object(Bucket="b", Key="long", Body=Zeros())
    for _ in range(4):
        body = client.get_object(Bucket="b", Key="large")["Body"]
        assert sum(len(part) for part in body.iter_chunks(1 << 20)) == 64 << 20
    assert door.s3.stored["/b/long"] == size
    assert peak() - before < 64 << 20


def peak() -> int:
    """The most memory this process has ever had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def exchange(door: Door, text: str, *then: bytes) -> bytes:
    """Raw bytes on a socket; all that came back until the lab closed or fell silent."""
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode())
        for piece in then:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_stranger_who_waits_for_100_continue_is_refused_before_sending(door: Door) -> None:
    head = f"PUT /b/key HTTP/1.1\nHost: 127.0.0.1:{door.port}\nContent-Length: 5000000000\nExpect: 100-continue\n\n"
    answer = exchange(door, head)
    assert answer.startswith(b"HTTP/1.1 403") and b"Connection: close" in answer


def test_a_body_is_asked_for_when_it_is_read(door: Door) -> None:
    request = AWSRequest("PUT", door.url + "/b/asked", data=b"hello", headers={})
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", CLOUD_REGION).add_auth(request)
    head = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    host = f"Host: 127.0.0.1:{door.port}\nContent-Length: 5\nExpect: 100-continue\n"
    answer = exchange(door, f"PUT /b/asked HTTP/1.1\n{host}{head}\n", b"hello")
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


def test_a_chunked_body_is_decoded(door: Door) -> None:
    request = AWSRequest("PUT", door.url + "/b/chunked", data=b"hello world", headers={})
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", CLOUD_REGION).add_auth(request)
    head = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    text = f"PUT /b/chunked HTTP/1.1\nHost: 127.0.0.1:{door.port}\nTransfer-Encoding: chunked\n{head}\n"
    assert b"200 OK" in exchange(door, text, b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    assert door.s3.stored["/b/chunked"] == 11
    assert b"200 OK" not in exchange(door, text.replace("chunked HTTP", "broken HTTP"), b"zz\r\nhello")


def test_a_client_that_leaves_in_the_middle_stores_nothing(door: Door) -> None:
    request = AWSRequest("PUT", door.url + "/b/half", data=bytes(100_000), headers={})
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", CLOUD_REGION).add_auth(request)
    head = "".join(f"{name}: {value}\n" for name, value in request.headers.items())
    text = f"PUT /b/half HTTP/1.1\nHost: 127.0.0.1:{door.port}\nContent-Length: 100000\n{head}\n"
    assert exchange(door, text, bytes(50_000)) == b""
    assert "/b/half" not in door.s3.stored


@pytest.mark.parametrize("length", ["-5", "5x", "", "1_0"])
def test_a_doubtful_length_is_a_bad_request(door: Door, length: str) -> None:
    answer = exchange(door, f"PUT /b/key HTTP/1.1\nHost: 127.0.0.1:{door.port}\nContent-Length: {length}\n\n")
    assert answer.startswith(b"HTTP/1.1 400")


def test_two_lengths_that_differ_and_a_length_beside_chunks_are_bad_requests(door: Door) -> None:
    head = f"PUT /b/key HTTP/1.1\nHost: 127.0.0.1:{door.port}\nContent-Length: 5\n"
    for more in ("Content-Length: 6\n", "Transfer-Encoding: chunked\n"):
        assert exchange(door, head + more + "\n").startswith(b"HTTP/1.1 400")
    assert exchange(door, head + "Content-Length: 5\n\n", b"hello").startswith(b"HTTP/1.1 403")


def test_a_refused_body_that_is_announced_and_not_sent_is_not_waited_for(door: Door) -> None:
    head = f"PUT /b/key HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\nContent-Length: 5000000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port), timeout=5) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 403") and b"Connection: close" in answer


def test_a_connection_serves_many_requests(door: Door) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    for _ in range(3):
        connection.request("PUT", "/b/key", body=b"unwanted" * 1000)
        answer = connection.getresponse()
        assert answer.status == 403 and answer.read() and not answer.will_close
    connection.close()


def test_a_signed_control_request_reaches_the_lab(door: Door) -> None:
    assert json.loads(signed(door, "lab", "POST", "/_lab/pace", b'{"pace": 1}')[2]) == {"done": "pace"}
    assert door.control[-1] == ("pace", {"pace": 1})
    assert signed(door, "lab", "POST", "/_lab/pace", b"[1]")[0] == 400
    assert signed(door, "lab", "POST", "/_lab/pace", b"{")[0] == 400
    assert signed(door, "lab", "POST", "/_lab/pace", b"[" * 100_000)[0] == 400


def test_a_closed_gate_holds_requests_until_it_opens(door: Door) -> None:
    answered = threading.Event()

    def ask() -> None:
        door.client("datasync").list_agents()
        answered.set()

    with door.front.gate.closed():
        thread = threading.Thread(target=ask)
        thread.start()
        assert not answered.wait(0.3)
    assert answered.wait(10)
    thread.join()


def test_temporary_credentials_do_not_control_the_lab(door: Door) -> None:
    role = f"arn:aws:iam::{ACCOUNT}:role/migration"
    found = door.client("sts").assume_role(RoleArn=role, RoleSessionName="run")["Credentials"]
    request = AWSRequest("POST", door.url + "/_lab/stop", data=b"{}", headers={})
    keys = Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])
    SigV4Auth(keys, "lab", CLOUD_REGION).add_auth(request)
    status, _, body = send(door, "POST", "/_lab/stop", b"{}", **dict(request.headers.items()))
    assert (status, json.loads(body)["__type"]) == (400, "UnknownOperationException")
    assert "stop" not in [verb for verb, _ in door.control]
