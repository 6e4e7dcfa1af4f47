"""From outside: a page of a guarded app, asked by a visitor with every trick."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from authapp.doctor.findings import Finding, State
from authapp.doctor.outside.asking import BROWSER, Header, Seen, Site, cookie

NAMES = (
    "Remote-User",
    "Remote-Email",
    "Remote-Name",
    "Remote-Groups",
    "Remote-Amr",
    "Remote-Auth-Time",
    "Remote-Assurance-Level",
    "Remote-Assertion",
)
_METHODS = ("HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE", "BREW")
_MARKS = "_.!~+*'|^`#$%&"  # which some servers of apps take for a hyphen
_AT_ONCE = 32  # headers
_REFUSED = (0, 400, 431)  # the request, whoever sent it
_STRIP = "have the proxy remove or overwrite every spelling of Remote-… (deploy/ has files that do)"


@dataclass(frozen=True, slots=True)
class Visitor:
    """
    Attributes:
        cookie_name: of the session's cookie.
        unknown_token: well signed, and of no session: authapp has to ask its stores.
        stores_answer: whether either store does.
        token, person_id: of a person who is signed in; empty: nobody is.
    """

    cookie_name: str
    unknown_token: str
    stores_answer: bool
    token: str = ""
    person_id: str = ""


def examine(site: Site, visitor: Visitor) -> Iterator[Finding]:
    page = site.path or "/"
    plain = site.ask(page, BROWSER)
    if visitor.stores_answer:
        yield _guarded(plain)
    yield _outage(site, page, visitor)
    if not visitor.stores_answer:
        return
    if not plain.passed:
        yield _query(site, page)
        yield _methods(site, page)
        yield _paths(site, page)
        yield _claims(site, page)
        yield _told_address(site, page)
    yield _leaks(site)
    yield from _signed_in(site, page, visitor)


def _guarded(plain: Seen) -> Finding:
    check = "guarded"
    if plain.passed:
        text = "the page is shown to a visitor who is not signed in"
        remedy = "name a page that is not public; or have the proxy ask authapp about it"
        return Finding(check, State.WARN, text, remedy)
    if plain.status in {301, 302, 303, 307, 308}:
        return Finding(check, State.OK, f"a visitor is led to {plain.first('Location')[:80]}")
    if plain.status in {401, 403}:
        return Finding(check, State.OK, f"a visitor is refused ({plain.status})")
    text = f"a visitor who is not signed in gets {plain.status or 'no answer'}"
    remedy = "see the log of the proxy: it can't ask authapp, or does not understand the answer"
    return Finding(check, State.FAIL, text, remedy)


def _outage(site: Site, page: str, visitor: Visitor) -> Finding:
    check = "503"
    answer = site.ask(page, [*BROWSER, cookie(visitor.cookie_name, visitor.unknown_token)])
    if visitor.stores_answer:
        if answer.passed and not site.seen[0].passed:
            text = "a cookie that names no session is let pass"
            return Finding(check, State.FAIL, text, "let the proxy pass on a 200 of authapp alone")
        text = "can't be seen while the stores answer"
        return Finding(check, State.OK, text, "ask again in a rehearsal with both stores stopped")
    if answer.status == 503:
        return Finding(check, State.OK, "an outage is told as 503")
    text = f"in an outage visitors get {answer.status or 'no answer'} in place of 503"
    remedy = "let the proxy pass on a 503 of authapp; let nobody pass when it can't be asked"
    return Finding(check, State.FAIL, text, remedy)


def _query(site: Site, page: str) -> Finding:
    """The visitor's own query demands nothing, and log-in leads back to it."""
    check, marker = "query", f"doctor{secrets.token_hex(4)}"
    for name in (marker, "role", "login", "factor", "assertion", "preflight"):
        answer = site.ask(f"{page}?{name}={marker}", BROWSER)
        if answer.status not in {301, 302, 303, 307, 308, 401} or "only role" in answer.body:
            text = f"?{name}=… of a visitor is taken for a demand ({answer.status})"
            remedy = "write the demands behind a semicolon, as deploy/caddy has it"
            return Finding(check, State.FAIL, text, remedy)
    onward = _onward(site.ask(f"{page}?{marker}=a%26b&c=d", BROWSER))
    if onward is None:
        text = "log-in does not lead back to the page"
        remedy = "add the host to ALLOWED_REDIRECT_HOSTS; have the proxy say which page it is"
        return Finding(check, State.WARN, text, remedy)
    if not onward.endswith(f"?{marker}=a%26b&c=d"):
        text = f"log-in leads back to {onward[:80]}, without all of the query"
        return Finding(check, State.WARN, text, "have the proxy pass on the query as it is")
    return Finding(check, State.OK, "a visitor's query is kept, and demands nothing")


def _onward(answer: Seen) -> str | None:
    """Where log-in leads back to."""
    found = parse_qs(urlsplit(answer.first("Location")).query).get("next")
    return found[0] if found else None


def _methods(site: Site, page: str) -> Finding:
    passed = [method for method in _METHODS if site.ask(page, BROWSER, method).passed]
    if passed:
        text = f"{', '.join(passed)} is let pass without anybody signed in"
        remedy = "have the proxy ask authapp whatever the method; let preflights pass by a rule"
        return Finding("methods of visitors", State.FAIL, text, remedy)
    return Finding("methods of visitors", State.OK, "all methods are guarded")


def _paths(site: Site, page: str) -> Finding:
    path = page.rstrip("/")
    first = path[1:2] or "x"
    tricks = [
        *(f"/{page}", f"/.{page}", f"/doctor/..{page}", f"/%2e{page}", f"/doctor/%2e%2e{page}"),
        *(f"/doctor/..;{page}", f"{path};x/", f"{path}/.", f"{path}/%2e", f"{path}%2f"),
        *(f"/%{ord(first):x}{path[2:]}", f"{path}/doctor.css", f"{path}/doctor.js", f"{path}%00"),
        *(f"\\{page}", f"{path}/\\..\\", f"{page}#", f"{site.origin}{page}"),
    ]
    passed = [trick for trick in tricks if site.ask(trick, BROWSER).passed]
    if passed:
        text = f"shown without anybody signed in: {', '.join(passed[:3])}"
        remedy = "guard all paths alike, and have the proxy refuse those not in normal form"
        return Finding("paths", State.FAIL, text, remedy)
    return Finding("paths", State.OK, "no spelling of the path gets past the guard")


def spellings() -> list[str]:
    """Every way to write our headers that some proxy or app takes for ours."""
    upper = [name.upper().replace("-", "_") for name in NAMES]
    with_marks = [name.replace("-", mark) for name in NAMES for mark in _MARKS]
    return [*NAMES, *(name.lower() for name in NAMES), *upper, *with_marks]


def _claims(site: Site, page: str) -> Finding:
    """A client names itself and another request, in the place of a proxy."""
    claims: list[Header] = [(name, "doctor") for name in spellings()]
    about = [
        *(("X-Forwarded-Method", "OPTIONS"), ("X-Original-Method", "OPTIONS")),
        *(("X-Forwarded-Uri", "/"), ("X-Original-URI", "/"), ("X-Rewrite-URL", "/")),
        *(("Authorization", "Basic ZG9jdG9yOmRvY3Rvcg=="), ("X-Forwarded-User", "doctor")),
    ]
    answers = [*_each(site, page, [], claims), *_each(site, page, [], about)]
    if any(answer.passed for answer in answers):
        text = "a client that names itself, or another page, is let pass"
        return Finding("claims", State.FAIL, text, _STRIP)
    return Finding("claims", State.OK, "whoever names themselves is not let pass")


def _each(
    site: Site, page: str, signed_in: Sequence[Header], claims: Sequence[Header]
) -> Iterator[Seen]:
    """Asks with all of these headers, in as few requests as the proxy takes.

    Proxies refuse some names, and more than a hundred headers. They must not hide the others so.
    """
    for start in range(0, len(claims), _AT_ONCE):
        group = claims[start : start + _AT_ONCE]
        answer = site.ask(page, [*BROWSER, *signed_in, *group])
        if answer.status not in _REFUSED or len(group) == 1:
            yield answer
            continue
        half = len(group) // 2
        yield from _each(site, page, signed_in, group[:half])
        yield from _each(site, page, signed_in, group[half:])


def _told_address(site: Site, page: str) -> Finding:
    """Whether a client can have authapp decide on another page than the one it gets."""
    check, marker = "asked page", f"doctor-{secrets.token_hex(4)}"
    plain = _onward(site.ask(page, BROWSER))
    evil = f"{marker}.invalid"
    for told, target, headers, host in (
        ("X-Forwarded-Uri", page, [("X-Forwarded-Uri", f"/{marker}")], ""),
        ("X-Original-URL", page, [("X-Original-URL", f"{site.origin}/{marker}")], ""),
        ("X-Original-URI", page, [("X-Original-URI", f"/{marker}")], ""),
        ("X-Forwarded-Host", page, [("X-Forwarded-Host", evil)], ""),
        ("X_Forwarded_Host", page, [("X_Forwarded_Host", evil)], ""),
        ("X-Forwarded-Proto", page, [("X-Forwarded-Proto", _other_scheme(site))], ""),
        ("X-Forwarded-Prefix", page, [("X-Forwarded-Prefix", f"/{marker}")], ""),
        ("a Host beside a full address", f"{site.origin}{page}", [], evil),
    ):
        answer = site.ask(target, [*BROWSER, *headers], host=host)
        changed = plain is not None and _is_led(answer) and _onward(answer) != plain
        if changed or marker in answer:
            text = f"{told} of a client is believed, so it chooses which page authapp decides on"
            remedy = "have the proxy overwrite it, and name the host that it serves itself"
            return Finding(check, State.FAIL, text, remedy)
    return Finding(check, State.OK, "it is the one that the visitor gets")


def _is_led(answer: Seen) -> bool:
    return 300 <= answer.status < 400 and "://" in answer.first("Location")


def _other_scheme(site: Site) -> str:
    return "http" if site.is_https else "https"


def _leaks(site: Site) -> Finding:
    leaked = {name for name in NAMES for answer in site.seen if any(answer.all(name))}
    if leaked:
        text = f"browsers are sent {', '.join(sorted(leaked))}"
        return Finding("answers", State.WARN, text, "have the proxy remove them from its answers")
    return Finding("answers", State.OK, "browsers are sent no identity headers")


def _signed_in(site: Site, page: str, visitor: Visitor) -> Iterator[Finding]:
    """The headers that reach the app, if the page prints them."""
    check = "identity"
    if not visitor.token:
        text = "what reaches the app was not examined"
        remedy = "add --session-stdin, and name a page that prints the headers it gets"
        yield Finding(check, State.OK, text, remedy)
        return
    signed_in = cookie(visitor.cookie_name, visitor.token)
    plain = site.ask(page, [*BROWSER, signed_in])
    if not plain.passed:
        text = f"the person of that session gets {plain.status or 'no answer'}"
        remedy = "give the value of the cookie of a session that may see the page"
        yield Finding(check, State.FAIL, text, remedy)
        return
    if visitor.person_id not in plain.body:
        text = "the page does not show which headers it got, so what reaches the app is not seen"
        yield Finding(check, State.WARN, text, "name a page that prints all of its headers")
        return
    yield _smuggled(site, page, signed_in)
    yield _dropped(site, page, visitor, signed_in)
    yield _cookie_passed_on(plain, visitor)


def _smuggled(site: Site, page: str, signed_in: Header) -> Finding:
    names, marker = spellings(), f"doctor-{secrets.token_hex(6)}"
    claims = {name: f"{marker}-{number}-" for number, name in enumerate(names)}
    shown = "".join(answer.body for answer in _each(site, page, [signed_in], [*claims.items()]))
    arrived = [name for name, value in claims.items() if value in shown]
    if arrived:
        text = f"the app gets {_some(arrived)} from a client"
        return Finding("identity", State.FAIL, text, _STRIP)
    return Finding("identity", State.OK, "the app gets none that a client made up")


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def _dropped(site: Site, page: str, visitor: Visitor, signed_in: Header) -> Finding:
    """Headers that `Connection` names are for the next hop alone (RFC 9110, 7.6.1)."""
    check = "Connection"
    for name in NAMES[:1]:
        headers = [*BROWSER, signed_in, ("Connection", f"close, {name}")]
        answer = site.ask(page, headers)
        if answer.passed and visitor.person_id not in answer.body:
            text = f"with Connection: {name} the app gets a person's request as nobody's"
            remedy = "have the proxy remove Connection before it asks (deploy/caddy does)"
            return Finding(check, State.FAIL, text, remedy)
    return Finding(check, State.OK, "takes no identity away")


def _cookie_passed_on(plain: Seen, visitor: Visitor) -> Finding:
    check = "session cookie"
    if visitor.token in plain.body:
        text = "the app gets the cookie, and could act for the person everywhere"
        remedy = "have the proxy remove it, where it can (docs/forward-auth.md)"
        return Finding(check, State.WARN, text, remedy)
    return Finding(check, State.OK, "stays with the proxy")
