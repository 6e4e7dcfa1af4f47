"""Users: queries and commands, one transaction each. "Not found" is a value, not an exception."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from sqlalchemy import ColumnElement, Uuid, delete, literal, select, union_all
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from authapp.accounts import audit
from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.authority.administrators import active_administrators, keep_an_administrator
from authapp.accounts.authority.authorization import lock_users, require_covered
from authapp.accounts.authority.roles import roles_named
from authapp.accounts.emails import Email
from authapp.accounts.identity import ADMIN, USER, Identity, identity_of
from authapp.accounts.new_accounts import NewAccount
from authapp.accounts.profiles import validate_profile
from authapp.accounts.reserved_emails import reserved
from authapp.accounts.user_pages import UserPage, read_page
from authapp.cache.changes import Change, Changed, Changes
from authapp.cache.entries import prepare
from authapp.cache.keys import user_key
from authapp.cache.versioned_cache import VersionedCache
from authapp.errors import EmailTaken, UnknownUser, UserInUse
from authapp.storage.models import Role, User
from authapp.storage.postgres import Database

Clock = Callable[[], datetime]


class UserEntry(msgspec.Struct, frozen=True, array_like=True):
    """The entry under `user:`: a user, and the epoch and version at which the row was read.

    Attributes:
        epoch: raised by every change that ends trust in credentials verified before.
    """

    user: Identity
    epoch: int
    ver: int


prepare(UserEntry)


class UserStore:
    """Users: facts in Postgres, copies in Redis.

    Args:
        copy_ttl: seconds a copy is kept.
    Raises:
        StoreUnavailable: from every method; then nothing was changed.
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        cache: VersionedCache,
        copy_ttl: float,
        clock: Clock,
    ) -> None:
        self._database = database
        self._cache = cache
        self._copy_ttl = copy_ttl
        self._changes = changes
        self._clock = clock

    def create(
        self,
        email: Email,
        name: str,
        password_hash: str,
        roles: Iterable[str] = (USER,),
        actor: Actor = OPERATOR,
        *,
        verified: bool = False,
        password_lasts: timedelta | None = None,
    ) -> Identity:
        """Adds a user.

        Args:
            password_hash: empty for an account that nobody can log in to with a password.
            actor: the operator, the visitor who signs up, or a person who adds another.
            verified: the email is known to be the user's.
            password_lasts: how long a one-time password counts; None for one of the user's own.
        Raises:
            EmailTaken: in this or an equivalent spelling.
            UnknownRole: nothing was added.
            ExceedsOwnPermissions: a role allows more than the person may who adds the user.
        """
        # no instance can have an entry of a user who was not there
        with self._changes.begin(acknowledged=False) as change:
            person = None
            if actor.id is not None:  # people before roles, see `Roles`
                _, person = lock_users(change.db, [], actor, None)
            granted = roles_named(change.db, roles)
            require_covered(person, granted)
            account = NewAccount(
                email, name, password_hash, verified, password_lasts=password_lasts
            )
            return identity_of(self.add(change, account, granted, actor))

    def add(self, change: Change, account: NewAccount, roles: Sequence[Role], actor: Actor) -> User:
        """As `create`, within the caller's change, which has checked that the roles may be given.

        Raises:
            EmailTaken
        """
        now, db, email = self._clock(), change.db, account.email
        user_id = db.scalar(
            insert(User)
            .values(
                email=email.stored,
                email_canonical=email.canonical,
                name=account.name,
                password_hash=account.password_hash,
                created_at=now,
                updated_at=now,
                email_verified_at=now if account.verified else None,
                email_confirmation_due=account.confirmation_due,
                password_expires_at=now + account.password_lasts
                if account.password_lasts
                else None,
            )
            .on_conflict_do_nothing(index_elements=["email_canonical"])
            .returning(User.id)
        )
        if user_id is None:
            raise EmailTaken(f"{email.stored} is taken")
        if reserved(db, [email], now):  # asked last, as it may be given up at this moment
            raise EmailTaken(f"{email.stored} is reserved")
        user = db.get_one(User, user_id)
        user.roles = list(roles)
        actor = actor if actor.is_operator or actor.id else actor.known_as(user_id)
        details = account.event_details(roles)
        audit.record(db, "user.created", now, user_id=user_id, actor=actor, **details)
        db.flush()
        return user

    def replace_unconfirmed(
        self,
        change: Change,
        user: User,
        account: NewAccount,
        roles: Sequence[Role],
        actor: Actor,
    ) -> None:
        """Gives a locked account that nobody has confirmed to the person who signs up now.

        Nothing stays of the person who signed up before: links and codes are bound to the epoch.
        """
        now = self._clock()
        user.email, user.name, user.image = account.email.stored, account.name, ""
        user.password_hash, user.password_expires_at = account.password_hash, None
        user.email_verified_at = now if account.verified else None
        user.email_confirmation_due = account.confirmation_due
        user.roles, user.webauthn_handle = list(roles), None
        user.epoch += 1
        self._changed(change, user)
        details = account.event_details(roles)
        audit.record_act(
            change.db,
            "user.replaced",
            now,
            user_id=user.id,
            actor=actor.known_as(user.id),
            **details,
        )

    def lock_by_email(
        self, change: Change, email: Email, besides: UUID | None = None
    ) -> User | None:
        """The user with this email, whose row is locked within the caller's change.

        Args:
            besides: another user who is locked in the same step, so that the order holds.
        """
        named = select(User.id).where(User.email_canonical == email.canonical)
        rows = change.db.scalars(
            select(User)
            # not `id = … OR email = …`, for which Postgres looks at each user there is
            .where(User.id.in_(union_all(named, select(literal(besides, Uuid)))))
            .order_by(User.id)
            .with_for_update(key_share=True)
        )
        return next((user for user in rows if user.email_canonical == email.canonical), None)

    def lock_by_id(self, change: Change, user_id: UUID) -> User:
        """The user with this id, whose row is locked within the caller's change.

        Raises:
            UnknownUser
        """
        return self._locked(change.db, User.id == user_id)

    def mark_verified(self, change: Change, user: User) -> None:
        """Notes that the email of a locked user is theirs, within the caller's change."""
        user.email_verified_at = user.email_verified_at or self._clock()
        user.email_confirmation_due = False
        self._changed(change, user)

    def get(self, user_id: UUID) -> Identity | None:
        found = self.read(user_id)
        return found.user if found else None

    def look_up(self, user_id: UUID) -> tuple[Identity | None, bool]:
        """As `get`, from Redis first; and whether a copy told."""
        found, hit = self._cache.read_through(
            user_key(user_id), UserEntry, lambda: self.read(user_id), self._copy_ttl
        )
        return (found.user if found else None), hit

    def read(self, user_id: UUID) -> UserEntry | None:
        """The facts of a user."""

        def query(db: Session) -> UserEntry | None:
            user = db.get(User, user_id)
            return UserEntry(identity_of(user), user.epoch, user.ver) if user else None

        return self._database.read(query)

    def find(self, email: Email) -> Identity | None:
        with self._database.transaction() as db:
            user = db.scalar(select(User).where(User.email_canonical == email.canonical))
            return None if user is None else identity_of(user)

    def any_admin(self) -> bool:
        """Whether there is an active administrator."""
        with self._database.transaction() as db:
            return bool(db.scalar(select(active_administrators().exists())))

    def page(self, cursor: str | None = None, limit: int = 50, search: str = "") -> UserPage:
        """Lists users, newest first, whose email or name contains `search` in any case.

        Args:
            cursor: `next_cursor` of the page before.
        Raises:
            InvalidField: `cursor` is not one that authapp gave out.
        """
        with self._database.transaction() as db:
            return read_page(db, cursor, limit, search)

    def update_profile(
        self, user_id: UUID, name: str | None, image: str | None, actor: Actor
    ) -> Changed[Identity]:
        """Sets what people may change of themselves; None leaves a field unchanged.

        Args:
            image: an https URL, or empty.
        Raises:
            InvalidField: everything that is wrong with the input, by field.
            UnknownUser
        """
        name = validate_profile(name, image)
        with self._changes.begin() as change:
            user = self._locked(change.db, User.id == user_id)
            self.set_profile(change, user, name, image, actor.known_as(user_id))
        return change.returning(identity_of(user))

    def set_profile(
        self,
        change: Change,
        user: User,
        name: str | None,
        image: str | None,
        actor: Actor,
    ) -> None:
        """As `update_profile`, within the caller's change, which has locked the row of the user."""
        given = {"name": name, "image": image}
        changed = [k for k, v in given.items() if v is not None and v != getattr(user, k)]
        user.name = user.name if name is None else name
        user.image = user.image if image is None else image
        if changed:
            audit.record_act(
                change.db,
                "profile.changed",
                self._clock(),
                user_id=user.id,
                actor=actor,
                fields=changed,
            )
        self._changed(change, user)

    def set_email(self, change: Change, user: User, email: Email, *, verified: bool) -> None:
        """Gives a locked user another address, within the caller's change.

        The caller has ended trust in credentials that were verified under the address before.

        Raises:
            EmailTaken: somebody else has it, or may take it back.
        """
        now = self._clock()
        user.email, user.email_canonical = email.stored, email.canonical
        user.email_verified_at = now if verified else None
        user.email_confirmation_due = False
        try:
            self._changed(change, user)
        except IntegrityError as error:
            raise EmailTaken(f"{email.stored} is taken") from error
        if reserved(change.db, [email], now, besides=user.id):
            raise EmailTaken(f"{email.stored} is reserved")

    def rehash(self, user_id: UUID, epoch: int, password_hash: str) -> None:
        """Replaces the hash of an unchanged password, unless the password changed meanwhile."""
        with self._changes.begin(acknowledged=False) as change:
            user = change.db.scalar(
                select(User)
                .where(User.id == user_id, User.epoch == epoch)
                .with_for_update(key_share=True)
            )
            if user is not None:
                user.password_hash = password_hash
                self._changed(change, user)

    def activate(self, change: Change, user: User) -> None:
        """Activates a user whose row the caller has locked, within the caller's change."""
        user.active = True
        user.epoch += 1  # credentials that were verified before the deactivation stay void
        self._changed(change, user)

    def set_roles(self, change: Change, user: User, roles: Iterable[Role]) -> None:
        """Gives a locked user exactly these roles within a change the caller completes."""
        user.roles = sorted(roles, key=lambda role: role.name)
        self._changed(change, user)

    def lock(self, change: Change, user_id: UUID, epoch: int) -> User:
        """Locks the row of a user whose credentials were read, within the caller's change.

        Args:
            epoch: of those credentials.
        Raises:
            UnknownUser: the user is gone, or has another epoch now.
        """
        return self._locked(change.db, (User.id == user_id) & (User.epoch == epoch))

    def delete(self, change: Change, user_id: UUID) -> None:
        """Removes a user and all that belongs to them, within a change the caller completes.

        Raises:
            UnknownUser
            LastAdmin: no active administrator would be left.
            UserInUse: a table of the app refers to the user.
        """
        user = self._locked(change.db, User.id == user_id)
        if user.active and any(role.name == ADMIN for role in user.roles):
            keep_an_administrator(change.db, without=user.id)
        self._changed(change, user)  # so that each entry of the user and their sessions is fenced
        try:
            change.db.execute(delete(User).where(User.id == user_id))
        except IntegrityError as error:
            table = getattr(getattr(error.orig, "diag", None), "table_name", None)
            raise UserInUse(
                f"Rows of the table {table} refer to this person: remove these first, or let the "
                "foreign key say ON DELETE."
            ) from error
        change.db.expunge(user)

    def _locked(self, db: Session, which: ColumnElement[bool]) -> User:
        user = db.scalar(select(User).where(which).with_for_update(key_share=True))
        if user is None:
            raise UnknownUser("there is no such user")
        return user

    def _changed(self, change: Change, user: User) -> None:
        user.ver += 1
        user.updated_at = self._clock()
        change.touch_user(user)
