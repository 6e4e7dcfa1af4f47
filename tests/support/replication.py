"""A primary and a streaming standby, both of the embedded wheel, of which either may die."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

from authapp import dev
from authapp.dev.postgres import postgres_programs
from tests.support.databases import ask, run_sql
from tests.support.instances import free_port
from tests.support.waiting import wait_until

PASSWORD = "tests-only"


class Pair:
    """Two places, each for one server: one holds the primary, the other its standby or nothing.

    Attributes:
        primary: takes changes.
        standby: follows the primary; None after a failover, until there is a new one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()
        self._stack = ExitStack()
        self._places = [free_port(), free_port()]
        self.primary = self._start(self._new_home(), self._places[0])
        # an acknowledged commit must survive a kill of the server, though not of the machine
        run_sql(self.primary.url, "ALTER DATABASE authapp SET synchronous_commit = on")
        self.standby: dev.PostgreSQL | None = None

    @property
    def url(self) -> str:
        """Both places, as DATABASE_URL of an instance."""
        places = ",".join(f"127.0.0.1:{port}" for port in self._places)
        account = f"authapp:{quote(PASSWORD, safe='')}"
        return f"postgresql://{account}@{places}/authapp?target_session_attrs=read-write"

    def add_standby(self) -> None:
        """Clones the primary into the place that is free; returns once the clone follows it."""
        home = self._new_home()
        subprocess.run(
            [
                postgres_programs() / "pg_basebackup",
                *("--pgdata", home / "cluster", "--dbname", self.primary.url),
                *("--checkpoint", "fast", "--wal-method", "stream", "--write-recovery-conf"),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        (place,) = {*self._places} - {_port_of(self.primary)}
        self.standby = self._start(home, place)
        self._await_streaming()

    def be_synchronous(self, *, on: bool) -> None:
        """Has each commit wait for the standby, or for nobody."""
        names = "*" if on else ""
        run_sql(
            self.primary.url,
            f"ALTER SYSTEM SET synchronous_standby_names = '{names}'",
            "SELECT pg_reload_conf()",
        )
        state = "sync" if on else "async"
        wait_until(
            lambda: (
                ask(self.primary.url, "SELECT sync_state FROM pg_stat_replication") == [(state,)]
            ),
            f"the standby does not become {state}",
        )

    def is_level(self) -> bool:
        """Whether the standby has applied all that the primary wrote."""
        return ask(
            self.primary.url,
            "SELECT replay_lsn >= pg_current_wal_lsn() FROM pg_stat_replication",
        ) == [(True,)]

    def cut_off_standby(self) -> None:
        """Commits no longer reach the standby: all from now on are lost with the primary."""
        assert self.standby is not None
        run_sql(
            self.standby.url,
            "ALTER SYSTEM SET primary_conninfo = ''",
            "SELECT pg_reload_conf()",
        )
        wait_until(
            lambda: ask(self.primary.url, "SELECT 1 FROM pg_stat_replication") == [],
            "the standby still follows",
        )

    def kill_primary(self) -> None:
        """The processes that serve notice, and end."""
        os.kill(self.primary.pid, signal.SIGKILL)
        self.primary.stop()

    def promote(self) -> None:
        """The standby becomes the primary."""
        assert self.standby is not None
        run_sql(self.standby.url, "SELECT pg_promote(wait => true)")
        self.primary, self.standby = self.standby, None

    def fail_over(self) -> None:
        self.kill_primary()
        self.promote()

    def close(self) -> None:
        self._stack.close()

    def _new_home(self) -> Path:
        home = self._folder / f"server-{next(self._numbers)}"
        home.mkdir(mode=0o700, parents=True)
        return home

    def _start(self, home: Path, port: int) -> dev.PostgreSQL:
        sockets = self._stack.enter_context(dev.private_socket_dir())
        return self._stack.enter_context(
            dev.PostgreSQL.start(home, sockets, PASSWORD, durable=False, tcp=True, port=port)
        )

    def _await_streaming(self) -> None:
        wait_until(
            lambda: (
                ask(self.primary.url, "SELECT state FROM pg_stat_replication") == [("streaming",)]
            ),
            "the standby does not follow",
        )


@contextmanager
def replicated(folder: Path) -> Iterator[Pair]:
    """A primary and its standby, asynchronous."""
    pair = Pair(folder)
    try:
        pair.add_standby()
        yield pair
    finally:
        pair.close()


def _port_of(server: dev.PostgreSQL) -> int:
    return int(server.url.rpartition("/")[0].rpartition(":")[2])
