"""How Redis is reached: one server, Sentinel or Cluster, each with TLS or without; every wait
bounded."""

import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, cast

import redis
from hiredis import pack_command
from limits.storage import RedisStorage
from redis._parsers.hiredis import NOT_ENOUGH_DATA
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import PRIMARY, ClusterNode, NodesManager, RedisCluster
from redis.commands.core import Script
from redis.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from authapp.errors import SettingError
from authapp.storage.deadlines import pause_before_retry
from authapp.storage.redis_address import RedisAddress

# what a client raises when it could not be answered; the cluster's is no RedisError
REDIS_ERRORS = (RedisError, RedisClusterException)

TIMEOUT = 0.25  # seconds; the library's own default is never
SEARCH = 0.6  # seconds to find a Sentinel that answers
CONFIRMED_FOR = 1.0  # seconds that a primary is taken for one; Sentinels replace none within them


def redis_client(url: str, retries: int, timeout: float = TIMEOUT) -> "redis.Redis":
    """A client that opens no connection before its first command and returns bytes.

    Args:
        url: redis://, unix://, redis+sentinel://host:port,host:port/service or
            redis+cluster://host:port,host:port; with TLS rediss://, rediss+sentinel://… or
            rediss+cluster://….
        retries: 0 for commands that must not be repeated, as locks and counts.
        timeout: seconds, to connect and to answer.
    Raises:
        SettingError: the URL has a parameter or a database that the library does not know.
    """
    try:
        return _client(RedisAddress.parse(url), retries, timeout)
    except (TypeError, ValueError, RedisError):
        raise SettingError(
            "REDIS_URL: a parameter after its ?, or its database, is none that redis-py knows: "
            "correct it or take it out"
        ) from None


def _client(address: RedisAddress, retries: int, timeout: float) -> "redis.Redis":
    waits: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    retry = Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.05), retries)
    if address.kind == "server":
        kind = _Server if retries else redis.Redis
        client = kind.from_url(address.url, client_name="authapp", retry=retry, **waits)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # it opens nothing, and knows all options
        return client
    hosts, account = list(address.places), address.account
    reach = waits | tls_options(address)
    if address.kind == "sentinel":
        database = int(address.database or 0)
        sentinel = _Sentinels(hosts, account, reach, db=database, retry=retry)
        master: redis.Redis = sentinel.master_for(address.service, connection_pool_class=_Confirmed)  # type: ignore[no-untyped-call]
        return master
    cluster = _Later(lambda: _cluster(hosts, retry=retry, **account, **reach))
    return cast("redis.Redis", cluster)


def tls_options(address: RedisAddress) -> dict[str, Any]:
    """How the library is told of TLS: the options of `rediss://`; empty where there is none."""
    if not address.has_tls:
        return {}
    options: dict[str, Any] = parse_url(f"rediss://?{address.query}")  # type: ignore[no-untyped-call]
    given = {name: value for name, value in options.items() if name.startswith("ssl_")}
    return {"ssl": True, **given}


class _Server(redis.Redis):
    """One server, asked past the bookkeeping of the library's pool, which costs more than an answer
    does: a look at the socket before each command, locks, and events that nobody listens to.

    The one retry covers the case of the look: a connection closed in the meantime. A client with
    a connection of its own for each thread (`single_connection_client`) is simpler, but takes 1.6
    times as much processor time for a look-up of a session's copy: 22 µs in place of 14.
    """

    def execute_command(self, *args: Any, **options: Any) -> Any:
        pool: Any = self.connection_pool
        idle: list[Any] = pool._available_connections
        if pool.pid != os.getpid():  # forked: these are our parent's
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        try:
            connection = idle.pop()  # one step, as is append: no two threads get the same
        except IndexError:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        if connection._sock is None:
            idle.append(connection)
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        try:
            if args[0] == "FCALL":  # the library makes nothing of its words, nor of its reply
                connection.send_packed_command((pack_command(args),), check_health=False)
                return _read(connection)
            connection.send_packed_command(connection.pack_command(*args))
            return self.parse_response(connection, args[0], **options)  # type: ignore[no-untyped-call]
        except (RedisConnectionError, RedisTimeoutError):
            connection.disconnect()
        except ResponseError:
            raise  # an answer as well
        except BaseException:
            connection.disconnect()  # or the next would read ours
            raise
        finally:
            idle.append(connection)
        pause_before_retry()
        return self._once_more(pool, *args, **options)

    def ask_at_once(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """As the function below."""
        pool: Any = self.connection_pool
        idle: list[Any] = pool._available_connections
        try:
            connection = idle.pop() if pool.pid == os.getpid() else None
        except IndexError:
            connection = None
        if connection is None or connection._sock is None:
            if connection is not None:
                idle.append(connection)
            return _in_pipeline(self, commands)
        packed = b"".join(map(pack_command, commands))
        try:
            return _replies(connection, packed, len(commands))
        except (RedisConnectionError, RedisTimeoutError):
            pass  # it has hung up
        finally:
            idle.append(connection)
        pause_before_retry()
        connection = pool.get_connection()
        try:
            return _replies(connection, packed, len(commands))
        finally:
            pool.release(connection)

    def _once_more(self, pool: Any, *args: Any, **options: Any) -> Any:
        connection = pool.get_connection()
        try:
            return self._send_command_parse_response(connection, args[0], *args, **options)  # type: ignore[no-untyped-call]
        except (RedisConnectionError, RedisTimeoutError):
            connection.disconnect()
            raise
        finally:
            pool.release(connection)


def ask_at_once(client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The replies to FCALLs in one round trip; an error that one of them got is its reply."""
    if isinstance(client, _Server):
        return client.ask_at_once(commands)
    return _in_pipeline(client, commands)


def _in_pipeline(client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        return pipe.execute(raise_on_error=False)


def _replies(connection: Any, packed: bytes, number: int) -> list[Any]:
    try:
        connection.send_packed_command((packed,), check_health=False)
        return [_reply(connection) for _ in range(number)]
    except BaseException:
        connection.disconnect()  # or the next would read what is left
        raise


def _reply(connection: Any) -> Any:
    try:
        return _read(connection)
    except ResponseError as error:
        return error


def _is_bounded_by_kernel(connection: Any) -> bool:
    """Has the kernel bound the waits of a connection in the place of Python; False if it can't.

    Python asks the kernel before each call whether it would have to wait, and gives up its lock for
    that. The library sets Python's bound again now and then.
    """
    sock = connection._sock
    if sock.gettimeout() is None:
        return True
    if type(sock) is not socket.socket or int(connection.protocol) != 2:  # TLS; RESP3 has pushes
        return False
    seconds, rest = divmod(connection.socket_timeout, 1)
    bound = struct.pack("ll", int(seconds), int(rest * 1_000_000))
    sock.settimeout(None)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
    return True


def _read(connection: Any) -> Any:
    """The reply to an FCALL; as the library reads it, in half the time.

    Raises:
        RedisConnectionError, RedisTimeoutError: there was none in time.
        ResponseError: the reply is an error.
    """
    if not _is_bounded_by_kernel(connection):
        return connection.read_response()
    reader, sock = connection._parser._reader, connection._sock
    try:
        while (reply := reader.gets()) is NOT_ENOUGH_DATA:
            if not (received := sock.recv(65_536)):
                raise RedisConnectionError("the server closed the connection")
            reader.feed(received)
    except OSError as error:
        raise RedisTimeoutError(f"no reply: {error}") from error
    if isinstance(reply, Exception):
        raise reply
    return reply


class LimiterStorage(RedisStorage):
    """Where Flask-Limiter counts: with the windows of `limits`, through a client of ours.

    The storages that `limits` brings read URLs in a way of their own, and the one for Cluster can't
    be made while the cluster is away: a worker would not start.

    Args:
        redis_url: as for `redis_client`. It does not retry: a repeated count counts twice.
        key_prefix: goes before each key.
    """

    STORAGE_SCHEME = ["authapp"]  # noqa: RUF012 - Flask-Limiter makes its storage by the scheme of a URL

    def __init__(self, uri: str = "authapp://", *, redis_url: str, key_prefix: str = "") -> None:
        super(RedisStorage, self).__init__(uri)
        self.key_prefix = f"{key_prefix}rate"
        self.target_server = "redis"
        self.dependency = self.dependencies["redis"].module
        self.storage = redis_client(redis_url, retries=0)
        self.initialize_storage(uri)


class _Sentinels(Sentinel):
    """Sentinels with the account of the servers, as `limits` has it, or, as is usual, with none."""

    def __init__(
        self,
        hosts: list[tuple[str, int]],
        account: dict[str, Any],
        reach: dict[str, Any],
        **options: Any,
    ) -> None:
        super().__init__([], **account, **reach, **options)  # type: ignore[no-untyped-call]
        once = Retry(NoBackoff(), 0)  # the others are there to be asked instead
        self.sentinels = [
            redis.Redis(host, port, retry=once, **reach, **used)
            for used in ([account, {}] if account else [{}])
            for host, port in hosts
        ]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        # The library moves who answers to the front of its list, in place: of two threads at it
        # one may overwrite a Sentinel with another, for good. So each asks one after the other.
        # And it asks all, however long each takes; here the next search goes on where this ended.
        before = list(self.sentinels)
        ends = time.monotonic() + SEARCH
        for number, sentinel in enumerate(before):
            if time.monotonic() > ends:
                self.sentinels = before[number:] + before[:number]
                break
            mine = copy(self)
            mine.sentinels = [sentinel]
            try:
                found: tuple[str, int] = Sentinel.discover_master(mine, service_name)  # type: ignore[no-untyped-call]
            except MasterNotFoundError:
                continue
            self.sentinels = [sentinel, *before[:number], *before[number + 1 :]]
            return found
        raise MasterNotFoundError(f"no Sentinel that answers knows a primary of {service_name!r}")


class _Confirmed(SentinelConnectionPool):
    """Asks who the primary is, unless that was asked just now.

    A primary that was frozen while another took its place answers from the copies of before until
    it has noticed; whoever did not use it meanwhile is still connected to it.
    """

    _asked = 0.0

    def get_connection(self, *args: Any, **options: Any) -> Any:
        now = time.monotonic()
        if now - self._asked > CONFIRMED_FOR:
            self.get_master_address()  # type: ignore[no-untyped-call]  # closes others' connections
            self._asked = now
        return super().get_connection(*args, **options)


def _cluster(hosts: list[tuple[str, int]], **options: Any) -> RedisCluster:
    nodes = [ClusterNode(*place) for place in hosts]  # type: ignore[no-untyped-call]
    # Looked for where the URL says, always: who answered before may have another address by now.
    cluster = RedisCluster(startup_nodes=nodes, dynamic_startup_nodes=False, **options)
    cluster.nodes_manager.__class__ = _Nodes  # there is no way to pass it
    # Each of our functions has one key. The library would ask a server for it, at every call.
    cluster.commands_parser.commands["fcall"] |= {
        "flags": [],
        "first_key_pos": 3,
        "last_key_pos": 3,
        "step_count": 1,
    }
    return cluster


class _Nodes(NodesManager):
    """Knows a node it is redirected to: one without slots yet is not in the layout."""

    def get_node(
        self, host: str | None = None, port: int | None = None, node_name: str | None = None
    ) -> ClusterNode | None:
        found = super().get_node(host, port, node_name)
        if found is None and node_name:
            name, _, number = node_name.rpartition(":")
            made = ClusterNode(name, int(number), PRIMARY)  # type: ignore[no-untyped-call]
            with self._lock:
                found = self.nodes_cache.setdefault(node_name, made)
        return found


class _Later:
    """Stands for a client that can only be made while its servers answer."""

    def __init__(self, make: Callable[[], RedisCluster]) -> None:
        self._make = make
        self._made: RedisCluster | None = None

    def __getattr__(self, name: str) -> Any:
        made = self._made
        if made is None:  # two threads may each make one; waiting for each other would be worse
            made = self._made = self._make()
        return getattr(made, name)

    def register_script(self, script: bytes) -> Script:
        return Script(cast("redis.Redis", self), script)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()
