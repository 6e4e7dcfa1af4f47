"""KEY_PREFIX: deployments that share a Redis share nothing in it, and instances agree on theirs."""

from collections.abc import Iterator
from functools import partial

import pytest
import redis
from flask import Flask

from authapp import Auth, create_app, dev
from authapp.accounts.emails import parse_email
from authapp.cache.versioned_cache import VersionedCache
from authapp.crypto.sealing import Sealer
from authapp.doctor import State, examine
from authapp.errors import InvalidCredentials, SettingError, TooManyAttempts
from authapp.services import Services
from authapp.storage import schema
from authapp.storage.deployments import recorded_key_prefix
from authapp.storage.locks import Locks
from authapp.storage.postgres_connections import WITHOUT_LIMITS, Connector
from tests.support.clock import Clock
from tests.support.databases import add_database, add_migrated_database
from tests.support.people import CLIENT, EMAIL, PASSWORD, log_in, sign_up
from tests.support.redis_contents import everything_in
from tests.support.services import open_services, sql
from tests.support.settings import make_config
from tests.support.threads import at_once
from tests.support.traffic import traffic

JSON = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def empty_url(postgres: dev.PostgreSQL) -> str:
    return add_database(postgres.url, "prefix")


@pytest.fixture
def url(postgres: dev.PostgreSQL) -> str:
    """A migrated database that no instance has used yet."""
    return add_migrated_database(postgres.url, "prefix")


@pytest.fixture
def other_url(postgres: dev.PostgreSQL) -> str:
    return add_migrated_database(postgres.url, "prefix")


@pytest.fixture
def one(
    url: str, valkey: dev.Valkey, redis_client: redis.Redis, clock: Clock
) -> Iterator[Services]:
    with open_services(make_config(url, valkey.url, KEY_PREFIX="one:"), clock) as services:
        yield services


@pytest.fixture
def two(other_url: str, valkey: dev.Valkey, clock: Clock) -> Iterator[Services]:
    """Another deployment, on the same Redis and by the same secrets."""
    with open_services(make_config(other_url, valkey.url, KEY_PREFIX="two:"), clock) as services:
        yield services


def recorded(url: str) -> str | None:
    connection = Connector(url, "tests", WITHOUT_LIMITS)()
    try:
        return recorded_key_prefix(connection)
    finally:
        connection.close()


def refusal(error: object) -> str:
    assert isinstance(error, SettingError), error
    message = str(error)
    assert message.startswith("KEY_PREFIX is ")
    assert "\n" not in message
    return message


# -- nothing is shared -----------------------------------------------------------------------------


def test_every_key_of_a_deployment_begins_with_its_prefix(
    url: str, valkey: dev.Valkey, redis_client: redis.Redis
) -> None:
    """Asked in every way there is: pages, API, tokens, forward-auth, command line, doctor."""
    config = make_config(url, valkey.url, KEY_PREFIX="one:", SESSION_COOKIE_SECURE="0")
    app = create_app(config)
    client, runner = app.test_client(), app.test_cli_runner()
    body = {"email": EMAIL, "password": PASSWORD}
    with traffic() as seen:
        assert client.post("/api/v1/signup", json=body, headers=JSON).status_code == 201
        assert client.post("/api/v1/login", json=body, headers=JSON).status_code == 200
        for _ in range(2):
            assert client.get("/api/v1/me").status_code == 200
            assert client.get("/account").status_code == 200
            assert client.get("/forward-auth/nginx").status_code == 200
        tokens = app.test_client().post("/api/v1/tokens", json=body, headers=JSON)
        assert tokens.status_code == 200
        assert runner.invoke(args=["auth", "users", "grant", EMAIL, "admin"]).exit_code == 0
        assert client.get("/api/v1/users").status_code == 200
        assert runner.invoke(args=["auth", "maintenance"]).exit_code == 0
        runner.invoke(args=["auth", "doctor"])
        assert client.post("/api/v1/logout", headers=JSON).status_code == 204
    keys = {key.decode() for key in everything_in(redis_client)}
    assert {key.split(":")[0] for key in keys} == {"one"}
    assert {key.split(":")[1] for key in keys} == {"sess", "user", "cred", "rate", "lock"}
    assert any(b"one:lock:maintenance" in sent for sent in seen.redis)
    named = b"".join(seen.redis)
    for kind in (b"sess:", b"user:", b"cred:", b"rate:", b"lock:"):
        assert named.count(kind) == named.count(b"one:" + kind), kind


def test_limits_of_one_deployment_are_not_those_of_the_other(one: Services, two: Services) -> None:
    for services in (one, two):
        sign_up(services)
    refused = [at_once(lambda: log_in(one, password="not the password")) for _ in range(11)]
    assert isinstance(refused[-1][0], TooManyAttempts)
    log_in(two)


def test_locks_of_one_deployment_are_not_those_of_the_other(redis_client: redis.Redis) -> None:
    taken = {
        prefix: Locks(redis_client, prefix).take("work", 60) for prefix in ("", "one:", "two:")
    }
    assert all(taken.values())
    assert taken["two:"]
    assert Locks(redis_client, "two:").release(taken["two:"])
    assert Locks(redis_client, "one:").take("work", 60) is None


def test_a_copy_of_one_deployment_is_nothing_to_the_other(redis_client: redis.Redis) -> None:
    """Even where both have the same secrets."""
    sealer = Sealer(["a secret of both"])
    a, b = (VersionedCache(redis_client, sealer, key_prefix=prefix) for prefix in ("a:", "b:"))
    lease = a.acquire("user:1").lease
    assert lease
    assert a.fill("user:1", lease, 1, b"a copy", 60) == "filled"
    assert a.acquire("user:1").value == b"a copy"
    assert b.acquire("user:1").value is None
    redis_client.copy("a:user:1", "b:user:1", replace=True)
    assert b.acquire("user:1").value is None
    a.fence({"user:1": 2})
    assert a.acquire("user:1").value is None


def test_a_flushed_deployment_leaves_the_other_its_copies(
    one: Services, two: Services, redis_client: redis.Redis
) -> None:
    for services in (one, two):
        sign_up(services)
    live = log_in(two)
    assert two.sessions.find(live.token)
    for key in redis_client.scan_iter("one:*"):
        redis_client.delete(key)
    with traffic() as seen:
        assert two.sessions.find(live.token)
    assert not seen.sql


def test_an_own_storage_of_limits_in_redis_has_the_prefix(
    url: str, valkey: dev.Valkey, redis_client: redis.Redis
) -> None:
    app = Flask(__name__)
    config = make_config(url, valkey.url, KEY_PREFIX="one:")
    app.config["RATELIMIT_STORAGE_URI"] = valkey.url.replace("unix://", "redis+unix://")
    auth = Auth(app, config)
    with pytest.raises(InvalidCredentials):
        log_in(auth.state(app).services)
    assert {key.split(b":")[0] for key in everything_in(redis_client)} == {b"one"}


# -- fences ----------------------------------------------------------------------------------------


def test_what_one_instance_ends_has_ended_on_the_next(
    one: Services, url: str, valkey: dev.Valkey, clock: Clock
) -> None:
    sign_up(one)
    live = log_in(one)
    with open_services(make_config(url, valkey.url, KEY_PREFIX="one:"), clock) as next_one:
        assert next_one.sessions.find(live.token)
        one.authentication.log_out(live.token, CLIENT)
        assert not hasattr(next_one.sessions.find(live.token), "record")


def test_fences_are_written_down_without_the_prefix_and_set_with_it(
    one: Services, redis_client: redis.Redis
) -> None:
    sign_up(one)
    live = log_in(one)
    one.sessions.find(live.token)
    one.sessions.find(live.token)
    (key,) = redis_client.scan_iter("one:sess:*")
    assert redis_client.hexists(key, "v")
    # by hand: a trigger writes the fence
    sql(one, "UPDATE sessions SET ended_at = now(), ended_why = 'revoked_by_admin'")
    ((written,),) = sql(one, "SELECT key FROM pending_fences")
    assert f"one:{written}".encode() == key
    assert one.changes.replay()
    assert not redis_client.hexists(key, "v")
    assert sql(one, "SELECT count(*) FROM pending_fences") == [(0,)]


# -- instances of one database agree ---------------------------------------------------------------


@pytest.mark.parametrize(("first", "then"), [("one:", "two:"), ("", "two:"), ("one:", "")])
def test_an_instance_with_another_prefix_is_refused(
    url: str, valkey: dev.Valkey, clock: Clock, first: str, then: str
) -> None:
    assert recorded(url) is None
    schema.require_current(url, first)
    assert recorded(url) == first
    with pytest.raises(SettingError) as caught:
        schema.require_current(url, then)
    message = refusal(caught.value)
    assert f"`{first}`" in message if first else "empty" in message
    wrong = make_config(url, valkey.url, KEY_PREFIX=then)
    with open_services(wrong, clock) as services:
        outcomes = at_once(
            lambda: sign_up(services), lambda: services.users.find(parse_email(EMAIL))
        )
        assert [type(outcome) for outcome in outcomes] == [SettingError, SettingError]
    result = create_app(wrong).test_cli_runner().invoke(args=["auth", "users", "list"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: KEY_PREFIX is ")
    assert result.output.count("\n") == 1
    (finding,) = [found for found in examine(wrong, 1) if found.check == "key prefix"]
    assert finding.state is State.FAIL
    assert finding.remedy
    schema.require_current(url, first)


def test_of_two_first_instances_with_two_prefixes_one_starts(url: str) -> None:
    prefixes = [f"{number}:" for number in range(6)]
    outcomes = at_once(*[partial(schema.require_current, url, prefix) for prefix in prefixes])
    (winner,) = [prefix for prefix, found in zip(prefixes, outcomes, strict=True) if not found]
    assert recorded(url) == winner
    for found in outcomes:
        assert found is None or refusal(found)


def test_a_database_of_before_has_no_prefix(empty_url: str) -> None:
    """Instances of the version before may still run, and know of none."""
    schema.upgrade(empty_url, "0008")
    connection = Connector(empty_url, "tests", WITHOUT_LIMITS)()
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO authapp_data.users"
            " (id, email, email_canonical, password_hash, created_at, updated_at)"
            " VALUES (gen_random_uuid(), 'a@b.example', 'a@b.example', 'x', now(), now())"
        )
    connection.close()
    schema.upgrade(empty_url)
    assert recorded(empty_url) == ""
    with pytest.raises(SettingError):
        schema.require_current(empty_url, "one:")


def test_the_prefix_can_be_changed_for_all_instances(
    one: Services, url: str, valkey: dev.Valkey, clock: Clock
) -> None:
    """As docs/production.md says: with SQL, while none runs."""
    sign_up(one)
    live = log_in(one)
    one.close()
    sql(one, "UPDATE deployment SET key_prefix = 'new:'")
    with open_services(make_config(url, valkey.url, KEY_PREFIX="new:"), clock) as services:
        assert services.sessions.find(live.token), "nobody is logged out"
    with pytest.raises(SettingError):
        schema.require_current(url, "one:")


def test_a_database_that_only_reads_is_used_as_it_is(url: str, valkey: dev.Valkey) -> None:
    connection = Connector(url, "tests", WITHOUT_LIMITS)()
    connection.autocommit = True
    name = connection.info.dbname
    connection.cursor().execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    connection.close()
    schema.require_current(url, "one:")
    assert recorded(url) is None
