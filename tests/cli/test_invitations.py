"""`invitations` and `users verify`: what they do, and what they say."""

import re
from collections.abc import Iterator

import pytest
from flask import Flask

from authapp import Config, create_app
from tests.cli.test_commands import done, refused
from tests.support.people import EMAIL
from tests.web.support import PASSWORD, program, services_of


@pytest.fixture
def app(config: Config) -> Iterator[Flask]:
    app = create_app(config)
    yield app
    services_of(app).close()


LINK = re.compile(r"^Link, shown only now: /signup/(\S{43})$", re.MULTILINE)


def test_an_invitation_is_made_listed_and_revoked(app: Flask) -> None:
    told = done(app, "invitations", "create", "--role", "admin", "--days", "3")
    (token,) = LINK.findall(told)
    (line,) = done(app, "invitations", "list").splitlines()
    assert line.split()[1:3] == ["-", "admin"]
    assert line.endswith("open")
    assert token not in line
    assert done(app, "invitations", "revoke", line.split()[0]) == "Revoked.\n"
    assert "no such open invitation" in refused(app, "invitations", "revoke", line.split()[0])
    assert done(app, "invitations", "list").split()[-1] == "revoked"
    body = {"email": EMAIL, "password": PASSWORD, "invitation": token}
    assert program(app).post("/api/v1/signup", json=body).status_code == 400


def test_an_invitation_for_an_address_is_used_by_it(app: Flask) -> None:
    (token,) = LINK.findall(done(app, "invitations", "create", EMAIL, "--role", "admin"))
    body = {"email": EMAIL, "password": PASSWORD, "invitation": token}
    other = body | {"email": "other@example.org"}
    assert program(app).post("/api/v1/signup", json=other).status_code == 400
    assert program(app).post("/api/v1/signup", json=body).get_json()["roles"] == ["admin"]


def test_an_address_is_confirmed_by_hand(app: Flask) -> None:
    services_of(app).registration.sign_up(EMAIL, PASSWORD)
    assert done(app, "users", "show", EMAIL).endswith("active  unverified\n")
    assert done(app, "users", "verify", EMAIL).endswith("active\n")
    assert done(app, "users", "verify", EMAIL).endswith("active\n"), "again"
    assert done(app, "users", "list").endswith("active\n")
    made = done(app, "users", "create", "new@example.org", "--unverified")
    assert "Created" in made
    assert done(app, "users", "show", "new@example.org").endswith("unverified\n")
