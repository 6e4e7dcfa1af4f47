"""Text of people: what they are called is taken and kept; what shows nothing or misleads is not."""

import json
import unicodedata
from typing import Any

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from authapp import create_app
from authapp.accounts.actor import Actor
from authapp.accounts.profiles import stored_name, why_image_refused, why_name_refused
from authapp.accounts.visible_text import is_visible, shown
from authapp.config import Config
from authapp.errors import InvalidField
from authapp.services import Services
from authapp.sessions.user_agents import device_name
from tests.support.people import EMAIL, PASSWORD, log_in, sign_up
from tests.support.services import sql
from tests.support.settings import make_config

ZWNJ, ZWJ, VS16 = "\u200c", "\u200d", "\ufe0f"
JSON = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}

NAMES = {
    "Persian": f"علی{ZWNJ}رضا امیری{ZWNJ}فر",
    "Sinhala": f"ශ්{ZWJ}රී ලාල්",
    "Malayalam, as it was written before": f"മോഹന്{ZWJ} നായര്{ZWJ}",
    "Devanagari": f"राक्{ZWNJ}षस",
    "Bengali": f"র{ZWJ}্যাম",
    "family": f"Ann 👩{ZWJ}👩{ZWJ}👧{ZWJ}👦",
    "rainbow": f"🏳{VS16}{ZWJ}🌈 Sam",
    "skin": f"👩🏽{ZWJ}💻",
    "emoji alone": f"🧔{ZWJ}♂{VS16}",
    "Scotland": "Ewan 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "an emoji of a later Unicode": "\U0001fae8 \U0001faff",
    "Japanese variation": "葛\U000e0100城",
    "decomposed": "Zoe\u0308 Nguye\u0302\u0303n",
    "Hebrew": "שָׂרָה לֵוִי",
    "Thai": "สมชาย",
    "Irish": "Seán Ó Briain-O’Neill, Jr. (3rd)",
    "Yoruba": "Ọlábísí",
    "no-break blank": "Jean\u00a0Paul",
    "wide blank": "山田\u3000太郎",
    "empty": "",
    "blanks": "  ",
    "tab": "Ada\tByron",
    "line break": "Ada\r\nByron\n",
}
REFUSED = {
    "joiner alone": ZWJ,
    "non-joiner alone": ZWNJ,
    "joiners": f"{ZWJ}{ZWNJ}{ZWJ}",
    "joiner first": f"{ZWJ}Ada",
    "joiner last": f"Ada{ZWJ}",
    "non-joiner last": f"علی{ZWNJ}",
    "joiner between blanks": f"Ada {ZWJ} Byron",
    "joiner before a blank": f"Ada{ZWNJ} Byron",
    "joiner after a blank": f"Ada {ZWNJ}Byron",
    "two joiners": f"علی{ZWNJ}{ZWNJ}رضا",
    "joiner, variation": f"👩{ZWJ}{VS16}",
    "variation alone": VS16,
    "variations": f"A{VS16}{ZWJ}",
    "Hangul filler": "\u3164",
    "Hangul fillers in between": "Ada\u3164Byron",
    "braille blank": "\u2800",
    "control": "Ada\x00",
    "escape": "Ada\x1b[2J",
    "C1": "Ada\x9b2J",
    "delete": "Ada\x7f",
    "vertical tab": "Ada\x0bByron",
    "separator of fields": "Ada\x1fByron",
    "line separator": "Ada\u2028Byron",
    "paragraph separator": "Ada\u2029Byron",
    "next line": "Ada\x85Byron",
    "override": "Ada\u202eByron",
    "embedding": "\u202bAda\u202c",
    "isolate": "\u2066Ada\u2069",
    "left-to-right mark": "Ada\u200e",
    "right-to-left mark": "\u200fAda",
    "Arabic letter mark": "Ada\u061c",
    "zero-width blank": "Ada\u200bByron",
    "word joiner": "Ada\u2060Byron",
    "byte order mark": "\ufeffAda",
    "soft hyphen": "Ada\u00adByron",
    "lone surrogate": "Ada\ud800",
    "tag": "Ada\U000e0041",
    "tags": "🧑\U000e0067\U000e0062\U000e0065\U000e007f",
    "flag without its end": "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074",
    "private use": "Ada\ue000",
    "no character": "Ada\uffff",
    "annotation": "Ada\ufff9",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_what_people_are_called_is_taken(name: str) -> None:
    assert why_name_refused(name) is None
    assert not set(stored_name(name)) & set("\t\r\n")


@pytest.mark.parametrize("name", REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_shown_is_refused(name: str) -> None:
    assert why_name_refused(name) == "use letters that can be shown"


@pytest.mark.parametrize("image", [f"https://a.example/{name}" for name in REFUSED.values()])
def test_an_image_with_it_is_refused(image: str) -> None:
    assert why_image_refused(image) or image.endswith(VS16)


@given(st.text(max_size=12))
def test_what_is_taken_shows_something_and_moves_nothing(text: str) -> None:
    name = stored_name(text)
    if not is_visible(name):
        return
    kept = {unicodedata.category(c) for c in name if c not in (ZWJ, ZWNJ)}
    assert not kept & {"Cc", "Cs", "Co", "Zl", "Zp"}
    assert not name or is_visible(name[0])
    assert shown(name).count("?") == name.count("?")


# -- every entry and every place where it is printed -----------------------------------------------


@pytest.fixture
def app(config: Config) -> Flask:
    return create_app(make_config(config.DATABASE_URL, config.REDIS_URL, SESSION_COOKIE_SECURE="0"))


@pytest.mark.parametrize("name", [NAMES["Persian"], NAMES["Malayalam, as it was written before"]])
def test_a_name_comes_back_as_it_was_given(app: Flask, name: str) -> None:
    """By API, page, forward-auth and command line."""
    client, runner = app.test_client(), app.test_cli_runner()
    body = {"email": EMAIL, "password": PASSWORD, "name": name}
    made = client.post("/api/v1/signup", json=body, headers=JSON)
    assert made.json["name"] == name  # type: ignore[index]
    assert client.post("/api/v1/login", json=body | {"name": None}, headers=JSON).status_code == 400
    body.pop("name")
    assert client.post("/api/v1/login", json=body, headers=JSON).status_code == 200
    changed = client.patch("/api/v1/me", json={"name": f"{name} Z"}, headers=JSON)
    assert changed.json["name"] == f"{name} Z"  # type: ignore[index]
    assert f"{name} Z" in client.get("/account").get_data(as_text=True)
    told = client.get("/forward-auth/nginx").headers["Remote-Name"]
    assert told.encode("latin-1").decode() == f"{name} Z"
    assert f"{name} Z" in runner.invoke(args=["auth", "users", "list"]).output
    added = runner.invoke(args=["auth", "users", "create", "b@example.org", "--name", name])
    assert added.exit_code == 0, added.output
    runner.invoke(args=["auth", "users", "grant", EMAIL, "admin"])
    found = client.get("/api/v1/users", query_string={"q": name[:7]}).json["users"]  # type: ignore[index]
    assert len(found) == 2, "and is found by it"


@pytest.mark.parametrize("name", [REFUSED["override"], REFUSED["joiner alone"], REFUSED["C1"]])
def test_a_name_that_misleads_is_refused_everywhere(app: Flask, name: str) -> None:
    client, runner = app.test_client(), app.test_cli_runner()
    body = {"email": EMAIL, "password": PASSWORD}
    refused = client.post("/api/v1/signup", json=body | {"name": name}, headers=JSON)
    assert refused.status_code == 400
    assert "name" in json.dumps(refused.json)
    form = body | {"name": name}
    assert (
        client.post("/signup", data=form, headers={"Sec-Fetch-Site": "same-origin"}).status_code
        == 400
    )
    made = runner.invoke(args=["auth", "users", "create", EMAIL, "--name", name])
    assert made.exit_code == 1
    assert client.post("/api/v1/signup", json=body, headers=JSON).status_code == 201
    assert client.post("/api/v1/login", json=body, headers=JSON).status_code == 200
    assert client.patch("/api/v1/me", json={"name": name}, headers=JSON).status_code == 400


ODD = "a\x1b[2J\x9b2J\u202e\u2028\x00b"


def test_what_a_browser_says_of_itself_moves_no_cursor(services: Services, app: Flask) -> None:
    user = sign_up(services)
    # a log-in from such an address is refused; a session may have begun before that was so
    services.sessions.begin(user.id, 1, Actor(None, "\x1b[2J\u202e", "x\x1b[2J\x9b\u202e"))
    client = app.test_client()
    sent = "Firefox\xad\x9b2J\x85/1"
    client.post(
        "/api/v1/login",
        json={"email": EMAIL, "password": PASSWORD},
        headers={**JSON, "User-Agent": sent},
    )
    listed = client.get("/api/v1/me/sessions").json["sessions"]  # type: ignore[index]
    (current,) = [session for session in listed if session["current"]]
    assert current["user_agent"] == "Firefox??2J?/1"
    assert all(text(session["device"]).isprintable() for session in listed)
    told = app.test_cli_runner().invoke(args=["auth", "sessions", "list", EMAIL]).output
    assert all(line.isprintable() for line in told.splitlines())
    assert len(told.splitlines()) == 2


def text(value: Any) -> str:
    assert isinstance(value, str)
    return value


def test_the_command_line_prints_what_was_made_by_hand_in_sql_safely(
    services: Services, app: Flask
) -> None:
    sign_up(services)
    log_in(services)
    odd = ODD.replace("\x00", "")
    sql(services, "UPDATE users SET name = :odd, email = :odd", odd=odd)
    sql(
        services,
        "UPDATE audit_events SET address = :odd, details = jsonb_build_object('a', :odd ::text)",
        odd=odd,
    )
    sql(services, "INSERT INTO roles (name) VALUES (:odd)", odd=odd)
    sql(
        services,
        "INSERT INTO user_roles SELECT u.id, r.id FROM users u, roles r WHERE r.name = :odd",
        odd=odd,
    )
    runner = app.test_cli_runner()
    try:
        for arguments in (["auth", "users", "list"], ["auth", "audit", "list"]):
            lines = runner.invoke(args=arguments).output.split("\n")[:-1]
            assert lines
            assert all(line.isprintable() for line in lines), arguments
    finally:
        sql(
            services,
            "DELETE FROM user_roles USING roles r WHERE r.id = role_id AND r.name = :odd",
            odd=odd,
        )
        sql(services, "DELETE FROM roles WHERE name = :odd", odd=odd)


def test_a_device_is_told_in_letters_that_can_be_shown() -> None:
    assert device_name(f"Mozilla/5.0 {ODD}").isprintable()


def test_a_refusal_names_the_field(services: Services) -> None:
    with pytest.raises(InvalidField) as caught:
        services.registration.sign_up(EMAIL, PASSWORD, REFUSED["escape"])
    assert caught.value.errors == {"name": "use letters that can be shown"}
