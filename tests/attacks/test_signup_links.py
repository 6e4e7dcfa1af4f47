"""Sign-up where addresses are confirmed, at the product as production starts it: neither answer nor
time tells who has an account, and of many uses of a link one wins."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import pytest

from authapp import dev
from authapp.mail.outbox import Letters
from tests.attacks.site import Site, ask
from tests.attacks.test_enumeration import shown
from tests.attacks.timing import AS_SHIPPED, Ask, told_apart
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


Request = Callable[[Site, str], tuple[str, dict[str, object]]]


def sign_up(_site: Site, email: str) -> tuple[str, dict[str, object]]:
    return SIGNUP, {"email": email, "password": PASSWORD}


def resend(_site: Site, email: str) -> tuple[str, dict[str, object]]:
    return RESEND, {"email": email}


def verify(_site: Site, email: str) -> tuple[str, dict[str, object]]:
    return VERIFY, {"email": email, "code": "1234567", "password": PASSWORD}


ASKED = [sign_up, resend, verify]


@pytest.mark.parametrize("asked", ASKED)
def test_answers_are_alike(site: Site, asked: Request) -> None:
    seen = []
    for email in (new_email(), waiting(site), known(site)):
        path, body = asked(site, email)
        seen.append(shown(site.ask("POST", path, body)))
    assert seen[0] == seen[1] == seen[2]


def test_the_time_is_the_same(site: Site) -> None:
    there = {asked: known(site) if asked is sign_up else waiting(site) for asked in ASKED}

    @contextmanager
    def attacker() -> Iterator[Ask]:
        with site.connection() as connection:

            def ask_for(kind: str) -> None:
                name, _, whom = kind.partition(" ")
                asked = next(asked for asked in ASKED if asked.__name__ == name)
                email = there[asked] if whom == "known" else new_email()
                path, body = asked(site, email)
                ask(connection, "POST", path, body)

            yield ask_for

    names = [asked.__name__ for asked in ASKED]
    assert not told_apart([(f"{name} known", f"{name} unknown") for name in names], attacker)
