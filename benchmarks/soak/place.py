"""The stores and the server of a soak, and what they use at a moment."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import redis

from authapp import dev
from authapp.config import Config
from authapp.errors import StoreUnavailable
from authapp.services import Services, build_services
from authapp.storage import schema
from benchmarks.servers import PASSWORD, SETTINGS, Server, serving

MB = 1024 * 1024
# A soak has minutes for what takes a site hours or days.
QUICKLY = {
    "WEB_CONCURRENCY": "2",
    "BCRYPT_ROUNDS": "4",
    "SESSION_IDLE_SECONDS": "60",
    "REVALIDATE_SECONDS": "5",
    "CREDENTIAL_CACHE_SECONDS": "30",
    "USER_CACHE_SECONDS": "30",
    "LOGIN_LIMIT_PER_ADDRESS": "1000000 per minute",  # all come from one
    "LOGIN_FAILURES_PER_ACCOUNT": "1000000 per minute",
    "SESSION_MAX_PER_USER": "1000",
}
USUAL = 25  # people who are known from the start
KEPT_SECONDS = 30  # ended sessions and audit events, where the product keeps them for 30 days
_AGE = f"""
SET LOCAL authapp.fenced = 'on';
UPDATE authapp_data.sessions SET ended_at = ended_at - interval '31 days'
  WHERE ended_at BETWEEN now() - interval '1 day' AND now() - interval '{KEPT_SECONDS} seconds';
DELETE FROM authapp_data.audit_events WHERE at < now() - interval '{KEPT_SECONDS} seconds';
"""


@dataclass(frozen=True)
class Sample:
    """The use of everything at a moment: of the server with its workers, and of both stores.

    Attributes:
        came: people who came lately. Keys and live sessions follow from their number.
        lasting_keys: those without a TTL.
    """

    minute: float
    memory_mb: float
    threads: float
    descriptors: float
    postgres_connections: float
    redis_connections: float
    lasting_keys: float
    redis_keys: float
    live_sessions: float
    came: float
    database_mb: float
    sessions_kb: float
    dead_rows: float

    @property
    def keys_each(self) -> float:
        return self.redis_keys / (self.came + USUAL)

    @property
    def live_each(self) -> float:
        return self.live_sessions / (self.came + USUAL)


class Place:
    """A PostgreSQL and a Valkey that restart when they are told to, and the server."""

    def __init__(self, folder: Path, sockets: Path, application: str) -> None:
        self._folder, self._sockets, self._application = folder, sockets, application
        self._start = time.monotonic()
        self._start_postgres()
        self._start_redis()
        urls = {"DATABASE_URL": self._postgres.url, "REDIS_URL": self._redis.url}
        self._settings = {**SETTINGS, **QUICKLY, **urls}
        schema.upgrade(self._postgres.url)
        for statement in ("ALTER SYSTEM SET autovacuum_naptime = '5s'", "SELECT pg_reload_conf()"):
            self.sql(statement)

    def _start_postgres(self) -> None:
        self._postgres = dev.PostgreSQL.start(self._folder / "pg", self._sockets, PASSWORD)

    def _start_redis(self) -> None:
        self._redis = dev.Valkey.start(
            self._folder / "valkey", self._sockets, PASSWORD, durable=False
        )

    def restart_postgres(self) -> None:
        self._postgres.stop()
        self._start_postgres()

    def restart_redis(self) -> None:
        """It comes back empty."""
        self._redis.stop()
        self._start_redis()

    def close(self) -> None:
        self._redis.stop()
        self._postgres.stop()

    @contextmanager
    def serving(self) -> Iterator[Server]:
        environment: Mapping[str, str] = {**os.environ, **self._settings}
        command = [sys.executable, "-m", "gunicorn", "--graceful-timeout", "1", self._application]
        log = self._folder / "authapp.log"
        with serving(command, environment, log, pinned=False) as self.server:
            yield self.server

    @contextmanager
    def services(self) -> Iterator[Services]:
        services = build_services(Config.from_mapping(self._settings), None)
        try:
            yield services
        finally:
            services.close()

    def tidy(self, services: Services) -> None:
        """Does what maintenance and the operator do in a month."""
        self.sql(_AGE)
        with suppress(
            StoreUnavailable
        ):  # on a busy machine; the next run does it, as in production
            for _ in services.maintenance.run():
                pass

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(self._postgres.url, application_name="soak")) as connection:
            connection.autocommit = not statement.startswith("\nSET LOCAL")
            with connection.cursor() as cursor:
                cursor.execute(statement)
                found = cursor.fetchall() if cursor.description else []
            if not connection.autocommit:
                connection.commit()
            return found

    def sample(self, came: int) -> Sample:
        ((connections,),) = self.sql(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'authapp'"
        )
        ((live,),) = self.sql("SELECT count(*) FROM authapp_data.sessions WHERE ended_at IS NULL")
        ((whole, sessions),) = self.sql(
            "SELECT pg_database_size(current_database()),"
            " pg_total_relation_size('authapp_data.sessions')"
        )
        ((dead,),) = self.sql("SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables")
        with redis.Redis.from_url(self._redis.url) as client:
            info: Any = client.info("clients")
            keys: Any = client.info("keyspace").get("db0", {"keys": 0, "expires": 0})
        pids = self._pids()
        return Sample(
            minute=(time.monotonic() - self._start) / 60,
            memory_mb=sum(map(_proportional_memory, pids)) / MB,
            threads=sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
            descriptors=sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
            postgres_connections=connections,
            redis_connections=info["connected_clients"],
            lasting_keys=keys["keys"] - keys["expires"],
            redis_keys=keys["keys"],
            live_sessions=live,
            came=came,
            database_mb=whole / MB,
            sessions_kb=sessions / 1024,
            dead_rows=float(dead),
        )

    def _pids(self) -> list[int]:
        pid = self.server.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]


def _proportional_memory(pid: int) -> int:
    """Bytes: pages that several processes share count in part (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


@contextmanager
def place(application: str) -> Iterator[Place]:
    with (
        tempfile.TemporaryDirectory(prefix="authapp-soak-", ignore_cleanup_errors=True) as path,
        dev.private_socket_dir() as sockets,
    ):
        folder = Path(path)
        os.chmod(folder, 0o711)  # as root the servers run as another account
        with closing(Place(folder, sockets, application)) as found:
            yield found
