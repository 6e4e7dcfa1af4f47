"""The pages about one's email: the change, and the way back."""

from flask import request, url_for
from flask.typing import ResponseReturnValue

from authapp.authentication.email_changes import PendingChange
from authapp.errors import EmailTaken, InvalidCredentials, InvalidField, InvalidToken
from authapp.web.app_state import BLUEPRINT, state_of
from authapp.web.blueprint import OwnBlueprint
from authapp.web.csrf import from_hidden_origin
from authapp.web.guards import (
    known_actor,
    login_required,
    require_live,
    services,
    step_up_required,
    unknown_actor,
)
from authapp.web.middleware.request_log import note_user
from authapp.web.pages.forms import (
    ConfirmChangeForm,
    EmailForm,
    UndoEmailForm,
    show_errors,
    text,
)
from authapp.web.pages.notices import redirect_with
from authapp.web.pages.rendering import render_page
from authapp.web.rate_limits import rate_limit_of_errors
from authapp.web.session import mailed_links
from authapp.web.session.auth_session import auth_session

address_pages = OwnBlueprint("address", __name__)


@address_pages.get("/account/email")
@login_required
@step_up_required
def email() -> ResponseReturnValue:
    services().email_changes.require_mail()
    return render_page("authapp/email.html", form=EmailForm())


@address_pages.post("/account/email")
@login_required
@step_up_required
def email_submit() -> ResponseReturnValue:
    services().email_changes.require_mail()
    form = EmailForm()
    if not form.validate():
        return render_page("authapp/email.html", form=form), 400
    try:
        services().email_changes.ask(require_live(), text(form.email), known_actor())
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return render_page("authapp/email.html", form=form), 400
    return redirect_with("email-asked", "authapp.pages.account")


# -- confirm the new one: `/verify` of sign-up asks first whether the link is of this kind --


def pending_change() -> PendingChange | None:
    """The change that the link which was opened in this browser confirms, if it does."""
    return services().email_changes.look_up(mailed_links.waiting("verify"))


def confirm_change_page(
    pending: PendingChange, form: ConfirmChangeForm | None = None, problem: str = ""
) -> str:
    mailed_links.refer_nobody()
    return render_page(
        "authapp/email_confirm.html",
        form=form or ConfirmChangeForm(is_sent=False),
        new=pending.new.stored,
        asks_password=pending.asks_password(auth_session().live),
        has_password=pending.has_password,
        problem=problem,
    )


def confirm_change(pending: PendingChange) -> ResponseReturnValue:
    form, visitor = ConfirmChangeForm(), auth_session()
    try:
        with rate_limit_of_errors():
            changed = services().email_changes.confirm(
                mailed_links.waiting("verify"), text(form.password), visitor.live, unknown_actor()
            )
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return confirm_change_page(pending, form), 400
    except InvalidCredentials:
        show_errors(form, {"password": "this is not your password"})
        return confirm_change_page(pending, form), 401
    except EmailTaken:
        return confirm_change_page(pending, form, "Somebody else has this email by now."), 409
    user = visitor.settle(changed)
    note_user(request.environ, user.id)
    mailed_links.drop("verify")
    if pending.was_asked_in(visitor.live):
        return redirect_with("email-changed", "authapp.pages.account")
    if visitor.live and visitor.live.record.user.id == user.id:
        visitor.forget()  # it has ended with all others
    return redirect_with("email-changed", state_of().login_view or f"{BLUEPRINT}.pages.login")


@address_pages.get("/email/undo")
def undo() -> ResponseReturnValue:
    """A page with a button. The link alone changes nothing: mail scanners follow links."""
    if "token" in request.args:
        return mailed_links.set_aside("undo_email", request.args["token"], f"{request.endpoint}")
    token = mailed_links.waiting("undo_email")
    return _undo_page(UndoEmailForm(data={"token": token}), is_void=not token)


@address_pages.post("/email/undo")
@from_hidden_origin  # see `refer_nobody`
def undo_submit() -> ResponseReturnValue:
    form = UndoEmailForm()
    try:
        changed = services().email_changes.undo(text(form.token), unknown_actor())
    except (InvalidToken, EmailTaken):
        mailed_links.drop("undo_email")
        return _undo_page(form, is_void=True), 400
    visitor = auth_session()
    user_id = visitor.settle(changed)
    mailed_links.drop("undo_email")
    if visitor.live and visitor.live.record.user.id == user_id:
        visitor.forget()  # it has ended with all others
    return redirect_with("email-undone", state_of().login_view or f"{BLUEPRINT}.pages.login")


def _undo_page(form: UndoEmailForm, *, is_void: bool) -> str:
    mailed_links.refer_nobody()
    action = url_for(".undo_submit")
    return render_page("authapp/email_undo.html", form=form, is_void=is_void, action=action)
