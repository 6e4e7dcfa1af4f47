"""`/metrics`: valid, bounded, without secrets, and true of what happened."""

from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from authapp import extension
from authapp.assembly.capacity import REQUEST_THREADS, logins_at_once
from authapp.cache.keys import session_key
from authapp.errors import StoreUnavailable
from authapp.services import build_services
from tests.support.clock import Clock
from tests.support.waiting import wait_until
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    PASSWORD,
    Stores,
    browser,
    log_in,
    lose_fences,
    program,
    services_of,
    sign_up,
    token_of,
)

LOGINS_AT_ONCE = logins_at_once(REQUEST_THREADS)  # in a worker without more threads

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def exposed(client: FlaskClient) -> str:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.mimetype == "text/plain"
    return answer.get_data(as_text=True)


def series(client: FlaskClient) -> Series:
    """Every sample of ours, by name and labels."""
    found: Series = {}
    for family in text_string_to_metric_families(exposed(client)):
        for sample in family.samples:
            if sample.name.startswith("authapp_") and not sample.name.endswith("_created"):
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in found, "twice"
                found[key] = sample.value
    return found


def value(client: FlaskClient, name: str, **labels: str) -> float:
    return series(client).get((name, tuple(sorted(labels.items()))), 0.0)


class Growth:
    """The growth of a counter since the last call."""

    def __init__(self, client: FlaskClient, name: str) -> None:
        self._client, self._name = client, name
        self._before = series(client)

    def __call__(self) -> dict[tuple[str, ...], float]:
        """By the values of its labels; what did not grow is left out."""
        now = series(self._client)
        return {
            tuple(v for _, v in labels): value - self._before.get((name, labels), 0)
            for (name, labels), value in now.items()
            if name == self._name and value != self._before.get((name, labels), 0)
        }


@pytest.fixture
def scraper(app: Flask) -> FlaskClient:
    return program(app)


# -- what it is ------------------------------------------------------------------------------------


def test_it_is_what_prometheus_reads(scraper: FlaskClient, person: str) -> None:
    text = exposed(scraper)
    families = {found.name: found for found in text_string_to_metric_families(text)}
    assert text.endswith("\n")
    for name, found in families.items():
        if not name.startswith("authapp_"):
            continue
        assert found.documentation, name
        assert found.type in {"counter", "gauge", "histogram"}, name
        for sample in found.samples:
            if found.type == "counter":
                assert sample.name.endswith(("_total", "_created")), "as promtool asks"
    assert families["authapp_requests"].type == "counter"
    assert families["authapp_request_seconds"].type == "histogram"


def test_requests_are_counted_and_timed_by_route(scraper: FlaskClient, person: str) -> None:
    counted = Growth(scraper, "authapp_requests_total")
    timed = Growth(scraper, "authapp_request_seconds_count")
    scraper.get("/healthz")
    scraper.get("/api/v1/me")
    scraper.get(f"/api/v1/users/{person}")
    assert counted() == {
        ("GET", "/healthz", "200"): 1,
        ("GET", "/metrics", "200"): 2,  # of `Growth`, which are counted after they answered
        ("GET", "/api/v1/me", "401"): 1,
        ("GET", "/api/v1/users/<uuid:user_id>", "401"): 1,
    }
    assert timed()[("/healthz",)] == 1


def test_a_crawler_adds_no_series(scraper: FlaskClient) -> None:
    visit(scraper, "first")
    series(scraper)  # a request too
    before = set(series(scraper))
    for number in range(20):
        visit(scraper, f"x{number}")
    assert set(series(scraper)) == before


def visit(client: FlaskClient, name: str) -> None:
    """As a crawler does; each name is new."""
    for path in (
        f"/{name}",
        f"/static/authapp/{name}.css",
        f"/api/v1/{name}",
        f"/login/{name}?q={name}",
    ):
        for method in ("GET", "POST", "PUT", "OPTIONS", name.upper()):
            client.open(path, method=method)
    client.open("/login", method=name.upper())
    client.open("/static/authapp/authapp.css", method=name.upper())
    client.get("/healthz", headers={"Host": f"{name}.example.org", "User-Agent": name})
    client.get(f"/api/v1/users/{name}", headers={"X-Request-ID": name})


def test_it_holds_nothing_of_anybody(
    app: Flask, signed_in: FlaskClient, scraper: FlaskClient, stores: Stores, person: str
) -> None:
    token = token_of(signed_in)
    signed_in.get("/account")
    signed_in.get(f"/api/v1/users/{person}")
    (session_id,) = [
        str(s["id"]) for s in signed_in.get("/api/v1/me/sessions").get_json()["sessions"]
    ]
    signed_in.delete(f"/api/v1/me/sessions/{session_id}")
    log_in(browser(app), password="a wrong password of mine")
    log_in(browser(app), email="nobody.known@example.org")
    scraper.get("/api/v1/me", headers={"Authorization": "Bearer somebodys.own.token"})
    text = exposed(scraper).lower()
    digests = [bytes(d).hex() for (d,) in stores.sql("SELECT digest FROM sessions")]
    secrets = [token, EMAIL, PASSWORD, "a wrong password", "nobody.known", "somebodys.own"]
    people = [person, session_id, "lovelace", "example.org", "127.0.0.1", "k" * 32, "p" * 32]
    for hidden in (*secrets, *people, *digests):
        assert hidden.lower() not in text, hidden


# -- what is counted -------------------------------------------------------------------------------


def test_log_ins_by_outcome(app: Flask, scraper: FlaskClient, person: str) -> None:
    services = services_of(app)
    logins = Growth(scraper, "authapp_logins_total")
    log_in(browser(app))
    log_in(browser(app), password="wrong")
    log_in(browser(app), email="nobody@example.org")
    log_in(browser(app), email="no email")
    with ExitStack() as taken:
        for _ in range(LOGINS_AT_ONCE):
            taken.enter_context(services.authentication._passwords.queue.place())
        assert value(scraper, "authapp_hashing_occupied") == LOGINS_AT_ONCE
        log_in(browser(app))
    assert value(scraper, "authapp_hashing_occupied") == 0
    assert logins() == {("succeeded",): 1, ("refused",): 3, ("busy",): 1}
    for _ in range(20):
        log_in(browser(app), password="wrong")
    assert logins()[("limited",)] >= 5


class Away:
    """Postgres is asked by nobody while the block lasts."""

    def __init__(self, app: Flask) -> None:
        self._database = services_of(app).database

    def __enter__(self) -> None:
        self._recover = self._database.breaker.recover
        self._database.breaker.recover = self._fail
        self._database.breaker.open()

    def __exit__(self, *_exc: object) -> None:
        self._database.breaker.recover = self._recover
        await_closed(self._database.breaker)

    def _fail(self) -> None:
        raise StoreUnavailable("postgres")


def await_closed(breaker: Any) -> None:
    wait_until(lambda: not breaker.is_open)


def test_an_outage_of_postgres_is_seen_and_its_end(
    app: Flask, scraper: FlaskClient, person: str
) -> None:
    log_in(browser(app))  # now there is a copy of the credentials
    logins = Growth(scraper, "authapp_logins_total")
    assert value(scraper, "authapp_breaker_open", store="postgres") == 0
    with Away(app):
        assert value(scraper, "authapp_breaker_open", store="postgres") == 1
        assert log_in(browser(app)).status_code == 303
        assert log_in(browser(app), email="nobody@example.org").status_code == 503
    wait_for_zero(scraper)
    assert logins() == {("provisional",): 1, ("unavailable",): 1}


def wait_for_zero(scraper: FlaskClient) -> None:
    wait_until(lambda: value(scraper, "authapp_breaker_open", store="postgres") == 0)


def test_a_session_answered_from_an_old_copy(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(extension, "build_services", partial(build_services, clock=clock))
    app = make_app(REVALIDATE_SECONDS=60)
    sign_up(app)
    client = browser(app)
    log_in(client)
    assert client.get("/account").status_code == 200
    stale = Growth(program(app), "authapp_stale_copies_total")
    with Away(app):
        assert client.get("/account").status_code == 200
        assert stale() == {}, "while it is fresh it is not counted"
        clock.forward(61)
        assert client.get("/account").status_code == 200
        assert stale() == {(): 1}


def test_copies_and_fills(
    app: Flask, signed_in: FlaskClient, scraper: FlaskClient, stores: Stores
) -> None:
    copies = Growth(scraper, "authapp_copies_total")
    fills = Growth(scraper, "authapp_fills_total")
    signed_in.get("/account")
    assert copies() == {("sess", "miss"): 1}
    assert fills() == {("sess", "filled"): 1}
    signed_in.get("/account")
    assert copies() == {("sess", "miss"): 1, ("sess", "hit"): 1}
    ((digest,),) = stores.sql("SELECT digest FROM sessions")
    key = session_key(bytes(digest))
    stores.redis.hset(key, "v", "planted")
    signed_in.get("/account")
    cache = services_of(app).cache
    lease = cache.acquire(key, renew=True).lease
    assert lease is not None
    assert copies() == {("sess", "miss"): 1, ("sess", "hit"): 1, ("sess", "unreadable"): 1}
    cache.fence({key: 99})
    cache.fill(key, lease, 100, b"{}", 5)
    assert fills()[("sess", "lease")] == 1


def test_pending_fences_and_store_errors(
    app: Flask, signed_in: FlaskClient, scraper: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = services_of(app)
    with monkeypatch.context() as patch:
        lose_fences(app, patch)
        patch.setattr(services.cache.breaker, "_pause", lambda _seconds: None)
        patch.setattr(services.changes, "replay", fail)
        signed_in.post("/account", data={"name": "Countess"})
        assert value(scraper, "authapp_pending_fences") >= 1
        assert value(scraper, "authapp_breaker_open", store="redis") == 1
    await_closed(services.cache.breaker)
    assert value(scraper, "authapp_pending_fences") == 0
    errors = Growth(scraper, "authapp_store_errors_total")
    with suppress(StoreUnavailable), services.database.transaction() as db:
        db.connection().exec_driver_sql("SET LOCAL statement_timeout = 1")
        db.connection().exec_driver_sql("SELECT pg_sleep(1)")
    assert errors()["postgres",] >= 1
    errors = Growth(scraper, "authapp_store_errors_total")
    services.redis.set("user:of-the-test", "no hash")
    with pytest.raises(StoreUnavailable):
        services.cache.acquire("user:of-the-test")
    assert errors()["redis",] >= 1  # a store that is late by itself adds to it


def fail() -> int:
    raise StoreUnavailable("redis")


def test_while_postgres_is_away_what_was_seen_last_stays(
    app: Flask, scraper: FlaskClient, stores: Stores
) -> None:
    stores.sql("DELETE FROM pending_fences")
    stores.sql("INSERT INTO pending_fences (key, ver) VALUES ('sess:of-the-test', 1)")
    assert value(scraper, "authapp_pending_fences") == 1
    stores.sql("DELETE FROM pending_fences")
    with Away(app):
        assert value(scraper, "authapp_pending_fences") == 1
    assert value(scraper, "authapp_pending_fences") == 0
