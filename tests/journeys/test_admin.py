"""Administrators see who there is; nobody else does."""

from playwright.sync_api import Page, expect

from tests.journeys.acts import fill_log_in, is_sent_to_log_in, sees_heading
from tests.journeys.conftest import NewVisitor, twice
from tests.journeys.site import Person, Site, a_person


@twice
def test_an_administrator_sees_and_finds_people(page: Page, site: Site, admin: Person) -> None:
    katherine = site.add(a_person("Katherine Johnson"))
    is_sent_to_log_in(page, "/admin/users")
    fill_log_in(page, admin)
    sees_heading(page, "Users")

    row = page.get_by_role("row").filter(has_text=katherine.email)
    expect(row.get_by_role("rowheader")).to_contain_text(katherine.name)
    expect(row.get_by_role("cell").nth(0)).to_have_text("user")
    expect(row.get_by_role("cell").nth(1)).to_have_text("Active")

    page.get_by_label("Search by email or name").fill(admin.email)
    page.get_by_role("button", name="Search").click()
    found = page.get_by_role("rowheader")
    expect(found).to_have_count(1)
    expect(found).to_contain_text(admin.email)

    page.get_by_label("Search by email or name").fill("nobody is called that")
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_contain_text("Nobody's email or name contains")
    page.get_by_role("link", name="Show all").click()
    expect(row).to_be_visible()


@twice
def test_others_are_refused(new_visitor: NewVisitor, someone: Person) -> None:
    page = new_visitor(someone)
    page.goto("/")
    sees_heading(page, f"Hello, {someone.name}")
    expect(page.get_by_role("link", name="Users")).to_have_count(0)
    answer = page.goto("/admin/users")
    assert answer
    assert answer.status == 403
    sees_heading(page, "You can't see this page")
    expect(page.get_by_role("main")).to_contain_text("Your account may not see or do this.")
    expect(page.get_by_text("@example.org")).to_have_count(0)
    page.get_by_role("main").get_by_role("link", name="Go to the home page").click()
    sees_heading(page, f"Hello, {someone.name}")
