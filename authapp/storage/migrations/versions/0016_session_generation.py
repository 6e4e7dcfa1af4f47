"""The generation of sessions: raising it by one ends the sessions of everybody."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

BY_HAND = "current_setting('authapp.fenced', true) IS DISTINCT FROM 'on'"

# A session begins in the present generation, whoever adds it: also an older version of us.
BEGIN = """
CREATE FUNCTION authapp_begin_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.generation := COALESCE((SELECT session_generation FROM deployment), 0);
  RETURN NEW;
END $$
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
    op.add_column(
        "sessions", sa.Column("generation", sa.Integer(), server_default="0", nullable=False)
    )
    op.alter_column("sessions", "generation", server_default=None)
    op.execute(BEGIN)
    op.execute("""
        CREATE TRIGGER authapp_begin_session BEFORE INSERT ON sessions
        FOR EACH ROW WHEN (NEW.generation IS NULL) EXECUTE FUNCTION authapp_begin_session()
    """)
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
    op.execute("DROP TRIGGER authapp_begin_session ON sessions")
    op.execute("DROP FUNCTION authapp_begin_session()")
    op.drop_column("sessions", "generation")
    op.drop_column("deployment", "session_generation")
