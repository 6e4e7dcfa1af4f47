"""The page that asks for the second factor of a log-in, or sets one up for people who must have
one."""

from typing import Any

from flask import redirect, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from authapp.authentication.factors import totp
from authapp.authentication.factors.check import ShownFactor
from authapp.authentication.factors.holdings import Method
from authapp.errors import InvalidFactor, LoginExpired, TooManyAttempts
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import services, unknown_actor
from authapp.web.pages.forms import LoginFactorForm, text
from authapp.web.pages.messages import REFUSED_PASSKEY, WRONG_FACTOR
from authapp.web.pages.notices import redirect_with
from authapp.web.pages.rendering import render_page
from authapp.web.pages.signup import come_back_page
from authapp.web.rate_limits import rate_limit_of_errors
from authapp.web.session import login_token
from authapp.web.session.login_token import KeptLogin
from authapp.web.visitor_login import complete_login, next_target, start_url, will_lose_cookie

factor_pages = OwnBlueprint("factor", __name__)

_LOGIN = "authapp.pages.login"


@factor_pages.get("/login/factor")
def factor() -> ResponseReturnValue:
    kept = login_token.kept()
    if kept is None:
        return redirect(url_for(_LOGIN, next=next_target()), 303)
    return _page(kept, _form(kept))


@factor_pages.post("/login/factor")
def factor_submit() -> ResponseReturnValue:
    kept = login_token.kept()
    if kept is None:
        return redirect_with("login-expired", _LOGIN, next=next_target())
    form = _form(kept)
    if not form.validate():
        return _page(kept, form, 400)
    method: Method = "recovery_code" if form.method.data == "recovery_code" else "totp"
    return show_factor(ShownFactor(method, text(form.code)))


def show_factor(shown: ShownFactor) -> ResponseReturnValue:
    """Completes the log-in that waits in this browser by a factor, and leads on."""
    kept = login_token.kept()
    if kept is None:
        return redirect_with("login-expired", _LOGIN, next=next_target())
    form = _form(kept)
    try:
        completed = complete_login(kept.token, shown, is_trusted=form.trust.data)
    except InvalidFactor:
        form.code.data = ""
        problem = REFUSED_PASSKEY if shown.method == "passkey" else WRONG_FACTOR
        return _page(kept, form, 401, problem)
    except LoginExpired:
        return _expired()
    except TooManyAttempts as error:
        values = _values(kept)
        return come_back_page("authapp/login_factor.html", form, error, **values)
    login_token.drop()
    onward = next_target() or start_url()
    if will_lose_cookie():
        onward = url_for(_LOGIN, next=onward, cookie="sent")
    if completed.recovery_codes:
        codes = completed.recovery_codes
        return render_page("authapp/recovery_codes.html", codes=codes, onward=onward, message="")
    return redirect(onward, 303)


def _form(kept: KeptLogin) -> LoginFactorForm:
    form = LoginFactorForm(data={"next": next_target() or ""})
    asked = request.form.get("method") or request.args.get("with")
    if not kept.enrols and ("totp" not in kept.methods or asked == "recovery_code"):
        form.ask_recovery_code()
    else:
        form.ask_app_code()
    return form


def _page(
    kept: KeptLogin, form: LoginFactorForm, status: int = 200, problem: str = ""
) -> ResponseReturnValue:
    try:
        values = _values(kept)
    except LoginExpired:
        return _expired()
    page = render_page("authapp/login_factor.html", form=form, problem=problem, **values)
    return page, status


def _values(kept: KeptLogin) -> dict[str, Any]:
    """The values beside the form: for a person who must set up an app, its secret."""
    values: dict[str, Any] = {"methods": kept.methods, "set_up": None}
    if kept.enrols:
        with rate_limit_of_errors():
            proposed = services().factor_login.begin_set_up(kept.token, unknown_actor())
        values["set_up"] = proposed
        values["qr_code"] = Markup(totp.qr_code(proposed.otpauth_uri))  # noqa: S704 - made by us
    return values


def _expired() -> ResponseReturnValue:
    login_token.drop()
    return redirect_with("login-expired", _LOGIN, next=next_target())
