"""Pytest fixtures for apps that embed authapp: real stores, people, and logged-in clients.

In `conftest.py`, with the extra `authapp[dev]`:

    pytest_plugins = ["authapp.testing"]

    @pytest.fixture
    def app(authapp_settings):
        return create_app(authapp_settings)  # your factory; it puts them into app.config

    def test_notes(auth):
        ann = auth.create_user("ann@example.org", roles=["editor"])
        assert auth.login_as(ann).get("/notes").status_code == 200

`signed_in_client` tests views without PostgreSQL and Valkey.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.sessions import SessionInterface as FlaskSessionInterface
from flask.testing import FlaskClient
from msgspec.structs import replace
from sqlalchemy import delete, text

from authapp.accounts.actor import NOBODY, OPERATOR
from authapp.accounts.assurance import PASSWORD as BY_PASSWORD
from authapp.accounts.identity import ADMIN, USER, Identity
from authapp.sessions.records import ActiveSession, SessionRecord
from authapp.storage.models import AuditEvent, PendingFence, Role, User
from authapp.web.app_state import AppState, state_of
from authapp.web.request_credentials import KNOWN_RESULT, KnownResult
from authapp.web.session.auth_session import AuthSession
from authapp.web.session.interface import SessionInterface

PASSWORD = "correct horse battery staple"  # noqa: S105 — of people that tests create
_SECRET = "only-for-tests-and-long-enough-to-be-accepted"  # noqa: S105


class AuthClient(FlaskClient):
    """Flask's test client, which can log people in without a password and a form."""

    def login_as(self, user: Identity | UUID | str) -> "AuthClient":
        """Begins a session of this person, and sets its cookie in this client.

        Args:
            user: the person, their id, or their email.
        Returns:
            this client.
        Raises:
            LookupError: no account has this id or email, or the account is not active.
        """
        app = self.application
        services = state_of(app).services
        person = _person(state_of(app), user)
        credentials = services.credentials.find(services.parse_email(person.email))
        if credentials is None or not person.active:
            raise LookupError(f"{person.email} can't log in: the account is not active")
        # whoever must show a second factor has done so, too
        amr = ("pwd", "otp") if services.factors.are_due(person) else BY_PASSWORD
        session = services.sessions.begin(person.id, credentials.epoch, NOBODY, amr=amr)
        self.set_cookie(app.config["SESSION_COOKIE_NAME"], session.token.text)
        return self


class AuthTester:
    """The accounts of an app in a test.

    Attributes:
        app: the fixture `app`.
    """

    def __init__(self, app: Flask) -> None:
        self.app = app

    def create_user(
        self,
        email: str = "person@example.org",
        *,
        password: str = PASSWORD,
        name: str = "",
        roles: Sequence[str] = (USER,),
    ) -> Identity:
        """Creates an account that can log in with `password`. Missing roles are created.

        Raises:
            InvalidField: `email`, `password` or `name`, with the reason.
            EmailTaken: create accounts of a test with different emails.
        """
        services = state_of(self.app).services
        known = {role.name for role in services.roles.list()}
        for role in set(roles) - known:
            services.roles.create(role, [], OPERATOR)
        return services.registration.sign_up(email, password, name, tuple(roles))

    def client(self) -> AuthClient:
        """A new client, without a session."""
        return AuthClient(self.app, self.app.response_class)

    def login_as(self, user: Identity | UUID | str) -> AuthClient:
        """A new client with a session of this person; see `AuthClient.login_as`."""
        return self.client().login_as(user)


@pytest.fixture(scope="session")
def authapp_settings() -> Iterator[dict[str, Any]]:
    """Settings for `app.config`: stores of this test run, secrets, and quick hashing."""
    from authapp import dev  # noqa: PLC0415 — only tests with engines need the extra
    from authapp.storage import schema  # noqa: PLC0415

    with (
        tempfile.TemporaryDirectory(prefix="authapp-", ignore_cleanup_errors=True) as folder,
        dev.private_socket_dir() as sockets,
    ):
        home = Path(folder)
        home.chmod(0o711)  # as root the servers run as another account
        with (
            dev.PostgreSQL.start(home / "postgres", sockets, "tests", durable=False) as postgres,
            dev.Valkey.start(home / "valkey", sockets, "tests", durable=False) as valkey,
        ):
            schema.upgrade(postgres.url)
            yield {
                **settings_without_engines(),
                "DATABASE_URL": postgres.url,
                "REDIS_URL": valkey.url,
            }


@pytest.fixture
def auth(app: Flask, authapp_settings: dict[str, Any]) -> Iterator[AuthTester]:
    """The accounts of your fixture `app`. A test begins without any.

    With this fixture, `app.test_client()` returns an `AuthClient`.
    """
    for name in ("DATABASE_URL", "REDIS_URL"):
        if app.config.get(name) != authapp_settings[name]:
            pytest.fail(
                f"app.config[{name!r}] is not that of the fixture authapp_settings: tests empty "
                "both stores, so the fixture app must use those settings"
            )
    app.test_client_class = AuthClient
    _empty(state_of(app))
    yield AuthTester(app)
    state_of(app).services.close()


def settings_without_engines() -> dict[str, Any]:
    """Settings for `app.config` in tests with `signed_in_client`, which use no stores."""
    return {
        "TESTING": True,
        "DATABASE_URL": "postgresql://nobody@localhost/none",
        "REDIS_URL": "redis://localhost:1/0",
        "SECRET_KEY": _SECRET,
        "PASSWORD_PEPPER": _SECRET[::-1],
        "SESSION_COOKIE_SECURE": "0",
        "BCRYPT_ROUNDS": 4,
        "LOGIN_LIMIT_PER_ADDRESS": "100000 per minute",
    }


def signed_in_client(
    app: Flask,
    email: str = "person@example.org",
    *,
    name: str = "",
    roles: Sequence[str] = (USER,),
    permissions: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> FlaskClient:
    """A client whose requests all come from this person. It needs neither Postgres nor Redis.

    Views read `current_user`, guards apply, and `flask.session` begins with `data` and is kept in
    memory. Log-in, log-out and the Python API need the fixture `auth`.
    """
    now = datetime.now(UTC)
    person = Identity(
        id=uuid4(),
        email=email,
        name=name,
        image="",
        roles=tuple(sorted(roles)),
        active=True,
        created_at=now,
        permissions=tuple(sorted(permissions)),
    )
    record = SessionRecord(
        id=uuid4(),
        kind="browser",
        user=person,
        created_at=now,
        last_seen_at=now,
        idle_seconds=3_600,
        expires_at=now + timedelta(days=1),
        data=dict(data or {}),
        ver=1,
        checked_at=now,
    )
    authenticator = state_of(app).authenticator
    session = ActiveSession(authenticator.tokens.mint(), record)
    client = app.test_client()
    client.set_cookie(authenticator.cookie_name, session.token.text)
    if not isinstance(app.session_interface, _KeptInMemory):
        app.session_interface = _KeptInMemory(app.session_interface)
    app.session_interface.keep(session, client.environ_base)
    return client


class _KeptInMemory(SessionInterface):
    """Keeps the data of signed-in clients in memory, where they have no stores.

    Args:
        interface: of the app; whatever else it does stays as it is.
    """

    def __init__(self, interface: FlaskSessionInterface) -> None:
        self.__dict__.update(interface.__dict__)
        self._environs: dict[UUID, dict[str, Any]] = {}  # by session: of the requests of its client

    def keep(self, session: ActiveSession, environ: dict[str, Any]) -> None:
        self._environs[session.record.id] = environ
        environ[KNOWN_RESULT] = KnownResult(session)

    def _save_in_store(self, session: AuthSession, live: ActiveSession) -> None:
        environ = self._environs.get(live.record.id)
        if environ is None:
            super()._save_in_store(session, live)
        elif session.modified:
            changed, removed = session.patch()
            kept = {k: v for k, v in live.record.data.items() if k not in removed}
            self.keep(ActiveSession(live.token, replace(live.record, data=kept | changed)), environ)


def _person(state: AppState, user: Identity | UUID | str) -> Identity:
    users, parse = state.services.users, state.services.parse_email
    if isinstance(user, Identity):
        user = user.id
    found = users.get(user) if isinstance(user, UUID) else users.find(parse(user))
    if found is None:
        raise LookupError(f"nobody has the id or email {user}")
    return found


def _empty(state: AppState) -> None:
    """Removes all users, and all roles that are not built in."""
    with state.services.database.transaction() as db:
        db.execute(text("SET LOCAL authapp.fenced = 'on'"))  # their copies go below
        for table in (AuditEvent, User, PendingFence):
            db.execute(delete(table))
        db.execute(delete(Role).where(Role.name.not_in([ADMIN, USER])))
    state.services.redis.flushdb()
