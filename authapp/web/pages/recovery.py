"""The pages for people who can't log in: a forgotten password, and the choice of a new one."""

from flask import request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.utils import redirect

from authapp.authentication.recovery.reset_links import RESET_MINUTES
from authapp.errors import InvalidField, InvalidToken, TooManyAttempts
from authapp.mail.one_time_links import is_spelt
from authapp.web.app_state import BLUEPRINT, state_of
from authapp.web.blueprint import OwnBlueprint
from authapp.web.csrf import from_hidden_origin
from authapp.web.guards import services, unknown_actor
from authapp.web.middleware.request_log import note_user
from authapp.web.pages.forms import ForgotForm, ResetForm, show_errors, text
from authapp.web.pages.notices import redirect_with
from authapp.web.pages.rendering import render_page
from authapp.web.pages.signup import come_back_page
from authapp.web.rate_limits import rate_limit_of_errors, tell_rate_limit
from authapp.web.session import mailed_links
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import next_target, safe_target, start_url

recovery_pages = OwnBlueprint("recovery", __name__)


@recovery_pages.get("/forgot")
def forgot() -> ResponseReturnValue:
    services().reset_links.require_mail()
    if "asked" in request.args:
        return render_page("authapp/forgot_asked.html", minutes=RESET_MINUTES)
    return render_page("authapp/forgot.html", form=ForgotForm(data={"next": next_target() or ""}))


@recovery_pages.post("/forgot")
def forgot_submit() -> ResponseReturnValue:
    services().reset_links.require_mail()
    form = ForgotForm()
    if not form.validate():
        return render_page("authapp/forgot.html", form=form), 400
    try:
        with rate_limit_of_errors():
            window = services().forgotten_passwords.forgot(text(form.email), unknown_actor())
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return render_page("authapp/forgot.html", form=form), 400
    except TooManyAttempts as error:
        return come_back_page("authapp/forgot.html", form, error)
    tell_rate_limit(window)
    onward = next_target()
    mailed_links.keep_onward(onward if onward != start_url() else None)
    return redirect(url_for(".forgot", asked=1), 303)


@recovery_pages.get("/reset")
def reset() -> ResponseReturnValue:
    """Uses nothing up, because programs that look for viruses open the links in mails, too."""
    if "token" in request.args:
        onward = safe_target(mailed_links.kept_onward()) or ""
        return mailed_links.set_aside("reset", request.args["token"], ".reset", onward)
    token = mailed_links.waiting("reset")
    return _reset_page(ResetForm(data={"token": token}), is_found=bool(token))


@recovery_pages.post("/reset")
@from_hidden_origin  # see `refer_nobody`
def reset_submit() -> ResponseReturnValue:
    form = ResetForm()
    token = text(form.token)
    if not form.validate():
        return _reset_page(form)
    try:
        with rate_limit_of_errors():
            changed, window = services().password_resets.reset(
                token, text(form.new_password), unknown_actor()
            )
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _reset_page(form)
    except InvalidToken:
        mailed_links.drop("reset")
        return _reset_page(form)
    tell_rate_limit(window)
    note_user(request.environ, auth_session().settle(changed))
    mailed_links.drop("reset")
    mailed_links.keep_onward(None)
    login = state_of().login_view or f"{BLUEPRINT}.pages.login"
    return redirect_with("reset", login, next=next_target())


def _reset_page(form: ResetForm, *, is_found: bool = True) -> ResponseReturnValue:
    """The form, or what to do where the link does not count.

    Args:
        is_found: whether a link was opened in this browser at all.
    """
    mailed_links.refer_nobody()
    token = text(form.token)
    offered = services().reset_links.look_up(token) if is_spelt(token) else None
    page = render_page("authapp/reset.html", form=form, offered=offered, next=next_target())
    return page, 400 if form.errors or (is_found and offered is None) else 200
