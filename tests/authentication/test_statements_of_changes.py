"""How many SQL statements a change of a person costs, and that it writes each row once."""

from collections.abc import Callable
from uuid import UUID

import pytest

from authapp.accounts.actor import OPERATOR
from authapp.cache.changes import Changed
from authapp.services import Services
from authapp.sessions.records import ActiveSession, EndReason
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in, sign_up
from tests.support.services import sql
from tests.support.traffic import traffic

Act = Callable[[Services, ActiveSession, UUID], Changed[object]]

# the act, and the most statements that it may take
ACTS: dict[str, tuple[Act, int]] = {
    "change the password": (
        lambda s, live, _id: s.password_changes.change_password(
            live, PASSWORD, OTHER_PASSWORD, CLIENT
        ),
        11,  # one of them after the answer, for the copy of the new credentials
    ),
    "set a password": (
        lambda s, _live, _id: s.password_changes.set_password(EMAIL, OTHER_PASSWORD),
        9,  # as above
    ),
    "end all sessions": (
        lambda s, _live, person: s.administration.end_sessions_of(person, OPERATOR),
        9,
    ),
    "deactivate": (
        lambda s, _live, person: s.administration.set_active(person, active=False, actor=OPERATOR),
        9,
    ),
    "end the other sessions": (
        lambda s, live, _id: s.sessions.end_others(live, EndReason.REVOKED_BY_USER, CLIENT),
        8,
    ),
}


@pytest.mark.parametrize(("act", "most"), ACTS.values(), ids=ACTS)
def test_a_change_of_a_person_costs_few_statements(services: Services, act: Act, most: int) -> None:
    person = sign_up(services)
    live, *_ = [log_in(services) for _ in range(4)]
    with traffic() as seen:
        act(services, live, person.id)
    assert len(seen.sql) <= most, "\n".join(" ".join(one.split()) for one in seen.sql)


@pytest.mark.parametrize(("act", "_most"), ACTS.values(), ids=ACTS)
def test_a_change_of_a_person_writes_each_row_once(
    services: Services, act: Act, _most: int
) -> None:
    person = sign_up(services)
    live, *_ = [log_in(services) for _ in range(4)]
    (before,) = sql(services, "SELECT ver FROM users")
    act(services, live, person.id)
    assert {ver for (ver,) in sql(services, "SELECT DISTINCT ver FROM sessions")} <= {1, 2}
    assert sql(services, "SELECT ver FROM users") == [(before[0] + 1,)]


BEGINNINGS: dict[str, Callable[[Services], object]] = {
    "log in": log_in,
    "log a program in": lambda s: s.authentication.issue_token(EMAIL, PASSWORD, CLIENT),
    "sign up": lambda s: s.registration.sign_up("bob@example.org", PASSWORD),
}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_the_beginning_of_a_session_or_user_does_not_look_for_fences_of_other_changes(
    services: Services, begin: Callable[[Services], object]
) -> None:
    """No instance has an entry of a session or user that is new, so there is nothing to promise."""
    sign_up(services)
    with traffic() as seen:
        begin(services)
    assert [one for one in seen.sql if "INSERT INTO" in one], "nothing began"
    assert not [one for one in seen.sql if "pending_fences" in one]
