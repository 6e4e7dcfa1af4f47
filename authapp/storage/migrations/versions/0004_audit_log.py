"""Who may read the audit log, and indexes to read it by user and by event."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        UPDATE roles SET permissions = array_append(permissions, 'audit:read')
        WHERE name = 'admin' AND NOT 'audit:read' = ANY (permissions)
    """)
    op.drop_index("ix_audit_events_user_id", table_name="audit_events")
    op.create_index("ix_audit_events_user_id_id", "audit_events", ["user_id", "id"])
    op.create_index("ix_audit_events_event_id", "audit_events", ["event", "id"])


def downgrade() -> None:
    op.drop_index("ix_audit_events_event_id", table_name="audit_events")
    op.drop_index("ix_audit_events_user_id_id", table_name="audit_events")
    op.create_index("ix_audit_events_user_id", "audit_events", ["user_id"])
    op.execute("""
        UPDATE roles SET permissions = array_remove(permissions, 'audit:read')
        WHERE name = 'admin'
    """)
