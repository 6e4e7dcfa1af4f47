"""Passkeys in an app that embeds us, in its own layout and under its own content policy."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect
from werkzeug.serving import make_server

from authapp import dev
from tests.embedding.gallery.app import create_app
from tests.journeys.acts import sees_heading
from tests.journeys.authenticators import VirtualAuthenticator
from tests.journeys.conftest import DESKTOP, PHONE, Watch, open_window
from tests.support.databases import add_migrated_database
from tests.support.instances import free_port
from tests.support.people import PASSWORD, sign_up
from tests.support.settings import settings_for
from tests.web.support import Stores, services_of

ADA = "ada@example.org"


@dataclass(frozen=True)
class Gallery:
    url: str


@contextmanager
def served(app: Flask, port: int) -> Iterator[None]:
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def database_url(postgres: dev.PostgreSQL) -> str:
    return add_migrated_database(postgres.url, "gallery")


@pytest.fixture(scope="module")
def stores(database_url: str, valkey: dev.Valkey) -> Iterator[Stores]:
    found = Stores(database_url, valkey.url)
    yield found
    found.close()


@pytest.fixture(scope="module")
def gallery(database_url: str, valkey: dev.Valkey) -> Iterator[Gallery]:
    port = free_port()
    address = f"http://localhost:{port}"
    app = create_app(
        settings_for(
            database_url,
            valkey.url,
            SECRET_KEY="a secret that only the gallery knows",
            PUBLIC_URL=address,
            SESSION_COOKIE_SECURE="off",
        )
    )
    with served(app, port):
        sign_up(services_of(app), ADA)
        yield Gallery(address)
    services_of(app).close()


@pytest.fixture(params=[PHONE, DESKTOP], ids=lambda device: device.name)
def page(request: pytest.FixtureRequest, browser: Browser, gallery: Gallery) -> Iterator[Page]:
    watch = Watch(gallery.url)
    with open_window(browser, gallery, request.param) as context:
        watch.attach(context)
        yield context.new_page()
    assert watch.problems == []


def is_in_the_layout(page: Page) -> None:
    expect(page.get_by_role("banner").get_by_role("link", name="The gallery")).to_be_visible()
    assert page.locator("link[rel=stylesheet]").count() == 1


def test_a_person_uses_a_passkey_in_the_layout_of_the_app(page: Page, stores: Stores) -> None:
    page.goto("/")
    sees_heading(page, "Log in")
    is_in_the_layout(page)
    device = VirtualAuthenticator(page)
    page.get_by_label("Email").fill(ADA)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    sees_heading(page, "Pictures of ada@example.org")

    page.get_by_role("link", name="How I log in").click()
    is_in_the_layout(page)
    page.get_by_role("link", name="Add a passkey").click()
    is_in_the_layout(page)
    page.get_by_label("Name (optional)").fill("My laptop")
    page.get_by_role("button", name="Create the passkey").click()
    sees_heading(page, "Your recovery codes")
    is_in_the_layout(page)
    [made] = device.passkeys
    assert made["rpId"] == "localhost"
    page.get_by_role("button", name="Leave").click()

    # the field of the email offers the passkey, and log-in leads to what was asked for
    page.goto("/burn")
    sees_heading(page, "Burn a picture")

    # the proof has become too old while the form was open: the form is shown again, and not sent
    stores.age_proofs(3_600)
    page.get_by_role("button", name="Burn it").click()
    sees_heading(page, "Confirm that it is you")
    is_in_the_layout(page)
    expect(page.get_by_label("Password")).to_have_count(0)
    page.get_by_role("button", name="Use a passkey").click()
    sees_heading(page, "Burn a picture")
    page.goto("/")
    expect(page.get_by_text("Burnt: 0")).to_be_visible()
    page.get_by_role("link", name="Burn one").click()
    page.get_by_role("button", name="Burn it").click()
    expect(page.get_by_text("Burnt: 1")).to_be_visible()

    page.get_by_role("link", name="How I log in").click()
    page.get_by_role("link", name="Remove My laptop").click()
    is_in_the_layout(page)
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("status").first).to_contain_text("The passkey was removed")
    is_in_the_layout(page)
