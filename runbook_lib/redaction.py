"""What must never be written down: secrets are masked before a record or a message is kept."""

from __future__ import annotations

import re
from typing import Any

MASK = "***MASKED***"

SECRET_NAME = re.compile(r"(?i)(secret|passwo?r?d|passwd|token|api_?key|credential|private_?key)")
NOT_SECRET = re.compile(r"(?i)^(next_?token|continuation_?token|client_?token|idempotency_?token|max_?results)$")
PATTERNS = (
    re.compile(r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----"),
    re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"),  # user:password in a connection string
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}\b"),  # JSON web token
)


def masked(value: Any) -> Any:
    """A copy of JSON-like data with secrets masked: by the name of a member, and by pattern in any text."""
    if isinstance(value, str):
        for pattern in PATTERNS:
            value = pattern.sub(MASK, value)
        return value
    if isinstance(value, dict):
        return {key: MASK if _secret(key) and isinstance(item, str) else masked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    return value


def _secret(name: object) -> bool:
    return bool(SECRET_NAME.search(str(name))) and not NOT_SECRET.match(str(name))
