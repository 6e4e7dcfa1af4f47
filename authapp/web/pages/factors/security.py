"""The security page: how one logs in, where one is signed in, what happened; one's own factors."""

from typing import cast

from flask import redirect, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from authapp.accounts.audit import Entry, Event, Filter
from authapp.authentication.factors import totp as totp_codes
from authapp.authentication.factors.set_up import ProposedSecret
from authapp.errors import FactorNeeded, FactorsOff, InvalidField, NoFactor
from authapp.web.api.representations import SessionView
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import (
    known_actor,
    login_required,
    require_live,
    services,
    step_up_required,
)
from authapp.web.pages.forms import FactorForm, show_errors, text
from authapp.web.pages.messages import DONE, FACTORS_HAPPENED, HAPPENED
from authapp.web.pages.notices import redirect_with
from authapp.web.pages.rendering import Question, ask, render_page
from authapp.web.session.auth_session import auth_session

security_pages = OwnBlueprint("security", __name__)

_SESSIONS = 3  # that the page shows; all are on a page of their own
_EVENTS = 8


@security_pages.get("/account/security")
@login_required
def security() -> ResponseReturnValue:
    record = require_live().record
    user_id = record.user.id
    sessions = [SessionView.of(s, current=record.id) for s in services().sessions.of_user(user_id)]
    sessions.sort(key=lambda s: not s.current)
    events = services().audit.page(limit=_EVENTS, which=Filter(user_ids=[user_id])).entries
    return render_page(
        "authapp/security.html",
        held=services().factors.of(user_id),
        passkeys=services().passkeys.of(user_id),
        accepted=services().passkeys.accepted(user_id),
        has_factors=_has_library(),
        sessions=sessions[:_SESSIONS],
        more_sessions=len(sessions[_SESSIONS:]),
        events=events,
        happened=_happened,
    )


def _happened(entry: Entry) -> str:
    """The name of an event, as its person reads it."""
    factor = FACTORS_HAPPENED.get(entry.details.get("what", ""))
    return factor or HAPPENED.get(cast(Event, entry.event), entry.event)


@security_pages.get("/account/security/totp")
@step_up_required
def totp() -> ResponseReturnValue:
    return _totp_page(FactorForm())


@security_pages.post("/account/security/totp")
@step_up_required
def totp_submit() -> ResponseReturnValue:
    form = FactorForm()
    if not form.validate():
        return _totp_page(form), 400
    try:
        changed = services().factors.confirm_totp(require_live(), text(form.code), known_actor())
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _totp_page(form), 400
    added = auth_session().settle(changed)
    auth_session().rotate(added.issued)
    if added.recovery_codes:
        return _codes_page(added.recovery_codes, DONE["app-set-up"])
    return redirect_with("app-set-up", ".security")


def _totp_page(form: FactorForm) -> str:
    """The page with the secret that waits. Loaded again, it shows the same one."""
    live = require_live()
    totp_codes.require_library()
    proposed = services().factors.proposed_totp(live) or services().factors.propose_totp(live)
    form.ask_app_code()
    return render_page(
        "authapp/totp.html",
        form=form,
        set_up=proposed,
        qr_code=_qr_code(proposed),
        is_replacement=services().factors.of(live.record.user.id).totp_since is not None,
    )


@security_pages.get("/account/security/totp/remove")
@step_up_required
def remove_totp() -> ResponseReturnValue:
    return ask(_remove_question())


@security_pages.post("/account/security/totp/remove")
@step_up_required
def remove_totp_submit() -> ResponseReturnValue:
    try:
        changed = services().factors.remove_totp(require_live(), known_actor())
    except NoFactor:
        return redirect(url_for(".security"), 303)
    except FactorNeeded as error:
        return ask(_remove_question(), str(error)), 409
    auth_session().rotate(auth_session().settle(changed))
    return redirect_with("app-removed", ".security")


def _remove_question() -> Question:
    return Question(
        heading="Remove the authenticator app?",
        sentences=[
            "Log-ins no longer ask for its code. Without another second factor your recovery codes "
            "are void, too.",
            "Your other devices are signed out.",
        ],
        button="Remove it",
        action=url_for(".remove_totp_submit"),
        back=url_for(".security"),
    )


@security_pages.get("/account/security/password/remove")
@step_up_required
def remove_password() -> ResponseReturnValue:
    services().passkeys.expect_on()
    return ask(_password_question())


@security_pages.post("/account/security/password/remove")
@step_up_required
def remove_password_submit() -> ResponseReturnValue:
    try:
        changed = services().passwordless.remove_password(require_live(), known_actor())
    except NoFactor:
        return redirect(url_for(".security"), 303)
    except FactorNeeded as error:
        return ask(_password_question(), str(error)), 409
    auth_session().rotate(auth_session().settle(changed))
    return redirect_with("password-removed", ".security")


def _password_question() -> Question:
    lost = "set a password by “Forgot your password?”, and log in with it and a recovery code."
    return Question(
        heading="Remove your password?",
        sentences=[
            "You then log in with your passkeys alone. Nobody can guess one, or trick you into "
            "giving it away.",
            "Keep your recovery codes at hand. If you lose your passkeys, "
            + (lost if services().outbox.enabled else "whoever runs this service helps you."),
            "Your other devices are signed out.",
        ],
        button="Remove it",
        action=url_for(".remove_password_submit"),
        back=url_for(".security"),
    )


@security_pages.get("/account/security/recovery-codes")
@step_up_required
def recovery_codes() -> ResponseReturnValue:
    question = Question(
        heading="Make new recovery codes?",
        sentences=["The ones you have count no more."],
        button="Make new ones",
        action=url_for(".recovery_codes_submit"),
        back=url_for(".security"),
    )
    return ask(question)


@security_pages.post("/account/security/recovery-codes")
@step_up_required
def recovery_codes_submit() -> ResponseReturnValue:
    try:
        changed = services().factors.make_recovery_codes(require_live(), known_actor())
    except NoFactor:
        return redirect(url_for(".security"), 303)
    return _codes_page(auth_session().settle(changed))


def _codes_page(codes: tuple[str, ...] | list[str], message: str = "") -> str:
    """The only page that ever shows them."""
    return render_page(
        "authapp/recovery_codes.html", codes=codes, onward=url_for(".security"), message=message
    )


def _qr_code(proposed: ProposedSecret) -> Markup:
    return Markup(totp_codes.qr_code(proposed.otpauth_uri))  # noqa: S704 - made by us


def _has_library() -> bool:
    try:
        totp_codes.require_library()
    except FactorsOff:
        return False
    return True
