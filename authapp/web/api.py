"""The JSON API, `/api/v1`."""

import msgspec
from flask import Blueprint, Response, request

from authapp.identity import Identity
from authapp.sessions import Live, SessionSummary
from authapp.web.bodies import read_body
from authapp.web.guards import auth_session, client, require_live, services
from authapp.web.representations import LoginAnswer, SessionView, json_response

MAX_BODY = 64 * 1024  # bytes


class SignupBody(msgspec.Struct):
    email: str
    password: str
    name: str = ""


class LoginBody(msgspec.Struct):
    email: str
    password: str
    remember: bool = False


api = Blueprint("api", __name__, url_prefix="/api/v1")


@api.before_request
def bound_body() -> None:
    request.max_content_length = MAX_BODY


@api.post("/signup")
def signup() -> Response:
    body = read_body(request, SignupBody)
    user = services().authentication.sign_up(body.email, body.password, body.name)
    return json_response(user, 201)


@api.post("/login")
def login() -> Response:
    body = read_body(request, LoginBody)
    visitor = auth_session()
    live = services().authentication.log_in(
        body.email,
        body.password,
        client(),
        remember=body.remember,
        replaces=visitor.presented,
    )
    visitor.begin(live)
    return json_response(LoginAnswer(live.record.user, _view(live)))


@api.post("/logout")
def logout() -> tuple[str, int]:
    visitor = auth_session()
    if visitor.presented:
        services().authentication.log_out(visitor.presented, client())
        visitor.forget()
    return "", 204


@api.get("/me")
def me() -> Response:
    user: Identity = require_live().record.user
    return json_response(user)


def _view(live: Live) -> SessionView:
    record, here = live.record, client()
    summary = SessionSummary(
        record.id,
        record.kind,
        record.created_at,
        record.last_seen_at,
        record.expires_at,
        here.address,
        here.user_agent,
    )
    return SessionView.of(summary, current=record.id)
