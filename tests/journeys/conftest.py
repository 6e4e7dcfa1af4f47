"""People with browsers: real Chromium against a really served site."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    StorageStateCookie,
    WebError,
    expect,
    sync_playwright,
)

from authapp import dev
from tests.journeys.site import WORKERS, Person, Site, a_person, served
from tests.support.databases import add_migrated_database
from tests.support.settings import UNLIMITED, environment_for
from tests.support.smtp import MailServer, mail_server

# the first has the same engine without the windows of a browser, for less than half the time
CHROMIUM_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
DOMAIN = "example.test"  # its hosts are this machine, for cookies that several hosts share
FEATURES_OFF = (
    # for each window Chromium would start a process more, with pages of its address bar
    "PreloadTopChromeWebUI",
    "WebUIOmniboxPopup",
    "WebUIOmniboxAimPopup",
    "WebUIOmniboxFullPopup",
    "SpareRendererForSitePerProcess",  # and another for a page that may come
    # those that Playwright names in the same option, which is not added up
    "AimEnabled",
    "AvoidCorsURLLoaderRestartOnRedirect",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsFirstBalancedModeAutoEnable",
    "HttpsUpgrades",
    "LensOverlay",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
)
CHROMIUM_OPTIONS = (
    f"--disable-features={','.join(FEATURES_OFF)}",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    # nothing but this machine exists
    f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1, MAP * ~NOTFOUND,"
    " EXCLUDE 127.0.0.1, EXCLUDE localhost",
)
PATIENCE = 15_000  # ms; a slow machine with busy cores

expect.set_options(timeout=PATIENCE)


@dataclass(frozen=True)
class Device:
    name: str
    width: int
    height: int
    is_phone: bool


PHONE = Device("phone", 390, 844, is_phone=True)
DESKTOP = Device("desktop", 1280, 800, is_phone=False)


@pytest.fixture(scope="module")
def mailbox() -> Iterator[MailServer]:
    """A mail server for sites that mail."""
    with mail_server() as server:
        yield server


@pytest.fixture(scope="session")
def site(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The product as it is served, on a database of its own."""
    url = add_migrated_database(postgres.url, "journeys")
    environment = environment_for(
        url,
        valkey.url,
        SECRET_KEY="a secret that only the journeys know",
        SESSION_COOKIE_SECURE="0",  # http, as in embedded mode
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,  # all visitors have one address
        WEB_CONCURRENCY=str(WORKERS),
    )
    with served(environment, tmp_path_factory.mktemp("journeys") / f"{served_by}.log") as running:
        yield running


@pytest.fixture(scope="session")
def admin(site: Site) -> Person:
    return site.add_admin(a_person("Grace Hopper", email="grace@example.org"))


def chromium_program() -> str:
    """Skips without it, and says how not to."""
    program = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if program is None:
        pytest.skip("NO BROWSER, so nothing shows that the pages work: apt-get install chromium")
    return program


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium; Playwright's own download is not needed."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium_program(),
            args=CHROMIUM_OPTIONS,
            # so that the back button works as it does for people
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield running
        running.close()


class Watch:
    """Notes what people don't see but suffer from: console errors, refusals by the content policy,
    requests that leave the site, parts of a page that are missing, answers of 500 and above.
    """

    def __init__(self, origin: str) -> None:
        self.problems: list[str] = []
        self._origin = origin

    def attach(self, context: BrowserContext) -> None:
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        context.on("request", self._on_request)
        context.on("requestfailed", self._on_failure)
        context.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        # of every answer from 400 on, which may be meant; _on_response judges those
        is_status = message.text.startswith("Failed to load resource: the server responded")
        if message.type in {"error", "warning"} and not is_status:
            self.problems.append(f"console: {message.text}")

    def _on_error(self, error: WebError) -> None:
        self.problems.append(f"error: {error.error}")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self._origin}/", "data:")):
            self.problems.append(f"leaves the site: {request.url}")

    def _on_failure(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # somebody went elsewhere before it was there
            self.problems.append(f"{request.failure}: {request.url}")

    def _on_response(self, response: Response) -> None:
        is_page = response.request.is_navigation_request()
        if response.status >= 500 or (response.status >= 400 and not is_page):
            self.problems.append(f"{response.status}: {response.url}")


class NewVisitor(Protocol):
    def __call__(
        self,
        who: Person | None = None,
        *,
        cookies: list[StorageStateCookie] | None = None,
        user_agent: str | None = None,
    ) -> Page: ...


class Addressed(Protocol):
    """A site for the browser. Its address has no slash at the end."""

    @property
    def url(self) -> str: ...


def open_window(
    browser: Browser,
    site: Addressed,
    device: Device,
    *,
    scripts: bool = True,
    cookies: list[StorageStateCookie] | None = None,
    user_agent: str | None = None,
    sharp: bool = False,
    zone: str | None = None,
) -> BrowserContext:
    """A browser nobody used before, with the cookies it kept, if any; sharp as a phone's screen."""
    context = browser.new_context(
        base_url=site.url,
        viewport={"width": device.width, "height": device.height},
        device_scale_factor=1.5 if sharp else 1,
        is_mobile=device.is_phone,
        has_touch=device.is_phone,
        java_script_enabled=scripts,
        reduced_motion="reduce",  # what is looked at stands still
        user_agent=user_agent,
        timezone_id=zone,
        storage_state={"cookies": cookies} if cookies else None,
    )
    context.set_default_timeout(PATIENCE)
    return context


# for what looks the same in every window, and is only slower to try in all of them
once = pytest.mark.parametrize(
    ("device", "scripts"), [(PHONE, False)], indirect=True, ids=["phone-no-scripts"]
)

# for pages that may differ with the device, or with scripts, but not with both together
twice = pytest.mark.parametrize(
    ("device", "scripts"),
    [(PHONE, False), (DESKTOP, True)],
    indirect=True,
    ids=["phone-no-scripts", "desktop-scripts"],
)


@pytest.fixture(params=[PHONE, DESKTOP], ids=lambda device: device.name)
def device(request: pytest.FixtureRequest) -> Device:
    chosen: Device = request.param
    return chosen


@pytest.fixture(params=[True, False], ids=["scripts", "no-scripts"])
def scripts(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


@pytest.fixture
def watch(site: Site) -> Iterator[Watch]:
    seen = Watch(site.url)
    yield seen
    assert seen.problems == []


@pytest.fixture
def new_visitor(
    browser: Browser, site: Site, device: Device, scripts: bool, watch: Watch
) -> Iterator[NewVisitor]:
    """Opens a page in a new browser, as somebody's other device is, signed in as `who`.

    All of them are watched.
    """
    contexts: list[BrowserContext] = []

    def open_page(
        who: Person | None = None,
        *,
        cookies: list[StorageStateCookie] | None = None,
        user_agent: str | None = None,
    ) -> Page:
        if who:
            cookies = [site.cookie_of(who)]
        context = open_window(
            browser, site, device, scripts=scripts, cookies=cookies, user_agent=user_agent
        )
        contexts.append(context)
        watch.attach(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(new_visitor: Callable[[], Page]) -> Page:
    return new_visitor()


@pytest.fixture
def someone(site: Site) -> Person:
    """Has signed up already."""
    return site.add(a_person())


@pytest.fixture(scope="session")
def picture_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pictures of the pages go; SCREENSHOTS=docs/screenshots renews those in the docs."""
    chosen = os.environ.get("SCREENSHOTS")
    return Path(chosen) if chosen else tmp_path_factory.mktemp("screenshots")
