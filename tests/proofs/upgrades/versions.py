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
APPLICATION = Path(__file__).with_name("app_with_data.py")
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
        """What `flask --app wsgi auth …` of this version prints; it must succeed."""
        return finish(self.start(*command))

    def start(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "flask", "--app", "wsgi", "auth", *command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


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
    migration = PLANTED_MIGRATION.format(head=schema._scripts().get_current_head())
    (package / "storage/migrations/versions/9000_planted.py").write_text(migration)
    return _version("following", folder, environment)


def _plant(file: Path, before: str) -> None:
    """Adds a field to a record that is kept in Redis."""
    text = file.read_text()
    planted, count = re.subn(before, r"\1    planted: int = 7\n", text, count=1, flags=re.DOTALL)
    assert count == 1, f"{file.name} has changed: say anew where a field can be added"
    file.write_text(planted)


def _version(name: str, folder: Path, environment: Mapping[str, str]) -> Version:
    shutil.copy(APPLICATION, folder)
    own = {"PYTHONPATH": os.fspath(folder), "WEB_CONCURRENCY": "2"}
    return Version(name, folder, {**environment, **own})
