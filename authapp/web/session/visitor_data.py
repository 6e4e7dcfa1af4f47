"""VISITOR-DATA: the sealed cookie that holds `flask.session` of a visitor who is not logged in."""

import base64
import binascii
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from authapp.crypto.sealing import Sealer
from authapp.errors import UnsavableSession
from authapp.web.cookies.header import read_cookies, visitor_cookie_name
from authapp.web.session.data import SessionSerializer

MAX_BYTES = 3_000  # of the cookie's value; proxies and servers bound the headers of a request
MAX_SECONDS = 12 * 3_600  # since it was sealed
MAX_VALUES = 4  # different ones in a request: each costs a decryption

_TIME_BYTES = 8


class VisitorDataTooLarge(UnsavableSession):
    """The data of a visitor does not fit into the cookie; nothing of it was saved."""


class VisitorData:
    """Seals the data of visitors into their cookie, and opens it.

    The visitor can neither read nor change the data. They can send an older cookie again, until it
    is too old, as with Flask's own session.

    Args:
        secrets: first seals, all open; the order of SECRET_KEY.
        session_cookie: the name of the session's cookie, whose prefix this one takes.
        max_seconds: how old a cookie may be, at most MAX_SECONDS.
    """

    def __init__(
        self,
        secrets: Sequence[str],
        session_cookie: str,
        max_seconds: float = MAX_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = visitor_cookie_name(session_cookie)
        self.max_seconds = int(min(max_seconds, MAX_SECONDS))
        self.serializer = SessionSerializer()
        self._sealer = Sealer(secrets, "visitor data")
        self._clock = clock

    def read(self, header: str) -> dict[str, Any]:
        """The data in the visitor's cookie; empty where there is none that counts.

        Two cookies of ours count as none: another host of the domain may have planted one, and
        nobody can tell which.

        Args:
            header: the Cookie header as received.
        """
        values = read_cookies(header, self.name)
        if len(values) > MAX_VALUES:
            return {}
        opened = [found for value in values if (found := self._open(value)) is not None]
        return self.serializer.decode(opened[0]) if len(opened) == 1 else {}

    def write(self, data: Mapping[str, Any]) -> str:
        """The value of the cookie that `read` reads.

        Raises:
            UnsavableSession: a value can't be kept.
            VisitorDataTooLarge
        """
        text = json.dumps(self.serializer.encode(data), separators=(",", ":"), ensure_ascii=False)
        sealed_at = int(self._clock()).to_bytes(_TIME_BYTES)
        sealed = self._sealer.seal(self.name, sealed_at + text.encode())
        value = base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
        if len(value) > MAX_BYTES:
            raise VisitorDataTooLarge(
                f"flask.session of a visitor takes {len(value)} bytes as a cookie, and {MAX_BYTES} "
                f"fit ({_sizes(data)}): store less before log-in, or an id in place of the thing. "
                "People who are signed in may store more."
            )
        return value

    def _open(self, value: str) -> dict[str, Any] | None:
        """The data, or None unless we sealed it for this cookie, and lately."""
        if not value or len(value) > MAX_BYTES:
            return None
        try:
            sealed = base64.b64decode(value + "=" * (-len(value) % 4), altchars="-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        opened = self._sealer.open(self.name, sealed)
        if opened is None:
            return None
        sealed_at, text = int.from_bytes(opened[:_TIME_BYTES]), opened[_TIME_BYTES:]
        # sealed in the future, by a clock that was set back, it is not new until that time comes
        if abs(self._clock() - sealed_at) > self.max_seconds:
            return None
        found: dict[str, Any] = json.loads(text)
        return found


def _sizes(data: Mapping[str, Any]) -> str:
    sizes = {key: len(str(value)) for key, value in data.items()}
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
    return "the largest keys: " + ", ".join(repr(key[:50]) for key in largest)
