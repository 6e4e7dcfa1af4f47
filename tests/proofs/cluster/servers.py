"""A Valkey Cluster and a Sentinel set of our own, and smaller ones of Redis with TLS: plain child
processes on free ports."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError

from authapp.dev import child_processes
from authapp.dev.valkey import valkey_answers, valkey_program
from tests.support.instances import free_port
from tests.support.waiting import wait_until

PASSWORD = "tests-only"
SERVICE = "authapp"
SLOTS = 16_384
# Milliseconds until a server that is silent counts as dead: a second is what one that lives may
# need on a loaded machine, and nobody asked for that failover.
SILENT_MS = 3000


def await_servers(is_so: Callable[[], object], what: str) -> None:
    """Wait until it is so, while servers may be too busy or too new to answer."""
    wait_until(is_so, what, ignoring=RedisError)


@dataclass
class Node:
    """One server process, which can be killed, frozen and started again on its port."""

    home: Path
    settings: dict[str, str]
    sentinel: bool = False
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}"

    def start(self, **settings: str) -> None:
        """
        Args:
            settings: in this start only.
        """
        self.home.mkdir(exist_ok=True)
        config = self.home / "valkey.conf"
        lines = (self._given() | self.settings | settings).items()
        if not (self.sentinel and config.exists()):  # Sentinel writes there what it knows
            config.write_text("".join(f"{name} {text}\n" for name, text in lines))
        with child_processes.signals_held() as mask, (self.home / "log").open("ab") as log:
            self.process = child_processes.start_child(
                [self._program(), str(config)] + (["--sentinel"] if self.sentinel else []),
                mask,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await_servers(self._answers, f"{self.home.name} answers")

    def kill(self) -> None:
        assert self.process is not None
        child_processes.end_child(self.process, ((signal.SIGKILL, 5.0),))

    def freeze(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    @contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        made = redis.Redis.from_url(self.url, socket_timeout=5)
        with closing(made):
            yield made

    def _answers(self) -> bool:
        return valkey_answers(("127.0.0.1", self.port), PASSWORD)

    def _program(self) -> str:
        return str(valkey_program())

    def _given(self) -> dict[str, str]:
        return {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.home)}

    def ask(self, *command: Any) -> Any:
        with self.client() as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]


@dataclass
class TlsNode(Node):
    """Redis, which speaks TLS and nothing else; Valkey's wheel speaks none."""

    @property
    def url(self) -> str:
        return f"rediss://:{PASSWORD}@127.0.0.1:{self.port}?ssl_ca_certs={self._certificate}"

    @property
    def _certificate(self) -> Path:
        return self.home.parent / "tls.crt"

    def _answers(self) -> bool:
        return bool(self.ask("PING"))

    def _program(self) -> str:
        return str(shutil.which("redis-server"))

    def _given(self) -> dict[str, str]:
        return super()._given() | {
            "port": "0",
            "tls-port": str(self.port),
            "tls-cert-file": str(self._certificate),
            "tls-key-file": str(self._certificate.with_suffix(".key")),
            "tls-ca-cert-file": str(self._certificate),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
            "tls-cluster": "yes",
            "bind": "127.0.0.1 127.0.0.2",  # the certificate is for the first alone
        }


def _node(
    stack: ExitStack,
    home: Path,
    settings: dict[str, str],
    *,
    sentinel: bool = False,
    kind: type[Node] = Node,
) -> Node:
    node = kind(home, settings, sentinel)
    stack.callback(lambda: node.kill() if node.process else None)
    return node


@dataclass
class Cluster:
    """Three primaries without replicas, and room for more."""

    home: Path
    stack: ExitStack
    nodes: list[Node]

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://:{PASSWORD}@{places}"

    def is_ok(self) -> bool:
        return all(self._state(node) == "ok" for node in self.running())

    def is_down(self) -> bool:
        return all(self._state(node) == "fail" for node in self.running())

    def running(self) -> list[Node]:
        return [n for n in self.nodes if n.process is not None and n.process.poll() is None]

    def owner(self, key: str | bytes) -> Node:
        slot = self.slot(key)
        for first, last, (_, port, *_), *_ in self.running()[0].ask("CLUSTER SLOTS"):
            if first <= slot <= last:
                (found,) = (node for node in self.nodes if node.port == port)
                return found
        raise AssertionError(f"no owner of slot {slot}")

    def is_at(self, node: Node, key: str | bytes) -> bool:
        return self.owner(key) is node

    def slot(self, key: str | bytes) -> int:
        found: int = self.running()[0].ask("CLUSTER KEYSLOT", key)
        return found

    def add_node(self) -> Node:
        """A primary more, of no slots."""
        node = self._start_node()
        node.ask("CLUSTER MEET", "127.0.0.1", self.nodes[0].port, *self._bus(self.nodes[0]))
        self.nodes.append(node)
        await_servers(lambda: self._all_know_all() and self.is_ok(), "the new node has joined")
        return node

    def remove_node(self, node: Node) -> None:
        name = self.name(node)
        self.nodes.remove(node)
        node.kill()
        for other in self.nodes:
            other.ask("CLUSTER FORGET", name)

    def name(self, node: Node) -> bytes:
        found: bytes = node.ask("CLUSTER MYID")
        return found

    def begin_move(self, key: str | bytes, target: Node) -> None:
        """From here on the slot's keys are moved one by one."""
        source, slot = self.owner(key), self.slot(key)
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", self.name(source))
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", self.name(target))

    def move_keys(self, key: str | bytes, target: Node) -> None:
        source, slot = self.owner(key), self.slot(key)
        keys = source.ask("CLUSTER GETKEYSINSLOT", slot, 1000)
        if keys:
            moved = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS")
            source.ask(*moved, *keys)

    def end_move(self, key: str | bytes, target: Node) -> None:
        slot, name = self.slot(key), self.name(target)
        for node in [target, *(node for node in self.running() if node is not target)]:
            node.ask("CLUSTER SETSLOT", slot, "NODE", name)
        await_servers(lambda: self.owner(key) is target and self.is_ok(), "the slot has moved")

    def move_slot(self, key: str | bytes, target: Node) -> None:
        self.begin_move(key, target)
        self.move_keys(key, target)
        self.end_move(key, target)

    def form(self) -> None:
        for number, node in enumerate(self.nodes):
            first, last = (SLOTS * n // len(self.nodes) for n in (number, number + 1))
            node.ask("CLUSTER ADDSLOTSRANGE", first, last - 1)
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number:
                node.ask("CLUSTER MEET", "127.0.0.1", self.nodes[0].port, *self._bus(self.nodes[0]))
        await_servers(lambda: self._all_know_all() and self.is_ok(), "the cluster is formed")

    def _start_node(self) -> Node:
        settings = {
            "requirepass": PASSWORD,
            "masterauth": PASSWORD,
            "save": '""',
            "appendonly": "no",
            "cluster-enabled": "yes",
            "cluster-port": str(free_port()),
            "cluster-node-timeout": str(SILENT_MS),
            "cluster-allow-replica-migration": "no",  # a node without slots stays a primary
        }
        node = _node(self.stack, self.home / f"node-{len(self.nodes)}", settings)
        node.start()
        return node

    def _bus(self, node: Node) -> tuple[str]:
        return (node.settings["cluster-port"],)

    def _state(self, node: Node) -> str:
        found: str = node.ask("CLUSTER INFO")["cluster_state"]
        return found

    def _all_know_all(self) -> bool:
        return all(
            node.ask("CLUSTER INFO").get("cluster_known_nodes") == str(len(self.nodes))
            for node in self.nodes
        )


@contextmanager
def cluster(home: Path) -> Iterator[Cluster]:
    home.mkdir()
    with ExitStack() as stack:
        made = Cluster(home, stack, [])
        for _ in range(3):
            made.nodes.append(made._start_node())
        made.form()
        yield made


@dataclass
class SentinelSet:
    """One primary, its replicas, and three Sentinels."""

    nodes: list[Node]
    sentinels: list[Node]

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{node.port}" for node in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{places}/{SERVICE}"

    def primary(self) -> Node:
        """Whom the Sentinels name."""
        address = self.sentinels[0].ask("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
        (found,) = (node for node in self.nodes if node.port == int(address[1]))
        return found

    def have_left(self, old: Node) -> bool:
        """Whether no node that lives is a replica of this one."""
        lines = [n.ask("INFO", "replication") for n in self.nodes if n is not old]
        return all(int(found.get("master_port", 0)) != old.port for found in lines)

    def is_whole(self) -> bool:
        """Whether a failover would succeed now."""
        others = len(self.nodes) - 1
        primary = self.primary()
        for sentinel in self.sentinels:
            known = sentinel.ask("SENTINEL MASTER", SERVICE)
            replicas = sentinel.ask("SENTINEL SLAVES", SERVICE)
            if known["port"] != primary.port or known["num-slaves"] != others:
                return False
            if known["num-other-sentinels"] != len(self.sentinels) - 1:
                return False
            if any(one["is_sdown"] or one["is_odown"] for one in (known, *replicas)):
                return False
        return linked(primary, others)

    def repair(self) -> None:
        """Makes it whole: who is not the primary follows it.

        Sentinel would do it too, but takes ten seconds to look.
        """
        primary = self.primary()
        for node in self.nodes:
            assert node.process is not None
            if node is primary:
                continue
            if node.process.poll() is not None:
                node.start(replicaof=f"127.0.0.1 {primary.port}")
            else:
                node.ask("REPLICAOF", "127.0.0.1", primary.port)
        await_servers(self.is_whole, "the set is whole")

    def wait_for_failover(self, old: Node) -> float:
        """Wait until another node is primary and takes writes; return the seconds it took."""
        start = time.monotonic()

        def is_over() -> bool:
            new = self.primary()
            return new is not old and bool(new.ask("SET", "probe", "1", "PX", 1))

        await_servers(is_over, "a replica takes over")
        return time.monotonic() - start


@contextmanager
def sentinel_set(home: Path, replicas: int = 2) -> Iterator[SentinelSet]:
    home.mkdir()
    with ExitStack() as stack:
        settings = {
            "requirepass": PASSWORD,
            "masterauth": PASSWORD,
            "save": '""',
            "appendonly": "no",
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
        }
        nodes = [_node(stack, home / f"node-{n}", settings) for n in range(replicas + 1)]
        nodes[0].start()
        for node in nodes[1:]:
            node.start(replicaof=f"127.0.0.1 {nodes[0].port}")
        watch = {
            "requirepass": PASSWORD,
            "sentinel sentinel-pass": PASSWORD,
            "sentinel monitor": f"{SERVICE} 127.0.0.1 {nodes[0].port} 2",
            "sentinel auth-pass": f"{SERVICE} {PASSWORD}",
            "sentinel down-after-milliseconds": f"{SERVICE} {SILENT_MS}",
            "sentinel failover-timeout": f"{SERVICE} 2000",
            "sentinel parallel-syncs": f"{SERVICE} 2",
        }
        await_servers(lambda: linked(nodes[0], replicas), "the replicas have their copy")
        watchers = [_node(stack, home / f"sentinel-{n}", watch, sentinel=True) for n in range(3)]
        for watcher in watchers:
            watcher.start()
        made = SentinelSet(nodes, watchers)
        await_servers(made.is_whole, "the set is whole")
        yield made


def linked(primary: Node, replicas: int) -> bool:
    told = str(primary.ask("INFO", "replication"))
    return told.count("'state': 'online'") == replicas


@dataclass(frozen=True)
class TlsServers:
    """A Cluster of one primary; a primary and its Sentinel.

    Attributes:
        certificate: of all, signed by itself.
    """

    certificate: Path
    cluster_node: Node
    primary: Node
    sentinel: Node

    @property
    def cluster_url(self) -> str:
        place = f"127.0.0.1:{self.cluster_node.port}"
        return f"rediss+cluster://:{PASSWORD}@{place}?ssl_ca_certs={self.certificate}"

    @property
    def sentinel_url(self) -> str:
        place = f"127.0.0.1:{self.sentinel.port}/{SERVICE}"
        return f"rediss+sentinel://:{PASSWORD}@{place}?ssl_ca_certs={self.certificate}"


@contextmanager
def tls_servers(home: Path) -> Iterator[TlsServers]:
    home.mkdir()
    certificate = home / "tls.crt"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=tests"
    make += f" -addext subjectAltName=IP:127.0.0.1 -keyout {home}/tls.key -out {certificate}"
    subprocess.run(make.split(), check=True, capture_output=True, timeout=60)
    settings = {"requirepass": PASSWORD, "masterauth": PASSWORD, "save": '""', "appendonly": "no"}
    in_cluster = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with ExitStack() as stack:
        cluster_node = _node(stack, home / "cluster-node", settings | in_cluster, kind=TlsNode)
        primary = _node(stack, home / "primary", settings, kind=TlsNode)
        watch = {
            "requirepass": PASSWORD,
            "sentinel monitor": f"{SERVICE} 127.0.0.1 {primary.port} 1",
            "sentinel auth-pass": f"{SERVICE} {PASSWORD}",
        }
        sentinel = _node(stack, home / "sentinel", watch, sentinel=True, kind=TlsNode)
        for node in (cluster_node, primary, sentinel):
            node.start()
        cluster_node.ask("CLUSTER ADDSLOTSRANGE", 0, SLOTS - 1)
        await_servers(lambda: cluster_node.ask("CLUSTER INFO")["cluster_state"] == "ok", "it is up")
        yield TlsServers(certificate, cluster_node, primary, sentinel)
