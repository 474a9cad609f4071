"""The signed statement, judged by the specifications alone: DSSE 1.0 and in-toto Statement v1, with nothing of ours."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from runbook_lib.evidence import signoff
from runbook_lib.evidence.seal import seal
from tests.records import synthetic

TYPE_URI = re.compile(r"[a-z][a-z0-9+.-]*:\S+")  # RFC 3986: a scheme, and what it names


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sealed run that somebody has signed too."""
    monkeypatch.setenv("RUNBOOK_KEY", str(tmp_path / "signing-key.pem"))
    path = seal(synthetic(tmp_path))
    signoff.sign(path, "acceptance", "Seen.")
    return path


def pae(kind: str, body: bytes) -> bytes:
    """DSSE's Pre-Authentication Encoding: what is signed is the type too, and lengths are decimal bytes."""
    return b" ".join([b"DSSEv1", b"%d" % len(kind.encode()), kind.encode(), b"%d" % len(body), body])


def test_our_reading_of_the_specification_is_the_one_of_its_own_example() -> None:
    example = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"  # protocol.md, Test Vectors
    assert pae("http://example.com/HelloWorld", b"hello world") == example


def judged(envelope: Path) -> dict[str, Any]:
    """The statement in an envelope whose signature the key in it made."""
    found = json.loads(envelope.read_text(encoding="utf-8"))
    assert found["payloadType"] == "application/vnd.in-toto+json"
    payload = base64.b64decode(found["payload"], validate=True)
    statement: dict[str, Any] = json.loads(payload)
    (signature,) = found["signatures"]
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(statement["predicate"]["signer"]["public_key"]))
    sig = base64.b64decode(signature["sig"], validate=True)
    key.verify(sig, pae(found["payloadType"], payload))
    for other in (payload, pae("text/plain", payload), pae(found["payloadType"], payload + b" ")):
        with pytest.raises(InvalidSignature):
            key.verify(sig, other)
    return statement


def test_the_envelopes_are_dsse_and_hold_in_toto_statements(sealed: Path) -> None:
    envelopes = [sealed / "run.dsse.json", *(sealed / "signatures").iterdir()]
    for envelope in envelopes:
        statement = judged(envelope)
        assert statement.keys() == {"_type", "subject", "predicateType", "predicate"}
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
        assert TYPE_URI.fullmatch(statement["predicateType"]) and statement["predicateType"].endswith(":v1")
        names = [subject["name"] for subject in statement["subject"]]
        assert names and len(set(names)) == len(names)
        for subject in statement["subject"]:
            assert subject["digest"] == {"sha256": hashlib.sha256((sealed / subject["name"]).read_bytes()).hexdigest()}
    assert len(envelopes) == 2


def test_every_file_is_a_subject_but_the_statement_and_what_signs_it(sealed: Path) -> None:
    names = {subject["name"] for subject in judged(sealed / "run.dsse.json")["subject"]}
    files = {path.relative_to(sealed).as_posix() for path in sealed.rglob("*") if path.is_file()}
    late = {name for name in files if name.startswith("signatures/run.")}
    assert files - names == {"run.json", "run.dsse.json", *late}
    assert names <= files and late
