"""The pictures of the main pages in docs/screenshots/, which stay small.

They are taken at every run, so that taking them works, and kept where SCREENSHOTS says:
`make test ARGS=tests/journeys/test_screenshots.py SCREENSHOTS=docs/screenshots`
"""

from pathlib import Path

from playwright.sync_api import Browser, Page, StorageStateCookie, expect

from tests.journeys.acts import fill_log_in, sees_heading
from tests.journeys.conftest import DESKTOP, PHONE, Device, open_window
from tests.journeys.site import Person, Site, a_person

MAX_BYTES = 150_000
FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
SAFARI = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"
)
CHROMIUM = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36"
)
NEIGHBOURS = ("Katherine Johnson", "Dorothy Vaughan", "Mary Jackson")


class Camera:
    def __init__(self, browser: Browser, site: Site, directory: Path) -> None:
        self._browser = browser
        self._site = site
        self._directory = directory

    def open(self, device: Device, cookies: list[StorageStateCookie] | None = None) -> Page:
        context = open_window(
            self._browser, self._site, device, cookies=cookies, sharp=device.is_phone
        )
        return context.new_page()

    def take(self, page: Page, name: str, heading: str) -> None:
        sees_heading(page, heading)
        path = self._directory / f"{name}.png"
        page.screenshot(path=path, animations="disabled", caret="hide")
        assert path.stat().st_size <= MAX_BYTES, path


def test_pictures(browser: Browser, site: Site, admin: Person, picture_dir: Path) -> None:
    ada, *_ = [
        site.add(a_person(name, email=f"{name.partition(' ')[0].lower()}@example.org"))
        for name in ("Ada Lovelace", *NEIGHBOURS)
    ]
    for agent in (FIREFOX, SAFARI):
        site.cookie_of(ada, agent)
    camera = Camera(browser, site, picture_dir)

    page = camera.open(DESKTOP)
    page.goto("/")
    camera.take(page, "home", "One account, and you stay signed in")
    page.goto("/signup")
    camera.take(page, "signup", "Create your account")
    page.goto("/login")
    camera.take(page, "login", "Log in")
    fill_log_in(page, ada, password="not the right one")
    expect(page.get_by_role("alert")).to_be_visible()
    camera.take(page, "login-error", "Log in")
    page.context.close()

    cookies = [site.cookie_of(ada, CHROMIUM)]
    page = camera.open(DESKTOP, cookies)
    page.goto("/account")
    camera.take(page, "account", "Your account")
    page.goto("/account/sessions")
    camera.take(page, "sessions", "Where you are signed in")
    page.context.close()
    page = camera.open(PHONE, cookies)
    page.goto("/account/security")
    camera.take(page, "security-phone", "Security")
    page.goto("/account/sessions")
    camera.take(page, "sessions-phone", "Where you are signed in")
    page.context.close()

    page = camera.open(DESKTOP, [site.cookie_of(admin, CHROMIUM)])
    page.goto("/admin/users")
    camera.take(page, "users", "Users")
    page.context.close()
