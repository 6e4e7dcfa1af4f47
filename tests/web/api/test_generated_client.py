"""A client that a generator makes from the description: it is made without a warning, logs in,
lists sessions and ends them, and tells refusals by their types."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask

from tests.web.support import COOKIE, EMAIL, OTHER_PASSWORD, PASSWORD, program

NAME = "client_made_for_tests"
Import = Callable[[str], Any]


@pytest.fixture(scope="module")
def generated(shared_app: Flask, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Import]:
    """Imports a module of the client."""
    where = tmp_path_factory.mktemp("client")
    described = where / "openapi.json"
    described.write_bytes(program(shared_app).get("/api/v1/openapi.json").data)
    settings = where / "settings.json"
    settings.write_text(json.dumps({"post_hooks": []}))  # no formatting
    made = subprocess.run(
        [
            Path(sys.executable).with_name("openapi-python-client"),
            *("generate", "--fail-on-warning", "--meta", "none"),
            *("--path", described, "--config", settings, "--output-path", where / NAME),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "warning" not in (made.stdout + made.stderr).lower()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(where)
        yield lambda name: import_module(f"{NAME}.{name}")


@pytest.fixture
def reach(app: Flask, generated: Import) -> Callable[..., Any]:
    """A client of the application, with a token or with cookies only."""

    def make(token: str = "") -> Any:
        kinds = generated("client")
        known: dict[str, Any] = {
            "base_url": "https://localhost",
            "raise_on_unexpected_status": True,
            "httpx_args": {"transport": httpx.WSGITransport(app=app)},
        }
        return kinds.AuthenticatedClient(token=token, **known) if token else kinds.Client(**known)

    return make


@pytest.fixture
def call(generated: Import) -> Callable[..., Any]:
    """Makes a call; what was answered, in its type."""

    def make(name: str, client: Any, *args: object, **kwargs: object) -> Any:
        return generated(f"api.{name}").sync(*args, client=client, **kwargs)

    return make


def credentials(models: Any, kind: str, password: str = PASSWORD) -> Any:
    return getattr(models, kind)(email=EMAIL, password=password)


def test_a_program_logs_in_and_ends_sessions(
    generated: Import, reach: Callable[..., Any], call: Callable[..., Any], person: str
) -> None:
    models = generated("models")
    first, second = (
        call("tokens.issue_token", reach(), body=credentials(models, "TokenBody")) for _ in range(2)
    )
    assert isinstance(first, models.TokenAnswer)
    mine = reach(first.access_token)
    me = call("me.me", mine)
    assert isinstance(me, models.MeView)
    assert (str(me.id), me.email) == (person, EMAIL)

    listed = call("me.my_sessions", mine).sessions
    assert [session.kind for session in listed] == ["api", "api"]
    [other] = [session for session in listed if not session.current]
    assert call("me.end_my_session", mine, other.id) is None
    assert [session.current for session in call("me.my_sessions", mine).sessions] == [True]

    gone = call("me.me", reach(second.access_token))
    assert isinstance(gone, models.ProblemBody)
    assert (gone.status, gone.code) == (401, "session_invalid")


def test_a_cookie_logs_in_and_out(
    generated: Import, reach: Callable[..., Any], call: Callable[..., Any], person: str
) -> None:
    models = generated("models")
    client = reach()
    answer = call("login.login", client, body=credentials(models, "LoginBody"))
    assert isinstance(answer, models.LoginAnswer)
    assert answer.session.current
    assert COOKIE in client.get_httpx_client().cookies
    assert call("me.me", client).email == EMAIL
    assert call("logout.logout", client) is None
    assert call("me.me", client).code == "session_missing"


def test_a_refusal_is_a_problem(
    generated: Import, reach: Callable[..., Any], call: Callable[..., Any], person: str
) -> None:
    models = generated("models")
    wrong = credentials(models, "LoginBody", OTHER_PASSWORD)
    assert call("login.login", reach(), body=wrong).code == "invalid_credentials"
    taken = credentials(models, "SignupBody")
    assert call("signup.signup", reach(), body=taken).code == "email_taken"
    told = call("signup.signup", reach(), body=models.SignupBody(email="x", password="x"))
    assert set(told.errors.additional_properties) == {"email", "password"}
    token = call("tokens.issue_token", reach(), body=credentials(models, "TokenBody")).access_token
    assert call("users.users", reach(token)).code == "forbidden"
    assert call("users.user", reach(token), person).email == EMAIL
