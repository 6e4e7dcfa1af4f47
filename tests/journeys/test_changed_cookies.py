"""The operator changes where the cookie is set, and browsers keep the old one beside the new."""

from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, StorageStateCookie

from tests.journeys.acts import cookies_of, fill_log_in, log_out, sees_heading, sees_notice
from tests.journeys.conftest import DESKTOP, DOMAIN, open_window
from tests.journeys.site import Person, Site, served

COOKIE = "SESSION-TOKEN"
HOST = f"auth.shop.{DOMAIN}"
SETTINGS = {
    "host": {"SESSION_COOKIE_DOMAIN": ""},
    "domain": {"SESSION_COOKIE_DOMAIN": DOMAIN},
    "middle": {"SESSION_COOKIE_DOMAIN": f"shop.{DOMAIN}"},
}
DOMAINS = {"host": HOST, "domain": f".{DOMAIN}", "middle": f".shop.{DOMAIN}"}
CHANGES = [
    ("host", "domain"),
    ("domain", "host"),
    ("middle", "domain"),
    ("domain", "middle"),
]

Urls = dict[str, str]


@pytest.fixture(scope="module")
def urls(site: Site, served_by: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    """The same product with each setting. Browsers keep cookies by host and not by port, so to
    them it is one site before and after a change."""
    folder = tmp_path_factory.mktemp("changed-cookies")
    with ExitStack() as stack:
        found = {}
        for name, settings in SETTINGS.items():
            environment = {**site.environment, **settings, "WEB_CONCURRENCY": "1"}
            running = stack.enter_context(served(environment, folder / f"{name}.log"))
            found[name] = f"http://{HOST}:{urlsplit(running.url).port}"
        yield found


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    context = open_window(browser, site, DESKTOP)
    yield context.new_page()
    context.close()


def log_in(page: Page, url: str, person: Person) -> None:
    page.goto(f"{url}/login?next=/account")
    fill_log_in(page, person)
    sees_heading(page, "Your account")


def session_cookies(page: Page) -> list[StorageStateCookie]:
    return [cookie for cookie in cookies_of(page) if cookie["name"] == COOKIE]


def domains(page: Page) -> list[str]:
    return sorted(cookie["domain"] for cookie in session_cookies(page))


def keep(page: Page, cookie: StorageStateCookie, path: str = "/") -> None:
    """The browser has this cookie from before, or from another site."""
    kept = cookie.copy()
    kept["path"] = path
    page.context.add_cookies([kept])  # type: ignore[list-item]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_a_log_in_after_the_change_is_the_last_one(
    page: Page, urls: Urls, someone: Person, before: str, after: str
) -> None:
    log_in(page, urls[before], someone)
    (old,) = session_cookies(page)
    assert old["domain"] == DOMAINS[before]
    page.goto(f"{urls[after]}/account")
    sees_heading(page, "Your account")  # the change logs nobody out
    log_out(page)
    sees_notice(page, "You are logged out.")
    assert domains(page) == []

    keep(page, old)
    log_in(page, urls[after], someone)
    assert domains(page) == [DOMAINS[after]], "the old cookie is gone"
    page.reload()
    sees_heading(page, "Your account")


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_two_cookies_do_not_keep_their_owner_out(
    page: Page, urls: Urls, someone: Person, before: str, after: str
) -> None:
    """Of a version before, which expired the cookie in one scope only."""
    log_in(page, urls[before], someone)
    (old,) = session_cookies(page)
    page.context.clear_cookies()
    log_in(page, urls[after], someone)
    keep(page, old)
    assert len(session_cookies(page)) == 2
    for path, heading in (("/account", "Your account"), ("/login", f"Hello, {someone.name}")):
        page.goto(f"{urls[after]}{path}")
        sees_heading(page, heading)
    log_out(page)
    assert domains(page) == []
    page.goto(f"{urls[before]}/account")
    sees_heading(page, "Log in")
    keep(page, old)
    page.goto(f"{urls[before]}/account")
    sees_heading(page, "Log in")  # its session ended, too


def test_a_cookie_of_another_path_does_not_keep_its_owner_out(
    page: Page, urls: Urls, someone: Person
) -> None:
    log_in(page, urls["host"], someone)
    (old,) = session_cookies(page)
    page.context.clear_cookies()
    keep(page, old, "/account")
    log_in(page, urls["host"], someone)
    assert len(session_cookies(page)) == 2
    page.goto(f"{urls['host']}/account/sessions")
    sees_heading(page, "Where you are signed in")


def test_a_session_that_a_neighbour_planted_is_never_used_and_keeps_nobody_out(
    page: Page, browser: Browser, site: Site, urls: Urls, someone: Person
) -> None:
    """Whoever has another host of the domain can plant their own session, for one path too."""
    mallory = site.add(Person(f"mallory+{someone.email}", someone.password, "Mallory"))
    window = open_window(browser, site, DESKTOP)
    log_in(theirs := window.new_page(), urls["domain"], mallory)
    (planted,) = session_cookies(theirs)
    window.close()

    log_in(page, urls["host"], someone)
    keep(page, planted, "/account")
    page.goto(f"{urls['host']}/account")
    sees_heading(page, "Log in")
    assert domains(page) == [], "nobody can tell which one is theirs"
    fill_log_in(page, someone)
    sees_heading(page, "Your account")
    page.goto(f"{urls['host']}/")
    sees_heading(page, f"Hello, {someone.name}")
