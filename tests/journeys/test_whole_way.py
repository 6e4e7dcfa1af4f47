"""From sign-up to log-out, as a person goes it, and nobody gets back in afterwards."""

from urllib.parse import quote

from playwright.sync_api import Page, expect

from tests.journeys.acts import (
    HOME,
    change_password,
    cookies_after_restart,
    cookies_of,
    fill_log_in,
    is_sent_to_log_in,
    log_in,
    log_out,
    sees_heading,
    sees_notice,
    sign_up,
)
from tests.journeys.conftest import NewVisitor, once, twice
from tests.journeys.site import Person, Site, a_person

NEW_PASSWORD = "seven quiet rivers bend"


@twice
def test_from_sign_up_to_log_out(new_visitor: NewVisitor, site: Site) -> None:
    ada = a_person()
    page = new_visitor()

    page.goto("/")
    sees_heading(page, HOME)
    page.get_by_role("main").get_by_role("link", name="Create an account").click()
    sign_up(page, ada)
    sees_notice(page, "Welcome. Your account is ready, and you are logged in.")
    log_out(page)

    # a protected page leads to log-in, and log-in leads back there
    is_sent_to_log_in(page, "/account/password")
    fill_log_in(page, ada, remember=True)
    sees_heading(page, "Change password")

    # stays in: reload, and restart of the browser
    page.reload()
    sees_heading(page, "Change password")
    kept = cookies_after_restart(page)
    page.context.close()
    page = new_visitor(cookies=kept)
    page.goto("/")
    sees_heading(page, f"Hello, {ada.name}")

    # change the password; what was known before opens nothing any more
    before = cookies_of(page)
    page.get_by_role("link", name="Change password").click()
    change_password(page, ada.password, NEW_PASSWORD)
    sees_heading(page, "Your account")
    sees_notice(page, "Your password was changed, and your other devices were signed out.")
    is_sent_to_log_in(new_visitor(cookies=before), "/account")
    other = new_visitor()
    other.goto("/login")
    fill_log_in(other, ada)
    expect(other.get_by_role("alert")).to_have_text("Email or password is not right.")
    fill_log_in(other, ada, password=NEW_PASSWORD)
    sees_heading(other, f"Hello, {ada.name}")

    # log out; neither the back button nor a reload nor the old cookie gets back in
    before = cookies_of(page)
    log_out(page)
    sees_heading(page, HOME)
    sees_notice(page, "You are logged out.")
    page.go_back()
    sees_heading(page, "Log in")
    expect(page.get_by_text(ada.email)).to_have_count(0)
    page.reload()
    sees_heading(page, "Log in")
    assert [cookie["name"] for cookie in cookies_of(page)] == ["DEVICE-TOKEN"]
    replayed = new_visitor(cookies=before)
    is_sent_to_log_in(replayed, "/account")
    replayed.goto("/")
    sees_heading(replayed, HOME)

    # the other device is a session of its own
    other.reload()
    sees_heading(other, f"Hello, {ada.name}")

    log = site.log()
    secrets = [ada.email, ada.password, NEW_PASSWORD, quote(ada.email)]
    secrets += [cookie["value"] for cookie in [*kept, *before]]
    assert [secret for secret in secrets if secret in log] == []


@once
def test_restart_of_the_browser_signs_out_who_did_not_ask_to_be_kept(
    new_visitor: NewVisitor, someone: Person
) -> None:
    page = new_visitor()
    log_in(page, someone)
    restarted = new_visitor(cookies=cookies_after_restart(page))
    is_sent_to_log_in(restarted, "/account")
    page.reload()
    sees_heading(page, f"Hello, {someone.name}")


@once
def test_sign_up_leads_on_to_where_somebody_wanted_to_go(page: Page) -> None:
    ada = a_person()
    is_sent_to_log_in(page, "/account/sessions")
    page.get_by_role("main").get_by_role("link", name="Create an account").click()
    sign_up(page, ada)
    sees_heading(page, "Where you are signed in")
