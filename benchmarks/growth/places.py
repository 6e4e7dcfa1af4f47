"""A place: a database and a Valkey with sessions in them, what they weigh, and what they used."""

import random
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
from psycopg2 import sql
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import text
from sqlalchemy.engine import make_url

from authapp import dev
from authapp.config import Config
from authapp.services import Services, build_services
from authapp.storage import schema
from authapp.storage.schema_names import DEFAULT_SCHEMA
from benchmarks.growth import population
from benchmarks.growth.population import TOKEN, USER, Maker, batches
from benchmarks.servers import SETTINGS, cpu_seconds

PASSWORD = "benchmark"
TABLES = ("sessions", "users", "user_roles", "audit_events")
# Copies stay fresh for as long as the run takes, so that a check is a check. The account of a
# person who logs in again and again is not full soon.
_LASTING = {
    "SESSION_IDLE_SECONDS": "43200",
    "REVALIDATE_SECONDS": "3600",
    "SESSION_MAX_PER_USER": "1000",
}


@dataclass
class Place:
    """
    Attributes:
        hasty: services that read a copy again once it is older than a second.
        users: ids of all made so far, one after another.
        tokens: texts of the tokens of all live sessions made so far, one after another.
    """

    name: str
    postgres: dev.PostgreSQL
    valkey: dev.Valkey
    settings: Mapping[str, str]
    services: Services
    hasty: Services
    empty: int
    users: bytearray = field(default_factory=bytearray)
    tokens: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        return len(self.tokens) // TOKEN

    def grow(self, to: int, *, copies: bool = True) -> bool:
        """Makes users and sessions until there are so many, or until Ctrl-C; whether there are."""
        wanted = batches(len(self.users) // USER, to - len(self))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        whole = True
        making = population.made_by_processes(self.settings, wanted, copies=copies)
        with Progress(*columns, TimeRemainingColumn()) as bar, closing(making):
            task = bar.add_task(f"sessions, {self.name}", total=to, completed=len(self))
            try:
                for made in making:
                    self.users += made.users
                    self.tokens += made.tokens
                    bar.update(task, completed=len(self))
            except KeyboardInterrupt:
                whole = False
        self.sql("ANALYZE")  # as autovacuum does in a minute or two
        return whole

    def some_tokens(self, count: int) -> list[str]:
        return [one.decode() for one in population.at_random(self.tokens, TOKEN, count)]

    def some_users(self, count: int) -> list[UUID]:
        return [UUID(bytes=one) for one in population.at_random(self.users, USER, count)]

    def make_others(self, count: int) -> list[str]:
        """Sessions that are not among the lasting ones: the texts of their tokens."""
        maker = Maker(self.services, Config.from_mapping(self.settings))
        # numbers that nobody had; whoever ends them leaves the users
        made = [maker.make(one) for one in batches(random.randrange(10**8, 10**12), count)]
        kept = b"".join(one.tokens for one in made).decode()
        return [kept[start : start + TOKEN] for start in range(0, len(kept), TOKEN)]

    def sql(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Runs a statement, on a connection of its own and for as long as it takes."""
        with connected(self.settings["DATABASE_URL"]) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def change(self, statement: str, **values: Any) -> None:
        """Runs one as the product does, which sets fences itself where they are needed."""
        with self.services.changes.begin(acknowledged=False) as change:
            change.db.execute(text(statement), values)

    def postgres_cpu(self) -> float:
        """Seconds that the server used, with processes of it that have ended."""
        pid = self.postgres.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return cpu_seconds(pid, ended=True) + sum(map(cpu_seconds, map(int, children)))

    def valkey_microseconds(self) -> int:
        """That the server says it spent in our functions."""
        told: Any = self.services.redis.info("commandstats")
        return int(told["cmdstat_fcall"]["usec"])

    def sizes(self) -> dict[str, Any]:
        """Bytes in both stores."""
        client: Any = self.services.redis
        memory = client.info("memory")
        keys = client.dbsize()
        tokens = map(self.services.tokens.check, self.some_tokens(500))
        used = [
            client.memory_usage(f"sess:{token.digest.hex()}", samples=0)
            for token in tokens
            if token is not None
        ]
        found: dict[str, Any] = {
            "valkey": {
                "keys": keys,
                "used_memory": memory["used_memory"],
                "used_memory_rss": memory["used_memory_rss"],
                "bytes_a_session": round((memory["used_memory"] - self.empty) / len(self)),
                "memory_usage_mean": round(sum(used) / len(used)),
                "memory_usage_max": max(used),
            }
        }
        for table in TABLES:
            ((rows, heap, indexes),) = self.sql(
                f"SELECT count(*), pg_table_size('{table}'), pg_indexes_size('{table}')"
                f" FROM {table}"
            )
            found[table] = {"rows": rows, "table": heap, "indexes": indexes}
        found["index_levels"] = dict(
            self.sql(
                "SELECT indexrelid::regclass::text, (bt_metap(indexrelid::regclass::text)).level"
                " FROM pg_index WHERE indrelid = 'sessions'::regclass ORDER BY 1"
            )
        )
        return found


@contextmanager
def connected(url: str) -> Iterator[Any]:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:  # so that statements may name our tables alone
            cursor.execute(f"SET search_path TO {DEFAULT_SCHEMA}, public")
        yield connection
    finally:
        connection.close()


def add_database(postgres: dev.PostgreSQL, name: str) -> str:
    """The URL of a new database with our tables and three roles."""
    with connected(postgres.url) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = make_url(postgres.url).set(database=name).render_as_string(hide_password=False)
    schema.upgrade(url)
    with connected(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE EXTENSION pageinspect")
    return url


@contextmanager
def place(name: str, postgres: dev.PostgreSQL, folder: Path) -> Iterator[Place]:
    """An empty one, on a Valkey of its own."""
    with (
        dev.private_socket_dir() as sockets,
        dev.Valkey.start(
            folder / f"valkey-{name}", sockets, PASSWORD, durable=False, tcp=True
        ) as valkey,
    ):
        settings = {
            **SETTINGS,
            **_LASTING,
            "DATABASE_URL": add_database(postgres, name),
            "REDIS_URL": valkey.url,
        }
        services = build_services(Config.from_mapping(settings), None)
        hasty = build_services(Config.from_mapping({**settings, "REVALIDATE_SECONDS": "1"}), None)
        population.add_roles(services)
        services.cache.acquire("sess:probe")  # loads the functions; it leaves in seconds
        memory: Any = services.redis.info("memory")
        try:
            yield Place(
                name, postgres, valkey, settings, services, hasty, int(memory["used_memory"])
            )
        finally:
            hasty.close()
            services.close()
