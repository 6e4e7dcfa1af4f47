"""What is measured: each contest is one request to one server, checked before it is timed."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from authapp import schema
from benchmarks import servers
from benchmarks.servers import BenchmarkError, Server

ACCOUNT = {"email": "ada@example.org", "password": "correct horse battery"}


@dataclass(frozen=True)
class Contest:
    """
    Attributes:
        does: what is done for the answer, so that nobody compares what differs.
        body: is in the answer.
    """

    name: str
    does: str
    server: Server
    path: str
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """
        Raises:
            BenchmarkError: the answer is not the one that shall be measured.
        """
        answer = self.server.ask("GET", self.path, self.headers)
        if answer.status != self.status or self.body not in answer.body:
            raise BenchmarkError(
                f"{self.name}: {self.path} answered {answer.status} {answer.body[:200]!r}"
            )


@contextmanager
def contests(
    database_url: str, redis_url: str, folder: Path, *, pinned: bool
) -> Iterator[list[Contest]]:
    """All of them, their servers running; they share one PostgreSQL and one Valkey."""
    environment = {**os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url}
    own = {**environment, **servers.SETTINGS}
    options = servers.gunicorn_options()
    python = servers.peers_python()
    script = servers.express()
    schema.upgrade(database_url)
    with ExitStack() as stack:

        def start(name: str, command: list[str | Path], environment: Mapping[str, str]) -> Server:
            log = folder / f"{name}.log"
            return stack.enter_context(servers.serving(command, environment, log, pinned=pinned))

        def peer(name: str) -> Server:
            words = [*options, "--chdir", str(servers.PEERS), f"{name}:app"]
            return start(name, [python, "-m", "gunicorn", *words], environment)

        wsgi, flask = peer("bare_wsgi"), peer("bare_flask")
        flask_login, django = peer("flask_login_app"), peer("django_app")
        product = start("authapp", [sys.executable, "-m", "gunicorn", "wsgi:app"], own)
        here = ["--bind", "127.0.0.1:PORT"]
        guarded = start(
            "guarded", [sys.executable, "-m", "gunicorn", *here, "benchmarks.guarded:app"], own
        )
        ada = b'"Ada"'
        both_stores = "session from Redis, user from Postgres"
        found = [
            Contest("bare WSGI", "answers, asks nobody", wsgi, "/me", body=ada),
            Contest("bare Flask", "answers, asks nobody", flask, "/me", body=ada),
            Contest(
                "Flask-Session + Flask-Login",
                both_stores,
                flask_login,
                "/me",
                body=ada,
                headers=_logged_in(flask_login),
            ),
            Contest(
                "Django, cached sessions + auth",
                both_stores,
                django,
                "/me",
                body=ada,
                headers=_logged_in(django),
            ),
        ]
        if script is None:
            servers.say("no node or npm here: Express is left out (apt-get install nodejs npm)")
        else:
            express = start("express", ["node", script], environment)
            found.append(
                Contest(
                    "Express, one Redis GET",
                    "session with the user in it from Redis; no log, no metrics",
                    express,
                    "/me",
                    body=ada,
                    headers=_logged_in(express),
                )
            )
        cookie = signed_up(product)
        forged = {"Cookie": cookie["Cookie"][:-4] + "AAAA"}
        all_of_it = "sealed session with the user from Redis; log, metrics, security headers"
        found += [
            Contest("authapp /api/v1/me", all_of_it, product, "/api/v1/me", 200, ada, cookie),
            Contest(
                "authapp, forged token",
                "refused by arithmetic; log, metrics, problem+json",
                product,
                "/api/v1/me",
                401,
                b"session_invalid",
                forged,
            ),
            Contest(
                "authapp in your app: login_required",
                "session from Redis",
                guarded,
                "/page",
                200,
                ada,
                cookie,
            ),
            Contest(
                "authapp in your app: current_user",
                "session from Redis",
                guarded,
                "/who",
                200,
                ada,
                cookie,
            ),
            Contest(
                "authapp verify lane",
                f"{all_of_it.partition(';')[0]}; identity headers",
                product,
                "/forward-auth/nginx",
                200,
                b"",
                cookie,
            ),
            Contest(
                "authapp verify lane, forged token",
                "refused by arithmetic",
                product,
                "/forward-auth/nginx",
                401,
                b"",
                forged,
            ),
        ]
        yield found


def _logged_in(server: Server) -> dict[str, str]:
    answer = server.ask("POST", "/login")
    if answer.status != 200 or not answer.cookie:
        raise BenchmarkError(f"log-in at a peer answered {answer.status} {answer.body[:200]!r}")
    return {"Cookie": answer.cookie}


def signed_up(product: Server) -> dict[str, str]:
    """The cookie of somebody who signed up with authapp."""
    product.ask("POST", "/api/v1/signup", body={**ACCOUNT, "name": "Ada"})
    answer = product.ask("POST", "/api/v1/login", body=ACCOUNT)
    if answer.status != 200 or not answer.cookie:
        raise BenchmarkError(f"log-in answered {answer.status} {answer.body[:200]!r}")
    return {"Cookie": answer.cookie}
