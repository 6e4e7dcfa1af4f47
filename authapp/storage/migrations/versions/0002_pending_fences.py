"""Fences that Redis has yet to take, and triggers that write them for changes made by hand."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The application fences its own changes and says so in `authapp.fenced`, for its transaction only.
BY_HAND = "current_setting('authapp.fenced', true) IS DISTINCT FROM 'on'"

FUNCTIONS = """
CREATE FUNCTION authapp_fence_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    NEW.ver := OLD.ver + 1;
  END IF;
  INSERT INTO pending_fences (key, ver)
    VALUES ('sess:' || encode(OLD.digest, 'hex'), OLD.ver + 1);
  RETURN COALESCE(NEW, OLD);
END $$;

CREATE FUNCTION authapp_fence_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    NEW.ver := OLD.ver + 1;
    IF (NEW.password_hash, NEW.active, NEW.email_canonical)
       IS DISTINCT FROM (OLD.password_hash, OLD.active, OLD.email_canonical) THEN
      NEW.epoch := OLD.epoch + 1;
    END IF;
    UPDATE sessions SET ver = ver + 1 WHERE user_id = OLD.id AND ended_at IS NULL;
  END IF;
  INSERT INTO pending_fences (user_id, ver) VALUES (OLD.id, OLD.ver + 1);
  RETURN COALESCE(NEW, OLD);
END $$;

CREATE FUNCTION authapp_fence_user_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE users SET ver = ver + 1 WHERE id = COALESCE(NEW.user_id, OLD.user_id);
  RETURN NULL;
END $$;
"""


def upgrade() -> None:
    op.create_table(
        "pending_fences",
        sa.Column("id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("ver", sa.BigInteger(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "(key IS NULL) <> (user_id IS NULL)", name=op.f("ck_pending_fences_of_one")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pending_fences")),
    )
    op.execute(FUNCTIONS)
    # last_seen_at is left out: no copy must be dropped for it
    op.execute(f"""
        CREATE TRIGGER authapp_fence_session_update BEFORE UPDATE OF
          id, digest, user_id, kind, epoch, created_at, idle_seconds, expires_at, data, ver,
          ended_at, ended_why
        ON sessions FOR EACH ROW WHEN ({BY_HAND}) EXECUTE FUNCTION authapp_fence_session();
        CREATE TRIGGER authapp_fence_session_delete BEFORE DELETE ON sessions
          FOR EACH ROW WHEN ({BY_HAND}) EXECUTE FUNCTION authapp_fence_session();
        CREATE TRIGGER authapp_fence_user BEFORE UPDATE OR DELETE ON users
          FOR EACH ROW WHEN ({BY_HAND}) EXECUTE FUNCTION authapp_fence_user();
        CREATE TRIGGER authapp_fence_user_role AFTER INSERT OR UPDATE OR DELETE ON user_roles
          FOR EACH ROW WHEN ({BY_HAND}) EXECUTE FUNCTION authapp_fence_user_role();
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER authapp_fence_user_role ON user_roles")
    op.execute("DROP TRIGGER authapp_fence_user ON users")
    op.execute("DROP TRIGGER authapp_fence_session_delete ON sessions")
    op.execute("DROP TRIGGER authapp_fence_session_update ON sessions")
    op.execute("DROP FUNCTION authapp_fence_user_role()")
    op.execute("DROP FUNCTION authapp_fence_user()")
    op.execute("DROP FUNCTION authapp_fence_session()")
    op.drop_table("pending_fences")
