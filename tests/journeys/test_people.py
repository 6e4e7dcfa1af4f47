"""From sign-up to deletion by mails, as people go it, while one store or the other is dead."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from authapp import dev
from tests.journeys.acts import fill_log_in, sees_heading
from tests.journeys.conftest import DESKTOP, PHONE, Watch, open_window
from tests.journeys.site import WORKERS, Person, Site, a_person, served
from tests.proofs.chaos.faults import Postgres, Redis
from tests.support.databases import migrate
from tests.support.settings import UNLIMITED, environment_for
from tests.support.smtp import MailServer, mail_server

pytestmark = pytest.mark.served

NEW_PASSWORD = "seven quiet rivers bend"


@dataclass(frozen=True)
class MailedSite:
    """A served site with stores of its own, which can be killed, and a mail server.

    Attributes:
        site: the product as it is served.
    """

    site: Site
    postgres: Postgres
    redis: Redis
    mail: MailServer


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


def test_a_forgotten_password(page: Page, mailed: MailedSite) -> None:
    ada = mailed.site.add_admin(a_person())
    page.goto("/login")
    page.get_by_role("link", name="Forgot").click()
    sees_heading(page, "Forgot your password?")
    mailed.redis.kill()
    page.get_by_label("Email").fill(ada.email)
    page.get_by_role("button", name="Send the link").click()
    sees_heading(page, "Look at your mail")
    page.goto(mailed.mail.wait_for(ada.email).link)
    sees_heading(page, "Choose a new password")
    expect(page).to_have_url(f"{mailed.site.url}/reset")
    page.get_by_label("New password").fill(NEW_PASSWORD)
    page.get_by_role("button", name="Set the new password").click()
    fill_log_in(page, ada, password=NEW_PASSWORD)
    is_still_signed_in(page, ada)
    mailed.redis.come_back(empty=True)
    is_still_signed_in(page, ada)
