"""Issues assertions: who a person is, signed for one guarded app, method and minute."""

import base64
import hashlib
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from authapp.accounts.assurance import level_of
from authapp.assertions.verifier import LONGEST_SECONDS
from authapp.crypto.assertion_keys import AssertionKeys
from authapp.crypto.recent import Recent
from authapp.sessions.records import SessionRecord

REUSED_SECONDS = 5.0  # a page loads much at once, and a signature costs more than a session check


class AssertionIssuer:
    """
    Args:
        issuer: PUBLIC_URL.
        now: seconds since 1970.
    """

    def __init__(
        self, keys: AssertionKeys, issuer: str, now: Callable[[], float] = time.time
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._now = now
        self._issued: Recent[object, tuple[float, str]] = Recent()

    def issue(self, record: SessionRecord, email: str, origin: str, method: str) -> str:
        """An assertion about the person of a session, to the guarded app at this origin.

        One is used again for some seconds, as long as the copy of the session and everything that
        it says of the person are the same. So a role that was taken away is not asserted later.

        Args:
            email: that the guarded app may know; empty: none.
        """
        proof = (record.amr, record.auth_time)
        what = (record.id, record.ver, record.user, proof, email, origin, method)
        now = self._now()
        issued_at, assertion = self._issued.get(what, (0.0, ""))
        if assertion and 0 <= now - issued_at < REUSED_SECONDS:
            return assertion
        assertion = self._sign(record, email, origin, method, int(now))
        return self._issued.keep(what, (now, assertion))[1]

    def _sign(self, record: SessionRecord, email: str, origin: str, method: str, now: int) -> str:
        digest = hashlib.sha256(b"authapp/asserted session/" + record.id.bytes).digest()
        return self._keys.sign(
            {
                "iss": self._issuer,
                "aud": origin,
                "sub": str(record.user.id),
                "email": email,
                "groups": list(record.user.roles),
                "sid": base64.urlsafe_b64encode(digest).decode().rstrip("="),
                "amr": list(record.amr),
                "acr": str(level_of(record.amr)),
                "auth_time": int(record.auth_time.timestamp()),
                "host": urlsplit(origin).netloc,
                "method": method,
                "iat": now,
                "exp": now + LONGEST_SECONDS,
            }
        )
