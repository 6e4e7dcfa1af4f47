"""From sign-up to deletion by mails, as people go it, while one store or the other is dead."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from authapp import dev
from tests.journeys.acts import HOME, fill_log_in, log_out, sees_heading, sign_up
from tests.journeys.conftest import DESKTOP, PHONE, Watch, open_window
from tests.journeys.site import WORKERS, Person, Site, a_person, served
from tests.journeys.test_accessibility import Auditor
from tests.proofs.chaos.faults import Postgres, Redis
from tests.support.databases import migrate
from tests.support.settings import UNLIMITED, environment_for
from tests.support.smtp import MailServer, mail_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.served

NEW_PASSWORD = "seven quiet rivers bend"
OTHER_PASSWORD = "eleven slow trains depart"


@dataclass
class MailedSite:
    """A served site with stores of its own, which can be killed, and a mail server.

    Attributes:
        site: the product as it is served.
    """

    site: Site
    postgres: Postgres
    redis: Redis
    mail: MailServer
    _followed: set[str] = field(default_factory=set)

    def link_to(self, address: str, path: str) -> str:
        """A link to a page of ours that was mailed to an address and not asked for before."""

        def links() -> list[str]:
            text = "".join(mail.text for mail in self.mail.to(address))
            found: list[str] = re.findall(rf"{self.site.url}{path}\?token=\S+", text)
            return [link for link in found if link not in self._followed]

        wait_until(lambda: bool(links()), lambda: f"{address} gets no link to {path}")
        (link,) = links()
        self._followed.add(link)
        return link

    @contextmanager
    def without_redis(self) -> Iterator[None]:
        """Killed; it comes back empty."""
        self.redis.kill()
        try:
            yield
        finally:
            self.redis.come_back(empty=True)
            wait_until(self._all_answer, lambda: "not all workers ask Redis again")

    def _all_answer(self) -> bool:
        return all(self.site.is_whole() for _ in range(10 * WORKERS))

    @contextmanager
    def without_postgres(self, page: Page) -> Iterator[None]:
        """Killed, once Redis holds a copy of the page's session; it comes back with its data."""

        def has_copy() -> bool:
            page.goto("/")
            return bool(self.redis.client.keys("sess:*"))

        wait_until(has_copy, lambda: "Redis gets no copy")
        self.postgres.kill()
        try:
            yield
        finally:
            self.postgres.come_back()
            wait_until(self._all_answer, lambda: "not all workers ask Postgres again")


@pytest.fixture(scope="module")
def mailed(
    served_by: str, engine_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MailedSite]:
    folder = engine_dir / "journeys of people"
    folder.mkdir()
    with dev.private_socket_dir() as sockets, mail_server() as mail:
        postgres, redis = Postgres(folder / "postgres", sockets), Redis(folder / "redis", sockets)
        try:
            migrate(postgres.server.url)
            environment = environment_for(
                postgres.server.url,
                redis.server.url,
                SECRET_KEY="a secret that only the journeys of people know",
                SESSION_COOKIE_SECURE="0",
                LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,
                WEB_CONCURRENCY=str(WORKERS),
                PUBLIC_URL="http://127.0.0.1:{port}",
                MAIL_URL=mail.url,
            )
            log = tmp_path_factory.mktemp("people") / f"{served_by}.log"
            with served(environment, log) as site:
                yield MailedSite(site, postgres, redis, mail)
        finally:
            redis.stop()
            postgres.stop()


@pytest.fixture(
    params=[(PHONE, False), (DESKTOP, True)], ids=["phone-no-scripts", "desktop-scripts"]
)
def page(request: pytest.FixtureRequest, browser: Browser, mailed: MailedSite) -> Iterator[Page]:
    device, scripts = request.param
    watch = Watch(mailed.site.url)
    context = open_window(browser, mailed.site, device, scripts=scripts)
    watch.attach(context)
    yield context.new_page()
    context.close()
    assert watch.problems == []


def is_still_signed_in(page: Page, person: Person) -> None:
    page.goto("/")
    sees_heading(page, f"Hello, {person.name}")


def starts_to_sign_up(page: Page, person: Person) -> None:
    page.goto("/signup")
    sign_up(page, person)
    sees_heading(page, "Confirm your email")


def is_confirmed(page: Page, person: Person) -> None:
    sees_heading(page, f"Hello, {person.name}")
    confirmed = "Your email is confirmed, and you are logged in."
    expect(page.get_by_role("status")).to_contain_text(confirmed)


def is_refused(page: Page, person: Person) -> None:
    page.goto("/login")
    fill_log_in(page, person)
    expect(page.get_by_role("alert")).to_have_text("Email or password is not right.")


def forgets_and_resets(page: Page, mailed: MailedSite, person: Person) -> Person:
    """Returns the person with the new password."""
    page.goto("/login")
    page.get_by_role("link", name="Forgot").click()
    sees_heading(page, "Forgot your password?")
    page.get_by_label("Email").fill(person.email)
    page.get_by_role("button", name="Send the link").click()
    sees_heading(page, "Look at your mail")
    page.goto(mailed.link_to(person.email, "/reset"))
    sees_heading(page, "Choose a new password")
    expect(page).to_have_url(f"{mailed.site.url}/reset")
    page.get_by_label("New password").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Set the new password").click()
    expect(page.get_by_role("status")).to_contain_text("Your new password is set.")
    return replace(person, password=NEW_PASSWORD)


def changes_the_address_and_back(page: Page, mailed: MailedSite, person: Person) -> Person:
    """Returns the person with another password, which the way back asks for."""
    new = f"new.{person.email}"
    page.goto("/account")
    page.get_by_role("link", name="Change your email").click()
    sees_heading(page, "Change email")
    with mailed.without_redis():
        page.get_by_label("New email").fill(new)
        page.get_by_role("button", name="Send the link").click()
        sees_heading(page, "Your account")
        page.goto(mailed.link_to(new, "/verify"))
        sees_heading(page, "Confirm your new email")
        page.get_by_role("button", name="Change my email").click()
        sees_heading(page, "Your account")
        expect(page.get_by_role("main")).to_contain_text(new)
    page.goto(mailed.link_to(person.email, "/email/undo"))
    sees_heading(page, "Take your old email back")
    page.get_by_role("button", name="Take the change back").click()
    sees_heading(page, "Log in")
    page.goto(mailed.link_to(person.email, "/reset"))
    page.get_by_label("New password").fill(OTHER_PASSWORD)
    page.get_by_role("button", name="Set the new password").click()
    person = replace(person, password=OTHER_PASSWORD)
    fill_log_in(page, person)
    is_still_signed_in(page, person)
    return person


def test_from_sign_up_to_deletion(page: Page, mailed: MailedSite) -> None:
    ada = a_person()

    # an account is made, and confirmed by the link
    with mailed.without_redis():
        starts_to_sign_up(page, ada)
        page.goto(mailed.link_to(ada.email, "/verify"))
        expect(page).to_have_url(f"{mailed.site.url}/verify")
        page.get_by_role("button", name="Confirm email").click()
        is_confirmed(page, ada)
    is_still_signed_in(page, ada)
    with mailed.without_postgres(page):
        is_still_signed_in(page, ada)
    is_still_signed_in(page, ada)

    # a forgotten password
    log_out(page)
    with mailed.without_redis():
        ada = forgets_and_resets(page, mailed, ada)
        fill_log_in(page, ada)
        is_still_signed_in(page, ada)
    is_still_signed_in(page, ada)

    # another address, and back
    ada = changes_the_address_and_back(page, mailed, ada)

    # the end: nobody gets in any more, and the address is free
    page.goto("/account")
    page.get_by_role("link", name="Delete your account").click()
    sees_heading(page, "Delete your account")
    page.get_by_label("Delete this account for good").check()
    with mailed.without_redis():
        page.get_by_role("button", name="Delete my account").click()
        sees_heading(page, HOME)
        is_refused(page, ada)
    is_refused(page, ada)
    starts_to_sign_up(page, ada)


def test_a_code_from_another_device(page: Page, mailed: MailedSite) -> None:
    ada = a_person()
    starts_to_sign_up(page, ada)
    page.get_by_label("Code").fill("00000000")
    page.get_by_role("button", name="Confirm email").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Code").fill(mailed.mail.wait_for(ada.email).code)
    page.get_by_role("button", name="Confirm email").click()
    is_confirmed(page, ada)


def test_the_pages_are_clean_for_everybody(browser: Browser, mailed: MailedSite) -> None:
    """As `test_accessibility.py`, for the pages that mails lead to, and with a long address."""
    auditor = Auditor()
    context = open_window(browser, mailed.site, PHONE)
    page = context.new_page()
    ada = a_person("Wolfe" + "schlegel" * 11)
    ada = replace(ada, email=f"{'w' * 40}@{'hausen-' * 5}bergerdorff.example.org")

    def look(path: str, heading: str, button: str = "") -> None:
        """Audits a page, and once more after its button was pressed with nothing typed."""
        page.goto(path)
        auditor.audit(page, path.partition("?")[0], heading)
        if button:
            page.get_by_role("button", name=button).click()
            expect(page.get_by_role("alert")).to_be_visible()
            auditor.audit(page, f"{path.partition('?')[0]} with errors", heading)

    look("/forgot", "Forgot your password?", "Send the link")
    look("/forgot?asked=1", "Look at your mail")
    look("/reset", "This link does not count")
    look("/email/undo", "This link does not count")
    starts_to_sign_up(page, ada)
    look("/verify", "Confirm your email", "Confirm email")
    look(mailed.link_to(ada.email, "/verify"), "Confirm your email")
    page.get_by_role("button", name="Confirm email").click()
    is_confirmed(page, ada)
    look("/account", "Your account")
    look("/account/confirm", "Confirm that it is you", "Go on")
    look("/account/export", "Your data")
    look("/account/delete", "Delete your account", "Delete my account")
    look("/account/security", "Security")
    look("/account/security/totp", "Set up an authenticator app", "Confirm")
    look("/account/security/totp/remove", "Remove the authenticator app?")
    look("/account/security/recovery-codes", "Make new recovery codes?")
    look("/account/email", "Change email", "Send the link")
    new = "new@example.org"
    page.get_by_label("New email").fill(new)
    page.get_by_role("button", name="Send the link").click()
    look(mailed.link_to(new, "/verify"), "Confirm your new email")
    page.get_by_role("button", name="Change my email").click()
    sees_heading(page, "Your account")
    look(mailed.link_to(ada.email, "/email/undo"), "Take your old email back")
    page.goto("/forgot")
    page.get_by_label("Email").fill(new)
    page.get_by_role("button", name="Send the link").click()
    look(mailed.link_to(new, "/reset"), "Choose a new password", "Set the new password")
    context.close()
    assert auditor.faults == []


def test_the_pages_of_administrators_are_clean_for_everybody(
    browser: Browser, mailed: MailedSite
) -> None:
    auditor = Auditor()
    root = mailed.site.add_admin(a_person("Grace Hopper"))
    ada = mailed.site.add_admin(a_person())
    mailed.site.cookie_of(ada)
    context = open_window(browser, mailed.site, PHONE, cookies=[mailed.site.cookie_of(root)])
    page = context.new_page()
    for path, heading in (
        ("/admin/invitations", "Invitations"),
        ("/admin/roles", "Roles"),
        ("/admin/sessions/end-all", "Sign everybody out?"),
    ):
        page.goto(path)
        auditor.audit(page, path, heading)
    page.goto(f"/admin/users?q={ada.email}")
    page.get_by_role("link", name=ada.name).click()
    auditor.audit(page, "one person", ada.name)
    page.get_by_role("link", name="Delete the account").click()
    auditor.audit(page, "a question", f"Delete the account of {ada.name}?")
    page.get_by_role("link", name="Cancel").click()
    page.get_by_role("button", name="Set roles").click()
    auditor.audit(page, "roles", f"Set the roles of {ada.name}?")
    context.close()
    assert auditor.faults == []
