"""People who leave: the export of what is known of them, and the end of their account."""

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient

from authapp.accounts.actor import OPERATOR
from authapp.accounts.export import Exports
from tests.web.conftest import MakeApp
from tests.web.factors import add_passkey, enrol
from tests.web.support import (
    EMAIL,
    PASSWORD,
    Page,
    Stores,
    access_token,
    bearing,
    browser,
    is_utc,
    log_in,
    lose_fences,
    problem,
    program,
    services_of,
    sign_up,
    signed_in_as,
    token_of,
)

ME = "/api/v1/me"
EXPORT = f"{ME}/export"
OTHER = "other@example.org"
SURE = {"sure": "y"}
MAIL = {"MAIL_URL": "smtp://127.0.0.1:9", "PUBLIC_URL": "http://localhost"}


# -- export ----------------------------------------------------------------------------------------


def exported(client: FlaskClient) -> dict[str, Any]:
    answer = client.get(EXPORT)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.get_json()
    return found


def test_an_export_holds_what_is_known(app: Flask, signed_in: FlaskClient, person: str) -> None:
    access_token(app)
    signed_in.patch(ME, json={"name": "Ada", "image": "https://example.org/ada.png"})
    answer = signed_in.get(EXPORT)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="account.json"'
    assert answer.headers["Cache-Control"] == "no-store"
    found = answer.get_json()
    assert found["is_complete"] is True
    user = found["user"]
    assert (user["id"], user["email"], user["name"]) == (person, EMAIL, "Ada")
    assert user["roles"] == ["user"]
    assert {one["kind"] for one in found["sessions"]} == {"browser", "api"}
    events = [one["event"] for one in found["events"]]
    assert {"user.created", "session.begun", "profile.changed"} <= set(events)
    assert [one["by"] for one in found["events"] if one["event"] == "profile.changed"] == ["you"]
    assert "account.exported" in [one["event"] for one in exported(signed_in)["events"]]


def test_the_page_gives_the_same_file(signed_in: FlaskClient) -> None:
    page = signed_in.get("/account/export")
    assert "Your data" in page.text
    answer = signed_in.post("/account/export")
    assert answer.mimetype == "application/json"
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert answer.get_json().keys() == exported(signed_in).keys()


def test_an_export_tells_of_factors(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(PUBLIC_URL="http://localhost")
    sign_up(app)
    ada = signed_in_as(app)
    none: dict[str, Any] = {"totp_since": None, "recovery_codes_left": 0, "passkeys": []}
    assert exported(ada)["factors"] == none
    ada.post(f"{ME}/factors/totp")  # asked for, and never confirmed
    assert exported(ada)["factors"] == none
    enrol(ada, stores)
    add_passkey(ada, "My phone")
    found = exported(ada)
    [passkey] = found["factors"].pop("passkeys")
    assert (passkey["name"], passkey["last_used_at"]) == ("My phone", None)
    assert found["factors"]["recovery_codes_left"] == 10
    assert is_utc(found["factors"]["totp_since"])
    assert is_utc(passkey["created_at"])
    [session] = [one for one in found["sessions"] if one["ended_at"] is None]
    assert session["amr"] == ["pwd", "otp", "hwk", "user"]
    assert is_utc(session["proved_at"] or session["created_at"])
    added = [one["details"] for one in found["events"] if one["event"] == "factor.added"]
    assert added == [{"what": "passkey_added"}, {"what": "totp_added"}]


def secrets_of(stores: Stores) -> set[str]:
    """Everything in the rows that must leave by no export, in the forms it could have."""
    found: set[str] = set()
    columns = stores.sql(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND (data_type = 'bytea'"
        " OR column_name IN ('password_hash', 'epoch', 'ver', 'data', 'sealed'))"
    )
    assert {"sessions", "users", "one_time_links", "outgoing_mails"} <= {t for t, _ in columns}
    for table, column in columns:
        for (value,) in stores.sql(f'SELECT "{column}" FROM "{table}"'):
            if isinstance(value, memoryview):
                raw = bytes(value)
                found |= {raw.hex(), raw.hex()[:16], repr(raw)[2:-1]}
            elif isinstance(value, (str, dict)) and value:
                found.add(str(value))
    return {one for one in found if len(one) > 7}


def test_an_export_holds_no_secret_and_nobody_else(make_app: MakeApp, stores: Stores) -> None:
    app = make_app(**MAIL)
    root, ada_id = sign_up(app, "root@example.org", name="Rhoda", roles=["admin"]), sign_up(app)
    services, ada = services_of(app), signed_in_as(app)
    token = access_token(app)
    with stores_session(app, ada) as session:
        session["basket"] = "a-secret-of-the-app"
    authenticator, codes = enrol(ada, stores)
    add_passkey(ada, "My phone")
    admin = browser(app)
    admin.environ_base["REMOTE_ADDR"] = "192.0.2.99"
    log_in(admin, "root@example.org")
    assert admin.patch(f"/api/v1/users/{ada_id}", json={"name": "Ada L."}).status_code == 200
    log_in(browser(app), EMAIL, "a wrong password here")
    services.refused_attempts.finish()
    services.reset_links.mail_for(services.users.get(ada_id).id, OPERATOR)  # type: ignore[union-attr, arg-type]
    stores.sql(
        "INSERT INTO invitations (id, digest, email, email_canonical, roles, created_by,"
        " created_at, expires_at) VALUES (%s, %s, 'cleo@example.org', 'cleo@example.org',"
        " '{user}', %s, now(), now())",
        *(str(uuid4()), b"digest-of-an-invitation", ada_id),
    )
    text = ada.get(EXPORT).text
    found = json.loads(text)
    assert {one["kind"] for one in found["mails"]} == {"reset", "factors_changed"}
    assert [one["written_by_you"] for one in found["invitations"]] == [True]
    by_others = [one for one in found["events"] if one["by"] == "another person"]
    assert [(one["event"], one["address"]) for one in by_others] == [("profile.changed", "")]
    secrets = secrets_of(stores) | {token, token_of(ada), PASSWORD, "a wrong password here"}
    secrets |= {authenticator.secret, *codes}
    assert len(secrets) > 10
    for secret in secrets:
        assert secret not in text, secret
    for other in ("cleo", "root@", "Rhoda", root, "192.0.2.99", "basket", "email_hash"):
        assert other not in text, other


def stores_session(app: Flask, client: FlaskClient) -> Any:
    """`flask.session` of a browser, to be changed."""
    return client.session_transaction()


def test_an_export_is_bounded_and_says_so(app: Flask, signed_in: FlaskClient, person: str) -> None:
    for name in ("one", "two", "three"):
        signed_in.patch(ME, json={"name": name})
    services = services_of(app)
    few = Exports(services.database, services.changes, services.exports._clock, most=2)
    found = json.loads(few.of_person(person, OPERATOR))  # type: ignore[arg-type]
    assert found["is_complete"] is False
    assert len(found["events"]) == 2
    assert found["events"][0]["at"] >= found["events"][1]["at"]


def test_an_export_and_a_deletion_need_a_fresh_proof(
    app: Flask, signed_in: FlaskClient, stores: Stores
) -> None:
    stores.age_proofs()
    problem(signed_in.get(EXPORT), 403, "step_up_required")
    problem(signed_in.delete(ME), 403, "step_up_required")
    problem(signed_in.post(f"{ME}/email", json={"email": OTHER}), 403, "step_up_required")
    for path in ("/account/export", "/account/delete", "/account/email"):
        for answer in (signed_in.get(path), signed_in.post(path, data=SURE)):
            assert answer.status_code == 303, path
            assert answer.location.startswith("/account/confirm"), path
    assert signed_in.get(ME).status_code == 200


# -- deletion --------------------------------------------------------------------------------------


def test_a_person_deletes_the_account(app: Flask, signed_in: FlaskClient, stores: Stores) -> None:
    elsewhere, bearer, cookie = signed_in_as(app), access_token(app), token_of(signed_in)
    answer = signed_in.delete(ME)
    assert (answer.status_code, answer.get_data()) == (204, b"")
    assert "Clear-Site-Data" in answer.headers
    assert signed_in.get_cookie("SESSION-TOKEN") is None
    for headers in (bearing(cookie), {"Authorization": f"Bearer {bearer}"}):
        problem(program(app).get(ME, headers=headers), 401, "session_invalid")
    problem(elsewhere.get(ME), 401, "session_invalid")
    assert log_in(browser(app)).status_code == 401
    assert stores.sql("SELECT count(*) FROM users") == [(0,)]
    events = stores.sql("SELECT event, user_id, actor_id, details::text FROM audit_events")
    assert all(row[1:3] == (None, None) for row in events), "the log names nobody who is gone"
    [(_, _, _, details)] = [row for row in events if row[0] == "user.deleted"]
    assert re.fullmatch(r'\{"email_hash": "[0-9a-f]{16}"\}', details)
    sign_up(app)  # the address is free
    assert log_in(browser(app)).status_code == 303


def test_the_page_says_what_happens_and_asks_twice(
    app: Flask, signed_in: FlaskClient, stores: Stores
) -> None:
    assert "is gone at once, for good" in signed_in.get("/account/delete").text
    unsure = signed_in.post("/account/delete")
    assert unsure.status_code == 400
    assert Page(unsure).by_id("sure")["aria-invalid"] == "true"
    assert stores.sql("SELECT count(*) FROM users") == [(1,)]
    done = signed_in.post("/account/delete", data=SURE)
    assert (done.status_code, done.location) == (303, "/")
    assert "Clear-Site-Data" in done.headers
    assert "Your account was deleted." in signed_in.get("/").text
    assert stores.sql("SELECT count(*) FROM users") == [(0,)]


def test_the_last_administrator_stays(app: Flask, stores: Stores) -> None:
    sign_up(app, roles=["admin"])
    admin = signed_in_as(app)
    problem(admin.delete(ME), 409, "last_admin")
    page = admin.post("/account/delete", data=SURE)
    assert page.status_code == 409
    assert "administrator" in page.text
    assert admin.get(ME).status_code == 200
    sign_up(app, OTHER, roles=["admin"])
    assert admin.delete(ME).status_code == 204


def test_a_deletion_while_redis_is_away_holds_when_it_is_back(
    make_app: MakeApp, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = make_app(), make_app()
    sign_up(here)
    ada, elsewhere, bearer = signed_in_as(here), signed_in_as(there), access_token(there)
    headers = {"Authorization": f"Bearer {bearer}"}
    assert (
        elsewhere.get(ME).status_code == program(there).get(ME, headers=headers).status_code == 200
    )
    with monkeypatch.context() as patch:
        lose_fences(here, patch)
        answer = ada.delete(ME)
        assert answer.status_code == 202, "other instances may notice late"
        assert ada.get_cookie("SESSION-TOKEN") is None
    services_of(there).changes.catch_up()
    problem(elsewhere.get(ME), 401, "session_invalid")
    problem(program(there).get(ME, headers=headers), 401, "session_invalid")
    assert log_in(browser(there)).status_code == 401


def test_links_invitations_and_waiting_mails_die_with_the_account(
    make_app: MakeApp, stores: Stores
) -> None:
    app = make_app(**MAIL)
    ada_id = sign_up(app)
    services, ada = services_of(app), signed_in_as(app)
    services.email_changes.ask(  # writes mails and a link
        services.sessions.find(services.tokens.check(token_of(ada))),  # type: ignore[arg-type]
        "new@example.org",
        OPERATOR,
    )
    stores.sql(
        "INSERT INTO invitations (id, digest, roles, created_by, created_at, expires_at)"
        " VALUES (%s, %s, '{user}', %s, now(), now() + interval '1 day')",
        *(str(uuid4()), b"digest", ada_id),
    )
    assert ada.delete(ME).status_code == 204
    assert stores.sql("SELECT count(*) FROM invitations") == [(0,)]
    assert stores.sql("SELECT count(*) FROM one_time_links") == [(0,)]
    waiting = "SELECT kind, user_id FROM outgoing_mails WHERE failed_at IS NULL AND sent_at IS NULL"
    assert stores.sql(waiting) == [("deleted", None)]
    dropped = "SELECT count(*) FROM outgoing_mails WHERE kind <> 'deleted' AND sealed IS NOT NULL"
    assert stores.sql(dropped) == [(0,)]


@pytest.mark.parametrize("by", ["page", "call"])
def test_an_administrator_deletes_a_person(app: Flask, stores: Stores, by: str) -> None:
    sign_up(app, "root@example.org", roles=["admin"])
    ada_id = sign_up(app)
    admin, ada = signed_in_as(app, "root@example.org"), signed_in_as(app)
    if by == "call":
        assert admin.delete(f"/api/v1/users/{ada_id}").status_code == 204
    else:
        path = f"/admin/users/{ada_id}/delete"
        assert "Delete the account of Ada?" in admin.get(path).text
        assert ada.get(ME).status_code == 200, "the question alone does nothing"
        assert admin.post(path).status_code == 303
    problem(ada.get(ME), 401, "session_invalid")
    own = admin.get(ME).get_json()["id"]
    problem(admin.delete(f"/api/v1/users/{own}"), 403, "own_account")


def test_a_deletion_that_comes_second_finds_no_session(
    app: Flask, signed_in: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    administration, user = services_of(app).administration, services_of(app).users
    delete_own: Callable[..., Any] = administration.delete_own

    def late(*args: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(administration, "delete_own", delete_own)
            delete_own(*args)
        return delete_own(*args)

    monkeypatch.setattr(type(administration), "delete_own", lambda _self, *args: late(*args))
    problem(signed_in.delete(ME), 401, "session_invalid")
    assert user.page().users == []


def test_an_export_does_not_tell_whose_address_is_taken(make_app: MakeApp) -> None:
    app = make_app(**MAIL)
    sign_up(app)
    sign_up(app, OTHER)
    client = signed_in_as(app, EMAIL)
    seen = []
    for email in (OTHER, "nobody@example.org"):
        before = len(exported(client)["mails"])
        assert client.post("/api/v1/me/email", json={"email": email}).status_code == 202
        mails = exported(client)["mails"]
        seen.append(sorted(mail["kind"] for mail in mails[: len(mails) - before]))
    assert seen[0] == seen[1] == ["change_announced"]
