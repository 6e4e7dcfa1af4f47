"""The OpenAPI 3.1 description of the JSON API, made from the records its calls read and answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec
from flask import Flask

from authapp import errors
from authapp.web import rate_limits
from authapp.web.error_handlers import CHALLENGE, REFUSED, answer_to

PREFIX = "/api/v1"
Needs = Literal["nobody", "somebody", "permission"]
View = TypeVar("View", bound=Callable[..., Any])

_WHO = {
    "nobody": (),
    "somebody": (errors.NotAuthenticated,),
    "permission": (errors.NotAuthenticated, errors.Forbidden),
}


class ProblemBody(msgspec.Struct, kw_only=True):
    """What went wrong (RFC 9457). Switch on `code`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class LaterAnswer(msgspec.Struct):
    """The change is made; other instances follow within so many seconds."""

    effective_within: int


@dataclass(frozen=True, slots=True)
class Value:
    """A parameter or a header: what it is for, its JSON Schema, and whether it is always there."""

    text: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    required: bool = False


_RETRY_AFTER = Value(
    "seconds to wait before asking again", {"type": "integer", "minimum": 1}, required=True
)
_LIMITS = {name: Value(text) for name, text in rate_limits.HEADERS.items()}
_OF_FAILURES = {
    401: {
        "WWW-Authenticate": Value(
            f"`{CHALLENGE}`; with `{REFUSED}` if it was an access token that was refused",
            required=True,
        )
    },
    429: {"Retry-After": _RETRY_AFTER},
    503: {"Retry-After": _RETRY_AFTER},
}


@dataclass(frozen=True, slots=True)
class Call:
    """What a call of the API does, for who reads about it.

    Attributes:
        summary: a line for people.
        answers: status → the record in the body, the records one of which is, None for no body.
        needs: who may call it at all.
        body: the record it reads.
        query: its parameters by name.
        headers: of its answers by name; none is on all of them.
        fails: errors of its own, beside those that all calls may have.
        changes: it changes something, which may take effect later (202).
    """

    summary: str
    answers: Mapping[int, type | tuple[type, ...] | None]
    needs: Needs = "somebody"
    body: type[msgspec.Struct] | None = None
    query: Mapping[str, Value] = field(default_factory=dict)
    headers: dict[str, Value] = field(default_factory=dict)
    fails: Sequence[type[errors.AuthappError]] = ()
    changes: bool = False


_CALLS: dict[Callable[..., Any], Call] = {}


def described(call: Call) -> Callable[[View], View]:
    """Says what a view does. Outermost, so that Flask knows the view it names."""

    def note(view: View) -> View:
        _CALLS[view] = call
        return view

    return note


@dataclass(frozen=True, slots=True)
class Operation:
    """A call where it can be reached.

    Attributes:
        path: as OpenAPI writes it, `/api/v1/users/{user_id}`.
        parameters: names in the path.
    """

    name: str
    method: str
    path: str
    parameters: tuple[str, ...]
    call: Call


def operations(app: Flask) -> Iterator[Operation]:
    """All calls of the API that are described, which a test says are all of ours."""
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        if view not in _CALLS:  # of somebody else, whatever its address and name are
            continue
        path = rule.rule.replace("<uuid:", "{").replace(">", "}")
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Operation(
                rule.endpoint.rpartition(".")[2],
                method,
                path,
                tuple(sorted(rule.arguments)),
                _CALLS[view],
            )


def document(app: Flask, cookie: str, version: str, mount_point: str = "") -> dict[str, Any]:
    """The description, ready for JSON.

    Args:
        cookie: the name of the session cookie.
        mount_point: what all paths are under; empty for the root of the host.
    """
    found = sorted(operations(app), key=lambda o: (o.path, o.method))
    records: set[type] = {ProblemBody, LaterAnswer}
    for operation in found:
        for answer in operation.call.answers.values():
            records |= set(_one_of(answer))
        records |= {operation.call.body} if operation.call.body else set()
    ordered = sorted(records, key=lambda record: record.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for operation in found:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "authapp",
            "version": version,
            "description": (
                "Sessions, accounts and roles. Bodies are JSON objects, times are RFC 3339 in UTC, "
                "errors are application/problem+json with a `code` to switch on. Who sends the "
                "cookie with an unsafe method, and is no browser, adds `X-Requested-With`."
            ),
        },
        "servers": [{"url": mount_point or "/"}],
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


def _operation(operation: Operation) -> dict[str, Any]:
    call = operation.call
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.path.removeprefix(PREFIX).split("/")[1]],
        "summary": call.summary,
        "responses": _responses(call),
    }
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "format": "uuid"},
        }
        for name in operation.parameters
    ] + [{"name": name, "in": "query", **_value(value)} for name, value in call.query.items()]
    if parameters:
        described["parameters"] = parameters
    if call.body:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(call.body)}},
        }
    if call.needs != "nobody":
        described["security"] = [{"cookie": []}, {"bearer": []}, {"header": []}]
    return described


def _responses(call: Call) -> dict[str, Any]:
    limited = _LIMITS if errors.TooManyAttempts in call.fails else {}
    answers = dict(call.answers)
    if call.changes:
        answers[202] = LaterAnswer
    found: dict[str, Any] = {
        str(status): _answer(_one_of(answer)) | _headers(call.headers | limited)
        for status, answer in answers.items()
    }
    problem = {"application/problem+json": {"schema": _reference(ProblemBody)}}
    for status, codes in sorted(_failures(call).items()):
        found[str(status)] = {
            "description": "code: " + ", ".join(f"`{code}`" for code in sorted(codes)),
            "content": problem,
            **_headers(_OF_FAILURES.get(status, {}) | (limited if status == 429 else {})),
        }
    return found


def _one_of(answer: type | tuple[type, ...] | None) -> tuple[type, ...]:
    if answer is None:
        return ()
    return answer if isinstance(answer, tuple) else (answer,)


def _answer(records: tuple[type, ...]) -> dict[str, Any]:
    if not records:
        return {"description": "Done."}
    described = [(record.__doc__ or "").strip().split("\n")[0] for record in records]
    references = [_reference(record) for record in records]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {
        "description": " Or: ".join(described),
        "content": {"application/json": {"schema": schema}},
    }


def _headers(told: Mapping[str, Value]) -> dict[str, Any]:
    found = {
        name: _value(value) | ({"required": True} if value.required else {})
        for name, value in told.items()
    }
    return {"headers": found} if found else {}


def _value(value: Value) -> dict[str, Any]:
    return {"description": value.text, "schema": dict(value.schema)}


def _failures(call: Call) -> dict[int, set[str]]:
    """Status → codes."""
    kinds = {errors.StoreUnavailable, errors.TwoIdentities, errors.TooManyTokens}
    kinds |= {*_WHO[call.needs], *call.fails}
    if call.body:
        kinds |= {errors.InvalidJson, errors.InvalidField}
    if call.changes or call.body:
        kinds.add(errors.CrossOrigin)
    found: dict[int, set[str]] = {}
    for kind in kinds:
        for status, code in answer_to(kind):
            found.setdefault(status, set()).add(code)
    if call.body:
        found[413] = {"request_entity_too_large"}
        found[415] = {"unsupported_media_type"}
    return found


def _reference(record: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{record.__name__}"}
