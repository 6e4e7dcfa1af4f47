"""How many calls, and through how many files of the package, a request passes: `make calls`.

A call is one of a function or method that is defined in `authapp`, in the thread that answers the
request. Libraries are not counted. Comprehensions and generator expressions belong to the function
that they stand in, because Python 3.12 and newer make no calls of most of them. A generator counts
each time it goes on. What happens after the answer, in other threads, is not counted.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import EnvironBuilder, run_wsgi_app

import authapp
from authapp import Auth, Config, create_app, current_user, dev
from authapp.storage import schema

PACKAGE = str(Path(authapp.__file__).parent) + os.sep
EMAIL, PASSWORD = "ada@example.org", "correct horse battery staple"
_PARTS_OF_FUNCTIONS = {"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}


@dataclass(frozen=True)
class Trace:
    """The calls that one request passed.

    Attributes:
        calls: the file and the function of each call, in their order.
    """

    calls: list[tuple[str, str]]

    @property
    def files(self) -> list[str]:
        """Each file once, in the order of the first call."""
        return list(dict.fromkeys(file for file, _ in self.calls))

    def __str__(self) -> str:
        return f"{len(self.calls)} calls through {len(self.files)} files"


def trace(act: Callable[[], Any]) -> Trace:
    """Count the calls of `act` in the current thread."""
    calls: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event != "call" or code.co_name in _PARTS_OF_FUNCTIONS:
            return
        if code.co_filename.startswith(PACKAGE):
            calls.append((code.co_filename.removeprefix(PACKAGE), code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
    return Trace(calls)


def ask(app: Flask, path: str, **request: Any) -> tuple[Trace, Headers]:
    """Have `app` answer a request, as a server does, and count its calls."""
    builder = EnvironBuilder(path, "https://localhost", **request)
    environ = builder.get_environ() | {"REMOTE_ADDR": "192.0.2.7"}
    answer: list[tuple[Any, str, Headers]] = []
    found = trace(lambda: answer.append(run_wsgi_app(app, environ, buffered=True)))
    ((_, status, headers),) = answer
    if not status.startswith("200"):
        raise RuntimeError(f"{path}: {status}")
    return found, headers


def warm_json_log_in(config: Config) -> tuple[Trace, str]:
    """A log-in by the API of the whole product, the third in a row; and its cookie."""
    product = create_app(config)
    services = Auth().state(product).services
    try:
        services.registration.sign_up(EMAIL, PASSWORD)
        credentials = {"email": EMAIL, "password": PASSWORD}
        for _ in range(3):
            found, headers = ask(product, "/api/v1/login", method="POST", json=credentials)
            services.background.drain()  # which has the connection that is open, else
    finally:
        services.close()
    session, *_ = (c for c in headers.getlist("Set-Cookie") if c.startswith("SESSION-TOKEN="))
    return found, session.partition(";")[0]


def warm_session_check(config: Config, cookie: str) -> Trace:
    """From a cookie to `current_user`, in a view of an app with `Auth(app)`; the third in a row."""
    app = Flask("calls")
    auth = Auth(app, config)
    app.add_url_rule("/", view_func=lambda: current_user.email)
    try:
        for _ in range(3):
            found, _ = ask(app, "/", headers={"Cookie": cookie})
    finally:
        auth.state(app).services.close()
    return found


@contextmanager
def measured_config(**settings: str) -> Iterator[Config]:
    """The settings of a product on migrated engines of our own, with hashing that costs little."""
    with tempfile.TemporaryDirectory() as folder, dev.private_socket_dir() as sockets:
        os.chmod(folder, 0o711)  # as root the servers run as another account
        home = Path(folder)
        with (
            dev.PostgreSQL.start(home / "postgres", sockets, "costs", durable=False) as postgres,
            dev.Valkey.start(home / "valkey", sockets, "costs", durable=False) as valkey,
        ):
            schema.upgrade(postgres.url)
            yield Config.from_mapping(
                {
                    "DATABASE_URL": postgres.url,
                    "REDIS_URL": valkey.url,
                    "SECRET_KEY": "a secret key for measuring costs only",
                    "PASSWORD_PEPPER": "a pepper for measuring costs and no more",
                    "BCRYPT_ROUNDS": "4",
                    **settings,
                }
            )


def main() -> None:
    """Print both on engines of our own; `--all` prints each call, too."""
    with measured_config() as config:
        log_in, cookie = warm_json_log_in(config)
        check = warm_session_check(config, cookie)
    for name, found in (("warm session check", check), ("JSON log-in", log_in)):
        print(f"{name}: {found}")  # noqa: T201 — a report
        if "--all" in sys.argv:
            print(*(f"  {file}  {function}" for file, function in found.calls), sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
