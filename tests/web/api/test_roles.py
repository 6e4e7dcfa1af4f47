"""Roles by call and by page: who may add and delete them, and what is answered."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp.accounts.audit import Filter
from tests.support.people import grant_role
from tests.web.support import (
    EMAIL,
    Page,
    Stores,
    lose_fences,
    problem,
    services_of,
    sign_up,
    signed_in_as,
)

ROOT, ACTOR = "root@example.org", "actor@example.org"
API = "/api/v1/roles"


@pytest.fixture
def site(app: Flask, stores: Stores) -> Iterator[Flask]:
    """The application with an administrator, and no roles of other tests afterwards."""
    sign_up(app, ROOT, roles=["admin"])
    yield app
    stores.clear()
    stores.sql("DELETE FROM roles WHERE name NOT IN ('admin', 'user')")


@pytest.fixture
def admin(site: Flask) -> FlaskClient:
    return signed_in_as(site, ROOT)


def names(app: Flask) -> list[str]:
    return [role.name for role in services_of(app).roles.list()]


def by_call(client: FlaskClient, name: str, permissions: list[str]) -> TestResponse:
    return client.post(API, json={"name": name, "permissions": permissions})


def by_page(client: FlaskClient, name: str, permissions: list[str]) -> TestResponse:
    return client.post("/admin/roles", data={"name": name, "permissions": permissions})


def delete_by_call(client: FlaskClient, name: str) -> TestResponse:
    return client.delete(f"{API}/{name}")


def delete_by_page(client: FlaskClient, name: str) -> TestResponse:
    return client.post(f"/admin/roles/{name}/delete")


Create = Callable[[FlaskClient, str, list[str]], TestResponse]
Delete = Callable[[FlaskClient, str], TestResponse]
both_create = pytest.mark.parametrize("create", [by_call, by_page])
both_delete = pytest.mark.parametrize("delete", [delete_by_call, delete_by_page])


def test_a_role_is_added_given_and_deleted(site: Flask, admin: FlaskClient) -> None:
    """The way of the README's auditor."""
    added = by_call(admin, "auditor", ["audit:read"])
    assert added.status_code == 201
    assert added.get_json() == {
        "name": "auditor",
        "description": "",
        "permissions": ["audit:read"],
    }
    person = sign_up(site)
    client = signed_in_as(site, EMAIL)
    assert client.get("/admin/audit").status_code == 403
    body = {"roles": ["auditor", "user"]}
    assert admin.put(f"/api/v1/users/{person}/roles", json=body).status_code == 200
    assert client.get("/admin/audit").status_code == 200
    assert delete_by_call(admin, "auditor").status_code == 204
    assert client.get("/admin/audit").status_code == 403
    assert client.get("/api/v1/me").get_json()["roles"] == ["user"]
    assert [role["name"] for role in admin.get(API).get_json()["roles"]] == ["admin", "user"]
    problem(delete_by_call(admin, "auditor"), 404, "not_found")


@both_create
def test_the_record_says_who_added_a_role_and_who_deleted_it(
    site: Flask, admin: FlaskClient, create: Create
) -> None:
    assert create(admin, "helper", ["users:read"]).status_code in {201, 303}
    delete = delete_by_call if create is by_call else delete_by_page
    assert delete(admin, "helper").status_code in {204, 303}
    for event in ("role.created", "role.deleted"):
        (entry,) = services_of(site).audit.page(which=Filter(event=event)).entries
        assert entry.actor is not None
        assert (entry.actor.email, entry.address) == (ROOT, "127.0.0.1")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "no name", "permissions": []}, "name"),
        ({"name": "Admin", "permissions": []}, "name"),
        ({"name": "x", "permissions": ["users:reed"]}, "permissions"),
        ({"name": "x", "permissions": ["\0"]}, "permissions"),
        ({"name": "x" * 20_000, "permissions": []}, "name"),
        ({"name": "x"}, "permissions"),
        ({"name": "x", "permissions": [], "description": "?"}, "description"),
    ],
)
def test_a_role_that_can_not_be_added(
    site: Flask, admin: FlaskClient, body: dict[str, object], field: str
) -> None:
    answer = admin.post(API, json=body)
    assert list(problem(answer, 400, "invalid_field")["errors"]) == [field]
    assert len(answer.text) < 2_000
    assert names(site) == ["admin", "user"]


@both_create
def test_nobody_adds_a_role_that_allows_more(site: Flask, create: Create) -> None:
    services_of(site).roles.create("grants", ["roles:grant", "users:read"])
    sign_up(site, ACTOR, roles=["grants"])
    client = signed_in_as(site, ACTOR)
    assert create(client, "same", ["users:read"]).status_code in {201, 303}
    refused = create(client, "more", ["users:read", "audit:read"])
    assert refused.status_code == 403
    assert "allows more than you may do yourself" in refused.text
    if create is by_call:
        problem(refused, 403, "exceeds_own_permissions")
    assert names(site) == ["admin", "grants", "same", "user"]


# what stands in the way of a deletion by somebody with roles:grant and users:read, and its code
OBSTACLES: dict[str, tuple[Callable[[Flask], str], int, str]] = {
    "it is built in": (lambda _: "admin", 409, "built_in_role"),
    "sign-up gives it": (lambda _: "user", 409, "built_in_role"),
    "it allows more": (
        lambda app: services_of(app).roles.create("more", ["audit:read"]).name,
        *(403, "exceeds_own_permissions"),
    ),
    "an administrator holds it": (
        lambda app: grant_role(services_of(app), ROOT, "plain").value.roles[-1],
        *(403, "exceeds_own_permissions"),
    ),
    "the actor holds it": (
        lambda app: grant_role(services_of(app), ACTOR, "plain").value.roles[-1],
        *(403, "own_account"),
    ),
}


@both_delete
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_role_that_one_may_not_delete(site: Flask, delete: Delete, obstacle: str) -> None:
    for name, permissions in {"grants": ["roles:grant", "users:read"], "plain": []}.items():
        services_of(site).roles.create(name, permissions)
    sign_up(site, ACTOR, roles=["grants"])
    stands, status, code = OBSTACLES[obstacle]
    name = stands(site)
    before = names(site)
    answer = delete(signed_in_as(site, ACTOR), name)
    assert answer.status_code == status, answer.text
    if delete is delete_by_call:
        problem(answer, status, code)
    else:
        assert answer.text.count('role="alert"') == 1
    assert names(site) == before
    assert services_of(site).audit.page(which=Filter(event="role.revoked")).entries == []


def test_while_redis_takes_no_fence_a_deletion_says_so(
    site: Flask, admin: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    services_of(site).roles.create("helper", [])
    sign_up(site, roles=["helper"])
    lose_fences(site, monkeypatch)
    answer = delete_by_call(admin, "helper")
    assert answer.status_code == 202
    assert answer.get_json()["effective_within"] > 0


# -- the page --------------------------------------------------------------------------------------


def test_the_page_lists_adds_and_deletes(site: Flask, admin: FlaskClient) -> None:
    done = by_page(admin, "helper", ["users:read", "users:write"])
    assert done.status_code == 303
    page = Page(admin.get(done.location))
    assert "The role was added." in page.text
    assert "helper" in page.text
    links = [a["href"] for a in page.all("a") if a["href"].endswith("/delete")]
    assert links == ["/admin/roles/helper/delete"], "what is built in has none"
    sign_up(site, roles=["helper"])
    asked = Page(admin.get(links[0]))
    assert "1 person holds it" in asked.text
    assert names(site) == ["admin", "helper", "user"], "to look deletes nothing"
    done = admin.post(links[0])
    assert done.status_code == 303
    assert "The role was deleted" in Page(admin.get(done.location)).text
    assert admin.get(links[0]).status_code == 404


def test_a_form_that_is_refused_keeps_what_was_typed(admin: FlaskClient) -> None:
    answer = by_page(admin, "no name", ["users:write"])
    assert answer.status_code == 400
    page = Page(answer)
    assert page.by_id("name")["value"] == "no name"
    assert page.by_id("name")["aria-invalid"] == "true"
    ticked = [a["value"] for a in page.all("input") if "checked" in a]
    assert ticked == ["users:write"]


def test_the_page_offers_no_permission_that_one_lacks(site: Flask) -> None:
    services_of(site).roles.create("grants", ["roles:grant", "users:read"])
    services_of(site).roles.create("more", ["audit:read"])
    sign_up(site, ACTOR, roles=["grants"])
    page = Page(signed_in_as(site, ACTOR).get("/admin/roles"))
    boxes = [a["value"] for a in page.all("input") if a["type"] == "checkbox"]
    assert boxes == ["users:read", "roles:grant"]
    links = [a["href"] for a in page.all("a") if a["href"].endswith("/delete")]
    assert links == ["/admin/roles/grants/delete"]


@both_create
def test_another_site_adds_no_role(site: Flask, admin: FlaskClient, create: Create) -> None:
    admin.environ_base["HTTP_SEC_FETCH_SITE"] = "cross-site"
    assert create(admin, "helper", []).status_code == 403
    assert names(site) == ["admin", "user"]
