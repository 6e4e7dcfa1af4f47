"""Accounts without a password in real Chromium: signed up for, and made of older ones."""

import subprocess
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from authapp import dev
from tests.journeys.acts import fill_log_in, log_in, log_out, sees_heading, sees_notice
from tests.journeys.authenticators import VirtualAuthenticator
from tests.journeys.conftest import DESKTOP, PHONE, Device, Watch, open_window
from tests.journeys.site import Person, Site, a_person, served
from tests.journeys.test_accessibility import Auditor
from tests.journeys.test_keyboard import tab_to
from tests.journeys.test_passkeys import (
    LocalSite,
    add_passkey,
    log_in_by_autofill,
    sees_recovery_codes,
)
from tests.support.databases import add_migrated_database
from tests.support.instances import FLASK, ROOT, START_SECONDS
from tests.support.settings import UNLIMITED, environment_for
from tests.support.smtp import MailServer

NEW = "nine loud kettles sing today"
BUTTON = "Sign up with a passkey"


@pytest.fixture(scope="module")
def site(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    mailbox: MailServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """It confirms addresses, but those of invitations that were mailed."""
    environment = environment_for(
        add_migrated_database(postgres.url, "passwordless"),
        valkey.url,
        **mailbox.settings(PUBLIC_URL="http://localhost:{port}"),
        SECRET_KEY="a secret that only people without a password know",
        SESSION_COOKIE_SECURE="0",
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
    )
    log = tmp_path_factory.mktemp("passwordless") / f"{served_by}.log"
    with served(environment, log) as running:
        yield LocalSite(running.instance, running.environment)


@pytest.fixture
def page(device: Device, browser: Browser, site: Site, watch: Watch) -> Iterator[Page]:
    context = open_window(browser, site, device)
    watch.attach(context)
    yield context.new_page()
    context.close()


@pytest.fixture
def auditor() -> Auditor:
    return Auditor()


phone = pytest.mark.parametrize("device", [PHONE], indirect=True, ids=["phone"])
desktop = pytest.mark.parametrize("device", [DESKTOP], indirect=True, ids=["desktop"])


def sign_up_with_passkey(page: Page, person: Person) -> None:
    sees_heading(page, "Create your account")
    page.get_by_label("Email").fill(person.email)
    page.get_by_label("Name (optional)").fill(person.name)
    page.get_by_role("button", name=BUTTON).click()


def link_to(mailbox: MailServer, person: Person, site: Site) -> str:
    """The path of the link in the newest mail to this person."""
    link = mailbox.wait_for(person.email).link
    assert link.startswith(site.url)
    return link.removeprefix(site.url)


@phone
def test_sign_up_confirm_and_log_in(
    page: Page, site: Site, mailbox: MailServer, auditor: Auditor
) -> None:
    keys, ada = VirtualAuthenticator(page), a_person()
    page.goto("/signup?next=/account")
    auditor.audit(page, "sign-up with a passkey", "Create your account")
    sign_up_with_passkey(page, ada)
    sees_heading(page, "Confirm your email")
    [made] = keys.passkeys
    assert (made["rpId"], made["userName"]) == ("localhost", ada.email)
    page.goto(link_to(mailbox, ada, site))
    page.get_by_role("button", name="Confirm email").click()
    sees_recovery_codes(page)
    auditor.audit(page, "recovery codes", "Your recovery codes")
    expect(page.locator(".codes code")).to_have_count(10)
    page.get_by_role("link", name="I have kept them").click()
    # the field of the email has offered the passkey, and what was wanted before is not forgotten
    sees_heading(page, "Your account")
    page.goto("/account/security")
    expect(page.get_by_text("You log in with a passkey.")).to_be_visible()
    auditor.audit(page, "security without a password", "Security")
    assert auditor.faults == []


@desktop
def test_an_invited_person_signs_up_at_once(page: Page, site: Site, mailbox: MailServer) -> None:
    VirtualAuthenticator(page)
    grace = a_person("Grace Hopper")
    subprocess.run(
        [*FLASK, "auth", "invitations", "create", grace.email],
        env=dict(site.environment),
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=START_SECONDS,
    )
    page.goto(link_to(mailbox, grace, site))
    sign_up_with_passkey(page, grace)
    sees_recovery_codes(page)
    sees_notice(page, "Welcome. Your account is ready, and you are logged in.")
    page.get_by_role("link", name="I have kept them").click()
    sees_heading(page, f"Hello, {grace.name}")


@desktop
def test_what_is_wrong_is_said_before_a_passkey_is_made(page: Page) -> None:
    keys = VirtualAuthenticator(page)
    page.goto("/signup")
    page.get_by_label("Email").fill("ada")
    page.get_by_role("button", name=BUTTON).click()
    expect(page.get_by_label("Email")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Email")).to_have_value("ada")
    assert keys.passkeys == []
    keys.answer(at_once=True)
    keys.verify(succeeds=False)
    page.get_by_label("Email").fill("ada@example.org")
    page.get_by_role("button", name=BUTTON).click()
    expect(page.get_by_role("alert").last).to_contain_text("No passkey was made.")
    expect(page.get_by_role("button", name=BUTTON)).to_be_focused()


@desktop
def test_without_the_script_there_is_the_password(browser: Browser, site: Site, page: Page) -> None:
    context = open_window(browser, site, DESKTOP, scripts=False)
    plain = context.new_page()
    plain.goto("/signup")
    expect(plain.get_by_role("button", name="Create account")).to_be_visible()
    expect(plain.get_by_role("button", name=BUTTON)).to_be_hidden()
    context.close()
    page.goto("/signup")
    expect(page.get_by_role("button", name=BUTTON)).to_be_visible()


@desktop
def test_by_keyboard_alone(page: Page) -> None:
    VirtualAuthenticator(page)
    page.goto("/signup")
    page.get_by_label("Email").focus()
    page.keyboard.type(a_person().email)
    tab_to(page, page.get_by_label("Name (optional)"))
    tab_to(page, page.get_by_label("Password"))
    tab_to(page, page.get_by_role("button", name="Show password"))
    tab_to(page, page.get_by_role("button", name="Create account"))
    tab_to(page, page.get_by_role("button", name=BUTTON))
    page.keyboard.press("Enter")
    sees_heading(page, "Confirm your email")


@phone
def test_a_password_is_removed_and_set_again(page: Page, site: Site, auditor: Auditor) -> None:
    ada = site.add_admin(a_person())
    log_in(page, ada)
    VirtualAuthenticator(page)
    add_passkey(page, "My laptop")
    sees_recovery_codes(page)
    page.goto("/account/security")
    auditor.audit(page, "security that could do without a password", "Security")
    page.get_by_role("link", name="Remove your password").click()
    auditor.audit(page, "removal of the password", "Remove your password?")
    page.get_by_role("button", name="Remove it").click()
    sees_notice(
        page,
        "Your password was removed: log in with a passkey from now on. Your other devices were "
        "signed out.",
    )
    page.get_by_role("link", name="Remove My laptop").click()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("alert")).to_contain_text("Nobody could log in")
    log_out(page)
    log_in_by_autofill(page, ada)
    page.goto("/account/security")
    page.get_by_role("link", name="Set a password").click()
    auditor.audit(page, "a first password", "Set a password")
    page.get_by_role("button", name="Set a password").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Password", exact=True).fill(NEW)
    page.get_by_role("button", name="Set a password").click()
    sees_notice(page, "Your password is set, and your other devices were signed out.")
    assert auditor.faults == []


@desktop
def test_a_removed_password_logs_nobody_in(page: Page, site: Site) -> None:
    ada = site.add_admin(a_person())
    log_in(page, ada)
    keys = VirtualAuthenticator(page)
    add_passkey(page)
    sees_recovery_codes(page)
    page.goto("/account/security/password/remove")
    page.get_by_role("button", name="Remove it").click()
    sees_heading(page, "Security")
    keys.answer(at_once=False)
    log_out(page)
    page.goto("/login")
    fill_log_in(page, ada)
    expect(page.get_by_role("alert").first).to_contain_text("Email or password is not right.")
