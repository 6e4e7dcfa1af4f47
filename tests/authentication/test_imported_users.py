"""People who came along from another system log in by their old password, everywhere once."""

import io
import json
import time
from typing import Any

import bcrypt
import pytest

from authapp.accounts.emails import parse_email
from authapp.config import Config
from authapp.errors import InvalidCredentials, StoreUnavailable
from authapp.passwords import constant_time
from authapp.services import Services
from authapp.telemetry import metrics
from tests.sessions.test_provisional import postgres_away
from tests.support.clock import Clock
from tests.support.foreign_hashes import KINDS, all_kinds
from tests.support.hashing import hashing
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, PASSWORD, log_in, sign_up
from tests.support.redis_contents import everything_in
from tests.support.services import open_services, sql
from tests.support.settings import PEPPER, make_config

OLD_PASSWORD = "pässwörd 1"  # as short as it was
HASHES = all_kinds(OLD_PASSWORD)


def bring(services: Services, *hashes: str, email: str = EMAIL) -> None:
    """Import users: the first one with this email, further ones with a number in front."""
    users = [
        {"email": f"{number or ''}{email}", "password_hash": hash_}
        for number, hash_ in enumerate(hashes)
    ]
    file = io.BytesIO("\n".join(json.dumps(user) for user in users).encode())
    assert [batch.made for batch in services.user_import.run(file)] == [len(hashes)]


def stored(services: Services) -> str:
    ((found,),) = sql(services, "SELECT password_hash FROM users")
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_logs_in_once_by_the_old_hash_and_then_by_ours(
    services: Services, kind: str
) -> None:
    bring(services, HASHES[kind])
    imported = stored(services)
    assert imported.startswith("imported:")
    with pytest.raises(InvalidCredentials):
        log_in(services, password="pässwörd 2")
    assert stored(services) == imported
    log_in(services, password=OLD_PASSWORD)
    ours = stored(services)
    assert ours.split(":")[1].startswith("$2b$04$")
    with hashing() as costs:
        log_in(services, password=OLD_PASSWORD)
    assert (costs, stored(services)) == ([4], ours)
    with pytest.raises(InvalidCredentials):
        log_in(services, password="pässwörd 2")


def test_the_replacement_ends_no_session_and_tells_the_audit_log_nothing(
    services: Services,
) -> None:
    bring(services, HASHES["django-pbkdf2-sha256"])
    ((epoch,),) = sql(services, "SELECT epoch FROM users")
    log_in(services, password=OLD_PASSWORD)
    assert sql(services, "SELECT epoch FROM users") == [(epoch,)]
    events = sql(services, "SELECT event FROM audit_events ORDER BY id")
    assert events == [("user.created",), ("session.begun",)]


def test_neither_store_holds_the_hash(services: Services, config: Config) -> None:
    bring(services, HASHES["flask-bcrypt"])
    services.credentials.find(parse_email(EMAIL))  # from here on there is a copy
    digest = HASHES["flask-bcrypt"][-20:]
    assert digest not in stored(services)
    assert not any(digest.encode() in value for value in everything_in(services.redis).values())


def test_a_hash_moved_to_another_account_opens_nothing(services: Services) -> None:
    bring(services, HASHES["flask-bcrypt"], HASHES["argon2id"])
    sql(
        services,
        "UPDATE users SET password_hash ="
        " (SELECT password_hash FROM users WHERE email = :email) WHERE email <> :email",
        email=EMAIL,
    )
    log_in(services, password=OLD_PASSWORD)
    with pytest.raises(InvalidCredentials):
        log_in(services, f"1{EMAIL}", OLD_PASSWORD)


def test_a_rotated_pepper_opens_it_and_a_retired_one_does_not(
    services: Services, config: Config, clock: Clock
) -> None:
    bring(services, HASHES["flask-bcrypt"], HASHES["flask-bcrypt"])
    new = "a new pepper of thirty-two bytes"
    for peppers, opens in ((f"{new},{PEPPER}", True), (new, False)):
        settings = make_config(config.DATABASE_URL, config.REDIS_URL, PASSWORD_PEPPER=peppers)
        with open_services(settings, clock) as later:
            if opens:
                log_in(later, password=OLD_PASSWORD)
            else:
                log_in(later, password=OLD_PASSWORD)  # replaced under the new pepper
                with pytest.raises(InvalidCredentials):
                    log_in(later, f"1{EMAIL}", OLD_PASSWORD)


# -- without Postgres ------------------------------------------------------------------------------


def test_log_in_works_while_postgres_is_away_and_the_replacement_waits(
    services: Services,
) -> None:
    bring(services, HASHES["werkzeug-scrypt"])
    services.credentials.find(parse_email(EMAIL))
    imported = stored(services)
    with postgres_away(services):
        assert log_in(services, password=OLD_PASSWORD).record.provisional
        assert log_in(services, password=OLD_PASSWORD).record.provisional
        with pytest.raises(StoreUnavailable):
            log_in(services, password="pässwörd 2")
    assert stored(services) == imported
    log_in(services, password=OLD_PASSWORD)
    assert not stored(services).startswith("imported:")


# -- a current password ----------------------------------------------------------------------------


def test_the_current_password_may_still_be_the_imported_one(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(services, HASHES["django-argon2"])

    def away(*_: Any) -> None:
        raise StoreUnavailable("postgres")

    with monkeypatch.context() as patch:
        patch.setattr(services.users, "rehash", away)
        live = log_in(services, password=OLD_PASSWORD)
    assert stored(services).startswith("imported:")
    services.password_changes.change_password(live, OLD_PASSWORD, PASSWORD, CLIENT)
    log_in(services, password=PASSWORD)
    with pytest.raises(InvalidCredentials):
        log_in(services, password=OLD_PASSWORD)


def test_an_operator_may_set_a_password_over_it(services: Services) -> None:
    bring(services, HASHES["django-argon2"])
    services.password_changes.set_password(EMAIL, PASSWORD)
    log_in(services, password=PASSWORD)
    with pytest.raises(InvalidCredentials):
        log_in(services, password=OLD_PASSWORD)


# -- the time of refusals --------------------------------------------------------------------------


class Pauses:
    """A clock in the place of `time`, on which no refusal really pauses.

    Attributes:
        seconds: all pauses together.
        without_place: those that were made without a place in the hashing queue.
    """

    def __init__(self) -> None:
        self.seconds = self.without_place = 0.0

    def perf_counter(self) -> float:
        return time.perf_counter() + self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if not metrics.HASHING._value.get():
            self.without_place += seconds


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    found = Pauses()
    monkeypatch.setattr(constant_time, "time", found)
    return found


def pause_of(services: Services, pauses: Pauses, email: str) -> float:
    before = pauses.seconds
    with pytest.raises((InvalidCredentials, StoreUnavailable)):
        log_in(services, email, OTHER_PASSWORD)
    return pauses.seconds - before


def test_refusals_are_drawn_out_while_there_is_an_imported_hash(
    services: Services, two_instances: Services, pauses: Pauses
) -> None:
    """Whoever is asked for, on every instance; and no longer when the last one is replaced."""
    sign_up(services)
    for email in (EMAIL, "nobody@example.org"):
        assert pause_of(services, pauses, email) < 0.2
    slow = bcrypt.hashpw(OLD_PASSWORD.encode(), bcrypt.gensalt(12)).decode()
    bring(services, slow, HASHES["flask-bcrypt"], email="old@example.org")
    for instance in (services, two_instances):
        for email in (EMAIL, "nobody@example.org", "1old@example.org"):
            assert pause_of(instance, pauses, email) > 0.2, email
    log_in(services, "old@example.org", OLD_PASSWORD)
    for email in (EMAIL, "nobody@example.org", "1old@example.org"):
        assert pause_of(two_instances, pauses, email) < 0.2, email


def test_refusals_that_pause_can_not_fill_the_request_threads(
    services: Services, pauses: Pauses
) -> None:
    """Each keeps its place in the hashing queue, of which there are fewer than request threads."""
    slow = bcrypt.hashpw(OLD_PASSWORD.encode(), bcrypt.gensalt(12)).decode()
    bring(services, slow)
    assert pause_of(services, pauses, "nobody@example.org") > 0.2
    assert pauses.without_place <= constant_time.REFUSAL_SECONDS


def test_a_process_that_never_asked_postgres_learns_from_a_copy(
    services: Services, config: Config, clock: Clock, pauses: Pauses
) -> None:
    slow = bcrypt.hashpw(OLD_PASSWORD.encode(), bcrypt.gensalt(12)).decode()
    bring(services, slow)
    services.credentials.find(parse_email(EMAIL))
    with open_services(config, clock) as fresh, postgres_away(fresh):
        pause_of(fresh, pauses, EMAIL)
        assert pause_of(fresh, pauses, "nobody@example.org") > 0.2


def test_the_slowest_is_found_by_its_index(services: Services) -> None:
    bring(services, HASHES["flask-bcrypt"])
    with services.database.transaction() as db:
        connection = db.connection()
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = connection.exec_driver_sql(
            "EXPLAIN SELECT max(split_part(password_hash, ':', 3)::integer) FROM authapp_data.users"
            " WHERE password_hash LIKE 'imported:%%'"
        )
        assert any("ix_users_imported" in row[0] for row in plan)
