"""The JSON API about oneself: profile, password and sessions."""

from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Stores,
    bearing,
    browser,
    cookies_of,
    is_utc,
    log_in,
    lose_fences,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
)

ME = "/api/v1/me"
CHANGE = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}


def sessions_of(client: FlaskClient) -> list[dict[str, Any]]:
    answer = client.get(f"{ME}/sessions")
    assert answer.status_code == 200
    body = answer.get_json()
    assert set(body) == {"sessions"}
    found: list[dict[str, Any]] = body["sessions"]
    return found


def this_one(client: FlaskClient) -> str:
    """The id of the session the client uses."""
    [current] = [s["id"] for s in sessions_of(client) if s["current"]]
    return str(current)


# -- PATCH /me -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        ({"name": "Countess"}, {"name": "Countess"}),
        ({"name": "  Ada \t King "}, {"name": "Ada King"}),
        ({"name": ""}, {"name": ""}),
        ({"image": "https://example.org/a.png"}, {"image": "https://example.org/a.png"}),
        ({"name": "A", "image": ""}, {"name": "A", "image": ""}),
        ({}, {}),
    ],
)
def test_people_change_what_is_theirs(
    signed_in: FlaskClient, body: dict[str, str], changed: dict[str, str]
) -> None:
    before = signed_in.get(ME).get_json()
    answer = signed_in.patch(ME, json=body)
    assert (answer.status_code, answer.get_json()) == (200, before | changed)
    assert answer.headers["Cache-Control"] == "no-store"
    assert signed_in.get(ME).get_json() == before | changed


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x" * 101}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": None}, "name"),
        ({"name": 1}, "name"),
        ({"image": "javascript:alert(1)"}, "image"),
        ({"image": "http://example.org/a.png"}, "image"),
        ({"image": "https://example.org/" + "x" * 2_048}, "image"),
        ({"image": ["https://example.org/"]}, "image"),
    ],
)
def test_a_bad_profile_is_refused_whole(
    signed_in: FlaskClient, body: dict[str, Any], field: str
) -> None:
    before = signed_in.get(ME).get_json()
    answer = signed_in.patch(ME, json={"name": "Fine", "image": ""} | body)
    assert list(problem(answer, 400, "invalid_field")["errors"]) == [field]
    assert signed_in.get(ME).get_json() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("roles", ["admin"]),
        ("permissions", ["users:read"]),
        ("active", True),
        ("email", "mallory@example.org"),
        ("id", "6d9f3c50-5b0e-4b39-9b52-0c8f2f6f4a11"),
        ("created_at", "2001-01-01T00:00:00Z"),
        ("password", OTHER_PASSWORD),
        ("password_hash", "x"),
        ("epoch", 1),
        ("ver", 1),
    ],
)
def test_nothing_else_can_be_assigned(
    signed_in: FlaskClient, stores: Stores, field: str, value: object
) -> None:
    """A field that slips through would make everybody an administrator."""
    users = "SELECT u::text, ur::text FROM users u LEFT JOIN user_roles ur ON ur.user_id = u.id"
    before = stores.sql(users)
    answer = signed_in.patch(ME, json={"name": "Mallory", field: value})
    assert list(problem(answer, 400, "invalid_field")["errors"]) == [field]
    assert stores.sql(users) == before


# -- POST /me/password -----------------------------------------------------------------------------


def test_a_new_password_brings_a_new_token_and_ends_all_other_sessions(
    signed_in: FlaskClient, app: Flask
) -> None:
    others = [signed_in_as(app), signed_in_as(app)]
    old = token_of(signed_in)
    answer = signed_in.post(f"{ME}/password", json=CHANGE)
    assert (answer.status_code, answer.get_data()) == (204, b"")
    [cookie, _device] = cookies_of(answer)
    assert cookie.value not in {"", old}
    assert signed_in.get(ME).status_code == 200
    assert [s["id"] for s in sessions_of(signed_in)] == [this_one(signed_in)]
    problem(program(app).get(ME, headers=bearing(old)), 401, "session_invalid")
    for other in others:
        problem(other.get(ME), 401, "session_invalid")
    assert log_in(browser(app)).status_code == 401
    assert log_in(browser(app), password=OTHER_PASSWORD).status_code == 303


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"current_password": "not the password"}, "current_password"),
        ({"current_password": ""}, "current_password"),
        ({"current_password": None}, "current_password"),
        ({"new_password": "short"}, "new_password"),
        ({"new_password": EMAIL}, "new_password"),
        ({"new_password": "x" * 129}, "new_password"),
        ({"email": EMAIL}, "email"),
    ],
)
def test_a_password_that_can_not_be_changed(
    signed_in: FlaskClient, app: Flask, change: dict[str, Any], field: str
) -> None:
    other, token = signed_in_as(app), token_of(signed_in)
    answer = signed_in.post(f"{ME}/password", json=CHANGE | change)
    assert list(problem(answer, 400, "invalid_field")["errors"]) == [field]
    assert not cookies_of(answer)
    assert token_of(signed_in) == token
    assert [client.get(ME).status_code for client in (signed_in, other)] == [200, 200]
    assert log_in(browser(app)).status_code == 303


def test_guessing_the_current_password_is_limited(signed_in: FlaskClient) -> None:
    wrong = CHANGE | {"current_password": "not the password"}
    for _ in range(9):  # logging in was the first, and cleared
        problem(signed_in.post(f"{ME}/password", json=wrong), 400, "invalid_field")
    problem(signed_in.post(f"{ME}/password", json=wrong), 400, "invalid_field")
    answer = signed_in.post(f"{ME}/password", json=CHANGE)
    problem(answer, 429, "too_many_attempts")
    assert int(answer.headers["Retry-After"]) > 0
    assert signed_in.get(ME).status_code == 200, "the session goes on"


# -- /me/sessions ----------------------------------------------------------------------------------


def test_sessions_are_listed(signed_in: FlaskClient, app: Flask, stores: Stores) -> None:
    phone = browser(app)
    agent = "Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0"
    phone.environ_base["HTTP_USER_AGENT"] = agent
    log_in(phone)
    sign_up(app, "bob@example.org")
    signed_in_as(app, "bob@example.org")
    answer = signed_in.get(f"{ME}/sessions")
    assert answer.headers["Cache-Control"] == "no-store"
    newest, own = answer.get_json()["sessions"]
    assert (newest["current"], own["current"]) == (False, True)
    assert is_utc(newest.pop("created_at"))
    assert is_utc(newest.pop("last_seen_at"))
    assert newest.pop("expires_at").endswith("Z")
    assert is_utc(newest.pop("auth_time"))
    assert newest == {
        "id": this_one(phone),
        "kind": "browser",
        "current": False,
        "address": "127.0.0.1",
        "user_agent": agent,
        "device": "Firefox Mobile on Android",
        "amr": ["pwd"],
        "assurance_level": 1,
    }
    text = answer.get_data(as_text=True)
    for token in (token_of(signed_in), token_of(phone)):
        assert token not in text
    for (digest,) in stores.sql("SELECT encode(digest, 'hex') FROM sessions"):
        assert digest not in text


def test_one_session_is_ended(signed_in: FlaskClient, app: Flask) -> None:
    other = signed_in_as(app)
    answer = signed_in.delete(f"{ME}/sessions/{this_one(other)}")
    assert (answer.status_code, answer.get_data()) == (204, b"")
    assert not cookies_of(answer)
    problem(other.get(ME), 401, "session_invalid")
    assert len(sessions_of(signed_in)) == 1


def test_ending_this_one_logs_out(signed_in: FlaskClient, app: Flask, stores: Stores) -> None:
    token = token_of(signed_in)
    answer = signed_in.delete(f"{ME}/sessions/{this_one(signed_in)}")
    assert answer.status_code == 204
    [cleared] = cookies_of(answer)
    assert cleared.value == ""
    problem(program(app).get(ME, headers=bearing(token)), 401, "session_invalid")
    assert stores.sql("SELECT ended_why FROM sessions") == [("logout",)]


def test_all_others_are_ended(signed_in: FlaskClient, app: Flask) -> None:
    sign_up(app, "bob@example.org")
    bob = signed_in_as(app, "bob@example.org")
    others = [signed_in_as(app) for _ in range(3)]
    for _ in range(2):  # again is no mistake
        answer = signed_in.delete(f"{ME}/sessions")
        assert (answer.status_code, answer.get_data()) == (204, b"")
    assert [other.get(ME).status_code for other in others] == [401] * 3
    assert [client.get(ME).status_code for client in (signed_in, bob)] == [200, 200]


def test_sessions_of_others_are_like_those_that_never_were(
    signed_in: FlaskClient, app: Flask
) -> None:
    """Or ids could be tried for whether they are somebody's."""
    sign_up(app, "root@example.org", roles=["admin"])
    root = signed_in_as(app, "root@example.org")
    gone = signed_in_as(app)
    ended = this_one(gone)
    gone.post("/logout")
    answers = []
    for session_id in (this_one(root), str(uuid4()), ended):
        answer = signed_in.delete(f"{ME}/sessions/{session_id}")
        told = problem(answer, 404, "not_found")
        headers = {n: v for n, v in answer.headers if n not in {"X-Request-ID", "Date"}}
        answers.append((told | {"request_id": ""}, headers))
    assert answers[0] == answers[1] == answers[2]
    assert root.get(ME).status_code == 200
    theirs = this_one(signed_in)
    problem(root.delete(f"{ME}/sessions/{theirs}"), 404, "not_found")
    assert signed_in.get(ME).status_code == 200, "nor does the role admin change that"


@pytest.mark.parametrize("text", ["x", "0", "%00", "..", "6d9f3c50-5b0e-4b39-9b52-0c8f2f6f4a110"])
def test_what_is_no_id_is_no_session(signed_in: FlaskClient, text: str) -> None:
    problem(signed_in.delete(f"{ME}/sessions/{text}"), 404, "not_found")
    assert signed_in.get(ME).status_code == 200


# -- on another instance ---------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["one", "others", "password", "logout"])
def test_what_ended_on_one_instance_is_refused_by_another_at_once(
    make_app: MakeApp, act: str
) -> None:
    here, there = make_app(), make_app()
    sign_up(here)
    mine, theirs = signed_in_as(here), signed_in_as(there)
    assert theirs.get(ME).status_code == 200
    if act == "one":
        mine.delete(f"{ME}/sessions/{this_one(theirs)}")
    elif act == "others":
        mine.delete(f"{ME}/sessions")
    elif act == "password":
        mine.post(f"{ME}/password", json=CHANGE)
    else:
        headers = bearing(token_of(theirs))
        assert program(here).post("/api/v1/logout", headers=headers).status_code == 204
    problem(theirs.get(ME), 401, "session_invalid")
    assert mine.get(ME).status_code == 200


def test_a_new_name_is_seen_on_another_instance_at_once(make_app: MakeApp) -> None:
    here, there = make_app(), make_app()
    sign_up(here)
    mine, theirs = signed_in_as(here), signed_in_as(there)
    for name in ("Countess", "Ada King"):
        assert theirs.get(ME).get_json()["name"] != name
        mine.patch(ME, json={"name": name})
        assert theirs.get(ME).get_json()["name"] == name


# -- while Redis is away ---------------------------------------------------------------------------


def test_a_change_that_others_notice_late_says_so(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(REVALIDATE_SECONDS=45, LOGIN_LIMIT_PER_ADDRESS="100 per minute")
    sign_up(app)
    other, client = signed_in_as(app), signed_in_as(app)
    own = this_one(other)
    lose_fences(app, monkeypatch)
    calls: list[tuple[str, str, dict[str, str] | None]] = [
        ("DELETE", f"{ME}/sessions/{own}", None),
        ("PATCH", ME, {"name": "Countess"}),
        ("POST", f"{ME}/password", CHANGE),
        ("POST", "/api/v1/logout", None),
    ]
    for method, path, body in calls:
        answer = client.open(path, method=method, json=body)
        assert answer.status_code == 202, path
        assert answer.mimetype == "application/json"
        told = answer.get_json()
        assert told.pop("effective_within") == 45
        assert told == ({} if path != ME else told | {"name": "Countess", "email": EMAIL})
    assert services_of(app).changes.pending()
    answer = client.post("/api/v1/login", json={"email": EMAIL, "password": OTHER_PASSWORD})
    assert answer.status_code == 200, "a new session is there at once"
    late = client.delete(f"{ME}/sessions/{uuid4()}")
    problem(late, 404, "not_found")
    assert client.get(ME).status_code == 200


def test_with_redis_nothing_is_late(signed_in: FlaskClient) -> None:
    answer = signed_in.patch(ME, json={"name": "Countess"})
    assert "effective_within" not in answer.get_json()


@pytest.mark.parametrize(
    ("path", "data", "said"),
    [
        ("/account", {"name": "Countess"}, "Your profile was saved."),
        ("/account/password", CHANGE, "Your password was changed"),
        ("/account/sessions/end-others", {}, "All other sessions were ended."),
        ("/logout", {}, "You are logged out."),
    ],
)
def test_pages_say_so_too(
    make_app: MakeApp,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    data: dict[str, str],
    said: str,
) -> None:
    app = make_app(REVALIDATE_SECONDS=45)
    sign_up(app)
    client = signed_in_as(app)
    signed_in_as(app)
    within = "Other devices may take up to 45 seconds to notice."
    lose_fences(app, monkeypatch)
    answer = client.post(path, data=data)
    assert answer.status_code == 303
    page = client.get(answer.location).get_data(as_text=True)
    assert said in page
    assert within in page


def test_pages_say_no_such_thing_otherwise(signed_in: FlaskClient) -> None:
    answer = signed_in.post("/account", data={"name": "Countess"}, follow_redirects=True)
    assert "Your profile was saved." in answer.get_data(as_text=True)
    assert "seconds to notice" not in answer.get_data(as_text=True)
