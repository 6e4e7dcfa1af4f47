"""Engines of our own for every test process, on private sockets, gone at the end."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import enumerate as enumerate_threads

import hypothesis
import psycopg2
import pytest
import redis

from authapp import dev
from authapp.config import Config
from authapp.services import Services
from authapp.storage.models import Base
from tests.support import instances, smtp
from tests.support.clock import Clock
from tests.support.compiled_once import compile_once
from tests.support.hashing import hash_at_once
from tests.support.services import open_services
from tests.support.settings import make_config
from tests.support.smtp import MailServer
from tests.support.waiting import wait_until

PASSWORD = "tests-only"

MADE_BY_MIGRATIONS = {"compatibility", "deployment", "roles"}
"""Tables whose first rows come with them."""

# A developer's own settings, real servers above all, are nothing to the tests.
for name in (
    "DATABASE_URL",
    "DATABASE_SCHEMA",
    "REDIS_URL",
    "KEY_PREFIX",
    "SECRET_KEY",
    "PASSWORD_PEPPER",
    "DATA_DIR",
    "HOST",
    "PORT",
):
    os.environ.pop(name, None)


# The same examples every time, and no deadline for slow machines; "default" draws new ones.
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

compile_once()
hash_at_once()


@contextmanager
def room_for_servers() -> Iterator[Path]:
    """Room for data of servers; not under pytest's directory, which it closes to other accounts."""
    with tempfile.TemporaryDirectory(prefix="authapp-tests-", ignore_cleanup_errors=True) as path:
        os.chmod(path, 0o711)  # as root the servers run as another account
        yield Path(path)


@pytest.fixture(scope="session")
def shared_dir() -> Iterator[Path]:
    """Room for the servers that all tests of a process share."""
    with room_for_servers() as path:
        yield path


@pytest.fixture(scope="module")
def engine_dir() -> Iterator[Path]:
    """Room for servers of a module; empty each time that the module is set up."""
    with room_for_servers() as path:
        yield path


@pytest.fixture(scope="session")
def postgres(shared_dir: Path) -> Iterator[dev.PostgreSQL]:
    with (
        dev.private_socket_dir() as sockets,
        dev.PostgreSQL.start(shared_dir / "postgres", sockets, PASSWORD, durable=False) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def valkey(shared_dir: Path) -> Iterator[dev.Valkey]:
    with (
        dev.private_socket_dir() as sockets,
        dev.Valkey.start(shared_dir / "valkey", sockets, PASSWORD, durable=False) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def database_url(postgres: dev.PostgreSQL) -> str:
    """A migrated database, shared by the tests of one process."""
    from tests.support.databases import migrate  # noqa: PLC0415 - the tests of the engines do without

    migrate(postgres.url)
    return postgres.url


@pytest.fixture
def redis_client(valkey: dev.Valkey) -> Iterator[redis.Redis]:
    """A client that speaks bytes, on an empty server."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()  # ours: the fixture above started it
        yield client


@pytest.fixture
def config(database_url: str, valkey: dev.Valkey, redis_client: redis.Redis) -> Config:
    """Settings for the engines above, both of them empty."""
    connection = psycopg2.connect(database_url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL authapp.fenced = 'on'")
            for table in reversed(Base.metadata.sorted_tables):
                if table.name not in MADE_BY_MIGRATIONS:
                    cursor.execute(f'DELETE FROM "{table.name}"')
            cursor.execute(
                "UPDATE roles SET permissions = '{}' WHERE name = 'user';"
                "DELETE FROM roles WHERE name NOT IN ('admin', 'user')"
            )
    finally:
        connection.close()
    return make_config(database_url, valkey.url)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def services(config: Config, clock: Clock) -> Iterator[Services]:
    with open_services(config, clock) as services:
        yield services


@pytest.fixture
def two_instances(config: Config, clock: Clock) -> Iterator[Services]:
    """Another instance beside `services`."""
    with open_services(config, clock) as services:
        yield services


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    """A mail server; `MailServer.settings` are those of an app that mails through it."""
    with smtp.mail_server() as server:
        yield server


@pytest.fixture(scope="session")
def served_by() -> str:
    """The server that the product is started with. Tests that use it are marked `served`."""
    return instances.SERVER


@pytest.fixture(scope="session", autouse=True)
def old_copies_answer_in_outages_only() -> Iterator[None]:
    """Postgres has a long time to answer. A busy machine takes more than 0.8 s now and then, and an
    old copy would answer in its place. Tests with processes show the effects of a slow Postgres."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("authapp.sessions.lookup.REVALIDATION_PATIENCE", 30.0)
        yield


@pytest.fixture(autouse=True)
def nothing_recovers_any_more() -> Iterator[None]:
    """A breaker that a test left open would go on asking, and be counted, in those after it."""
    yield
    wait_until(lambda: not _recovering(), lambda: f"left behind: {_recovering()}")


def _recovering() -> list[str]:
    return [thread.name for thread in enumerate_threads() if "-recovery" in thread.name]


def pytest_configure() -> None:
    if instances.SERVER not in instances.SERVERS:
        known = " or ".join(instances.SERVERS)
        raise pytest.UsageError(f"SERVER is {instances.SERVER!r}: set it to {known}")


@pytest.hookimpl(tryfirst=True)  # before those that `-m` leaves out are
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "served_by" in getattr(item, "fixturenames", ()):
            item.add_marker("served")
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    instances.may_serve = item.get_closest_marker("served") is not None


# In CI everything a test needs is installed, so a skip there hides a test that no longer runs.


def _skipped(config: pytest.Config) -> int:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return len(reporter.stats.get("skipped", [])) if reporter and os.environ.get("CI") else 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if count := _skipped(terminalreporter.config):
        terminalreporter.write_line(
            f"CI is set, where a skip is a failure: {count} skipped", red=True
        )
