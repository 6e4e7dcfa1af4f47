"""People with an authenticator app, in the web tests."""

from datetime import UTC, datetime
from typing import Any

from flask import Flask
from flask.testing import FlaskClient

from tests.support import passkeys
from tests.support.authenticator import Authenticator
from tests.web.support import EMAIL, PASSWORD, Stores, program, signed_in_as

API = "/api/v1"


def code_of(app: Authenticator, stores: Stores) -> str:
    """A code that counts now. No test waits half a minute for the next one."""
    stores.sql("UPDATE totp_secrets SET last_step = 0")
    return app.code(datetime.now(UTC))


def enrol(client: FlaskClient, stores: Stores) -> tuple[Authenticator, list[str]]:
    """Sets an authenticator app up by the API; the recovery codes come along."""
    secret = client.post(f"{API}/me/factors/totp").get_json()["secret"]
    app = Authenticator(secret)
    answer = client.post(f"{API}/me/factors/totp/confirm", json={"code": code_of(app, stores)})
    assert answer.status_code == 200, answer.text
    return app, answer.get_json()["recovery_codes"]


def enrolled(app: Flask, stores: Stores, email: str = EMAIL) -> tuple[Authenticator, list[str]]:
    """As `enrol`, for somebody who has signed up."""
    return enrol(signed_in_as(app, email), stores)


def waiting(app: Flask, email: str = EMAIL, path: str = "/login", **more: Any) -> dict[str, Any]:
    """A log-in by the API that waits for its second factor."""
    answer = program(app).post(API + path, json={"email": email, "password": PASSWORD, **more})
    assert answer.status_code == 401, answer.text
    found: dict[str, Any] = answer.get_json()
    assert found["code"] == "second_factor_required"
    return found


def add_passkey(client: FlaskClient, name: str) -> None:
    """Adds a passkey by the API, at a site whose PUBLIC_URL is `http://localhost`."""
    options = client.post(f"{API}/me/passkeys/options").get_json()
    passkey = passkeys.Authenticator("http://localhost").create(options)
    body = {"credential": passkey, "name": name}
    answer = client.post(f"{API}/me/passkeys", json=body)
    assert answer.status_code == 201, answer.text
