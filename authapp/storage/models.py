"""The tables: people, sessions, audit events, mails. Facts live here; Redis holds only copies."""

from datetime import UTC, datetime
from functools import cache
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Dialect,
    FetchedValue,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from authapp.storage.schema_names import DEFAULT_SCHEMA

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC, whatever time zone the server counts in for a connection."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(schema=DEFAULT_SCHEMA, naming_convention=NAMING_CONVENTION)
    type_annotation_map = {
        datetime: UtcDateTime(),
        str: Text,
        bytes: LargeBinary,
        dict[str, Any]: JSONB,
    }


IMPORTED = "imported:"  # how `users.password_hash` begins where another system made the hash


def qualified_name(db: Session, model: type[Base]) -> str:
    """The table of the model in the schema that `db` works in, as SQL, where SQL is written by
    hand."""
    connection = db.connection()
    schemas = connection.get_execution_options().get("schema_translate_map", {})
    schema = schemas.get(DEFAULT_SCHEMA, DEFAULT_SCHEMA)
    quote = connection.dialect.identifier_preparer.quote_identifier
    return f"{quote(schema)}.{quote(model.__tablename__)}"


class UserRole(Base):
    __tablename__ = "user_roles"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    role_id: Mapped[int] = mapped_column(
        ForeignKey("roles.id", ondelete="RESTRICT"), primary_key=True, index=True
    )


class Role(Base):
    __tablename__ = "roles"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str] = mapped_column(server_default="")
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=text("'{}'"))


class User(Base):
    """A person. `epoch` counts the changes that end trust in what was verified before (password,
    activation); `ver` counts all changes. `password_hash` is empty while no password is set.

    Attributes:
        email_verified_at: None while nobody has shown that the address is this person's.
        email_confirmation_due: the address must be confirmed before the account is of any use.
        password_expires_at: of a one-time password, which opens nothing but the choice of another.
        second_factor: the person holds a factor that log-ins ask for; `factors_version` counts.
        webauthn_handle: by it authenticators know the person; None: no passkey was made yet.
    """

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    email: Mapped[str]
    email_canonical: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str] = mapped_column(server_default="")
    image: Mapped[str] = mapped_column(server_default="")
    password_hash: Mapped[str]
    active: Mapped[bool] = mapped_column(Boolean, server_default=text("true"))
    epoch: Mapped[int] = mapped_column(Integer, server_default=text("1"))
    ver: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    email_verified_at: Mapped[datetime | None]
    email_confirmation_due: Mapped[bool] = mapped_column(Boolean, server_default=false())
    password_expires_at: Mapped[datetime | None]
    second_factor: Mapped[bool] = mapped_column(server_default=false())
    factors_version: Mapped[int] = mapped_column(server_default=text("0"))
    webauthn_handle: Mapped[bytes | None]

    roles: Mapped[list[Role]] = relationship(
        secondary=lambda: UserRole.__table__, order_by=Role.name, lazy="selectin"
    )

    __table_args__ = (
        Index("ix_users_created_at_id", "created_at", "id"),
        Index(  # the slowest of the imported hashes, see `accounts.credentials`
            "ix_users_imported",
            text("(split_part(password_hash, ':', 3)::integer)"),
            postgresql_where=text(f"password_hash LIKE '{IMPORTED}%'"),
        ),
    )


def table_of(model: type[Base]) -> Table:
    """The table of a model, for statements of SQLAlchemy Core: they make no objects."""
    return cast(Table, model.__table__)


@cache
def users_table(schema: str = DEFAULT_SCHEMA) -> Table:
    """The table of users, for foreign keys in the metadata of an app that embeds authapp.

    Args:
        schema: the DATABASE_SCHEMA of that app.
    """
    ours = Base.metadata.tables[f"{DEFAULT_SCHEMA}.{User.__tablename__}"]
    return ours if schema == DEFAULT_SCHEMA else ours.to_metadata(MetaData(), schema=schema)


class SessionRow(Base):
    """A session. `digest` names it in the stores; it is a keyed hash of its token, or, where access
    tokens name it, a hash of `id`. `refresh_digest` is a keyed hash of the one refresh token that
    was not used yet. `proved_at` is when the person last proved it is them; None: when it began.
    A session with a `generation` below the deployment's has ended, whatever else its row
    says. The table can't be replayed."""

    __tablename__ = "sessions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    digest: Mapped[bytes] = mapped_column(unique=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str]
    epoch: Mapped[int]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    idle_seconds: Mapped[int]
    expires_at: Mapped[datetime]
    address: Mapped[str] = mapped_column(server_default="")
    user_agent: Mapped[str] = mapped_column(server_default="")
    data: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    ver: Mapped[int] = mapped_column(BigInteger, server_default=text("1"))
    ended_at: Mapped[datetime | None]
    ended_why: Mapped[str | None]
    refresh_digest: Mapped[bytes | None]
    remembered: Mapped[bool] = mapped_column(server_default=false())
    proved_at: Mapped[datetime | None]
    generation: Mapped[int] = mapped_column(server_default=FetchedValue())  # by a trigger
    amr: Mapped[list[str]] = mapped_column(ARRAY(Text))

    __table_args__ = (
        CheckConstraint("kind IN ('browser', 'api')", name="kind"),
        CheckConstraint("(ended_at IS NULL) = (ended_why IS NULL)", name="ended"),
        Index("ix_sessions_user_id_live", "user_id", postgresql_where=text("ended_at IS NULL")),
        Index("ix_sessions_user_id", "user_id"),  # for a deletion, and an export
    )


class AuditEvent(Base):
    """An event of an account. It never holds a password, a token or a full email."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    event: Mapped[str]
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    actor_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    address: Mapped[str] = mapped_column(server_default="")
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))

    # read backwards: all, or those of one user, event, address, or email that nobody has; the
    # events in which a person acted are searched for when the person is deleted
    __table_args__ = (
        Index("ix_audit_events_at_id", "at", "id"),
        Index("ix_audit_events_user_id_at_id", "user_id", "at", "id"),
        Index("ix_audit_events_event_at_id", "event", "at", "id"),
        Index(
            "ix_audit_events_address_at_id",
            "address",
            "at",
            "id",
            postgresql_where=text("address <> ''"),
        ),
        Index(
            "ix_audit_events_email_hash_at_id",
            text("(details ->> 'email_hash')"),
            "at",
            "id",
            postgresql_where=text("(details ->> 'email_hash') IS NOT NULL"),
        ),
        Index(
            "ix_audit_events_actor_id",
            "actor_id",
            postgresql_where=text("actor_id IS NOT NULL"),
        ),
    )


class OutgoingMail(Base):
    """A mail that waits to be sent, or was.

    Attributes:
        recipient_hash: keyed hash of the canonical address, by which mails are counted.
        sealed: recipient and content; None once it was sent or dropped.
        expires_at: when it is of no use any more, because its link has expired.
        attempts: times that it was given to the server, or was about to be.
        unconfirmed: attempts of which nobody knows whether the server took the mail.
        last_error: why the last attempt failed, without the address.
        failed_at: when it was dropped.
    """

    __tablename__ = "outgoing_mails"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    kind: Mapped[str]
    user_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    recipient_hash: Mapped[bytes]
    sealed: Mapped[bytes | None]
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    unconfirmed: Mapped[int] = mapped_column(server_default=text("0"))
    last_error: Mapped[str] = mapped_column(server_default="")
    sent_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_outgoing_mails_waiting",
            "next_attempt_at",
            postgresql_where=text("sent_at IS NULL AND failed_at IS NULL"),
        ),
        Index("ix_outgoing_mails_recipient_hash_created_at", "recipient_hash", "created_at"),
        Index("ix_outgoing_mails_created_at", "created_at"),
    )


class OneTimeLink(Base):
    """A link that was mailed. It counts once, for one purpose, account, address and epoch.

    Attributes:
        digest: SHA-256 of the token.
        code_digest: keyed hash of the short code that stands for the link, if it has one.
        code_failures: wrong codes so far.
        email_canonical: the address that it was mailed to.
    """

    __tablename__ = "one_time_links"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    purpose: Mapped[str]
    digest: Mapped[bytes] = mapped_column(unique=True)
    code_digest: Mapped[bytes | None]
    code_failures: Mapped[int] = mapped_column(server_default=text("0"))
    code_expires_at: Mapped[datetime | None]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    email_canonical: Mapped[str]
    epoch: Mapped[int]
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_one_time_links_user_id_purpose", "user_id", "purpose"),
        Index("ix_one_time_links_expires_at", "expires_at"),
        Index(  # addresses that are reserved, see `accounts.reserved_emails`
            "ix_one_time_links_undo",
            "email_canonical",
            postgresql_where=text("purpose = 'undo_email' AND used_at IS NULL"),
        ),
    )


class Invitation(Base):
    """An invitation to sign up, which counts once.

    Attributes:
        digest: SHA-256 of its token.
        email: the only address that may use it; empty: any.
        roles: names that the new person gets.
        mailed: only a mail to `email` held the link, so whoever uses it reads that mailbox.
    """

    __tablename__ = "invitations"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    digest: Mapped[bytes] = mapped_column(unique=True)
    email: Mapped[str] = mapped_column(server_default="")
    email_canonical: Mapped[str] = mapped_column(server_default="")
    roles: Mapped[list[str]] = mapped_column(ARRAY(Text))
    mailed: Mapped[bool] = mapped_column(Boolean, server_default=false())
    created_by: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    used_by: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="SET NULL"), index=True
    )
    revoked_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_invitations_created_at_id", "created_at", "id"),)


class Deployment(Base):
    """The one row that says what all instances of this database share.

    Attributes:
        session_generation: raised by one to end the sessions of everybody.
    """

    __tablename__ = "deployment"

    id: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, server_default=text("1")
    )
    key_prefix: Mapped[str]
    session_generation: Mapped[int] = mapped_column(Integer, server_default=text("0"))

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class Compatibility(Base):
    """The one row that says which versions of authapp work with this schema, for older ones.

    Attributes:
        oldest_revision: versions that need this migration, or a newer one, work with it.
    """

    __tablename__ = "compatibility"

    id: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, autoincrement=False, server_default=text("1")
    )
    oldest_revision: Mapped[str]

    __table_args__ = (CheckConstraint("id = 1", name="one_row"),)


class PendingFence(Base):
    """A fence that Redis has yet to take: of a key, or of all copies of a user but sessions.

    Attributes:
        key: without KEY_PREFIX.
        email: the canonical one that the user had before, if a change by hand took it away.
    """

    __tablename__ = "pending_fences"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    key: Mapped[str | None]
    user_id: Mapped[UUID | None]
    email: Mapped[str | None]
    ver: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))

    __table_args__ = (CheckConstraint("(key IS NULL) <> (user_id IS NULL)", name="of_one"),)
