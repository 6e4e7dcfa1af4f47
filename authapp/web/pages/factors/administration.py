"""The page by which an administrator removes the second factors of a person who lost them."""

from uuid import UUID

from flask import abort, url_for
from flask.typing import ResponseReturnValue

from authapp.accounts.identity import Permission
from authapp.errors import ExceedsOwnPermissions, FactorNeeded, NoFactor, OwnAccount
from authapp.web.blueprint import OwnBlueprint
from authapp.web.guards import (
    current_user,
    known_actor,
    permission_required,
    services,
    step_up_required,
)
from authapp.web.pages.notices import redirect_with
from authapp.web.pages.rendering import Question, ask
from authapp.web.session.auth_session import auth_session

factor_admin = OwnBlueprint("factor_admin", __name__, url_prefix="/admin")


@factor_admin.get("/users/<uuid:user_id>/reset-factors")
@permission_required(Permission.USERS_WRITE)
@step_up_required
def reset_factors(user_id: UUID) -> ResponseReturnValue:
    return ask(_question(user_id))


@factor_admin.post("/users/<uuid:user_id>/reset-factors")
@permission_required(Permission.USERS_WRITE)
@step_up_required
def reset_factors_submit(user_id: UUID) -> ResponseReturnValue:
    question = _question(user_id)
    try:
        changed = services().factors.reset(user_id, known_actor())
    except (NoFactor, FactorNeeded) as error:
        return ask(question, str(error)), 409
    except (OwnAccount, ExceedsOwnPermissions) as error:
        return ask(question, str(error)), 403
    auth_session().settle(changed)
    return redirect_with("factors-reset", "authapp.admin.user", user_id=user_id)


def _question(user_id: UUID) -> Question:
    person = services().users.get(user_id)
    if person is None:
        abort(404)
    name = person.name if current_user.can(Permission.USERS_READ) else ""
    return Question(
        heading=f"Remove the second factors of {name or 'this person'}?",
        sentences=[
            "Do this only if you know that it is this person who asks. Their password alone then "
            "logs in. Without a password they get a mail with a link to set one.",
            "They are signed out everywhere, and told by mail.",
        ],
        button="Remove second factors",
        action=url_for(".reset_factors_submit", user_id=user_id),
        back=url_for("authapp.admin.user", user_id=user_id),
    )
