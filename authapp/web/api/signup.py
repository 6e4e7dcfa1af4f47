"""The JSON API of sign-up: a new account, and the confirmation of its address."""

from typing import Annotated

import msgspec
from flask import Response, request

from authapp import errors
from authapp.accounts.identity import Identity
from authapp.authentication.verification import PasswordProof, Verified
from authapp.cache.changes import Changed
from authapp.mail.one_time_links import CODE_DIGITS
from authapp.web.api.account import EmailField, NameField, NewPassword, field_doc
from authapp.web.api.bodies import read_body
from authapp.web.api.description import Operation, documents
from authapp.web.api.factors import RecoveryCodesView
from authapp.web.api.representations import UserView, json_response
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import services, unknown_actor
from authapp.web.middleware.request_log import note_user
from authapp.web.rate_limits import rate_limit_of_errors, tell_rate_limit
from authapp.web.session import password_proof
from authapp.web.session.auth_session import auth_session

MAX_TOKEN = 200  # characters; ours have 43

LinkToken = Annotated[
    str, field_doc("The one in the address that was mailed.", maxLength=MAX_TOKEN)
]
Code = Annotated[
    str, field_doc(f"The {CODE_DIGITS} digits that were mailed with the link.", maxLength=20)
]


class SignupBody(msgspec.Struct, forbid_unknown_fields=True):
    email: EmailField
    password: NewPassword
    name: NameField = ""
    invitation: Annotated[str, field_doc("The token of an invitation.", maxLength=MAX_TOKEN)] = ""


class VerifyBody(msgspec.Struct, forbid_unknown_fields=True):
    """The token of a link alone, or email and code; with the password of the sign-up."""

    token: LinkToken | msgspec.UnsetType = msgspec.UNSET
    email: EmailField | msgspec.UnsetType = msgspec.UNSET
    code: Code | msgspec.UnsetType = msgspec.UNSET
    password: str = ""


class ResendBody(msgspec.Struct, forbid_unknown_fields=True):
    email: EmailField


class CheckMail(msgspec.Struct, frozen=True):
    """A mail says how it goes on, if there is anything to do. The answer is the same if not."""

    status: str = "check_mail"


signup_api = OwnBlueprint("signup_api", __name__, url_prefix="/api/v1")


@signup_api.post("/signup")
@documents(
    Operation(
        "Adds a person who can log in. Where addresses are verified, the answer is 202 for a new "
        "and for a taken email alike, and a mail says how it goes on",
        {201: UserView, 202: CheckMail},
        "nobody",
        SignupBody,
        fails=[
            errors.SignupClosed,
            errors.InvalidInvitation,
            errors.EmailTaken,
            errors.TooManyAttempts,
            errors.UnknownAddress,
            errors.Busy,
        ],
    )
)
def signup() -> Response:
    body = read_body(request, SignupBody)
    with rate_limit_of_errors():
        signed_up = services().registration.sign_up_from(
            unknown_actor(), body.email, body.password, body.name, body.invitation
        )
    tell_rate_limit(signed_up.rate_limit)
    if signed_up.user is None:
        return json_response(CheckMail(), 202)
    note_user(request.environ, signed_up.user.id)
    return json_response(UserView.of(signed_up.user), 201)


@signup_api.post("/email/verify")
@documents(
    Operation(
        "Confirms an email by the link or the code that was mailed, and by the password unless the "
        "browser that signed up, or the session that asked for a change, asks. Recovery codes come "
        "for a person who signed up with a passkey",
        {200: RecoveryCodesView, 204: None},
        "nobody",
        VerifyBody,
        fails=[
            errors.InvalidToken,
            errors.InvalidCredentials,
            errors.EmailTaken,
            errors.TooManyAttempts,
            errors.UnknownAddress,
            errors.Busy,
        ],
        changes=True,
    )
)
def verify_email() -> Response:
    body = read_body(request, VerifyBody)
    with rate_limit_of_errors():
        if changed := _confirm_change(body):
            note_user(request.environ, auth_session().settle(changed).id)
            return Response(status=204)
        verified = auth_session().settle(_confirm(body))
    tell_rate_limit(verified.rate_limit)
    note_user(request.environ, verified.user.id)
    if verified.recovery_codes:
        return json_response(RecoveryCodesView(list(verified.recovery_codes)))
    return Response(status=204)


def _confirm_change(body: VerifyBody) -> Changed[Identity] | None:
    """Confirms a change of email, if the token alone was sent and is of one."""
    changes, token = services().email_changes, body.token
    is_alone = body.email is msgspec.UNSET and body.code is msgspec.UNSET
    if token is msgspec.UNSET or not is_alone or changes.look_up(token) is None:
        return None
    return changes.confirm(token, body.password, auth_session().live, unknown_actor())


def _confirm(body: VerifyBody) -> Changed[Verified]:
    proof, actor = _proof(), unknown_actor()
    token, email, code = body.token, body.email, body.code
    if token is not msgspec.UNSET:
        if email is not msgspec.UNSET or code is not msgspec.UNSET:
            raise errors.InvalidField({"token": "send it alone, or email and code"})
        return services().verification.confirm(token, body.password, proof, actor)
    if email is msgspec.UNSET or code is msgspec.UNSET:
        raise errors.InvalidField({"token": "send it, or email and code"})
    return services().verification.confirm_by_code(email, code, body.password, proof, actor)


def _proof() -> PasswordProof | None:
    kept = password_proof.kept()
    return kept.proof if kept else None


@signup_api.post("/email/resend")
@documents(
    Operation(
        "Mails the link and the code again, if an account with this email waits for them",
        {202: CheckMail},
        "nobody",
        ResendBody,
        fails=[errors.TooManyAttempts, errors.UnknownAddress, errors.MailOff],
    )
)
def resend_email() -> Response:
    body = read_body(request, ResendBody)
    with rate_limit_of_errors():
        tell_rate_limit(services().verification.resend(body.email, unknown_actor()))
    return json_response(CheckMail(), 202)
