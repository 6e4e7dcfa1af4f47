"""Whatever is in the address, the fields, the headers, the cookies and the body: each page and call
answers with less than 500, and refuses in its own form.

Odd texts are tried in each field and header, the rest being sound; then requests of no shape.
`FUZZ_CASES` is how many of these are drawn, the same ones each time; `HYPOTHESIS_PROFILE=default`
draws others.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from itertools import count, product
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from authapp.sessions.records import ActiveSession
from tests.support.people import CLIENT, OTHER_PASSWORD, PASSWORD
from tests.web.support import COOKIE, services_of

CASES = int(os.environ.get("FUZZ_CASES", "200"))

# what is read by the end of a path, with values that are taken
SOUND: dict[str, dict[str, Any]] = {
    "/signup": {"email": "new@example.org", "password": PASSWORD, "name": "Ada", "next": "/"},
    "/signup/<invitation>": {"email": "new@example.org", "password": PASSWORD, "name": "Ada"},
    "/verify": {"token": "none of ours", "email": "a@example.org", "code": "1", "password": "x"},
    "/verify/resend": {"email": "ada@example.org"},
    "/email/verify": {"email": "ada@example.org", "code": "12345678", "password": PASSWORD},
    "/email/resend": {"email": "ada@example.org"},
    "/admin/invitations": {"email": "new@example.org", "days": 7, "roles": "user"},
    "/v1/invitations": {"email": "", "days": 7, "roles": []},
    "/login": {"email": "ada@example.org", "password": PASSWORD, "remember": True, "next": "/"},
    "/login/factor": {"login_token": "T" * 64, "method": "totp", "code": "000000", "trust": "y"},
    "/v1/login/factor": {"login_token": "T" * 64, "method": "totp", "code": "000000"},
    "/login/factor/totp": {"login_token": "T" * 64},
    "/security/totp": {"code": "000000"},
    "/totp/confirm": {"code": "000000"},
    "/tokens": {"email": "ada@example.org", "password": PASSWORD, "refresh": True},
    "/tokens/refresh": {"refresh_token": "none of ours"},
    "/forgot": {"email": "ada@example.org"},
    "/reset": {"token": "T" * 43, "new_password": OTHER_PASSWORD},
    "/api/v1/users/<uuid:user_id>/reset": {},
    "/account": {"name": "Ada", "image": "https://example.org/ada.png"},
    "/me": {"name": "Ada", "image": "https://example.org/ada.png"},
    "/password": {"current_password": PASSWORD, "new_password": OTHER_PASSWORD},
    "/account/email": {"email": "new@example.org"},
    "/me/email": {"email": "new@example.org"},
    "/email/undo": {"token": "none of ours"},
    "/signup-passkey/options": {"email": "new@example.org", "name": "Ada"},
    "/signup-passkey": {"email": "new@example.org", "name": "Ada", "credential": "{}"},
    "/passkey": {"credential": "{}", "next": "/"},
    "/login/passkey": {"credential": "{}", "remember": "y", "next": "/"},
    "/login/factor/options": {"login_token": "none of ours"},
    "/passkeys/login": {"credential": {"id": "A", "rawId": "A"}, "remember": True},
    "/me/passkeys": {"credential": {"id": "A", "rawId": "A"}, "name": "Phone"},
    "/passkeys/<uuid:passkey_id>": {"name": "Phone"},
    "/name": {"name": "Phone"},
    "/passkeys/add": {"credential": "{}", "name": "Phone"},
    "/account/delete": {"sure": "y"},
    "/confirm": {"password": PASSWORD, "next": "/"},
    "/users": {"q": "a", "cursor": "", "limit": 50},
    "/admin/audit": {"user": "", "event": "", "cursor": ""},
    "/users/<uuid:user_id>": {"active": True, "name": "Ada", "image": ""},
    "/roles": {"roles": ["admin"]},
    "/v1/roles": {"name": "new", "permissions": []},
    "/admin/roles": {"name": "new", "permissions": []},
    "": {},
}
TEXTS = (
    *("", "\x00", "%00", "'", "<script>", "{{ 1 }}", "//x", "https://[", "http://localhost:0/"),
    *("\u202e", "\ud7ff", "\U0010ffff", "I\u0307", "\u0663", "9" * 5000, "a" * 3000),
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
NAMES = sorted({name for fields in SOUND.values() for name in fields})
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "QUERY")

values = st.one_of(st.sampled_from(TEXTS).map(str.encode), st.binary(max_size=60))
header_text = st.one_of(
    st.sampled_from(HEADER_TEXTS),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60),
)
fields = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=6)
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


def judge(path: str, answer: TestResponse) -> None:
    told = answer.get_data().decode(errors="replace")  # an icon is no text
    assert answer.status_code < 500, told
    assert "Traceback" not in told
    if answer.status_code < 400:
        return
    if path.startswith("/api/"):
        assert answer.mimetype == "application/problem+json"
        assert answer.get_json(silent=True) is not None or not told  # HEAD has no body
    else:
        plain = {"text/plain"} if path.startswith("/forward-auth/") else set()
        assert answer.mimetype in {"text/html", "application/problem+json"} | plain


class Somebody:
    """Signed in, whatever they did before."""

    def __init__(self, app: Flask, role: str) -> None:
        self._app, self._role = app, role
        self._client = app.test_client(use_cookies=False)
        self._live: ActiveSession | None = None

    @property
    def live(self) -> ActiveSession:
        if self._live is None:
            services = services_of(self._app)
            email = f"fuzzing{next(_numbers)}@example.org"
            services.registration.sign_up(email, PASSWORD, "Ada", (self._role,))
            self._live = services.authentication.log_in(email, PASSWORD, CLIENT).session
        return self._live

    def ask(self, path: str, **sent: Any) -> TestResponse:
        headers = dict(sent.pop("headers", {}))
        if self._role:
            token = f"{COOKIE}={self.live.token.text}"
            headers["Cookie"] = f"{token}; {headers.get('Cookie', '')}"
        answer = self._client.open(path, headers=headers, **sent)
        changed = sent.get("method") != "GET" and answer.status_code < 400
        if (changed or answer.status_code == 401) and not self._is_as_before():
            self._live = None
        judge(path, answer)
        return answer

    def _is_as_before(self) -> bool:
        """Whether they are still signed in, and nothing of their account changed."""
        if self._live is None:
            return False
        found = services_of(self._app).sessions.find(self._live.token)
        return isinstance(found, ActiveSession) and found.record.user == self._live.record.user


def path_of(rule: Rule, live: ActiveSession | None, draw: Any) -> str:
    """The address of a page or call, with ids that are sometimes there."""

    def argument(found: re.Match[str]) -> str:
        if live and draw(st.booleans()):
            of = live.record.id if "session_id" in found.group() else live.record.user.id
            return str(of)
        return quote_from_bytes(draw(values), safe=draw(st.sampled_from(["", "/.%"])))

    return re.sub("<[^>]+>", argument, rule.rule)


def all_rules(app: Flask) -> list[Rule]:
    return sorted(app.url_map.iter_rules(), key=lambda rule: (rule.rule, rule.endpoint))


def fields_of(rule: Rule) -> dict[str, Any]:
    """The fields that the route reads, with values that it accepts."""
    ends = [end for end in SOUND if rule.rule.endswith(end)]
    sound = dict(SOUND[max(ends, key=len)])
    if rule.rule.startswith("/api/"):
        sound.pop("next", None)  # of pages only
    if rule.rule.endswith("/signup"):
        sound["email"] = f"new{next(_numbers)}@example.org"
    if rule.rule.endswith(("/v1/roles", "/admin/roles")):
        sound["name"] = f"new{next(_numbers)}"
    return sound


def spoilt(rule: Rule, *, together: bool) -> Iterator[dict[str, Any]]:
    """The fields of a route: sound, then with each odd text in each field in turn, or in all of
    them at once.

    Args:
        together: it reads no field, or each by itself, as a page with a form does that is asked for
            by GET. So no odd text keeps another from being read.
    """
    sound = fields_of(rule)
    if sound:
        yield sound
    for text in TEXTS:
        if together and sound:
            yield dict.fromkeys(sound, text)
            continue
        for name in sound:
            yield fields_of(rule) | {name: text}


@pytest.mark.first
def test_odd_text_in_any_field(app: Flask) -> None:
    services_of(app).registration.sign_up("ada@example.org", PASSWORD)
    somebody = Somebody(app, "admin")
    taken: set[str] = set()
    forms = {rule.rule for rule in all_rules(app) if "POST" in (rule.methods or ())}
    for rule in all_rules(app):
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            for fields in spoilt(rule, together=method == "GET" and rule.rule in forms):
                path = path_of(rule, somebody.live, lambda _: True)
                place = "query_string" if method in {"GET", "DELETE"} else "data"
                if place == "data" and rule.rule.startswith("/api/"):
                    place = "json"
                answer = somebody.ask(path, method=method, **{place: fields})
                if answer.status_code < 400:
                    taken.add(rule.endpoint)
    read = {rule.endpoint for rule in all_rules(app) if fields_of(rule)}
    # what needs a token that was mailed, and what nobody does to themselves
    refused = {"authapp.api.refresh_token", "authapp.address.undo_submit"}
    refused |= {"authapp.leaving_api.undo_email", "authapp.users_api.delete_user"}
    refused |= {"authapp.recovery.reset_submit", "authapp.recovery_api.reset_password"}
    refused |= {"authapp.signup.verify_submit", "authapp.signup_api.verify_email"}
    refused |= {"authapp.signup.invited", "authapp.signup.invited_submit"}
    # and what needs a code of an app, or a log-in that waits for one
    refused |= {"authapp.security.totp_submit", "authapp.factors_api.confirm_totp"}
    refused |= {"authapp.factors_api.login_factor", "authapp.factors_api.set_up_at_login"}
    # and what needs a passkey
    refused |= {"authapp.factors_api.remove_password"}
    of_passkeys = ("authapp.passkeys.", "authapp.passkeys_api.", "authapp.passkey_sign_up.")
    refused |= {name for name in read if name.startswith(of_passkeys)}
    assert read - taken <= refused, "sound fields are refused"


def test_odd_text_in_any_header(app: Flask) -> None:
    somebody = Somebody(app, "user")
    for name, text in product(HEADERS, (*TEXTS, *HEADER_TEXTS)):
        sent = text.encode().decode("latin-1").translate({0: None})
        somebody.ask("/account", method="GET", headers={name: sent})


@pytest.mark.timeout(600 + CASES)
def test_requests_of_no_shape(app: Flask) -> None:
    statuses: Counter[int] = Counter()

    @settings(max_examples=CASES, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(all_rules(app)), st.sampled_from(["", "user", "admin"]), st.data())
    def ask(rule: Rule, role: str, data: st.DataObject) -> None:
        somebody = Somebody(app, role)
        path = path_of(rule, somebody.live if role else None, data.draw)
        fitting = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        kind, body = data.draw(bodies)
        answer = somebody.ask(
            path,
            method=data.draw(st.sampled_from(fitting * 40 + list(METHODS))),
            query_string=data.draw(forms).decode(),
            data=body,
            headers={"Content-Type": kind, **data.draw(headers)},
        )
        statuses[answer.status_code] += 1

    ask()
    print(f"\n{statuses.total()} requests; {dict(sorted(statuses.items()))}")  # noqa: T201 - for -s
    assert {200, 400, 403, 404, 405} <= statuses.keys()
