"""A person forgets the password, and reads the mail of a real mail server."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from authapp import dev
from tests.journeys.acts import log_in, sees_heading, sees_notice
from tests.journeys.conftest import PHONE, NewVisitor, twice
from tests.journeys.site import WORKERS, Person, Site, served
from tests.journeys.test_accessibility import Auditor
from tests.support.databases import add_migrated_database
from tests.support.settings import UNLIMITED, environment_for
from tests.support.smtp import MailServer, Received

NEW = "eleven brass clocks tick on"
LINK_BEGINS = "https://auth.example.org"


@pytest.fixture(scope="module")
def site(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    mailbox: MailServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    environment = environment_for(
        add_migrated_database(postgres.url, "forgotten"),
        valkey.url,
        **mailbox.settings(EMAIL_VERIFICATION="off", PUBLIC_URL=LINK_BEGINS),
        SECRET_KEY="a secret that only forgetful people know",
        SESSION_COOKIE_SECURE="0",
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
        WEB_CONCURRENCY=str(WORKERS),
    )
    with served(environment, tmp_path_factory.mktemp("forgotten") / f"{served_by}.log") as running:
        yield running


def ask_for_a_link(page: Page, person: Person) -> None:
    page.goto("/login")
    page.get_by_role("link", name="Forgot your password?").click()
    sees_heading(page, "Forgot your password?")
    page.get_by_label("Email").fill(person.email)
    page.get_by_role("button", name="Send the link").click()
    sees_heading(page, "Look at your mail")


def open_link(page: Page, site: Site, mail: Received) -> None:
    assert mail.link.startswith(f"{LINK_BEGINS}/reset?token=")
    assert mail.link in mail.html
    page.goto(mail.link.removeprefix(LINK_BEGINS))
    sees_heading(page, "Choose a new password")
    assert page.url == f"{site.url}/reset", "the token left the address bar"


def choose(page: Page, password: str) -> None:
    page.get_by_label("New password").fill(password)
    page.get_by_role("button", name="Set the new password").click()


@twice
def test_the_whole_way(
    new_visitor: NewVisitor, site: Site, mailbox: MailServer, someone: Person
) -> None:
    elsewhere = new_visitor(someone)
    page = new_visitor()
    ask_for_a_link(page, someone)
    open_link(page, site, mailbox.wait_for(someone.email))
    choose(page, "short")
    expect(page.get_by_role("alert")).to_contain_text("at least 15 characters")
    choose(page, NEW)
    sees_notice(page, "Your new password is set. Log in with it; you were signed out everywhere.")
    elsewhere.goto("/account")
    sees_notice(elsewhere, "You were signed out because your password was changed.")
    log_in(page, Person(someone.email, NEW, someone.name))
    assert "was changed" in mailbox.wait_for(someone.email, 2).text


@twice
def test_a_link_that_was_used(
    new_visitor: NewVisitor, site: Site, mailbox: MailServer, someone: Person
) -> None:
    page = new_visitor()
    ask_for_a_link(page, someone)
    mail = mailbox.wait_for(someone.email)
    open_link(page, site, mail)
    choose(page, NEW)
    sees_heading(page, "Log in")
    late = new_visitor()
    late.goto(mail.link.removeprefix(LINK_BEGINS))
    sees_heading(late, "This link does not count")
    late.get_by_role("link", name="Ask for a new link").click()
    sees_heading(late, "Forgot your password?")


@pytest.mark.parametrize(
    ("device", "scripts"), [(PHONE, True)], indirect=True, ids=["phone-scripts"]
)
def test_the_pages_are_clean(
    new_visitor: NewVisitor, site: Site, mailbox: MailServer, someone: Person
) -> None:
    auditor = Auditor()
    page = new_visitor()
    page.goto("/login")
    auditor.audit(page, "log-in with a link", "Log in")
    page.goto("/forgot")
    auditor.audit(page, "forgot", "Forgot your password?")
    page.get_by_role("button", name="Send the link").click()
    expect(page.get_by_role("alert")).to_be_visible()
    auditor.audit(page, "forgot with errors", "Forgot your password?")
    ask_for_a_link(page, someone)
    auditor.audit(page, "forgot, asked", "Look at your mail")
    open_link(page, site, mailbox.wait_for(someone.email))
    auditor.audit(page, "reset", "Choose a new password")
    choose(page, "short")
    expect(page.get_by_role("alert")).to_be_visible()
    auditor.audit(page, "reset with errors", "Choose a new password")
    choose(page, NEW)
    sees_heading(page, "Log in")
    page.goto("/reset")
    auditor.audit(page, "reset without a link", "This link does not count")
    assert auditor.faults == []
