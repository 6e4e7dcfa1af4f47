"""Changes made by hand in SQL are audit events, and the sessions they end say why."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

BY_HAND = "current_setting('authapp.fenced', true) IS DISTINCT FROM 'on'"

# Names of the columns that differ. No value is told: it may be an email or a hash.
CHANGED_FIELDS = """
CREATE FUNCTION authapp_changed_fields(before jsonb, after jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_agg(key ORDER BY key) FROM jsonb_each(after) AS b (key, value)
  WHERE value IS DISTINCT FROM before -> key AND key NOT IN ('ver', 'updated_at')
$$;
"""

SESSION = """
CREATE OR REPLACE FUNCTION authapp_fence_session() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    NEW.ver := OLD.ver + 1;
  END IF;
  INSERT INTO pending_fences (key, ver)
    VALUES ('sess:' || encode(OLD.digest, 'hex'), OLD.ver + 1);
  {note}
  RETURN COALESCE(NEW, OLD);
END $$;
"""
# A session that goes with its account is told by the account.
NOTE_SESSION = """
  IF OLD.ended_at IS NULL AND (TG_OP = 'DELETE' OR NEW.ended_at IS NOT NULL) THEN
    INSERT INTO audit_events (at, event, user_id, details)
      SELECT now(), 'session.ended', id,
        jsonb_build_object('why', COALESCE(NEW.ended_why, 'changed_in_sql'))
      FROM users WHERE id = OLD.user_id;
  END IF;
"""

USER = """
CREATE OR REPLACE FUNCTION authapp_fence_user() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  fields jsonb;
  why text;
BEGIN
  IF TG_OP = 'UPDATE' THEN
    NEW.ver := OLD.ver + 1;
    {note_update}
    IF (NEW.password_hash, NEW.active, NEW.email_canonical)
       IS DISTINCT FROM (OLD.password_hash, OLD.active, OLD.email_canonical) THEN
      NEW.epoch := OLD.epoch + 1;
    END IF;
    {sessions}
  END IF;
  {note_delete}
  INSERT INTO pending_fences (user_id, ver, email)
    VALUES (OLD.id, OLD.ver + 1, OLD.email_canonical);
  RETURN COALESCE(NEW, OLD);
END $$;
"""
NOTE_UPDATE = """
    fields := authapp_changed_fields(to_jsonb(OLD), to_jsonb(NEW));
    IF fields IS NOT NULL THEN
      INSERT INTO audit_events (at, event, user_id, details)
        VALUES (now(), 'user.changed_in_sql', OLD.id, jsonb_build_object('fields', fields));
    END IF;
"""
NOTE_DELETE = """
  IF TG_OP = 'DELETE' THEN
    INSERT INTO audit_events (at, event) VALUES (now(), 'user.deleted_in_sql');
  END IF;
"""
SESSIONS = "UPDATE sessions SET ver = ver + 1 WHERE user_id = OLD.id AND ended_at IS NULL;"
# Sessions of an older epoch are dead anyway; here they get their reason.
END_SESSIONS = """
    why := CASE
      WHEN OLD.active AND NOT NEW.active THEN 'deactivated'
      WHEN NEW.password_hash <> OLD.password_hash THEN 'password_changed'
      WHEN NEW.epoch <> OLD.epoch THEN 'changed_in_sql'
    END;
    UPDATE sessions
      SET ver = ver + 1, ended_why = why, ended_at = CASE WHEN why IS NOT NULL THEN now() END
      WHERE user_id = OLD.id AND ended_at IS NULL;
"""

NEW_USER = """
CREATE FUNCTION authapp_note_new_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit_events (at, event, user_id) VALUES (now(), 'user.created_in_sql', NEW.id);
  RETURN NULL;
END $$;
"""

USER_ROLE = """
CREATE OR REPLACE FUNCTION authapp_fence_user_role() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE users SET ver = ver + 1 WHERE id IN (NEW.user_id, OLD.user_id);
  {note}
  RETURN NULL;
END $$;
"""
# Roles that go with their account are told by the account.
NOTE_USER_ROLE = """
  INSERT INTO audit_events (at, event, user_id, details)
    SELECT now(), 'roles.changed_in_sql', u.id, jsonb_strip_nulls(jsonb_build_object(
      'granted', (SELECT jsonb_agg(name) FROM roles WHERE id = NEW.role_id AND u.id = NEW.user_id),
      'revoked', (SELECT jsonb_agg(name) FROM roles WHERE id = OLD.role_id AND u.id = OLD.user_id)
    ))
    FROM users u WHERE u.id IN (NEW.user_id, OLD.user_id);
"""

ROLE = """
CREATE OR REPLACE FUNCTION authapp_fence_role() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  fields jsonb;
BEGIN
  UPDATE users SET ver = ver + 1
    WHERE id IN (SELECT user_id FROM user_roles WHERE role_id = NEW.id);
  {note}
  RETURN NULL;
END $$
"""
NOTE_ROLE = """
  fields := authapp_changed_fields(to_jsonb(OLD), to_jsonb(NEW));
  IF fields IS NOT NULL
     AND current_setting('authapp.fenced', true) IS DISTINCT FROM 'on' THEN
    INSERT INTO audit_events (at, event, details) VALUES (now(), 'role.changed_in_sql',
      jsonb_build_object('role', OLD.name, 'fields', fields));
  END IF;
"""


def upgrade() -> None:
    op.execute(CHANGED_FIELDS)
    op.execute(SESSION.format(note=NOTE_SESSION))
    op.execute(USER.format(note_update=NOTE_UPDATE, sessions=END_SESSIONS, note_delete=NOTE_DELETE))
    op.execute(USER_ROLE.format(note=NOTE_USER_ROLE))
    op.execute(ROLE.format(note=NOTE_ROLE))
    op.execute(NEW_USER)
    op.execute(f"""
        CREATE TRIGGER authapp_note_new_user AFTER INSERT ON users
        FOR EACH ROW WHEN ({BY_HAND}) EXECUTE FUNCTION authapp_note_new_user()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER authapp_note_new_user ON users")
    op.execute("DROP FUNCTION authapp_note_new_user()")
    op.execute(ROLE.format(note=""))
    op.execute(USER_ROLE.format(note=""))
    op.execute(USER.format(note_update="", sessions=SESSIONS, note_delete=""))
    op.execute(SESSION.format(note=""))
    op.execute("DROP FUNCTION authapp_changed_fields(jsonb, jsonb)")
