"""The cost of `Remote-Assertion`: `python -m benchmarks.assertions`.

Processor time of the thread that answers, for a forward-auth check in this process: without an
assertion, with one that is used again, and with one that is signed for it. The three alternate.
Servers and proxies are left out. Verifying is measured beside them.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import Flask
from werkzeug.test import run_wsgi_app

from authapp import Auth, create_app
from authapp.assertions import Verifier
from benchmarks.calls import measured_config, warm_json_log_in

ISSUER, APP = "https://auth.example.org", "https://app.example.org"
ROUNDS, CHECKS = 9, 300


@contextmanager
def product() -> Iterator[tuple[Flask, str]]:
    """The whole product on engines of our own, and the cookie of somebody who is signed in."""
    with measured_config(PUBLIC_URL=ISSUER, LOG_ALLOWED_CHECKS="off") as config:
        _, cookie = warm_json_log_in(config)
        app = create_app(config)
        yield app, cookie
        Auth().state(app).services.close()


def checking(app: Flask, cookie: str, query: str, method: Callable[[], str]) -> Callable[[], str]:
    """A check as nginx asks for it; it gives the assertion."""
    asked = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/forward-auth/nginx",
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "HTTP_COOKIE": cookie,
        "HTTP_X_ORIGINAL_URL": f"{APP}/page",
        "REMOTE_ADDR": "192.0.2.7",
    }

    def check() -> str:
        environ = {**asked, "HTTP_X_ORIGINAL_METHOD": method()}
        _, status, headers = run_wsgi_app(app, environ)
        if not status.startswith("200"):
            raise RuntimeError(status)
        return headers["Remote-Assertion"]

    return check


def microseconds(act: Callable[[], object]) -> float:
    """Of the processor, for one."""
    before = time.thread_time()
    for _ in range(CHECKS):
        act()
    return (time.thread_time() - before) / CHECKS * 1e6


def main() -> None:
    with product() as (app, cookie):
        numbers = itertools.count()
        reused = checking(app, cookie, "assertion=1", lambda: "GET")
        keys = app.test_client().get("/.well-known/jwks.json", base_url="https://localhost")
        verifier, assertion = Verifier(ISSUER, APP, keys.get_json()), reused()
        acts: dict[str, Callable[[], object]] = {
            "check without an assertion": checking(app, cookie, "", lambda: "GET"),
            "check with one that is used again": reused,
            "check with one that is signed": checking(
                app, cookie, "assertion=1", lambda: f"M{next(numbers)}"
            ),
            "to verify one": lambda: verifier.verify(assertion, "GET"),
        }
        for act in acts.values():
            microseconds(act)  # warm
        rounds = [{name: microseconds(act) for name, act in acts.items()} for _ in range(ROUNDS)]
    for name in acts:
        print(f"{statistics.median(r[name] for r in rounds):6.0f} µs  {name}")  # noqa: T201


if __name__ == "__main__":
    main()
