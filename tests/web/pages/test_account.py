"""The pages: what each answers, says, and does."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.support.people import grant_role
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Page,
    Stores,
    browser,
    cookies_of,
    log_in,
    program,
    services_of,
    session_cookies_of,
    sign_up,
    signed_in_as,
    token_of,
)

PROTECTED = ["/account", "/account/password", "/account/sessions", "/admin/users"]
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko/20100101 Firefox/140.0"


# -- who may see what ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/", "Home · authapp"),
        ("/signup", "Sign up · authapp"),
        ("/login", "Log in · authapp"),
    ],
)
def test_open_pages(client: FlaskClient, path: str, title: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert f"<title>{title}</title>" in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("path", "title"),
    [
        ("/", "Home · authapp"),
        ("/account", "Account · authapp"),
        ("/account/password", "Change password · authapp"),
        ("/account/sessions", "Sessions · authapp"),
    ],
)
def test_pages_of_a_person(signed_in: FlaskClient, path: str, title: str) -> None:
    answer = signed_in.get(path)
    assert answer.status_code == 200
    assert f"<title>{title}</title>" in answer.get_data(as_text=True)


def test_log_out_is_on_every_page(app: Flask) -> None:
    sign_up(app, roles=("admin", "user"))
    client = signed_in_as(app)
    rules = [rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())]
    paths = {rule.rule for rule in rules if not rule.arguments} | {"/nothing"}
    answers = {path: client.get(path) for path in paths - {"/api/v1/me"}}
    pages = {path for path, answer in answers.items() if answer.mimetype == "text/html"}
    shown = {path for path in pages if not answers[path].location}
    assert {"/", "/account", "/account/security", "/admin/audit", "/api/v1/", "/nothing"} <= shown
    for path in shown:
        forms = Page(answers[path]).all("form")
        assert "/logout" in [form.get("action") for form in forms], path


@pytest.mark.parametrize("path", [*PROTECTED, "/account?tab=1&x=%C3%BC%26"])
def test_a_protected_page_leads_to_login_and_back(
    client: FlaskClient, app: Flask, path: str
) -> None:
    sign_up(app, roles=("admin", "user"))
    away = client.get(path)
    assert away.status_code == 302
    place = urlsplit(away.headers["Location"])
    assert place.path == "/login"
    assert parse_qs(place.query) == {"next": [path]}

    form = Page(client.get(away.headers["Location"]))
    (carried,) = [a["value"] for a in form.all("input") if a.get("name") == "next"]
    back = client.post("/login", data={"email": EMAIL, "password": PASSWORD, "next": carried})
    assert (back.status_code, back.headers["Location"]) == (303, path)
    assert client.get(path).status_code == 200


def test_a_form_sent_without_a_session_leads_to_login_alone(client: FlaskClient) -> None:
    for path in ("/account", "/account/password", "/account/sessions/end-others"):
        away = client.post(path, data={"name": "x"})
        assert (away.status_code, away.headers["Location"]) == (302, "/login"), path


def test_who_is_signed_in_needs_no_login_page(signed_in: FlaskClient) -> None:
    assert signed_in.get("/login").headers["Location"] == "/"
    assert signed_in.get("/login?next=/account").headers["Location"] == "/account"


def test_admin_pages_are_for_administrators(signed_in: FlaskClient, app: Flask) -> None:
    refused = signed_in.get("/admin/users")
    assert refused.status_code == 403
    assert "Error 403" in refused.get_data(as_text=True)
    grant_role(services_of(app), EMAIL, "admin")
    assert signed_in.get("/admin/users").status_code == 200


def test_the_list_of_users(signed_in: FlaskClient, app: Flask) -> None:
    grant_role(services_of(app), EMAIL, "admin")
    for number in range(60):
        sign_up(app, f"person{number:02}@example.org", name=f"100% Person_{number}")
    first = Page(signed_in.get("/admin/users"))
    (onward,) = [a["href"] for a in first.all("a") if a.get("rel") == "next"]
    second = Page(signed_in.get(onward))
    shown = [set(re.findall(r"person\d\d@", page.text)) for page in (first, second)]
    assert [len(emails) for emails in shown] == [50, 10]
    assert not shown[0] & shown[1]
    assert EMAIL in second.text

    found = Page(signed_in.get("/admin/users", query_string={"q": "PERSON07@"}))
    assert re.findall(r"person\d\d@", found.text) == ["person07@"]
    literal = Page(signed_in.get("/admin/users?q=person_7"))  # `_` is no wildcard
    assert re.findall(r"person\d\d@", literal.text) == ["person07@"]
    assert "Nobody" in signed_in.get("/admin/users?q=a%25b").get_data(as_text=True)
    assert "Nobody" in signed_in.get("/admin/users?q=x\x00y").get_data(as_text=True)
    assert signed_in.get("/admin/users?cursor=nonsense").status_code == 400


@pytest.mark.parametrize(
    "path", ["/nothing", "/account/nothing", "/admin", "/static/authapp/nothing"]
)
def test_there_is_no_such_page(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "Error 404" in answer.get_data(as_text=True)


# -- sign-up ---------------------------------------------------------------------------------------


def assert_beside(page: Page, field: str, words: str) -> None:
    """The field says that it is wrong, and is described by the reason."""
    control = page.by_id(field)
    assert control["aria-invalid"] == "true"
    assert f"{field}-error" in control["aria-describedby"].split()
    page.by_id(f"{field}-error")
    assert "role" in str(page.all("div"))
    assert words.lower() in page.text.lower()
    assert f"#{field}" in [a.get("href") for a in page.all("a")], "the summary leads to it"


def test_who_signs_up_is_logged_in(client: FlaskClient, stores: Stores) -> None:
    data = {"email": " New@Example.org ", "password": PASSWORD, "name": "  New   Person "}
    done = client.post("/signup", data=data)
    assert (done.status_code, done.headers["Location"]) == (303, "/")
    assert {c.name for c in session_cookies_of(done)} == {"SESSION-TOKEN", "DEVICE-TOKEN"}
    page = client.get("/").get_data(as_text=True)
    assert "Your account is ready, and you are logged in" in page
    assert "Hello, New Person" in page
    assert stores.sql("SELECT email, name FROM users") == [("New@example.org", "New Person")]
    assert log_in(browser(client.application), "NEW@example.org").status_code == 303


def test_a_sign_up_replaces_the_session_of_the_browser(
    signed_in: FlaskClient, stores: Stores
) -> None:
    before = token_of(signed_in)
    signed_in.post("/signup", data={"email": "new@example.org", "password": PASSWORD})
    assert token_of(signed_in) != before
    assert stores.sql("SELECT ended_why FROM sessions ORDER BY created_at") == [
        ("replaced",),
        (None,),
    ]


def test_sign_up_leads_where_somebody_wanted_to_go(client: FlaskClient) -> None:
    data = {"email": EMAIL, "password": PASSWORD}
    done = client.post("/signup?next=/account", data=data)
    assert done.headers["Location"] == "/account"
    assert client.get("/account").status_code == 200
    away = client.post("/signup?next=//evil.example", data=data | {"email": "b@example.org"})
    assert away.headers["Location"] == "/"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("email", "", "enter your email"),
        ("email", "   ", "enter your email"),
        ("email", "ada", "name@example.org"),
        ("email", "ada@", "name@example.org"),
        ("email", "ada@example.org\x00", "name@example.org"),
        ("email", '"a b"@example.org', "name@example.org"),
        ("password", "", "choose a password"),
        ("password", "short", "at least 15"),
        ("password", "x" * 129, "at most 128"),
        ("password", "passwordpassword", "attackers"),
        ("password", "qwertyuiopasdfgh", "neighbouring keys"),
        ("password", EMAIL, "your email"),
        ("name", "n" * 101, "at most 100"),
        ("name", "a\x00b", "can be shown"),
        ("name", "a\u202eb", "can be shown"),
    ],
)
def test_sign_up_tells_what_is_wrong_beside_the_field(
    client: FlaskClient, stores: Stores, field: str, value: str, words: str
) -> None:
    data = {"email": EMAIL, "password": PASSWORD, "name": "Ada", field: value}
    answer = client.post("/signup", data=data)
    assert answer.status_code == 400
    page = Page(answer)
    assert_beside(page, field, words)
    assert page.by_id("email").get("value", "") == data["email"].strip()
    assert not page.by_id("password").get("value"), "a password is never sent back"
    assert stores.sql("SELECT 1 FROM users") == []


def test_all_that_is_wrong_is_told_at_once(client: FlaskClient) -> None:
    page = Page(
        client.post("/signup", data={"email": "ada", "password": "short", "name": "\u202e"})
    )
    for field in ("email", "password", "name"):
        assert_beside(page, field, "")
    assert len([a for _, a in page.elements if "autofocus" in a]) == 1


@pytest.mark.parametrize(
    "spelling", [EMAIL, EMAIL.upper(), f" {EMAIL} ", "\uff41da.lovelace@EXAMPLE.org"]
)
def test_a_taken_email_is_told_in_any_spelling(
    client: FlaskClient, person: str, spelling: str
) -> None:
    answer = client.post("/signup", data={"email": spelling, "password": PASSWORD})
    assert answer.status_code == 409
    assert_beside(Page(answer), "email", "log in instead")


def test_too_many_sign_ups_from_an_address(make_app: MakeApp, stores: Stores) -> None:
    client = browser(make_app(LOGIN_LIMIT_PER_ADDRESS="2 per minute"))
    taken = {"email": EMAIL, "password": PASSWORD}
    assert [client.post("/signup", data=taken).status_code for _ in range(2)] == [303, 409]
    refused = client.post("/signup", data={"email": "grace@example.org", "password": PASSWORD})
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    page = Page(refused)
    assert re.search(r"Too many attempts. Try again in \d+ seconds.", page.text)
    assert page.by_id("email")["value"] == "grace@example.org"
    assert not page.by_id("password").get("value"), "a password is never sent back"
    assert len(stores.sql("SELECT 1 FROM users")) == 1


# -- log-in and log-out ----------------------------------------------------------------------------


def test_the_wrong_password(client: FlaskClient, person: str) -> None:
    answer = log_in(client, password="not the password")
    assert answer.status_code == 401
    page = Page(answer)
    assert "Email or password is not right." in page.text
    assert "problem" in page.by_id("password")["aria-describedby"].split()
    assert page.by_id("problem")["role"] == "alert"
    assert page.by_id("email")["value"] == EMAIL
    assert not page.by_id("password").get("value")
    assert not cookies_of(answer)


def test_nobody_learns_whether_an_email_is_known(
    client: FlaskClient, app: Flask, stores: Stores
) -> None:
    sign_up(app)
    sign_up(app, "gone.lovelace@example.org")
    stores.sql("UPDATE users SET active = false WHERE email LIKE 'gone%%'")
    texts = []
    for email, password in (
        ("none.lovelace@example.org", PASSWORD),
        (EMAIL, "not the password"),
        ("gone.lovelace@example.org", PASSWORD),
    ):
        answer = log_in(client, email, password)
        assert answer.status_code == 401
        texts.append(answer.get_data(as_text=True).replace(email, "EMAIL"))
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"email": "", "password": "x"}, "email"),
        ({"email": EMAIL, "password": ""}, "password"),
        ({"email": "no email", "password": "x"}, "email"),
        ({}, "email"),
    ],
)
def test_log_in_needs_both(client: FlaskClient, data: dict[str, str], field: str) -> None:
    answer = client.post("/login", data=data)
    assert answer.status_code == 400
    assert_beside(Page(answer), field, "enter")


@pytest.mark.parametrize("path", ["/login", "/signup", "/account/password"])
def test_passwords_are_masked_and_left_to_paste_and_managers(
    signed_in: FlaskClient, app: Flask, path: str
) -> None:
    page = Page((signed_in if path.startswith("/account") else browser(app)).get(path))
    fields = [field for field in page.all("input") if "password" in field.get("name", "")]
    assert fields
    for field in fields:
        assert field["type"] == "password"
        assert field["autocomplete"] in {"current-password", "new-password"}
        assert not {name for name in field if name.startswith(("on", "maxlength", "readonly"))}
    scripts = {script["src"] for script in page.all("script")}
    assert scripts == {f"/static/authapp/{name}.js" for name in ("local_times", "passwords")}


def test_a_password_is_taken_as_it_was_typed(client: FlaskClient, app: Flask) -> None:
    services_of(app).registration.sign_up(EMAIL, " seven quiet rivers ")
    assert log_in(client, password="seven quiet rivers").status_code == 401
    assert log_in(client, password=" seven quiet rivers ").status_code == 303


def test_remember_me(client: FlaskClient, person: str) -> None:
    [plain, _device] = cookies_of(log_in(client))
    [kept, _device] = cookies_of(log_in(client, remember="y"))
    assert "max-age" not in plain.attributes
    assert kept.attributes["max-age"] == "2592000"


def test_too_many_attempts_on_an_account(client: FlaskClient, app: Flask) -> None:
    sign_up(app)
    for _ in range(10):
        assert log_in(client, password="not the password").status_code == 401
    refused = log_in(client)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 900
    page = Page(refused)
    assert re.search(r"Too many attempts. Try again in \d+ minutes.", page.text)
    assert page.by_id("email")["value"] == EMAIL
    sign_up(app, "grace@example.org")
    assert log_in(client, "grace@example.org").status_code == 303, "others are not concerned"


def test_too_many_attempts_from_an_address(make_app: MakeApp) -> None:
    app = make_app(LOGIN_LIMIT_PER_ADDRESS="3 per minute")
    for number in range(3):
        assert log_in(browser(app), f"nobody{number}@example.org").status_code == 401
    refused = log_in(browser(app), "nobody4@example.org")
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 60
    assert re.search(r"Try again in \d+ seconds", refused.get_data(as_text=True))


def test_a_success_clears_the_account_s_window(client: FlaskClient, make_app: MakeApp) -> None:
    app = make_app(LOGIN_FAILURES_PER_ACCOUNT="2 per minute")
    sign_up(app)
    client = browser(app)
    for _ in range(3):
        assert log_in(client, password="not the password").status_code == 401
        assert log_in(client).status_code == 303


def test_logging_out(signed_in: FlaskClient, app: Flask) -> None:
    token = token_of(signed_in)
    assert signed_in.get("/logout").status_code == 200
    assert signed_in.get("/account").status_code == 200, "a link logs nobody out"
    done = signed_in.post("/logout")
    assert (done.status_code, done.headers["Location"]) == (303, "/")
    assert "You are logged out" in signed_in.get("/").get_data(as_text=True)
    again = program(app).get("/account", headers={"Cookie": f"SESSION-TOKEN={token}"})
    assert again.status_code == 302


def test_the_home_page_greets_who_is_signed_in(signed_in: FlaskClient, app: Flask) -> None:
    assert "Hello, Ada" in Page(signed_in.get("/")).text
    assert "Hello" not in Page(browser(app).get("/")).text


# -- account ---------------------------------------------------------------------------------------


def test_the_profile(signed_in: FlaskClient) -> None:
    data = {"name": " Ada   King ", "image": " https://example.org/a.jpg?x=1 "}
    done = signed_in.post("/account", data=data)
    assert (done.status_code, urlsplit(done.headers["Location"]).path) == (303, "/account")
    page = Page(signed_in.get(done.headers["Location"]))
    assert "Your profile was saved." in page.text
    assert EMAIL in page.text
    assert page.by_id("name")["value"] == "Ada King"
    assert page.by_id("image")["value"] == "https://example.org/a.jpg?x=1"
    signed_in.post("/account", data={"name": "", "image": ""})
    page = Page(signed_in.get("/account"))
    assert page.by_id("name")["value"] == page.by_id("image")["value"] == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "n" * 101),
        ("name", "a\x00b"),
        ("name", "a\u202eb"),
        ("image", "http://example.org/a.jpg"),
        ("image", "javascript:alert(1)"),
        ("image", "data:image/png,x"),
        ("image", "//example.org/a.jpg"),
        ("image", "https://"),
        ("image", "https://[x/"),
        ("image", "https://example.org:x/"),
        ("image", "https://example.org/a b"),
        ("image", "https://example.org/\x00"),
        ("image", "https://user:secret@example.org/"),
        ("image", "https://example.org/" + "a" * 2048),
    ],
)
def test_a_profile_that_can_not_be_taken(
    signed_in: FlaskClient, stores: Stores, field: str, value: str
) -> None:
    answer = signed_in.post("/account", data={"name": "New", "image": "", field: value})
    assert answer.status_code == 400
    assert_beside(Page(answer), field, "")
    assert stores.sql("SELECT name, image FROM users") == [("Ada", "")]


def test_changing_the_password_ends_the_other_sessions_and_tells_them(
    signed_in: FlaskClient, app: Flask
) -> None:
    other, before = browser(app), token_of(signed_in)
    log_in(other)
    assert other.get("/account").status_code == 200

    data = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    done = signed_in.post("/account/password", data=data)
    assert (done.status_code, urlsplit(done.headers["Location"]).path) == (303, "/account")
    [fresh, _device] = cookies_of(done)
    assert fresh.value not in {"", before}
    assert signed_in.get("/account").status_code == 200
    dead = program(app).get("/api/v1/me", headers={"Cookie": f"SESSION-TOKEN={before}"})
    assert dead.status_code == 401

    away = other.get("/account/sessions")
    assert away.status_code == 302
    told = other.get(away.headers["Location"])
    assert "You were signed out because your password was changed." in Page(told).text
    assert not cookies_of(told)
    assert log_in(other).status_code == 401
    assert log_in(other, password=OTHER_PASSWORD).status_code == 303


@pytest.mark.parametrize(
    ("current", "new", "field", "words"),
    [
        ("not the password", OTHER_PASSWORD, "current_password", "not your current password"),
        ("", OTHER_PASSWORD, "current_password", "enter your current password"),
        (PASSWORD, "", "new_password", "choose a new password"),
        (PASSWORD, "short", "new_password", "at least 15"),
        (PASSWORD, EMAIL, "new_password", "your email"),
    ],
)
def test_a_password_that_can_not_be_changed(
    signed_in: FlaskClient, app: Flask, current: str, new: str, field: str, words: str
) -> None:
    other = browser(app)
    log_in(other)
    data = {"current_password": current, "new_password": new}
    answer = signed_in.post("/account/password", data=data)
    assert answer.status_code == 400
    assert_beside(Page(answer), field, words)
    assert not cookies_of(answer)
    assert other.get("/account").status_code == 200
    assert log_in(browser(app)).status_code == 303, "the password is what it was"


def test_guessing_the_current_password_is_limited(signed_in: FlaskClient) -> None:
    data = {"current_password": "not the password", "new_password": OTHER_PASSWORD}
    for _ in range(10):
        assert signed_in.post("/account/password", data=data).status_code == 400
    refused = signed_in.post("/account/password", data=data)
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    assert signed_in.get("/account").status_code == 200


# -- sessions --------------------------------------------------------------------------------------


def ends(client: FlaskClient) -> list[str]:
    """Where the page's buttons that end one session lead."""
    forms = Page(client.get("/account/sessions")).all("form")
    return [f["action"] for f in forms if f.get("action", "").endswith("/end")]


def test_sessions_are_listed_with_their_device(signed_in: FlaskClient, app: Flask) -> None:
    other = browser(app)
    other.environ_base["HTTP_USER_AGENT"] = FIREFOX
    other.environ_base["REMOTE_ADDR"] = "2001:db8::7"
    log_in(other)
    page = Page(signed_in.get("/account/sessions"))
    assert page.text.count("This device") == 1
    assert "Firefox on Windows" in page.text
    assert "2001:db8::7" in page.text
    assert "127.0.0.1" in page.text
    assert len(page.all("li")) - len(page.all("nav")) >= 2
    assert len(ends(signed_in)) == 1


def test_one_session_is_ended_and_told_why(signed_in: FlaskClient, app: Flask) -> None:
    second, third = browser(app), browser(app)
    log_in(second)
    [path] = ends(signed_in)
    log_in(third)
    done = signed_in.post(path)
    assert (done.status_code, urlsplit(done.headers["Location"]).path) == (303, "/account/sessions")
    assert second.get("/account").status_code == 302
    told = Page(second.get("/login")).text
    assert "You were signed out because you ended this session elsewhere." in told
    assert [c.get("/account").status_code for c in (signed_in, third)] == [200, 200]
    assert signed_in.post(path).status_code == 404, "it has ended already"


def test_ending_this_one_logs_out(signed_in: FlaskClient, stores: Stores) -> None:
    [(own,)] = stores.sql("SELECT id FROM sessions")
    done = signed_in.post(f"/account/sessions/{own}/end")
    [cleared] = session_cookies_of(done)
    assert (done.headers["Location"], cleared.value) == ("/", "")
    assert stores.sql("SELECT ended_why FROM sessions") == [("logout",)]


def test_nobody_ends_a_session_of_somebody_else(signed_in: FlaskClient, app: Flask) -> None:
    sign_up(app, "grace@example.org")
    grace = browser(app)
    log_in(grace, "grace@example.org")
    log_in(browser(app))
    [of_ada] = ends(signed_in)
    assert grace.post(of_ada).status_code == 404
    assert len(ends(signed_in)) == 1


def test_a_page_asks_before_all_others_are_ended(signed_in: FlaskClient, app: Flask) -> None:
    alone = Page(signed_in.get("/account/sessions/end-others"))
    assert "You are signed in nowhere else." in alone.text
    for told in ("at another place", "at 2 other places"):
        log_in(browser(app))
        page = Page(signed_in.get("/account/sessions/end-others"))
        assert f"You are signed in {told}, and will be signed out there at once." in page.text
    assert len(ends(signed_in)) == 2, "nothing ended"


def test_all_others_are_ended(signed_in: FlaskClient, app: Flask) -> None:
    others = [browser(app) for _ in range(3)]
    for other in others:
        log_in(other)
    leads = {a["href"] for a in Page(signed_in.get("/account/sessions")).all("a")}
    assert "/account/sessions/end-others" in leads
    done = signed_in.post("/account/sessions/end-others")
    assert urlsplit(done.headers["Location"]).path == "/account/sessions"
    assert signed_in.get("/account").status_code == 200
    assert [other.get("/account").status_code for other in others] == [302] * 3
    page = Page(signed_in.get("/account/sessions"))
    assert "You are signed in nowhere else." in page.text


def test_the_oldest_ends_when_there_are_too_many(make_app: MakeApp) -> None:
    app = make_app(SESSION_MAX_PER_USER=2)
    sign_up(app)
    clients = [browser(app) for _ in range(3)]
    for client in clients:
        log_in(client)
    assert [c.get("/account").status_code for c in clients] == [302, 200, 200]
    assert "too many devices" in Page(clients[0].get("/login")).text


def test_a_deactivated_person_is_told(signed_in: FlaskClient, stores: Stores) -> None:
    stores.sql("UPDATE users SET active = false, epoch = epoch + 1")
    stores.redis.flushall()  # by hand, so the copies don't know
    assert signed_in.get("/account").status_code == 302
    assert "this account was deactivated" in Page(signed_in.get("/login")).text


# -- limits of what is read ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login", "/signup"])
def test_a_form_that_is_too_large(client: FlaskClient, path: str) -> None:
    answer = client.post(path, data={"email": EMAIL, "password": "x" * 1_000_000})
    assert answer.status_code == 413
    assert "Error 413" in answer.get_data(as_text=True)


def test_a_form_that_is_no_form(client: FlaskClient, person: str) -> None:
    for kind, body in (
        ("application/json", b'{"email": ["x"]}'),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken"),
        ("multipart/form-data", b"x"),
        ("text/plain", b"email=x"),
        ("application/x-www-form-urlencoded", b"%ff=%ff&email=%ff&password=%00"),
        ("", b"\xff\xfe"),
    ):
        answer = client.post("/login", data=body, content_type=kind)
        assert answer.status_code == 400, kind


def test_wrong_text_in_the_address_breaks_nothing(signed_in: FlaskClient, app: Flask) -> None:
    grant_role(services_of(app), EMAIL, "admin")
    for query in ("next=%00", "next=%ff", "done=%00", "done=%ff&done=x", "q=%00", "q=%ff", "x" * 9):
        for path in ("/", "/login", "/signup", "/account", "/admin/users"):
            assert signed_in.get(f"{path}?{query}").status_code in {200, 302}, (path, query)
    for cursor in ("%00", "%ff", "AAAA", "a", "é", "MDAwMS0wMS0wMSB4"):
        assert signed_in.get(f"/admin/users?cursor={cursor}").status_code == 400, cursor


# -- log-out by a page -----------------------------------------------------------------------------


def test_the_log_out_page_has_a_button_and_ends_nothing(signed_in: FlaskClient) -> None:
    for _ in range(2):
        page = Page(signed_in.get("/logout?next=/account"))
        assert "Log out?" in page.text
        assert [form["action"] for form in page.all("form")] == ["/logout", "/logout"]
        assert {"type": "hidden", "name": "next", "value": "/account"} in page.all("input")
    assert signed_in.get("/account").status_code == 200, "still signed in"
    answer = signed_in.post("/logout", data={"next": "/account"})
    assert (answer.status_code, answer.location) == (303, "/account")
    assert signed_in.get("/account").status_code == 302
    assert "You are not signed in" in Page(signed_in.get("/logout")).text


@pytest.mark.parametrize("onward", ["https://evil.example/", "//evil.example", "/\\evil.example"])
def test_log_out_leads_to_no_other_site(signed_in: FlaskClient, onward: str) -> None:
    page = signed_in.get("/logout", query_string={"next": onward})
    assert "evil.example" not in page.text
    answer = signed_in.post("/logout", data={"next": onward})
    assert answer.location == "/"


def test_log_out_leads_to_hosts_that_are_allowed(make_app: MakeApp) -> None:
    app = make_app(ALLOWED_REDIRECT_HOSTS="app.example.org")
    onward = "https://app.example.org/bye"
    answer = browser(app).post("/logout", query_string={"next": onward})
    assert answer.location == onward
