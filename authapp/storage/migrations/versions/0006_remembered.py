"""Whether a session is remembered is a fact of its own, and no longer told from its limits."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "sessions",
        sa.Column("remembered", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    # a remembered session of a browser may be idle as long as it lasts
    op.execute("""
        UPDATE sessions SET remembered = true WHERE ended_at IS NULL AND CASE kind
          WHEN 'api' THEN refresh_digest IS NOT NULL
          ELSE extract(epoch FROM expires_at - created_at) <= idle_seconds
        END
    """)


def downgrade() -> None:
    op.drop_column("sessions", "remembered")
