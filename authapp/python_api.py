"""The Python API: `auth.users`, `auth.sessions` and `auth.roles`, for the code of an app.

Calls need an app context: a view, a command, or a job with `app.app_context()`. The rules and audit
events are those of the pages and the JSON API. The rights of a call are those of its actor:

- In a request of a person who is signed in, the actor is that person, with their permissions.
- Elsewhere the actor is the app itself, which may do everything, like the command line.
- `actor=OPERATOR` makes the app the actor in a person's request, too. `actor=Actor(id=…)` makes a
  person the actor of a job that they ordered.

Every call raises `StoreUnavailable` if a store does not answer; then nothing was changed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import UUID

from flask import has_request_context

from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.identity import USER, Identity
from authapp.accounts.user_pages import UserPage
from authapp.cache.changes import Changed
from authapp.errors import InvalidField, UnknownUser
from authapp.sessions.records import SessionSummary
from authapp.storage import models
from authapp.web.guards import services, unknown_actor
from authapp.web.session.auth_session import auth_session

MAX_PAGE = 200  # users

UserId = UUID | str

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Role:
    """A role, and the permissions that it gives."""

    name: str
    description: str
    permissions: tuple[str, ...]


class Users:
    """`auth.users`: the people who can log in. A user is an `Identity`, as `current_user` is."""

    def get(self, user_id: UserId) -> Identity | None:
        """The user with this id, which may be text, such as `current_user.get_id()`."""
        try:
            return services().users.get(_id(user_id))
        except UnknownUser:
            return None

    def find(self, email: str) -> Identity | None:
        """The user with this email, in this or an equivalent spelling."""
        try:
            return services().users.find(services().parse_email(email))
        except InvalidField:
            return None  # nobody can have it

    def page(self, cursor: str | None = None, *, limit: int = 50, search: str = "") -> UserPage:
        """A page of users, newest first: `users`, and the `next_cursor` for the page after it.

        Args:
            cursor: `next_cursor` of the page before.
            limit: 1 to 200.
            search: part of the email or name, in any case.
        Raises:
            InvalidField: `cursor` is not one that a page had.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise ValueError(f"limit must be 1 to {MAX_PAGE}")
        return services().users.page(cursor, limit, search)

    def create(
        self,
        email: str,
        password: str | None = None,
        *,
        name: str = "",
        roles: Iterable[str] = (),
        verified: bool = False,
        actor: Actor | None = None,
    ) -> Identity:
        """Adds a user.

        Args:
            password: None: the user can't log in with a password until one is set.
            roles: names of roles; empty: the role `user`, as at sign-up.
            verified: the app knows that the email is the user's.
        Raises:
            InvalidField: `email`, `password` or `name`, with the reason.
            EmailTaken, UnknownRole
            ExceedsOwnPermissions: a role allows more than the actor may do.
            Busy: the queue of passwords to hash is full.
        """
        given = tuple(roles) or (USER,)
        return services().registration.sign_up(
            email, password, name, given, _acting(actor), verified=verified
        )

    def update(
        self,
        user_id: UserId,
        *,
        name: str | None = None,
        image: str | None = None,
        actor: Actor | None = None,
    ) -> Identity:
        """Changes name and picture; None leaves a field as it is. A person may change their own.

        Raises:
            InvalidField: what is wrong, by field.
            UnknownUser
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        found, acting = _id(user_id), _acting(actor)
        if acting.id == found:
            return _settled(services().users.update_profile(found, name, image, acting))
        return _settled(
            services().administration.update_user(found, name, image, active=None, actor=acting)
        )

    def set_roles(
        self, user_id: UserId, roles: Iterable[str], *, actor: Actor | None = None
    ) -> Identity:
        """Gives a user exactly these roles, which apply to their sessions at once.

        Raises:
            UnknownUser, UnknownRole
            LastAdmin: no active administrator would be left.
            OwnAccount: a person would change their own roles.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        return _settled(services().administration.set_roles(_id(user_id), roles, _acting(actor)))

    def set_password(self, user_id: UserId, password: str, *, actor: Actor | None = None) -> None:
        """Sets a password without asking for the current one; all sessions of the user end.

        The app acts here, also in a person's request: no permission lets a person do this. The
        event in the audit log names the person whose request it was.

        Raises:
            InvalidField: `password`, with the reason.
            UnknownUser
            Busy: the queue of passwords to hash is full.
        """
        user = services().users.get(_id(user_id))
        if user is None:
            raise UnknownUser("there is no such user")
        by_the_app = replace(_acting(actor), is_operator=True)
        _settled(services().password_changes.set_password(user.email, password, by_the_app))

    def activate(self, user_id: UserId, *, actor: Actor | None = None) -> Identity:
        """Lets a user log in again.

        Raises:
            UnknownUser
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        return _settled(
            services().administration.set_active(_id(user_id), active=True, actor=_acting(actor))
        )

    def deactivate(self, user_id: UserId, *, actor: Actor | None = None) -> Identity:
        """Keeps a user from logging in; all their sessions end.

        Raises:
            UnknownUser
            LastAdmin: no active administrator would be left.
            OwnAccount: a person would deactivate themselves.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        return _settled(
            services().administration.set_active(_id(user_id), active=False, actor=_acting(actor))
        )

    def set_email(
        self,
        user_id: UserId,
        email: str,
        *,
        verified: bool = False,
        actor: Actor | None = None,
    ) -> Identity:
        """Gives a user another email. All their sessions end, and a mail tells the old email.

        Args:
            verified: the app knows that the new email is the user's.
        Raises:
            InvalidField: `email` is not an email address.
            EmailTaken
            UnknownUser
            TooManyAttempts: a person acts, and a limit of mails refuses the one to the old email.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        return _settled(
            services().email_changes.set_email(
                _id(user_id), email, verified=verified, actor=_acting(actor)
            )
        )

    def delete(self, user_id: UserId, *, actor: Actor | None = None) -> None:
        """Removes a user, their sessions and roles; the email is free again.

        Raises:
            UnknownUser
            LastAdmin: no active administrator would be left.
            UserInUse: a foreign key of an app's table refers to the user, without ON DELETE.
            OwnAccount: a person would delete themselves.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        _settled(services().administration.delete_user(_id(user_id), _acting(actor)))


class Sessions:
    """`auth.sessions`: where people are signed in."""

    def of_user(self, user_id: UserId) -> Sequence[SessionSummary]:
        """The active sessions of a user, the most recently seen first."""
        return services().sessions.of_user(_id(user_id))

    def end(self, session_id: UserId, *, actor: Actor | None = None) -> bool:
        """Ends one session; a person may end their own.

        Returns:
            False when there is no such active session.
        Raises:
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        try:
            found = _id(session_id)
        except UnknownUser:
            return False
        return _settled(services().administration.end_session(found, _acting(actor)))

    def end_all(self, user_id: UserId, *, actor: Actor | None = None) -> int:
        """Ends all sessions of a user, the current one among them; returns how many.

        A person may end their own.

        Raises:
            UnknownUser
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        found, acting = _id(user_id), _acting(actor)
        if acting.id == found:
            acting = replace(acting, is_operator=True)
        return _settled(services().administration.end_sessions_of(found, acting))

    def end_all_of_everybody(self, *, actor: Actor | None = None) -> None:
        """Ends the sessions of all people, the current one included, for example after an incident.

        Raises:
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor is a person without the
                role `admin`.
        """
        _settled(services().administration.end_sessions_of_everybody(_acting(actor)))


class Roles:
    """`auth.roles`: roles, and the permissions that they give."""

    def list(self) -> Sequence[Role]:
        """All roles, sorted by name."""
        return [_role(row) for row in services().roles.list()]

    def create(
        self, name: str, permissions: Iterable[str] = (), *, actor: Actor | None = None
    ) -> Role:
        """Adds a role.

        Raises:
            InvalidField: `name` or `permissions`, with the reason.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        return _role(services().roles.create(name, permissions, _acting(actor)))

    def delete(self, name: str, *, actor: Actor | None = None) -> int:
        """Deletes a role, and takes it from all people who hold it; returns how many held it.

        Raises:
            NoSuchRole, BuiltInRole
            RoleInUse: more than 1,000 people hold it, and a person acts, not the app.
            OwnAccount: the person who acts holds it.
            NotAuthenticated, Forbidden, ExceedsOwnPermissions: the actor lacks the permission.
        """
        return _settled(services().roles.delete(name, _acting(actor)))


def _role(row: models.Role) -> Role:
    return Role(row.name, row.description, tuple(row.permissions))


def _id(text: UserId) -> UUID:
    """
    Raises:
        UnknownUser: this is not a UUID.
    """
    if isinstance(text, UUID):
        return text
    try:
        return UUID(text)
    except ValueError:
        raise UnknownUser("there is no such user") from None


def _settled(changed: Changed[T]) -> T:
    """The result of a change. In a request, marks the answer if other instances may see it late."""
    return auth_session().settle(changed) if has_request_context() else changed.value


def _acting(given: Actor | None) -> Actor:
    """The actor: the given one, else the person who is signed in, else the app.

    Raises:
        StoreUnavailable: neither store could say who is signed in.
    """
    if given is not None:
        return given
    if not has_request_context():
        return OPERATOR
    live = auth_session().live
    if live is None:
        return replace(unknown_actor(), is_operator=True)
    return unknown_actor().known_as(live.record.user.id)
