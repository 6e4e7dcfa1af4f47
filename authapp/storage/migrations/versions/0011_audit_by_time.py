"""Indexes to read the audit log by the time of the events: refused attempts are recorded late."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Each index ends by (at, id), in place of id or, for all events, of at alone.
INDEXES: list[tuple[str, list[str], str]] = [
    ("", [], ""),
    ("user_id_", ["user_id"], ""),
    ("event_", ["event"], ""),
    ("address_", ["address"], "address <> ''"),
    ("email_hash_", ["(details ->> 'email_hash')"], "(details ->> 'email_hash') IS NOT NULL"),
]


def upgrade() -> None:
    for prefix, columns, where in INDEXES:
        _create(f"ix_audit_events_{prefix}at_id", [*columns, "at", "id"], where)
        op.drop_index(_before(prefix), table_name="audit_events")


def downgrade() -> None:
    for prefix, columns, where in INDEXES:
        _create(_before(prefix), [*columns, "id"] if columns else ["at"], where)
        op.drop_index(f"ix_audit_events_{prefix}at_id", table_name="audit_events")


def _before(prefix: str) -> str:
    return f"ix_audit_events_{prefix}id" if prefix else "ix_audit_events_at"


def _create(name: str, columns: list[str], where: str) -> None:
    op.create_index(
        name,
        "audit_events",
        [sa.text(column) for column in columns],
        postgresql_where=sa.text(where) if where else None,
    )
