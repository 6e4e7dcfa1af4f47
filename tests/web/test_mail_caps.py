"""Caps of mail: they hold over every call that sends mail, whatever the call is."""

from collections import Counter
from collections.abc import Callable

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp.accounts.emails import parse_email
from authapp.authentication.recovery import forgotten
from authapp.mail.outbox import MAIL_KINDS, Mail
from tests.support.mails import MAIL_SETTINGS, mails
from tests.support.settings import UNLIMITED
from tests.web.conftest import MakeApp
from tests.web.factors import API, code_of, enrol
from tests.web.support import EMAIL, PASSWORD, Stores, program, services_of, sign_up, signed_in_as

NEW, MOVED, LATER, GUEST = (f"{who}@example.org" for who in ("new", "moved", "later", "guest"))
EVE, ROOT, MAX, FAY, GUS = (f"{who}@example.org" for who in ("eve", "root", "max", "fay", "gus"))
ADDRESSES = (EMAIL, NEW, MOVED, LATER, GUEST, EVE, ROOT, MAX, FAY, GUS)
CAPS = ("MAIL_LIMIT_PER_RECIPIENT", "MAIL_LIMIT_TOTAL")
Calls = dict[str, Callable[[], TestResponse]]


def post(app: Flask, path: str, address: str = "127.0.0.1", **body: object) -> TestResponse:
    here = {"REMOTE_ADDR": address}
    return program(app).post(API + path, json=body, environ_overrides=here)


def wait_for_token(app: Flask, kind: str, recipient: str, link: str = "link") -> str:
    (mail,) = [one for one in mails(services_of(app), kind) if one.recipient == recipient]
    return mail.context[link].partition("token=")[2]


def calls_that_send(app: Flask, stores: Stores) -> Calls:
    """Every call that sends mail, ready to be made, and the mails that it sends."""
    people = {email: sign_up(app, email) for email in (EMAIL, EVE, MAX, FAY, GUS)}
    sign_up(app, ROOT, roles=("admin", "user"))
    root, ada, eve, fay = (signed_in_as(app, email) for email in (ROOT, EMAIL, EVE, FAY))
    max_, gus = signed_in_as(app, MAX), signed_in_as(app, GUS)
    post(app, "/signup", email=LATER, password=PASSWORD)
    # Eve's change of address is made, Ada's waits for the new address
    eve.post(f"{API}/me/email", json={"email": MOVED})
    token = wait_for_token(app, "confirm_change", MOVED)
    assert eve.post(f"{API}/email/verify", json={"token": token}).status_code == 204
    undo = wait_for_token(app, "email_changed", EVE, "undo_link")
    ada.post(f"{API}/me/email", json={"email": NEW})
    confirm = wait_for_token(app, "confirm_change", NEW)
    authenticator, codes = enrol(fay, stores)
    stores.sql("DELETE FROM outgoing_mails")

    def login_token() -> str:
        return str(post(app, "/login", email=FAY, password=PASSWORD).get_json()["login_token"])

    def fail_often(call: Callable[[], TestResponse], times: int) -> TestResponse:
        answers = [call() for _ in range(times)]
        services_of(app).refused_attempts.flush()
        return answers[-1]

    def refused_code() -> TestResponse:
        waiting = login_token()
        wrong = {"login_token": waiting, "method": "totp", "code": "000000"}
        return fail_often(lambda: post(app, "/login/factor", **wrong), 5)

    def recovery_code() -> TestResponse:
        shown = {"method": "recovery_code", "code": codes[0]}
        return post(app, "/login/factor", login_token=login_token(), **shown)

    def new_password() -> TestResponse:
        changed = {"current_password": PASSWORD, "new_password": "eleven brass clocks tick on"}
        return max_.post(f"{API}/me/password", json=changed)

    def another_app() -> TestResponse:
        client = signed_in_as(app, ROOT)
        secret = client.post(f"{API}/me/factors/totp").get_json()["secret"]
        code = code_of(type(authenticator)(secret), stores)
        return client.post(f"{API}/me/factors/totp/confirm", json={"code": code})

    return {
        "sign-up": lambda: post(app, "/signup", email=GUEST, password=PASSWORD),
        "sign-up of a taken address": lambda: post(app, "/signup", email=MAX, password=PASSWORD),
        "another link": lambda: post(app, "/email/resend", email=LATER),
        "forgotten password": lambda: post(app, "/password/forgot", email=MAX),
        "reset by an administrator": lambda: root.post(f"{API}/users/{people[MAX]}/reset"),
        "invitation": lambda: root.post(f"{API}/invitations", json={"email": GUEST}),
        "change of address": lambda: fay.post(f"{API}/me/email", json={"email": GUEST}),
        "confirmed address": lambda: ada.post(f"{API}/email/verify", json={"token": confirm}),
        "taken back address": lambda: post(app, "/email/undo", token=undo),
        "log-in from elsewhere": lambda: post(
            app, "/login", "198.51.100.9", email=MAX, password=PASSWORD
        ),
        "refused log-ins": lambda: fail_often(
            lambda: post(app, "/login", email=MAX, password="wrong"), 12
        ),
        "refused codes": refused_code,
        "recovery code": recovery_code,
        "new password": new_password,
        "deletion": lambda: gus.delete(f"{API}/me"),
        "deletion by an administrator": lambda: root.delete(f"{API}/users/{people[FAY]}"),
        "authenticator app": another_app,
    }


def fill(app: Flask) -> None:
    """Writes mails until no recipient may get one more."""
    services = services_of(app)
    for address in ADDRESSES:
        for _ in range(200):
            with services.database.transaction() as db:
                if not services.outbox.put(db, Mail("test", parse_email(address))):
                    break
        else:
            pytest.fail("no cap holds")


@pytest.mark.parametrize("cap", ["", *CAPS])
def test_caps_hold_over_every_call_that_sends_mail(
    make_app: MakeApp, stores: Stores, cap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgotten, "_PAUSE", (0.0, 0.0))
    limits = dict.fromkeys(CAPS, UNLIMITED) | ({cap: "30 per hour"} if cap else {})
    app = make_app(
        **MAIL_SETTINGS,
        **limits,
        SIGNUP="open",
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
    )
    calls = calls_that_send(app, stores)
    if cap:
        fill(app)
    sent: Counter[str] = Counter()
    for name, call in calls.items():
        before = Counter(mail.kind for mail in mails(services_of(app)))
        answer = call()
        assert answer.status_code < 500, (name, answer.text)
        written = Counter(mail.kind for mail in mails(services_of(app))) - before
        assert not (cap and written), (name, written)
        assert cap or written, (name, answer.status_code, answer.text)
        sent += written
    if not cap:
        assert set(sent) == set(MAIL_KINDS) - {"test"}
