"""The session calls of these tests: begin, find, end."""

from authapp.cache.keys import session_key
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndedSession, EndReason
from tests.support.people import CLIENT, sign_up
from tests.support.sessions import find
from tests.support.traffic import traffic

LOGOUT = EndedSession(EndReason.LOGOUT)


def begin_many(services: Services, count: int) -> list[ActiveSession]:
    """Sessions of one person: in a cluster, some on each primary."""
    user = sign_up(services)
    return [services.sessions.begin(user.id, 1, CLIENT) for _ in range(count)]


def is_hit(services: Services, live: ActiveSession) -> bool:
    """Whether a copy answered."""
    with traffic() as seen:
        find(services, live)
    return seen.redis != [] and seen.sql == []


def end(services: Services, live: ActiveSession) -> None:
    services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)


def key_of(live: ActiveSession) -> str:
    return session_key(live.token.digest)
