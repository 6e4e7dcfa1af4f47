"""Provisional sessions begin while Postgres is down, and live in Redis until they get a row."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from authapp.accounts.actor import Actor
from authapp.accounts.credentials import Credentials
from authapp.accounts.identity import Identity
from authapp.accounts.store import UserEntry
from authapp.cache.entries import Versioned, decode_entry, encode_entry
from authapp.cache.keys import session_key, user_key
from authapp.cache.versioned_cache import VersionedCache
from authapp.crypto.tokens import SessionToken, SessionTokens
from authapp.errors import EmailUnverified, InvalidCredentials, StoreUnavailable
from authapp.sessions.records import (
    ActiveSession,
    Provisional,
    SessionPolicy,
    SessionRecord,
)
from authapp.sessions.rows import FIRST_VERSION

LONGEST = timedelta(hours=1)  # without a row; with one, the usual limits hold


class ProvisionalSessions:
    """Begins provisional sessions, and finds the user of one.

    Postgres does not know these sessions, so a change of a user can't fence them one by one. But it
    fences the entry of the user (`user:`). So a provisional session counts only while that entry
    stands. It is filled when the session begins, and kept as long as the session may last.

    Raises:
        StoreUnavailable: from every method, if Redis could not be asked, or does not know.
    """

    def __init__(
        self,
        cache: VersionedCache,
        tokens: SessionTokens,
        policy: SessionPolicy,
        clock: Callable[[], datetime],
    ) -> None:
        self._cache = cache
        self._tokens = tokens
        self._policy = policy
        self._clock = clock

    def begin(
        self,
        credentials: Credentials,
        actor: Actor,
        *,
        remember: bool = False,
        replaces: Sequence[SessionToken] = (),
        data: Mapping[str, Any] | None = None,
    ) -> ActiveSession:
        """Starts a session for the person who was verified with these credentials."""
        now, user = self._clock(), credentials.user
        if not user.active:
            raise InvalidCredentials
        if credentials.email_confirmation_due:
            raise EmailUnverified(user.id, credentials.epoch)
        lifetime = self._policy.lifetime(now, remember=remember)
        token = self._tokens.mint()
        record = SessionRecord(
            id=uuid4(),
            kind="browser",
            user=user,
            created_at=now,
            last_seen_at=now,
            idle_seconds=int(lifetime.idle.total_seconds()),
            expires_at=min(lifetime.expires_at, now + LONGEST),
            data=dict(data or {}),
            ver=FIRST_VERSION - 1,
            remembered=remember,
            checked_at=now,
            provisional=Provisional(
                epoch=credentials.epoch,
                generation=credentials.generation,
                expires_at=lifetime.expires_at,
                address=actor.address,
                user_agent=actor.user_agent,
                replaces=tuple(token.digest for token in replaces),
            ),
        )
        self._keep(user_key(user.id), UserEntry(user, credentials.epoch, credentials.ver))
        self._keep(session_key(token.digest), record)
        return ActiveSession(token, record)

    def user_of(self, record: SessionRecord) -> Identity:
        """The user of a provisional session, as of now."""
        entry = decode_entry(self._cache.acquire(user_key(record.user.id)).value, UserEntry)
        if entry is None or record.provisional is None or entry.epoch != record.provisional.epoch:
            raise StoreUnavailable("postgres")  # which alone knows what happened to them
        return entry.user

    def _keep(self, key: str, entry: Versioned) -> None:
        lease = self._cache.acquire(key, renew=True).lease
        filled = lease and self._cache.fill(
            key, lease, entry.ver, encode_entry(entry), LONGEST.total_seconds()
        )
        if filled != "filled":  # the user is being changed
            raise StoreUnavailable("postgres")
