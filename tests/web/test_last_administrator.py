"""An administrator always remains, whatever two people do at the same moment."""

from collections.abc import Callable
from itertools import combinations_with_replacement
from threading import Thread
from typing import NamedTuple
from uuid import UUID

import pytest
from flask import Flask

from authapp.accounts.actor import OPERATOR
from authapp.accounts.authority.administrators import keep_an_administrator
from authapp.errors import AuthappError, LastAdmin
from authapp.services import Services
from tests.support.people import grant_role, revoke_role
from tests.support.threads import at_once
from tests.web.conftest import MakeApp
from tests.web.support import Stores, services_of, sign_up, signed_in_as

ROUNDS = 4
EMAILS = ("first@example.org", "second@example.org")


class Pair(NamedTuple):
    """Two instances, and two administrators, who are the only ones."""

    apps: tuple[Flask, Flask]
    ids: tuple[UUID, UUID]


# An act removes an administrator as such: (the instance, who does it, about whom) → what is run at
# once with the other act. It returns the status of the answer, or raises an error of ours.
Act = Callable[[Flask, str, UUID], Callable[[], int]]


def by_page(act: str) -> Act:
    def prepare(app: Flask, actor: str, target: UUID) -> Callable[[], int]:
        client = signed_in_as(app, actor)
        return lambda: client.post(f"/admin/users/{target}/{act}").status_code

    return prepare


def by_call(method: str, path: str, body: dict[str, object]) -> Act:
    def prepare(app: Flask, actor: str, target: UUID) -> Callable[[], int]:
        client, url = signed_in_as(app, actor), f"/api/v1/users/{target}{path}"
        return lambda: client.open(url, method=method, json=body).status_code

    return prepare


def by_command(work: Callable[[Services, UUID], object]) -> Act:
    def prepare(app: Flask, _actor: str, target: UUID) -> Callable[[], int]:
        def run() -> int:
            work(services_of(app), target)
            return 200

        return run

    return prepare


def email_of(services: Services, user_id: UUID) -> str:
    user = services.users.get(user_id)
    assert user is not None
    return user.email


ACTS: dict[str, Act] = {
    "page deactivates": by_page("deactivate"),
    "page sets roles": by_page("roles"),
    "call deactivates": by_call("PATCH", "", {"active": False}),
    "call sets roles": by_call("PUT", "/roles", {"roles": ["user"]}),
    "command deactivates": by_command(
        lambda s, user: s.administration.set_active(user, active=False, actor=OPERATOR)
    ),
    "command revokes": by_command(lambda s, user: revoke_role(s, email_of(s, user), "admin")),
}
PAIRS = list(combinations_with_replacement(ACTS, 2))


@pytest.fixture
def pair(make_app: MakeApp) -> Pair:
    limits = {"LOGIN_LIMIT_PER_ADDRESS": "100000 per minute"}
    here, there = make_app(**limits), make_app(**limits)
    first, second = (UUID(sign_up(here, email, roles=["admin", "user"])) for email in EMAILS)
    return Pair((here, there), (first, second))


def make_both_administrators(pair: Pair) -> None:
    services = services_of(pair.apps[0])
    for email, user_id in zip(EMAILS, pair.ids, strict=True):
        services.administration.set_active(user_id, active=True, actor=OPERATOR)
        grant_role(services, email, "admin")


def administrators(stores: Stores) -> int:
    """How many active ones there are."""
    ((count,),) = stores.sql(
        "SELECT count(*) FROM users u JOIN user_roles ON user_id = u.id"
        " JOIN roles r ON r.id = role_id WHERE r.name = 'admin' AND u.active"
    )
    return int(count)


@pytest.mark.parametrize("names", PAIRS, ids=[" + ".join(pair) for pair in PAIRS])
def test_two_who_remove_each_other_at_once_leave_one(
    pair: Pair, stores: Stores, names: tuple[str, str]
) -> None:
    (here, there), (first, second) = pair
    for number in range(ROUNDS):
        make_both_administrators(pair)
        one, other = (ACTS[name] for name in (names if number % 2 else reversed(names)))
        works = one(here, EMAILS[0], second), other(there, EMAILS[1], first)
        outcomes = at_once(*works)
        assert administrators(stores) == 1, outcomes
        for outcome in outcomes:
            refused = isinstance(outcome, AuthappError) and not hasattr(outcome, "store")
            assert refused or outcome in {200, 302, 303, 401, 403, 409}, outcomes


@pytest.mark.parametrize("name", ACTS)
def test_a_removal_waits_for_the_one_before_and_then_looks_again(
    pair: Pair, stores: Stores, name: str
) -> None:
    """The removal before is not committed when this one begins, so a first look sees the old."""
    (here, there), (first, second) = pair
    act = ACTS[name](there, EMAILS[0], second)
    outcomes: list[object] = []

    def run() -> None:
        try:
            outcomes.append(act())
        except LastAdmin as error:
            outcomes.append(error)

    thread = Thread(target=run, daemon=True)
    with services_of(here).changes.begin() as change:
        user = services_of(here).users.lock(change, first, 1)
        keep_an_administrator(change.db, without=first)
        user.active = False
        thread.start()
        thread.join(0.3)
    thread.join(10)
    assert not thread.is_alive()
    assert administrators(stores) == 1, outcomes
