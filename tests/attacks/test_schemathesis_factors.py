"""As `test_schemathesis.py`, for calls that succeed for people with factors alone."""

from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask

from authapp.accounts.identity import Identity
from authapp.errors import SecondFactorRequired
from authapp.sessions.records import ActiveSession, IssuedLogin
from tests.attacks.test_schemathesis import CASES, NEED_A_FACTOR, Visitor, attack, described
from tests.support import authenticator, passkeys
from tests.support.people import CLIENT, PASSWORD
from tests.web.support import Stores, services_of

ORIGIN = "http://localhost"


class Holder(Visitor):
    """A person with an authenticator app and two passkeys, and what they show."""

    def __init__(self, app: Flask, stores: Stores, who: str) -> None:
        self._stores = stores
        self._services = services_of(app)
        self._of_role = "admin" if "administrator" in who else "user"
        super().__init__(app, who)

    def start(self) -> None:
        self._live: ActiveSession | None = None
        is_admin = self._of_role == "admin"
        self._other = self._holder("user").record.user if is_admin else self._somebody("user")

    def _session(self) -> ActiveSession:
        if self._live is None:
            self._live = self._holder(self._of_role)
        return self._live

    def note(self, case: Any, response: Any) -> None:
        """Another session of the same person does, unless they lost a factor."""
        live = self._live
        super().note(case, response)
        if live is None or self._live is not None or case.method == "DELETE":
            return
        proved = ("pwd", "otp")
        issued = self._authentication.log_in_as(live.record.user.id, CLIENT, amr=proved)
        self._live = self._issued(issued)

    def _holder(self, role: str) -> ActiveSession:
        person = self._somebody(role)
        live = self._log_in(person)
        proposed = self._services.factors.propose_totp(live)
        self._app = authenticator.Authenticator(proposed.secret)
        issued = self._services.factors.confirm_totp(live, self._code(), CLIENT).value.issued
        self._device = passkeys.Authenticator(ORIGIN)
        for _ in range(2):
            live = self._issued(issued)
            credential = passkeys.created(
                self._services.passkeys.creation_options(live), self._device
            )
            issued = self._services.passkeys.enrol(live, credential, "", CLIENT).value.issued
        return self._issued(issued)

    def _issued(self, issued: object) -> ActiveSession:
        assert isinstance(issued, IssuedLogin)
        return issued.session

    def _code(self) -> str:
        """A code that counts now, however often one was used."""
        self._stores.sql("UPDATE totp_secrets SET last_step = 0, failures = 0")
        return self._app.code(datetime.now(UTC))

    def deepen(self, case: Any) -> None:
        """Puts what the person holds into a sound request, but for one in eight."""
        super().deepen(case)
        if not case.meta.generation.mode.is_positive:
            return
        live = self._session()
        if "passkey_id" in case.path_parameters:
            [held, *_] = self._services.passkeys.of(live.record.user.id)
            case.path_parameters["passkey_id"] = str(held.id)
        if not isinstance(case.body, dict) or len(str(case.body)) % 8 == 0:
            return
        path = case.path
        if path.endswith("/totp/confirm"):
            secret = self._services.factors.propose_totp(live).secret
            self._app = authenticator.Authenticator(secret)
            case.body["code"] = self._code()
        elif path.endswith("/me/passkeys"):
            options = self._services.passkeys.creation_options(live)
            case.body["credential"] = passkeys.Authenticator(ORIGIN).create(passkeys.read(options))
            case.body.pop("name", None)
        elif path.endswith("/passkeys/login"):
            self._answer(case.body, self._services.passkey_login.options())
        elif path.endswith("/me/confirm"):
            self._show(case.body, self._services.passkeys.request_options(live))
        elif "login_token" in case.body:
            token = self._waiting(live.record.user)
            case.body["login_token"] = token
            if path.endswith("/login/factor"):
                self._show(case.body, self._services.passkey_login.second_factor_options(token))

    def _show(self, body: dict[str, Any], options: Any) -> None:
        """A factor, by the method that was drawn."""
        for name in ("password", "code", "credential"):
            body.pop(name, None)
        if body.setdefault("method", "totp") == "passkey":
            self._answer(body, options)
            return
        body["method"], body["code"] = "totp", self._code()

    def _answer(self, body: dict[str, Any], options: Any) -> None:
        body["credential"] = self._device.get(passkeys.read(options))

    def _waiting(self, person: Identity) -> str:
        with pytest.raises(SecondFactorRequired) as caught:
            self._authentication.log_in(person.email, PASSWORD, CLIENT)
        return caught.value.login_token


# It is for people who must hold a factor and have none, and answers 401 to the others.
FOR_OTHERS = "POST /api/v1/login/factor/totp"


@pytest.mark.parametrize("who", ["a person by cookie", "an administrator by cookie"])
@pytest.mark.timeout(600 + CASES * 10)
def test_calls_of_people_with_factors_are_answered_as_described(
    app: Flask, stores: Stores, who: str
) -> None:
    visitor = Holder(app, stores, who)
    # unsound ones are the same whoever sends them, and are tried by others
    api = described(app, forge_credentials=False, only_sound=True)
    about_others = "administrator" in who

    def is_meant(call: str) -> bool:
        is_one = any(part in call for part in NEED_A_FACTOR)
        return is_one and ("/users/" in call) is about_others

    found = attack(api, visitor.ask, is_meant)
    visitor.report("each call that needs a factor")
    assert not found, "\n\n".join(found)
    answered = {call for call, status in visitor.answers if status < 300}
    there_are = {operation.ok().label for operation in api.get_all_operations()}
    assert {call for call in there_are if is_meant(call)} - answered <= {FOR_OTHERS}
