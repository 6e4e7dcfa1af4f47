"""The JSON API for people who can't log in: a forgotten password, and the link to another."""

import msgspec
from flask import Response, request

from authapp import errors
from authapp.web.api.account import EmailField, NewPassword
from authapp.web.api.bodies import read_body
from authapp.web.api.description import Operation, documents
from authapp.web.api.representations import MailAnswer, json_response
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import services, unknown_actor
from authapp.web.middleware.request_log import note_user
from authapp.web.rate_limits import rate_limit_of_errors, tell_rate_limit
from authapp.web.session.auth_session import auth_session


class ForgotBody(msgspec.Struct, forbid_unknown_fields=True):
    email: EmailField


class ResetBody(msgspec.Struct, forbid_unknown_fields=True):
    token: str
    new_password: NewPassword


recovery_api = OwnBlueprint("recovery_api", __name__, url_prefix="/api/v1")


@recovery_api.post("/password/forgot")
@documents(
    Operation(
        "Mails a link to a new password, if an account has this email. The answer does not tell",
        {202: MailAnswer},
        "nobody",
        ForgotBody,
        fails=[errors.MailOff, errors.TooManyAttempts, errors.UnknownAddress, errors.Busy],
    )
)
def forgot_password() -> Response:
    body = read_body(request, ForgotBody)
    with rate_limit_of_errors():
        window = services().forgotten_passwords.forgot(body.email, unknown_actor())
    tell_rate_limit(window)
    return json_response(MailAnswer("check_mail"), 202)


@recovery_api.post("/password/reset")
@documents(
    Operation(
        "Sets a new password by a token, which counts once: all sessions end",
        {204: None},
        "nobody",
        ResetBody,
        fails=[errors.InvalidToken, errors.TooManyAttempts, errors.UnknownAddress, errors.Busy],
        changes=True,
    )
)
def reset_password() -> tuple[str, int]:
    body = read_body(request, ResetBody)
    with rate_limit_of_errors():
        changed, window = services().password_resets.reset(
            body.token, body.new_password, unknown_actor()
        )
    tell_rate_limit(window)
    note_user(request.environ, auth_session().settle(changed))
    return "", 204
