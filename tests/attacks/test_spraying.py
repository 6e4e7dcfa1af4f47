"""One password for many accounts, from several addresses: it leaves a trace that tells who."""

import http.client
import json
import os
import secrets
import signal
from contextlib import closing
from pathlib import Path

import psycopg2

from authapp import dev
from tests.support import instances
from tests.support.databases import add_migrated_database
from tests.support.settings import environment_for
from tests.support.waiting import wait_until

ADDRESSES = [f"198.51.100.{number}" for number in range(1, 7)]


def try_password(port: int, address: str, email: str) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        body = json.dumps({"email": email, "password": "the same for all of them"})
        headers = {"Content-Type": "application/json", "X-Forwarded-For": address}
        connection.request("POST", "/api/v1/login", body, headers)
        return connection.getresponse().status


def test_spraying_leaves_a_trace_that_the_end_of_a_process_does_not_lose(
    served_by: str, postgres: dev.PostgreSQL, valkey: dev.Valkey, tmp_path: Path
) -> None:
    url = add_migrated_database(postgres.url, "spraying")
    environment = environment_for(
        url, valkey.url, SECRET_KEY=secrets.token_urlsafe(48), TRUSTED_PROXY_HOPS="1"
    )
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()

        def written() -> dict[str, int]:
            """How many attempts are on record, by address."""
            cursor.execute(
                "SELECT address, sum(coalesce((details->>'count')::int, 1))::int"
                " FROM audit_events WHERE event = 'login.failed' GROUP BY address"
            )
            return dict(cursor.fetchall())

        with instances.serving("wsgi:app", environment, tmp_path / f"{served_by}.log") as running:
            for number, address in enumerate(ADDRESSES):
                assert try_password(running.port, address, f"p{number}@example.org") == 401
            wait_until(lambda: written() == dict.fromkeys(ADDRESSES, 1))
            for number, address in enumerate(ADDRESSES):  # these are counted with the first ones
                assert try_password(running.port, address, f"p{number}@example.org") == 401
            os.kill(running.process.pid, signal.SIGTERM)
            running.process.wait(20)
        assert written() == dict.fromkeys(ADDRESSES, 2)
    lines = [json.loads(line) for line in running.log().splitlines() if line.startswith("{")]
    tried = [line["address"] for line in lines if line.get("status") == 401]
    assert sorted(tried) == sorted(ADDRESSES * 2)
    assert "example.org" not in running.log()
