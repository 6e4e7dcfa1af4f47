"""`doctor --url` through each real proxy: quiet about the files of deploy/, loud about broken ones.

A guarded app that verifies assertions stands behind the broken files, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client

from authapp.assertions import AssertedIdentity, Verifier
from authapp.doctor import Finding, State
from authapp.doctor.outside import Visitor, examine_from_outside
from authapp.doctor.outside.guarded_app import NAMES
from tests.assertions.test_middleware import guarded as shows_identity
from tests.deploy.broken_files import BROKEN
from tests.deploy.guarded import COOKIE, EMAIL, Guarded, Sent, Start, both_stores_away
from tests.deploy.guarding import APP, AUTH, KEEPS_COOKIES
from tests.deploy.servers import ANY_CERTIFICATE
from tests.deploy.test_guarding import IDENTITIES
from tests.support.people import PASSWORD
from tests.web.support import program, services_of


@dataclass(frozen=True)
class Doctor:
    auth: Flask
    site: Guarded
    visitor: Visitor

    @property
    def in_outage(self) -> Visitor:
        return replace(self.visitor, stores_answer=False)

    def look(self, host: str, path: str = "", **options: Any) -> list[Finding]:
        return examine_from_outside(
            f"https://{host}{path}",
            options.pop("visitor", self.visitor),
            f"https://{AUTH}",
            context=ANY_CERTIFICATE,
            connect_to=("127.0.0.1", self.site.port),
            **options,
        )


def doctor(auth: Flask, site: Guarded) -> Doctor:
    token, person = site.log_in(EMAIL, PASSWORD)
    unknown = services_of(auth).tokens.mint().text
    return Doctor(auth, site, Visitor(COOKIE, unknown, True, token, person))


def bad(findings: Iterable[Finding]) -> dict[str, str]:
    for finding in findings:
        assert finding.remedy or finding.state is State.OK, finding
    return {finding.check: finding.text for finding in findings if finding.state is not State.OK}


@pytest.mark.parametrize("name", BROKEN)
def test_the_files_of_deploy_are_sound(auth: Flask, start: Start, name: str) -> None:
    examined = doctor(auth, start(name, {}))
    assert bad(examined.look(AUTH)) == {}
    expected = {"session cookie"} if name in KEEPS_COOKIES else set()
    assert set(bad(examined.look(APP, "/page"))) == expected
    with both_stores_away(auth):
        assert bad(examined.look(APP, "/page", visitor=examined.in_outage)) == {}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_found_and_an_app_that_verifies_is_not_fooled(
    auth: Flask, start: Start, name: str
) -> None:
    changes, expected = BROKEN[name]
    examined = doctor(auth, start(name, changes))
    found = bad([*examined.look(AUTH), *examined.look(APP, "/page")])
    with both_stores_away(auth):
        found |= bad(examined.look(APP, "/page", visitor=examined.in_outage))
    assert set(found) == expected, found
    assert any(_becomes_root(examined, sent) for sent in IDENTITIES.values())
    _not_fooled(examined)


def _becomes_root(examined: Doctor, sent: Sent) -> bool:
    """Whether the app is told what the client made up. So the probes can tell a broken file."""
    answer = examined.site.ask("/page", examined.visitor.token, *sent)
    return answer.reached_app and "root" in {
        value for name, value in answer.told["headers"] if name.lower().startswith("remote")
    }


def _not_fooled(examined: Doctor) -> None:
    """The app gets what the broken file lets through, and believes the assertion alone."""
    keys = program(examined.auth).get("/.well-known/jwks.json").get_json()
    verifier = Verifier(f"https://{AUTH}", f"https://{APP}", keys)
    site = Client(AssertedIdentity(shows_identity, verifier))
    for name in (*NAMES, *(name.replace("-", mark) for name in NAMES for mark in "_.")):
        if "Assertion" in name:
            continue
        answer = examined.site.ask("/page", examined.visitor.token, (name, "root"))
        received = {
            f"HTTP_{key.upper().replace('-', '_')}": value for key, value in answer.told["headers"]
        }
        seen = site.get("/", environ_overrides=received)
        assert (seen.status_code, "root" in seen.text) == (200, False), name
        assert examined.visitor.person_id in seen.text
        forged = {**received, "HTTP_REMOTE_ASSERTION": "root"}
        assert site.get("/", environ_overrides=forged).status_code == 403
