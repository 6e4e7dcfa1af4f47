"""A small shop moves from Flask-Session and Flask-Login to authapp, and passes its own tests.

`shop/before` is an ordinary app with Flask-WTF, Flask-SQLAlchemy and Flask-Migrate, a cart for
visitors and flashed messages. `shop/after` is the same app on authapp.
"""

import os
import subprocess
import sys
from difflib import SequenceMatcher, unified_diff
from pathlib import Path

import pytest

from authapp import dev
from tests.support.databases import add_migrated_database
from tests.support.instances import ROOT

SHOP = Path(__file__).parent / "shop"
VERSIONS = {name: (SHOP / name / "shop.py").read_text() for name in ("before", "after")}
SECRET = "a-secret-of-the-shop-for-these-tests-only"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_shop_passes_its_own_tests(
    version: str, postgres: dev.PostgreSQL, valkey: dev.Valkey
) -> None:
    url = add_migrated_database(postgres.url, f"shop_{version}")
    settings = {
        "SECRET_KEY": SECRET,
        "SQLALCHEMY_DATABASE_URI": url.replace("://", "+psycopg2://", 1),
        "REDIS_URL": valkey.url,
        "SESSION_TYPE": "redis",
        # beside these two nothing of the environment changes
        "DATABASE_URL": url,
        "PASSWORD_PEPPER": SECRET[::-1],
    }
    plain = ["-q", "-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plain, "--rootdir", SHOP, SHOP / "test_shop.py"],
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{SHOP / version}:{SHOP.parents[2]}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        | {f"FLASK_{name}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_the_move_takes_twelve_lines() -> None:
    """Lines that are new or differ. Lines that only go are not counted."""
    before, after = (
        [line.strip() for line in text.splitlines() if line.strip()] for text in VERSIONS.values()
    )
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    written = sum(end - start for kind, *_, start, end in matcher.get_opcodes() if kind != "equal")
    assert 0 < written <= 12


def test_the_guide_shows_the_whole_move() -> None:
    before, after = (text.splitlines(keepends=True) for text in VERSIONS.values())
    _, _, *lines = unified_diff(before, after, n=1)
    shown = (ROOT / "docs/migrate.md").read_text().partition("```diff\n")[2].partition("```")[0]
    assert shown == "".join(lines)
