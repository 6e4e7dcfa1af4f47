"""The public keys that authapp publishes, held for a while. A fetch is bounded in size and time."""

import json
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from ssl import SSLContext
from threading import Lock
from typing import Any
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from jwt import PyJWK
from jwt.exceptions import PyJWTError

ALGORITHM = "ES256"  # RFC 7518, 3.4; no other is believed
WELL_KNOWN = "/.well-known/jwks.json"

HELD_SECONDS = 300.0  # after which the keys are fetched again
BELIEVED_SECONDS = 600.0  # after which keys that can't be fetched again count for nothing
PAUSE_SECONDS = 10.0  # between two fetches, whatever the headers of requests name
MAX_BYTES = 64 * 1024
MAX_KEYS = 32

Keys = dict[str, Any]  # by `kid`


class KeysUnavailable(Exception):
    """The keys could not be fetched, so nobody can say whether an assertion is genuine."""


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_args: Any) -> None:  # then the answer is an error
        return None


class PublishedKeys:
    """The keys at one address. Threads share them; one thread at a time fetches.

    Args:
        url: of the key set. Over plain http it must cross no network that others can reach.
        seconds: the longest that a fetch may take.
        context: for a certificate of an authority of your own.
        now: a clock in seconds that never goes back.
    """

    def __init__(
        self,
        url: str,
        seconds: float = 5.0,
        context: SSLContext | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        if not url.startswith(("https://", "http://")):
            raise ValueError("name the key set by https://… or http://…")
        self._url = url
        self._seconds = seconds
        self._open = build_opener(_NoRedirect, HTTPSHandler(context=context)).open
        self._now = now
        self._keys: Keys = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._lock = Lock()

    def find(self, kid: str) -> Any | None:
        """The key of this name; None: authapp publishes no such key.

        Raises:
            KeysUnavailable: it has none, and could not ask.
        """
        now = self._now()
        if now - self._fetched_at > HELD_SECONDS or kid not in self._keys:
            self._refresh(now)
        if self._now() - self._fetched_at > BELIEVED_SECONDS:
            raise KeysUnavailable(f"no keys could be fetched from {self._url}")
        return self._keys.get(kid)

    def _refresh(self, asked_at: float) -> None:
        """Fetches, unless another thread has just done so, or tried."""
        with self._lock:
            if self._tried_at >= asked_at or self._now() - self._tried_at < PAUSE_SECONDS:
                return
            try:
                self._keys = read_key_set(self._fetch())
                self._fetched_at = self._now()
            except (OSError, HTTPException, ValueError):
                return  # those that are held are believed for a while
            finally:
                self._tried_at = self._now()

    def _fetch(self) -> Any:
        deadline = time.monotonic() + self._seconds
        request = Request(self._url, headers={"Accept": "application/json"})  # noqa: S310 — checked
        found = b""
        with self._open(request, timeout=self._seconds) as response:
            while part := response.read1(MAX_BYTES):
                found += part
                if len(found) > MAX_BYTES or time.monotonic() > deadline:
                    raise ValueError("the key set is too long, or comes too slowly")
        return json.loads(found)


class GivenKeys:
    """Keys that were given, and are not fetched."""

    def __init__(self, key_set: Mapping[str, Any]) -> None:
        self._keys = read_key_set(key_set)

    def find(self, kid: str) -> Any | None:
        return self._keys.get(kid)


def read_key_set(key_set: Any) -> Keys:
    """The keys of a JWK Set (RFC 7517, 5) that can verify an assertion.

    Raises:
        ValueError: `key_set` is no JWK Set, or it holds no such key.
    """
    listed = key_set.get("keys") if isinstance(key_set, Mapping) else None
    found: Keys = {}
    for key in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(key, dict) or (key.get("kty"), key.get("crv")) != ("EC", "P-256"):
            continue  # RFC 7517, 5: of another kind, for another use
        if key.get("alg", ALGORITHM) != ALGORITHM or not isinstance(key.get("kid"), str):
            continue
        try:
            found[key["kid"]] = PyJWK(key, algorithm=ALGORITHM).key
        except PyJWTError as error:
            raise ValueError(f"the key {key['kid'][:50]!r} can't be read") from error
    if not found:
        raise ValueError("the key set holds no key for ES256")
    return found
