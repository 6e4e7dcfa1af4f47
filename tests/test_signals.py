"""Signals: each act is told once, after its commit, whichever way it came about."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from blinker import NamedSignal
from flask import Flask
from flask.testing import FlaskClient

from authapp import Auth, create_app, current_user, signals
from authapp.accounts import audit
from authapp.accounts.actor import OPERATOR, Actor
from authapp.config import Config
from authapp.errors import LastAdmin, StoreUnavailable
from authapp.services import utc_now
from tests.support.people import EMAIL, OTHER_PASSWORD, PASSWORD
from tests.support.services import sql
from tests.web.support import browser, log_in, program, services_of

ADDRESS = "127.0.0.1"
ROOT = "root@example.org"
auth = Auth()


@pytest.fixture
def app(config: Config) -> Iterator[Flask]:
    app = create_app(config)
    yield app
    services_of(app).close()


Told = list[tuple[str, dict[str, Any]]]
SIGNALS = [s for s in vars(signals).values() if isinstance(s, NamedSignal)]


@pytest.fixture
def told(app: Flask) -> Iterator[Told]:
    """The signals that were sent, in order."""
    told: Told = []
    receivers: list[tuple[NamedSignal, Callable[..., None]]] = []
    for one in SIGNALS:

        def receive(sender: Flask, /, *, _name: str = one.name, **facts: Any) -> None:
            assert sender is app
            told.append((_name.removeprefix("authapp."), facts))

        one.connect(receive, app)
        receivers.append((one, receive))
    yield told
    for one, receive in receivers:
        one.disconnect(receive, app)


def names(told: Told) -> list[str]:
    return [name for name, _ in told]


def only(told: Told, name: str) -> dict[str, Any]:
    """The arguments of the one signal with this name."""
    (found,) = [facts for told_name, facts in told if told_name == name]
    return found


@pytest.fixture
def person(app: Flask) -> Any:
    with app.app_context():
        return auth.users.create(EMAIL, PASSWORD)


@pytest.fixture
def root(app: Flask) -> Any:
    with app.app_context():
        return auth.users.create(ROOT, PASSWORD, roles=["admin", "user"])


def signed_in(app: Flask, email: str = EMAIL) -> FlaskClient:
    client = browser(app)
    assert log_in(client, email, PASSWORD).status_code == 303
    return client


# -- each act, each way ----------------------------------------------------------------------------

Way = Callable[[Flask, Any], object]


def command(*arguments: str) -> Way:
    def run(app: Flask, _user: Any) -> None:
        stdin = OTHER_PASSWORD if "--password-stdin" in arguments else None
        done = app.test_cli_runner().invoke(args=("auth", *arguments), input=stdin)
        assert done.exit_code == 0, done.output

    return run


def by_page(act: str, **form: Any) -> Way:
    return lambda app, user: signed_in(app, ROOT).post(f"/admin/users/{user.id}/{act}", data=form)


def by_call(method: str, path: str = "", **body: Any) -> Way:
    return lambda app, user: signed_in(app, ROOT).open(
        f"/api/v1/users/{user.id}{path}", method=method, json=body or None
    )


def by_code(act: Callable[[Any], object]) -> Way:
    def run(app: Flask, user: Any) -> None:
        with app.app_context():
            act(user.id)

    return run


# the signal, and the ways that lead to it; the first two are acts of ROOT
ADMINISTRATION: dict[str, tuple[str, list[Way]]] = {
    "deactivated": (
        "user_deactivated",
        [
            by_page("deactivate"),
            by_call("PATCH", active=False),
            command("users", "deactivate", EMAIL),
            by_code(auth.users.deactivate),
        ],
    ),
    "roles": (
        "roles_changed",
        [
            by_page("roles", roles=["admin"]),
            by_call("PUT", "/roles", roles=["admin"]),
            command("users", "grant", EMAIL, "admin"),
            command("users", "revoke", EMAIL, "user"),
            by_code(lambda user: auth.users.set_roles(user, ["admin"])),
        ],
    ),
    "sessions ended": (
        "session_ended",
        [
            by_page("end-sessions"),
            by_call("DELETE", "/sessions"),
            command("sessions", "revoke", EMAIL),
            by_code(auth.sessions.end_all),
        ],
    ),
}
CASES = [
    pytest.param(name, way, number < 2, id=f"{what} {number}")
    for what, (name, ways) in ADMINISTRATION.items()
    for number, way in enumerate(ways)
]


@pytest.mark.parametrize(("name", "way", "by_root"), CASES)
def test_every_way_tells_the_same(
    app: Flask, person: Any, root: Any, told: Told, name: str, way: Way, by_root: bool
) -> None:
    signed_in(app)
    told.clear()
    way(app, person)
    facts = only(told, name)
    assert facts["user_id"] == person.id
    if name == "session_ended":
        assert facts["reason"] == "revoked_by_admin"
        return
    assert facts["actor_id"] == (root.id if by_root else None)
    assert facts["address"] == (ADDRESS if by_root else "")


def test_sign_up_log_in_and_log_out_are_told(app: Flask, told: Told) -> None:
    client = browser(app)
    client.post("/signup", data={"email": EMAIL, "password": PASSWORD})
    user_id = only(told, "user_signed_up")["user_id"]
    assert only(told, "user_logged_in")["method"] == "sign-up"
    client.post("/logout")
    told.clear()
    log_in(client, EMAIL, PASSWORD)
    assert told == [
        (
            "user_logged_in",
            {"user_id": user_id, "address": ADDRESS, "kind": "browser", "method": "password"},
        )
    ]
    told.clear()
    client.post("/logout")
    assert names(told) == ["session_ended", "user_logged_out"]
    assert only(told, "session_ended")["reason"] == "logout"
    assert only(told, "user_logged_out") == {"user_id": user_id, "address": ADDRESS}


def test_a_program_is_told_apart(app: Flask, person: Any, told: Told) -> None:
    body = {"email": EMAIL, "password": PASSWORD}
    assert program(app).post("/api/v1/tokens", json=body).status_code == 200
    assert only(told, "user_logged_in")["kind"] == "api"
    with app.test_request_context():
        auth.log_in(person)
        assert names(told) == ["user_logged_in"], "at the end of the request"
    assert [facts["method"] for _, facts in told] == ["password", "application"]


@pytest.mark.parametrize("email", [EMAIL, "nobody@example.org"])
def test_a_failed_log_in_is_told_alike_for_every_email(
    app: Flask, person: Any, told: Told, email: str
) -> None:
    told.clear()
    assert log_in(browser(app), email, OTHER_PASSWORD).status_code == 401
    assert told == [("login_failed", {"email": email, "address": ADDRESS})]


def test_attempts_that_a_limit_stops_are_not_told(app: Flask, person: Any, told: Told) -> None:
    told.clear()
    for _ in range(15):
        log_in(browser(app), EMAIL, OTHER_PASSWORD)
    assert set(names(told)) == {"login_failed"}
    assert len(told) == 10


def test_a_new_password_is_told_with_the_sessions_that_end(
    app: Flask, person: Any, told: Told
) -> None:
    signed_in(app)
    client = signed_in(app)
    told.clear()
    form = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    assert client.post("/account/password", data=form).status_code == 303
    assert only(told, "password_changed")["user_id"] == person.id
    ended = [facts["reason"] for name, facts in told if name == "session_ended"]
    assert ended == ["password_changed"] * 2
    told.clear()
    command("users", "set-password", EMAIL, "--password-stdin")(app, person)
    assert only(told, "password_changed")["actor_id"] is None


def test_a_deletion_names_the_person(app: Flask, person: Any, told: Told) -> None:
    with app.app_context():
        auth.users.delete(person.id)
    assert only(told, "user_deleted") == {"user_id": person.id, "actor_id": None, "address": ""}


def test_the_end_of_everybodys_sessions_is_told_once(app: Flask, person: Any, told: Told) -> None:
    with app.app_context():
        auth.sessions.end_all_of_everybody()
        assert auth.sessions.of_user(person.id) == []
    assert told == [("everybody_signed_out", {"user_id": None, "actor_id": None, "address": ""})]


def test_sessions_that_end_by_themselves_are_told(
    config: Config, person: Any, app: Flask, told: Told
) -> None:
    """By the cap, and by maintenance, which may run outside a request and an app context."""
    services = services_of(app)
    for _ in range(config.SESSION_MAX_PER_USER + 1):
        services.sessions.begin(person.id, 1, Actor())
    assert only(told, "session_ended")["reason"] == "evicted_by_cap"
    told.clear()
    sql(
        services,
        "UPDATE sessions SET expires_at = now() - interval '1 hour' WHERE ended_at IS NULL",
    )
    assert list(services.maintenance.run())
    assert [facts["reason"] for _, facts in told] == (["absolute"] * config.SESSION_MAX_PER_USER)
    assert set(names(told)) == {"session_ended"}


# -- when, and what a receiver may do --------------------------------------------------------------


def test_it_is_told_after_the_commit(app: Flask, root: Any) -> None:
    seen = []

    @signals.user_signed_up.connect_via(app)
    def receive(_app: Flask, /, user_id: Any, **_facts: Any) -> None:
        seen.append(auth.users.get(user_id))  # reads the facts by another connection

    client = browser(app)
    client.post("/api/v1/signup", json={"email": EMAIL, "password": PASSWORD})
    with app.app_context():
        auth.users.create("bob@example.org")
    assert [user and user.email for user in seen] == [EMAIL, "bob@example.org"]


def test_a_change_that_is_rolled_back_is_not_told(app: Flask, root: Any, told: Told) -> None:
    def fail() -> None:
        with services_of(app).changes.begin() as change:
            audit.record(change.db, "user.activated", utc_now(), user_id=root.id, actor=OPERATOR)
            change.db.flush()
            raise ZeroDivisionError

    with app.app_context(), pytest.raises(ZeroDivisionError):
        fail()
    assert told == []


def test_what_is_not_done_is_not_told(
    app: Flask, root: Any, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.app_context():
        with pytest.raises(LastAdmin):
            auth.users.deactivate(root.id)
        with pytest.raises(LastAdmin):
            auth.users.delete(root.id)

        def nobody_there() -> None:
            raise StoreUnavailable("postgres")

        breaker = services_of(app).database.breaker
        monkeypatch.setattr(breaker, "recover", nobody_there)
        breaker.open()
        with pytest.raises(StoreUnavailable):
            auth.users.create(EMAIL)
        breaker.retire()
    assert told == []


def test_at_the_end_of_a_request_the_person_is_known(app: Flask, person: Any) -> None:
    seen = []

    @signals.user_logged_in.connect_via(app)
    def receive(_app: Flask, /, **_facts: Any) -> None:
        seen.append(current_user.email)

    signed_in(app)
    assert seen == [EMAIL]


def test_a_receiver_that_raises_is_logged_and_changes_nothing(
    app: Flask, person: Any, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    @signals.user_logged_in.connect_via(app)
    def receive(_app: Flask, /, **_facts: Any) -> None:
        raise ZeroDivisionError

    told.clear()
    with caplog.at_level(logging.ERROR):
        client = signed_in(app)
    assert client.get("/api/v1/me").status_code == 200
    assert names(told) == ["user_logged_in"], "the other receivers are told"
    assert "signal_receiver_failed" in caplog.text


def test_a_receiver_may_be_async(app: Flask, person: Any) -> None:
    seen = []

    @signals.user_logged_in.connect_via(app)
    async def receive(_app: Flask, /, user_id: Any, **_facts: Any) -> None:
        await asyncio.sleep(0)
        seen.append(user_id)

    signed_in(app)
    assert seen == [person.id]


def test_a_receiver_may_change_something_that_is_told_too(
    app: Flask, person: Any, root: Any, told: Told
) -> None:
    @signals.user_logged_in.connect_via(app)
    def receive(_app: Flask, /, user_id: Any, **_facts: Any) -> None:
        auth.users.update(user_id, name="Been here")

    told.clear()
    signed_in(app)
    assert names(told) == ["user_logged_in", "profile_changed"]


def test_two_apps_tell_their_own_receivers_alone(config: Config, told: Told) -> None:
    other = create_app(config)
    try:
        with other.app_context():
            auth.users.create(EMAIL)
        assert told == []
    finally:
        services_of(other).close()


def test_no_secret_is_told(app: Flask, told: Told) -> None:
    client = browser(app)
    client.post("/signup", data={"email": EMAIL, "password": PASSWORD})
    log_in(client, EMAIL, OTHER_PASSWORD)
    log_in(client, EMAIL, PASSWORD)
    cookie = client.get_cookie("SESSION-TOKEN")
    assert cookie is not None
    form = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    client.post("/account/password", data=form)
    assert len(told) >= 5
    for secret in (PASSWORD, OTHER_PASSWORD, cookie.value):
        assert secret not in str(told)
