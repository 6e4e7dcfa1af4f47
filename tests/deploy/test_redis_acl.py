"""The ACL in deploy/ lets the product do all it does, and nothing more."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from authapp import dev
from authapp.accounts.actor import OPERATOR
from authapp.config import Config
from authapp.errors import InvalidCredentials, SettingError, TooManyAttempts
from authapp.sessions.records import EndReason
from tests.deploy.files import DEPLOY, ROOT, read_env
from tests.deploy.servers import Redis as RedisServer
from tests.deploy.servers import make_secrets, needs_redis
from tests.proofs.cluster.servers import PASSWORD as ADMIN_PASSWORD
from tests.proofs.cluster.servers import Node, cluster, sentinel_set
from tests.support.clock import Clock
from tests.support.databases import add_migrated_database
from tests.support.people import CLIENT, EMAIL, OTHER_PASSWORD, log_in, sign_up
from tests.support.services import open_services
from tests.test_config import GIVEN

ACCOUNT = (DEPLOY / "redis-users.acl.example").read_text().splitlines()[1]
RULE = ACCOUNT.partition("resetkeys ")[2]
PARTS = [part for part in RULE.split() if part.startswith(("+", "~"))]
# beyond it; docs/production.md gives them
CLUSTER_PARTS = ["+cluster|slots", "+command"]
SENTINEL_RULE = "-@all +sentinel|masters"
PASSWORD = "what-the-product-says"
# Asked for by redis-py at every connection, does nothing; Redis 7.0 knows no such rule.
IGNORED = {"client|setinfo"}


@dataclass(frozen=True)
class Redis:
    """
    Attributes:
        url: for the product, with its account.
        servers: clients that may do everything.
    """

    url: str
    servers: tuple["redis.Redis", ...]
    sentinels: tuple["redis.Redis", ...] = ()

    def allow(self, rule: str, sentinel_rule: str = SENTINEL_RULE) -> None:
        """Start again, with an account that may do this."""
        for server in self.servers:
            _set_account(server, rule)
            for command in ("FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH"):
                _ask(server, *command.split())
        for sentinel in self.sentinels:
            _set_account(sentinel, sentinel_rule)

    def refused(self) -> set[str]:
        """Commands and keys that the account was refused since."""
        found: set[str] = set()
        for server in (*self.servers, *self.sentinels):
            log: Any = server.acl_log()
            found |= {entry["object"] for entry in log}
        return found - IGNORED


def _ask(client: "redis.Redis", *command: Any) -> Any:
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


def _set_account(client: "redis.Redis", rule: str) -> None:
    _ask(client, "ACL", "SETUSER", "authapp", "reset", "on", f">{PASSWORD}", *rule.split())
    client.acl_log_reset()


def _admins(stack: ExitStack, nodes: list[Node]) -> tuple["redis.Redis", ...]:
    made = (redis.Redis(port=node.port, password=ADMIN_PASSWORD) for node in nodes)
    return tuple(stack.enter_context(closing(client)) for client in made)


def _as_authapp(url: str) -> str:
    return re.sub(r"//\w*:[\w-]+@", f"//authapp:{PASSWORD}@", url)


@pytest.fixture(scope="module")
def one_server(engine_dir: Path) -> Iterator[Redis]:
    needs_redis()
    home = engine_dir / "acl"
    home.mkdir()
    redis_server = RedisServer.prepare(home / "redis", make_secrets(home, "localhost"))
    redis_server.server.start()
    try:
        with closing(redis_server.admin()) as admin:
            yield Redis(_as_authapp(redis_server.url), (admin,))
    finally:
        redis_server.server.stop()


@pytest.fixture(scope="module")
def in_cluster(engine_dir: Path) -> Iterator[Redis]:
    with cluster(engine_dir / "acl-cluster") as servers, ExitStack() as stack:
        yield Redis(_as_authapp(servers.url), _admins(stack, servers.nodes))


@pytest.fixture(scope="module")
def under_sentinel(engine_dir: Path) -> Iterator[Redis]:
    with sentinel_set(engine_dir / "acl-sentinel", replicas=1) as servers, ExitStack() as stack:
        yield Redis(
            _as_authapp(servers.url),
            _admins(stack, servers.nodes[:1]),
            _admins(stack, servers.sentinels),
        )


def do_everything(store: Redis, config: Config, clock: Clock) -> None:
    """All that the product asks of Redis."""
    config = replace(config, REDIS_URL=store.url, LOGIN_FAILURES_PER_ACCOUNT="2 per minute")
    with open_services(config, clock) as services:
        user = sign_up(services)
        live = log_in(services)
        for _ in range(2):  # a miss, a hit
            services.sessions.find(live.token)
        services.administration.set_active(user.id, active=False, actor=OPERATOR)
        services.sessions.end(live.token, EndReason.LOGOUT, CLIENT)
        with services.maintenance.alone():
            pass
        for _ in range(3):
            with suppress(InvalidCredentials, TooManyAttempts):
                log_in(services, EMAIL, OTHER_PASSWORD)
        services.store_states()


def without(rule: str, part: str) -> str:
    return " ".join(other for other in rule.split() if other != part)


@pytest.fixture(params=["one_server", "in_cluster", "under_sentinel"])
def store(request: pytest.FixtureRequest) -> Redis:
    found: Redis = request.getfixturevalue(request.param)
    return found


def rule_for(store: Redis) -> str:
    return " ".join([RULE, *CLUSTER_PARTS]) if len(store.servers) > 1 else RULE


def test_the_rule_suffices(store: Redis, config: Config, clock: Clock) -> None:
    store.allow(rule_for(store))
    do_everything(store, config, clock)
    assert store.refused() == set()


@pytest.mark.parametrize("part", PARTS)
def test_no_part_of_it_is_too_much(
    one_server: Redis, part: str, config: Config, clock: Clock
) -> None:
    one_server.allow(without(RULE, part))
    do_everything(one_server, config, clock)
    refused = one_server.refused()
    assert any(name.startswith(part.strip("+~*")) for name in refused), refused


@pytest.mark.parametrize("part", CLUSTER_PARTS)
def test_a_cluster_needs_this_too(
    in_cluster: Redis, part: str, config: Config, clock: Clock
) -> None:
    in_cluster.allow(without(rule_for(in_cluster), part))
    do_everything(in_cluster, config, clock)
    assert part.strip("+") in in_cluster.refused()


def test_sentinels_need_this_too(under_sentinel: Redis, config: Config, clock: Clock) -> None:
    under_sentinel.allow(RULE, "-@all")
    do_everything(under_sentinel, config, clock)
    assert under_sentinel.refused() == {"sentinel|masters"}


# -- deployments that share a server ---------------------------------------------------------------

PREFIX = "tenant-a.1:"


@pytest.fixture(scope="module")
def rule_with_prefix(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The ACL rule that the generator writes for a KEY_PREFIX."""
    needs_redis()
    secrets = make_secrets(tmp_path_factory.mktemp("prefix"), "localhost", PREFIX)
    assert Config.from_mapping(read_env(secrets / "authapp.env")).KEY_PREFIX == PREFIX
    (account,) = (secrets / "redis-users.acl").read_text().splitlines()[1:]
    return account.partition("resetkeys ")[2]


def test_with_a_key_prefix_the_rule_suffices_and_opens_no_other_keys(
    store: Redis,
    rule_with_prefix: str,
    config: Config,
    postgres: dev.PostgreSQL,
    clock: Clock,
    request: pytest.FixtureRequest,
) -> None:
    rule = " ".join([rule_with_prefix, *(CLUSTER_PARTS if len(store.servers) > 1 else [])])
    patterns = [part for part in rule.split() if part.startswith("~")]
    assert patterns == [part.replace("~", f"~{PREFIX}") for part in PARTS if part[0] == "~"]
    store.allow(rule)
    # a database says which prefix its keys have
    url = add_migrated_database(postgres.url, f"prefix_{request.node.callspec.id}")
    do_everything(store, replace(config, KEY_PREFIX=PREFIX, DATABASE_URL=url), clock)
    assert store.refused() == set()
    keys = {key for server in store.servers for key in server.scan_iter()}
    assert keys
    assert all(key.startswith(PREFIX.encode()) for key in keys), keys
    do_everything(store, config, clock)
    assert any(name.startswith("sess:") for name in store.refused())


def test_a_key_prefix_that_the_product_refuses_is_refused_by_the_generator(tmp_path: Path) -> None:
    for prefix in ("a b:", "*", "a~b", "x/y", "ä", "a\nb", "a" * 65):
        made = subprocess.run(
            [DEPLOY / "make-secrets", tmp_path / "secrets", "h", "r", "p", prefix],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert made.returncode == 1, prefix
        assert "KEY-PREFIX is" in made.stderr
        assert not (tmp_path / "secrets").exists()
        with pytest.raises(SettingError):
            Config.from_mapping(GIVEN | {"KEY_PREFIX": prefix})


@pytest.mark.parametrize(
    "command",
    [
        *("FLUSHALL", "KEYS *", "CONFIG GET *", "ACL LIST", "MONITOR", "SHUTDOWN", "SAVE"),
        *("REPLICAOF NO ONE", "SELECT 1", "FUNCTION DELETE x", "GET other", "SET other 1"),
    ],
)
def test_what_it_does_not_need_is_refused(one_server: Redis, command: str) -> None:
    one_server.allow(RULE)
    with (
        redis.Redis.from_url(one_server.url) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        _ask(client, *command.split())


def test_the_guide_gives_the_same_rules() -> None:
    guide = (ROOT / "docs" / "production.md").read_text()
    for rule in (RULE, " ".join(CLUSTER_PARTS), SENTINEL_RULE):
        assert rule in guide, f"docs/production.md must give the rule that was measured: {rule}"
