"""Requests signed by botocore are believed; anything else is not."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from runbook_lib.lab.http import Headers, Payload
from runbook_lib.lab.signature import UNSIGNED, Reason, Refused, Secret, read_claim, verify

ACCESS, SECRET = "AKIAABCDEFGHIJKLMNOP", "secret"
HOST = "127.0.0.1:4566"
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def sign(url: str, *, service: str = "s3", method: str = "GET", token: str | None = None, **headers: str) -> AWSRequest:
    """A request as boto3 signs it, in headers."""
    kind = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
    request = AWSRequest(method, f"http://{HOST}{url}", headers={"Host": HOST, **headers})
    kind(Credentials(ACCESS, SECRET, token), service, "eu-central-1").add_auth(request)
    return request


def check(
    request: AWSRequest, *, secret: Secret | None = None, now: float | None = None, payload: str = EMPTY
) -> Payload:
    """What the lab says to it."""
    parts = urlsplit(request.url)
    headers = Headers([("host", HOST), *request.headers.items()])
    secrets = {ACCESS: secret or Secret(SECRET)}
    return verify(
        read_claim(parts.query, headers),
        method=request.method,
        path=parts.path,
        query=parts.query,
        headers=headers,
        payload=payload,
        keyring=secrets.get,
        now=time.time() if now is None else now,
    )


def reason(request: AWSRequest, **options: object) -> Reason:
    with pytest.raises(Refused) as refused:
        check(request, **options)  # type: ignore[arg-type]
    return refused.value.reason


@pytest.mark.parametrize(
    "url", ["/bucket/a%20b%2Bc/%C3%A4", "/bucket/a//b/../c", "/bucket?list-type=2&prefix=a%2Fb&z=", "/?x=1&x=0"]
)
@pytest.mark.parametrize("service", ["s3", "datasync"])
def test_what_botocore_signs_is_accepted(url: str, service: str) -> None:
    assert check(sign(url, service=service)).scope.endswith(f"/eu-central-1/{service}/aws4_request")


@given(
    st.text(st.characters(blacklist_categories=["Cs"]), min_size=1),
    st.dictionaries(st.text("abZ-_.~ +&=/%ä", min_size=1), st.text("ab ~+=&ä")),
)
def test_any_key_and_any_query_signed_by_botocore_are_accepted(key: str, query: dict[str, str]) -> None:
    text = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query.items())
    check(sign(f"/bucket/{quote(key, safe='/~')}?{text}"))


def test_another_path_query_header_method_body_or_key_is_refused() -> None:
    changes = [
        lambda request: setattr(request, "url", request.url.replace("bucket", "basket")),
        lambda request: setattr(request, "url", request.url + "&delete="),
        lambda request: request.headers.replace_header("x-amz-meta-colour", "red"),
        lambda request: setattr(request, "method", "DELETE"),
    ]
    for change in changes:
        request = sign("/bucket/key?versionId=1", **{"x-amz-meta-colour": "blue"})
        check(request)
        change(request)
        assert reason(request) is Reason.MISMATCH
    assert reason(sign("/bucket"), payload="0" * 64) is Reason.MISMATCH
    assert reason(sign("/bucket"), secret=Secret("another")) is Reason.MISMATCH


def test_an_unsigned_amz_header_is_refused() -> None:
    request = sign("/bucket/key")
    request.headers["x-amz-copy-source"] = "/other/key"
    assert reason(request) is Reason.MISMATCH


def test_a_signature_is_good_for_fifteen_minutes_either_way() -> None:
    request, now = sign("/bucket"), time.time()
    check(request, now=now + 890)
    check(request, now=now - 890)
    assert reason(request, now=now + 910) is Reason.SKEWED
    assert reason(request, now=now - 910) is Reason.SKEWED


def presigned(seconds: int) -> AWSRequest:
    request = AWSRequest(
        "GET", f"http://{HOST}/bucket/a%20b?response-content-type=text%2Fplain", headers={"Host": HOST}
    )
    credentials = Credentials(ACCESS, SECRET)
    botocore.auth.S3SigV4QueryAuth(credentials, "s3", "eu-central-1", expires=seconds).add_auth(request)
    return request


def test_a_presigned_url_is_good_until_it_expires() -> None:
    now = time.time()
    check(presigned(3600), payload=UNSIGNED, now=now + 3500)
    assert reason(presigned(3600), payload=UNSIGNED, now=now + 3610) is Reason.EXPIRED


def test_temporary_credentials_need_their_own_token_and_their_time() -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).timestamp()
    secret = Secret(SECRET, "the-token", ends)
    check(sign("/bucket", token="the-token"), secret=secret)
    assert reason(sign("/bucket", token="another"), secret=secret) is Reason.BAD_TOKEN
    assert reason(sign("/bucket"), secret=secret) is Reason.BAD_TOKEN
    assert reason(sign("/bucket", token="x")) is Reason.BAD_TOKEN
    expired = Secret(SECRET, "the-token", time.time() - 1)
    assert reason(sign("/bucket", token="the-token"), secret=expired) is Reason.EXPIRED_TOKEN


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "garbage",
        "Basic dXNlcjpwYXNz",
        "AWS AKIA:signature",
        "AWS4-HMAC-SHA256 Credential=,SignedHeaders=,Signature=",
        "AWS4-HMAC-SHA256 Credential=AKIA/20260101/r/s/aws4_request, SignedHeaders=host, Signature=ä",
        "AWS4-HMAC-SHA256 " + "," * 10_000,
    ],
)
def test_a_garbage_authorization_is_malformed(authorization: str) -> None:
    with pytest.raises(Refused) as refused:
        read_claim("", Headers([("authorization", authorization)]))
    assert refused.value.reason is Reason.MALFORMED


def test_no_signature_at_all_is_missing() -> None:
    with pytest.raises(Refused) as refused:
        read_claim("list-type=2", Headers([]))
    assert refused.value.reason is Reason.MISSING


def test_secrets_do_not_show_in_reprs() -> None:
    request = sign("/bucket")
    assert repr(Secret("hush", "hush")) == "Secret(expires=None)"
    assert "signing_key" not in repr(check(request))
