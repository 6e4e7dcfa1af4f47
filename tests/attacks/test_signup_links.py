"""Sign-up where addresses are confirmed, at the product as production starts it: neither answer nor
time tells who has an account, and of many uses of a link one wins."""

import sys
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from authapp import dev
from authapp.mail.outbox import Letters
from tests.attacks.conftest import AS_SHIPPED
from tests.attacks.site import Site, ask
from tests.attacks.test_enumeration import PAIRS, SUSPICIOUS, TRIES, WARM_UP, rank_test, shown
from tests.support.databases import add_migrated_database
from tests.support.instances import serving
from tests.support.mails import MAIL_SETTINGS
from tests.support.people import PASSWORD
from tests.support.settings import UNLIMITED, environment_for
from tests.support.threads import at_once

SECRET_KEY = "a secret that nobody who signs up knows"
SIGNUP, RESEND, VERIFY = "/api/v1/signup", "/api/v1/email/resend", "/api/v1/email/verify"
USES = 50

_numbers = count(1)


@pytest.fixture(scope="module")
def site(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    url = add_migrated_database(postgres.url, "signup_links")
    log = tmp_path_factory.mktemp("signup_links") / f"{served_by}.log"
    environment = environment_for(
        url,
        valkey.url,
        **MAIL_SETTINGS,
        SECRET_KEY=SECRET_KEY,
        SESSION_COOKIE_SECURE="0",
        WEB_CONCURRENCY="2",
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,  # all attackers have one address
        LOGIN_FAILURES_PER_ACCOUNT=UNLIMITED,
        MAIL_LIMIT_PER_RECIPIENT=UNLIMITED,  # so that each request for an account writes
        MAIL_LIMIT_TOTAL=UNLIMITED,
    )
    application = "wsgi:app" if AS_SHIPPED else "tests.attacks.app:app"
    with serving(application, environment, log) as instance:
        yield Site(instance, url)


def new_email() -> str:
    return f"somebody{next(_numbers)}@example.org"


def waiting(site: Site) -> str:
    """The email of somebody who waits for the confirmation."""
    email = new_email()
    assert site.ask("POST", SIGNUP, {"email": email, "password": PASSWORD}).status == 202
    return email


def known(site: Site) -> str:
    """The email of somebody who has confirmed it."""
    email = waiting(site)
    site.sql(
        "UPDATE users SET email_verified_at = now(), email_confirmation_due = false "
        "WHERE email = %s",
        email,
    )
    return email


def mailed_token(site: Site, email: str) -> str:
    [(sealed,)] = site.sql(
        "SELECT sealed FROM outgoing_mails m JOIN users u ON u.id = m.user_id "
        "WHERE u.email = %s AND m.kind = 'verify' ORDER BY m.id DESC LIMIT 1",
        email,
    )
    letter = Letters([SECRET_KEY]).open(bytes(sealed))
    assert letter is not None
    return letter.context["link"].rpartition("=")[2]


def test_of_fifty_uses_at_once_one_wins(site: Site) -> None:
    token = mailed_token(site, waiting(site))

    def use() -> tuple[int, str]:
        while True:
            answer = site.ask("POST", VERIFY, {"token": token, "password": PASSWORD})
            if answer.status not in {429, 503}:  # the password takes a hash
                return answer.status, "" if answer.status == 204 else answer.json()["code"]

    answers = at_once(*[use] * USES)
    assert sorted(answers, key=str) == [(204, "")] + [(400, "invalid_token")] * (USES - 1)


Ask = Callable[[Site, str], tuple[str, dict[str, object]]]


def sign_up(_site: Site, email: str) -> tuple[str, dict[str, object]]:
    return SIGNUP, {"email": email, "password": PASSWORD}


def resend(_site: Site, email: str) -> tuple[str, dict[str, object]]:
    return RESEND, {"email": email}


def verify(_site: Site, email: str) -> tuple[str, dict[str, object]]:
    return VERIFY, {"email": email, "code": "1234567", "password": PASSWORD}


ASKED = [sign_up, resend, verify]


@pytest.mark.parametrize("asked", ASKED)
def test_answers_are_alike(site: Site, asked: Ask) -> None:
    seen = []
    for email in (new_email(), waiting(site), known(site)):
        path, body = asked(site, email)
        seen.append(shown(site.ask("POST", path, body)))
    assert seen[0] == seen[1] == seen[2]


def seconds(site: Site, asked: Ask) -> tuple[list[float], list[float]]:
    """How long answers took for unknown and for known emails, in turn."""
    took: tuple[list[float], list[float]] = ([], [])
    there = known(site) if asked is sign_up else waiting(site)
    with site.connection() as connection:
        for number in range(PAIRS + WARM_UP):
            for which in (0, 1) if number % 2 else (1, 0):
                path, body = asked(site, there if which else new_email())
                started = time.perf_counter()
                ask(connection, "POST", path, body)
                took[which].append(time.perf_counter() - started)
    return took[0][WARM_UP:], took[1][WARM_UP:]


@pytest.mark.parametrize("asked", ASKED)
def test_the_time_is_the_same(site: Site, asked: Ask) -> None:
    found: list[float] = []
    while not found or (found[-1] <= SUSPICIOUS and len(found) < TRIES):
        found.append(rank_test(*seconds(site, asked)))
    sys.stdout.write(f"{asked}: p = {found}\n")
    assert found[-1] > SUSPICIOUS, found
