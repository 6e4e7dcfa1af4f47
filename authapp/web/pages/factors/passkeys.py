"""The pages of passkeys: log-in by one, step-up by one, and one's own. A small script fills their
forms in; it asks for options here, so that the pages need no API."""

from typing import TypeVar
from uuid import UUID

import msgspec
from flask import redirect, url_for
from flask.typing import ResponseReturnValue
from wtforms import HiddenField, StringField
from wtforms.validators import Length

from authapp.accounts.profiles import MAX_NAME
from authapp.authentication.factors.check import ShownFactor
from authapp.authentication.factors.passkeys.json_forms import (
    MAX_CREDENTIAL,
    AuthenticationCredential,
    RegistrationCredential,
)
from authapp.authentication.factors.passkeys.passkeys import HeldPasskey
from authapp.errors import (
    EmailUnverified,
    FactorNeeded,
    InvalidField,
    InvalidPasskey,
    LoginExpired,
    NoSuchPasskey,
    PasskeyTaken,
    TooManyAttempts,
    UnknownPasskey,
)
from authapp.web.api.representations import json_response
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import known_actor, login_required, require_live, services, step_up_required
from authapp.web.pages.confirm import confirm_page, confirmed
from authapp.web.pages.factors.login import show_factor
from authapp.web.pages.forms import LoginForm, PageForm, show_errors, text
from authapp.web.pages.messages import DONE, REFUSED_PASSKEY, UNKNOWN_PASSKEY
from authapp.web.pages.notices import redirect_with
from authapp.web.pages.rendering import Question, ask, render_page
from authapp.web.pages.signup import come_back_page, unconfirmed_page
from authapp.web.rate_limits import rate_limit_of_errors
from authapp.web.session import login_token
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import (
    count_unreadable,
    counted_if_unreadable,
    log_in_visitor_by_passkey,
    next_target,
    start_url,
    will_lose_cookie,
)

passkey_pages = OwnBlueprint("passkeys", __name__)

T = TypeVar("T", AuthenticationCredential, RegistrationCredential)
_HOME = "authapp.security.security"


class PasskeyForm(PageForm):
    """The answer of an authenticator, in the JSON form of WebAuthn."""

    longest = 3 * MAX_CREDENTIAL  # bytes; a form escapes quotes and braces

    credential = HiddenField()
    name = StringField(
        "Name (optional)",
        description="So that you know it again, like “My phone”.",
        validators=[Length(max=MAX_NAME, message=f"Use at most {MAX_NAME} characters.")],
    )
    remember = HiddenField()
    next = HiddenField()

    def read(self, kind: type[T]) -> T:
        """
        Raises:
            InvalidField: it is no such credential.
        """
        sent = text(self.credential)
        try:
            if len(sent) <= MAX_CREDENTIAL:
                return msgspec.json.decode(sent, type=kind)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            pass
        raise InvalidField({"credential": "your browser sent no passkey; reload the page"})


# -- log in ------------------------------------------------------------------------------------


@passkey_pages.post("/login/passkey/options")
def login_options() -> ResponseReturnValue:
    return json_response(services().passkey_login.options())


@passkey_pages.post("/login/passkey")
def login_submit() -> ResponseReturnValue:
    services().passkeys.expect_on()
    with counted_if_unreadable():
        form = PasskeyForm()
    page = LoginForm({"next": text(form.next)}, is_sent=False)
    try:
        credential = form.read(AuthenticationCredential)
    except InvalidField as invalid:
        count_unreadable()
        show_errors(page, invalid.errors)
        return render_page("authapp/login.html", form=page), 400
    try:
        log_in_visitor_by_passkey(credential, remember=bool(text(form.remember)))
    except InvalidPasskey as error:
        is_unknown = isinstance(error, UnknownPasskey)
        answer = render_page(
            "authapp/login.html",
            form=page,
            problem=UNKNOWN_PASSKEY if is_unknown else REFUSED_PASSKEY,
            unknown_passkey=credential.id if is_unknown else None,
            rp_id=services().passkey_login.options().rp_id,
        )
        return answer, 401
    except EmailUnverified as error:
        return unconfirmed_page(error, ""), 403
    except TooManyAttempts as error:
        return come_back_page("authapp/login.html", page, error)
    onward = next_target() or start_url()
    if will_lose_cookie():
        onward = url_for("authapp.pages.login", next=onward, cookie="sent")
    return redirect(onward, 303)


# -- confirm -----------------------------------------------------------------------------------


@passkey_pages.post("/account/confirm/passkey/options")
@login_required
def confirm_options() -> ResponseReturnValue:
    return json_response(services().passkeys.request_options(require_live()))


@passkey_pages.post("/account/confirm/passkey")
@login_required
def confirm_submit() -> ResponseReturnValue:
    services().passkeys.expect_on()
    form = PasskeyForm()
    try:
        shown = ShownFactor("passkey", credential=form.read(AuthenticationCredential))
        with rate_limit_of_errors():
            changed = services().step_up.confirm_by_factor(require_live(), shown, known_actor())
    except InvalidField as invalid:
        return confirm_page(invalid.errors), 400
    return confirmed(changed)


# -- second factor -----------------------------------------------------------------------------


@passkey_pages.post("/login/factor/passkey/options")
def factor_options() -> ResponseReturnValue:
    kept = login_token.kept()
    if kept is None:
        raise LoginExpired("no log-in waits in this browser")
    return json_response(services().passkey_login.second_factor_options(kept.token))


@passkey_pages.post("/login/factor/passkey")
def factor_submit() -> ResponseReturnValue:
    services().passkeys.expect_on()
    form = PasskeyForm()
    try:
        credential = form.read(AuthenticationCredential)
    except InvalidField:
        credential = None
    return show_factor(ShownFactor("passkey", credential=credential))


# -- one's own ---------------------------------------------------------------------------------


@passkey_pages.post("/account/passkeys/options")
@step_up_required
def creation_options() -> ResponseReturnValue:
    return json_response(services().passkeys.creation_options(require_live()))


@passkey_pages.get("/account/passkeys/add")
@step_up_required
def add() -> ResponseReturnValue:
    services().passkeys.expect_on()
    return _add_page(PasskeyForm())


@passkey_pages.post("/account/passkeys/add")
@step_up_required
def add_submit() -> ResponseReturnValue:
    services().passkeys.expect_on()
    form = PasskeyForm()
    if not form.validate():
        return _add_page(form), 400
    try:
        credential = form.read(RegistrationCredential)
        changed = services().passkeys.enrol(
            require_live(), credential, text(form.name), known_actor()
        )
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _add_page(form), 400
    except PasskeyTaken as error:
        show_errors(form, {"credential": str(error)})
        return _add_page(form), 409
    added = auth_session().settle(changed)
    auth_session().rotate(added.issued)
    if added.recovery_codes:
        return render_page(
            "authapp/recovery_codes.html",
            codes=added.recovery_codes,
            onward=url_for(_HOME),
            message=DONE["passkey-added"],
        )
    return redirect_with("passkey-added", _HOME)


def _add_page(form: PasskeyForm) -> str:
    return render_page("authapp/passkey_add.html", form=form)


@passkey_pages.get("/account/passkeys/<uuid:passkey_id>/name")
@step_up_required
def name(passkey_id: UUID) -> ResponseReturnValue:
    held = _held(passkey_id)
    return render_page("authapp/passkey_name.html", form=PasskeyForm(data={"name": held.name}))


@passkey_pages.post("/account/passkeys/<uuid:passkey_id>/name")
@step_up_required
def name_submit(passkey_id: UUID) -> ResponseReturnValue:
    _held(passkey_id)
    form = PasskeyForm()
    try:
        if not form.validate():
            return render_page("authapp/passkey_name.html", form=form), 400
        services().passkeys.rename(require_live(), passkey_id, text(form.name))
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return render_page("authapp/passkey_name.html", form=form), 400
    return redirect_with("passkey-renamed", _HOME)


@passkey_pages.get("/account/passkeys/<uuid:passkey_id>/remove")
@step_up_required
def remove(passkey_id: UUID) -> ResponseReturnValue:
    return ask(_question(_held(passkey_id)))


@passkey_pages.post("/account/passkeys/<uuid:passkey_id>/remove")
@step_up_required
def remove_submit(passkey_id: UUID) -> ResponseReturnValue:
    held = _held(passkey_id)
    try:
        changed = services().passkeys.remove(require_live(), passkey_id, known_actor())
    except FactorNeeded as error:
        return ask(_question(held), str(error)), 409
    auth_session().rotate(auth_session().settle(changed))
    return redirect_with("passkey-removed", _HOME)


def _held(passkey_id: UUID) -> HeldPasskey:
    mine = services().passkeys.of(require_live().record.user.id)
    held = next((passkey for passkey in mine if passkey.id == passkey_id), None)
    if held is None:
        raise NoSuchPasskey("this person has no such passkey")
    return held


def _question(held: HeldPasskey) -> Question:
    return Question(
        heading="Remove this passkey?",
        sentences=[
            f"Nobody can log in by {held.name} any more, and your other devices are signed out.",
            "Your device may go on to show it. Then remove it there, too.",
        ],
        button="Remove",
        action=url_for(".remove_submit", passkey_id=held.id),
        back=url_for(_HOME),
    )
