"""The JSON API about one's own email, data and account: their change, export and end."""

import msgspec
from flask import Response, request

from authapp import errors
from authapp.accounts.export import ExportView
from authapp.web.api.account import EmailField
from authapp.web.api.bodies import read_body
from authapp.web.api.description import Operation, Parameter, documents
from authapp.web.api.representations import MailAnswer, json_response
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import known_actor, require_step_up, services, unknown_actor
from authapp.web.middleware.request_log import note_user
from authapp.web.pages.leaving import export_file
from authapp.web.session.auth_session import auth_session
from authapp.web.visitor_login import clear_site_data


class EmailBody(msgspec.Struct, forbid_unknown_fields=True):
    email: EmailField


class UndoBody(msgspec.Struct, forbid_unknown_fields=True):
    token: str


leaving_api = OwnBlueprint("leaving_api", __name__, url_prefix="/api/v1")


@leaving_api.post("/me/email")
@documents(
    Operation(
        "Mails a link to a new email, which becomes one's own when the link is confirmed; the old "
        "one is told. The answer is the same if somebody has the email",
        {202: MailAnswer},
        body=EmailBody,
        fails=[errors.StepUpRequired, errors.MailOff],
    )
)
def change_email() -> Response:
    live = require_step_up()
    body = read_body(request, EmailBody)
    services().email_changes.ask(live, body.email, known_actor())
    return json_response(MailAnswer("check_mail"), 202)


@leaving_api.post("/email/undo")
@documents(
    Operation(
        "Takes a change of email back, by the token that was mailed to the old one: all sessions "
        "end, and a link to a new password is mailed there",
        {204: None},
        "nobody",
        UndoBody,
        fails=[errors.InvalidToken, errors.EmailTaken],
        changes=True,
    )
)
def undo_email() -> tuple[str, int]:
    body = read_body(request, UndoBody)
    changed = services().email_changes.undo(body.token, unknown_actor())
    note_user(request.environ, auth_session().settle(changed))
    return "", 204


@leaving_api.delete("/me")
@documents(
    Operation(
        "Deletes one's own account, with all that belongs to it",
        {204: None},
        fails=[errors.StepUpRequired, errors.LastAdmin, errors.UserInUse],
        changes=True,
    )
)
def delete_me() -> tuple[str, int, dict[str, str]]:
    live = require_step_up()
    auth_session().settle(services().administration.delete_own(live, known_actor()))
    auth_session().forget()
    return "", 204, clear_site_data()


@leaving_api.get("/me/export")
@documents(
    Operation(
        "All that is known of oneself: profile, roles, sessions, events, invitations, mails",
        {200: ExportView},
        headers={"Content-Disposition": Parameter("the name of a file")},
        fails=[errors.StepUpRequired],
    )
)
def export_me() -> Response:
    require_step_up()
    return export_file()
