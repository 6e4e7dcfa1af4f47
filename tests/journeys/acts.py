"""The things that people do on the pages and look for there."""

import re

from playwright.sync_api import Locator, Page, StorageStateCookie, expect

from tests.journeys.site import Person

HOME = "One account, and you stay signed in"


def sees_heading(page: Page, text: str) -> None:
    expect(page.get_by_role("heading", level=1)).to_have_text(text)


def sees_notice(page: Page, text: str) -> None:
    expect(page.get_by_role("status")).to_have_text(text)


def sign_up(page: Page, person: Person) -> None:
    sees_heading(page, "Create your account")
    page.get_by_label("Email").fill(person.email)
    page.get_by_label("Name (optional)").fill(person.name)
    page.get_by_label("Password").fill(person.password)
    page.get_by_role("button", name="Create account").click()


def fill_log_in(page: Page, person: Person, *, password: str = "", remember: bool = False) -> None:
    sees_heading(page, "Log in")
    page.get_by_label("Email").fill(person.email)
    page.get_by_label("Password").fill(password or person.password)
    page.get_by_label("Keep me signed in on this device").set_checked(remember)
    page.get_by_role("button", name="Log in").click()


def log_in(page: Page, person: Person, *, remember: bool = False) -> None:
    page.goto("/login")
    fill_log_in(page, person, remember=remember)
    sees_heading(page, f"Hello, {person.name}")


def change_password(page: Page, current: str, new: str) -> None:
    page.get_by_label("Current password").fill(current)
    page.get_by_label("New password").fill(new)
    page.get_by_role("button", name="Change password").click()


def log_out(page: Page) -> None:
    page.get_by_role("button", name="Log out").click()


def cookies_of(page: Page) -> list[StorageStateCookie]:
    return page.context.storage_state()["cookies"]


def cookies_after_restart(page: Page) -> list[StorageStateCookie]:
    """Those a browser writes to disk; the others end with it."""
    return [cookie for cookie in cookies_of(page) if cookie["expires"] > 0]


def is_sent_to_log_in(page: Page, path: str) -> None:
    page.goto(path)
    sees_heading(page, "Log in")


def sees_error_beside(page: Page, field: Locator, reason: str) -> None:
    """The error is announced at the top, shown right under its field and read out with it."""
    expect(page.get_by_role("alert")).to_contain_text(reason)
    expect(field).to_have_accessible_description(re.compile(re.escape(reason)))
    expect(field).to_have_attribute("aria-invalid", "true")
    beside = page.get_by_text(reason, exact=True)
    expect(beside).to_be_visible()
    gap = field.evaluate(  # both at once, for the page may scroll
        "(a, b) => b.getBoundingClientRect().top - a.getBoundingClientRect().bottom",
        beside.element_handle(),
    )
    assert 0 <= gap <= 16, f"{gap} px between the field and its error"
