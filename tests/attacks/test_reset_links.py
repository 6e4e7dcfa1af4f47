"""A forgotten password, at the product as production starts it: neither answer nor time tells
whether there is an account, and of many uses of a link one wins."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from authapp import dev
from authapp.mail.outbox import Letters
from tests.attacks.site import Answer, Site, ask
from tests.attacks.timing import Ask, told_apart
from tests.support.databases import add_migrated_database
from tests.support.instances import serving
from tests.support.mails import WITHOUT_VERIFICATION
from tests.support.settings import UNLIMITED, environment_for
from tests.support.threads import at_once
from tests.support.waiting import wait_until

SECRET_KEY = "a secret that nobody who asks for links knows"
FORGOT, RESET = "/api/v1/password/forgot", "/api/v1/password/reset"
NEW = "eleven brass clocks tick on"
USES = 50

_numbers = count(1)


@pytest.fixture(scope="module")
def site(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    url = add_migrated_database(postgres.url, "reset_links")
    log = tmp_path_factory.mktemp("reset_links") / f"{served_by}.log"
    with serving("wsgi:app", with_mail(url, valkey.url), log) as instance:
        yield Site(instance, url)


def with_mail(database_url: str, redis_url: str) -> dict[str, str]:
    return environment_for(
        database_url,
        redis_url,
        **WITHOUT_VERIFICATION,
        SECRET_KEY=SECRET_KEY,
        SESSION_COOKIE_SECURE="0",
        WEB_CONCURRENCY="2",
        LOGIN_LIMIT_PER_ADDRESS=UNLIMITED,  # all attackers have one address
        MAIL_LIMIT_PER_RECIPIENT=UNLIMITED,  # so that each request for an account writes
        MAIL_LIMIT_TOTAL=UNLIMITED,
    )


def mailed_token(site: Site, email: str) -> str:
    """The token of the link that an account is mailed."""
    assert site.ask("POST", FORGOT, {"email": email}).status == 202
    found: list[str] = []

    def is_written() -> bool:
        rows = site.sql(
            "SELECT sealed FROM outgoing_mails m JOIN users u ON u.id = m.user_id "
            "WHERE u.email = %s AND m.kind = 'reset' ORDER BY m.id DESC LIMIT 1",
            email,
        )
        for (sealed,) in rows:
            letter = Letters([SECRET_KEY]).open(bytes(sealed))
            assert letter is not None
            found.append(letter.context["link"].rpartition("=")[2])
        return bool(rows)

    wait_until(is_written, "no mail was written")
    return found[-1]


def test_of_fifty_uses_at_once_one_wins(site: Site) -> None:
    email = site.sign_up()
    token = mailed_token(site, email)

    def use(number: int) -> Answer:
        return site.ask("POST", RESET, {"token": token, "new_password": f"{NEW} {number}"})

    answers = at_once(*(partial(use, number) for number in range(USES)))
    statuses = [answer.status for answer in answers if isinstance(answer, Answer)]
    assert sorted(statuses) == [204] + [400] * (USES - 1)
    won = next(n for n, a in enumerate(answers) if isinstance(a, Answer) and a.status == 204)
    for number in (won, (won + 1) % USES):
        login = {"email": email, "password": f"{NEW} {number}"}
        expected = 200 if number == won else 401
        assert site.ask("POST", "/api/v1/login", login).status == expected
    told = site.sql("SELECT count(*) FROM audit_events WHERE event = 'password.reset'")
    assert told == [(1,)]


def test_a_server_that_ends_writes_the_mails_that_were_asked_for(
    site: Site, valkey: dev.Valkey, tmp_path: Path
) -> None:
    emails = [site.sign_up() for _ in range(5)]
    environment = with_mail(site.database_url, valkey.url)
    with serving("wsgi:app", environment, tmp_path / "ends.log") as instance:
        ends = Site(instance, site.database_url)
        for email in emails:
            assert ends.ask("POST", FORGOT, {"email": email}).status == 202
    written = site.sql(
        "SELECT u.email FROM outgoing_mails m JOIN users u ON u.id = m.user_id "
        "WHERE u.email = ANY(%s)",
        emails,
    )
    assert sorted(email for (email,) in written) == sorted(emails)


class Emails:
    """Emails for which a link is asked, each with or without an account in its own state."""

    def __init__(self, site: Site) -> None:
        self._known, self._unverified, self._deactivated = (site.sign_up() for _ in range(3))
        site.sql("UPDATE users SET email_verified_at = now() WHERE email = %s", self._known)
        site.sql("UPDATE users SET active = false WHERE email = %s", self._deactivated)

    def unknown(self) -> str:
        return f"nobody{next(_numbers)}@example.org"

    def unknown_again(self) -> str:
        return "nobody@example.org"

    def known(self) -> str:
        return self._known

    def unverified(self) -> str:
        return self._unverified

    def deactivated(self) -> str:
        return self._deactivated


@pytest.fixture(scope="module")
def emails(site: Site) -> Emails:
    return Emails(site)


PAIRED = [
    ("unknown", "known"),
    ("unknown_again", "known"),
    ("unknown", "unverified"),
    ("known", "deactivated"),
]


def test_the_time_is_the_same(site: Site, emails: Emails) -> None:
    @contextmanager
    def attacker() -> Iterator[Ask]:
        with site.connection() as connection:

            def forget(reason: str) -> None:
                body = {"email": getattr(emails, reason)()}
                assert ask(connection, "POST", FORGOT, body).status == 202

            yield forget

    assert not told_apart(PAIRED, attacker)


def test_no_log_holds_a_token(site: Site) -> None:
    token = mailed_token(site, site.sign_up())
    site.ask("GET", f"/reset?token={token}")
    site.ask("HEAD", f"/reset?token={token}", Accept="text/html")
    site.ask("POST", RESET, {"token": token, "new_password": NEW})
    site.ask("POST", RESET, {"token": token, "new_password": NEW})
    assert "/reset" in site.routes()
    assert token not in site.instance.log()
    assert token not in site.ask("GET", "/metrics").body.decode()
