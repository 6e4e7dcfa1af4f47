"""The filter of deploy/ finds the addresses that try passwords, in the lines of a real server."""

import http.client
import json
import os
import re
import secrets
import shutil
import subprocess
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pyotp
import pytest

from authapp import dev
from tests.deploy.files import DEPLOY
from tests.support import instances
from tests.support.databases import add_migrated_database
from tests.support.settings import environment_for
from tests.web.test_authorization import ROWS, ROWS_WITH_MAIL, strangers_calls

EMAIL, PASSWORD = "ada@example.org", "seven quiet rivers meet"
VICTIM = "203.0.113.99"
# addresses that a client makes up, as they would look if they could end the field
MADE_UP = (
    f'x","address":"{VICTIM}","method":"POST","route":"/login","status":401,"x":"',
    f'192.0.2.1"}}\n{{"event":"request","request_id":"a","address":"{VICTIM}"',
    f"{VICTIM}.example.org",
)

POSTS = [(method, path) for method, path, _ in (*ROWS, *ROWS_WITH_MAIL) if method == "POST"]
POSTS = list(dict.fromkeys(POSTS))

OTHER = {"email": "bea@example.org", "password": PASSWORD}
WRONG = {"email": EMAIL, "password": "wrong"}
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}


def status(port: int, address: str, method: str, path: str, body: str = "") -> int:
    return ask(port, address, method, path, body)[0]


def ask(
    port: int, address: str, method: str, path: str, body: str = "", token: str = ""
) -> tuple[int, Any]:
    kind = {"Content-Type": "application/json"} if path.startswith("/api/") else FORM
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        headers = {**kind, "X-Forwarded-For": address} if address else {**kind}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content[:1] == b"{" else None


def has_factor(port: int, address: str, person: dict[str, str]) -> None:
    """A person signs up and sets an authenticator app up."""
    assert status(port, address, "POST", "/api/v1/signup", json.dumps(person)) == 201
    token = ask(port, address, "POST", "/api/v1/tokens", json.dumps(person))[1]["access_token"]
    factor = "/api/v1/me/factors/totp"
    secret = ask(port, address, "POST", factor, token=token)[1]["secret"]
    code = json.dumps({"code": pyotp.TOTP(secret).now()})
    assert ask(port, address, "POST", f"{factor}/confirm", code, token)[0] == 200


@pytest.fixture(scope="module")
def log(
    served_by: str,
    postgres: dev.PostgreSQL,
    valkey: dev.Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The log of a server while some clients try passwords and others do not."""
    path = tmp_path_factory.mktemp("fail2ban") / f"{served_by}.log"
    environment = environment_for(
        add_migrated_database(postgres.url, "fail2ban"),
        valkey.url,
        SECRET_KEY=secrets.token_urlsafe(48),
        TRUSTED_PROXY_HOPS="1",
        LOGIN_LIMIT_PER_ADDRESS="3 per hour",
        LOGIN_FAILURES_PER_ACCOUNT="1000 per hour",
    )
    right = {"email": EMAIL, "password": PASSWORD}
    with instances.serving("wsgi:app", environment, path) as running:
        port = running.port
        assert status(port, "192.0.2.1", "POST", "/api/v1/signup", json.dumps(right)) == 201
        # those who try passwords
        assert status(port, "192.0.2.11", "POST", "/login", f"email={EMAIL}&password=wrong") == 401
        assert status(port, "192.0.2.12", "POST", "/api/v1/login", json.dumps(WRONG)) == 401
        assert status(port, "2001:db8::13", "POST", "/api/v1/tokens", json.dumps(WRONG)) == 401
        for expected in (401, 401, 401, 429, 429):
            assert (
                status(port, "192.0.2.14", "POST", "/api/v1/login", json.dumps(WRONG)) == expected
            )
        code = json.dumps({"login_token": "none of ours", "method": "totp", "code": "000000"})
        assert status(port, "192.0.2.15", "POST", "/api/v1/login/factor", code) == 401
        # those who do not
        assert status(port, "192.0.2.21", "POST", "/api/v1/login", json.dumps(right)) == 200
        assert status(port, "192.0.2.22", "GET", "/login") == 200
        assert status(port, "192.0.2.23", "GET", "/api/v1/me") == 401
        assert status(port, "192.0.2.24", "POST", "/api/v1/me/password", "{}") == 401
        has_factor(port, "192.0.2.25", OTHER)
        for call in ("login", "tokens"):
            answer = ask(port, "192.0.2.26", "POST", f"/api/v1/{call}", json.dumps(OTHER))
            assert (answer[0], answer[1]["code"]) == (401, "second_factor_required")
        for made_up in MADE_UP:
            ask(port, made_up.replace("\n", " "), "POST", "/api/v1/login", json.dumps(WRONG))
    return path


TRIED = Counter({"192.0.2.11": 1, "192.0.2.12": 1, "2001:db8::13": 1, "192.0.2.14": 5})
TRIED["192.0.2.15"] = 1


def run_filter(*arguments: str) -> str:
    tool = shutil.which("fail2ban-regex")
    if tool is None:
        pytest.skip("fail2ban-regex is missing: install Debian's package fail2ban")
    done = subprocess.run(
        [tool, *arguments, str(DEPLOY / "fail2ban-filter.conf")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,  # it fails where it finds nothing
        env={**os.environ, "TZ": "UTC"},
    )
    return done.stdout


def found(lines: Path) -> Counter[str]:
    """How often the filter finds each address. 127.0.0.1 is the proxy, which made-up ones leave."""
    addresses = run_filter("--out", "ip", str(lines)).split()
    return Counter(address for address in addresses if address != "127.0.0.1")


def test_the_filter_finds_those_who_try_passwords_and_nobody_else(log: Path) -> None:
    assert found(log) == TRIED


def test_every_call_that_strangers_may_try_counts(log: Path, tmp_path: Path) -> None:
    """In the form of a real line."""
    line = next(line for line in log.read_text().splitlines() if '"192.0.2.12"' in line)
    expected, lines = Counter[str](), []
    for number, (method, path) in enumerate(POSTS):
        address = f"198.51.100.{number}"
        route = path.replace("<missing>", "<invitation>")
        other = line.replace('"192.0.2.12"', f'"{address}"').replace("/api/v1/login", route)
        lines += [other, other.replace('"status":401', '"status":429')]
        lines += [other.replace('"status":401', '"status":200'), other.replace("POST", "GET")]
        if (method, path) in strangers_calls() and not path.endswith("/options"):
            expected[address] = 2
    assert len(expected) > 15
    (file := tmp_path / "lines").write_text("\n".join(lines))
    assert found(file) == expected


def test_the_filter_reads_lines_of_the_journal(log: Path, tmp_path: Path) -> None:
    lines = [f"host gunicorn[812]: {line}" for line in log.read_text().splitlines()]
    (journal := tmp_path / "journal").write_text("\n".join(lines))
    assert found(journal) == TRIED


def test_the_time_is_that_of_the_line(log: Path) -> None:
    line = next(line for line in log.read_text().splitlines() if '"192.0.2.11"' in line)
    old = re.sub('"timestamp":"[^"]*"', '"timestamp":"2026-01-02T03:04:05.678901Z"', line)
    assert re.search(r"192\.0\.2\.11  Fri Jan +0?2 03:04:05 2026", run_filter("-v", old))


def test_the_jail_uses_the_filter() -> None:
    text = (DEPLOY / "fail2ban-jail.conf").read_text()
    assert "\n[authapp]\n" in text
    assert "\nfilter   = authapp\n" in text
