"""The example app `examples/notes`, started by the one command that its documents name."""

import re

from tests.embedding.served import Browser, served
from tests.support.instances import ROOT

ANN = {"email": "ann@example.org", "password": "correct horse battery"}


def test_a_person_keeps_notes() -> None:
    with served(["make", "example"], ROOT) as address:
        browser = Browser(address)
        path, _ = browser.ask("/")
        assert path.startswith("/auth/login?next="), "the notes are guarded"
        browser.ask("/auth/signup", **ANN)
        path, shown = browser.ask("/auth/login?next=/", **ANN)
        assert path == "/"
        assert "Notes of ann@example.org" in shown
        _, shown = browser.ask("/", text="<milk>")
        assert re.findall("<li>(.*?)</li>", shown) == ["&lt;milk&gt;"]
        assert "Your note is kept." in shown
        assert "Your note is kept." not in browser.ask("/")[1]
        assert "ann@example.org" in browser.ask("/auth/account")[1]


def test_it_is_as_short_as_its_documents_say() -> None:
    assert len((ROOT / "examples/notes/app.py").read_text().splitlines()) <= 60
