"""The page that asks for the password again, before a sensitive act."""

from flask import redirect, request, url_for
from flask.typing import ResponseReturnValue

from authapp.errors import InvalidField
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import known_actor, login_required, require_live, services
from authapp.web.pages.forms import ConfirmForm, show_errors, text
from authapp.web.pages.rendering import render_page
from authapp.web.rate_limits import rate_limit_of_errors, tell_rate_limit
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import next_target

confirm_pages = OwnBlueprint("confirm", __name__)


@confirm_pages.get("/account/confirm")
@login_required
def confirm() -> ResponseReturnValue:
    return _page(ConfirmForm(data={"next": request.args.get("next", "")}))


@confirm_pages.post("/account/confirm")
@login_required
def confirm_submit() -> ResponseReturnValue:
    form = ConfirmForm()
    if not form.validate():
        return _page(form), 400
    try:
        with rate_limit_of_errors():
            changed = services().step_up.confirm(require_live(), text(form.password), known_actor())
    except InvalidField as invalid:
        show_errors(form, invalid.errors)
        return _page(form), 400
    issued = auth_session().settle(changed)
    tell_rate_limit(issued.rate_limit)
    auth_session().rotate(issued)
    # to the page that asked for the proof
    return redirect(next_target() or url_for("authapp.pages.account"), 303)


def _page(form: ConfirmForm) -> str:
    return render_page("authapp/confirm.html", form=form)
