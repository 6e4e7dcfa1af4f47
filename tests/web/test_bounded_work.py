"""The cost of a request before a limit is asked is bounded, whatever the request brings.

Each entry point gets the largest input it takes, in the form that is slowest to read. Before, a
password of 64 KB of combining marks held the interpreter for seconds, thirty times a minute.
"""

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import bcrypt
import pytest
from flask import Flask

from authapp.authentication.limits import LoginLimits
from authapp.passwords import constant_time
from authapp.web.api.bodies import MAX_BODY
from tests.support.mails import WITHOUT_VERIFICATION
from tests.web.conftest import MakeApp
from tests.web.support import COOKIE, EMAIL, PASSWORD, behind_proxy, browser, log_in, sign_up

BOUND = 0.020  # seconds of processor time, before a limit is asked
BOUND_OF_ALL = 0.060  # of the whole request, without its hashing
TRIES = 8  # the best counts, as the machine has other work
REQUEST_LINE, HEADER, HEADERS = 8_000, 16_000, 99  # what gunicorn takes

Environ = dict[str, Any]


def filled(unit: str, size: int, before: str = "", after: str = "") -> str:
    return before + unit * ((size - len(before) - len(after)) // len(unit)) + after


MARKS = filled("\u0327\u0300", MAX_BODY // 6)  # 64 KB as JSON writes it
MARKS_IN_UTF_8 = filled("\u0327\u0300", MAX_BODY // 2 - 100)
TEXTS = {
    "marks": MARKS_IN_UTF_8,
    "marks in an address": f"a@{MARKS_IN_UTF_8}.org",
    "marks in a link": f"https://{MARKS_IN_UTF_8}",
    "ligatures": filled("\ufdfa", MAX_BODY // 3 - 100),
    "labels": "a@" + filled("é.", MAX_BODY // 3 - 100) + "org",
    "blanks": " " * (MAX_BODY - 200),
    "letters": "a" * (MAX_BODY - 200),
}
# what the estimate of a new password takes longest for
PASSWORDS = {
    "digits": "1112111311141115" * 8,
    "one digit": "1" * 64 + "2" * 64,
    "signs for letters": "4@8({[<3691!|70$5+%2" * 6,
    "words": "erandthe" * 15 + "x",
}
BODIES = {
    "numbers": filled("1.1111111111111111111e-300,", MAX_BODY, '{"a":[', "1]}"),
    "digits": filled("1", MAX_BODY, '{"email":', "}"),
    "objects": filled('{"a":1},', MAX_BODY, '{"a":[', "1]}"),
    "lists": filled("[[]],", MAX_BODY, '{"a":[', "1]}"),
    "depth": filled('{"a":', MAX_BODY),
    "names": "{" + ",".join(f'"{n:x}":0' for n in range(6_500)) + "}",
    "one name": filled('"email":1,', MAX_BODY, "{", '"email":1}'),
    "escapes": filled("\\u0327\\u0300", MAX_BODY, '{"email":"', '","password":"x"}'),
}
FORMS = {
    "fields": filled("a&", MAX_BODY),
    "fields that are no text": filled("%ff&", MAX_BODY),
    "escapes": filled("%f0", MAX_BODY, "email="),
    "percents": filled("%", MAX_BODY, "email="),
    "percents that fit": filled("%", 12_000, "email="),
    "marks": filled("%CC%A7%CC%80", 12_000, "password=x&email="),
    "marks as next": filled("%CC%A7%CC%80", 12_000, "email=a@b.org&password=x&next=//"),
}
PART = '--b\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\n1\r\n'
MULTIPART = {
    "parts": filled(PART, MAX_BODY),
    "parts that fit": filled(PART, 12_000, after="--b--\r\n"),
    "quotes": filled('\\"', 12_000, '--b\r\nContent-Disposition: form-data; name="', '"\r\n'),
}
QUERIES = {
    "fields": filled("a&", REQUEST_LINE),
    "fields that are no text": filled("%ff&", REQUEST_LINE),
    "percents": filled("%", REQUEST_LINE, "next="),
    "next": filled("%CC%A7%CC%80", REQUEST_LINE, "next=//"),
    "cursor": filled("A", REQUEST_LINE, "cursor="),
    "q": filled("%CC%A7%CC%80", REQUEST_LINE, "q="),
    "roles": filled("role=a&", REQUEST_LINE),
    "login": filled("%CC%A7%CC%80", REQUEST_LINE, "login=https://"),
}
PAGES = (
    "/login",
    "/signup",
    "/forgot",
    "/reset",
    "/admin/users",
    "/api/v1/users",
    "/forward-auth/nginx",
)

# headers of which gunicorn joins as many as it takes; of the others it takes one
JOINED: dict[str, tuple[str, ...]] = {
    "HTTP_COOKIE": (
        *(";", f"{COOKIE} ", f"{COOKIE}=x; ", f",{COOKIE} ", ",    ", f"DEVICE-TOKEN={'.' * 900};"),
    ),
    "HTTP_ACCEPT": ("*/*,", "a/b;q=0.1,", "text/html;a=b,", '"'),
    "HTTP_X_FORWARDED_FOR": ("a,", ",", '"', "[::1]:1,", "\\"),
    "HTTP_X_FORWARDED_HOST": ("a,", ",", '"'),
    "HTTP_X_FORWARDED_PROTO": ("https,", '"'),
    "HTTP_X_FORWARDED_PREFIX": ("/a,", ",", "/a"),
    "HTTP_X_FORWARDED_URI": ("/a", "//\xff", " ", "\\"),
    "HTTP_X_ORIGINAL_URL": ("https://a/", "//\xff"),
    "HTTP_X_REQUEST_ID": ("a", "-"),
    "HTTP_AUTHORIZATION": ("Bearer ", "Bearer.", "a."),
    "HTTP_X_ACCESS_TOKEN": ("eyJ.", ".", " "),
}
SINGLE: dict[str, tuple[str, ...]] = {
    "HTTP_USER_AGENT": ("Linux; U; ", "Mozilla/5.0 ", ";", "1.1.", " "),
    "HTTP_HOST": ("a.", "xn--", "\xe9", ":", "["),
    "HTTP_ORIGIN": ("https://a", "\xe9"),
    "HTTP_SEC_FETCH_SITE": ("a",),
    "CONTENT_TYPE": ("a/b;a=b;", ";", 'a="', "multipart/form-data; boundary="),
}


def request_of(
    path: str, method: str = "GET", body: str = "", kind: str = "", query: str = "", **more: str
) -> Environ:
    """The environment that gunicorn makes of a request; the body as it goes over the wire."""
    sent = body.encode()[:MAX_BODY]
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": "text/html",
        "HTTP_SEC_FETCH_SITE": "same-origin",
        "REMOTE_ADDR": "192.0.2.7",
        "HTTP_X_FORWARDED_FOR": "192.0.2.7",
        "CONTENT_TYPE": kind,
        "CONTENT_LENGTH": str(len(sent)),
        "wsgi.input": sent,
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **more,
    }


class Meter:
    """Measures requests of an application, on this thread and beside it."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self.asked_at: float | None = None

    def cost(self, environ: Environ) -> tuple[float, float, int]:
        """Processor time until a limit was asked, or until the answer; of all; and the status."""
        best = best_of_all = float("inf")
        status = 0

        def start(line: str, _headers: object, _error: object = None) -> Callable[..., None]:
            nonlocal status
            status = int(line[:3])
            return lambda _data: None

        for _ in range(TRIES):
            fresh = {**environ, "wsgi.input": io.BytesIO(environ["wsgi.input"])}
            self.asked_at = None
            of_all, begun = time.process_time(), time.thread_time()
            answer = self._app.wsgi_app(fresh, start)
            b"".join(answer)
            ended = time.thread_time()
            best_of_all = min(best_of_all, time.process_time() - of_all)
            best = min(best, (self.asked_at or ended) - begun)
            if hasattr(answer, "close"):
                answer.close()
            if best < BOUND and best_of_all < BOUND_OF_ALL:
                break
        return best, best_of_all, status


@contextmanager
def metered(app: Flask) -> Iterator[Meter]:
    """Without hashing, and without the pause of a refusal."""
    meter = Meter(app)
    ask = LoginLimits._hit

    def noting(*args: Any, **how: Any) -> Any:
        meter.asked_at = meter.asked_at or time.thread_time()
        return ask(*args, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoginLimits, "_hit", noting)
        patch.setattr(bcrypt, "checkpw", lambda *_: False)
        patch.setattr(bcrypt, "hashpw", lambda *_: b"$2b$04$" + b"x" * 53)
        patch.setattr(constant_time, "REFUSAL_SECONDS", 0)
        yield meter


def as_json(**fields: str) -> dict[str, str]:
    return {"body": json.dumps(fields, ensure_ascii=False), "kind": "application/json"}


def as_form(**fields: str) -> dict[str, str]:
    return {"body": urlencode(fields)[:12_000], "kind": "application/x-www-form-urlencoded"}


def texts() -> Iterator[tuple[str, Environ]]:
    """Every field that takes text, in each call that reads it."""
    calls = {
        "/api/v1/login": ("email", "password"),
        "/api/v1/tokens": ("email", "password"),
        "/api/v1/signup": ("email", "password", "name"),
        "/api/v1/password/forgot": ("email",),
        "/api/v1/password/reset": ("token", "new_password"),
        "/login": ("email", "password", "next"),
        "/forgot": ("email",),
        "/reset": ("token", "new_password"),
        "/signup": ("email", "password", "name"),
    }
    all_sound = {"email": EMAIL, "password": PASSWORD, "token": "t" * 43, "new_password": PASSWORD}
    for path, fields in calls.items():
        needed = {"email", "password"} if "password" in fields else set(fields)
        sound = {name: all_sound[name] for name in needed}
        for field in fields:
            for name, text in TEXTS.items():
                write = as_json if path.startswith("/api/") else as_form
                sent = write(**(sound | {field: text}))
                yield f"{path} {field}: {name}", request_of(path, "POST", **sent)


def passwords() -> Iterator[tuple[str, Environ]]:
    """Passwords that somebody chooses."""
    for path, write in (("/api/v1/signup", as_json), ("/signup", as_form)):
        for name, password in PASSWORDS.items():
            sent = write(email=EMAIL, password=password)
            yield f"{path}: {name}", request_of(path, "POST", **sent)
        many = {"email": f"{'abc.' * 15}d@{'efg.' * 40}org", "name": "hij " * 24}
        sent = write(password="abc efg hij klm " * 7, **many)
        yield f"{path}: many words of the person", request_of(path, "POST", **sent)


def bodies() -> Iterator[tuple[str, Environ]]:
    for path in ("/api/v1/login", "/api/v1/signup", "/api/v1/tokens", "/api/v1/tokens/refresh"):
        for name, body in BODIES.items():
            yield f"{path}: {name}", request_of(path, "POST", body, "application/json")
    for path in ("/login", "/signup"):
        for name, body in FORMS.items():
            kind = "application/x-www-form-urlencoded"
            yield f"{path}: {name}", request_of(path, "POST", body, kind)
        for name, body in MULTIPART.items():
            kind = "multipart/form-data; boundary=b"
            yield f"{path} in parts: {name}", request_of(path, "POST", body, kind)


def queries() -> Iterator[tuple[str, Environ]]:
    for path in PAGES:
        for name, query in QUERIES.items():
            yield f"{path}?{name}", request_of(path, query=query)
    for unit in ("/", "a/", "..", "-", "0", "\xe9"):
        yield f"a path of {unit!r}", request_of("/" + filled(unit, REQUEST_LINE))
        path = f"/account/sessions/{filled(unit, REQUEST_LINE)}/end"
        yield f"an id of {unit!r}", request_of(path, "POST")


def headers() -> Iterator[tuple[str, Environ]]:
    calls = [
        request_of("/login", "POST", **as_form(email=EMAIL, password="wrong")),
        request_of("/api/v1/login", "POST", **as_json(email=EMAIL, password="wrong")),
        request_of("/nothing"),
        request_of("/logout", "POST"),
        request_of("/api/v1/me"),
        request_of("/forward-auth/nginx"),
        request_of("/forward-auth/redirect", HTTP_ACCEPT="text/html"),
    ]
    for call in calls:
        for kind, size in ((JOINED, HEADER * HEADERS), (SINGLE, HEADER)):
            for header, units in kind.items():
                for unit in units:
                    value = filled(unit, size, f"{COOKIE}=x" if header == "HTTP_COOKIE" else "")
                    name = f"{call['REQUEST_METHOD']} {call['PATH_INFO']} {header} of {unit[:20]!r}"
                    yield name, {**call, header: value}


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    """Behind a proxy, so that all headers of proxies are read; nobody is over a limit."""
    many = "1000000 per hour"
    app = make_app(
        **WITHOUT_VERIFICATION,
        TRUSTED_PROXY_HOPS=1,
        LOGIN_LIMIT_PER_ADDRESS=many,
        LOGIN_FAILURES_PER_ACCOUNT=many,
    )
    sign_up(app)
    warm = behind_proxy(browser(app))
    assert log_in(warm).status_code == 303  # tables that are read once
    warm.post("/signup", data={"email": "new@example.org", "password": PASSWORD})
    assert warm.get("/account/sessions").status_code == 200
    return app


INPUTS = {
    "text": texts,
    "a new password": passwords,
    "a body": bodies,
    "an address": queries,
    "a header": headers,
}


@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_no_input_costs_much_before_a_limit_is_asked(
    app: Flask, inputs: Callable[[], Iterator[tuple[str, Environ]]]
) -> None:
    costly = {}
    with metered(app) as meter:
        for name, environ in inputs():
            before, of_all, status = meter.cost(environ)
            assert status < 500, name
            if before > BOUND or of_all > BOUND_OF_ALL:
                costly[name] = f"{before * 1000:.0f} ms, {of_all * 1000:.0f} ms in all"
    assert costly == {}
