"""Requests that schemathesis makes from the API's own description, sound and unsound, one by one
and one after another: each is answered as described.

`SCHEMATHESIS_CASES` is how many are drawn for each call and visitor, beside those that are always
made at the edges of what is described; `SCHEMATHESIS_SEED` draws others.
"""

import os
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar
from uuid import UUID

import hypothesis
import pytest
import schemathesis
from flask import Flask
from schemathesis.core.failures import FailureGroup
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.pytest._test_builder import build_operation_test

from authapp.accounts.identity import Identity
from authapp.errors import InvalidCredentials
from authapp.sessions.records import ActiveSession, IssuedTokens
from authapp.storage.models import User
from tests.support.mails import mails
from tests.support.people import CLIENT, PASSWORD
from tests.web.support import COOKIE, Stores, services_of

CASES = int(os.environ.get("SCHEMATHESIS_CASES", "10"))
SEED = int(os.environ.get("SCHEMATHESIS_SEED", "1"))
STEPS = 10
VISITORS = ("nobody", "a person by cookie", "an administrator by Bearer")

# fields that may be refused though they fit their schemas: for what they mean
MEANT = {"email", "password", "current_password", "new_password", "name", "image", "cursor"}
MEANT |= {"token", "code", "credential"}
# after these, somebody may be gone, or have another password or none
ENDS_OTHER = ("/email/undo", "/password/reset", "/users/{user_id}", "/{user_id}/email")
MEANT_CODES = {"unknown_role", "two_identities", "invalid_token", "invalid_invitation"}

_numbers = count(1)
T = TypeVar("T")
Change = Callable[[dict[str, Any]], object]


class Visitor:
    """A caller whose session is active whatever they asked before; and somebody else."""

    def __init__(self, app: Flask, who: str) -> None:
        self._services = services_of(app)
        self._authentication = services_of(app).authentication
        self._registration = services_of(app).registration
        self._roles = services_of(app).roles
        self._reset_links = services_of(app).reset_links
        self._who = who
        self.answers: Counter[tuple[str, int]] = Counter()
        self.start()

    def start(self) -> None:
        self._live: ActiveSession | None = None
        self._other = self._somebody("user")

    def ask(self, case: Any) -> None:
        """
        Raises:
            FailureGroup: it was not answered as described.
        """
        self.deepen(case)
        sent = self.credential()
        response = case.call(**sent)
        self.note(case, response)
        hold_to_description(case, response, sent)

    def credential(self) -> dict[str, Any]:
        """The arguments with which `Case.call` sends the credential."""
        headers: dict[str, str] = {}
        if self._who == "nobody":
            return {"headers": headers}
        token = self._session().token.text
        if "Bearer" in self._who:
            return {"headers": headers | {"Authorization": f"Bearer {token}"}}
        # the cookie is what is sent; the header tells the checks that it is meant to be sound
        return {"headers": headers | {"Cookie": f"{COOKIE}={token}"}, "cookies": {COOKIE: token}}

    def note(self, case: Any, response: Any) -> None:
        self.answers[f"{case.method} {case.path}", response.status_code] += 1
        changed = case.method != "GET" and response.status_code < 300
        if changed and case.path.endswith(ENDS_OTHER):
            self._other = self._somebody("user")
        if changed or response.status_code == 401:
            self._live = None

    def deepen(self, case: Any) -> None:
        """Puts what there is into a sound request: what is drawn never is."""
        if not case.meta.generation.mode.is_positive:
            return
        if case.meta.phase.name.value != "stateful":  # there ids come from answers
            for name, drawn in case.path_parameters.items():
                case.path_parameters[name] = self._there_is(name, drawn)
        if isinstance(case.body, dict):
            self._put_in_known(case.path, case.body)
            self._put_in_mailed(case.path, case.body)

    def _put_in_known(self, path: str, body: dict[str, Any]) -> None:
        """The people, passwords and roles that there are."""
        if path.endswith(("/v1/login", "/tokens")) and len(body["password"]) % 4:
            body |= {"email": self._other.email, "password": PASSWORD}
        if "current_password" in body and len(body["current_password"]) % 4:
            body["current_password"] = PASSWORD
        if path.endswith("/me/confirm") and len(body.get("password", "")) % 4:
            body["password"] = PASSWORD
        if "roles" in body and len(body["roles"]) % 4:
            body["roles"] = ["admin"]
        if path.endswith("/v1/roles") and len(body["name"]) % 4 != 3:
            body |= {"name": f"role{next(_numbers)}", "permissions": []}
        if "refresh_token" in body and len(body["refresh_token"]) % 4:
            issued = self._as_other(self._issue_tokens)
            assert issued.refresh
            body["refresh_token"] = issued.refresh.text

    def _put_in_mailed(self, path: str, body: dict[str, Any]) -> None:
        """The addresses that mails go to, and what is in the mails."""
        if path.endswith("/forgot") and len(body["email"]) % 4:
            body["email"] = self._other.email
        if path.endswith("/v1/invitations") and len(body.get("email", "")) % 4:
            body |= {"email": self._new_email(), "roles": ["user"]}
        if path.endswith("/email/verify"):
            if drawn := len(str(body)) % 4:
                self._put_in_confirmation(body, ("link", "code", "change")[drawn - 1])
        elif "token" in body and len(body["token"]) % 4:
            body["token"] = self._token(path)

    def _put_in_confirmation(self, body: dict[str, Any], what: str) -> None:
        """A token or a code that somebody was mailed, to confirm the address or another one."""
        services, person = self._services, self._somebody("user")
        if what == "change":
            live = self._log_in(person)
            services.email_changes.ask(live, self._new_email(), CLIENT.known_as(person.id))
            mail = mails(services, "confirm_change")[-1]
        else:
            services.verification.resend(person.email, CLIENT)
            mail = mails(services, "verify")[-1]
        body.clear()
        body["password"] = PASSWORD
        if what == "code":
            body |= {"email": person.email, "code": mail.context["code"]}
        else:
            body["token"] = mail.token

    def _token(self, path: str) -> str:
        """A token as it is mailed."""
        if not path.endswith("/email/undo"):
            link = self._reset_links.make(self._as_other(lambda person: person).id)
            return link.rpartition("=")[2]
        services = self._services
        with services.changes.begin(acknowledged=False) as change:
            user = change.db.get_one(User, self._as_other(lambda person: person).id)
            issued = services.one_time_links.issue(
                change.db, "undo_email", user, details={"email": user.email}
            )
        return issued.token

    def _there_is(self, name: str, drawn: str) -> str:
        """An id, one's own or another's, or the name of a role; sometimes what was drawn."""
        if name == "role_name":
            return drawn if len(drawn) % 4 == 0 else self._role()
        match UUID(drawn).int % 4, self._who, name:
            case 0, _, _:
                return drawn
            case 1, "nobody", _:
                return drawn
            case _, _, "invitation_id":
                return str(self._services.invitations.create().invitation.id)
            case 1, _, "user_id":
                return str(self._session().record.user.id)
            case 1, _, _:
                return str(self._session().record.id)
            case _, _, "user_id":
                return str(self._other.id)
            case _:
                return str(self._as_other(self._log_in).record.id)

    def _role(self) -> str:
        """A role that nobody has."""
        return self._roles.create(f"role{next(_numbers)}", []).name

    def _session(self) -> ActiveSession:
        if self._live is None:
            person = self._somebody("admin" if "administrator" in self._who else "user")
            bearer = "Bearer" in self._who
            self._live = self._issue_tokens(person).session if bearer else self._log_in(person)
        return self._live

    def _as_other(self, enter: Callable[[Identity], T]) -> T:
        try:
            return enter(self._other)
        except InvalidCredentials:  # they were deactivated
            self._other = self._somebody("user")
            return enter(self._other)

    def _issue_tokens(self, person: Identity) -> IssuedTokens:
        return self._authentication.issue_token(person.email, PASSWORD, CLIENT, refreshable=True)

    def _log_in(self, person: Identity) -> ActiveSession:
        return self._authentication.log_in(person.email, PASSWORD, CLIENT).session

    def _somebody(self, role: str) -> Identity:
        return self._registration.sign_up(self._new_email(), PASSWORD, "Ada", (role,))

    def _new_email(self) -> str:
        return f"schemathesis{next(_numbers)}@example.org"

    def report(self, what: str) -> None:
        """Print the counts, for a run with `-s`."""
        by_status: Counter[int] = Counter()
        for (_, status), times in self.answers.items():
            by_status[status] += times
        listed = ", ".join(f"{status}: {by_status[status]}" for status in sorted(by_status))
        print(f"\n{what}, {self._who}: {by_status.total()} requests; {listed}")  # noqa: T201


def hold_to_description(
    case: Any, response: Any, sent: dict[str, Any], recorder: Any = None
) -> None:
    """Runs every check of schemathesis."""
    excluded = []
    if response.status_code == 400:
        told = response.json()
        fields = told.get("errors", {"": "none"})
        if told["code"] in MEANT_CODES or fields.keys() <= MEANT:
            excluded = [schemathesis.checks.positive_data_acceptance]
    case.validate_response(
        response,
        headers=sent["headers"],
        transport_kwargs=sent,
        excluded_checks=excluded,
        recorder=recorder,
    )


def described(
    app: Flask,
    change: Change | None = None,
    *,
    forge_credentials: bool,
    only_sound: bool = False,
) -> Any:
    """The description, for requests that are drawn from it.

    Args:
        only_sound: no unsound requests are drawn, and few sound ones.
    """
    generation = {
        "mode": "positive" if only_sound else "all",
        "max-examples": 2 if only_sound else CASES,
        "deterministic": True,
        "database": "none",
        "with-security-parameters": forge_credentials,
    }
    config = schemathesis.Config.from_dict({"seed": SEED, "generation": generation})
    told = app.test_client().get("/api/v1/openapi.json").get_json()
    if change:
        change(told)
    api: Any = schemathesis.openapi.from_dict(told, config=config)
    api.app = _asked_from_somewhere(app)
    return api


def _asked_from_somewhere(app: Flask) -> Callable[..., Any]:
    """The application as behind a server; schemathesis says no address of a peer."""

    def asked(environ: dict[str, Any], start_response: Any) -> Any:
        return app({**environ, "REMOTE_ADDR": "192.0.2.7"}, start_response)

    return asked


def attack(
    api: Any, ask: Callable[[Any], None], which: Callable[[str], bool] = lambda _: True
) -> list[str]:
    """Calls all there is; what was found.

    Args:
        which: tells of the label of a call whether it is made.
    """
    schemathesis.checks.load_all_checks()
    found = []
    for result in api.get_all_operations():
        operation = result.ok()
        if not which(operation.label):
            continue
        # what `@schema.parametrize()` does, without the time it takes each run of any test
        test = build_operation_test(
            config=api.config,
            operation=operation,
            test_func=ask,
            given_kwargs={},
            feedback=FeedbackSources(),
        )
        try:
            test()
        except FailureGroup as failures:
            found.append(f"{operation.label}: {failures}")
    return found


# None of these succeeds by chance: each needs a code, a passkey or a login token. They succeed in
# test_schemathesis_factors.py.
NEED_A_FACTOR = (
    *("/login/factor", "/me/factors/totp", "/me/factors/recovery-codes", "/me/confirm"),
    *("POST /api/v1/me/passkeys", "/me/passkeys/{passkey_id}", "/passkeys/login"),
    *("DELETE /api/v1/users/{user_id}/factors", "DELETE /api/v1/me/password"),
)


@pytest.mark.parametrize("who", VISITORS)
@pytest.mark.timeout(600 + CASES * 10)
def test_calls_are_answered_as_described(app: Flask, who: str) -> None:
    visitor = Visitor(app, who)
    api = described(app, forge_credentials=who == "nobody")
    found = attack(api, visitor.ask)
    visitor.report("each call alone")
    assert not found, "\n\n".join(found)
    answered = {call for call, status in visitor.answers if status < 300}
    there_are = {operation.ok().label for operation in api.get_all_operations()}
    there_are = {call for call in there_are if not any(part in call for part in NEED_A_FACTOR)}
    for_others = ("/users", "/roles", "/v1/sessions", "/v1/invitations")
    not_allowed = {call for call in there_are if any(part in call for part in for_others)}
    match who.split()[:2]:
        case ["a", "person"]:
            assert there_are - answered <= not_allowed
        case ["an", "administrator"]:
            assert there_are <= answered


@pytest.mark.timeout(600 + CASES * 10)
def test_one_call_after_another_is_answered_as_described(app: Flask, stores: Stores) -> None:
    """With what answers held in the requests that follow: ids, tokens, cursors."""
    api = described(app, forge_credentials=False)
    visitor = Visitor(app, "an administrator by cookie")

    class Walk(api.as_state_machine()):  # type: ignore[misc]  # made as it runs
        def setup(self) -> None:
            stores.clear()  # a walk that is repeated gets the same answers
            visitor.start()

        def before_call(self, case: Any) -> None:
            visitor.deepen(case)
            self.sent = visitor.credential()

        def get_call_kwargs(self, _case: Any) -> dict[str, Any]:
            return self.sent

        def after_call(self, response: Any, case: Any) -> None:
            super().after_call(response, case)
            visitor.note(case, response)

        def validate_response(self, response: Any, case: Any, **_: Any) -> None:
            hold_to_description(case, response, self.sent, self.recorder)

    Walk.run(
        settings=hypothesis.settings(
            api.config.get_hypothesis_settings(), max_examples=CASES, stateful_step_count=STEPS
        )
    )
    visitor.report("one after another")
    assert len({call for call, status in visitor.answers if status < 300}) >= 8


# what is not so, said in the description
UNTRUE: dict[str, tuple[str, str, Change]] = {
    "a status less": (
        *("nobody", "/api/v1/me"),
        lambda told: told["paths"]["/api/v1/me"]["get"]["responses"].pop("401"),
    ),
    "a body of another type": (
        *("a person by cookie", "/api/v1/me"),
        lambda told: schema_of(told, "MeView", "active").update(type="string"),
    ),
    "a field that is shorter": (
        *("a person by cookie", "/api/v1/me"),
        lambda told: schema_of(told, "ProfileBody", "name").update(maxLength=3),
    ),
    "a parameter that reaches further": (
        *("an administrator by Bearer", "/api/v1/users"),
        lambda told: parameter_of(told, "limit")["schema"].update(maximum=900),
    ),
    "a session that is needed": (
        *("nobody", "/api/v1/signup"),
        lambda told: told["paths"]["/api/v1/signup"]["post"].update(security=[{"bearer": []}]),
    ),
    "a method less": (
        *("a person by cookie", "/api/v1/me"),
        lambda told: told["paths"]["/api/v1/me"].pop("patch"),
    ),
}


def schema_of(told: dict[str, Any], record: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = told["components"]["schemas"][record]["properties"][name]
    return found


def parameter_of(told: dict[str, Any], name: str) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = told["paths"]["/api/v1/users"]["get"]["parameters"]
    return next(parameter for parameter in parameters if parameter["name"] == name)


@pytest.mark.parametrize(("who", "path", "change"), UNTRUE.values(), ids=UNTRUE)
def test_what_is_answered_otherwise_is_found(
    app: Flask, who: str, path: str, change: Change
) -> None:
    """The control: the same attack on a description that is not true."""
    visitor = Visitor(app, who)
    untrue = described(app, change, forge_credentials=who == "nobody").include(path=path)
    assert attack(untrue, visitor.ask)
