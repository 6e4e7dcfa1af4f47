"""Administration: what administrators and operators may change of another person's account."""

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from authapp.accounts import audit
from authapp.accounts.actor import Actor
from authapp.accounts.audit import EmailHashes
from authapp.accounts.authority.administrators import keep_an_administrator
from authapp.accounts.authority.authorization import (
    lock_user,
    lock_users,
    require_administrator,
    require_covered,
)
from authapp.accounts.authority.roles import roles_named
from authapp.accounts.identity import ADMIN, Identity, Permission, identity_of
from authapp.accounts.profiles import validate_profile
from authapp.accounts.store import UserStore
from authapp.cache.changes import Change, Changed, Changes
from authapp.errors import NotAuthenticated, OwnAccount, UnknownUser
from authapp.mail.account_mails import AccountMails, MailCapped
from authapp.sessions.generation import begin_generation
from authapp.sessions.records import ActiveSession, EndReason
from authapp.sessions.rotation import hold_row
from authapp.sessions.store import SessionStore
from authapp.storage.models import Role, User


class Administration:
    """The use cases of administrators: profile, activation, roles, deletion and sessions of a
    person.

    Raises:
        StoreUnavailable: from every method; nothing was changed.
    """

    def __init__(
        self,
        users: UserStore,
        sessions: SessionStore,
        changes: Changes,
        mails: AccountMails,
        email_hashes: EmailHashes,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._changes = changes
        self._mails = mails
        self._email_hashes = email_hashes
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
            user, _ = lock_user(change.db, user_id, actor, Permission.USERS_WRITE)
            if active is not None:
                self._set_active(change, user, active, actor)
            self._users.set_profile(change, user, name, image, actor)
        return change.returning(identity_of(user))

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
            user, _ = lock_user(change.db, user_id, actor, Permission.USERS_WRITE)
            self._set_active(change, user, active, actor)
        return change.returning(identity_of(user))

    def _set_active(self, change: Change, user: User, active: bool, actor: Actor) -> None:
        if user.active == active:
            change.touch_unchanged_user(user)
        elif active:
            self._users.activate(change, user)
        else:
            self._deactivate(change, user, actor)
        audit.record_act(
            change.db,
            "user.activated" if active else "user.deactivated",
            self._clock(),
            user_id=user.id,
            actor=actor,
        )

    def _deactivate(self, change: Change, user: User, actor: Actor) -> None:
        if any(role.name == ADMIN for role in user.roles):
            keep_an_administrator(change.db, without=user.id)
        if actor.id == user.id and not actor.is_operator:
            raise OwnAccount("deactivates themselves")
        self._sessions.end_all(change, user, EndReason.DEACTIVATED)
        user.active = False

    def delete_user(self, user_id: UUID, actor: Actor) -> Changed[None]:
        """Removes a person and all that belongs to them (OWASP ASVS 5.0, 7.4.2).

        All their sessions end at once, and the email is free. Events of the audit log no longer
        name the person. That of the deletion holds the keyed hash of the email, by which it is
        found, as attempts on an email are that nobody has.

        Raises:
            UnknownUser
            LastAdmin: no active administrator would be left.
            UserInUse: a table of the app refers to the person.
            OwnAccount: the actor would delete themselves.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        with self._changes.begin() as change:
            user, _ = lock_user(change.db, user_id, actor, Permission.USERS_WRITE)
            if actor.id == user.id and not actor.is_operator:
                raise OwnAccount("deletes themselves here")
            self._delete(change, user, actor)
        return change.returning(None)

    def delete_own(self, live: ActiveSession, actor: Actor) -> Changed[None]:
        """Removes the person whose session it is, as `delete_user` does.

        Raises:
            NotAuthenticated: the session has ended.
            LastAdmin, UserInUse: as `delete_user`.
        """
        with self._changes.begin() as change:
            user = change.db.scalar(
                select(User).where(User.id == live.record.user.id).with_for_update(key_share=True)
            )
            row = hold_row(change, live)
            if user is None or row is None or not user.active or row.epoch != user.epoch:
                raise NotAuthenticated(presented=True)
            self._delete(change, user, actor.known_as(user.id))
        return change.returning(None)

    def _delete(self, change: Change, user: User, actor: Actor) -> None:
        with suppress(MailCapped):  # a full cap keeps nobody's account there
            self._mails.tell_deleted(change.db, user, actor)
        self._users.delete(change, user.id)
        is_own = actor.id == user.id  # the event can't refer to a person who is gone
        audit.record(
            change.db,
            "user.deleted",
            self._clock(),
            user_id=None,
            deleted_id=user.id,
            actor=replace(actor, id=None) if is_own else actor,
            email_hash=self._email_hashes(user.email_canonical),
        )

    def end_session(self, session_id: UUID, actor: Actor) -> Changed[bool]:
        """Ends one session, of the actor or of another person.

        Returns:
            False when there is no such active session.
        Raises:
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        owner = self._sessions.owner_of(session_id)
        if owner is None:
            return Changed(False, everywhere=True)
        if owner == actor.id:
            why = EndReason.REVOKED_BY_USER
            return self._sessions.end_one(owner, session_id, why, actor)
        with self._changes.begin() as change:
            try:
                lock_user(change.db, owner, actor, Permission.SESSIONS_END)
                why = EndReason.REVOKED_BY_ADMIN
                ended = self._sessions.end_within(change, owner, session_id, why, actor)
            except UnknownUser:  # deleted in the meantime, and the session with them
                ended = False
        return change.returning(ended)

    def set_roles(self, user_id: UUID, names: Iterable[str], actor: Actor) -> Changed[Identity]:
        """Gives a person exactly these roles.

        Raises:
            UnknownUser, UnknownRole
            LastAdmin: no active administrator would be left.
            OwnAccount: they are others than the actor has now.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        with self._changes.begin() as change:
            user, person = lock_user(change.db, user_id, actor, Permission.ROLES_GRANT)
            wanted = roles_named(change.db, names)
            if self._replace_roles(change, user, wanted, actor, person):
                audit.record_act(
                    change.db,
                    "roles.set",
                    self._clock(),
                    user_id=user.id,
                    actor=actor,
                    roles=[role.name for role in wanted],
                )
        return change.returning(identity_of(user))

    def grant_role(self, user_id: UUID, name: str, actor: Actor) -> Changed[Identity]:
        """Gives a person a role; nothing happens when they have it.

        Raises:
            as `set_roles`.
        """
        with self._changes.begin() as change:
            user, person = lock_user(change.db, user_id, actor, Permission.ROLES_GRANT)
            (role,) = roles_named(change.db, [name])
            if self._replace_roles(change, user, {*user.roles, role}, actor, person):
                self._record_role(change, "role.granted", user, actor, name)
        return change.returning(identity_of(user))

    def revoke_role(self, user_id: UUID, name: str, actor: Actor) -> Changed[Identity]:
        """Takes a role from a person; nothing happens when they do not have it.

        Raises:
            as `set_roles`.
        """
        with self._changes.begin() as change:
            user, person = lock_user(change.db, user_id, actor, Permission.ROLES_GRANT)
            (role,) = roles_named(change.db, [name])
            if self._replace_roles(change, user, {*user.roles} - {role}, actor, person):
                self._record_role(change, "role.revoked", user, actor, name)
        return change.returning(identity_of(user))

    def _replace_roles(
        self,
        change: Change,
        user: User,
        wanted: Collection[Role],
        actor: Actor,
        person: Identity | None,
    ) -> bool:
        """Replaces the roles of a user who is locked, if they are others than now.

        Args:
            person: the actor as of now; None for the operator.
        Returns:
            Whether they are others.
        """
        differing = set(user.roles) ^ set(wanted)
        if not differing:
            change.touch_unchanged_user(user)
            return False
        if any(role.name == ADMIN for role in differing.difference(wanted)):
            keep_an_administrator(change.db, without=user.id)
        if actor.id == user.id and not actor.is_operator:
            raise OwnAccount("changes their own roles")
        require_covered(person, differing)
        self._users.set_roles(change, user, wanted)
        return True

    def _record_role(
        self, change: Change, event: audit.Event, user: User, actor: Actor, role: str
    ) -> None:
        audit.record(change.db, event, self._clock(), user_id=user.id, actor=actor, role=role)

    def end_sessions_of(self, user_id: UUID, actor: Actor) -> Changed[int]:
        """Ends all sessions of a person (OWASP ASVS 5.0, 7.4.5); returns how many.

        Raises:
            UnknownUser
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: see `authorization`.
        """
        with self._changes.begin() as change:
            user, _ = lock_user(change.db, user_id, actor, Permission.SESSIONS_END)
            ended = self._sessions.end_all(change, user, EndReason.REVOKED_BY_ADMIN)
            audit.record_act(
                change.db,
                "sessions.ended",
                self._clock(),
                user_id=user_id,
                actor=actor,
                sessions=ended,
            )
        return change.returning(ended)

    def end_sessions_of_everybody(self, actor: Actor) -> Changed[None]:
        """Ends all sessions there are, of browsers and of programs (OWASP ASVS 5.0, 7.4.5).

        The actor's own are among them. It takes the same few statements however many there are.

        Raises:
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor is no administrator.
        """
        with self._changes.begin() as change:
            _, person = lock_users(change.db, [], actor, Permission.SESSIONS_END)
            require_administrator(person)
            begin_generation(change)
            audit.record(
                change.db,
                "sessions.ended_for_everybody",
                self._clock(),
                user_id=None,
                actor=actor,
            )
        return change.returning(None)
