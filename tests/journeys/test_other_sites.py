"""Pages of other sites can neither act for somebody nor read or frame what is theirs."""

import threading
from collections.abc import Iterator, Mapping
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.journeys.acts import HOME, sees_heading
from tests.journeys.conftest import DESKTOP, open_window
from tests.journeys.site import Person, Site

NEW_PASSWORD = "seven quiet rivers bend"
MALLORY = Person("mallory@example.org", "copper lantern drifts north", "Mallory")


class Stranger:
    """A site of somebody else, which shows whatever page it is given."""

    def __init__(self) -> None:
        self.page = ""
        stranger = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = stranger.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def port(self) -> int:
        return self.server.server_address[1]


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    made = Stranger()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture(params=["127.0.0.1", "localhost"], ids=["same-site", "cross-site"])
def origin(request: pytest.FixtureRequest, stranger: Stranger) -> str:
    """Another port gets our cookie sent along, another host does not; neither may act."""
    return f"http://{request.param}:{stranger.port}"


@pytest.fixture
def victim(browser: Browser, site: Site, someone: Person) -> Iterator[Page]:
    """Signed in, and as trusting as can be."""
    context = open_window(browser, site, DESKTOP, cookies=[site.cookie_of(someone)])
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def mallory(site: Site) -> Person:
    return site.add(MALLORY)


def acts(someone: Person, mallory: Person) -> dict[str, dict[str, str]]:
    """The requests that a hostile site would send, even if it knew every password."""
    return {
        "/logout": {},
        "/login": {"email": mallory.email, "password": mallory.password},
        "/account/password": {"current_password": someone.password, "new_password": NEW_PASSWORD},
        "/account": {"name": "Fool"},
        "/account/sessions/end-others": {},
    }


def form(action: str, fields: Mapping[str, str]) -> str:
    inputs = "".join(
        f'<input name="{escape(name)}" value="{escape(value)}">' for name, value in fields.items()
    )
    return (
        f'<form method="post" action="{escape(action)}">{inputs}<button>Win a prize</button></form>'
    )


def is_unaffected(page: Page, site: Site, person: Person, other: Page) -> None:
    for mine in (page, other):
        mine.goto(f"{site.url}/")
        sees_heading(mine, f"Hello, {person.name}")
    site.cookie_of(person)  # the password is the same as ever


def test_forms_are_refused(
    browser: Browser,
    site: Site,
    stranger: Stranger,
    origin: str,
    victim: Page,
    someone: Person,
    mallory: Person,
) -> None:
    other = open_window(browser, site, DESKTOP, cookies=[site.cookie_of(someone)]).new_page()
    for path, fields in acts(someone, mallory).items():
        stranger.page = form(f"{site.url}{path}", fields)
        victim.goto(f"{origin}/")
        with victim.expect_navigation() as navigation:
            victim.get_by_role("button").click()
        assert navigation.value.status == 403, path
        expect(victim.get_by_role("main")).to_contain_text("This request came from another site")
        is_unaffected(victim, site, someone, other)
    other.context.close()


def test_a_stranger_logs_nobody_in(
    browser: Browser, site: Site, stranger: Stranger, origin: str, mallory: Person
) -> None:
    context = open_window(browser, site, DESKTOP)
    page = context.new_page()
    stranger.page = form(
        f"{site.url}/login", {"email": mallory.email, "password": mallory.password}
    )
    page.goto(f"{origin}/")
    page.get_by_role("button").click()
    expect(page.get_by_role("main")).to_contain_text("This request came from another site")
    assert context.cookies() == []
    page.goto("/")
    sees_heading(page, HOME)
    context.close()


FETCH = """async ([url, method, mode, fields]) => {
  const options = {method, mode, credentials: "include"};
  if (method === "POST") options.body = new URLSearchParams(fields);
  try { return await (await fetch(url, options)).text(); } catch { return "refused"; }
}"""


def test_scripts_are_refused(
    browser: Browser,
    site: Site,
    stranger: Stranger,
    origin: str,
    victim: Page,
    someone: Person,
    mallory: Person,
) -> None:
    other = open_window(browser, site, DESKTOP, cookies=[site.cookie_of(someone)]).new_page()
    stranger.page = "<h1>Prizes</h1>"
    victim.goto(f"{origin}/")
    read = ("/account", "/account/sessions", "/api/v1/me")
    for mode in ("cors", "no-cors"):
        for path, fields in acts(someone, mallory).items():
            asked = [f"{site.url}{path}", "POST", mode, fields]
            assert victim.evaluate(FETCH, asked) == "refused", (mode, path)
        for path in read:
            asked = [f"{site.url}{path}", "GET", mode, {}]
            assert victim.evaluate(FETCH, asked) == "refused", (mode, path)
    is_unaffected(victim, site, someone, other)
    other.context.close()


def test_framing_is_refused(site: Site, stranger: Stranger, origin: str, victim: Page) -> None:
    stranger.page = f'<h1>Prizes</h1><iframe src="{site.url}/account"></iframe>'
    victim.goto(f"{origin}/")
    (frame,) = victim.main_frame.child_frames
    expect(frame.get_by_role("heading", name="Your account")).to_have_count(0)
    assert frame.url == "chrome-error://chromewebdata/"
