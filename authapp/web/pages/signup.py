"""The pages of sign-up: the form, also for people who were invited, and the confirmation of the
address by a link or a code."""

from collections.abc import Callable
from typing import Any

from flask import make_response, redirect, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug import Response
from wtforms import Form

from authapp.authentication.registration import SignedUp
from authapp.authentication.verification import PasswordProof, Verified
from authapp.cache.changes import Changed
from authapp.errors import (
    Busy,
    EmailTaken,
    EmailUnverified,
    InvalidCredentials,
    InvalidField,
    InvalidInvitation,
    InvalidToken,
    SignupClosed,
    StoreUnavailable,
    TooManyAttempts,
)
from authapp.web.blueprint import OwnBlueprint
from authapp.web.csrf import from_hidden_origin, is_origin_hidden
from authapp.web.guards import services, unknown_actor
from authapp.web.middleware.request_log import note_user
from authapp.web.pages.address import confirm_change, confirm_change_page, pending_change
from authapp.web.pages.forms import ConfirmEmailForm, ResendForm, SignupForm, show_errors, text
from authapp.web.pages.messages import (
    CONFIRM_FIRST,
    DONE,
    INVALID_LINK,
    too_busy,
    too_many_attempts,
)
from authapp.web.pages.notices import redirect_with, say
from authapp.web.pages.rendering import render_page
from authapp.web.rate_limits import rate_limit_of_errors, tell_rate_limit
from authapp.web.session import mailed_links, password_proof
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import log_in_proved, next_target, start_url, will_lose_cookie

signup_pages = OwnBlueprint("signup", __name__)

_LOGIN = "authapp.pages.login"


def come_back_page(
    template: str, form: Form, error: TooManyAttempts | Busy, **values: Any
) -> Response:
    """The form again, with what was typed, saying when there is room for another attempt."""
    is_limit = isinstance(error, TooManyAttempts)
    problem = (too_many_attempts if is_limit else too_busy)(error.retry_after)
    page = render_page(template, form=form, problem=problem, **values)
    answer = make_response(page, 429 if is_limit else 503)
    answer.headers["Retry-After"] = str(error.retry_after)
    return answer


# -- sign up -----------------------------------------------------------------------------------


@signup_pages.get("/signup")
def signup() -> ResponseReturnValue:
    if services().registration.policy.needs_invitation:
        return closed_page()
    return signup_page(SignupForm())


@signup_pages.post("/signup")
def signup_submit() -> ResponseReturnValue:
    if services().registration.policy.needs_invitation:
        return closed_page()
    return _sign_up("")


@signup_pages.get("/signup/<invitation>")
def invited(invitation: str) -> ResponseReturnValue:
    try:
        found = services().invitations.find_open(invitation)
    except InvalidInvitation:
        return closed_page(INVALID_LINK["invitation"], 400)
    except SignupClosed:
        return closed_page()
    mailed_links.refer_nobody()
    return signup_page(SignupForm(data={"email": found.email_canonical}))


@signup_pages.post("/signup/<invitation>")
@from_hidden_origin
def invited_submit(invitation: str) -> ResponseReturnValue:
    mailed_links.refer_nobody()
    return _sign_up(invitation)


def signup_page(form: SignupForm, **values: Any) -> str:
    return render_page("authapp/signup.html", form=form, **_shown_beside(), **values)


def _shown_beside() -> dict[str, Any]:
    """The values of the page beside its form."""
    invitation = (request.view_args or {}).get("invitation")
    rule = "" if invitation else services().registration.policy.rule
    return {"rule": rule, "invitation": invitation}


def closed_page(problem: str = "", status: int = 403) -> tuple[str, int]:
    rule = problem or services().registration.policy.rule
    return render_page("authapp/signup_closed.html", rule=rule), status


def _sign_up(invitation: str) -> ResponseReturnValue:
    form = SignupForm()
    if not form.validate():
        return signup_page(form), 400

    def act() -> SignedUp:
        return services().registration.sign_up_from(
            unknown_actor(),
            text(form.email),
            text(form.password),
            text(form.name),
            invitation,
        )

    return answer_sign_up(form, act)


def answer_sign_up(
    form: SignupForm, act: Callable[[], SignedUp], **values: Any
) -> ResponseReturnValue:
    """The answer to a sign-up: the form again, which says what is wrong with it, or the next page.

    Args:
        form: as it is shown again.
        act: the sign-up.
        values: for the form's page, if it is shown again.
    """
    try:
        with rate_limit_of_errors():
            signed_up = act()
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return signup_page(form, **values), 400
    except SignupClosed:
        if services().registration.policy.needs_invitation:
            return closed_page()
        show_errors(form, {"email": services().registration.policy.rule})
        return signup_page(form, **values), 403
    except InvalidInvitation:
        show_errors(form, {"email": INVALID_LINK["invitation"]})
        return signup_page(form, **values), 400
    except EmailTaken:
        show_errors(form, {"email": "somebody has signed up with this email; log in instead"})
        return signup_page(form, **values), 409
    except (TooManyAttempts, Busy) as error:
        return come_back_page("authapp/signup.html", form, error, **_shown_beside(), **values)
    tell_rate_limit(signed_up.rate_limit)
    return _go_on(signed_up)


def _go_on(signed_up: SignedUp) -> ResponseReturnValue:
    """Logs the person in, or leads to the page that waits for the confirmation."""
    if signed_up.user is None:
        if not is_origin_hidden(request):  # else another site may have typed the password
            password_proof.keep(signed_up.proof, signed_up.email.stored, next_target())
        return redirect(url_for("authapp.signup.verify", next=next_target()), 303)
    note_user(request.environ, signed_up.user.id)
    is_logged_in = not is_origin_hidden(request)
    if is_logged_in:
        try:
            log_in_proved(
                signed_up.user, signed_up.proof.epoch, method="sign-up", amr=signed_up.amr
            )
        except (InvalidCredentials, StoreUnavailable):  # the account is there all the same
            is_logged_in = False
    if signed_up.recovery_codes:
        onward = _onward() if is_logged_in else url_for(_LOGIN, next=next_target())
        message = DONE["welcome" if is_logged_in else "signed-up"]
        return _codes_page(signed_up.recovery_codes, onward, message)
    if not is_logged_in:
        return redirect_with("signed-up", _LOGIN, next=next_target())
    return _welcome("welcome")


def _onward() -> str:
    """Where it goes on after a log-in. If the browser will drop the cookie, the log-in page says
    so."""
    onward = next_target() or start_url()
    return url_for(_LOGIN, next=onward, cookie="sent") if will_lose_cookie() else onward


def _welcome(notice: str) -> ResponseReturnValue:
    """Leads on after a log-in, and says what was done."""
    if not will_lose_cookie():
        say(notice)
    return redirect(_onward(), 303)


def _codes_page(codes: tuple[str, ...], onward: str, message: str) -> str:
    """The only page that ever shows them. They are of somebody who has no password."""
    return render_page(
        "authapp/recovery_codes.html",
        codes=codes,
        onward=onward,
        message=message,
        is_passwordless=True,
    )


# -- confirm the address -----------------------------------------------------------------------


@signup_pages.get("/verify")
def verify() -> ResponseReturnValue:
    """A page with a button; a link alone uses nothing up, because mail scanners follow links."""
    if "token" in request.args:
        kept = password_proof.kept()
        onward = kept.onward if kept else ""
        return mailed_links.set_aside(
            "verify", request.args["token"], f"{request.endpoint}", onward
        )
    if pending := pending_change():
        return confirm_change_page(pending)
    return _verify_page(_confirm_form())


@signup_pages.post("/verify")
@from_hidden_origin
def verify_submit() -> ResponseReturnValue:
    if pending := pending_change():
        return confirm_change(pending)
    form, proof = ConfirmEmailForm(), _proof()
    try:
        with rate_limit_of_errors():
            changed = _confirm(form, proof)
    except InvalidToken:
        mailed_links.drop("verify")
        return _verify_page(form, problem=INVALID_LINK["verify"]), 400
    except InvalidField as invalid:
        if "password" in invalid.errors:
            password_proof.drop()  # it is of another account, or of an earlier sign-up
        show_errors(form, invalid.errors)
        return _verify_page(form), 400
    except InvalidCredentials:
        show_errors(form, {"password": "this is not the password that you signed up with"})
        return _verify_page(form, asks_password=True), 401
    except (TooManyAttempts, Busy) as error:
        mailed_links.refer_nobody()
        return come_back_page("authapp/verify.html", form, error, **_shown())
    verified = auth_session().settle(changed)
    tell_rate_limit(verified.rate_limit)
    mailed_links.drop("verify")
    password_proof.drop()
    if verified.recovery_codes:  # of somebody who signed up with a passkey
        login = url_for(_LOGIN, next=next_target())
        return _codes_page(verified.recovery_codes, login, DONE["confirmed"])
    if is_origin_hidden(request) or not verified.has_password:
        return redirect_with("confirmed", _LOGIN, next=next_target())
    log_in_proved(verified.user, verified.epoch, method="verification")
    return _welcome("verified")


@signup_pages.post("/verify/resend")
@from_hidden_origin
def resend() -> ResponseReturnValue:
    form = ResendForm()
    if not form.validate():
        return _verify_page(_confirm_form(), resend=form), 400
    try:
        with rate_limit_of_errors():
            window = services().verification.resend(text(form.email), unknown_actor())
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _verify_page(_confirm_form(), resend=form), 400
    except TooManyAttempts as error:
        mailed_links.refer_nobody()
        return come_back_page("authapp/verify.html", _confirm_form(), error, **_shown())
    tell_rate_limit(window)
    mailed_links.drop("verify")
    return redirect_with("resent", ".verify", next=next_target())


def unconfirmed_page(error: EmailUnverified, email: str) -> str:
    """The page that a log-in leads to while the address waits for its confirmation."""
    password_proof.keep(PasswordProof(error.user_id, error.epoch), email, next_target())
    return _verify_page(_confirm_form(), problem=CONFIRM_FIRST)


def _confirm(form: ConfirmEmailForm, proof: PasswordProof | None) -> Changed[Verified]:
    password, actor = text(form.password), unknown_actor()
    if token := mailed_links.waiting("verify"):
        return services().verification.confirm(token, password, proof, actor)
    if not text(form.code):
        raise InvalidField({"code": "enter the code from the mail"})
    return services().verification.confirm_by_code(
        text(form.email), text(form.code), password, proof, actor
    )


def _proof() -> PasswordProof | None:
    kept = password_proof.kept()
    return kept.proof if kept else None


def _confirm_form() -> ConfirmEmailForm:
    kept = password_proof.kept()
    return ConfirmEmailForm({"email": kept.email if kept else ""}, is_sent=False)


def _shown(*, asks_password: bool = False) -> dict[str, Any]:
    return {
        "has_link": bool(mailed_links.waiting("verify")),
        "asks_password": asks_password or password_proof.kept() is None,
        "resend": ResendForm({"email": text(_confirm_form().email)}, is_sent=False),
    }


def _verify_page(
    form: ConfirmEmailForm,
    *,
    problem: str = "",
    asks_password: bool = False,
    resend: ResendForm | None = None,
) -> str:
    mailed_links.refer_nobody()
    values = _shown(asks_password=asks_password)
    if resend is not None:
        values["resend"] = resend
    return render_page("authapp/verify.html", form=form, problem=problem, **values)
