"""The JSON API, `/api/v1`."""

from typing import TypeVar
from uuid import UUID

import msgspec
from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from authapp.sessions import EndReason, Live, SessionSummary
from authapp.web.bodies import read_body
from authapp.web.guards import (
    auth_session,
    client,
    leave,
    require_live,
    services,
)
from authapp.web.representations import (
    LoginAnswer,
    SessionList,
    SessionView,
    UserView,
    json_response,
)

MAX_BODY = 64 * 1024  # bytes


class SignupBody(msgspec.Struct):
    email: str
    password: str
    name: str = ""


class LoginBody(msgspec.Struct):
    email: str
    password: str
    remember: bool = False


class ProfileBody(msgspec.Struct):
    name: str | msgspec.UnsetType = msgspec.UNSET
    image: str | msgspec.UnsetType = msgspec.UNSET


class PasswordBody(msgspec.Struct):
    current_password: str
    new_password: str


T = TypeVar("T")


def given(value: T | msgspec.UnsetType) -> T | None:
    """What the body says; None where it says nothing."""
    return None if value is msgspec.UNSET else value


api = Blueprint("api", __name__, url_prefix="/api/v1")


@api.before_request
def bound_body() -> None:
    request.max_content_length = MAX_BODY


@api.post("/signup")
def signup() -> Response:
    body = read_body(request, SignupBody)
    user = services().authentication.sign_up(body.email, body.password, body.name)
    return json_response(UserView.of(user), 201)


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
    return json_response(LoginAnswer(UserView.of(live.record.user), _view(live)))


@api.post("/logout")
def logout() -> tuple[str, int]:
    leave()
    return "", 204


@api.get("/me")
def me() -> Response:
    return json_response(UserView.of(require_live().record.user))


@api.patch("/me")
def update_me() -> Response:
    user = require_live().record.user
    body = read_body(request, ProfileBody)
    changed = services().authentication.update_profile(user.id, given(body.name), given(body.image))
    return json_response(UserView.of(changed))


@api.post("/me/password")
def change_password() -> tuple[str, int]:
    live = require_live()
    body = read_body(request, PasswordBody)
    fresh = services().authentication.change_password(
        live, body.current_password, body.new_password, client()
    )
    auth_session().begin(fresh)
    return "", 204


@api.get("/me/sessions")
def my_sessions() -> Response:
    record = require_live().record
    found = services().sessions.of_user(record.user.id)
    return json_response(SessionList([SessionView.of(s, current=record.id) for s in found]))


@api.delete("/me/sessions/<uuid:session_id>")
def end_my_session(session_id: UUID) -> tuple[str, int]:
    record = require_live().record
    own = session_id == record.id
    why = EndReason.LOGOUT if own else EndReason.REVOKED_BY_USER
    if not services().sessions.end_one(record.user.id, session_id, why, client()):
        raise NotFound("There is no such session.")
    if own:
        auth_session().forget()
    return "", 204


@api.delete("/me/sessions")
def end_my_other_sessions() -> tuple[str, int]:
    services().sessions.end_others(require_live(), EndReason.REVOKED_BY_USER, client())
    return "", 204


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
