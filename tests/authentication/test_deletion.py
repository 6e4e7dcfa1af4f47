"""A deleted person: nothing of theirs survives, whichever store is away, and the email is free."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from authapp.accounts.actor import OPERATOR, Actor
from authapp.accounts.audit import Filter
from authapp.accounts.emails import parse_email
from authapp.cache.changes import Changed
from authapp.cache.versioned_cache import Lease
from authapp.errors import (
    AuthappError,
    Forbidden,
    InvalidCredentials,
    LastAdmin,
    NotAuthenticated,
    OwnAccount,
    StoreUnavailable,
    UnknownUser,
    UserInUse,
)
from authapp.services import Services
from authapp.sessions.records import ActiveSession, IssuedTokens
from tests.support.people import CLIENT, EMAIL, PASSWORD, log_in, sign_up
from tests.support.services import await_trust, sql
from tests.support.threads import at_once


@dataclass(frozen=True)
class Held:
    """All that a person's browser and program hold."""

    browser: ActiveSession
    program: IssuedTokens


def hold(services: Services) -> Held:
    browser = log_in(services)
    program = services.authentication.issue_token(EMAIL, PASSWORD, CLIENT, refreshable=True)
    return Held(browser, program)


def copy(services: Services, held: Held) -> None:
    """Have the instance find all of it, so that Redis holds copies."""
    for token in (held.browser.token, held.program.session.token):
        assert isinstance(services.sessions.find(token), ActiveSession)
    assert services.credentials.find(parse_email(EMAIL)) is not None
    assert services.users.look_up(held.browser.record.user.id)[0] is not None


def outcome(work: Callable[[], object]) -> object:
    """The outcome: the returned value, or the type of the error."""
    try:
        return work()
    except AuthappError as error:
        return type(error)


def admitted(services: Services, held: Held) -> dict[str, object]:
    """The credentials that an instance still lets in; there must be none."""
    refresh = held.program.refresh
    assert refresh is not None
    found = {
        "cookie": outcome(partial(services.sessions.find, held.browser.token)),
        "access token": outcome(partial(services.sessions.find, held.program.session.token)),
        "refresh token": outcome(partial(services.sessions.refresh, refresh, CLIENT)),
        "password": outcome(partial(log_in, services)),
    }
    refusals = (None, StoreUnavailable, NotAuthenticated, InvalidCredentials)
    return {name: came for name, came in found.items() if came not in refusals}


def fences_fail(services: Services, patch: pytest.MonkeyPatch, *, at: int) -> None:
    """Redis takes no fence of this instance from this one on: 1 is before the commit, 2 after."""
    fence, count = services.cache.fence, 0

    def fails(versions: Mapping[str, int], **how: Any) -> dict[str, Lease]:
        nonlocal count
        count += 1
        if count >= at:
            services.cache.breaker.open()
            raise StoreUnavailable("redis")
        return fence(versions, **how)

    patch.setattr(services.cache, "fence", fails)


@contextmanager
def postgres_away(services: Services) -> Iterator[None]:
    """The instance can't ask Postgres."""

    def nobody_there() -> None:
        raise StoreUnavailable("postgres")

    services.database.breaker.recover = nobody_there
    services.database.breaker.open()
    try:
        yield
    finally:
        services.database.breaker.recover = services.database.ping
        await_trust(services)


@pytest.fixture
def held(services: Services, two_instances: Services) -> Held:
    sign_up(services)
    held = hold(services)
    for instance in (services, two_instances):
        copy(instance, held)
    return held


def delete(services: Services, held: Held) -> None:
    services.administration.delete_user(held.browser.record.user.id, OPERATOR)


def test_all_ends_everywhere_at_once(
    services: Services, two_instances: Services, held: Held
) -> None:
    delete(services, held)
    for instance in (two_instances, services):
        assert admitted(instance, held) == {}
        assert instance.users.get(held.browser.record.user.id) is None
        assert instance.users.look_up(held.browser.record.user.id)[0] is None
        assert instance.credentials.find(parse_email(EMAIL)) is None
    for table in ("users", "user_roles", "sessions"):
        assert sql(services, f"SELECT * FROM {table}") == [], table


@pytest.mark.parametrize("at", [1, 2])
def test_without_redis_and_then_without_postgres_nothing_is_let_in(
    services: Services,
    two_instances: Services,
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    """The copies are still in Redis when it is back, and Postgres goes away meanwhile."""
    with monkeypatch.context() as redis_away:
        fences_fail(services, redis_away, at=at)
        delete(services, held)
        assert admitted(services, held) == {}
        with postgres_away(services):
            assert admitted(services, held) == {}
            redis_away.undo()
            assert admitted(services, held) == {}, "fences are not read yet"
    await_trust(services)
    for instance in (services, two_instances):  # what was written down is set by now
        assert admitted(instance, held) == {}


def test_without_postgres_elsewhere_the_fenced_copies_let_nobody_in(
    services: Services, two_instances: Services, held: Held
) -> None:
    with postgres_away(two_instances):
        delete(services, held)
        assert admitted(two_instances, held) == {}
    assert admitted(two_instances, held) == {}


def test_a_session_that_has_no_row_ends_too(
    services: Services, two_instances: Services, held: Held
) -> None:
    cut_off, other = services, two_instances
    with postgres_away(cut_off):
        begun = log_in(cut_off)
        assert begun.record.provisional is not None
        delete(other, held)
        with pytest.raises(StoreUnavailable):
            cut_off.sessions.find(begun.token)
        with pytest.raises(StoreUnavailable):
            log_in(cut_off)
    for instance in (cut_off, other):
        assert instance.sessions.find(begun.token) is None
    assert sql(services, "SELECT * FROM sessions") == [], "it gets no row"


def test_without_postgres_nobody_is_deleted(services: Services, held: Held) -> None:
    with postgres_away(services), pytest.raises(StoreUnavailable):
        delete(services, held)
    assert isinstance(services.sessions.find(held.browser.token), ActiveSession)


def test_of_a_log_in_and_a_deletion_at_once_nothing_is_left(
    services: Services, two_instances: Services
) -> None:
    for _ in range(6):
        user = sign_up(services)
        came, _ = at_once(
            partial(log_in, two_instances),
            partial(services.administration.delete_user, user.id, OPERATOR),
        )
        assert isinstance(came, (ActiveSession, InvalidCredentials)), came
        if isinstance(came, ActiveSession):
            assert services.sessions.find(came.token) is None
        assert sql(services, "SELECT * FROM sessions") == []


def test_the_email_is_free_and_whoever_has_it_next_is_another_person(
    services: Services, two_instances: Services, held: Held
) -> None:
    delete(services, held)
    again = services.registration.sign_up(EMAIL, "quite another long passphrase")
    assert again.id != held.browser.record.user.id
    for instance in (two_instances, services):
        assert admitted(instance, held) == {}
        live = log_in(instance, password="quite another long passphrase")
        assert live.record.user == again


# -- what is recorded, and what stands in the way --------------------------------------------------


def test_the_record_names_the_person_no_longer(services: Services, held: Held) -> None:
    root = services.registration.sign_up("root@example.org", PASSWORD, roles=("admin",))
    user_id = held.browser.record.user.id
    services.administration.delete_user(user_id, Actor(root.id, "192.0.2.9"))
    (entry,) = services.audit.page(which=Filter(event="user.deleted")).entries
    assert entry.user is None
    assert entry.actor is not None
    assert (entry.actor.id, entry.address) == (root.id, "192.0.2.9")
    assert services.audit.page(which=Filter(user_ids=[user_id])).entries == []
    told = str(sql(services, "SELECT * FROM audit_events"))
    assert str(user_id) not in told
    assert EMAIL not in told
    found = services.audit.page(which=Filter(email=parse_email(EMAIL))).entries
    assert [entry.event for entry in found] == ["user.deleted"], "found by the email alone"


def test_the_last_administrator_stays(services: Services) -> None:
    root = services.registration.sign_up("root@example.org", PASSWORD, roles=("admin",))
    with pytest.raises(LastAdmin):
        services.administration.delete_user(root.id, OPERATOR)
    assert services.users.get(root.id) is not None
    second = services.registration.sign_up("second@example.org", PASSWORD, roles=("admin",))
    outcomes = at_once(
        *(
            partial(services.administration.delete_user, user.id, OPERATOR)
            for user in (root, second)
        )
    )
    assert {type(outcome) for outcome in outcomes} == {LastAdmin, Changed}


def test_who_may_not_delete(services: Services) -> None:
    person = sign_up(services)
    root = services.registration.sign_up("root@example.org", PASSWORD, roles=("admin",))
    refusals = {
        Actor(person.id): (root.id, Forbidden),
        Actor(root.id): (root.id, OwnAccount),
        Actor(): (person.id, NotAuthenticated),
        OPERATOR: (uuid4(), UnknownUser),
    }
    for actor, (user_id, error) in refusals.items():
        with pytest.raises(error):
            services.administration.delete_user(user_id, actor)
    assert services.users.get(person.id) == person


def test_the_app_may_delete_a_person_at_their_own_wish(services: Services) -> None:
    person = sign_up(services)
    services.administration.delete_user(person.id, Actor(person.id, is_operator=True))
    (entry,) = services.audit.page(which=Filter(event="user.deleted")).entries
    assert (entry.user, entry.actor) == (None, None)


def test_a_table_of_the_app_that_refers_to_the_person_is_named(services: Services) -> None:
    person = sign_up(services)
    sql(services, "CREATE TABLE notes (owner uuid REFERENCES users (id))")
    try:
        sql(services, "INSERT INTO notes VALUES (:id)", id=person.id)
        with pytest.raises(UserInUse, match="Rows of the table notes refer to this person"):
            services.administration.delete_user(person.id, OPERATOR)
        assert isinstance(log_in(services), ActiveSession), "nothing was changed"
    finally:
        sql(services, "DROP TABLE notes")
