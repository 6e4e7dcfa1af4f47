"""Our tables, functions and migration history move into a schema of their own, DATABASE_SCHEMA."""

import sqlalchemy as sa
from alembic import context, op

from authapp.storage.migrations.installations import look_only_in

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Indexes, sequences and triggers go with their tables.
TABLES = [
    "users",
    "roles",
    "user_roles",
    "sessions",
    "audit_events",
    "pending_fences",
    "deployment",
    "alembic_version",
]
FUNCTIONS = [
    "authapp_fence_session()",
    "authapp_fence_user()",
    "authapp_fence_user_role()",
    "authapp_fence_role()",
    "authapp_note_new_user()",
    "authapp_changed_fields(jsonb, jsonb)",
]
# Accounts that may use a table may have to look into its schema.
GRANTEES = """
    SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
    FROM pg_class, aclexplode(relacl)
    WHERE relnamespace = current_schema()::regnamespace AND relname = ANY(:tables)
      AND grantee <> relowner
"""


def upgrade() -> None:
    attributes = context.config.attributes
    if attributes["home"] == attributes["schema"]:
        return  # a new installation
    connection, schema = op.get_bind(), _quoted(attributes["schema"])
    for grantee in connection.scalars(sa.text(GRANTEES), {"tables": TABLES}).all():
        op.execute(f"GRANT USAGE ON SCHEMA {schema} TO {grantee}")
    _move(attributes["schema"])


def downgrade() -> None:
    attributes = context.config.attributes
    if attributes["destination"] == "base":
        return  # nothing is left to move, and the names may be taken there
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function} RESET search_path")
    _move(attributes["former"])


def _move(schema: str) -> None:
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} SET SCHEMA {_quoted(schema)}")
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function} SET SCHEMA {_quoted(schema)}")
    look_only_in(op.get_bind(), schema)


def _quoted(name: str) -> str:
    return op.get_bind().dialect.identifier_preparer.quote_identifier(name)
