"""The released version and the next one, each in a folder of its own."""

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from authapp.storage import schema
from tests.support.instances import ROOT, Instance, serving

RELEASED = Path(__file__).with_name("released.txt")
PARTS = ("authapp", "wsgi.py", "config.py", "gunicorn.conf.py")
APPLICATION = ROOT / "benchmarks/soak/app.py"
GUIDE = (ROOT / "docs/production.md").read_text(encoding="utf-8")
COMMAND_SECONDS = 90

PLANTED_MIGRATION = '''"""A change of tables that the version before does not know."""

import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{head}"
branch_labels = None
depends_on = None
works_with = "0001"  # those of the real migrations decide


def upgrade() -> None:
    for table in ("sessions", "users"):
        op.add_column(table, sa.Column("planted", sa.Integer, nullable=False, server_default="0"))
    op.create_table("planted", sa.Column("id", sa.BigInteger, primary_key=True))


def downgrade() -> None:
    op.drop_table("planted")
    for table in ("sessions", "users"):
        op.drop_column(table, "planted")
'''

PLANTED_INDEX = '''"""An index that is made without stopping anybody (docs/operations.md)."""

from alembic import op

revision = "9001"
down_revision = "9000"
branch_labels = None
depends_on = None
works_with = "0001"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_planted")
        op.create_index("ix_planted", "sessions", ["planted"], postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_planted")
'''


@dataclass(frozen=True)
class Version:
    """The code of one version.

    Attributes:
        environment: all of it, for servers and commands.
    """

    name: str
    folder: Path
    environment: Mapping[str, str]

    @contextmanager
    def serving(self, name: str) -> Iterator[Instance]:
        log = self.folder.parent / f"{name}.log"
        with serving("app_with_data:app", self.environment, log, cwd=self.folder) as instance:
            yield instance

    def run(self, *command: str) -> str:
        """Run `flask --app wsgi auth …` of this version, which must succeed; return its output."""
        return finish(self.start(*command))

    def start(self, *command: str) -> "subprocess.Popen[str]":
        written = f"`flask --app wsgi auth {' '.join(command)}`"
        assert _any_revision(written) in _any_revision(GUIDE), f"the guide does not say {written}"
        return subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "wsgi", "auth", *command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _any_revision(text: str) -> str:
    return re.sub(r"\b\d{4}\b", "REVISION", text)


def finish(process: "subprocess.Popen[str]") -> str:
    told, _ = process.communicate(timeout=COMMAND_SECONDS)
    assert process.returncode == 0, told
    return told


def released(folder: Path, environment: Mapping[str, str]) -> Version:
    """The version of the recorded commit. Skips, which is a failure in CI, where git lacks it."""
    commit = recorded_commit()
    found = _git("archive", "--format=tar", commit, *PARTS)
    if found.returncode:
        why = found.stderr.decode(errors="replace").strip()
        pytest.skip(
            f"THE ROLLING UPGRADE IS NOT TESTED: {ROOT} does not have the released commit "
            f"{commit} (git: {why}); take a whole clone, or run `git fetch --unshallow`"
        )
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return _version("released", folder, environment)


def recorded_commit() -> str:
    lines = RELEASED.read_text().splitlines()
    (commit,) = [line for line in lines if line and not line.startswith("#")]
    return commit


def _git(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    # the clone may belong to another account than the one that runs the tests
    command = ["git", "-c", "safe.directory=*", *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 1, b"", b"git is not installed")


def following(folder: Path, environment: Mapping[str, str]) -> Version:
    """The present code as a version whose tables, copies and functions of Redis differ from those
    of the released one, whatever has been changed since."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part)
        else:
            shutil.copy2(ROOT / part, folder / part)
    package = folder / "authapp"
    _plant(package / "sessions/records.py", r"(class SessionRecord\(.*?\n    id: UUID\n)")
    _plant(package / "accounts/identity.py", r"(class Identity\(.*?)(?=\n    @property)")
    with (package / "cache/versioned_cache.lua").open("a") as functions:
        functions.write("-- the next version\n")
    migrations = package / "storage/migrations/versions"
    head = schema._scripts().get_current_head()
    (migrations / "9000_planted.py").write_text(PLANTED_MIGRATION.format(head=head))
    (migrations / "9001_planted_index.py").write_text(PLANTED_INDEX)
    return _version("following", folder, environment)


def _plant(file: Path, before: str) -> None:
    """Adds a field to a record that is kept in Redis."""
    text = file.read_text()
    planted, count = re.subn(before, r"\1    planted: int = 7\n", text, count=1, flags=re.DOTALL)
    assert count == 1, f"{file.name} has changed: say anew where a field can be added"
    file.write_text(planted)


def _version(name: str, folder: Path, environment: Mapping[str, str]) -> Version:
    shutil.copy(APPLICATION, folder / "app_with_data.py")
    own = {"PYTHONPATH": os.fspath(folder), "WEB_CONCURRENCY": "2"}
    return Version(name, folder, {**environment, **own})
