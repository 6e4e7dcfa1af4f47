"""The pages for people who leave: what is known of them as a file, and the end of the account."""

from flask import Response, redirect
from flask.typing import ResponseReturnValue

from authapp.errors import LastAdmin, UserInUse
from authapp.web.blueprint import OwnBlueprint
from authapp.web.error_handlers import problem_of
from authapp.web.guards import (
    known_actor,
    login_required,
    require_live,
    services,
    step_up_required,
)
from authapp.web.pages.forms import DeleteForm
from authapp.web.pages.notices import say
from authapp.web.pages.rendering import render_page
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import clear_site_data, start_url

leaving_pages = OwnBlueprint("leaving", __name__)


@leaving_pages.get("/account/export")
@login_required
@step_up_required
def export() -> ResponseReturnValue:
    return render_page("authapp/export.html")


@leaving_pages.post("/account/export")
@login_required
@step_up_required
def export_submit() -> ResponseReturnValue:
    return export_file()


def export_file() -> Response:
    """All that is known of the visitor, as a file that the browser keeps."""
    user_id = require_live().record.user.id
    body = services().exports.of_person(user_id, known_actor())
    response = Response(body, mimetype="application/json")
    response.headers["Content-Disposition"] = 'attachment; filename="account.json"'
    return response


@leaving_pages.get("/account/delete")
@login_required
@step_up_required
def delete() -> ResponseReturnValue:
    return render_page("authapp/delete.html", form=DeleteForm())


@leaving_pages.post("/account/delete")
@login_required
@step_up_required
def delete_submit() -> ResponseReturnValue:
    form = DeleteForm()
    if not form.validate():
        return render_page("authapp/delete.html", form=form), 400
    try:
        auth_session().settle(services().administration.delete_own(require_live(), known_actor()))
    except (LastAdmin, UserInUse) as error:
        page = render_page("authapp/delete.html", form=form, problem=str(error))
        return page, problem_of(error).code or 500
    auth_session().forget()
    say("account-deleted")
    response = redirect(start_url(), 303)
    response.headers.update(clear_site_data())
    return response
