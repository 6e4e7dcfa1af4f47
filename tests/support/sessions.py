"""Sessions: look one up, and add many at once for tests of growth."""

from datetime import datetime
from uuid import UUID

from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndedSession, EndReason, LookupResult
from tests.support.services import sql


def find(services: Services, session: ActiveSession) -> LookupResult:
    """Look the session up by its token, as a request does."""
    return services.sessions.find(session.token)


def is_live(services: Services, session: ActiveSession) -> bool:
    return isinstance(find(services, session), ActiveSession)


def ending(services: Services, session: ActiveSession) -> EndReason:
    """Why the session ended; it must have ended."""
    found = find(services, session)
    assert isinstance(found, EndedSession)
    return found.why


def add_sessions(services: Services, user_id: UUID, count: int, now: datetime) -> None:
    """Insert session rows, half of them just ended, and refresh the planner's statistics."""
    sql(
        services,
        "INSERT INTO sessions (id, digest, user_id, kind, epoch, created_at, last_seen_at,"
        " idle_seconds, expires_at, user_agent, ended_at, ended_why)"
        " SELECT gen_random_uuid(), uuid_send(gen_random_uuid()), :user_id, 'browser', 1, :now,"
        " :now, 1800, :now + interval '12 hours', repeat('x', 400), ended,"
        " CASE WHEN ended < :now THEN 'logout' END FROM generate_series(1, :count) AS number"
        " CROSS JOIN LATERAL (SELECT CASE WHEN number % 2 = 0 THEN :now END::timestamptz"
        " - interval '1 s' AS ended) AS _",
        user_id=user_id,
        count=count,
        now=now,
    )
    sql(services, "ANALYZE sessions")
