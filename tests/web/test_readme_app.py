"""The Flask app in the README does what stands there, with the role that its commands make."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from tests.support.instances import ROOT
from tests.support.people import PASSWORD
from tests.web.conftest import Settings
from tests.web.support import EMAIL, Stores, browser, services_of

README = (
    (ROOT / "README.md").read_text(encoding="utf-8").partition("## Use it in your Flask app")[2]
)


@pytest.fixture
def app(settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The app of the README, and a view that logs people in."""
    code = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)[0]
    for name, value in settings.items():
        monkeypatch.setenv(f"MYAPP_{name}", value)
    module: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), module)
    app: Flask = module["app"]

    @app.post("/log-in")
    def log_in() -> str:
        module["auth"].log_in(EMAIL, PASSWORD)
        return "in"

    yield app
    services_of(app).close()
    stores.clear()
    stores.sql("DELETE FROM roles WHERE name NOT IN ('admin', 'user')")


def test_an_auditor_reads_the_reports(app: Flask) -> None:
    services_of(app).registration.sign_up(EMAIL, PASSWORD, "Ada")
    client = browser(app)
    assert client.get("/notes").status_code == 401
    assert client.post("/log-in").text == "in"
    assert client.get("/notes").text == "notes of Ada"
    assert client.get("/reports").status_code == 403
    commands = re.findall(r"`flask (auth [^`]+)`", README.partition("\n## ")[0])
    assert len(commands) == 2
    for command in commands:
        done = app.test_cli_runner().invoke(args=command.replace("EMAIL", EMAIL).split())
        assert done.exit_code == 0, done.output
    assert client.get("/reports").text == "reports", "at once, in the session that was there"
