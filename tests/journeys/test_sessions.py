"""People see where they are signed in, and end what they don't want."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, expect

from tests.journeys.acts import (
    change_password,
    fill_log_in,
    is_sent_to_log_in,
    log_in,
    sees_heading,
    sees_notice,
)
from tests.journeys.conftest import Device, NewVisitor, once, open_window, twice
from tests.journeys.site import Person, Site

FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0"
TOLD = "You were signed out because you ended this session elsewhere."


@twice
def test_one_device_ends_another(new_visitor: NewVisitor, someone: Person) -> None:
    here, there = new_visitor(someone), new_visitor(user_agent=FIREFOX)
    here.goto("/account/sessions")
    sees_heading(here, "Where you are signed in")
    expect(here.get_by_role("main").get_by_role("listitem")).to_have_count(1)
    expect(here.get_by_role("main")).to_contain_text("You are signed in nowhere else.")

    log_in(there, someone)
    here.reload()
    entries = here.get_by_role("main").get_by_role("listitem")
    expect(entries).to_have_count(2)
    other = entries.filter(has=here.get_by_role("heading", name="Firefox on Windows"))
    own = entries.filter(has_text="This device")
    expect(own).to_have_count(1)
    expect(own.get_by_role("button")).to_have_count(0)  # what ends this one is "Log out"
    expect(other).to_contain_text("127.0.0.1")
    expect(other).not_to_contain_text("This device")
    end = other.get_by_role("button")
    expect(end).to_have_text("End")
    end.click()
    sees_notice(here, "The session was ended.")
    expect(entries).to_have_count(1)
    sees_heading(here, "Where you are signed in")

    # the other is told why at its next click, and gets to where that click led
    there.get_by_role("main").get_by_role("link", name="Where you are signed in").click()
    sees_heading(there, "Log in")
    sees_notice(there, TOLD)
    fill_log_in(there, someone)
    sees_heading(there, "Where you are signed in")


@once
def test_one_device_ends_all_others(new_visitor: NewVisitor, someone: Person) -> None:
    here, others = new_visitor(someone), [new_visitor(someone), new_visitor(someone)]
    here.goto("/account/sessions")
    here.get_by_role("link", name="End all others (2)").click()
    sees_heading(here, "End all other sessions?")
    here.get_by_role("link", name="Cancel").click()
    sees_heading(here, "Where you are signed in")
    here.get_by_role("link", name="End all others (2)").click()
    here.get_by_role("button", name="End all others").click()
    sees_notice(here, "All other sessions were ended.")
    expect(here.get_by_role("main").get_by_role("listitem")).to_have_count(1)
    for page in others:
        is_sent_to_log_in(page, "/account")
        sees_notice(page, TOLD)


@once
def test_change_of_the_password_signs_the_other_devices_out(
    new_visitor: NewVisitor, someone: Person
) -> None:
    here, there = new_visitor(someone), new_visitor(someone)
    here.goto("/account/password")
    change_password(here, someone.password, "seven quiet rivers bend")
    sees_heading(here, "Your account")
    is_sent_to_log_in(there, "/account")
    sees_notice(there, "You were signed out because your password was changed.")


@twice
@pytest.mark.parametrize("zone", ["Asia/Kolkata", "America/St_Johns"])
def test_times_are_those_of_where_the_person_is(
    browser: Browser, site: Site, someone: Person, zone: str, scripts: bool, device: Device
) -> None:
    context = open_window(
        browser, site, device, scripts=scripts, cookies=[site.cookie_of(someone)], zone=zone
    )
    page = context.new_page()
    page.goto("/account/sessions")
    shown = page.get_by_role("main").get_by_role("time").first
    at = datetime.fromisoformat(str(shown.get_attribute("datetime")))
    assert at.utcoffset() == timedelta(0)
    in_utc = f"{at:%-d %b %Y, %H:%M} UTC"
    if scripts:
        expect(shown).to_have_text(f"{at.astimezone(ZoneInfo(zone)):%-d %b %Y, %H:%M}")
        expect(shown).to_have_attribute("title", in_utc)
    else:
        expect(shown).to_have_text(in_utc)
    context.close()
