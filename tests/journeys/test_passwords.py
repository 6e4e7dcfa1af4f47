"""A password can be shown while it is typed, and its length is told. Neither needs to be."""

import re

from playwright.sync_api import Page, expect

from tests.journeys.acts import sees_heading
from tests.journeys.conftest import NewVisitor, twice
from tests.journeys.site import Person, a_person

LEAST = 15


@twice
def test_a_password_is_shown_and_masked_again(page: Page, someone: Person, scripts: bool) -> None:
    page.goto("/login")
    password = page.get_by_label("Password")
    show = page.get_by_role("button", name="Show password", exact=True)
    password.fill(someone.password)
    expect(password).to_have_attribute("type", "password")
    if not scripts:
        expect(show).to_have_count(0)
        return
    expect(show).to_have_attribute("aria-pressed", "false")
    show.click()
    expect(password).to_have_attribute("type", "text")
    expect(password).to_have_value(someone.password)
    expect(show).to_have_attribute("aria-pressed", "true")
    # no service for spelling gets to see it
    expect(password).to_have_attribute("spellcheck", "false")
    show.press("Enter")
    expect(password).to_have_attribute("type", "password")


@twice
def test_what_is_shown_is_masked_when_it_is_sent(
    page: Page, someone: Person, scripts: bool
) -> None:
    page.goto("/login")
    page.get_by_label("Email").fill(someone.email)
    password = page.get_by_label("Password")
    password.fill(someone.password)
    if scripts:
        page.get_by_role("button", name="Show password").click()
        page.evaluate(
            "document.forms[document.forms.length - 1].addEventListener('submit', () =>"
            " sessionStorage.setItem('sent as', document.querySelector('[name=password]').type))"
        )
    page.get_by_role("button", name="Log in").click()
    sees_heading(page, f"Hello, {someone.name}")
    if scripts:
        assert page.evaluate("sessionStorage.getItem('sent as')") == "password"


@twice
def test_each_password_has_a_button_of_its_own(
    new_visitor: NewVisitor, someone: Person, scripts: bool
) -> None:
    visitor = new_visitor(someone)
    visitor.goto("/account/password")
    current, new = visitor.get_by_label("Current password"), visitor.get_by_label("New password")
    for name in ("Show current password", "Show new password"):
        expect(visitor.get_by_role("button", name=name)).to_have_count(1 if scripts else 0)
    if scripts:
        visitor.get_by_role("button", name="Show new password").click()
        expect(new).to_have_attribute("type", "text")
        expect(current).to_have_attribute("type", "password")


@twice
def test_the_missing_length_is_told_as_it_is_typed(page: Page, scripts: bool) -> None:
    page.goto("/signup")
    password = page.get_by_label("Password")
    hint = page.get_by_text(re.compile(r"more character|Long enough"))
    password.press_sequentially("e\u0301" * 4)  # four characters, as the server counts
    if not scripts:
        expect(hint).to_have_count(0)
        expect(page.get_by_text(f"At least {LEAST} characters.")).to_be_visible()
        return
    expect(hint).to_have_text(f"{LEAST - 4} more characters")
    expect(hint).to_have_attribute("aria-live", "polite")
    password.fill("x" * (LEAST - 1))
    expect(hint).to_have_text("1 more character")
    password.fill("x" * LEAST)
    expect(hint).to_have_text(re.compile("^Long enough"))
    password.fill("")
    expect(hint).to_have_count(0)


@twice
def test_a_weak_password_is_told_with_the_reason(page: Page, scripts: bool) -> None:
    person = a_person()
    page.goto("/signup")
    page.get_by_label("Email").fill(person.email)
    page.get_by_label("Password").fill(f"{person.email}1")
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_label("Password")).to_have_accessible_description(
        re.compile("It is your email with a few characters added; a few unrelated words do well.")
    )
