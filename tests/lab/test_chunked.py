"""aws-chunked bodies: AWS's own published examples, and what must be refused."""

from __future__ import annotations

import hashlib
import hmac
import io

import pytest

from runbook_lib.lab.chunked import ChunkedBody
from runbook_lib.lab.http import Payload
from runbook_lib.lab.protocol import Refusal

# S3 API reference, "Signature calculations for the Authorization header: transferring payload in multiple chunks"
SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
DATE, SCOPE = "20130524T000000Z", "20130524/us-east-1/s3/aws4_request"
CHUNKS = (
    ("10000", "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
    ("400", "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
    ("0", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
)
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
# … and "including trailing headers (chunked)"
TRAILING_SEED = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
TRAILING_CHUNKS = (
    ("10000", "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
    ("400", "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
    ("0", "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"),
)
TRAILER = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"


def signing_key() -> bytes:
    key = b"AWS4wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    for part in (b"20130524", b"us-east-1", b"s3", b"aws4_request"):
        key = hmac.new(key, part, hashlib.sha256).digest()
    return key


def payload(declared: str, seed: str = SEED) -> Payload:
    return Payload(declared, signing_key(), seed, SCOPE, DATE)


def framed(chunks: tuple[tuple[str, str], ...], tail: bytes = b"\r\n") -> bytes:
    body = b""
    for size, signature in chunks:
        body += f"{size};chunk-signature={signature}\r\n".encode() + b"a" * int(size, 16)
        body += b"\r\n" if size != "0" else b""
    return body + tail


def read(body: bytes, declared: str = SIGNED, length: int = 66560, seed: str = SEED) -> bytes:
    reader = ChunkedBody(io.BytesIO(body), payload(declared, seed), length)
    return b"".join(iter(lambda: reader.read(10_007), b""))


def test_the_published_example_of_signed_chunks_is_accepted() -> None:
    assert read(framed(CHUNKS)) == b"a" * 66560


def test_the_published_example_of_a_signed_trailer_is_accepted() -> None:
    tail = f"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{TRAILER}\r\n\r\n".encode()
    body = io.BytesIO(framed(TRAILING_CHUNKS, tail))
    reader = ChunkedBody(body, payload(f"{SIGNED}-TRAILER", TRAILING_SEED), 66560)
    assert reader.read() == b"a" * 66560
    assert reader.trailers == {"x-amz-checksum-crc32c": "sOO8/Q=="}


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_chunk_with_another_signature_is_refused(chunk: int) -> None:
    forged = list(CHUNKS)
    forged[chunk] = (forged[chunk][0], "0" * 64)
    with pytest.raises(Refusal) as refused:
        read(framed(tuple(forged)))
    assert (refused.value.code, refused.value.status) == ("SignatureDoesNotMatch", 403)


def test_a_changed_byte_in_a_signed_chunk_is_refused() -> None:
    with pytest.raises(Refusal, match="signature"):
        read(framed(CHUNKS).replace(b"\r\naaa", b"\r\naba", 1))


def test_a_changed_trailer_is_refused() -> None:
    tail = f"x-amz-checksum-crc32c:AAAAAA==\r\nx-amz-trailer-signature:{TRAILER}\r\n\r\n".encode()
    with pytest.raises(Refusal, match="signature"):
        read(framed(TRAILING_CHUNKS, tail), f"{SIGNED}-TRAILER", seed=TRAILING_SEED)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"3\r\nabcxx0\r\n\r\n", b"zz\r\n",
        b"-1\r\n", b"0_3\r\nabc\r\n0\r\n\r\n", b"2\r\nab\r\n0\r\n\r\n", b"4\r\nabcd\r\n0\r\n\r\n", b"f" * 5000,
        b"\r\n\r\n", b"+3\r\nabc\r\n0\r\n\r\n",
    ],
)  # fmt: skip
def test_broken_framing_and_wrong_lengths_are_refused(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        read(body, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", length=3)
    assert refused.value.code == "IncompleteBody"


def test_many_chunks_in_odd_sizes_come_out_as_they_went_in() -> None:
    data = bytes(range(256)) * 40
    body, at = b"", 0
    for size in [1, 7, 4096, 100, 6036]:
        body += f"{size:x}\r\n".encode() + data[at : at + size] + b"\r\n"
        at += size
    assert read(body + b"0\r\nx-amz-checksum-crc32:x\r\n\r\n", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", at) == data
