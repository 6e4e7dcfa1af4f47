"""Indexes to read the audit log by address, and by an email that nobody has."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_audit_events_address_id",
        "audit_events",
        ["address", "id"],
        postgresql_where=sa.text("address <> ''"),
    )
    op.create_index(
        "ix_audit_events_email_hash_id",
        "audit_events",
        [sa.text("(details ->> 'email_hash')"), "id"],
        postgresql_where=sa.text("(details ->> 'email_hash') IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_audit_events_email_hash_id", table_name="audit_events")
    op.drop_index("ix_audit_events_address_id", table_name="audit_events")
