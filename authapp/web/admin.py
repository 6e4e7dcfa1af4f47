"""The pages administrators use: the list of users."""

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from authapp.identity import ADMIN
from authapp.web.guards import roles_required, services

admin = Blueprint("admin", __name__, url_prefix="/admin")


@admin.get("/users")
@roles_required(ADMIN)
def users() -> ResponseReturnValue:
    search = "".join(c for c in request.args.get("q", "")[:200] if c.isprintable())
    page = services().users.page(request.args.get("cursor"), search=search)
    return render_template(
        "admin/users.html", users=page.users, q=search, next_cursor=page.next_cursor
    )
