"""`auth.users`, `auth.sessions`, `auth.roles` and `auth.log_in(user)`: in requests and outside."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any
from uuid import UUID

import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from authapp import OPERATOR, Actor, Auth, current_user
from authapp.accounts.audit import Filter
from authapp.accounts.emails import parse_email
from authapp.accounts.identity import Identity
from authapp.config import Config
from authapp.errors import (
    EmailTaken,
    ExceedsOwnPermissions,
    Forbidden,
    InvalidCredentials,
    InvalidField,
    NotAuthenticated,
    OwnAccount,
    StoreUnavailable,
    UnknownRole,
    UnknownUser,
)
from authapp.sessions.records import EndedSession, EndReason
from authapp.storage.models import User
from tests.support.instances import ROOT
from tests.support.people import EMAIL, OTHER_PASSWORD, PASSWORD
from tests.support.settings import settings_for
from tests.web.support import browser, services_of, token_of

auth = Auth()
NOBODY = UUID(int=7)


@pytest.fixture
def app(config: Config) -> Iterator[Flask]:
    """An app that embeds us, with views that call the API in the name of whoever asks."""
    app = Flask(__name__)
    app.testing = True
    auth.init_app(app, config)

    @app.post("/log-in/<user_id>")
    def log_in(user_id: str) -> str:
        user = auth.users.get(user_id)
        assert user is not None
        session["cart"] = 1
        auth.log_in(user)
        return str(current_user.email)

    @app.post("/act/<name>/<user_id>")
    def act(name: str, user_id: str) -> str:
        ACTS[name](user_id)
        return "done"

    yield app
    services_of(app).close()


@pytest.fixture
def context(app: Flask) -> Iterator[None]:
    with app.app_context():
        yield


def signed_in(app: Flask, user: Identity) -> FlaskClient:
    client = browser(app)
    assert client.post(f"/log-in/{user.id}").status_code == 200
    return client


ACTS: dict[str, Callable[[str], object]] = {
    "create": lambda _: auth.users.create("new@example.org", roles=["admin"]),
    "update": lambda user: auth.users.update(user, name="Other"),
    "set_roles": lambda user: auth.users.set_roles(user, ["user"]),
    "deactivate": auth.users.deactivate,
    "activate": auth.users.activate,
    "delete": auth.users.delete,
    "end_all": auth.sessions.end_all,
    "end": lambda user: [auth.sessions.end(s.id) for s in auth.sessions.of_user(user)],
    "create role": lambda _: auth.roles.create("more", ["audit:read"]),
    "delete role": lambda _: auth.roles.delete("spare"),
}


# -- users -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("context")
def test_a_user_is_created_found_and_listed() -> None:
    ada = auth.users.create(EMAIL, PASSWORD, name="Ada", verified=True)
    assert (ada.email, ada.name, ada.roles, ada.active) == (EMAIL, "Ada", ("user",), True)
    for user_id in (ada.id, str(ada.id)):
        assert auth.users.get(user_id) == ada
    assert auth.users.find("ADA@example.org") == ada
    bob = auth.users.create("bob@example.org", roles=["admin", "user"])
    assert bob.roles == ("admin", "user")
    page = auth.users.page(limit=1)
    assert page.users == [bob]
    assert auth.users.page(page.next_cursor).users == [ada]
    assert auth.users.page(search="BOB@").users == [bob]


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("user_id", [NOBODY, str(NOBODY), "no id", "", "\0"])
def test_who_is_not_there_is_not_found(user_id: Any) -> None:
    assert auth.users.get(user_id) is None
    assert auth.sessions.end(user_id) is False
    with pytest.raises(UnknownUser):
        auth.users.delete(user_id)
    with pytest.raises(UnknownUser):
        auth.users.set_password(user_id, PASSWORD)


@pytest.mark.usefixtures("context")
@pytest.mark.parametrize("email", ["nobody@example.org", "no email", "", "\0", "x" * 10_000])
def test_an_email_that_nobody_has_finds_nobody(email: str) -> None:
    assert auth.users.find(email) is None


@pytest.mark.usefixtures("context")
def test_what_can_not_be_created_is_refused() -> None:
    auth.users.create(EMAIL)
    with pytest.raises(EmailTaken):
        auth.users.create("ADA@EXAMPLE.ORG")
    with pytest.raises(UnknownRole):
        auth.users.create("bob@example.org", roles=["auditor"])
    with pytest.raises(InvalidField) as caught:
        auth.users.create("bob", "short", name="\0")
    assert set(caught.value.errors) == {"email", "password", "name"}
    for limit in (0, 201):
        with pytest.raises(ValueError, match="1 to 200"):
            auth.users.page(limit=limit)


@pytest.mark.parametrize("verified", [True, False])
def test_whether_an_email_is_verified_is_kept(app: Flask, verified: bool) -> None:
    with app.app_context():
        user = auth.users.create(EMAIL, verified=verified)
    with services_of(app).database.transaction() as db:
        assert (db.get_one(User, user.id).email_verified_at is not None) is verified


def test_a_user_without_a_password_can_not_log_in_until_there_is_one(app: Flask) -> None:
    with app.test_request_context(environ_base={"REMOTE_ADDR": "192.0.2.7"}):
        user = auth.users.create(EMAIL)
        for password in ("", PASSWORD, "\0", "None"):
            with pytest.raises(InvalidCredentials):
                auth.log_in(EMAIL, password)
        auth.users.set_password(user.id, PASSWORD)
        assert auth.log_in(EMAIL, PASSWORD).record.user == user


def test_a_new_password_ends_all_sessions(app: Flask) -> None:
    with app.app_context():
        ada = auth.users.create(EMAIL, PASSWORD)
        signed_in(app, ada)
        auth.users.set_password(ada.id, OTHER_PASSWORD)
        assert auth.sessions.of_user(ada.id) == []
        with pytest.raises(InvalidField):
            auth.users.set_password(ada.id, "short")


# -- sessions and roles ----------------------------------------------------------------------------


def test_sessions_are_listed_and_ended(app: Flask) -> None:
    with app.app_context():
        ada = auth.users.create(EMAIL)
    clients = [signed_in(app, ada) for _ in range(3)]
    services = services_of(app)
    tokens = [services.tokens.check(token_of(client)) for client in clients]
    with app.app_context():
        first, *others = auth.sessions.of_user(ada.id)
        assert auth.sessions.end(str(first.id)) is True
        assert auth.sessions.end(first.id) is False
        assert auth.sessions.of_user(ada.id) == others
        assert auth.sessions.end_all(ada.id) == 2
        assert auth.sessions.of_user(ada.id) == []
    for token in tokens:
        assert token is not None
        assert services.sessions.find(token) == EndedSession(EndReason.REVOKED_BY_ADMIN)


@pytest.mark.usefixtures("context")
def test_roles_are_listed_created_and_deleted() -> None:
    made = auth.roles.create("auditor", ["audit:read"])
    assert (made.name, made.description, made.permissions) == ("auditor", "", ("audit:read",))
    ada = auth.users.create(EMAIL, roles=["auditor"])
    assert [role.name for role in auth.roles.list()] == ["admin", "auditor", "user"]
    assert auth.roles.delete("auditor") == 1
    found = auth.users.get(ada.id)
    assert found is not None
    assert found.roles == ()


# -- who acts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ACTS)
def test_outside_a_request_and_for_a_visitor_the_app_acts(app: Flask, name: str) -> None:
    with app.app_context():
        auth.users.create("root@example.org", roles=["admin"])
        users = [auth.users.create(f"{n}@example.org").id for n in "ab"]
        auth.roles.create("spare")
        ACTS[name](str(users[0]))
        (entry, *_) = services_of(app).audit.page(limit=1).entries
        assert (entry.actor, entry.address) == (None, "")
        for role in {"more", "spare"} & {role.name for role in auth.roles.list()}:
            auth.roles.delete(role)
        auth.roles.create("spare")
        if made := auth.users.find("new@example.org"):
            auth.users.delete(made.id)
    answer = browser(app).post(f"/act/{name}/{users[1]}")
    assert answer.text == "done"
    (entry, *_) = services_of(app).audit.page(limit=1).entries
    if entry.event != "session.ended":
        assert entry.actor is None


@pytest.mark.parametrize("name", ACTS)
def test_in_the_request_of_a_person_their_permissions_count(app: Flask, name: str) -> None:
    with app.app_context():
        root = auth.users.create("root@example.org", roles=["admin", "user"])
        plain = auth.users.create("plain@example.org")
        target = auth.users.create(EMAIL)
        auth.roles.create("spare")
    signed_in(app, target)
    by_plain, by_root = signed_in(app, plain), signed_in(app, root)
    before = _facts(app)
    with pytest.raises((Forbidden, ExceedsOwnPermissions)) as refused:
        _raising(app, by_plain, f"/act/{name}/{target.id}")
    assert (refused.type is ExceedsOwnPermissions) is (name == "create")
    assert _facts(app) == before
    assert by_root.post(f"/act/{name}/{target.id}").text == "done"
    newest = services_of(app).audit.page(limit=3).entries
    acted = [e for e in newest if e.event != "session.ended"] or newest
    if name != "end":
        assert acted[0].actor is not None
        assert (acted[0].actor.id, acted[0].address) == (root.id, "127.0.0.1")


def _raising(app: Flask, client: FlaskClient, path: str) -> None:
    """Ask, and raise the error that the view met."""
    seen: list[Exception] = []
    name = path.split("/")[2]
    original = ACTS[name]

    def noting(user: str) -> object:
        try:
            return original(user)
        except Exception as error:
            seen.append(error)
            raise

    ACTS[name] = noting
    try:
        assert client.post(path).status_code == 403
    finally:
        ACTS[name] = original
    raise seen[0]


def _facts(app: Flask) -> list[str]:
    from tests.support.services import sql  # noqa: PLC0415 - beside its only use

    tables = ("users", "roles", "user_roles", "audit_events")
    services = services_of(app)
    return [r for t in tables for (r,) in sql(services, f"SELECT t::text FROM {t} t ORDER BY 1")]


def test_people_change_their_own_name_and_end_their_own_sessions_alone(app: Flask) -> None:
    with app.app_context():
        auth.users.create("root@example.org", roles=["admin"])
        ada = auth.users.create(EMAIL)
    client = signed_in(app, ada)
    assert client.post(f"/act/update/{ada.id}").text == "done"
    assert client.post(f"/act/end/{ada.id}").text == "done"
    client = signed_in(app, ada)
    assert client.post(f"/act/end_all/{ada.id}").text == "done"
    with app.app_context():
        found = auth.users.get(ada.id)
        assert found is not None
        assert found.name == "Other"
        assert auth.sessions.of_user(ada.id) == []


@pytest.mark.parametrize("name", ["set_roles", "deactivate", "delete"])
def test_nobody_does_to_themselves_what_only_others_may(app: Flask, name: str) -> None:
    with app.app_context():
        auth.users.create("second@example.org", roles=["admin"])
        root = auth.users.create("root@example.org", roles=["admin", "user"])
    with pytest.raises(OwnAccount):
        _raising(app, signed_in(app, root), f"/act/{name}/{root.id}")


def test_the_app_acts_in_a_request_where_it_says_so(app: Flask) -> None:
    @app.post("/leave")
    def leave() -> str:
        auth.users.delete(current_user.id, actor=OPERATOR)
        return "gone"

    with app.app_context():
        ada = auth.users.create(EMAIL)
    assert signed_in(app, ada).post("/leave").text == "gone"
    with app.app_context():
        assert auth.users.get(ada.id) is None


@pytest.mark.usefixtures("context")
def test_a_job_acts_for_the_person_who_ordered_it() -> None:
    plain, ada = auth.users.create("plain@example.org"), auth.users.create(EMAIL)
    with pytest.raises(Forbidden):
        auth.users.deactivate(ada.id, actor=Actor(id=plain.id))
    with pytest.raises(NotAuthenticated):
        auth.users.deactivate(ada.id, actor=Actor(id=NOBODY))


# -- log in a user that the app has verified -------------------------------------------------------


def test_a_verified_user_is_logged_in_with_a_new_token(app: Flask) -> None:
    with app.app_context():
        ada = auth.users.create(EMAIL)
    client, services = signed_in(app, ada), services_of(app)
    first = token_of(client)
    token = services.tokens.check(first)
    assert token is not None
    found: Any = services.sessions.find(token)
    assert found.record.data == {"cart": 1}, "what a visitor had comes along"
    assert client.post(f"/log-in/{ada.id}").text == EMAIL
    assert token_of(client) != first
    assert services.sessions.find(token) == EndedSession(EndReason.REPLACED)
    (active,) = services.sessions.of_user(ada.id)
    assert active.id != found.record.id
    begun = services.audit.page(which=Filter(event="session.begun")).entries
    assert [e.details for e in begun] == [{"kind": "browser", "method": "application"}] * 2


def test_a_token_that_was_planted_is_not_taken_over(app: Flask) -> None:
    with app.app_context():
        ada, mallory = auth.users.create(EMAIL), auth.users.create("mallory@example.org")
    planted = token_of(signed_in(app, mallory))
    client = browser(app)
    client.set_cookie("SESSION-TOKEN", planted)
    client.post(f"/log-in/{ada.id}")
    assert token_of(client) != planted
    assert services_of(app).sessions.of_user(mallory.id) == [], "it ends"


@pytest.mark.parametrize("how", ["deactivate", "delete"])
def test_who_is_deactivated_or_deleted_is_not_logged_in(app: Flask, how: str) -> None:
    with app.test_request_context():
        ada = auth.users.create(EMAIL)
        ACTS[how](str(ada.id))
        with pytest.raises(InvalidCredentials):
            auth.log_in(ada)
        assert not current_user.is_authenticated


def test_without_postgres_nobody_is_logged_in_so(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with app.test_request_context():
        ada = auth.users.create(EMAIL, PASSWORD)
        services_of(app).credentials.find(parse_email(EMAIL))

        def nobody_there() -> None:
            raise StoreUnavailable("postgres")

        monkeypatch.setattr(services_of(app).database.breaker, "recover", nobody_there)
        services_of(app).database.breaker.open()
        with pytest.raises(StoreUnavailable):
            auth.log_in(ada)
        services_of(app).database.breaker.retire()


def test_an_email_without_a_password_is_no_user(app: Flask) -> None:
    with app.test_request_context():
        auth.users.create(EMAIL)
        with pytest.raises(TypeError, match="an email and a password, or a user"):
            auth.log_in(EMAIL)  # type: ignore[call-overload]


def test_without_an_app_it_says_so() -> None:
    with pytest.raises(RuntimeError):
        auth.users.find(EMAIL)
    with Flask(__name__).app_context(), pytest.raises(RuntimeError, match=r"call Auth\(app\)"):
        auth.users.find(EMAIL)


# -- the examples ----------------------------------------------------------------------------------

PAGE = (ROOT / "docs/python-api.md").read_text(encoding="utf-8")


def test_the_examples_print_what_stands_below_them(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings_for(config.DATABASE_URL, config.REDIS_URL).items():
        monkeypatch.setenv(f"MYAPP_{name}", value)
    blocks = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    seen = 0
    try:
        for (kind, code), (next_kind, shown) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
            if kind != "python":
                continue
            with redirect_stdout(io.StringIO()) as printed:
                exec(compile(code, "docs/python-api.md", "exec"), names)
            if next_kind == "text":
                assert printed.getvalue() == shown, code
                seen += 1
    finally:
        for app in (value for value in names.values() if isinstance(value, Flask)):
            services_of(app).close()
    assert seen >= 6
