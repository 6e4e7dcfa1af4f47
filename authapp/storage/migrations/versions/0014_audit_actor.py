"""An index to find the audit events in which a person acted: their deletion empties `actor_id`."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_audit_events_actor_id",
        "audit_events",
        ["actor_id"],
        postgresql_where=sa.text("actor_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_audit_events_actor_id", table_name="audit_events")
