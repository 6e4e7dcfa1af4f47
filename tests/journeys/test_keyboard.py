"""Everything can be reached and seen without a mouse."""

from playwright.sync_api import Locator, Page, expect

from tests.journeys.acts import sees_heading
from tests.journeys.conftest import twice
from tests.journeys.site import Person


def tab_to(page: Page, target: Locator) -> None:
    """Tab once, and there we are, visibly."""
    page.keyboard.press("Tab")
    expect(target).to_be_focused()
    expect(target).to_be_in_viewport()
    style = target.evaluate(
        "e => [getComputedStyle(e).outlineStyle, getComputedStyle(e).outlineWidth]"
    )
    assert style == ["solid", "3px"]


@twice
def test_log_in(page: Page, someone: Person, scripts: bool) -> None:
    page.goto("/login")
    main = page.get_by_role("main")
    navigation = page.get_by_role("navigation", name="Main")
    tab_to(page, page.get_by_role("link", name="Skip to content"))
    tab_to(page, page.get_by_role("link", name="authapp"))
    for name in ("Home", "Log in", "Sign up"):
        tab_to(page, navigation.get_by_role("link", name=name))
    tab_to(page, main.get_by_role("link", name="Create an account"))
    tab_to(page, page.get_by_label("Email"))
    page.keyboard.type(someone.email)
    tab_to(page, page.get_by_label("Password"))
    page.keyboard.type(someone.password)
    if scripts:
        tab_to(page, page.get_by_role("button", name="Show password"))
    tab_to(page, page.get_by_label("Keep me signed in on this device"))
    page.keyboard.press("Space")
    expect(page.get_by_label("Keep me signed in on this device")).to_be_checked()
    tab_to(page, page.get_by_role("button", name="Log in"))
    for _ in range(3 if scripts else 2):
        page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("Password")).to_be_focused()
    page.keyboard.press("Enter")
    sees_heading(page, f"Hello, {someone.name}")


@twice
def test_skip_link(page: Page) -> None:
    page.goto("/")
    skip = page.get_by_role("link", name="Skip to content")
    expect(skip).not_to_be_in_viewport()
    tab_to(page, skip)
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    tab_to(page, page.get_by_role("main").get_by_role("link", name="Log in"))
    page.keyboard.press("Enter")
    sees_heading(page, "Log in")
