"""How a session was proven, as everybody is told who may know: guarded apps, an app that embeds us,
the person, and programs that read their access token."""

from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp import current_user, login_required
from authapp.assertions import Verifier
from tests.web.conftest import MakeApp
from tests.web.factors import API, code_of, enrol, waiting
from tests.web.support import (
    COOKIE,
    Stores,
    browser,
    program,
    sign_up,
    signed_in_as,
    token_of,
)

ISSUER, SITE = "http://localhost", "https://app.example.org"
ASKED = {
    "/forward-auth/nginx": {"X-Original-URL": f"{SITE}/"},
    "/forward-auth/redirect": {},
    "/forward-auth/envoy/page": {},
}


def proof_of_current_user() -> dict[str, Any]:
    return {
        "amr": list(current_user.amr),
        "level": current_user.assurance_level,
        "time": int(current_user.auth_time.timestamp()),
    }


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    app = make_app(PUBLIC_URL=ISSUER)
    app.add_url_rule("/shop/proof", "proof", login_required(proof_of_current_user))
    sign_up(app)
    return app


def ask(app: Flask, token: str, path: str, demand: str = "") -> dict[str, Any]:
    """The proof that a guarded app is told, by the proxy of this path."""
    headers = {"Cookie": f"{COOKIE}={token}", **ASKED[path]}
    if "envoy" in path:
        path = path.replace("/page", f"{demand}/page")
    elif demand:
        path = f"{path}{demand.replace(';', '?', 1).replace(';', '&')}"
    answer = program(app).get(path, headers=headers)
    assert answer.status_code in {200, 403}
    told = answer.headers
    return {
        "amr": told["Remote-Amr"].split(","),
        "level": int(told["Remote-Assurance-Level"]),
        "time": int(told["Remote-Auth-Time"]),
    }


def everything_told(app: Flask, client: FlaskClient) -> list[dict[str, Any]]:
    token = token_of(client)
    shown = [ask(app, token, path) for path in ASKED for _ in range(2)]  # read, and remembered
    shown += [ask(app, token, path, ";role=admin") for path in ASKED]  # refused
    shown.append(client.get("/shop/proof").get_json())
    (own,) = [s for s in client.get(f"{API}/me/sessions").get_json()["sessions"] if s["current"]]
    for record in (client.get(f"{API}/me").get_json(), own):
        when = datetime.fromisoformat(record["auth_time"])
        said = {"amr": record["amr"], "level": record["assurance_level"]}
        shown.append({**said, "time": int(when.timestamp())})
    return shown


def test_each_session_tells_its_own_proof(app: Flask, stores: Stores) -> None:
    plain, begun = signed_in_as(app), int(datetime.now(UTC).timestamp())
    for told in everything_told(app, plain):
        assert (told["amr"], told["level"]) == (["pwd"], 1)
        assert abs(told["time"] - begun) < 60

    # the set-up of an app proves a second factor, in a session that began by the password alone
    authenticator, _ = enrol(plain, stores)
    stores.age_proofs(3_600)
    for told in everything_told(app, plain):
        assert (told["amr"], told["level"]) == (["pwd", "otp"], 2)
        assert 3_540 < begun - told["time"] < 3_660

    # a step-up moves the time
    shown = {"method": "totp", "code": code_of(authenticator, stores)}
    assert plain.post(f"{API}/me/confirm", json=shown).status_code == 204
    for told in everything_told(app, plain):
        assert (told["amr"], told["level"]) == (["pwd", "otp"], 2)
        assert abs(told["time"] - begun) < 60


def test_two_sessions_of_one_person_are_told_apart(app: Flask, stores: Stores) -> None:
    first, second = signed_in_as(app), signed_in_as(app)
    stores.sql(
        "SET LOCAL authapp.fenced = 'on'; UPDATE sessions SET amr = '{hwk,user}', ver = ver + 1"
        " WHERE created_at = (SELECT max(created_at) FROM sessions)"
    )
    stores.redis.flushall()
    for _ in range(3):
        assert ask(app, token_of(first), "/forward-auth/nginx")["level"] == 1
        assert ask(app, token_of(second), "/forward-auth/nginx")["level"] == 2


def test_an_assertion_says_it_and_not_what_was_before(app: Flask, stores: Stores) -> None:
    keys = program(app).get("/.well-known/jwks.json").get_json()
    client = signed_in_as(app)

    def asserted() -> tuple[tuple[str, ...], int, int]:
        headers = {"Cookie": f"{COOKIE}={token_of(client)}", **ASKED["/forward-auth/nginx"]}
        answer = program(app).get("/forward-auth/nginx?assertion=1", headers=headers)
        found = Verifier(ISSUER, SITE, keys).verify(answer.headers["Remote-Assertion"], "GET")
        assert str(found.auth_time) == answer.headers["Remote-Auth-Time"]
        return found.amr, found.assurance_level, found.auth_time

    amr, level, when = asserted()
    assert (amr, level) == (("pwd",), 1)
    stores.sql(
        "SET LOCAL authapp.fenced = 'on';"
        " UPDATE sessions SET amr = '{pwd,otp}', proved_at = now() + interval '5 s', ver = ver + 1"
    )
    stores.redis.flushall()
    amr, level, later = asserted()
    assert (amr, level) == (("pwd", "otp"), 2)
    assert later > when


def test_an_access_token_says_it(app: Flask, stores: Stores) -> None:
    authenticator, _ = enrol(signed_in_as(app), stores)
    half = waiting(app, path="/tokens")
    shown = {"login_token": half["login_token"], "method": "totp"}
    shown["code"] = code_of(authenticator, stores)
    text = program(app).post(f"{API}/login/factor", json=shown).get_json()["access_token"]
    claims = jwt.decode(text, options={"verify_signature": False})
    assert claims["amr"] == ["pwd", "otp"]
    assert abs(claims["auth_time"] - claims["iat"]) < 60
    bearer = {"Authorization": f"Bearer {text}"}
    told = program(app).get("/forward-auth/nginx", headers=bearer).headers
    assert (told["Remote-Amr"], told["Remote-Assurance-Level"]) == ("pwd,otp", "2")
    assert browser(app).get(f"{API}/me", headers=bearer).get_json()["assurance_level"] == 2
