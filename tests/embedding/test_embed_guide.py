"""The first ten minutes of `docs/embed.md`, done word for word."""

import re
from pathlib import Path
from typing import Any

import pytest

from authapp.testing import settings_without_engines
from tests.embedding.served import Browser, served
from tests.support.instances import ROOT
from tests.test_testing import CONFTEST, run_tests

ANN = {"email": "ann@example.org", "password": "correct horse battery"}
PAGE = (ROOT / "docs/embed.md").read_text(encoding="utf-8")
START = PAGE.partition("## Ten minutes\n")[2].partition("\n## ")[0]
SETTINGS = PAGE.partition("## Settings\n")[2].partition("\n## ")[0]
TESTS = PAGE.partition("## Tests of your app\n")[2].partition("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_an_app_of_a_few_lines_is_guarded(tmp_path: Path) -> None:
    (code,) = blocks(START, "python")
    (commands,) = blocks(START, "sh")
    install, start = commands.strip().splitlines()
    assert install.startswith("pip install")
    (tmp_path / "app.py").write_text(code)
    with served(["sh", "-c", f"exec {start}"], tmp_path) as address:
        browser = Browser(address)
        assert "Hello, stranger" in browser.ask("/")[1]
        path, _ = browser.ask("/notes")
        assert path.startswith("/auth/login?next=")
        browser.ask("/auth/signup", **ANN)
        path, shown = browser.ask(path, **ANN)
        assert path == "/notes"
        assert "Notes of ann@example.org" in shown
        assert "Hello, ann@example.org" in browser.ask("/")[1]


def test_a_factory_reads_the_environment_or_the_settings_of_a_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = settings_without_engines()
    (code,) = blocks(SETTINGS, "python")
    module: dict[str, Any] = {"__name__": "factory"}
    exec(compile(code, "docs/embed.md", "exec"), module)
    for_tests = module["create_app"](given)
    assert for_tests.config["SECRET_KEY"] == given["SECRET_KEY"]
    for name, value in (given | {"SECRET_KEY": "of-the-environment-and-long-enough"}).items():
        monkeypatch.setenv(name, str(value))
    assert module["create_app"]().config["SECRET_KEY"] == "of-the-environment-and-long-enough"


def test_the_tests_of_an_app(tmp_path: Path) -> None:
    """With engines, and without any."""
    conftest, with_engines, without = blocks(TESTS, "python")
    assert conftest.split() == CONFTEST.split()
    shown = run_tests(tmp_path, with_engines + without)
    assert "2 passed" in shown, shown
