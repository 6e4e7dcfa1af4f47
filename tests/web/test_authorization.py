"""Permissions: every call with every kind of visitor, on their own account and on others."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from authapp.accounts.actor import OPERATOR
from authapp.accounts.identity import Permission
from tests.support.mails import WITHOUT_VERIFICATION
from tests.web.conftest import MakeApp
from tests.web.support import (
    EMAIL,
    OTHER_PASSWORD,
    PASSWORD,
    Rows,
    Stores,
    browser,
    problem,
    services_of,
    sign_up,
    signed_in_as,
)

# Nobody; a user without permissions; users with one permission each, in the order of Permission;
# an administrator; and a user who was signed in when they were deactivated.
VISITORS = ("anonymous", "user", *(str(p) for p in Permission), "admin", "deactivated")

# <own>, <other>, <missing>: ids of users, of sessions where it says so; <open>: of an invitation
# that counts. Status by visitor:
#                                        anon user read write grant end audit admin deactivated
MATRIX = """
GET    /                                  200  200  200  200  200  200  200  200  200
GET    /signup                            200  200  200  200  200  200  200  200  200
POST   /signup                            303  303  303  303  303  303  303  303  303
GET    /signup/<missing>                  400  400  400  400  400  400  400  400  400
POST   /signup/<missing>                  400  400  400  400  400  400  400  400  400
GET    /verify                            200  200  200  200  200  200  200  200  200
POST   /verify                            400  400  400  400  400  400  400  400  400
POST   /verify/resend                     501  501  501  501  501  501  501  501  501
GET    /login                             200  302  302  302  302  302  302  302  200
POST   /login                             303  303  303  303  303  303  303  303  303
GET    /login/factor                      303  303  303  303  303  303  303  303  303
POST   /login/factor                      303  303  303  303  303  303  303  303  303
GET    /forgot                            501  501  501  501  501  501  501  501  501
POST   /forgot                            501  501  501  501  501  501  501  501  501
GET    /reset                             200  200  200  200  200  200  200  200  200
POST   /reset                             400  400  400  400  400  400  400  400  400
GET    /logout                            200  200  200  200  200  200  200  200  200
POST   /logout                            303  303  303  303  303  303  303  303  303
GET    /logged-out.css                    200  200  200  200  200  200  200  200  200
GET    /.well-known/change-password       303  303  303  303  303  303  303  303  303
GET    /healthz                           200  200  200  200  200  200  200  200  200
GET    /readyz                            200  200  200  200  200  200  200  200  200
GET    /metrics                           200  200  200  200  200  200  200  200  200
GET    /forward-auth/nginx                401  200  200  200  200  200  200  200  401
GET    /forward-auth/redirect             302  200  200  200  200  200  200  200  302
GET    /forward-auth/envoy                302  200  200  200  200  200  200  200  302
GET    /forward-auth/logout               302  302  302  302  302  302  302  302  302
GET    /account                           302  200  200  200  200  200  200  200  302
POST   /account                           302  303  303  303  303  303  303  303  302
GET    /account/password                  302  200  200  200  200  200  200  200  302
POST   /account/password                  302  303  303  303  303  303  303  303  302
GET    /account/confirm                   302  200  200  200  200  200  200  200  302
POST   /account/confirm                   302  303  303  303  303  303  303  303  302
GET    /account/email                     302  501  501  501  501  501  501  501  302
POST   /account/email                     302  501  501  501  501  501  501  501  302
GET    /account/export                    302  200  200  200  200  200  200  200  302
POST   /account/export                    302  200  200  200  200  200  200  200  302
GET    /account/delete                    302  200  200  200  200  200  200  200  302
POST   /account/delete                    302  303  303  303  303  303  303  303  302
GET    /email/undo                        200  200  200  200  200  200  200  200  200
POST   /email/undo                        400  400  400  400  400  400  400  400  400
GET    /account/sessions                  302  200  200  200  200  200  200  200  302
POST   /account/sessions/<own>/end        302  303  303  303  303  303  303  303  302
POST   /account/sessions/<other>/end      302  404  404  404  404  404  404  404  302
POST   /account/sessions/<missing>/end    302  404  404  404  404  404  404  404  302
GET    /account/sessions/end-others       302  200  200  200  200  200  200  200  302
POST   /account/sessions/end-others       302  303  303  303  303  303  303  303  302
GET    /account/security                  302  200  200  200  200  200  200  200  302
GET    /account/security/totp             302  200  200  200  200  200  200  200  302
POST   /account/security/totp             302  400  400  400  400  400  400  400  302
GET    /account/security/totp/remove      302  200  200  200  200  200  200  200  302
POST   /account/security/totp/remove      302  303  303  303  303  303  303  303  302
GET    /account/security/recovery-codes   302  200  200  200  200  200  200  200  302
POST   /account/security/recovery-codes   302  303  303  303  303  303  303  303  302
GET    /admin/users                       302  403  200  403  403  403  403  200  302
GET    /admin/users/<own>                 302  403  200  403  403  403  403  200  302
GET    /admin/users/<other>               302  403  200  403  403  403  403  200  302
GET    /admin/users/<missing>             302  403  404  403  403  403  403  404  302
GET    /admin/users/<own>/roles           302  403  403  403  200  403  403  200  302
POST   /admin/users/<own>/roles           302  403  403  403  403  403  403  403  302
GET    /admin/users/<other>/roles         302  403  403  403  200  403  403  200  302
POST   /admin/users/<other>/roles         302  403  403  403  303  403  403  303  302
GET    /admin/users/<missing>/roles       302  403  403  403  404  403  403  404  302
POST   /admin/users/<missing>/roles       302  403  403  403  404  403  403  404  302
POST   /admin/users/<own>/activate        302  403  403  303  403  403  403  303  302
POST   /admin/users/<other>/activate      302  403  403  303  403  403  403  303  302
POST   /admin/users/<missing>/activate    302  403  403  404  403  403  403  404  302
GET    /admin/users/<own>/deactivate      302  403  403  200  403  403  403  200  302
POST   /admin/users/<own>/deactivate      302  403  403  403  403  403  403  403  302
GET    /admin/users/<other>/deactivate    302  403  403  200  403  403  403  200  302
POST   /admin/users/<other>/deactivate    302  403  403  303  403  403  403  303  302
GET    /admin/users/<missing>/deactivate  302  403  403  404  403  403  403  404  302
POST   /admin/users/<missing>/deactivate  302  403  403  404  403  403  403  404  302
GET    /admin/users/<own>/end-sessions    302  403  403  403  403  200  403  200  302
POST   /admin/users/<own>/end-sessions    302  403  403  403  403  303  403  303  302
GET    /admin/users/<other>/end-sessions  302  403  403  403  403  200  403  200  302
POST   /admin/users/<other>/end-sessions  302  403  403  403  403  303  403  303  302
GET    /admin/users/<missing>/end-sessions 302  403  403  403  403  404  403  404  302
POST   /admin/users/<missing>/end-sessions 302 403  403  403  403  404  403  404  302
POST   /admin/users/<own>/reset           302  403  403  501  403  403  403  501  302
POST   /admin/users/<other>/reset         302  403  403  501  403  403  403  501  302
POST   /admin/users/<missing>/reset       302  403  403  501  403  403  403  501  302
GET    /admin/users/<own>/reset-factors   302  403  403  200  403  403  403  200  302
GET    /admin/users/<other>/reset-factors 302  403  403  200  403  403  403  200  302
GET    /admin/users/<missing>/reset-factors 302 403 403  404  403  403  403  404  302
POST   /admin/users/<own>/reset-factors   302  403  403  403  403  403  403  403  302
POST   /admin/users/<other>/reset-factors 302  403  403  409  403  403  403  409  302
POST   /admin/users/<missing>/reset-factors 302 403 403  404  403  403  403  404  302
POST   /admin/users/<own>/email           302  403  403  400  403  403  403  400  302
POST   /admin/users/<other>/email         302  403  403  303  403  403  403  303  302
POST   /admin/users/<missing>/email       302  403  403  404  403  403  403  404  302
GET    /admin/users/<own>/delete          302  403  403  200  403  403  403  200  302
GET    /admin/users/<other>/delete        302  403  403  200  403  403  403  200  302
GET    /admin/users/<missing>/delete      302  403  403  404  403  403  403  404  302
POST   /admin/users/<own>/delete          302  403  403  403  403  403  403  403  302
POST   /admin/users/<other>/delete        302  403  403  303  403  403  403  303  302
POST   /admin/users/<missing>/delete      302  403  403  404  403  403  403  404  302
POST   /admin/sessions/<own>/end          302  403  403  403  403  303  403  303  302
POST   /admin/sessions/<other>/end        302  403  403  403  403  303  403  303  302
POST   /admin/sessions/<missing>/end      302  403  403  403  403  404  403  404  302
GET    /admin/sessions/end-all            302  403  403  403  403  403  403  200  302
POST   /admin/sessions/end-all            302  403  403  403  403  403  403  303  302
GET    /admin/roles                       302  403  403  403  200  403  403  200  302
POST   /admin/roles                       302  403  403  403  303  403  403  303  302
GET    /admin/roles/<role>/delete         302  403  403  403  200  403  403  200  302
POST   /admin/roles/<role>/delete         302  403  403  403  303  403  403  303  302
GET    /admin/invitations                 302  403  403  200  403  403  403  200  302
POST   /admin/invitations                 302  403  403  200  403  403  403  200  302
POST   /admin/invitations/<missing>/revoke 302 403  403  404  403  403  403  404  302
POST   /admin/invitations/<open>/revoke   302  403  403  303  403  403  403  303  302
GET    /api/v1/invitations                401  403  403  200  403  403  403  200  401
POST   /api/v1/invitations                401  403  403  201  403  403  403  201  401
DELETE /api/v1/invitations/<missing>      401  403  403  404  403  403  403  404  401
DELETE /api/v1/invitations/<open>         401  403  403  204  403  403  403  204  401
GET    /admin/audit                       302  403  403  403  403  403  200  200  302
POST   /api/v1/email/verify               400  400  400  400  400  400  400  400  400
POST   /api/v1/email/resend               501  501  501  501  501  501  501  501  501
POST   /api/v1/signup                     201  201  201  201  201  201  201  201  201
POST   /api/v1/login                      200  200  200  200  200  200  200  200  200
POST   /api/v1/login/factor               401  401  401  401  401  401  401  401  401
POST   /api/v1/login/factor/totp          401  401  401  401  401  401  401  401  401
POST   /api/v1/tokens                     200  200  200  200  200  200  200  200  200
POST   /account/confirm/passkey            302  501  501  501  501  501  501  501  302
POST   /login/factor/passkey/options      401  401  401  401  401  401  401  401  401
POST   /login/factor/passkey              501  501  501  501  501  501  501  501  501
POST   /account/passkeys/options          302  501  501  501  501  501  501  501  302
GET    /account/passkeys/add              302  501  501  501  501  501  501  501  302
POST   /account/passkeys/add              302  501  501  501  501  501  501  501  302
POST   /account/confirm/passkey/options   302  501  501  501  501  501  501  501  302
GET    /account/passkeys/<missing>/name   302  404  404  404  404  404  404  404  302
POST   /account/passkeys/<missing>/name   302  404  404  404  404  404  404  404  302
GET    /account/passkeys/<missing>/remove 302  404  404  404  404  404  404  404  302
POST   /account/passkeys/<missing>/remove 302  404  404  404  404  404  404  404  302
POST   /login/passkey/options             501  501  501  501  501  501  501  501  501
POST   /login/passkey                     501  501  501  501  501  501  501  501  501
POST   /api/v1/passkeys/options           501  501  501  501  501  501  501  501  501
POST   /api/v1/passkeys/login             400  400  400  400  400  400  400  400  400
POST   /api/v1/login/factor/options       400  400  400  400  400  400  400  400  400
POST   /api/v1/me/passkeys/options        401  501  501  501  501  501  501  501  401
POST   /api/v1/me/confirm/options         401  501  501  501  501  501  501  501  401
POST   /signup-passkey/options            501  501  501  501  501  501  501  501  501
POST   /signup-passkey                    501  501  501  501  501  501  501  501  501
POST   /signup/<missing>/passkey          501  501  501  501  501  501  501  501  501
GET    /account/security/password/remove  302  501  501  501  501  501  501  501  302
POST   /account/security/password/remove  302  501  501  501  501  501  501  501  302
DELETE /api/v1/me/password                401  501  501  501  501  501  501  501  401
POST   /api/v1/me/passkeys                401  400  400  400  400  400  400  400  401
PATCH  /api/v1/me/passkeys/<missing>      401  404  404  404  404  404  404  404  401
DELETE /api/v1/me/passkeys/<missing>      401  404  404  404  404  404  404  404  401
POST   /api/v1/tokens/refresh             401  401  401  401  401  401  401  401  401
POST   /api/v1/password/forgot            501  501  501  501  501  501  501  501  501
POST   /api/v1/password/reset             400  400  400  400  400  400  400  400  400
GET    /api/v1/                           200  200  200  200  200  200  200  200  200
GET    /api/v1/openapi.json               200  200  200  200  200  200  200  200  200
POST   /api/v1/logout                     204  204  204  204  204  204  204  204  204
GET    /api/v1/me                         401  200  200  200  200  200  200  200  401
PATCH  /api/v1/me                         401  200  200  200  200  200  200  200  401
POST   /api/v1/me/password                401  204  204  204  204  204  204  204  401
DELETE /api/v1/me                         401  204  204  204  204  204  204  204  401
POST   /api/v1/me/email                   401  501  501  501  501  501  501  501  401
POST   /api/v1/email/undo                 400  400  400  400  400  400  400  400  400
GET    /api/v1/me/export                  401  200  200  200  200  200  200  200  401
POST   /api/v1/me/confirm                 401  204  204  204  204  204  204  204  401
GET    /api/v1/me/factors                 401  200  200  200  200  200  200  200  401
POST   /api/v1/me/factors/totp            401  200  200  200  200  200  200  200  401
POST   /api/v1/me/factors/totp/confirm    401  400  400  400  400  400  400  400  401
DELETE /api/v1/me/factors/totp            401  409  409  409  409  409  409  409  401
POST   /api/v1/me/factors/recovery-codes  401  409  409  409  409  409  409  409  401
GET    /api/v1/me/sessions                401  200  200  200  200  200  200  200  401
DELETE /api/v1/me/sessions                401  204  204  204  204  204  204  204  401
DELETE /api/v1/me/sessions/<own>          401  204  204  204  204  204  204  204  401
DELETE /api/v1/me/sessions/<other>        401  404  404  404  404  404  404  404  401
DELETE /api/v1/me/sessions/<missing>      401  404  404  404  404  404  404  404  401
GET    /api/v1/users                      401  403  200  403  403  403  403  200  401
GET    /api/v1/users/<own>                401  200  200  200  200  200  200  200  401
GET    /api/v1/users/<other>              401  403  200  403  403  403  403  200  401
GET    /api/v1/users/<missing>            401  403  404  403  403  403  403  404  401
PATCH  /api/v1/users/<own>                401  403  403  403  403  403  403  403  401
PATCH  /api/v1/users/<other>              401  403  403  200  403  403  403  200  401
PATCH  /api/v1/users/<missing>            401  403  403  404  403  403  403  404  401
DELETE /api/v1/users/<own>                401  403  403  403  403  403  403  403  401
DELETE /api/v1/users/<other>              401  403  403  204  403  403  403  204  401
DELETE /api/v1/users/<missing>            401  403  403  404  403  403  403  404  401
PUT    /api/v1/users/<own>/email          401  403  403  400  403  403  403  400  401
PUT    /api/v1/users/<other>/email        401  403  403  200  403  403  403  200  401
PUT    /api/v1/users/<missing>/email      401  403  403  404  403  403  403  404  401
PUT    /api/v1/users/<own>/roles          401  403  403  403  403  403  403  403  401
PUT    /api/v1/users/<other>/roles        401  403  403  403  200  403  403  200  401
PUT    /api/v1/users/<missing>/roles      401  403  403  403  404  403  403  404  401
DELETE /api/v1/users/<own>/factors        401  403  403  403  403  403  403  403  401
DELETE /api/v1/users/<other>/factors      401  403  403  409  403  403  403  409  401
DELETE /api/v1/users/<missing>/factors    401  403  403  404  403  403  403  404  401
DELETE /api/v1/users/<own>/sessions       401  403  403  403  403  204  403  204  401
DELETE /api/v1/users/<other>/sessions     401  403  403  403  403  204  403  204  401
DELETE /api/v1/users/<missing>/sessions   401  403  403  403  403  404  403  404  401
POST   /api/v1/users/<own>/reset          401  403  403  501  403  403  403  501  401
POST   /api/v1/users/<other>/reset        401  403  403  501  403  403  403  501  401
POST   /api/v1/users/<missing>/reset      401  403  403  501  403  403  403  501  401
DELETE /api/v1/sessions                   401  403  403  403  403  403  403  204  401
GET    /api/v1/roles                      401  403  200  403  403  403  403  200  401
POST   /api/v1/roles                      401  403  403  403  201  403  403  201  401
DELETE /api/v1/roles/<role>               401  403  403  403  204  403  403  204  401
"""

# What MATRIX answers with 501, where mail and PUBLIC_URL are set up
WITH_MAIL = """
GET    /forgot                            200  200  200  200  200  200  200  200  200
POST   /forgot                            303  303  303  303  303  303  303  303  303
POST   /verify/resend                     303  303  303  303  303  303  303  303  303
GET    /account/email                     302  200  200  200  200  200  200  200  302
POST   /account/email                     302  303  303  303  303  303  303  303  302
POST   /admin/users/<own>/reset           302  403  403  303  403  403  403  303  302
POST   /admin/users/<other>/reset         302  403  403  303  403  403  403  303  302
POST   /admin/users/<missing>/reset       302  403  403  404  403  403  403  404  302
POST   /api/v1/email/resend               202  202  202  202  202  202  202  202  202
POST   /account/confirm/passkey           302  400  400  400  400  400  400  400  302
POST   /login/factor/passkey              303  303  303  303  303  303  303  303  303
POST   /account/passkeys/options          302  200  200  200  200  200  200  200  302
GET    /account/passkeys/add              302  200  200  200  200  200  200  200  302
POST   /account/passkeys/add              302  400  400  400  400  400  400  400  302
POST   /account/confirm/passkey/options   302  200  200  200  200  200  200  200  302
POST   /login/passkey/options             200  200  200  200  200  200  200  200  200
POST   /login/passkey                     400  400  400  400  400  400  400  400  400
POST   /api/v1/passkeys/options           200  200  200  200  200  200  200  200  200
POST   /api/v1/me/passkeys/options        401  200  200  200  200  200  200  200  401
POST   /api/v1/me/confirm/options         401  200  200  200  200  200  200  200  401
POST   /signup-passkey/options            400  400  400  400  400  400  400  400  400
POST   /signup-passkey                    400  400  400  400  400  400  400  400  400
POST   /signup/<missing>/passkey          400  400  400  400  400  400  400  400  400
GET    /account/security/password/remove  302  200  200  200  200  200  200  200  302
POST   /account/security/password/remove  302  409  409  409  409  409  409  409  302
DELETE /api/v1/me/password                401  409  409  409  409  409  409  409  401
POST   /api/v1/password/forgot            202  202  202  202  202  202  202  202  202
POST   /api/v1/me/email                   401  202  202  202  202  202  202  202  401
POST   /api/v1/users/<own>/reset          401  403  403  202  403  403  403  202  401
POST   /api/v1/users/<other>/reset        401  403  403  202  403  403  403  202  401
POST   /api/v1/users/<missing>/reset      401  403  403  404  403  403  403  404  401
"""
Row = tuple[str, str, dict[str, int]]


def rows_of(table: str) -> list[Row]:
    return [
        (method, path, dict(zip(VISITORS, map(int, row), strict=True)))
        for method, path, *row in map(str.split, table.strip().splitlines())
    ]


ROWS = rows_of(MATRIX)
ROWS_WITH_MAIL = rows_of(WITH_MAIL)


def strangers_calls() -> set[tuple[str, str]]:
    """The calls by which somebody who is not signed in may try something: for files of deploy/ with
    limits."""
    harmless = {"/logout", "/api/v1/logout", "/api/v1/tokens/refresh"}
    return {
        (method, path)
        for method, path, row in (*ROWS, *ROWS_WITH_MAIL)
        if method == "POST" and row["anonymous"] == row["user"] and path not in harmless
    }


CHANGE = {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}
NEW = {"email": "new@example.org", "password": PASSWORD}
ROOT = {"email": "root@example.org", "password": PASSWORD}
ROLES: dict[str, list[str]] = {"roles": []}
NEW_ROLE: dict[str, Any] = {"name": "added", "permissions": []}

# what is sent, by the end of the path; nothing elsewhere
BODIES: dict[str, dict[str, Any]] = {
    "/signup": NEW,
    "/signup/<missing>": NEW,
    "/verify": {"email": "root@example.org", "code": "12345678"},
    "/resend": {"email": "root@example.org"},
    "/login": ROOT,
    "/login/factor": {"login_token": "none of ours", "method": "totp", "code": "000000"},
    "/login/factor/totp": {"login_token": "none of ours"},
    "/security/totp": {"code": "000000"},
    "/totp/confirm": {"code": "000000"},
    "/tokens": ROOT,
    "/tokens/refresh": {"refresh_token": "none of ours"},
    "/forgot": {"email": "root@example.org"},
    "/reset": {"token": "none of ours", "new_password": OTHER_PASSWORD},
    "/users/<own>/reset": {},
    "/users/<other>/reset": {},
    "/users/<missing>/reset": {},
    "/account": {"name": "N"},
    "/account/password": CHANGE,
    "/me": {"name": "N"},
    "/me/password": CHANGE,
    "/confirm": {"password": PASSWORD},
    "/email": {"email": "moved@example.org"},
    "/undo": {"token": "none of ours"},
    "/delete": {"sure": "y"},
    "/passkeys/login": {"credential": {}},
    "/login/factor/options": {},
    "/me/passkeys": {"credential": {}},
    "/passkeys/<missing>": {"name": "N"},
    "/users/<own>": {"active": False, "name": "N"},
    "/users/<other>": {"active": False, "name": "N"},
    "/users/<missing>": {"active": False, "name": "N"},
    "/roles": ROLES,
    "/admin/invitations": {"days": 7},
    "/api/v1/invitations": {"days": 7},
    "/admin/roles": NEW_ROLE,
    "/api/v1/roles": NEW_ROLE,
}
REFUSALS = {401, 403, 404}


def body_of(path: str, method: str = "POST") -> dict[str, Any] | None:
    if path.startswith("/api/") and method in {"GET", "DELETE"}:
        return None  # none of these calls takes one
    fitting = [end for end in BODIES if path.endswith(end)]
    return BODIES[max(fitting, key=len)] if fitting else None


def own_account(method: str, path: str) -> set[str]:
    """The visitors who may do this to everybody but themselves."""
    if "<own>" not in path or method == "GET":
        return set()
    of_others = next(row for m, p, row in ROWS if (m, p) == (method, path.replace("own", "other")))
    # 409: the other person has nothing of the kind
    return {who for who in VISITORS if of_others[who] < 300 or of_others[who] == 409}


FACTS = """
SELECT 'users', t::text FROM users t
UNION ALL SELECT 'roles', t::text FROM roles t
UNION ALL SELECT 'user_roles', t::text FROM user_roles t
UNION ALL SELECT 'invitations', t::text FROM invitations t
UNION ALL SELECT 'audit_events', t::text FROM audit_events t WHERE event <> 'account.exported'
UNION ALL SELECT 'outgoing_mails', (t.id, t.kind)::text FROM outgoing_mails t
UNION ALL SELECT 'sessions', (t.id, t.ended_at, t.ver)::text FROM sessions t
ORDER BY 1, 2
"""
_SITE_SECONDS = 60.0  # then it is made again, or proofs of identity would become too old


@dataclass(frozen=True, slots=True)
class _Site:
    """The state that a visitor finds, which is put back after they changed it.

    Attributes:
        until: when it is too old.
        cookies: of somebody else, and of the visitor.
    """

    until: float
    rows: Rows
    cookies: tuple[dict[Any, Any], dict[Any, Any]]


_sites: WeakKeyDictionary[Flask, dict[str, _Site]] = WeakKeyDictionary()


class Visit:
    """A visitor, and the site as they find it: always the same one."""

    def __init__(self, app: Flask, stores: Stores, who: str) -> None:
        self.stores, self.services = stores, services_of(app)
        self.others: FlaskClient = browser(app)
        self.client: FlaskClient = browser(app)
        known = _sites.setdefault(app, {})
        site = known.get(who)
        if site and time.monotonic() < site.until:
            stores.restore(site.rows)
            self.others._cookies, self.client._cookies = map(dict, site.cookies)
        else:
            self._set_up(app, who)
            cookies = dict(self.others._cookies or {}), dict(self.client._cookies or {})
            known[who] = _Site(time.monotonic() + _SITE_SECONDS, stores.keep(), cookies)

    def _set_up(self, app: Flask, who: str) -> None:
        stores = self.stores
        stores.clear()
        stores.sql("DELETE FROM roles WHERE name IN ('spare', 'added')")
        stores.sql("INSERT INTO roles (id, name) VALUES (97, 'spare')")
        self.services.invitations.create()
        # or the last administrator could not be changed
        sign_up(app, "root@example.org", name="Rhoda Root", roles=["admin"])
        sign_up(app, "other@example.org", name="Otto Other")
        stores.sql("UPDATE users SET image = 'https://example.org/' || name || '.png'")
        self.others = signed_in_as(app, "other@example.org")
        if who != "anonymous":
            role = {"deactivated": "admin", "user": "user", "admin": "admin"}.get(who, "one")
            if role == "one":
                stores.sql("UPDATE roles SET permissions = %s WHERE name = 'one'", [who])
            sign_up(app, roles=[role])
            self.client = signed_in_as(app)
        if who == "deactivated":
            own = self._id("users", f"email = '{EMAIL}'")
            services_of(app).administration.set_active(
                own,  # type: ignore[arg-type]  # text will do
                active=False,
                actor=OPERATOR,
            )

    def _id(self, table: str, which: str) -> str:
        found = self.stores.sql(f"SELECT id::text FROM {table} WHERE {which} LIMIT 1")
        return str(found[0][0]) if found else str(uuid4())

    def ask(self, method: str, path: str, *, empty: bool = False) -> TestResponse:
        """
        Args:
            empty: send no body.
        """
        email = EMAIL if "<own>" in path else "other@example.org"
        which = f"email = '{email}'"
        if "sessions/<" in path:
            found = self._id("sessions", f"user_id = (SELECT id FROM users WHERE {which})")
        else:
            found = self._id("users", which)
        url = path.replace("<missing>", str(uuid4()))
        url = url.replace("<own>", found).replace("<other>", found).replace("<role>", "spare")
        url = url.replace("<open>", self._id("invitations", "true"))
        body = None if empty else body_of(path, method)
        sent = {"json" if path.startswith("/api/") else "data": body}
        return self.client.open(url, method=method, **sent)  # type: ignore[arg-type]

    def facts(self) -> list[tuple[Any, ...]]:
        """All that a call could change; when somebody was last seen, or exported, aside."""
        self.services.forgotten_passwords.finish()  # what a call before has left to do
        return self.stores.sql(FACTS)


@pytest.fixture(autouse=True)
def role_with_one_permission(stores: Stores) -> Iterator[None]:
    stores.sql(
        "INSERT INTO roles (id, name, description, permissions) VALUES (98, 'one', '', '{}')"
    )
    yield
    stores.clear()
    stores.sql("DELETE FROM roles WHERE name IN ('one', 'spare', 'added')")


@pytest.mark.parametrize("who", VISITORS)
def test_who_may_do_what(app: Flask, stores: Stores, who: str) -> None:
    see_who_may_do_what(app, stores, who, ROWS)


@pytest.mark.parametrize("who", VISITORS)
def test_who_may_do_what_with_mail(make_app: MakeApp, stores: Stores, who: str) -> None:
    app = make_app(**WITHOUT_VERIFICATION)
    see_who_may_do_what(app, stores, who, ROWS_WITH_MAIL)


def test_no_call_that_mails_is_missing_from_the_table() -> None:
    without = {(method, path) for method, path, row in ROWS if 501 in row.values()}
    assert without == {(method, path) for method, path, _ in ROWS_WITH_MAIL}


def see_who_may_do_what(app: Flask, stores: Stores, who: str, rows: list[Row]) -> None:
    """A visitor who is refused changes nothing and learns nothing."""
    visit = Visit(app, stores, who)
    for method, path, row in rows:
        case, status = f"{method} {path}", row[who]
        sent_to_login = status == 302 and path != "/login"
        before = visit.facts()
        answer = visit.ask(method, path)
        assert answer.status_code == status, (case, answer.get_data(as_text=True))
        assert answer.headers["Cache-Control"] == "no-store", case
        if status in REFUSALS and path.startswith("/api/"):
            missing = who == "anonymous" and not path.endswith("/refresh")
            codes = {401: "session_missing" if missing else "session_invalid", 404: "not_found"}
            codes[403] = "own_account" if who in own_account(method, path) else "forbidden"
            if "/login/" in path:
                codes[401] = "login_expired"
            if (path, who) == ("/api/v1/sessions", Permission.SESSIONS_END):
                codes[403] = "exceeds_own_permissions"
            problem(answer, status, codes[status])
        if sent_to_login:
            leads_to = "/logout" if path == "/forward-auth/logout" else "/login"
            assert answer.location.startswith(leads_to), case
        if status in REFUSALS or sent_to_login:
            assert b"other@example.org" not in answer.get_data(), case
            assert visit.others.get("/api/v1/me").status_code == 200, case
        if status in REFUSALS or sent_to_login or method == "GET":
            assert visit.facts() == before, case
        else:
            visit = Visit(app, stores, who)


OF_PEOPLE = re.compile("rhoda|otto|(root|other)@", re.IGNORECASE)  # their email, name and image
# Here a visitor logs in as the administrator, and is shown whose session it is.
LOGS_IN = ("/login", "/api/v1/login", "/api/v1/tokens")


@pytest.mark.parametrize("who", VISITORS)
def test_others_are_shown_to_readers_of_users_alone(app: Flask, stores: Stores, who: str) -> None:
    """Everything that is answered to a visitor is looked through for emails, names and images."""
    visit = Visit(app, stores, who)
    shown = set()
    for method, path, row in ROWS:
        about_others = method == "GET" or "<other>" in path
        if row[who] >= 400 or path in LOGS_IN or not about_others:
            continue
        answer = visit.ask(method, path)
        seen = [answer.get_data(as_text=True), str(answer.headers)]
        if answer.location:
            seen.append(visit.client.get(answer.location).get_data(as_text=True))
        if any(OF_PEOPLE.search(text) for text in seen):
            shown.add(f"{method} {path}")
        if method != "GET":
            visit = Visit(app, stores, who)
    assert bool(shown) is (who in {"users:read", "admin"}), shown


OF_THE_SESSION = {"amr", "assurance_level", "auth_time"}
WITHOUT_READING = {"id", "roles", "active", "created_at"}


@pytest.mark.parametrize(
    ("permissions", "fields"),
    [
        (["users:write", "roles:grant"], WITHOUT_READING),
        (
            ["users:write", "roles:grant", "users:read"],
            WITHOUT_READING | {"email", "email_verified", "name", "image"},
        ),
    ],
    ids=["without users:read", "with users:read"],
)
def test_a_changed_user_is_told_as_far_as_one_may_read(
    app: Flask, stores: Stores, permissions: list[str], fields: set[str]
) -> None:
    visit = Visit(app, stores, "users:write")
    stores.sql("UPDATE roles SET permissions = %s WHERE name = 'one'", permissions)
    services_of(app).changes.replay()
    for path in ("/api/v1/users/<other>", "/api/v1/users/<other>/roles"):
        answer = visit.ask("PATCH" if path.endswith(">") else "PUT", path)
        assert answer.status_code == 200, answer.text
        assert set(answer.get_json()) == fields
    own = visit.client.get("/api/v1/me").get_json()
    answer = visit.client.patch(f"/api/v1/users/{own['id']}", json={"name": "New"})
    account = {name: value for name, value in own.items() if name not in OF_THE_SESSION}
    assert answer.get_json() == account | {"name": "New"}, "one's own account is shown whole"


# what decides on any method as on GET, but leads on to log-in with 303
ANY_METHOD = ("/forward-auth/redirect", "/forward-auth/envoy")


def unlisted() -> Iterator[tuple[str, str, dict[str, int]]]:
    """Each path with the methods that have no line of their own, and the status for each visitor:
    HEAD is answered as GET, and a method that a path does not have is refused."""
    readable = {path: row for method, path, row in ROWS if method == "GET"}
    refused = dict.fromkeys(VISITORS, 405)
    for path in dict.fromkeys(path for _, path, _ in ROWS):
        yield "HEAD", path, readable.get(path, refused)
        for method in ("OPTIONS", "FROB"):
            if path in ANY_METHOD:
                as_get = readable[path]
                yield method, path, {w: 303 if s == 302 else s for w, s in as_get.items()}
            else:
                yield method, path, refused


@pytest.mark.parametrize("who", VISITORS)
def test_no_method_without_a_line_says_more_than_get(app: Flask, stores: Stores, who: str) -> None:
    visit = Visit(app, stores, who)
    before = visit.facts()
    for method, path, row in unlisted():
        answer = visit.ask(method, path, empty=True)
        assert answer.status_code == row[who], f"{method} {path}"
        assert answer.headers["Cache-Control"] == "no-store", f"{method} {path}"
    assert visit.facts() == before


def told(answer: TestResponse) -> tuple[int, list[tuple[str, str]], str]:
    """All of an answer but the ids of what was asked for and of the request."""
    headers = [(name, ID.sub("", value)) for name, value in answer.headers]
    return answer.status_code, headers, ID.sub("", answer.get_data(as_text=True))


ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
OF_OTHERS = [(method, path, row) for method, path, row in ROWS if "<other>" in path]


@pytest.mark.parametrize(
    ("method", "path", "row"), OF_OTHERS, ids=[f"{method} {path}" for method, path, _ in OF_OTHERS]
)
def test_what_is_somebody_else_s_looks_like_what_is_not_there(
    app: Flask, stores: Stores, method: str, path: str, row: dict[str, int]
) -> None:
    refused = [who for who in VISITORS if row[who] in {302, *REFUSALS}]
    assert len(refused) >= 5
    for who in refused:
        visit = Visit(app, stores, who)
        assert told(visit.ask(method, path)) == told(
            visit.ask(method, path.replace("<other>", "<missing>"))
        ), who


def test_no_call_is_missing_from_the_table(app: Flask) -> None:
    """A call that is added gets a line of its own, and with it an answer for every visitor."""
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    files = {"/favicon.ico", "/.well-known/jwks.json"}
    outside = {rule for rule in rules if "static" in rule or rule in files}

    def generic(path: str) -> str:
        return "/".join("*" if part.startswith("<") else part for part in path.split("/"))

    there_are = {
        (method, generic(rule.rule))
        for rule in app.url_map.iter_rules()
        if rule.rule not in outside
        for method in (rule.methods or {"GET"}) - {"HEAD", "OPTIONS"}  # none are named: any
    }
    assert there_are == {(method, generic(path)) for method, path, _ in ROWS}
    for method, path, _ in ROWS:
        if "<other>" in path:
            for kind in ("<own>", "<missing>"):
                assert (method, path.replace("<other>", kind)) in {(m, p) for m, p, _ in ROWS}


# -- mass assignment -------------------------------------------------------------------------------

# what a person may not set about themselves, under any name a program might bind
RAISES: list[tuple[str, Any]] = [
    ("roles", ["admin"]),
    ("roles", "admin"),
    ("role", "admin"),
    ("permissions", ["roles:grant"]),
    ("active", True),
    ("admin", True),
    ("is_admin", True),
    ("id", "00000000-0000-0000-0000-000000000001"),
    ("email", "root@example.org"),
    ("epoch", 0),
    ("ver", 0),
    ("password_hash", "x"),
    ("created_at", "2001-01-01T00:00:00Z"),
    ("__class__", "admin"),
]


CALLS = [("POST", "/signup"), ("PATCH", "/me"), ("POST", "/me/password")]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_program_that_sends_more_is_refused(
    app: Flask, stores: Stores, method: str, path: str
) -> None:
    visit = Visit(app, stores, "user")
    before = visit.facts()
    known = body_of(path) or {}
    for field, value in RAISES:
        if field in known:
            continue
        answer = visit.client.open(f"/api/v1{path}", method=method, json={**known, field: value})
        assert list(problem(answer, 400, "invalid_field")["errors"]) == [field]
        assert visit.facts() == before, field


def test_a_form_that_sends_more_sets_no_more(app: Flask, stores: Stores) -> None:
    visit = Visit(app, stores, "user")
    roles = "SELECT u.email, r.name FROM users u LEFT JOIN user_roles ur ON ur.user_id = u.id"
    roles += " LEFT JOIN roles r ON r.id = ur.role_id WHERE u.active ORDER BY 1, 2"
    ids = "SELECT email, id, epoch, created_at FROM users ORDER BY 1"
    before = stores.sql(roles), stores.sql(ids)
    more = [(field, value) for field, value in RAISES if field not in NEW]
    for field, value in more:
        answer = visit.client.post("/account", data={"name": field, field: value})
        assert answer.status_code == 303
        assert (stores.sql(roles), stores.sql(ids)) == before, field
    assert visit.client.post("/signup", data={**dict(more), **NEW}).status_code == 303
    assert set(stores.sql(roles)) - set(before[0]) == {("new@example.org", "user")}


@pytest.mark.parametrize(
    "who", [who for who in VISITORS if who not in {"anonymous", "deactivated"}]
)
def test_nobody_changes_their_own_roles(app: Flask, stores: Stores, who: str) -> None:
    visit = Visit(app, stores, who)
    held = visit.client.get("/api/v1/me").get_json()["roles"]
    own = visit.client.get("/api/v1/me").get_json()["id"]
    for method, path in (("PUT", "/roles"), ("PATCH", ""), ("POST", "/roles"), ("PUT", "")):
        answer = visit.client.open(f"/api/v1/users/{own}{path}", method=method, json=ROLES)
        assert answer.status_code in {400, 403, 405}
    for roles in ([], ["user"], ["admin", "user"]):
        body = {"roles": roles}
        assert visit.client.put(f"/api/v1/users/{own}/roles", json=body).status_code == 403
        assert visit.client.post(f"/admin/users/{own}/roles", data=body).status_code == 403
    assert visit.client.get("/api/v1/me").get_json()["roles"] == held
