"""The OpenAPI 3.1 description of the JSON API, made from the records its views read and answer."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal, TypeVar, cast

import msgspec
from flask import Flask, request

from authapp import errors
from authapp.web import rate_limits
from authapp.web.api.bodies import NoFields, has_body, read_body
from authapp.web.csrf import SAFE_METHODS
from authapp.web.error_handlers import REFUSED, answer_to
from authapp.web.guards import require_live
from authapp.web.request_credentials import CHALLENGE

PREFIX = "/api/v1"
NEW_PASSWORD = "password"  # noqa: S105 — the format of a field for a password to be chosen
Needs = Literal["nobody", "somebody", "permission"]
View = TypeVar("View", bound=Callable[..., Any])

_WHO = {
    "nobody": (),
    "somebody": (errors.NotAuthenticated,),
    "permission": (errors.NotAuthenticated, errors.Forbidden),
}


class ProblemBody(msgspec.Struct, kw_only=True):
    """An error (RFC 9457). Switch on `code`.

    Attributes:
        errors: the reason by field, for `invalid_field`.
        reset_token: for `password_change_required`: what `POST /password/reset` takes.
        login_token: for `second_factor_required`: what `POST /login/factor` takes.
        methods: for `second_factor_required`: by which the person can go on.
        expires_in: seconds that the login token counts.
        enrols: whether the person must set up a factor first, by `POST /login/factor/totp`.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    reset_token: str | msgspec.UnsetType = msgspec.UNSET
    login_token: str | msgspec.UnsetType = msgspec.UNSET
    methods: list[str] | msgspec.UnsetType = msgspec.UNSET
    expires_in: int | msgspec.UnsetType = msgspec.UNSET
    enrols: bool | msgspec.UnsetType = msgspec.UNSET


class LaterAnswer(msgspec.Struct):
    """The change is made; other instances follow within so many seconds."""

    effective_within: int


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter or a header: what it is for, its JSON Schema, and whether it is always there."""

    text: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False


_RETRY_AFTER = Parameter(
    "seconds to wait before asking again", {"type": "integer", "minimum": 1}, required=True
)
_LIMITS = {name: Parameter(text) for name, text in rate_limits.HEADERS.items()}
_FAILURE_HEADERS = {
    401: {
        "WWW-Authenticate": Parameter(
            f"`{CHALLENGE}`; with `{REFUSED}` if it was an access token that was refused",
            required=True,
        )
    },
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of the API as its documentation shows it.

    Attributes:
        summary: a line for people.
        answers: status → the record in the body, the records of which one is, or None for no body.
        needs: who may call it at all.
        body: the record it reads.
        query: its query parameters, by name.
        headers: headers of its answers, by name; no answer needs to have them.
        fails: errors of its own, beside those that every operation may have.
        changes: it changes something, and the change may take effect later (202).
    """

    summary: str
    answers: Mapping[int, type | tuple[type, ...] | None]
    needs: Needs = "somebody"
    body: type[msgspec.Struct] | None = None
    query: Mapping[str, Parameter] = field(default_factory=dict)
    headers: dict[str, Parameter] = field(default_factory=dict)
    fails: Sequence[type[errors.AuthappError]] = ()
    changes: bool = False


_OPERATIONS: dict[Callable[..., Any], Operation] = {}


def documents(operation: Operation) -> Callable[[View], View]:
    """Document a view. This decorator comes outermost, so that Flask knows the view it names.

    A call that reads no body refuses one with anything in it, so that no field is ignored.
    """

    def note(view: View) -> View:
        known = view if operation.body else _without_fields(view, operation)
        _OPERATIONS[known] = operation
        return known

    return note


def _without_fields(view: View, operation: Operation) -> View:
    @wraps(view)
    def checked(*args: Any, **named: Any) -> Any:
        if has_body(request):
            if operation.needs != "nobody":
                require_live()  # 401 comes first, as in calls that read a body
            read_body(request, NoFields)
        return view(*args, **named)

    return cast("View", checked)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An operation at the address where it can be reached.

    Attributes:
        path: as OpenAPI writes it, `/api/v1/users/{user_id}`.
        parameters: those in the path, with their JSON Schema.
    """

    name: str
    method: str
    path: str
    parameters: Mapping[str, Mapping[str, str]]
    operation: Operation


_IN_PATH = re.compile(r"<(?:(\w+):)?(\w+)>")  # a parameter in the path as Werkzeug writes it
_IN_PATH_SCHEMAS = {"": {"type": "string"}, "uuid": {"type": "string", "format": "uuid"}}


def endpoints(app: Flask, prefix: str = "") -> Iterator[Endpoint]:
    """All documented operations of the API. A test holds that each of our views is one.

    Args:
        prefix: what the app mounts the API under.
    """
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if view not in _OPERATIONS:  # another app's view, whatever its address and name are
            continue
        found = _IN_PATH.findall(rule.rule)
        path = _IN_PATH.sub(r"{\2}", rule.rule.removeprefix(prefix))
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Endpoint(
                rule.endpoint.rpartition(".")[2],
                method,
                path,
                {name: _IN_PATH_SCHEMAS[converter] for converter, name in sorted(found)},
                _OPERATIONS[view],
            )


def document(
    app: Flask,
    cookie: str,
    version: str,
    prefix: str = "",
    server: str = "",
    *,
    least_password: int,
) -> dict[str, Any]:
    """The description, ready for JSON.

    Args:
        cookie: the name of the session cookie.
        prefix: what the app mounts the API under.
        server: what all paths are under, as clients see it; empty for the root of the host.
        least_password: the least characters of a new password.
    """
    found = sorted(endpoints(app, prefix), key=lambda e: (e.path, e.method))
    records: set[type] = {ProblemBody, LaterAnswer}
    for endpoint in found:
        for answer in endpoint.operation.answers.values():
            records |= set(_one_of(answer))
        records |= {endpoint.operation.body} if endpoint.operation.body else set()
    ordered = sorted(records, key=lambda record: record.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        for value in schema.get("properties", {}).values():
            if value.get("format") == NEW_PASSWORD:
                value["minLength"] = least_password
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in found:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _endpoint(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "authapp",
            "version": version,
            "description": (
                "Sessions, accounts and roles. Bodies are JSON objects, times are RFC 3339 in UTC, "
                "errors are application/problem+json with a `code` to switch on."
            ),
        },
        "servers": [{"url": server or "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "cookie": {"type": "apiKey", "in": "cookie", "name": cookie},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Access-Token"},
            },
        },
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    operation = endpoint.operation
    documented: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.path.removeprefix(PREFIX).split("/")[1]],
        "summary": operation.summary,
        "responses": _responses(endpoint),
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in endpoint.parameters.items()
    ] + [
        {"name": name, "in": "query", **_parameter(value)}
        for name, value in operation.query.items()
    ]
    if parameters:
        documented["parameters"] = parameters
    if operation.body:
        documented["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(operation.body)}},
        }
    if operation.needs != "nobody":
        documented["security"] = [{"cookie": []}, {"bearer": []}, {"header": []}]
    return documented


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    operation = endpoint.operation
    limited = _LIMITS if errors.TooManyAttempts in operation.fails else {}
    answers = dict(operation.answers)
    if operation.changes:
        answers[202] = LaterAnswer
    found: dict[str, Any] = {
        str(status): _answer(_one_of(answer)) | _headers(operation.headers | limited)
        for status, answer in answers.items()
    }
    problem = {"application/problem+json": {"schema": _reference(ProblemBody)}}
    for status, codes in sorted(_failures(endpoint).items()):
        found[str(status)] = {
            "description": "code: " + ", ".join(f"`{code}`" for code in sorted(codes)),
            "content": problem,
            **_headers(_FAILURE_HEADERS.get(status, {}) | (limited if status == 429 else {})),
        }
    return found


def _one_of(answer: type | tuple[type, ...] | None) -> tuple[type, ...]:
    if answer is None:
        return ()
    return answer if isinstance(answer, tuple) else (answer,)


def _answer(records: tuple[type, ...]) -> dict[str, Any]:
    if not records:
        return {"description": "Done."}
    documented = [(record.__doc__ or "").strip().split("\n")[0] for record in records]
    references = [_reference(record) for record in records]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {
        "description": " Or: ".join(documented),
        "content": {"application/json": {"schema": schema}},
    }


def _headers(headers: Mapping[str, Parameter]) -> dict[str, Any]:
    found = {
        name: _parameter(value) | ({"required": True} if value.required else {})
        for name, value in headers.items()
    }
    return {"headers": found} if found else {}


def _parameter(value: Parameter) -> dict[str, Any]:
    return {"description": value.text, "schema": dict(value.schema)}


def _failures(endpoint: Endpoint) -> dict[int, set[str]]:
    """Status → codes."""
    operation = endpoint.operation
    kinds = {errors.StoreUnavailable, errors.TwoIdentities, errors.TooManyTokens}
    kinds |= {errors.InvalidJson, errors.InvalidField, *_WHO[operation.needs], *operation.fails}
    if endpoint.method not in SAFE_METHODS:
        kinds.add(errors.CrossOrigin)
    found = {413: {"request_entity_too_large"}, 415: {"unsupported_media_type"}}
    for kind in kinds:
        for status, code in answer_to(kind):
            found.setdefault(status, set()).add(code)
    return found


def _reference(record: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{record.__name__}"}
