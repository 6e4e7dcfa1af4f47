"""Permissions of roles; a change of a role made by hand reaches everybody who has it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FUNCTION = """
CREATE FUNCTION authapp_fence_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE users SET ver = ver + 1
    WHERE id IN (SELECT user_id FROM user_roles WHERE role_id = NEW.id);
  RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.add_column(
        "roles",
        sa.Column(
            "permissions", sa.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
    )
    op.execute("""
        UPDATE roles
        SET permissions = ARRAY['users:read', 'users:write', 'roles:grant', 'sessions:end']
        WHERE name = 'admin'
    """)
    op.execute(FUNCTION)
    op.execute("""
        CREATE TRIGGER authapp_fence_role AFTER UPDATE ON roles
        FOR EACH ROW EXECUTE FUNCTION authapp_fence_role()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER authapp_fence_role ON roles")
    op.execute("DROP FUNCTION authapp_fence_role()")
    op.drop_column("roles", "permissions")
