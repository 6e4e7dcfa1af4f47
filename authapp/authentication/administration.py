"""Administration: what administrators and operators may change of another person's account."""

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.authorization import lock_user
from authapp.accounts.identity import Identity, Permission
from authapp.accounts.profiles import validate_profile
from authapp.accounts.store import UserStore
from authapp.cache.changes import Change, Changed, Changes
from authapp.errors import OwnAccount
from authapp.sessions.records import EndReason
from authapp.sessions.store import SessionStore


class Administration:
    """The use cases of administrators: profile, activation and sessions of a person.

    Raises:
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        users: UserStore,
        sessions: SessionStore,
        changes: Changes,
        clock: Callable[[], datetime],
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._changes = changes
        self._clock = clock

    def update_user(
        self,
        user_id: UUID,
        name: str | None,
        image: str | None,
        *,
        active: bool | None,
        actor: Actor,
    ) -> Changed[Identity]:
        """Sets what administrators may change of a person: everything that is given, or nothing.

        Raises:
            InvalidField, UnknownUser, LastAdmin, OwnAccount: nothing was changed.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        name = validate_profile(name, image)
        with self._changes.begin() as change:
            lock_user(change.db, user_id, actor, Permission.USERS_WRITE)
            user = self._users.set_profile(change, user_id, name, image, actor)
            if active is not None:
                user = self._set_active(change, user_id, active, actor)
        return change.returning(user)

    def set_active(self, user_id: UUID, *, active: bool, actor: Actor) -> Changed[Identity]:
        """Activates or deactivates a person (OWASP ASVS 5.0, 7.4.2).

        All sessions of a deactivated person end at once.

        Raises:
            UnknownUser
            LastAdmin: no active administrator would be left.
            OwnAccount: the actor would deactivate themselves.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        with self._changes.begin() as change:
            lock_user(change.db, user_id, actor, Permission.USERS_WRITE)
            user = self._set_active(change, user_id, active, actor)
        return change.returning(user)

    def _set_active(self, change: Change, user_id: UUID, active: bool, actor: Actor) -> Identity:
        user = self._users.set_active(change, user_id, active=active)
        if not active:
            if actor.id == user_id:
                raise OwnAccount("deactivates themselves")
            self._sessions.end_all(change, user_id, EndReason.DEACTIVATED)
        audit.record_act(
            change.db,
            "user.activated" if active else "user.deactivated",
            self._clock(),
            user_id=user_id,
            actor=actor,
        )
        return user

    def end_sessions_of(self, user_id: UUID, actor: Actor) -> Changed[int]:
        """Ends all sessions of a person (OWASP ASVS 5.0, 7.4.5); returns how many.

        Raises:
            UnknownUser
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        with self._changes.begin() as change:
            lock_user(change.db, user_id, actor, Permission.SESSIONS_END)
            self._users.bump_epoch(change, user_id)
            ended = self._sessions.end_all(change, user_id, EndReason.REVOKED_BY_ADMIN)
            audit.record_act(
                change.db,
                "sessions.ended",
                self._clock(),
                user_id=user_id,
                actor=actor,
                sessions=ended,
            )
        return change.returning(ended)
