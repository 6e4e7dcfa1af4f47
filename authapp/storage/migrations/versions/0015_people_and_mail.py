"""People and their addresses: mails that wait, one-time links, invitations, one-time passwords."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _extend_people()
    _create_outgoing_mails()
    _create_one_time_links()
    _create_invitations()
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    _create_compatibility()


def _extend_people() -> None:
    op.add_column(
        "users",
        sa.Column("email_confirmation_due", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    op.add_column("users", sa.Column("password_expires_at", MOMENT))
    op.add_column("sessions", sa.Column("proved_at", MOMENT))
    # The addresses of before count as verified. Copies of users that other versions wrote are
    # misses, so no fence is needed.
    op.execute("SELECT set_config('authapp.fenced', 'on', true)")
    op.execute("UPDATE users SET email_verified_at = created_at WHERE email_verified_at IS NULL")


def _create_outgoing_mails() -> None:
    op.create_table(
        "outgoing_mails",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column(
            "user_id",
            UUID(as_uuid=True),
            sa.ForeignKey("users.id", ondelete="SET NULL", name="fk_outgoing_mails_user_id_users"),
        ),
        sa.Column("recipient_hash", sa.LargeBinary, nullable=False),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("unconfirmed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("last_error", sa.Text, nullable=False, server_default=""),
        sa.Column("sent_at", MOMENT),
        sa.Column("failed_at", MOMENT),
    )
    op.create_index(
        "ix_outgoing_mails_waiting",
        "outgoing_mails",
        ["next_attempt_at"],
        postgresql_where=sa.text("sent_at IS NULL AND failed_at IS NULL"),
    )
    op.create_index(
        "ix_outgoing_mails_recipient_hash_created_at",
        "outgoing_mails",
        ["recipient_hash", "created_at"],
    )
    op.create_index("ix_outgoing_mails_created_at", "outgoing_mails", ["created_at"])
    op.create_index("ix_outgoing_mails_user_id", "outgoing_mails", ["user_id"])


def _create_one_time_links() -> None:
    op.create_table(
        "one_time_links",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("code_digest", sa.LargeBinary),
        sa.Column("code_failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("code_expires_at", MOMENT),
        sa.Column(
            "user_id",
            UUID(as_uuid=True),
            sa.ForeignKey("users.id", ondelete="CASCADE", name="fk_one_time_links_user_id_users"),
            nullable=False,
        ),
        sa.Column("email_canonical", sa.Text, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("details", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT),
        sa.UniqueConstraint("digest", name="uq_one_time_links_digest"),
    )
    op.create_index("ix_one_time_links_user_id_purpose", "one_time_links", ["user_id", "purpose"])
    op.create_index("ix_one_time_links_expires_at", "one_time_links", ["expires_at"])
    op.create_index(
        "ix_one_time_links_undo",
        "one_time_links",
        ["email_canonical"],
        postgresql_where=sa.text("purpose = 'undo_email' AND used_at IS NULL"),
    )


def _create_invitations() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", UUID(as_uuid=True), primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("email", sa.Text, nullable=False, server_default=""),
        sa.Column("email_canonical", sa.Text, nullable=False, server_default=""),
        sa.Column("roles", ARRAY(sa.Text), nullable=False),
        sa.Column("mailed", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column(
            "created_by",
            UUID(as_uuid=True),
            sa.ForeignKey("users.id", ondelete="CASCADE", name="fk_invitations_created_by_users"),
        ),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT),
        sa.Column(
            "used_by",
            UUID(as_uuid=True),
            sa.ForeignKey("users.id", ondelete="SET NULL", name="fk_invitations_used_by_users"),
        ),
        sa.Column("revoked_at", MOMENT),
        sa.UniqueConstraint("digest", name="uq_invitations_digest"),
    )
    op.create_index("ix_invitations_created_at_id", "invitations", ["created_at", "id"])
    op.create_index("ix_invitations_created_by", "invitations", ["created_by"])
    op.create_index("ix_invitations_used_by", "invitations", ["used_by"])


def _create_compatibility() -> None:
    op.create_table(
        "compatibility",
        sa.Column("id", sa.SmallInteger, autoincrement=False, server_default=sa.text("1")),
        sa.Column("oldest_revision", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_compatibility"),
        sa.CheckConstraint("id = 1", name=op.f("ck_compatibility_one_row")),
    )


def downgrade() -> None:
    op.drop_table("compatibility")
    op.drop_table("invitations")
    op.drop_index("ix_sessions_user_id", "sessions")
    op.drop_table("one_time_links")
    op.drop_table("outgoing_mails")
    op.drop_column("sessions", "proved_at")
    op.drop_column("users", "password_expires_at")
    op.drop_column("users", "email_confirmation_due")
