"""Second factors: authenticator apps, recovery codes, log-ins that wait; how people proved who
they are."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, UUID

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

works_with = "0016"  # which ends log-ins of people who hold a second factor in an error

MOMENT = sa.DateTime(timezone=True)

# A version before this one begins sessions without `amr`, after a password alone. It knows of no
# second factor, so it must not begin any for people who hold one.
PROVE = """
CREATE FUNCTION authapp_prove_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT second_factor FROM users WHERE id = NEW.user_id) THEN
    RAISE EXCEPTION 'the person holds a second factor, which this version of authapp does not know'
      USING ERRCODE = 'check_violation';
  END IF;
  NEW.amr := '{pwd}';
  RETURN NEW;
END $$
"""


def upgrade() -> None:
    op.add_column(
        "users", sa.Column("second_factor", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column(
        "users", sa.Column("factors_version", sa.Integer, nullable=False, server_default="0")
    )
    op.add_column(
        "sessions", sa.Column("amr", ARRAY(sa.Text), nullable=False, server_default="{pwd}")
    )
    op.alter_column("sessions", "amr", server_default=None)
    op.execute(PROVE)
    op.execute("""
        CREATE TRIGGER authapp_prove_session BEFORE INSERT ON sessions
        FOR EACH ROW WHEN (NEW.amr IS NULL) EXECUTE FUNCTION authapp_prove_session()
    """)
    _create_factors()
    _create_pending_logins()


def _user_id(table: str, **how: object) -> sa.Column[object]:
    owner = sa.ForeignKey("users.id", ondelete="CASCADE", name=f"fk_{table}_user_id_users")
    return sa.Column("user_id", UUID(as_uuid=True), owner, nullable=False, **how)  # type: ignore[arg-type]


def _create_factors() -> None:
    op.create_table(
        "totp_secrets",
        _user_id("totp_secrets", primary_key=True),
        sa.Column("sealed", sa.LargeBinary),
        sa.Column("confirmed_at", MOMENT),
        sa.Column("last_step", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("candidate", sa.LargeBinary),
        sa.Column("candidate_at", MOMENT),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        _user_id("recovery_codes"),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT),
    )
    op.create_index(
        "uq_recovery_codes_user_id_digest", "recovery_codes", ["user_id", "digest"], unique=True
    )


def _create_pending_logins() -> None:
    op.create_table(
        "pending_logins",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        _user_id("pending_logins"),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("factors_version", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("remember", sa.Boolean, nullable=False),
        sa.Column("amr", ARRAY(sa.Text), nullable=False),
        sa.Column("method", sa.Text, nullable=False, server_default=""),
        sa.Column("enrols", sa.Boolean, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
    )
    op.create_index("ix_pending_logins_user_id", "pending_logins", ["user_id"])
    op.create_index("ix_pending_logins_expires_at", "pending_logins", ["expires_at"])
    op.create_table(
        "used_challenges",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("expires_at", MOMENT, nullable=False),
    )
    op.create_index("ix_used_challenges_expires_at", "used_challenges", ["expires_at"])


def downgrade() -> None:
    op.drop_table("used_challenges")
    op.drop_table("pending_logins")
    op.drop_table("recovery_codes")
    op.drop_table("totp_secrets")
    op.execute("DROP TRIGGER authapp_prove_session ON sessions")
    op.execute("DROP FUNCTION authapp_prove_session()")
    op.drop_column("sessions", "amr")
    op.drop_column("users", "factors_version")
    op.drop_column("users", "second_factor")
