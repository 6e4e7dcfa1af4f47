"""A guarded page needs more than the session has: people are led to where they can mend it.

Scripts and programs get 403, with a code that says what is missing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from authapp import Config, create_app
from tests.web.conftest import MakeApp, Settings
from tests.web.support import (
    PASSWORD,
    Stores,
    behind_proxy,
    browser,
    log_in,
    services_of,
    sign_up,
    token_of,
)
from tests.web.test_forward_auth import told
from tests.web.test_forward_auth_table import APP, ASKERS, AUTH, PEOPLE, PROXIES, ask, asked

RULES = f"""
[[rules]]
host = "{APP}"
path = "/strong"
factor = 2

[[rules]]
host = "{APP}"
path = "/known"
verified = true

[[rules]]
host = "{APP}"
path = "/both"
roles = ["admin"]
factor = 2

[[rules]]
host = "{APP}"
path = "/"
factor = 2
verified = true
"""
ONWARD = f"next=https%3A//{APP}"
CONFIRM, SECURITY, ACCOUNT = "/account/confirm", "/account/security", "/account"


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        amr: of the session.
        page: where people are led; empty: they are refused, too.
        code: of the refusal.
    """

    path: str
    amr: str
    page: str
    code: str
    holds_factor: bool = False
    is_verified: bool = True


CASES = {
    "no factor": Case("/strong", "{pwd}", SECURITY, "factor_missing"),
    "a factor that was not shown": Case("/strong", "{pwd}", CONFIRM, "step_up_required", True),
    "a factor alone": Case("/strong", "{otp}", "", "forbidden", True),
    "an address": Case("/known", "{pwd}", ACCOUNT, "email_unverified", is_verified=False),
    "a role, too": Case("/both", "{pwd}", "", "forbidden", True),
    "an address, too": Case("/x", "{pwd}", CONFIRM, "step_up_required", True, is_verified=False),
    "an address at last": Case("/x", "{pwd,otp}", ACCOUNT, "email_unverified", True, False),
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rules") / "rules.toml"
    file.write_text(RULES)
    return file


@pytest.fixture(scope="module")
def reached(rules: Path) -> dict[str, str]:
    return {
        "PUBLIC_URL": f"https://{AUTH}",
        "TRUSTED_PROXY_HOPS": "1",
        "ALLOWED_REDIRECT_HOSTS": APP,
        "GUARD_RULES": str(rules),
        "MAIL_URL": "smtp://127.0.0.1:1",
        "MAIL_FROM": "auth@example.org",
        "EMAIL_VERIFICATION": "off",
    }


@pytest.fixture(scope="module")
def app(settings: Settings, shared_stores: Stores, reached: dict[str, str]) -> Iterator[Flask]:
    shared_stores.clear()
    app = create_app(Config.from_mapping({**settings, **reached}))
    sign_up(app)
    yield app
    services_of(app).close()


@pytest.fixture(scope="module")
def token(app: Flask) -> str:
    client = behind_proxy(browser(app))
    assert log_in(client).status_code == 303
    return token_of(client)


def set_up(stores: Stores, case: Case) -> None:
    """As no call makes it: each alone."""
    stores.sql(
        "SET LOCAL authapp.fenced = 'on';"
        "UPDATE sessions SET amr = %s, ver = ver + 1;"
        "UPDATE users SET second_factor = %s, ver = ver + 1,"
        " email_verified_at = CASE WHEN %s THEN now() END",
        *(case.amr, case.holds_factor, case.is_verified),
    )
    stores.redis.flushall()


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("lacking", CASES)
@pytest.mark.usefixtures("through")
def test_people_are_led_where_they_can_mend_it_and_scripts_are_told(
    app: Flask, token: str, shared_stores: Stores, proxy: str, lacking: str
) -> None:
    case = CASES[lacking]
    set_up(shared_stores, case)
    for method in ("GET", "POST"):
        for asker, headers in ASKERS.items():
            sent = {name.replace("-", "_"): value for name, value in headers.items()}
            answer = ask(app, asked(proxy, method, f"{case.path}?a=b"), token, **sent)
            if not (case.page and asker in PEOPLE):
                assert answer.status_code == 403, asker
                assert told(answer)["Remote-User"]
                is_person = asker in PEOPLE
                assert answer.mimetype == ("text/html" if is_person else "application/problem+json")
                assert is_person or answer.get_json()["code"] == case.code
                assert "Location" not in answer.headers
                continue
            expected = 401 if proxy == "nginx" else 302 if method == "GET" else 303
            assert answer.status_code == expected
            onward = f"{ONWARD}{case.path}%3Fa%3Db"
            assert answer.headers["Location"] == f"https://{AUTH}{case.page}?{onward}"
            assert set(told(answer).values()) == {""}


def test_the_page_of_the_proof_leads_back(app: Flask, shared_stores: Stores) -> None:
    """Browsers hold the redirect after a form to the page's policy, too."""
    set_up(shared_stores, Case("/strong", "{pwd}", "", ""))
    client = behind_proxy(browser(app))
    assert log_in(client).status_code == 303
    path = f"{CONFIRM}?{ONWARD}/strong"
    assert APP in client.get(path).headers["Content-Security-Policy"]
    answer = client.post(path, data={"password": PASSWORD})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"https://{APP}/strong")


def test_where_there_is_no_page_people_are_refused(
    make_app: MakeApp, reached: dict[str, str], stores: Stores
) -> None:
    """Without mail nobody can confirm an address."""
    without_mail = {k: v for k, v in reached.items() if not k.startswith(("MAIL_", "EMAIL_"))}
    app = make_app(**without_mail)
    sign_up(app)
    client = behind_proxy(browser(app))
    assert log_in(client).status_code == 303
    set_up(stores, CASES["an address"])
    request = asked("traefik", "GET", "/known")
    answer: TestResponse = ask(app, request, token_of(client), Accept="text/html")
    assert (answer.status_code, answer.mimetype) == (403, "text/html")
