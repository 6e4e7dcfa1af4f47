"""Sessions of programs that can be refreshed: the digest of the refresh token that is next."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # No copy holds it, so the trigger that fences changes made by hand need not see it.
    op.add_column("sessions", sa.Column("refresh_digest", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("sessions", "refresh_digest")
