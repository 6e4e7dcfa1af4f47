"""Password resets: a link is used up, and its password is the person's from then on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.authentication.limits import LoginLimits
from authapp.authentication.recovery.reset_links import ResetLinks, was_mailed
from authapp.authentication.refused_attempts import RefusedAttempts
from authapp.cache.changes import Changed, Changes
from authapp.errors import Busy, InvalidToken, Window
from authapp.mail.one_time_links import OneTimeLinks, is_spelt
from authapp.passwords.new_passwords import NewPasswords
from authapp.sessions.records import EndReason
from authapp.sessions.store import SessionStore
from authapp.storage.deadlines import deadline, remaining
from authapp.telemetry.forks import start_in_forks

_LONGEST = 60.0  # seconds to wait for a turn where there is no deadline


class PasswordResets:
    """The use case of choosing a new password by a link.

    Args:
        timeout: seconds that a reset may take.
        prime: fills the copy of the credentials of an email, which knows the change, should
            Postgres lose it.
    """

    def __init__(
        self,
        changes: Changes,
        sessions: SessionStore,
        links: OneTimeLinks,
        reset_links: ResetLinks,
        *,
        new_passwords: NewPasswords,
        limits: LoginLimits,
        refused_attempts: RefusedAttempts,
        clock: Callable[[], datetime],
        timeout: float,
        prime: Callable[[str], None],
    ) -> None:
        self._prime = prime
        self._changes = changes
        self._sessions = sessions
        self._links = links
        self._reset_links = reset_links
        self._new_passwords = new_passwords
        self._limits = limits
        self._refused_attempts = refused_attempts
        self._clock = clock
        self._timeout = timeout
        self._turns = _Turns()

    def reset(self, token: str, new: str, actor: Actor) -> tuple[Changed[UUID], Window | None]:
        """Sets a new password, and uses the token up: of many at once, one gets it.

        All sessions of the person end, and their other links are void. Nobody is logged in. A
        password that is refused uses nothing up. A link that was mailed shows that the email is the
        person's: whoever signed up with it before keeps nothing.

        Returns:
            The id of the person, and the window that counted the attempt, see `Attempt`.
        Raises:
            InvalidToken
            InvalidField: `new_password`, with the reason.
            TooManyAttempts
            Busy: the password hashing queue is full; the token still counts.
            StoreUnavailable: nothing was changed.
        """
        if not is_spelt(token):
            raise InvalidToken("no token of ours is spelt like that")
        with self._refused_attempts.noting_limits("reset.limited", actor):
            counted = self._limits.count_redemption(actor.address)
        # Many uses of one token at once would fill the hashing queue, so they wait for each other.
        with counted.told_by_errors(), deadline(self._timeout), self._turns.of(token):
            offered = self._reset_links.look_up(token)
            if offered is None:
                raise InvalidToken("the token does not count")
            self._new_passwords.require_accepted(new, offered.email, offered.name, "new_password")
            new_hash = self._new_passwords.hash(new, actor.address)
            done = self._redeem(token, new_hash, actor)
            self._prime(offered.email)
            return done, counted.window

    def _redeem(self, token: str, new_hash: str, actor: Actor) -> Changed[UUID]:
        with self._changes.begin() as change:
            redeemed = self._links.redeem(change.db, "reset", token)
            if redeemed is None:
                raise InvalidToken("the token counts no more")
            user, now = redeemed.user, self._clock()
            self._sessions.end_all(change, user, EndReason.PASSWORD_CHANGED)
            self._links.void(change.db, user)
            user.password_hash, user.password_expires_at = new_hash, None
            by = actor.known_as(user.id)
            if was_mailed(redeemed.details):
                self._reset_links.prove_address(change.db, user, by)
            audit.record(change.db, "password.reset", now, user_id=user.id, actor=by)
            self._reset_links.tell_of_new_password(change.db, user, by)
        return change.returning(user.id)


class _Turns:
    """Lets one request of this process use a token at a time."""

    def __init__(self) -> None:
        self._start()
        start_in_forks(self._start)

    def _start(self) -> None:
        self._changed = threading.Condition()
        self._used: set[str] = set()

    @contextmanager
    def of(self, token: str) -> Iterator[None]:
        """A block in which no other request uses the token.

        Raises:
            Busy: others use it until the deadline (`deadlines.deadline`).
        """
        with self._changed:
            if not self._changed.wait_for(lambda: token not in self._used, remaining(_LONGEST)):
                raise Busy
            self._used.add(token)
        try:
            yield
        finally:
            with self._changed:
                self._used.discard(token)
                self._changed.notify_all()
