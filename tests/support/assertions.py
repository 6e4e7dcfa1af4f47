"""Assertions: a person and their session, and the keys of a deployment."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from authapp.accounts.identity import Identity
from authapp.crypto.assertion_keys import AssertionKeys
from authapp.guarding.assertions import AssertionIssuer
from authapp.sessions.records import SessionRecord

ISSUER, APP = "https://auth.example.org/auth", "https://app.example.org"
KEYS = AssertionKeys(["tests-only secret key of 32 bytes or more"])

_NOW = datetime(2030, 1, 1, tzinfo=UTC)


def key_set(keys: AssertionKeys = KEYS) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(keys.key_set)
    return found


def record(ver: int = 1, **person: Any) -> SessionRecord:
    """A session of Ada."""
    facts: dict[str, Any] = {
        "id": UUID(int=9),
        "email": "ada@example.org",
        "name": "Ada",
        "image": "",
        "roles": ("staff", "user"),
        "active": True,
        "created_at": _NOW,
        **person,
    }
    return SessionRecord(
        id=UUID(int=7),
        kind="browser",
        user=Identity(**facts),
        created_at=_NOW,
        last_seen_at=_NOW,
        idle_seconds=1800,
        expires_at=_NOW + timedelta(hours=12),
        data={},
        ver=ver,
        checked_at=_NOW,
    )


def asserted(
    method: str = "GET",
    origin: str = APP,
    *,
    keys: AssertionKeys = KEYS,
    issuer: str = ISSUER,
    now: Callable[[], float] = time.time,
) -> str:
    """An assertion about Ada, as authapp issues it."""
    return AssertionIssuer(keys, issuer, now).issue(record(), "ada@example.org", origin, method)


def claims(**others: Any) -> dict[str, Any]:
    """The claims of such an assertion, of now, with others in place of some."""
    now = int(time.time())
    return {
        "iss": ISSUER,
        "aud": APP,
        "sub": str(UUID(int=9)),
        "email": "ada@example.org",
        "groups": ["staff", "user"],
        "sid": "digest",
        "host": "app.example.org",
        "method": "GET",
        "amr": ["pwd"],
        "acr": "1",
        "auth_time": int(_NOW.timestamp()),
        "iat": now,
        "exp": now + 60,
        **others,
    }
