"""Published keys are fetched seldom, in bounds, and believed for minutes."""

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from authapp.assertions import InvalidAssertion, KeysUnavailable, PublishedKeys, Verifier
from authapp.assertions.keys import (
    BELIEVED_SECONDS,
    HELD_SECONDS,
    MAX_BYTES,
    MAX_KEYS,
    PAUSE_SECONDS,
    read_key_set,
)
from authapp.crypto.assertion_keys import AssertionKeys
from tests.support.assertions import APP, ISSUER, KEYS, asserted, key_set

NEW_KEYS = AssertionKeys(["a newer secret of 32 bytes or more"])
KID = key_set()["keys"][0]["kid"]


class Site:
    """Publishes keys.

    Attributes:
        body: of each answer.
        asked: how often.
    """

    def __init__(self) -> None:
        self.url = ""
        self.body = KEYS.key_set
        self.status = 200
        self.asked = 0
        self.now = 1000.0

    def keys(self, seconds: float = 5.0) -> PublishedKeys:
        return PublishedKeys(self.url, seconds, now=lambda: self.now)


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked += 1
            self.send_response(site.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(site.body)

        def log_message(self, *_args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.url = f"http://127.0.0.1:{server.server_port}/keys"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as made:
        yield made


def test_they_are_fetched_once_and_again_after_a_while(site: Site) -> None:
    verifier = Verifier(ISSUER, APP, site.keys())
    for _ in range(3):
        verifier.verify(asserted(), "GET")
    assert site.asked == 1
    site.now += HELD_SECONDS + 1
    verifier.verify(asserted(), "GET")
    assert site.asked == 2


def test_a_key_that_is_new_is_found_at_once(site: Site) -> None:
    verifier = Verifier(ISSUER, APP, site.keys())
    verifier.verify(asserted(), "GET")
    site.now += PAUSE_SECONDS
    site.body = NEW_KEYS.key_set
    verifier.verify(asserted(keys=NEW_KEYS), "GET")
    with pytest.raises(InvalidAssertion):  # its secret was dropped
        verifier.verify(asserted(), "GET")


def test_names_that_somebody_makes_up_cause_few_fetches(site: Site) -> None:
    keys = site.keys()
    for number in range(20):
        assert keys.find(f"made up {number}") is None
    assert site.asked == 1


def test_threads_that_need_the_keys_at_once_fetch_once(site: Site) -> None:
    keys = site.keys()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(keys.find, [KID] * 8))
    assert site.asked == 1


def test_keys_that_cannot_be_fetched_again_are_believed_for_minutes(site: Site) -> None:
    keys = site.keys()
    assert keys.find(KID)
    site.status = 500
    site.now += BELIEVED_SECONDS
    assert keys.find(KID)
    site.now += 1
    with pytest.raises(KeysUnavailable, match="no keys could be fetched from http://127"):
        keys.find(KID)
    site.status = 200
    site.now += PAUSE_SECONDS
    assert keys.find(KID)


def test_what_is_no_key_set_is_not_believed(site: Site) -> None:
    keys = site.keys()
    for body in (b"", b"{}", b"[]", b'{"keys": []}', b"\xff", b" " * MAX_BYTES + KEYS.key_set):
        site.body, site.now = body, site.now + PAUSE_SECONDS
        with pytest.raises(KeysUnavailable):
            keys.find(KID)


def test_a_redirect_is_not_followed(site: Site) -> None:
    site.status = 302
    with pytest.raises(KeysUnavailable):
        site.keys().find(KID)
    assert site.asked == 1


def test_nobody_waits_longer_than_the_bound() -> None:
    """The server takes the connection and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        keys = PublishedKeys(f"http://127.0.0.1:{silent.getsockname()[1]}/", 0.1)
        with pytest.raises(KeysUnavailable):
            keys.find(KID)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://auth.example.org/", "keys.json"])
def test_only_the_web_is_asked(url: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        PublishedKeys(url)


def test_keys_for_other_things_are_left_out() -> None:
    good = key_set()["keys"][0]
    others = [
        {"kty": "RSA"},
        good | {"alg": "ES384"},
        good | {"crv": "P-384"},
        good | {"kid": 1},
        7,
    ]
    assert list(read_key_set({"keys": [*others, good]})) == [KID]
    with pytest.raises(ValueError, match="can't be read"):
        read_key_set({"keys": [good | {"x": "AA"}]})
    with pytest.raises(ValueError, match="no key for ES256"):
        read_key_set({"keys": others})
    with pytest.raises(ValueError, match="no key for ES256"):
        read_key_set({"keys": [*[{"kty": "RSA"}] * MAX_KEYS, good]})
    assert json.loads(KEYS.key_set)["keys"] == [good]
