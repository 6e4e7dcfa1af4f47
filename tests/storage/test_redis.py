"""Clients of one server, Sentinel and Cluster: what can be said without servers."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Barrier
from typing import Any

import pytest
import redis
from limits.storage import storage_from_string
from redis.connection import AbstractConnection
from redis.sentinel import MasterNotFoundError

from authapp import dev
from authapp.errors import SettingError
from authapp.storage import redis as redis_module
from authapp.storage.redis import (
    REDIS_ERRORS,
    TIMEOUT,
    LimiterStorage,
    _Sentinels,
    ask_at_once,
    redis_client,
)
from authapp.storage.redis_address import RedisAddress
from tests.support.frozen import frozen
from tests.support.threads import at_once
from tests.support.waiting import wait_until


def nowhere() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
    return f"{host}:{port}"


def urls() -> list[str]:
    one, two = nowhere(), nowhere()
    return [
        f"redis://{one}/0",
        f"redis+sentinel://:secret@{one},{two}/service",
        f"redis+cluster://{one},{two}",
    ]


@pytest.mark.parametrize("kind", range(3), ids=["server", "sentinel", "cluster"])
def test_clients_are_made_and_closed_without_a_server(kind: int) -> None:
    redis_client(urls()[kind], retries=1).close()


@pytest.mark.parametrize("kind", range(3), ids=["server", "sentinel", "cluster"])
def test_that_nobody_answers_is_an_error_that_stores_expect(kind: int) -> None:
    client: Any = redis_client(urls()[kind], retries=0)
    for _ in range(2):
        with pytest.raises(REDIS_ERRORS):
            client.ping()
        with pytest.raises(REDIS_ERRORS):
            client.pipeline(transaction=False).set("key", "value").execute()


@pytest.mark.parametrize("kind", range(3), ids=["server", "sentinel", "cluster"])
def test_flask_limiter_has_its_storage_before_there_is_a_server(kind: int) -> None:
    storage = storage_from_string("authapp://", redis_url=urls()[kind])
    assert isinstance(storage, LimiterStorage)
    with pytest.raises(REDIS_ERRORS):
        storage.acquire_entry("key", 1, 60)


def test_no_wait_is_unbounded() -> None:
    client = redis_client("redis+sentinel://127.0.0.1:1/service", retries=1)
    asked = [client, *client.connection_pool.sentinel_manager.sentinels]  # type: ignore[attr-defined]
    for one in asked:
        options = one.connection_pool.connection_kwargs
        assert options["socket_timeout"] == options["socket_connect_timeout"] == TIMEOUT


@pytest.mark.parametrize(
    ("url", "account", "hosts", "path"),
    [
        ("redis+cluster://a:1,b:2", {}, [("a", 1), ("b", 2)], ""),
        ("redis+cluster://:p%40ss@[::1]:1", {"password": "p@ss"}, [("::1", 1)], ""),
        (
            "redis+sentinel://u:p@a:1/s/3",
            {"username": "u", "password": "p"},
            [("a", 1)],
            "s/3",
        ),
    ],
)
def test_the_address_of_several_servers(
    url: str, account: dict[str, str], hosts: list[tuple[str, int]], path: str
) -> None:
    address = RedisAddress.parse(url)
    assert (address.account, list(address.places)) == (account, hosts)
    assert "/".join(filter(None, (address.service, address.database))) == path
    assert "p@ss" not in repr(address)


@pytest.mark.parametrize(
    ("url", "places", "password"),
    [
        ("redis://cache", (("cache", 6379),), ""),
        ("rediss://u:p%40@[::1]:7/0", (("::1", 7),), "p@"),
        ("redis://cache/0?password=p", (("cache", 6379),), "p"),
        ("unix:///run/redis.sock?password=p", (), "p"),
    ],
)
def test_the_address_of_one_server(
    url: str, places: tuple[tuple[str, int], ...], password: str
) -> None:
    address = RedisAddress.parse(url)
    assert (address.kind, address.places, address.password) == ("server", places, password)
    assert address.has_tls == url.startswith("rediss")


def test_threads_that_ask_sentinels_at_once_lose_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sentinels = _Sentinels([("a", 1), ("b", 2), ("c", 3)], {}, {})
    both, answer = Barrier(2), {"is_master": True, "is_sdown": False, "is_odown": False}

    def masters(self: redis.Redis) -> dict[str, Any]:
        if self.connection_pool.connection_kwargs["host"] == "a":
            raise redis.ConnectionError
        both.wait(30)  # each has read the list before any changes it
        return {"service": answer | {"ip": "d", "port": 4, "num-other-sentinels": 2}}

    monkeypatch.setattr(redis.Redis, "sentinel_masters", masters)
    found = at_once(*[lambda: sentinels.discover_master("service")] * 2)
    assert found == [("d", 4)] * 2
    known = [s.connection_pool.connection_kwargs["host"] for s in sentinels.sentinels]
    assert sorted(known) == ["a", "b", "c"]
    assert known[0] == "b"  # the server that answered is asked first


def test_sentinels_that_hang_are_not_all_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search asks a few, and the next one goes on with the others."""
    with ExitStack() as stack:
        hanging = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(8)]
        hosts = [(str(host), int(port)) for host, port in (s.getsockname() for s in hanging)]
        waits = {"socket_timeout": 0.25, "socket_connect_timeout": 0.25}
        sentinels = _Sentinels(hosts, {"password": "secret"}, waits)
        first = sentinels.sentinels[0]
        known = len(sentinels.sentinels)
        asked: list[object] = []
        masters = redis.Redis.sentinel_masters

        def noting(self: redis.Redis) -> Any:
            asked.append(self)
            return masters(self)  # type: ignore[no-untyped-call]

        monkeypatch.setattr(redis.Redis, "sentinel_masters", noting)
        with pytest.raises(MasterNotFoundError):
            sentinels.discover_master("service")
        assert asked[0] is first
        assert len(asked) < known / 2, "it waited for most of them"
        assert len(sentinels.sentinels) == known
        assert first in sentinels.sentinels[known // 2 :], "next time the others come first"


# -- one server ------------------------------------------------------------------------------------


@pytest.fixture
def client(valkey: dev.Valkey) -> Iterator[redis.Redis]:
    with redis_client(valkey.url, retries=1) as client:
        client.flushall()
        yield client


def connections(client: redis.Redis) -> list[Any]:
    """Those that wait to be used."""
    found: list[Any] = client.connection_pool._available_connections
    return found


def test_a_connection_is_kept(client: redis.Redis) -> None:
    client.set("key", 1)
    (kept,) = connections(client)
    for _ in range(3):
        assert client.get("key") == b"1"
    assert connections(client) == [kept]


def test_each_thread_gets_its_own_answers(client: redis.Redis) -> None:
    def ask(number: int) -> bool:
        return all(client.echo(f"{number}-{n}") == f"{number}-{n}".encode() for n in range(200))

    assert at_once(*[lambda number=number: ask(number) for number in range(6)]) == [True] * 6
    assert len(connections(client)) <= 6


def test_what_the_server_closed_is_opened_once_more(client: redis.Redis) -> None:
    at_once(*[client.ping] * 3)
    with redis.Redis(connection_pool=client.connection_pool) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    for _ in range(3):
        assert client.ping()


def test_a_lost_answer_is_asked_for_once_more_and_no_more(client: redis.Redis) -> None:
    client.ping()
    read: Any = AbstractConnection.read_response
    lost: list[bytes] = []

    def lose(self: AbstractConnection, *args: Any, **how: Any) -> Any:
        answer = read(self, *args, **how)
        if answer == b"PONG" and len(lost) < losses:
            lost.append(answer)
            raise redis.TimeoutError
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AbstractConnection, "read_response", lose)
        losses = 1
        assert client.ping()
        assert len(lost) == 1
        lost.clear()
        losses = 9
        with pytest.raises(redis.TimeoutError):
            client.ping()
        assert len(lost) == 2
    assert client.ping()


def test_an_answer_nobody_waited_for_is_not_the_next_one_s(client: redis.Redis) -> None:
    client.set("key", "right")
    ours: tuple[object, str] = (redis_module, "_read")
    for (owner, name), command in (
        ((redis.Redis, "parse_response"), ("ECHO", "wrong")),
        (ours, ("FCALL", "wrong", 0)),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                client.execute_command(*command)  # type: ignore[no-untyped-call]
        assert client.get("key") == b"right"


def interrupted(*_args: object, **_how: object) -> None:
    raise KeyboardInterrupt


def test_what_a_server_refuses_costs_no_connection(client: redis.Redis) -> None:
    client.set("key", "text")
    kept = list(connections(client))
    with pytest.raises(redis.ResponseError):
        client.lpush("key", "x")
    assert connections(client) == kept
    assert client.get("key") == b"text"


LIBRARY = """#!lua name=of_this_test
redis.register_function('echo_of_this_test', function(_, args)
  return args[1] == 'refuse' and redis.error_reply('REFUSED') or args[1]
end)
"""
TOGETHER = [("FCALL", "echo_of_this_test", 0, word) for word in ("one", "refuse", "three")]


@pytest.fixture
def functions(client: redis.Redis) -> Iterator[None]:
    client.function_load(LIBRARY, replace=True)
    yield
    client.function_delete("of_this_test")


def replies_together(client: redis.Redis) -> list[object]:
    one, refused, three = ask_at_once(client, TOGETHER)
    assert isinstance(refused, redis.ResponseError)
    return [one, three]


@pytest.mark.usefixtures("functions")
def test_commands_that_go_together_are_one_write(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.ping()
    kept = list(connections(client))
    sent: list[object] = []
    send: Any = AbstractConnection.send_packed_command

    def note(self: AbstractConnection, command: object, check_health: bool = True) -> None:
        sent.append(command)
        send(self, command, check_health)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", note)
    assert replies_together(client) == [b"one", b"three"]
    assert len(sent) == 1
    assert connections(client) == kept
    kept[0].disconnect()
    assert replies_together(client) == [b"one", b"three"], "none is connected"
    connections(client).clear()
    assert replies_together(client) == [b"one", b"three"], "there is none"


@pytest.mark.usefixtures("functions")
def test_commands_that_go_together_are_sent_once_more_and_no_more(client: redis.Redis) -> None:
    client.ping()
    with redis.Redis(connection_pool=client.connection_pool) as other:
        other.client_kill_filter(_type="normal", skipme=True)
    assert replies_together(client) == [b"one", b"three"]
    read: Any = redis_module._read
    lost: list[bytes] = []

    def lose(connection: AbstractConnection) -> Any:
        answer = read(connection)
        if answer == b"three" and len(lost) < losses:
            lost.append(answer)
            raise redis.TimeoutError
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_module, "_read", lose)
        losses = 1
        assert replies_together(client) == [b"one", b"three"]
        lost.clear()
        losses = 9
        with pytest.raises(redis.TimeoutError):
            ask_at_once(client, TOGETHER)
        assert len(lost) == 2
    assert client.echo("next") == b"next", "nothing of before is left to be read"


def test_a_forked_process_uses_none_of_its_parents(client: redis.Redis) -> None:
    client.ping()
    (parents,) = connections(client)
    client.connection_pool.pid = -1  # as a fork finds it
    client.ping()
    assert parents not in connections(client)


def test_a_server_that_does_not_answer_is_not_waited_for(
    client: redis.Redis, valkey: dev.Valkey
) -> None:
    client.ping()
    (kept,) = connections(client)
    with pytest.raises(redis.ResponseError, match="Function not found"):
        client.execute_command("FCALL", "nothing", 0)  # type: ignore[no-untyped-call]
    assert kept._sock.gettimeout() is None, "the kernel bounds this wait"
    with frozen(valkey.pid):
        for _ in range(2):
            with pytest.raises((redis.ConnectionError, redis.TimeoutError, OSError)):
                client.execute_command("FCALL", "nothing", 0)  # type: ignore[no-untyped-call]
    wait_until(client.ping, ignoring=redis.RedisError)


def test_a_long_reply_is_read_to_its_end(client: redis.Redis) -> None:
    client.function_load(
        "#!lua name=tests_long\nserver.register_function('tests_long', "
        "function(_, args) return string.rep('x', tonumber(args[1])) end)",
        replace=True,
    )
    client.ping()
    for length in (0, 65_530, 1_000_000):
        reply: Any = client.fcall("tests_long", 0, length)
        assert reply == b"x" * length
    client.function_delete("tests_long")


def test_what_must_not_be_repeated_is_not(valkey: dev.Valkey) -> None:
    with redis_client(valkey.url, retries=0) as client:
        client.ping()
        with pytest.MonkeyPatch.context() as patch:
            sent: list[object] = []

            def fails(*args: object, **_how: object) -> None:
                sent.append(args)
                raise redis.TimeoutError

            patch.setattr(redis.Redis, "_send_command_parse_response", fails)
            with pytest.raises(redis.TimeoutError):
                client.incr("key")
        assert len(sent) == 1


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hush@h/0?pool_size=5",
        "redis://:hush@h/0?db=x",
        "redis://:hush@h?socket_timeout=soon",
        "unix:///hush?foo=1",
        "rediss://:hush@h?ssl_cert_reqs=bogus",
        "redis+sentinel://:hush@h:1/main/x",
    ],
)
def test_a_parameter_that_the_library_does_not_know_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        redis_client(url, retries=0)
    message = str(caught.value)
    assert message.startswith("REDIS_URL: a parameter after its ?")
    assert "hush" not in message
    assert "\n" not in message
