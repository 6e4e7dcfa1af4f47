"""What a change by hand takes away is fenced, too: an email, an account, a role moved elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

USER = """
CREATE OR REPLACE FUNCTION authapp_fence_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    NEW.ver := OLD.ver + 1;
    IF (NEW.password_hash, NEW.active, NEW.email_canonical)
       IS DISTINCT FROM (OLD.password_hash, OLD.active, OLD.email_canonical) THEN
      NEW.epoch := OLD.epoch + 1;
    END IF;
    UPDATE sessions SET ver = ver + 1 WHERE user_id = OLD.id AND ended_at IS NULL;
  END IF;
  {insert}
  RETURN COALESCE(NEW, OLD);
END $$;
"""
USER_ROLE = """
CREATE OR REPLACE FUNCTION authapp_fence_user_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE users SET ver = ver + 1 WHERE id {whose};
  RETURN NULL;
END $$;
"""
WITH_EMAIL = """
  INSERT INTO pending_fences (user_id, ver, email)
    VALUES (OLD.id, OLD.ver + 1, OLD.email_canonical);
"""
WITHOUT_EMAIL = "INSERT INTO pending_fences (user_id, ver) VALUES (OLD.id, OLD.ver + 1);"


def upgrade() -> None:
    op.add_column("pending_fences", sa.Column("email", sa.Text(), nullable=True))
    op.execute(USER.format(insert=WITH_EMAIL))
    op.execute(USER_ROLE.format(whose="IN (NEW.user_id, OLD.user_id)"))


def downgrade() -> None:
    op.execute(USER_ROLE.format(whose="= COALESCE(NEW.user_id, OLD.user_id)"))
    op.execute(USER.format(insert=WITHOUT_EMAIL))
    op.drop_column("pending_fences", "email")
