"""From outside: TLS, HSTS, and what plain http is answered with."""

import ssl
import time
from collections.abc import Iterator
from dataclasses import replace

from authapp.doctor.findings import Finding, State, reason
from authapp.doctor.hosts import is_loopback
from authapp.doctor.outside.asking import BROWSER, Site

_HALF_A_YEAR = 15_768_000  # seconds
_RENEW_DAYS = 14


def reached(site: Site) -> Finding:
    """Whether the site can be reached at all."""
    try:
        connection = site.connect()
    except ssl.SSLCertVerificationError as error:
        text = f"browsers warn of its certificate: {error.verify_message or reason(error)}"
        remedy = "have the proxy send a certificate for this name, with its chain"
        return Finding("reached", State.FAIL, text, remedy)
    except OSError as error:
        text = f"{site.host} can't be reached: {reason(error)}"
        return Finding("reached", State.FAIL, text, "see whether the proxy runs, and its address")
    with connection:
        if not isinstance(connection, ssl.SSLSocket):
            return Finding("reached", State.OK, f"{site.url}, by plain http")
        version, certificate = connection.version() or "TLS", connection.getpeercert()
    if not certificate:  # nobody verified it
        return Finding("reached", State.OK, f"{site.url}, by {version}")
    days = (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86_400
    text = f"{site.url}, by {version}; the certificate lasts {int(days)} days"
    if days < _RENEW_DAYS:
        return Finding("reached", State.WARN, text, "renew it, and see why nothing renewed it")
    return Finding("reached", State.OK, text)


def examine(site: Site, *, is_own: bool) -> Iterator[Finding]:
    if not site.is_https:
        text = "people and their sessions can be overheard: it is plain http"
        remedy = "give the address with https://, or have the proxy serve it"
        state = State.OK if is_loopback(site.name) else State.FAIL
        yield Finding("https", state, text, remedy)
        return
    yield _hsts(site, State.WARN if is_own else State.OK)  # an app decides for itself
    yield _plain(site)


def _hsts(site: Site, missing: State) -> Finding:
    sent = site.ask(site.path or "/", BROWSER).all("Strict-Transport-Security")
    remedy = "send Strict-Transport-Security: max-age=31536000 with every answer, once"
    if not sent:
        text = "no HSTS: a first request by http can be led astray"
        return Finding("hsts", missing, text, remedy)
    ages = [part.partition("=")[2].strip('" ') for part in sent[0].lower().split(";")]
    age = next((int(text) for text in ages if text.isdigit()), 0)
    if len(sent) > 1 or age < _HALF_A_YEAR:
        text = f"HSTS is sent {len(sent)} times, for {age} s"
        return Finding("hsts", missing, text, remedy)
    return Finding("hsts", State.OK, f"for {age // 86_400} days")


def _plain(site: Site) -> Finding:
    """The answer at the usual port of http. A proxy may listen there on another one."""
    if site.connect_to is not None or ":" in site.host.rpartition("]")[2]:
        text = "not asked, as the address names a port"
        return Finding("plain http", State.OK, text, "see that http leads to https alone")
    plain = replace(site, url=f"http://{site.host}", seen=[])
    answer = plain.ask(f"{site.path}/login", BROWSER)
    if answer.status == 0:
        return Finding("plain http", State.OK, "nothing answers there")
    if 300 <= answer.status < 400 and answer.first("Location").startswith("https://"):
        return Finding("plain http", State.OK, "leads to https")
    if answer.status >= 400:
        return Finding("plain http", State.OK, f"is refused ({answer.status})")
    text = f"http://{site.host} is answered with {answer.status}, in the clear"
    return Finding("plain http", State.FAIL, text, "have the proxy redirect http to https (308)")
