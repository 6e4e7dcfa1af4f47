"""Web cache deception: no private answer looks like a file that a cache in front may keep."""

from dataclasses import dataclass

import pytest

from tests.attacks.site import Answer, Site

ENDINGS = [
    ".css", ".js", ".png", "/x.css", "/.css", "//x.css", ";x.css", "%2fx.css", "%3bx.css",
    "%3fx.css", "%23x.css", "%00.css", "%0a.css", "%20.css", "%2e%2e%2fx.css", "/..%2fx.css",
    "/../static/authapp/authapp.css", "/%2e%2e/static/authapp/authapp.css",
    "?x.css", "#x.css", "?/static/x.css",
]  # fmt: skip
PRIVATE = [
    "/",
    "/account",
    "/account/sessions",
    "/api/v1/me",
    "/api/v1/me/sessions",
    "/api/v1/users/<id>",
    "/admin/users",
    "/admin/users/<id>",
]
# paths that look like files beside the static ones; no such file exists
BESIDE_FILES = [
    "/static/../account",
    "/static/..%2faccount",
    "/static/%2e%2e/account",
    "/static/..;/account",
    "/static/..%5caccount",
    "/static//../account",
    "/static/authapp/..%2f..%2faccount",
    "/static/authapp/authapp.css/../../account",
    "/logged-out.css/../account",
]


@dataclass(frozen=True)
class Administrator:
    """Somebody who may see everything."""

    email: str
    user_id: str
    session_id: str
    token: str

    def is_told_in(self, answer: Answer) -> bool:
        """Whether the answer holds what concerns only this person."""
        private = (self.email, self.user_id, self.session_id, "Grace")
        return "Set-Cookie" in answer.headers or any(p.encode() in answer.body for p in private)


@pytest.fixture(scope="module")
def administrator(site: Site) -> Administrator:
    email = site.sign_up(name="Grace Hopper")
    site.sql(
        "INSERT INTO user_roles (user_id, role_id) SELECT u.id, r.id FROM users u, roles r"
        " WHERE u.email = %s AND r.name = 'admin'",
        email,
    )
    site.log_in(email)
    token = site.log_in(email)
    sessions = site.ask("GET", "/api/v1/me/sessions", token=token).json()["sessions"]
    (other,) = (session["id"] for session in sessions if not session["current"])
    return Administrator(email, site.me(token).json()["id"], other, token)


def may_be_kept(answer: Answer) -> bool:
    return answer.headers["Cache-Control"] != "no-store"


@pytest.mark.parametrize("path", PRIVATE)
def test_an_ending_makes_no_file_of_it(site: Site, administrator: Administrator, path: str) -> None:
    path = path.replace("<id>", administrator.user_id)
    plain = site.ask("GET", path, token=administrator.token)
    assert plain.status == 200
    assert administrator.is_told_in(plain), "the control"
    assert not may_be_kept(plain)
    for ending in ENDINGS:
        answer = site.ask("GET", path.rstrip("/") + ending, token=administrator.token)
        assert not (may_be_kept(answer) and administrator.is_told_in(answer)), ending
        assert answer.status < 500, ending


@pytest.mark.parametrize("path", BESIDE_FILES)
def test_what_may_be_kept_is_of_nobody(site: Site, administrator: Administrator, path: str) -> None:
    answer = site.ask("GET", path, token=administrator.token)
    assert not (may_be_kept(answer) and administrator.is_told_in(answer))


def test_files_are_kept_and_are_the_same_for_everybody(
    site: Site, administrator: Administrator
) -> None:
    own = site.ask("GET", "/static/authapp/authapp.css", token=administrator.token)
    assert may_be_kept(own)
    assert own.status == 200
    assert own.body == site.ask("GET", "/static/authapp/authapp.css").body
    assert "Set-Cookie" not in own.headers
