"""Counters of what the services of this process send to the stores."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.connection import AbstractConnection
from sqlalchemy import event
from sqlalchemy.engine import Engine


@dataclass
class Traffic:
    """The SQL statements sent, and the bytes of each write to Redis."""

    sql: list[str] = field(default_factory=list)
    redis: list[bytes] = field(default_factory=list)


@contextmanager
def traffic() -> Iterator[Traffic]:
    """Records what all services of this process send."""
    seen = Traffic()

    def on_sql(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        seen.sql.append(statement)

    send = AbstractConnection.send_packed_command

    def on_redis(
        self: AbstractConnection, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        parts = [command] if isinstance(command, (bytes, str)) else list(command)
        sent = b"".join(p.encode() if isinstance(p, str) else p for p in parts)
        if b"SENTINEL" not in sent:  # once a second, and asks for nothing of ours
            seen.redis.append(sent)
        send(self, parts, check_health)  # type: ignore[no-untyped-call]

    event.listen(Engine, "before_cursor_execute", on_sql)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AbstractConnection, "send_packed_command", on_redis)
            yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", on_sql)


@contextmanager
def plans(part: str) -> Iterator[list[str]]:
    """Postgres's plans for the statements that contain `part`, each below its statement."""
    found: list[str] = []

    def explain(
        _connection: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any
    ) -> None:
        if part in statement:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            found.append("\n".join([statement, *(line for (line,) in cursor.fetchall())]))

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
