"""Passkeys in real Chromium, with virtual authenticators: made, used, refused, removed."""

import base64
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from authapp import dev
from tests.journeys.acts import fill_log_in, log_out, sees_heading, sees_notice
from tests.journeys.authenticators import VirtualAuthenticator
from tests.journeys.conftest import DESKTOP, PATIENCE, PHONE, Watch, open_window
from tests.journeys.site import Person, Site, a_person, served
from tests.journeys.test_accessibility import Auditor
from tests.journeys.test_keyboard import tab_to
from tests.support.authenticator import Authenticator
from tests.support.databases import add_migrated_database
from tests.support.settings import UNLIMITED, environment_for


class LocalSite(Site):
    """A site under the name of this machine, for which browsers keep passkeys over plain http."""

    @property
    def url(self) -> str:
        return f"http://localhost:{self.instance.port}"


@pytest.fixture(scope="module")
def database_url(postgres: dev.PostgreSQL) -> str:
    return add_migrated_database(postgres.url, "passkey_journeys")


@pytest.fixture(scope="module")
def site(
    served_by: str,
    database_url: str,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    environment = environment_for(
        database_url,
        valkey.url,
        SECRET_KEY="a secret that only the journeys with passkeys know",
        SESSION_COOKIE_SECURE="0",
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        PUBLIC_URL="http://localhost:{port}",
        REVALIDATE_SECONDS="1",  # what is changed in SQL shows soon
    )
    log = tmp_path_factory.mktemp("passkeys") / f"{served_by}.log"
    with served(environment, log) as running:
        yield LocalSite(running.instance, running.environment)


NewPage = Callable[[], Page]


@pytest.fixture
def new_page(browser: Browser, site: Site, watch: Watch) -> Iterator[NewPage]:
    """Opens a browser that nobody used before."""
    contexts: list[BrowserContext] = []

    def open_page() -> Page:
        context = open_window(browser, site, DESKTOP)
        contexts.append(context)
        watch.attach(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def ada(site: Site) -> Person:
    return site.add(a_person())


@pytest.fixture
def page(new_page: NewPage, site: Site, ada: Person) -> Page:
    """Ada's, who is signed in."""
    page = new_page()
    page.context.add_cookies([site.cookie_of(ada)])  # type: ignore[list-item]
    return page


def add_passkey(page: Page, name: str = "") -> None:
    page.goto("/account/security")
    page.get_by_role("link", name="Add a passkey").click()
    sees_heading(page, "Add a passkey")
    page.get_by_label("Name (optional)").fill(name)
    page.get_by_role("button", name="Create the passkey").click()


def sees_recovery_codes(page: Page) -> None:
    sees_heading(page, "Your recovery codes")


def log_in_by_autofill(page: Page, person: Person) -> None:
    """The virtual authenticator chooses the passkey that the field of the email offers."""
    page.goto("/login")
    sees_heading(page, f"Hello, {person.name}")


def test_a_passkey_is_made_used_and_removed(page: Page, ada: Person) -> None:
    device = VirtualAuthenticator(page)
    add_passkey(page, "My laptop")
    sees_recovery_codes(page)
    [made] = device.passkeys
    assert made["rpId"] == "localhost"
    assert made["userName"] == ada.email
    assert len(base64.b64decode(made["userHandle"])) == 64
    page.goto("/account/security")
    expect(page.get_by_role("heading", name="My laptop")).to_be_visible()
    log_out(page)

    log_in_by_autofill(page, ada)
    page.goto("/account/security")
    expect(page.get_by_text("Last used")).to_be_visible()

    page.get_by_role("link", name="Rename My laptop").click()
    page.get_by_label("Name (optional)").fill("Old laptop")
    page.get_by_role("button", name="Save").click()
    sees_notice(page, "The name was saved.")

    page.get_by_role("link", name="Remove Old laptop").click()
    sees_heading(page, "Remove this passkey?")
    page.get_by_role("button", name="Remove").click()
    sees_notice(page, "The passkey was removed, and your other devices were signed out.")
    expect(page.get_by_role("heading", name="Old laptop")).to_have_count(0)
    page.wait_for_function("() => document.readyState === 'complete'")
    wait_for(page, lambda: device.passkeys == [])  # the browser was told that it is gone


def wait_for(page: Page, condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        page.wait_for_timeout(PATIENCE / 100)
    raise AssertionError("it did not come")


def test_a_button_logs_in_where_the_field_offers_nothing(page: Page, ada: Person) -> None:
    """The request of the field is ended first: browsers refuse two at once."""
    device = VirtualAuthenticator(page)
    add_passkey(page)
    sees_recovery_codes(page)
    log_out(page)
    device.answer(at_once=False)  # else the field would have logged in
    with page.expect_response("**/login/passkey/options"):
        page.goto("/login?next=/account")
    button = page.get_by_role("button", name="Use a passkey")
    expect(button).to_be_visible()
    page.get_by_label("Keep me signed in on this device").check()
    page.wait_for_timeout(500)  # the field waits for the authenticator, and goes on to wait
    device.answer(at_once=True)
    button.click()
    sees_heading(page, "Your account")
    [cookie] = [c for c in page.context.cookies() if c["name"] == "SESSION-TOKEN"]
    assert cookie["expires"] > 0


def test_the_password_asks_for_the_passkey_as_a_second_factor(page: Page, ada: Person) -> None:
    device = VirtualAuthenticator(page)
    add_passkey(page)
    sees_recovery_codes(page)
    log_out(page)
    device.answer(at_once=False)
    page.goto("/login")
    fill_log_in(page, ada)
    sees_heading(page, "One more step")
    device.answer(at_once=True)
    page.get_by_role("button", name="Use a passkey").click()
    sees_heading(page, f"Hello, {ada.name}")


def test_a_passkey_is_a_fresh_proof(page: Page, ada: Person, database_url: str) -> None:
    device = VirtualAuthenticator(page)
    add_passkey(page)
    sees_recovery_codes(page)
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "UPDATE authapp_data.sessions SET proved_at = now() - interval '1 hour',"
            " created_at = now() - interval '1 hour'"
        )
    page.wait_for_timeout(1_500)  # the copy of the session is looked at once a second
    page.goto("/account/passkeys/add")
    sees_heading(page, "Confirm that it is you")
    expect(page.get_by_label("Password")).to_have_count(0)
    page.get_by_role("button", name="Use a passkey").click()
    sees_heading(page, "Add a passkey")
    assert len(device.passkeys) == 1


# -- refused ---------------------------------------------------------------------------------------


def sign(page: Page, site: Site, **changed: str) -> dict[str, Any]:
    """The answer of the authenticator of this page to options of the site, which are changed."""
    asked = page.context.request.post(f"{site.url}/api/v1/passkeys/options").json() | changed
    found: dict[str, Any] = page.evaluate(
        """async (json) => {
          const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(json);
          return (await navigator.credentials.get({publicKey})).toJSON();
        }""",
        asked,
    )
    return found


def status_of(page: Page, site: Site, credential: dict[str, Any]) -> int:
    """The status of a log-in by this answer."""
    url = f"{site.url}/api/v1/passkeys/login"
    return page.context.request.post(url, data={"credential": credential}).status


@pytest.fixture
def device(page: Page, ada: Person) -> VirtualAuthenticator:
    """Ada's device, which has made a passkey."""
    device = VirtualAuthenticator(page)
    add_passkey(page)
    sees_recovery_codes(page)
    log_out(page)
    return device


def test_a_device_that_verifies_nobody_is_refused(
    page: Page, site: Site, device: VirtualAuthenticator
) -> None:
    """A browser that is not asked to verify the person says so, and the server looks."""
    device.verify(succeeds=False)
    unverified = sign(page, site, userVerification="discouraged")
    assert status_of(page, site, unverified) == 401
    device.verify(succeeds=True)
    assert status_of(page, site, sign(page, site)) == 200


def test_another_origin_is_refused(
    page: Page, site: Site, new_page: NewPage, browser: Browser, device: VirtualAuthenticator
) -> None:
    """Browsers let each port of a host use its passkeys, and say which it was."""
    with another_site() as url, browser.new_context() as elsewhere:
        other = elsewhere.new_page()
        phished = VirtualAuthenticator(other)
        phished.keep(device.passkeys[0])
        other.goto(url)
        assert status_of(other, site, sign(other, site)) == 401
        other.goto(f"{site.url}/logout")
        assert status_of(other, site, sign(other, site)) == 200


@contextmanager
def another_site() -> Iterator[str]:
    """An empty page on another port of this machine."""

    class EmptyPage(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Another site</title>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_a_counter_that_falls_is_refused_and_recorded(
    page: Page, site: Site, browser: Browser, ada: Person, device: VirtualAuthenticator
) -> None:
    copy = device.passkeys[0]
    log_in_by_autofill(page, ada)
    page.goto("/account/security")
    with browser.new_context() as elsewhere:  # of a thief, who has a copy of the key
        thief = elsewhere.new_page()
        stolen = VirtualAuthenticator(thief)
        stolen.keep(copy)
        thief.goto(f"{site.url}/logout")
        assert status_of(thief, site, sign(thief, site)) == 401
    page.reload()
    expect(page.get_by_text("May be copied")).to_be_visible()


def test_a_synced_passkey_is_fine(page: Page, ada: Person, new_page: NewPage) -> None:
    phone = VirtualAuthenticator(page, is_synced=True)
    add_passkey(page)
    sees_recovery_codes(page)
    page.goto("/account/security")
    expect(page.get_by_text("Synced")).to_be_visible()
    for _ in range(2):
        log_out(page)
        log_in_by_autofill(page, ada)
    elsewhere = new_page()
    VirtualAuthenticator(elsewhere, is_synced=True).keep(phone.passkeys[0])
    log_in_by_autofill(elsewhere, ada)


def test_an_unknown_passkey_is_forgotten_by_the_browser(
    page: Page, ada: Person, database_url: str, device: VirtualAuthenticator
) -> None:
    """It is told that the passkey is of no use, and stops offering it."""
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM authapp_data.passkeys USING authapp_data.users"
            " WHERE users.id = user_id AND email = %s",
            [ada.email],
        )
    page.goto("/login")
    expect(page.get_by_role("alert").first).to_contain_text("We don't know this passkey")
    wait_for(page, lambda: device.passkeys == [])


def test_who_cancels_may_try_again(page: Page, ada: Person, device: VirtualAuthenticator) -> None:
    device.forget(device.passkeys[0])
    page.goto("/login")
    page.get_by_role("button", name="Use a passkey").click()
    expect(page.get_by_role("alert")).to_contain_text("No passkey was used.")
    expect(page.get_by_role("button", name="Use a passkey")).to_be_focused()
    fill_log_in(page, ada)


def test_at_an_address_that_browsers_keep_no_passkeys_for(
    browser: Browser, site: Site, ada: Person
) -> None:
    """The form is not shown, because it can't work there, and the page says where it does."""
    page = open_window(browser, site, DESKTOP).new_page()  # two origins, so nobody watches
    address = f"http://127.0.0.1:{site.instance.port}"
    page.goto(f"{address}/login")
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    expect(page.get_by_role("button", name="Use a passkey")).to_be_hidden()
    fill_log_in(page, ada)
    sees_heading(page, f"Hello, {ada.name}")
    page.goto(f"{address}/account/passkeys/add")
    expect(page.get_by_role("button", name="Create the passkey")).to_be_hidden()
    page.get_by_role("link", name=site.url).click()
    expect(page).to_have_url(f"{site.url}/login?next=/account/passkeys/add")
    fill_log_in(page, ada)
    sees_heading(page, "Add a passkey")
    expect(page.get_by_role("button", name="Create the passkey")).to_be_visible()
    page.context.close()


def test_a_device_makes_no_second_passkey(page: Page, ada: Person) -> None:
    VirtualAuthenticator(page)
    add_passkey(page)
    sees_recovery_codes(page)
    add_passkey(page)
    expect(page.get_by_role("alert")).to_contain_text("This device has a passkey of yours already.")


# -- for everybody ---------------------------------------------------------------------------------


def test_the_pages_are_clean_for_everybody(browser: Browser, site: Site, ada: Person) -> None:
    """As `test_accessibility.py`, with passkeys beside an authenticator app."""
    auditor = Auditor()
    page = open_window(browser, site, PHONE, cookies=[site.cookie_of(ada)]).new_page()
    device = VirtualAuthenticator(page)

    def look(path: str, heading: str) -> None:
        page.goto(path)
        auditor.audit(page, path, heading)

    look("/account/passkeys/add", "Add a passkey")
    page.get_by_label("Name (optional)").fill("A name as long as people may give one " * 2)
    page.get_by_role("button", name="Create the passkey").click()
    auditor.audit(page, "recovery codes", "Your recovery codes")
    look("/account/passkeys/add", "Add a passkey")
    page.get_by_role("button", name="Create the passkey").click()
    expect(page.get_by_role("alert")).to_be_visible()
    auditor.audit(page, "a passkey that is there already", "Add a passkey")
    app = set_up_app(page, auditor)
    look("/account/security", "Security")
    page.get_by_role("link", name=re.compile("^Rename ")).click()
    auditor.audit(page, "the name of a passkey", "Rename a passkey")
    page.get_by_label("Name (optional)").fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert").first).to_be_visible()
    auditor.audit(page, "a passkey without a name", "Rename a passkey")
    page.goto("/account/security")
    page.get_by_role("link", name=re.compile("^Remove A name")).click()
    auditor.audit(page, "a question", "Remove this passkey?")
    look("/account/confirm", "Confirm that it is you")
    page.get_by_role("link", name="Use a recovery code").click()
    auditor.audit(page, "a recovery code as proof", "Confirm that it is you")
    log_out(page)

    device.answer(at_once=False)
    look("/login", "Log in")
    fill_log_in(page, ada)
    auditor.audit(page, "second factor", "One more step")
    page.get_by_label("Code").fill("000000" if app.code(datetime.now(UTC)) != "000000" else "1")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    auditor.audit(page, "second factor refused", "One more step")
    page.get_by_role("link", name="Use a recovery code").click()
    auditor.audit(page, "recovery code", "One more step")
    page.context.close()
    assert auditor.faults == []


def set_up_app(page: Page, auditor: Auditor) -> Authenticator:
    page.goto("/account/security/totp")
    auditor.audit(page, "the QR code", "Set up an authenticator app")
    secret = page.locator("code.key").inner_text().replace(" ", "")
    app = Authenticator(secret)
    page.get_by_role("textbox", name="Code").fill(app.code(datetime.now(UTC)))
    page.get_by_role("button", name="Confirm").click()
    sees_heading(page, "Security")
    return app


def test_passkeys_need_no_mouse(page: Page, ada: Person) -> None:
    device = VirtualAuthenticator(page)
    page.goto("/account/passkeys/add")
    page.get_by_label("Name (optional)").focus()
    page.keyboard.type("My keyboard")
    tab_to(page, page.get_by_role("button", name="Create the passkey"))
    page.keyboard.press("Enter")
    sees_recovery_codes(page)
    log_out(page)
    device.answer(at_once=False)  # else the field would have logged in
    page.goto("/login")
    page.get_by_role("button", name="Log in").focus()
    tab_to(page, page.get_by_role("button", name="Use a passkey"))
    device.answer(at_once=True)
    page.keyboard.press("Enter")
    sees_heading(page, f"Hello, {ada.name}")
    page.goto("/account/security")
    page.get_by_role("link", name="Rename My keyboard").focus()
    tab_to(page, page.get_by_role("link", name="Remove My keyboard"))
    tab_to(page, page.get_by_role("link", name="Add a passkey"))
