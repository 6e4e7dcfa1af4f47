"""The description of the API: valid, whole, and what the calls really do."""

import re
from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import OpenAPIV31SpecValidator

from authapp.web.api.description import Endpoint, endpoints
from tests.support.people import grant_role
from tests.web.support import EMAIL, Page, browser, log_in, sign_up

NOBODY = str(UUID(int=7))


@pytest.fixture
def described(app: Flask) -> dict[str, Any]:
    answer = browser(app).get("/api/v1/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    found: dict[str, Any] = answer.get_json()
    return found


def endpoints_of(app: Flask) -> list[Endpoint]:
    return sorted(endpoints(app), key=lambda e: (e.path, e.method))


def ask(client: FlaskClient, endpoint: Endpoint, body: object | None = None) -> Any:
    path = re.sub(r"\{\w+\}", NOBODY, endpoint.path)
    json = {} if body is None and endpoint.operation.body else body
    return client.open(path, method=endpoint.method, json=json)


def test_it_is_valid(described: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(described).validate()


def test_every_call_is_described(app: Flask, described: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith("/api/v1/") and not rule.endpoint.startswith("authapp.api_docs.")
    }
    assert len(routes) >= 15
    assert routes == {(path, m) for path, methods in described["paths"].items() for m in methods}


def administrator(app: Flask) -> FlaskClient:
    """A browser in which an administrator is signed in."""
    sign_up(app)
    grant_role(app.extensions["authapp"].services, EMAIL, "admin")
    client = browser(app)
    log_in(client)
    return client


def test_bodies_are_what_is_read(app: Flask, described: dict[str, Any]) -> None:
    client = administrator(app)
    seen = 0
    for endpoint in endpoints_of(app):
        if endpoint.operation.body is None:
            continue
        answer = ask(client, endpoint, {"no_such_field": 1})
        assert answer.status_code == 400, endpoint
        known = answer.get_json()["errors"]["no_such_field"].partition("known are: ")[2]
        schema = described["components"]["schemas"][endpoint.operation.body.__name__]
        assert known.split(", ") == list(schema["properties"]), endpoint
        assert schema["additionalProperties"] is False
        missing = set(answer.get_json()["errors"]) - {"no_such_field"}
        assert missing == set(schema["required"]), endpoint
        seen += 1
    assert seen >= 6


NO_FIELDS = (
    ("[]", "application/json", 400, "invalid_json"),
    ("no JSON", "application/json", 400, "invalid_json"),
    ('{"no_such_field": 1}', "application/json", 400, "invalid_field"),
    ("{}", "text/plain", 415, "unsupported_media_type"),
)


def test_calls_without_a_body_refuse_one(app: Flask, described: dict[str, Any]) -> None:
    client = administrator(app)
    seen = 0
    for endpoint in endpoints_of(app):
        if endpoint.operation.body is not None:
            continue
        path = re.sub(r"\{\w+\}", NOBODY, endpoint.path)
        told = described["paths"][endpoint.path][endpoint.method.lower()]["responses"]
        for body, kind, status, code in NO_FIELDS:
            for chunked in (False, True):
                stream = {"input_stream": BytesIO(body.encode())} if chunked else {"data": body}
                headers = {"Transfer-Encoding": "chunked"} if chunked else {}
                answer = client.open(
                    path,
                    method=endpoint.method,
                    content_type=kind,
                    headers=headers,
                    environ_overrides={"wsgi.input_terminated": True} if chunked else {},
                    **stream,
                )
                assert (answer.status_code, answer.get_json()["code"]) == (status, code), endpoint
                assert f"`{code}`" in told[str(status)]["description"], endpoint
        seen += 1
    assert seen >= 20
    assert client.get("/api/v1/me").status_code == 200, "nothing was done"
    assert client.get("/api/v1/me", json={}).status_code == 200
    assert client.post("/api/v1/logout", data="", content_type="text/plain").status_code == 204


def test_a_body_is_looked_at_after_who_asks(app: Flask) -> None:
    for endpoint in endpoints_of(app):
        path = re.sub(r"\{\w+\}", NOBODY, endpoint.path)
        answer = browser(app).open(path, method=endpoint.method, json=[])
        expected = 400 if endpoint.operation.needs == "nobody" else 401
        assert answer.status_code == expected, endpoint


def test_unsafe_calls_may_be_cross_origin(described: dict[str, Any]) -> None:
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            forbidden = told["responses"].get("403", {"description": ""})["description"]
            assert ("`cross_origin`" in forbidden) is (method != "get"), (method, path)


@pytest.mark.parametrize("who", ["nobody", "user", "admin"])
def test_answers_are_described(app: Flask, described: dict[str, Any], who: str) -> None:
    """Whatever comes back, with whatever code, was announced."""
    sign_up(app)
    if who == "admin":
        grant_role(app.extensions["authapp"].services, EMAIL, "admin")
    for number, endpoint in enumerate(endpoints_of(app)):
        client = browser(app)
        client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"  # each has a limit of its own
        if who != "nobody":
            assert log_in(client).status_code == 303
        answer = ask(client, endpoint)
        if (endpoint.method, endpoint.path, answer.status_code) == ("DELETE", "/api/v1/me", 204):
            sign_up(app)  # again, for the calls to come
        told = described["paths"][endpoint.path][endpoint.method.lower()]
        announced = told["responses"].get(str(answer.status_code))
        assert announced is not None, (endpoint, answer.status_code)
        if answer.status_code >= 400:
            assert f"`{answer.get_json()['code']}`" in announced["description"], endpoint
        if answer.status_code == 401:
            assert set(announced["headers"]) == {"WWW-Authenticate"} <= set(answer.headers.keys())
        if who == "nobody" and endpoint.operation.needs != "nobody":
            assert answer.status_code == 401, endpoint
            assert told["security"] == [{"cookie": []}, {"bearer": []}, {"header": []}]
        if who == "user" and endpoint.operation.needs == "permission":
            assert answer.status_code == 403, endpoint


def test_each_answer_is_explained(described: dict[str, Any]) -> None:
    seen = 0
    for path, methods in described["paths"].items():
        for told in methods.values():
            for status, answer in told["responses"].items():
                assert answer["description"], (path, status)
                if status in {"429", "503"}:
                    assert answer["headers"]["Retry-After"]["required"], (path, status)
                    seen += 1
    assert seen >= 20


def test_what_is_asked_of_fields_is_told(described: dict[str, Any]) -> None:
    fields = described["components"]["schemas"]["SignupBody"]["properties"]
    assert fields["email"]["format"] == "email"
    assert (fields["password"]["minLength"], fields["password"]["maxLength"]) == (15, 128)
    assert fields["name"]["maxLength"] == 100
    [limit] = [
        parameter["schema"]
        for parameter in described["paths"]["/api/v1/users"]["get"]["parameters"]
        if parameter["name"] == "limit"
    ]
    assert limit == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}


def test_people_can_read_it(app: Flask) -> None:
    page = browser(app).get("/api/v1/").get_data(as_text=True)
    for endpoint in endpoints_of(app):
        assert f"{endpoint.method} {endpoint.path}" in page
    assert "<dd>how many, 1 to 200; 50 if left out</dd>" in page


def test_the_page_has_contents_that_lead_to_all_of_it(app: Flask) -> None:
    page = Page(browser(app).get("/api/v1/"))
    ids = {a["id"] for _, a in page.elements if "id" in a}
    leads = {a["href"].removeprefix("#") for a in page.all("a") if a["href"].startswith("#")}
    assert leads <= ids
    assert {endpoint.name for endpoint in endpoints_of(app)} <= leads
    assert {a["id"] for a in page.all("h3")} <= leads, "each record"
