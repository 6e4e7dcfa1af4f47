"""Whoever mistypes is told what and where, and types nothing twice except passwords."""

from playwright.sync_api import Page, expect

from tests.journeys.acts import change_password, fill_log_in, sees_error_beside, sees_heading
from tests.journeys.conftest import NewVisitor, once, twice
from tests.journeys.site import Person, a_person

BAD_EMAIL = "Enter an email address like name@example.org."
TAKEN = "Somebody has signed up with this email; log in instead."
WEAK = "Use at least 15 characters; a few unrelated words do well."


@twice
def test_sign_up(page: Page, someone: Person) -> None:
    page.goto("/signup")
    email = page.get_by_label("Email")
    name = page.get_by_label("Name (optional)")
    password = page.get_by_label("Password")
    button = page.get_by_role("button", name="Create account")

    email.fill("ada at example.org")
    name.fill("Ada Lovelace")
    password.fill("too short")
    button.click()
    expect(page).to_have_title("Error: Sign up · authapp")
    sees_error_beside(page, email, BAD_EMAIL)
    sees_error_beside(page, password, WEAK)
    expect(email).to_be_focused()
    expect(email).to_have_value("ada at example.org")
    expect(name).to_have_value("Ada Lovelace")
    expect(password).to_have_value("")

    # the summary leads to the field
    page.get_by_role("alert").get_by_role("link", name=WEAK).click()
    expect(password).to_be_focused()

    email.fill(someone.email.upper())
    password.fill(someone.password)
    button.click()
    sees_error_beside(page, email, TAKEN)
    expect(password).not_to_have_attribute("aria-invalid", "true")
    expect(email).to_have_value(someone.email.upper())
    expect(name).to_have_value("Ada Lovelace")
    expect(password).to_have_value("")

    email.fill(a_person().email)
    password.fill(someone.password)
    button.click()
    sees_heading(page, "Hello, Ada Lovelace")


@twice
def test_log_in(page: Page, someone: Person) -> None:
    page.goto("/login?next=/account/sessions")
    email = page.get_by_label("Email")
    password = page.get_by_label("Password")
    remember = page.get_by_label("Keep me signed in on this device")
    button = page.get_by_role("button", name="Log in")

    button.click()
    sees_error_beside(page, email, "Enter the email you signed up with.")
    sees_error_beside(page, password, "Enter your password.")
    expect(email).to_be_focused()

    fill_log_in(page, someone, password="not the right one", remember=True)
    alert = page.get_by_role("alert")
    expect(alert).to_have_text("Email or password is not right.")
    expect(password).to_have_accessible_description("Email or password is not right.")
    expect(password).to_be_focused()
    expect(email).to_have_value(someone.email)
    expect(password).to_have_value("")
    expect(remember).to_be_checked()

    # and what was wanted before the mistake is not forgotten
    password.fill(someone.password)
    button.click()
    sees_heading(page, "Where you are signed in")


@twice
def test_change_of_the_password(new_visitor: NewVisitor, someone: Person) -> None:
    page = new_visitor(someone)
    page.goto("/account/password")
    current, new = page.get_by_label("Current password"), page.get_by_label("New password")

    change_password(page, "not the right one", "seven quiet rivers bend")
    sees_error_beside(page, current, "This is not your current password.")
    expect(current).to_be_focused()
    for field in (current, new):
        expect(field).to_have_value("")

    change_password(page, someone.password, "too short")
    sees_error_beside(page, new, WEAK)
    expect(new).to_be_focused()

    change_password(page, someone.password, "seven quiet rivers bend")
    sees_heading(page, "Your account")


@once
def test_profile(new_visitor: NewVisitor, someone: Person) -> None:
    page = new_visitor(someone)
    page.goto("/account")
    name, image = page.get_by_label("Name"), page.get_by_label("Picture address (optional)")

    name.fill("Countess of Lovelace")
    image.fill("not a link")
    page.get_by_role("button", name="Save").click()
    sees_error_beside(page, image, "Enter a whole link, like https://example.org/me.jpg.")
    expect(name).to_have_value("Countess of Lovelace")
    expect(image).to_have_value("not a link")

    image.fill("")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_have_text("Your profile was saved.")
    page.goto("/")
    sees_heading(page, "Hello, Countess of Lovelace")
