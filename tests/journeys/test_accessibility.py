"""Every page is clean for a screen reader, readable in light and dark, and fits its window.

Each page is loaded once, in the window of a phone, and then audited in a desktop's size, too.
"""

from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.journeys.acts import change_password, fill_log_in, log_out, sees_heading, sees_notice
from tests.journeys.conftest import DESKTOP, PHONE, Device, NewVisitor
from tests.journeys.site import Person, Site, a_person

FAILURES_PER_ACCOUNT = 10  # the default of LOGIN_FAILURES_PER_ACCOUNT
NARROWEST = 320  # px; WCAG 2.2, 1.4.10: no scrolling sideways from here on
LONG_HOST = f"{'hausen-' * 5}bergerdorff.example.org"
ALL: dict[str, object] = {
    "resultTypes": ["violations"],
    "rules": {"target-size": {"enabled": True}},
}
CONTRAST: dict[str, object] = {"resultTypes": ["violations"], "runOnly": ["color-contrast"]}


@pytest.fixture
def scripts() -> bool:
    return True  # axe is one


@pytest.fixture
def device() -> Device:
    return PHONE


class Auditor:
    """Looks at pages in a phone's window as they are, and notes what is wrong with each."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._axe = Axe()

    def audit(self, page: Page, state: str, heading: str) -> None:
        """
        Args:
            state: how the report calls the page as it is now.
            heading: what it must show, so that no other page is audited in its place.
        """
        sees_heading(page, heading)
        page.wait_for_load_state()  # after a click the heading may be there before the style is
        self._note(state, self._axe.run(page, options=ALL).response["violations"])
        page.emulate_media(color_scheme="dark")
        self._look(page, f"{state}, dark", CONTRAST)
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": NARROWEST, "height": PHONE.height})
        needed = page.evaluate("document.documentElement.scrollWidth")
        if needed > NARROWEST:
            self.faults.append(f"{state}: needs {needed} px where there are {NARROWEST}")
        # style sheets ask for the width of a window, and for nothing else that tells devices apart
        page.set_viewport_size({"width": DESKTOP.width, "height": DESKTOP.height})
        self._look(page, f"{state}, on a desktop", ALL)
        page.set_viewport_size({"width": PHONE.width, "height": PHONE.height})

    def _look(self, page: Page, state: str, options: dict[str, object]) -> None:
        """Once more, with the axe that the page has."""
        self._note(state, page.evaluate("options => axe.run(options)", options)["violations"])

    def _note(self, state: str, violations: list[dict[str, object]]) -> None:
        for violation in violations:
            nodes = violation["nodes"]
            assert isinstance(nodes, list)
            where = [node["target"] for node in nodes]
            self.faults.append(f"{state}: {violation['id']}: {violation['help']} at {where}")


@pytest.fixture
def auditor() -> Auditor:
    return Auditor()


def test_pages_of_visitors(page: Page, site: Site, someone: Person, auditor: Auditor) -> None:
    def submit(name: str) -> None:
        page.get_by_role("button", name=name).click()

    def wrong_log_in() -> None:
        page.goto("/login")
        fill_log_in(page, someone, password="not the right one")
        expect(page.get_by_role("alert")).to_be_visible()

    page.goto("/")
    auditor.audit(page, "home", "One account, and you stay signed in")
    page.goto("/signup")
    auditor.audit(page, "sign-up", "Create your account")
    submit("Create account")
    auditor.audit(page, "sign-up with errors", "Create your account")
    page.goto("/login")
    auditor.audit(page, "log-in", "Log in")
    submit("Log in")
    auditor.audit(page, "log-in with errors", "Log in")
    wrong_log_in()
    auditor.audit(page, "log-in refused", "Log in")
    for _ in range(FAILURES_PER_ACCOUNT):
        site.post("/api/v1/login", {"email": someone.email, "password": "not the right one"})
    wrong_log_in()
    expect(page.get_by_role("alert")).to_contain_text("Too many attempts")
    auditor.audit(page, "log-in limited", "Log in")
    page.goto("/nowhere")
    auditor.audit(page, "404", "There is no such page")
    assert auditor.faults == []


def test_pages_of_people(
    new_visitor: NewVisitor, site: Site, someone: Person, auditor: Auditor
) -> None:
    page, other = new_visitor(someone), new_visitor(someone)
    page.goto("/")
    auditor.audit(page, "home, signed in", f"Hello, {someone.name}")
    page.goto("/account")
    page.get_by_role("button", name="Save").click()
    sees_notice(page, "Your profile was saved.")
    auditor.audit(page, "account", "Your account")
    page.get_by_label("Picture address").fill("not a link")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_be_visible()
    auditor.audit(page, "account with errors", "Your account")
    page.goto("/account/password")
    auditor.audit(page, "password", "Change password")
    change_password(page, "not the right one", "too short")
    expect(page.get_by_role("alert")).to_be_visible()
    auditor.audit(page, "password with errors", "Change password")
    page.goto("/account/sessions")
    auditor.audit(page, "sessions", "Where you are signed in")
    page.get_by_role("link", name="End all others (1)").click()
    auditor.audit(page, "a question", "End all other sessions?")
    page.get_by_role("button", name="End all others").click()
    expect(page.get_by_role("status")).to_be_visible()
    auditor.audit(page, "the only session", "Where you are signed in")
    page.goto("/api/v1/")
    auditor.audit(page, "the API", "API")
    page.goto("/admin/users")
    auditor.audit(page, "403", "You can't see this page")
    other.goto("/account")
    expect(other.get_by_role("status")).to_be_visible()
    auditor.audit(other, "log-in with the reason why", "Log in")
    log_out(page)
    sees_notice(page, "You are logged out.")
    auditor.audit(page, "home after log-out", "One account, and you stay signed in")
    assert auditor.faults == []


def test_pages_of_administrators(
    new_visitor: NewVisitor, site: Site, admin: Person, auditor: Auditor
) -> None:
    page = new_visitor(admin)
    page.goto("/admin/users")
    auditor.audit(page, "users", "Users")
    page.goto("/admin/users?q=nobody+is+called+that")
    auditor.audit(page, "no users found", "Users")
    page.goto(f"/admin/users?q={admin.email}")
    page.get_by_role("link", name=admin.name or admin.email).click()
    auditor.audit(page, "one user", admin.name or admin.email)
    page.get_by_role("link", name="What happened to this account").click()
    auditor.audit(page, "audit of one user", "Audit")
    page.goto("/admin/audit")
    auditor.audit(page, "audit", "Audit")
    page.get_by_label("What happened", exact=True).select_option("Password set by an operator")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_text("There are no such events.")).to_be_visible()
    auditor.audit(page, "no events", "Audit")
    assert auditor.faults == []


def test_long_names_and_addresses_fit(
    new_visitor: NewVisitor, site: Site, admin: Person, auditor: Auditor
) -> None:
    long = a_person("Wolfe" + "schlegel" * 11)
    long = site.add(replace(long, email=f"{'w' * 40}@{LONG_HOST}"))
    page = new_visitor(long)
    page.goto("/")
    auditor.audit(page, "home of a long name", f"Hello, {long.name}")
    page.goto("/account")
    auditor.audit(page, "account of a long name", "Your account")
    page = new_visitor(admin)
    page.goto("/admin/users")
    auditor.audit(page, "users with long names", "Users")
    page.get_by_role("link", name=long.name).first.click()
    auditor.audit(page, "a user with a long name", long.name)
    page.get_by_role("link", name="Deactivate and sign out").click()
    auditor.audit(page, "a question about a long name", f"Deactivate {long.name}?")
    page.goto("/admin/audit")
    auditor.audit(page, "events of long names", "Audit")
    assert auditor.faults == []
