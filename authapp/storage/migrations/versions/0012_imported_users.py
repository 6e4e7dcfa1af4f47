"""Users of another system: which emails are verified, and how slow imported hashes are at most."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("email_verified_at", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_users_imported",
        "users",
        [sa.text("(split_part(password_hash, ':', 3)::integer)")],
        postgresql_where=sa.text("password_hash LIKE 'imported:%'"),
    )


def downgrade() -> None:
    op.drop_index("ix_users_imported", table_name="users")
    op.drop_column("users", "email_verified_at")
