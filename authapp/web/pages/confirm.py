"""The page that asks for the password or a second factor again, before a sensitive act."""

from collections.abc import Mapping

from flask import redirect, request, url_for
from flask.typing import ResponseReturnValue

from authapp.authentication.factors.check import ShownFactor
from authapp.authentication.factors.holdings import Method
from authapp.cache.changes import Changed
from authapp.errors import InvalidField
from authapp.sessions.records import IssuedLogin, IssuedTokens
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import known_actor, login_required, require_live, services
from authapp.web.pages.forms import ConfirmForm, FactorForm, show_errors, text
from authapp.web.pages.rendering import render_page
from authapp.web.rate_limits import rate_limit_of_errors, tell_rate_limit
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import next_target

confirm_pages = OwnBlueprint("confirm", __name__)


@confirm_pages.get("/account/confirm")
@login_required
def confirm() -> ResponseReturnValue:
    return _page(_form())


@confirm_pages.post("/account/confirm")
@login_required
def confirm_submit() -> ResponseReturnValue:
    form = _form()
    if not form.validate():
        return _page(form), 400
    try:
        with rate_limit_of_errors():
            changed = _confirm(form)
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _page(form), 400
    return confirmed(changed)


def confirmed(changed: Changed[IssuedLogin | IssuedTokens]) -> ResponseReturnValue:
    """Gives the session its new token, and leads to the page that asked for the proof."""
    issued = auth_session().settle(changed)
    tell_rate_limit(issued.rate_limit)
    auth_session().rotate(issued)
    return redirect(next_target() or url_for("authapp.pages.account"), 303)


def _form(*, is_sent: bool = True) -> ConfirmForm | FactorForm:
    """The form that asks for the second factor if the person holds one, else for the password."""
    data = {"next": request.values.get("next", "")}
    if not require_live().record.user.second_factor:
        return ConfirmForm(data=data, is_sent=is_sent)
    form = FactorForm(data=data, is_sent=is_sent)
    asked = request.form.get("method") or request.args.get("with")
    if asked == "recovery_code" or "totp" not in _methods():
        form.ask_recovery_code()
    else:
        form.ask_app_code()
    return form


def _confirm(form: ConfirmForm | FactorForm) -> Changed[IssuedLogin | IssuedTokens]:
    live, step_up = require_live(), services().step_up
    if isinstance(form, ConfirmForm):
        return step_up.confirm(live, text(form.password), known_actor())
    method: Method = "recovery_code" if form.method.data == "recovery_code" else "totp"
    return step_up.confirm_by_factor(live, ShownFactor(method, text(form.code)), known_actor())


def confirm_page(errors: Mapping[str, str]) -> str:
    """The page, which says why a proof that was no form of it was refused."""
    form = _form(is_sent=False)
    show_errors(form, errors)
    return _page(form)


def _methods() -> tuple[Method, ...]:
    return services().factors.of(require_live().record.user.id).methods


def _page(form: ConfirmForm | FactorForm) -> str:
    is_factor = isinstance(form, FactorForm)
    methods = _methods() if is_factor else ()
    return render_page("authapp/confirm.html", form=form, is_factor=is_factor, methods=methods)
