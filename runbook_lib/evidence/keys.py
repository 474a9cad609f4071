"""Who vouches for a record? One Ed25519 key a person and machine, and DSSE envelopes that are signed with it.

The key is made when it is first needed, outside the repository. Whoever holds it can sign: what that proves and what
not is in the README, "What a seal proves".
"""

from __future__ import annotations

import binascii
import hashlib
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import EvidenceError
from .files import as_json

PAYLOAD_TYPE = "application/vnd.in-toto+json"
DER = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: what stands before the 32 bytes of an Ed25519 public key


@dataclass(frozen=True)
class Signed:
    """What an envelope holds, once its signature is known to be right."""

    payload: bytes
    fingerprint: str  # of the key that signed, as the payload itself names it


def key_file() -> Path:
    """Where the private key is: RUNBOOK_KEY, else below XDG_CONFIG_HOME or ~/.config."""
    named = os.environ.get("RUNBOOK_KEY")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "migration-runbook" / "signing-key.pem"


def own_key() -> Any:
    """The signer of whoever runs this; makes the key on first use. `EvidenceError` when others can read it."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner, SSlibKey

    path = key_file()
    if not path.exists():
        _make(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise EvidenceError(f"the signing key {path} can be read by others: `chmod 600` it, or remove it for a new one")
    try:
        private: Any = load_pem_private_key(path.read_bytes(), None)
        public = SSlibKey.from_crypto(private.public_key())
        public.keyid = fingerprint(public.keyval["public"])
        return CryptoSigner(private, public)
    except (OSError, ValueError, TypeError) as error:
        raise EvidenceError(f"the signing key {path} cannot be used: {error}") from error


def _make(path: Path) -> None:
    """A new key; of two processes that make one at once, the first wins."""
    from securesystemslib.signer import CryptoSigner

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(CryptoSigner.generate_ed25519().private_bytes)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(new, path)
        except FileExistsError:
            return
    finally:
        new.unlink()


def fingerprint(public: str) -> str:
    """SHA-256 of a public key in DER, as `openssl pkey -in KEYFILE -pubout -outform DER | sha256sum` says it."""
    return hashlib.sha256(DER + bytes.fromhex(public)).hexdigest()


def about(signer: Any) -> dict[str, str]:
    """What a payload says of the key that signs it: the public key (32 bytes in hexadecimal) and its fingerprint."""
    return {"fingerprint": signer.public_key.keyid, "public_key": signer.public_key.keyval["public"]}


def envelope(payload: bytes, signer: Any) -> bytes:
    """A DSSE envelope with one signature."""
    from securesystemslib.dsse import Envelope

    made = Envelope(payload, PAYLOAD_TYPE, {})
    made.sign(signer)
    return as_json(made.to_dict())


def opened(data: bytes) -> Signed:
    """The payload of an envelope that is signed by the key its payload names; `EvidenceError` when it is not.

    The bytes must be the ones we write, with that one signature: anything else has been edited.
    """
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import VerificationError
    from securesystemslib.signer import Signature, SSlibKey

    try:
        found = Envelope.from_dict(json.loads(data))
        signer = json.loads(found.payload)["predicate"]["signer"]
        keyid = fingerprint(signer["public_key"])
        key = SSlibKey(keyid, "ed25519", "ed25519", {"public": signer["public_key"]})
        ours = Envelope(found.payload, PAYLOAD_TYPE, {keyid: Signature(keyid, found.signatures[keyid].signature)})
        if as_json(ours.to_dict()) != data or signer["fingerprint"] != keyid:
            raise EvidenceError("the envelope was edited")
        ours.verify([key], 1)
    except VerificationError as error:
        raise EvidenceError("the signature does not fit what is signed") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, binascii.Error) as error:
        raise EvidenceError(f"this is not an envelope of ours: {type(error).__name__}") from error
    return Signed(found.payload, keyid)
