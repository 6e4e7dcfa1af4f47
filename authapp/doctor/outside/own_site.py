"""From outside: authapp's own pages through the proxy."""

import json
import secrets
from collections.abc import Iterator

from authapp.doctor.findings import Finding, State
from authapp.doctor.outside.asking import BROWSER, Header, Seen, Site

_EXPECTED = {
    "Content-Security-Policy": "default-src",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_CLOSED = ("metrics", "readyz")
_SPELLINGS = ("/{0}", "/{0}/", "//{0}", "/./{0}", "/x/../{0}", "/%{1:x}{2}", "/{0};x", "/{0}?x=1")
_CACHED = ("Age", "X-Cache", "CF-Cache-Status", "X-Varnish")


def is_own(site: Site) -> bool:
    """Whether the log-in page of authapp is there."""
    return "/static/authapp/" in site.ask(f"{site.path}/login", BROWSER).body


def examine(site: Site) -> Iterator[Finding]:
    page = site.ask(f"{site.path}/login", BROWSER)
    if not page.passed:
        text = f"{site.url}/login is answered with {page.status or 'no answer'}"
        remedy = "see the logs of proxy and authapp; name the address that PUBLIC_URL has"
        yield Finding("log-in page", State.FAIL, text, remedy)
        return
    yield Finding("log-in page", State.OK, "is there")
    yield _security_headers(page)
    yield _caching(site)
    yield _closed(site)
    yield _methods(site)
    yield _forward_auth(site)
    yield from _forwarded(site)
    yield _addresses(site)


def _security_headers(page: Seen) -> Finding:
    wrong = [
        name
        for name, expected in _EXPECTED.items()
        if len(page.all(name)) != 1 or expected not in page.first(name)
    ]
    if wrong:
        text = f"not as authapp sends them: {', '.join(wrong)}"
        remedy = "leave these headers to authapp: let the proxy neither drop nor add them"
        return Finding("security headers", State.FAIL, text, remedy)
    return Finding("security headers", State.OK, "as authapp sends them")


def _caching(site: Site) -> Finding:
    check = "caching"
    first, second = (site.ask(f"{site.path}/login?doctor=cache", BROWSER) for _ in range(2))
    stored = [name for name in _CACHED if second.all(name) and "MISS" not in second.first(name)]
    same_id = first.first("X-Request-ID") == second.first("X-Request-ID") != ""
    if "no-store" not in first.first("Cache-Control") or stored or same_id:
        text = "pages of one visitor may be kept for others"
        remedy = "let no cache keep what authapp answers, and leave its Cache-Control as it is"
        return Finding(check, State.FAIL, text, remedy)
    return Finding(check, State.OK, "pages are sent with no-store, and are not kept")


def _closed(site: Site) -> Finding:
    """The probes of operators, in every spelling that some proxy lets through."""
    open_ones = []
    for name in _CLOSED:
        for spelling in _SPELLINGS:
            path = site.path + spelling.format(name, ord(name[0]), name[1:])
            if _tells(site.ask(path)):
                open_ones.append(path)
        for header in ("X-Original-URL", "X-Rewrite-URL"):
            if _tells(site.ask(f"{site.path}/", [(header, f"{site.path}/{name}")])):
                open_ones.append(f"{name} by {header}")
    if open_ones:
        text = f"anybody can read {', '.join(open_ones)}"
        remedy = "have the proxy answer 404 for /metrics and /readyz; ask them past the proxy"
        return Finding("operators' pages", State.FAIL, text, remedy)
    return Finding("operators' pages", State.OK, "/metrics and /readyz are closed")


def _tells(answer: Seen) -> bool:
    return "# TYPE " in answer.body or ('"stores"' in answer.body and '"status"' in answer.body)


def _methods(site: Site) -> Finding:
    marker = _marker()
    for method in ("TRACE", "TRACK", "DEBUG"):
        answer = site.ask(f"{site.path}/login", [("Doctor", marker)], method)
        if answer.passed and marker in answer:
            text = f"{method} sends back what a browser sent, its cookies too"
            return Finding("methods", State.FAIL, text, f"have the proxy refuse {method}")
    return Finding("methods", State.OK, "TRACE and the like are refused")


def _forward_auth(site: Site) -> Finding:
    check = "forward-auth"
    for kind in ("nginx", "redirect", "envoy/"):
        answer = site.ask(f"{site.path}/forward-auth/{kind}")
        if answer.all("Remote-User"):
            text = "anybody can ask it, in the place of a proxy, about a page of any app"
            remedy = "have the proxy answer 404 for /forward-auth/; ask it past the proxy"
            return Finding(check, State.WARN, text, remedy)
    return Finding(check, State.OK, "can't be asked from outside")


def _marker() -> str:
    return f"doctor-{secrets.token_hex(6)}.invalid"


def _forwarded(site: Site) -> Iterator[Finding]:
    """Whether the proxy passes on what a client says in its place."""
    marker = _marker()
    for name, value, meaning in (
        ("X-Forwarded-Host", marker, "links and the check of origins follow it"),
        ("X-Forwarded-Prefix", f"/{marker}", "links and cookies follow it"),
        ("Forwarded", f"host={marker}", "links and the check of origins follow it"),
        ("X_Forwarded_Host", marker, "links and the check of origins follow it"),
    ):
        if _reflects(site, (name, value), marker):
            text = f"{name} of a client is believed: {meaning}"
            remedy = f"have the proxy overwrite or remove {name.replace('_', '-')} in each spelling"
            yield Finding(name, State.FAIL, text, remedy)
        else:
            yield Finding(name, State.OK, "of a client counts for nothing")
    yield _scheme(site)


def _reflects(site: Site, header: Header, marker: str) -> bool:
    pages = ("/account", "/login?next=%2Faccount", "/api/v1/openapi.json")
    if any(marker in site.ask(site.path + page, [header, *BROWSER]) for page in pages):
        return True
    # nobody is signed in, so it ends nothing; it is refused if that origin is not ours
    origin = f"{'https' if site.is_https else 'http'}://{marker}"
    answer = site.ask(f"{site.path}/logout", [header, ("Origin", origin)], "POST")
    return answer.status in {200, 302, 303}


def _scheme(site: Site) -> Finding:
    check, name = "X-Forwarded-Proto", "X-Forwarded-Proto"
    own = ("Origin", site.origin)
    plain = site.ask(f"{site.path}/logout", [own], "POST")
    if plain.status == 403:
        text = "the page's own forms are refused, because authapp takes another address for its own"
        remedy = "set PUBLIC_URL, or have the proxy set X-Forwarded-Proto and X-Forwarded-Host"
        return Finding(check, State.FAIL, text, remedy)
    other = "http" if site.is_https else "https"
    for spelling in (name, "X_Forwarded_Proto"):
        if site.ask(f"{site.path}/logout", [(spelling, other), own], "POST").status == 403:
            text = f"{spelling} of a client is believed"
            remedy = f"have the proxy overwrite {name} in each spelling"
            return Finding(check, State.FAIL, text, remedy)
    return Finding(check, State.OK, "of a client counts for nothing")


def _addresses(site: Site) -> Finding:
    """Two log-ins that fail, from no address: the limits count by address."""
    check, remedy = "X-Forwarded-For", "have the proxy overwrite it, and count TRUSTED_PROXY_HOPS"
    body = json.dumps({"email": f"{_marker()[:-8]}@example.org", "password": "doctor"}).encode()
    for name in ("X-Forwarded-For", "X_Forwarded_For"):
        answer = site.ask(
            f"{site.path}/api/v1/login",
            [(name, "unknown"), ("Content-Type", "application/json")],
            "POST",
            body,
        )
        if "address_unknown" in answer.body:
            text = f"{name} of a client is believed, so nobody is kept from guessing passwords"
            return Finding(check, State.FAIL, text, remedy)
    if answer.status == 429:
        return Finding(check, State.OK, "can't tell: too many attempts; ask again later")
    return Finding(check, State.OK, "of a client counts for nothing")


def cookie_flags(site: Site, cookie_name: str) -> Finding:
    """The cookies of all answers so far."""
    ours = (cookie_name, "DEVICE-TOKEN", "VISITOR-DATA")
    found: dict[str, set[str]] = {}
    for answer in site.seen:
        for sent in answer.all("Set-Cookie"):
            pair, *attributes = (part.strip() for part in sent.split(";"))
            name = pair.partition("=")[0]
            if name.endswith(ours):
                found.setdefault(name, set()).update(_missing(name, attributes, site))
    wrong = [f"{name} {', '.join(sorted(faults))}" for name, faults in found.items() if faults]
    if wrong:
        remedy = "let the proxy leave Set-Cookie as it is; see the SESSION_COOKIE_ settings"
        return Finding("cookies", State.FAIL, "; ".join(wrong), remedy)
    if not found:
        return Finding("cookies", State.OK, "none was set")
    return Finding("cookies", State.OK, f"{', '.join(sorted(found))}: with all their flags")


def _missing(name: str, attributes: list[str], site: Site) -> Iterator[str]:
    given = {key.lower(): value for key, _, value in (a.partition("=") for a in attributes)}
    if "httponly" not in given:
        yield "without HttpOnly"
    if site.is_https and "secure" not in given:
        yield "without Secure"
    if "samesite" not in given:
        yield "without SameSite"
    if name.startswith("__Host-") and ("domain" in given or given.get("path") != "/"):
        yield "with a Domain or Path that browsers refuse"
    if name.endswith("VISITOR-DATA") and "domain" in given:
        yield "with a Domain"
