"""An app with tables of its own beside ours, under Flask-SQLAlchemy and Flask-Migrate.

It is the app of docs/database.md, and each command is a process of its own, as for its developer.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from authapp import dev
from tests.support.databases import add_database, ask, run_sql
from tests.support.settings import environment_for

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/database.md").read_text(encoding="utf-8")
APP, INCLUDE_NAME = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
OTHER_APP = APP.replace("import Auth, User", "import Auth, users_table").replace(
    "ForeignKey(User.id,", 'ForeignKey(users_table("people").c.id,'
)
OTHER_APP = OTHER_APP.replace("    owner = db.relationship(User)\n", "")
# The app may name a table as ours is named.
MORE = """

class Users(db.Model):
    id = db.Column(db.Integer, primary_key=True)
"""

Flask = Callable[..., str]


@pytest.fixture
def url(postgres: dev.PostgreSQL) -> str:
    return add_database(postgres.url, "flask_migrate")


@pytest.fixture
def flask(url: str, valkey: dev.Valkey, tmp_path: Path) -> Flask:
    """Runs a command of the app in `notes.py`, and returns what it says."""

    def run(*arguments: str, source: str = "", **settings: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "notes", *arguments],
            cwd=tmp_path,
            env=environment_for(url, valkey.url, PYTHONPATH=os.fspath(ROOT), **settings),
            input=source,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return run


def migration(folder: Path) -> str:
    (script,) = (folder / "migrations/versions").glob("*.py")
    return script.read_text()


@pytest.mark.parametrize(
    ("app", "schema"), [(APP, "authapp_data"), (OTHER_APP, "people")], ids=["default", "other"]
)
def test_an_app_has_foreign_keys_to_our_users_and_a_history_of_its_own(
    flask: Flask, url: str, tmp_path: Path, app: str, schema: str
) -> None:
    ours = {} if schema == "authapp_data" else {"DATABASE_SCHEMA": schema}
    (tmp_path / "notes.py").write_text(app + MORE)
    flask("auth", "db", "upgrade", **ours)
    flask("db", "init", **ours)
    flask("db", "migrate", **ours)
    script = migration(tmp_path)
    assert "drop_" not in script.partition("def downgrade")[0]
    assert f"['{schema}.users.id'], ondelete='CASCADE'" in script
    assert set(re.findall(r"create_table\('(\w+)'", script)) == {"note", "users"}
    flask("db", "upgrade", **ours)
    assert "No changes in schema detected" in flask("db", "migrate", **ours)

    flask("auth", "users", "create", "ada@example.org", **ours)
    ((user,),) = ask(url, f"SELECT id FROM {schema}.users")
    run_sql(url, f"INSERT INTO note (owner_id, text) VALUES ('{user}', 'hello')")
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        run_sql(url, "INSERT INTO note (owner_id, text) VALUES (gen_random_uuid(), 'nobody')")
    if schema == "authapp_data":
        (tmp_path / "owner.py").write_text(
            "from notes import Note, app\n"
            "with app.app_context(): print(Note.query.one().owner.email)\n"
        )
        assert "ada@example.org" in flask("shell", source="import owner")
    run_sql(url, f"DELETE FROM {schema}.users")
    assert ask(url, "SELECT count(*) FROM note") == [(0,)], "as the app's ON DELETE says"

    flask("auth", "db", "upgrade", **ours)
    flask("db", "downgrade", "base", **ours)
    flask("auth", "users", "create", "ada@example.org", **ours)
    assert ask(url, "SELECT count(*) FROM public.alembic_version") == [(0,)]
    assert ask(url, f"SELECT count(*) FROM {schema}.alembic_version") == [(1,)]


def test_an_app_that_looks_into_every_schema_leaves_ours_out(
    flask: Flask, url: str, tmp_path: Path
) -> None:
    everything = APP.replace("migrate = Migrate(app, db)\n", INCLUDE_NAME)
    (tmp_path / "notes.py").write_text(everything)
    flask("auth", "db", "upgrade")
    flask("db", "init")
    flask("db", "migrate")
    assert set(re.findall(r"create_table\('(\w+)'", migration(tmp_path))) == {"note"}
    assert "drop_" not in migration(tmp_path).partition("def downgrade")[0]
    flask("db", "upgrade")
    assert "No changes in schema detected" in flask("db", "migrate")
