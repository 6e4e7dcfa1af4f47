"""Permissions that an app registers: where they count, and how an app without them shows them."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp import Auth, current_user, permission_required
from authapp.accounts.authority.roles import known_permissions
from authapp.accounts.identity import Permission
from authapp.errors import AuthappError, SettingError
from tests.web.conftest import Settings
from tests.web.support import EMAIL, Page, Stores, browser, services_of, sign_up, signed_in_as

ROOT = "root@example.org"
REPORTS = "reports:read"
OURS = "users:read, users:write, roles:grant, sessions:end, audit:read"
UNKNOWN = "there is no 'reports:reed'; the permissions are: "


class MakeReports(Protocol):
    def __call__(self, permissions: Any = None) -> Flask: ...


@pytest.fixture
def make_reports(settings: Settings, stores: Stores) -> Iterator[MakeReports]:
    """Makes an app with a view that needs `reports:read`, whatever it registers."""
    made: list[Flask] = []

    def make(permissions: Any = None) -> Flask:
        app = Flask("reports")
        app.config.update(settings)
        more = {"permissions": permissions} if permissions is not None else {}
        Auth(app, pages=True, api=True, admin=True, **more)
        app.add_url_rule("/reports", "reports", permission_required(REPORTS)(lambda: "reports"))
        app.add_url_rule("/can", "can", lambda: str(current_user.can(REPORTS)))
        made.append(app)
        return app

    yield make
    for app in made:
        services_of(app).close()
    stores.clear()
    stores.sql("DELETE FROM roles WHERE name NOT IN ('admin', 'user')")


@pytest.fixture
def site(make_reports: MakeReports) -> Flask:
    """The app that registers it, with an administrator and a person."""
    app = make_reports({REPORTS: "See the <reports>", "reports:write": "Write them"})
    sign_up(app, ROOT, roles=["admin"])
    sign_up(app)
    return app


def permissions_of(app: Flask, name: str) -> list[str] | None:
    found = {role.name: role.permissions for role in services_of(app).roles.list()}
    return found.get(name)


# -- the ways to make a role: each returns why it was refused, or nothing --------------------------


def by_call(app: Flask, permission: str) -> str:
    body = {"name": "analyst", "permissions": [permission]}
    answer = signed_in_as(app, ROOT).post("/api/v1/roles", json=body)
    return "" if answer.status_code == 201 else str(answer.get_json()["errors"]["permissions"])


def by_page(app: Flask, permission: str) -> str:
    form = {"name": "analyst", "permissions": [permission]}
    answer = signed_in_as(app, ROOT).post("/admin/roles", data=form)
    return "" if answer.status_code == 303 else Page(answer).text


def by_command(app: Flask, permission: str) -> str:
    arguments = ("auth", "roles", "create", "analyst", "--permission", permission)
    return app.test_cli_runner().invoke(args=arguments).stderr


def by_python(app: Flask, permission: str) -> str:
    with app.app_context():
        try:
            Auth.roles.create("analyst", [permission])
        except AuthappError as refused:
            return str(refused)
    return ""


Make = Callable[[Flask, str], str]
every_way = pytest.mark.parametrize("make", [by_call, by_page, by_command, by_python])


@every_way
def test_a_role_gives_it_and_the_guard_asks_for_it(site: Flask, make: Make) -> None:
    person = signed_in_as(site, EMAIL)
    assert make(site, REPORTS) == ""
    assert permissions_of(site, "analyst") == [REPORTS]
    assert (person.get("/reports").status_code, person.get("/can").text) == (403, "False")
    body = {"roles": ["analyst", "user"]}
    user_id = person.get("/api/v1/me").get_json()["id"]
    assert signed_in_as(site, ROOT).put(f"/api/v1/users/{user_id}/roles", json=body).is_json
    assert (person.get("/reports").text, person.get("/can").text) == ("reports", "True")
    assert browser(site).get("/reports").status_code == 302
    assert browser(site).get("/can").text == "False"


@every_way
def test_an_unknown_one_is_refused_with_those_there_are(
    site: Flask, make_reports: MakeReports, make: Make
) -> None:
    assert f"{UNKNOWN}{OURS}, reports:read, reports:write" in make(site, "reports:reed").replace(
        "There is", "there is"
    )
    other = make_reports()
    refused = make(other, REPORTS)
    assert OURS in refused
    assert "reports:write" not in refused
    assert permissions_of(site, "analyst") is None


def offered(answer: TestResponse) -> list[str]:
    """The permissions that the page has boxes for."""
    inputs = [attributes for name, attributes in Page(answer).elements if name == "input"]
    return [box["value"] for box in inputs if box.get("name") == "permissions"]


def test_the_page_offers_it_with_its_description_to_those_who_may_give_it(site: Flask) -> None:
    page = signed_in_as(site, ROOT).get("/admin/roles")
    assert offered(page) == [*Permission, REPORTS, "reports:write"]
    assert "See the &lt;reports&gt;" in page.text
    assert "Read the audit log" in page.text
    services_of(site).roles.create("granter", ["roles:grant", "reports:write"])
    sign_up(site, "granter@example.org", roles=["granter"])
    granter = signed_in_as(site, "granter@example.org")
    assert offered(granter.get("/admin/roles")) == ["roles:grant", "reports:write"]
    body = {"name": "analyst", "permissions": [REPORTS]}
    refused = granter.post("/api/v1/roles", json=body)
    assert refused.get_json()["code"] == "exceeds_own_permissions"
    assert permissions_of(site, "analyst") is None


def test_an_administrator_may_what_is_registered_later(make_reports: MakeReports) -> None:
    """By the session that was there before, whatever the row of `admin` lists."""
    before = make_reports()
    sign_up(before, ROOT, roles=["admin"])
    administrator = signed_in_as(before, ROOT)
    assert administrator.get("/can").text == "True"
    after = browser(make_reports({REPORTS: "See the reports"}))
    cookie = administrator.get_cookie("SESSION-TOKEN")
    assert cookie is not None
    after.set_cookie("SESSION-TOKEN", cookie.value)
    assert after.get("/reports").text == "reports"


def test_one_that_is_registered_no_more_harms_nothing_and_is_shown(
    site: Flask, make_reports: MakeReports
) -> None:
    assert by_python(site, REPORTS) == ""
    sign_up(site, "analyst@example.org", roles=["analyst"])
    other = make_reports()  # beside it, in this process and on the same stores
    analyst, administrator = signed_in_as(other, "analyst@example.org"), signed_in_as(other, ROOT)
    assert analyst.get("/reports").text == "reports"
    assert f">{REPORTS}<" in administrator.get("/admin/roles").text
    assert REPORTS not in offered(administrator.get("/admin/roles"))
    assert {"name": "analyst", "description": "", "permissions": [REPORTS]} in administrator.get(
        "/api/v1/roles"
    ).get_json()["roles"]
    assert (
        "analyst  reports:read"
        in other.test_cli_runner().invoke(args=["auth", "roles", "list"]).output
    )
    person = analyst.get("/api/v1/me").get_json()["id"]
    path = f"/api/v1/users/{person}/roles"
    for roles in (["user"], ["analyst"]):
        assert administrator.put(path, json={"roles": roles}).status_code == 200
    assert administrator.delete("/api/v1/roles/analyst").status_code == 204
    assert analyst.get("/reports").status_code == 403


# -- what can be registered ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "words"),
    [
        ({"reports": "See"}, "permissions: 'reports' can't be one; name it like `reports:read`"),
        ({"reports:": "See"}, "'reports:' can't be one"),
        ({"Reports:read": "See"}, "'Reports:read' can't be one"),
        ({"reports:read\n": "See"}, r"'reports:read\n' can't be one"),
        ({"reports:read:all": "See"}, "'reports:read:all' can't be one"),
        ({"reports-of:read": "See"}, "'reports-of:read' can't be one"),
        ({"": "See"}, "'' can't be one"),
        ({7: "See"}, "7 can't be one"),
        ({"users:read": "See"}, "permissions: users:read is one of authapp; choose another name"),
        ({REPORTS: " "}, "permissions: say what reports:read lets a person do"),
        ({REPORTS: None}, "permissions: say what reports:read lets a person do"),
        ([REPORTS], "permissions: give a description for each"),
        (REPORTS, "permissions: give a description for each"),
    ],
)
def test_what_can_not_be_one_stops_the_start(
    settings: Settings, permissions: Any, words: str
) -> None:
    app = Flask("reports")
    app.config.update(settings)
    for auth, more in ((Auth(permissions=permissions), {}), (Auth(), {"permissions": permissions})):
        with pytest.raises(SettingError) as caught:
            auth.init_app(app, **more)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "authapp" not in app.extensions


def test_one_app_adds_to_what_all_have(settings: Settings) -> None:
    auth, apps = Auth(permissions={REPORTS: "See the reports"}), (Flask("one"), Flask("two"))
    more: list[dict[str, str]] = [{"a_1:b_2": "Do it"}, {}]
    try:
        for app, own in zip(apps, more, strict=True):
            app.config.update(settings)
            auth.init_app(app, permissions=own)
        one, two = (list(services_of(app).roles.permissions) for app in apps)
    finally:
        for app in apps:
            services_of(app).close()
    assert one == [*Permission, REPORTS, "a_1:b_2"]
    assert two == [*Permission, REPORTS]


def test_each_of_ours_is_described() -> None:
    assert list(known_permissions()) == list(Permission)
    assert all(known_permissions().values())
