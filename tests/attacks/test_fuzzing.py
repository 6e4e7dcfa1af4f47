"""Requests of no shape: whatever is in the address, the fields, the headers, the cookies and the
body, each page and call answers with less than 500, and refuses in its own form.

`FUZZ_CASES` is how many are drawn, the same ones each time; `HYPOTHESIS_PROFILE=default` draws
others.
"""

import json
import os
import re
from collections import Counter
from itertools import count
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from authapp.session_records import Live

from ..helpers import CLIENT, PASSWORD
from ..web.support import COOKIE, services_of

CASES = int(os.environ.get("FUZZ_CASES", "400"))

NAMES = (
    *("email", "password", "name", "image", "remember", "next", "current_password", "new_password"),
    *("roles", "active", "refresh_token", "refresh", "q", "cursor", "limit", "done", "within"),
    *("user", "event", "role"),
)
TEXTS = (
    *("", "ada@example.org", PASSWORD, "on", "true", "1", "-1", "0", "admin", "/account", "//x"),
    *("/\\x", "https://example.org/a.png", "https://[", "http://localhost:0/", "javascript:1"),
    *("null", "[]", "{}", "\x00", "%00", "%", "'", '"', "<script>", "{{ 1 }}", "%(x)s", "{x}"),
    *("\ufeff", "\u202e", "\u2028", "\ud7ff", "\U0010ffff", "I\u0307", "\u0663", "\u00b2"),
    *("9" * 20, "9" * 5000, "1e400", "NaN", "a" * 3000, "\u0300" * 300, "=" * 50, "user.created"),
)
HEADERS = (
    *("Accept", "Accept-Language", "Accept-Encoding", "Accept-Charset", "User-Agent", "Referer"),
    *("Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "X-Request-ID", "X-Forwarded-For"),
    *("X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Authorization", "X-Access-Token"),
    *("If-Modified-Since", "If-None-Match", "If-Range", "Range", "Expect", "Content-Encoding"),
    *("X-HTTP-Method-Override", "Cookie", "Upgrade", "Date", "Host", "Max-Forwards", "Via"),
)
HEADER_TEXTS = (
    *("Bearer", "Bearer ", "Bearer a.b.c", "Basic YTpi", "Digest x", f"{COOKIE}=x", COOKIE, "*/*"),
    *("text/html;q=nan", "application/json;q=1e400", "application/json", "de-DE,de;q=0.9,*;q=-1"),
    *("same-origin", "cross-site", "none", "null", "http://localhost", "http://[", "localhost:0"),
    *("localhost:99999999", "a@b", "bytes=9-1", "bytes=-", "bytes=0-0", "gzip", "100-continue"),
    *("Sun, 99 Foo 9999 00:00:00 GMT", 'W/"', '"', "for=[", "::1, 2", "a" * 5000, "\x7f", "\xff"),
)
KINDS = (
    *("", "text/html", "application/xml", "application/json", "application/json; charset=utf-16"),
    *('application/json; a="', "application/problem+json", "application/x-www-form-urlencoded"),
    *("application/x-www-form-urlencoded; charset=idna", "multipart/form-data"),
    *("multipart/form-data; boundary=b", "multipart/form-data; boundary=", "multipart/mixed"),
)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "QUERY")

values = st.one_of(st.sampled_from(TEXTS).map(str.encode), st.binary(max_size=60))
fields = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=6)
header_text = st.one_of(
    st.sampled_from(HEADER_TEXTS),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60),
)
headers = st.dictionaries(st.sampled_from(HEADERS), header_text, max_size=4)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(TEXTS)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
    ),
    max_leaves=8,
)


def as_form(pairs: list[tuple[str, bytes]]) -> bytes:
    return "&".join(f"{name}={quote_from_bytes(value)}" for name, value in pairs).encode()


def as_parts(pairs: list[tuple[str, bytes]]) -> bytes:
    head = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    return b"".join(head % (name.encode(), value) for name, value in pairs) + b"--b--\r\n"


forms, parts = fields.map(as_form), fields.map(as_parts)
documents = json_values.map(lambda value: json.dumps(value).encode())
bodies = st.one_of(
    st.tuples(st.just("application/x-www-form-urlencoded"), forms),
    st.tuples(st.just("multipart/form-data; boundary=b"), parts),
    st.tuples(st.just("application/json"), documents),
    st.tuples(st.sampled_from(KINDS), st.one_of(forms, parts, documents, st.binary(max_size=200))),
)

_numbers = count(1)


def somebody(app: Flask, role: str) -> Live:
    """Somebody new, signed in."""
    of = services_of(app).authentication
    email = f"fuzzing{next(_numbers)}@example.org"
    of.sign_up(email, PASSWORD, "Ada", (role,))
    return of.log_in(email, PASSWORD, CLIENT)


def path_of(rule: Rule, live: Live | None, draw: Any) -> str:
    """The address of a page or call, with ids that are sometimes there."""

    def argument(found: re.Match[str]) -> str:
        if live and draw(st.booleans()):
            of = live.record.id if "session_id" in found.group() else live.record.user.id
            return str(of)
        return quote_from_bytes(draw(values), safe=draw(st.sampled_from(["", "/.%"])))

    return re.sub("<[^>]+>", argument, rule.rule)


def judge(path: str, answer: TestResponse) -> None:
    told = answer.get_data(as_text=True)
    assert answer.status_code < 500, told
    assert "Traceback" not in told
    if answer.status_code < 400:
        return
    if path.startswith("/api/"):
        assert answer.mimetype == "application/problem+json"
        assert answer.get_json(silent=True) is not None or not told  # HEAD has no body
    else:
        assert answer.mimetype in {"text/html", "application/problem+json"}


@pytest.mark.timeout(600 + CASES)
def test_nothing_breaks_it(app: Flask) -> None:
    rules = sorted(app.url_map.iter_rules(), key=lambda rule: (rule.rule, rule.endpoint))
    statuses: Counter[int] = Counter()

    @settings(max_examples=CASES, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(rules), st.sampled_from(["", "user", "admin"]), st.data())
    def ask(rule: Rule, role: str, data: st.DataObject) -> None:
        live = somebody(app, role) if role else None
        path = path_of(rule, live, data.draw)
        fitting = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        method = data.draw(st.sampled_from(fitting * 40 + list(METHODS)))
        kind, body = data.draw(bodies)
        sent = {"X-Requested-With": "tests", "Content-Type": kind, **data.draw(headers)}
        if live:
            sent["Cookie"] = f"{COOKIE}={live.token.text}; {sent.get('Cookie', '')}"
        answer = app.test_client(use_cookies=False).open(
            path,
            method=method,
            query_string=data.draw(forms).decode(),
            data=body,
            headers=sent,
        )
        statuses[answer.status_code] += 1
        judge(path, answer)

    ask()
    print(f"\n{statuses.total()} requests; {dict(sorted(statuses.items()))}")  # noqa: T201 - for -s
    assert {200, 303, 400, 401, 403, 404, 405, 415} <= statuses.keys()
