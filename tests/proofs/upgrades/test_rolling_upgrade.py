"""An upgrade of a site that people use, the way back, and the upgrade again: each instance in turn.

All go to instances of both versions in turn. Nobody is logged out, no session that has ended comes
back, and no request fails (`visitors.py`). The next version differs from the released one in
tables, in the shape of copies and in the functions of Redis, whatever has been changed since.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from authapp import dev
from tests.proofs.chaos.instances import Client, lenient_environment
from tests.proofs.upgrades.versions import Version, finish, following, released
from tests.proofs.upgrades.visitors import Rotation, Visitors
from tests.support.databases import add_database
from tests.support.instances import Instance

REPORT_SECONDS = 3.0  # longer than a request waits for a lock


class Site:
    """The instances that run."""

    def __init__(self) -> None:
        self.rotation = Rotation()
        self._running: dict[str, tuple[Instance, ExitStack]] = {}

    def start(self, version: Version, name: str) -> None:
        stack = ExitStack()
        instance = stack.enter_context(version.serving(name))
        with closing(Client(instance)) as client:
            assert client.ask("GET", "/code").body == str(version.folder), "the other version runs"
        self._running[name] = instance, stack
        self.rotation.add(instance)

    def stop(self, name: str) -> None:
        instance, stack = self._running.pop(name)
        self.rotation.remove(instance)
        stack.close()
        assert '"level": "error"' not in instance.log(), instance.log()[-3000:]

    def close(self) -> None:
        for _, stack in self._running.values():
            stack.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with closing(Site()) as site:
        yield site


@contextmanager
def long_report(database_url: str) -> Iterator[None]:
    """Somebody reads all sessions, and takes their time: a migration can't have the table yet."""
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM authapp_data.sessions")
        yield


@pytest.mark.first
def test_nobody_notices_an_upgrade_a_rollback_and_an_upgrade(
    served_by: str, postgres: dev.PostgreSQL, valkey: dev.Valkey, tmp_path: Path, site: Site
) -> None:
    url = add_database(postgres.url, "rolling_upgrade")
    # the other databases of these tests share the Redis
    secret = "tests-only secret key of the rolling upgrade"
    environment = lenient_environment(url, valkey.url, SECRET_KEY=secret)
    old = released(tmp_path / "released", environment)
    new = following(tmp_path / "following", environment)
    assert "up to date" in old.run("db", "upgrade")
    needed = old.run("db", "current").split("needs ")[1].strip(" .\n")
    for name in ("old-1", "old-2"):
        site.start(old, name)
    visitors = Visitors(site.rotation)
    with visitors.running(stayers=3, programs=1, comers=2):
        visitors.go_on()

        assert needed >= new.run("db", "current").split("that need ")[1][:4], (
            "all instances would have to stop: see docs/operations.md, for maintainers"
        )
        with long_report(url):  # the schema first, while all instances are of the old version
            migrating = new.start("db", "upgrade")
            time.sleep(REPORT_SECONDS)
            visitors.go_on()
        assert "up to date" in finish(migrating)
        visitors.go_on()
        site.start(new, "new-1")  # both versions side by side
        visitors.go_on(4)
        site.stop("old-2")  # one of the old version starts again, on the newer schema
        assert "up to date" in old.run("db", "upgrade")  # as a start script may do
        site.start(old, "old-2")
        visitors.go_on()

        site.stop("new-1")  # the way back
        visitors.go_on()
        new.run("db", "downgrade", needed)
        visitors.go_on()

        new.run("db", "upgrade")  # and again, to the end
        for name in ("new-1", "new-2"):
            site.start(new, name)
        for name in ("old-1", "old-2"):
            site.stop(name)
        visitors.go_on()
    assert not visitors.problems, visitors.problems[:5]
    assert {name for name, number in visitors.asked.items() if number > 50} >= {
        *("old-1", "old-2", "new-1", "new-2")
    }
    assert min(visitors.log_outs, visitors.password_changes) > 10
    sys.stderr.write(
        f"\n{served_by}: {dict(visitors.asked)} requests, {visitors.log_outs} log-outs, "
        f"{visitors.password_changes} changes of passwords, "
        f"{len(visitors.unavailable)} requests asked again\n"
    )
