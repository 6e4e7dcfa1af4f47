"""Postgres and its replicas: where instances look for the primary, and what a failover loses."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.engine import Connection

from authapp.doctor.findings import Finding, State
from authapp.sessions.lost_commits import EVENT, SHOWN
from authapp.storage.models import AuditEvent

FOLLOWS_PRIMARY = frozenset({"read-write", "primary"})


def examine(connection: Connection) -> Iterator[Finding]:
    """Findings about replicas, where there are any or the URL names several servers."""
    driver: Any = connection.connection.driver_connection
    asked: dict[str, str] = driver.info.dsn_parameters
    yield from judge(
        several="," in (asked.get("host") or asked.get("hostaddr") or ""),
        wants=asked.get("target_session_attrs", ""),
        replicas=connection.scalar(text("SELECT count(*) FROM pg_stat_replication")) or 0,
        waits_for=connection.scalar(text("SELECT current_setting('synchronous_standby_names')")),
    )


def judge(*, several: bool, wants: str, replicas: int, waits_for: str) -> Iterator[Finding]:
    """
    Args:
        several: the URL names several servers.
        wants: `target_session_attrs` of the URL.
        replicas: how many follow the server.
        waits_for: `synchronous_standby_names` of the server.
    """
    if several and wants not in FOLLOWS_PRIMARY:
        told = "DATABASE_URL names several servers, and any of them will do"
        remedy = "add target_session_attrs=read-write, so that each instance looks for the primary"
        yield Finding("postgres failover", State.FAIL, told, remedy)
    if replicas and not waits_for:
        told = f"{replicas} follow, and no change waits for any: a failover may lose the last ones"
        remedy = "set synchronous_standby_names (docs/production.md, When Postgres fails over)"
        yield Finding("postgres replicas", State.WARN, told, remedy)
    elif replicas:
        told = f"{replicas} follow; changes wait for {waits_for}"
        yield Finding("postgres replicas", State.OK, told)
    elif several:
        told = "DATABASE_URL names several servers, and none follows this one"
        remedy = "bring a standby back, so that the next failure finds one"
        yield Finding("postgres replicas", State.WARN, told, remedy)


def lost_commits(connection: Connection) -> Iterator[Finding]:
    """Whether an instance has found out that the server lost commits."""
    since = func.now() - SHOWN
    noted = select(func.max(AuditEvent.at)).where(AuditEvent.event == EVENT, AuditEvent.at > since)
    if (at := connection.scalar(noted)) is not None:
        told = f"the last changes before {at:%Y-%m-%d %H:%M} UTC were lost"
        remedy = "see docs/operations.md, After Postgres lost changes"
        yield Finding("lost changes", State.WARN, told, remedy)
