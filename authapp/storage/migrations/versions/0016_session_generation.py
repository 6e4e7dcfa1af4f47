"""The generation of sessions: raising it by one ends the sessions of everybody."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

BY_HAND = "current_setting('authapp.fenced', true) IS DISTINCT FROM 'on'"

# So that a session begins in the present generation, whoever adds it: also an older version of us.
CURRENT = """
CREATE FUNCTION authapp_session_generation() RETURNS integer LANGUAGE sql STABLE AS $$
  SELECT COALESCE((SELECT session_generation FROM deployment), 0)
$$
"""
# Any other value stands for the next one, so that no generation that ended comes back.
FENCE = """
CREATE FUNCTION authapp_fence_all_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.session_generation := OLD.session_generation + 1;
  INSERT INTO pending_fences (key, ver) VALUES ('lock:life', NEW.session_generation);
  INSERT INTO audit_events (at, event, details)
    VALUES (now(), 'sessions.ended_for_everybody', '{"why": "changed_in_sql"}');
  RETURN NEW;
END $$
"""


def upgrade() -> None:
    op.add_column(
        "deployment",
        sa.Column("session_generation", sa.Integer(), server_default="0", nullable=False),
    )
    op.execute(CURRENT)
    current = sa.text("authapp_session_generation()")
    op.add_column(
        "sessions", sa.Column("generation", sa.Integer(), server_default=current, nullable=False)
    )
    op.execute(FENCE)
    op.execute(f"""
        CREATE TRIGGER authapp_fence_all_sessions BEFORE UPDATE ON deployment
        FOR EACH ROW WHEN (
          NEW.session_generation IS DISTINCT FROM OLD.session_generation AND {BY_HAND}
        ) EXECUTE FUNCTION authapp_fence_all_sessions()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER authapp_fence_all_sessions ON deployment")
    op.execute("DROP FUNCTION authapp_fence_all_sessions()")
    op.drop_column("sessions", "generation")
    op.execute("DROP FUNCTION authapp_session_generation()")
    op.drop_column("deployment", "session_generation")
