"""The contests, and the servers that they need."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from authapp.storage import schema
from benchmarks import servers
from benchmarks.acts import acts
from benchmarks.contest import Contest
from benchmarks.servers import BenchmarkError, Server

WRITERS = 16  # sessions that are written to; more than are ever under way at once
ACCOUNT = {"email": "ada@example.org", "password": "correct horse battery"}


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

        def peer(name: str, **settings: str) -> Server:
            words = [*options, "--chdir", str(servers.PEERS), f"{name}:app"]
            log = "-".join([name, *settings.values()])
            return start(log, [python, "-m", "gunicorn", *words], environment | settings)

        def granian_peer(name: str) -> Server:
            words = ["-m", "granian", *servers.GRANIAN, "--working-dir", str(servers.PEERS)]
            return start(f"granian-{name}", [python, *words, f"{name}:app"], environment)

        wsgi, flask, redis_wsgi = peer("bare_wsgi"), peer("bare_flask"), peer("redis_wsgi")
        flask_login, django = peer("flask_login_app"), peer("django_app")
        flask_sql = peer("flask_login_app", SESSIONS="postgres")
        django_sql = peer("django_app", SESSIONS="postgres")
        product = start("authapp", [sys.executable, "-m", "gunicorn", "wsgi:app"], own)
        here = ["--bind", "127.0.0.1:PORT"]
        guarded = start(
            "guarded",
            [sys.executable, "-m", "gunicorn", *here, "benchmarks.guarded:app"],
            own | {"SESSION_MAX_PER_USER": "1000"},
        )
        fast = start("authapp-granian", [sys.executable, "-m", "authapp.serving.granian"], own)
        cookie = signed_up(product)  # all get the same request: to read it takes time, too
        ada = b'"Ada"'
        both_stores = "session from Redis, user from Postgres"
        found = [
            Contest("bare WSGI", "answers, asks nobody", wsgi, "/me", 200, ada, cookie),
            Contest("bare Flask", "answers, asks nobody", flask, "/me", 200, ada, cookie),
            Contest(
                "WSGI, one Redis GET",
                "asks, and looks at nothing",
                redis_wsgi,
                "/me",
                200,
                ada,
                cookie,
            ),
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
        found += _ours(product, "", cookie)
        people = [_again(product)["Cookie"] for _ in range(WRITERS)]
        found += _writes(guarded, people, flask_login, django)
        found += _cold(guarded, people, flask_sql, django_sql)
        found += acts(product, guarded, flask_login, django)
        found.append(
            Contest(
                "authapp: list of sessions",
                f"{WRITERS + 1} sessions from Postgres; log, metrics",
                product,
                "/api/v1/me/sessions",
                body=b'"current"',
                headers=cookie,
            )
        )
        found += [
            Contest(
                f"authapp in your app: {name}",
                "session from Redis, in a Flask view",
                guarded,
                path,
                200,
                ada,
                cookie,
            )
            for name, path in (("login_required", "/page"), ("current_user", "/who"))
        ]
        found += [
            Contest(
                f"{name}, granian",
                does,
                granian_peer(module),
                "/me",
                200,
                ada,
                cookie,
            )
            for name, does, module in (
                ("bare WSGI", "answers, asks nobody", "bare_wsgi"),
                ("WSGI, one Redis GET", "asks, and looks at nothing", "redis_wsgi"),
            )
        ]
        found += _ours(fast, ", granian", cookie)
        yield found


def _writes(
    guarded: Server, people: list[str], flask_login: Server, django: Server
) -> list[Contest]:
    """`session["n"] += 1` in a view for people who are signed in. Each person has a session of
    their own, as two writers of one session would wait for each other at authapp alone."""
    kept = "user from Postgres; session to Redis: lost with it, and the last of two writers wins"
    return [
        Contest(
            f"{name}: session write",
            does,
            server,
            "/count",
            body=b'"n"',
            cookies=tuple(cookies),
        )
        for name, does, server, cookies in (
            ("Flask-Session + Flask-Login", kept, flask_login, _people_of(flask_login)),
            ("Django, cached sessions + auth", kept, django, _people_of(django)),
            (
                "authapp in your app",
                "session committed to Postgres, merged with other writers; copy to Redis, sealed",
                guarded,
                people,
            ),
        )
    ]


def _cold(guarded: Server, people: list[str], flask: Server, django: Server) -> list[Contest]:
    """A check of a session without a copy in Redis, beside peers that have their sessions in
    Postgres. A session is asked for once at a time: else one request would find the copy of
    another."""
    both = "session and user from Postgres"
    return [
        Contest(f"{name}: cold check", does, server, path, body=ada, cookies=tuple(cookies))
        for name, does, server, path, ada, cookies in (
            ("Flask-Session + Flask-Login", both, flask, "/me", b'"Ada"', _people_of(flask)),
            ("Django, sessions + auth", both, django, "/me", b'"Ada"', _people_of(django)),
            (
                "authapp in your app",
                f"{both}; drops the copy, and fills it again, sealed",
                guarded,
                "/cold",
                b'"Ada"',
                people,
            ),
        )
    ]


def _people_of(peer: Server) -> list[str]:
    return [_logged_in(peer)["Cookie"] for _ in range(WRITERS)]


def _ours(server: Server, suffix: str, cookie: Mapping[str, str]) -> list[Contest]:
    """The product's own session checks; a forged token is one whose signature is wrong."""
    forged = {"Cookie": cookie["Cookie"][:-4] + "AAAA"}
    does = "sealed session with the user from Redis; log, metrics"
    me, forward_auth = "/api/v1/me", "/forward-auth/nginx"
    refused = "refused by arithmetic; log, metrics"
    named = f"{does}; identity headers"
    headers = f"{does}; security headers"
    return [
        Contest(f"authapp {me}{suffix}", headers, server, me, 200, b'"Ada"', cookie),
        Contest(f"authapp forward-auth{suffix}", named, server, forward_auth, 200, b"", cookie),
        Contest(
            f"authapp fast path, forged token{suffix}",
            refused,
            server,
            forward_auth,
            401,
            b"",
            forged,
        ),
        Contest(
            f"authapp in Flask, forged token{suffix}",
            f"{refused}; problem+json, security headers",
            server,
            me,
            401,
            b"session_invalid",
            forged,
        ),
    ]


def _logged_in(server: Server) -> dict[str, str]:
    answer = server.ask("POST", "/login")
    if answer.status != 200 or not answer.cookie:
        raise BenchmarkError(f"log-in at a peer answered {answer.status} {answer.body[:200]!r}")
    return {"Cookie": answer.cookie}


def signed_up(product: Server) -> dict[str, str]:
    """The cookie of somebody who signed up with authapp."""
    product.ask("POST", "/api/v1/signup", body={**ACCOUNT, "name": "Ada"})
    return _again(product)


def _again(product: Server) -> dict[str, str]:
    """The cookie of one more session of theirs."""
    answer = product.ask("POST", "/api/v1/login", body=ACCOUNT)
    if answer.status != 200 or not answer.cookie:
        raise BenchmarkError(f"log-in answered {answer.status} {answer.body[:200]!r}")
    return {"Cookie": answer.cookie}
