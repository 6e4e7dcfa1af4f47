"""The engines themselves: they start, keep data, refuse strangers, and leave nothing behind."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
import redis

from authapp import dev
from authapp.dev import child_processes
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data_dir(engine_dir: Path, request: pytest.FixtureRequest) -> Path:
    name: str = request.node.name
    return engine_dir / name.replace("[", "-").rstrip("]")


@pytest.fixture
def sockets() -> Iterator[Path]:
    with dev.private_socket_dir() as path:
        yield path


def sql(url: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def await_end(*pids: int) -> None:
    wait_until(
        lambda: not any(map(is_alive, pids)),
        lambda: f"still running: {list(filter(is_alive, pids))}",
    )


@pytest.mark.parametrize("tcp", [False, True])
def test_postgres_keeps_its_data(data_dir: Path, sockets: Path, tcp: bool) -> None:
    with dev.PostgreSQL.start(data_dir, sockets, "p@ss w/rd#", tcp=tcp) as server:
        sql(server.url, "CREATE TABLE kept AS SELECT 'größer' AS word")
        assert sql(server.url, "SELECT current_user, current_database()") == [("authapp",) * 2]
        assert sql(server.url, "SHOW data_checksums") == [("on",)]
        assert sql(server.url, "SHOW fsync") == [("on",)]
    assert not is_alive(server.pid)
    with dev.PostgreSQL.start(data_dir, sockets, "p@ss w/rd#", tcp=tcp) as server:
        assert sql(server.url, "SELECT * FROM kept") == [("größer",)]


@pytest.mark.parametrize("tcp", [False, True])
def test_valkey_keeps_its_data(data_dir: Path, sockets: Path, tcp: bool) -> None:
    with dev.Valkey.start(data_dir, sockets, "p@ss w/rd#", tcp=tcp) as server:
        redis.Redis.from_url(server.url).set("kept", "yes")
    assert not is_alive(server.pid)
    with dev.Valkey.start(data_dir, sockets, "another one", tcp=tcp) as server:
        client = redis.Redis.from_url(server.url)
        assert client.get("kept") == b"yes"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_valkey_that_is_not_durable_keeps_nothing(data_dir: Path, sockets: Path) -> None:
    with dev.Valkey.start(data_dir, sockets, "secret", durable=False) as server:
        redis.Redis.from_url(server.url).set("kept", "yes")
    with dev.Valkey.start(data_dir, sockets, "secret", durable=False) as server:
        assert redis.Redis.from_url(server.url).get("kept") is None


def test_only_the_socket_and_only_with_the_password(
    postgres: dev.PostgreSQL, valkey: dev.Valkey
) -> None:
    assert sql(postgres.url, "SHOW listen_addresses") == [("",)]
    assert redis.Redis.from_url(valkey.url).config_get("port") == {"port": "0"}
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        sql(postgres.url.replace(":tests-only@", ":wrong@"), "SELECT 1")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis.from_url(valkey.url.replace(":tests-only@", ":wrong@")).ping()
    assert "tests-only" not in Path(f"/proc/{postgres.pid}/cmdline").read_text()
    assert "tests-only" not in Path(f"/proc/{valkey.pid}/cmdline").read_text()
    assert "tests-only" not in repr(postgres)


def test_data_and_sockets_are_private_and_the_servers_are_not_root(
    postgres: dev.PostgreSQL, valkey: dev.Valkey, shared_dir: Path
) -> None:
    for server, data_dir in ((postgres, shared_dir / "postgres"), (valkey, shared_dir / "valkey")):
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        assert data_dir.stat().st_uid == Path(f"/proc/{server.pid}").stat().st_uid != 0


def test_parents_get_search_permission_only_if_needed(
    data_dir: Path, sockets: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data_dir.mkdir(mode=0o700)
    dev.Valkey.start(data_dir / "deeper" / "valkey", sockets, "secret").stop()
    as_root = os.geteuid() == 0
    assert stat.S_IMODE(data_dir.stat().st_mode) == (0o701 if as_root else 0o700)
    said = capfd.readouterr().err
    assert (f"x (to enter, not to list) was added to {data_dir}\n" in said) == as_root
    dev.Valkey.start(data_dir / "deeper" / "valkey", sockets, "secret").stop()
    assert capfd.readouterr().err == ""


def test_a_killed_postgres_starts_again_though_its_pid_is_somebody_elses(
    data_dir: Path, sockets: Path
) -> None:
    with dev.PostgreSQL.start(data_dir, sockets, "secret") as server:
        sql(server.url, "CREATE TABLE kept AS SELECT 1 AS one")
        os.kill(server.pid, signal.SIGKILL)
    owner = data_dir.stat()
    as_root = os.geteuid() == 0
    with subprocess.Popen(
        ["sleep", "60"],
        user=owner.st_uid if as_root else None,
        group=owner.st_gid if as_root else None,
    ) as somebody:
        pid_file = data_dir / "cluster" / "postmaster.pid"
        rest = pid_file.read_text().partition("\n")[2]
        pid_file.write_text(f"{somebody.pid}\n{rest}")
        try:
            with dev.PostgreSQL.start(data_dir, sockets, "secret") as server:
                assert sql(server.url, "SELECT one FROM kept") == [(1,)]
            assert somebody.poll() is None
        finally:
            somebody.kill()


@pytest.mark.parametrize("engine", [dev.PostgreSQL, dev.Valkey])
def test_data_in_use_is_refused_in_one_line(
    engine: type[dev.PostgreSQL | dev.Valkey],
    data_dir: Path,
    sockets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authapp.dev.engine.LOCK_SECONDS", 0.2)
    with (
        dev.private_socket_dir() as other_sockets,
        engine.start(data_dir, sockets, "secret") as server,
    ):
        with pytest.raises(dev.EmbeddedError) as refused:
            engine.start(data_dir, other_sockets, "secret")
        assert f"(pid {server.pid})" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert server.running


def test_a_server_that_is_just_ending_is_waited_for(data_dir: Path, sockets: Path) -> None:
    first = dev.Valkey.start(data_dir, sockets, "secret")
    ending = threading.Timer(0.5, first.stop)
    ending.start()
    with dev.Valkey.start(data_dir, sockets, "secret") as second:
        assert second.running
        assert not first.running
    ending.join()


def test_data_half_made_is_made_anew(data_dir: Path, sockets: Path) -> None:
    (data_dir / "cluster.new").mkdir(parents=True)
    (data_dir / "cluster.new" / "PG_VERSION").write_text("18\n")
    with dev.PostgreSQL.start(data_dir, sockets, "secret", durable=False) as server:
        assert sql(server.url, "SELECT 1") == [(1,)]


def test_a_failed_start_shows_the_servers_own_words(data_dir: Path, sockets: Path) -> None:
    dev.PostgreSQL.start(data_dir, sockets, "secret", durable=False).stop()
    (data_dir / "cluster" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(dev.EmbeddedError) as failed:
        dev.PostgreSQL.start(data_dir, sockets, "secret", durable=False)
    first_line, _, rest = str(failed.value).partition("\n")
    assert str(data_dir / "log") in first_line
    assert "database files are incompatible with server" in rest


def test_a_missing_wheel_names_the_remedy(
    data_dir: Path, sockets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    for engine in (dev.PostgreSQL, dev.Valkey):
        with pytest.raises(dev.EmbeddedError, match=r"pip install 'authapp\[dev\]'"):
            engine.start(data_dir, sockets, "secret")


def test_what_does_not_listen_is_ended_by_force_with_its_children() -> None:
    with child_processes.signals_held() as mask:
        deaf = child_processes.start_child(
            ["sh", "-c", 'trap "" TERM; sleep 60 & echo $!; while :; do wait; done'],
            mask,
            stdout=subprocess.PIPE,
        )
    assert deaf.stdout is not None
    child = int(deaf.stdout.readline())
    deaf.stdout.close()
    child_processes.end_child(deaf, ((signal.SIGTERM, 0.2), (signal.SIGKILL, 5.0)))
    assert deaf.returncode == -signal.SIGKILL
    await_end(child)


def test_who_has_the_pid_of_one_that_ended_is_left_alone() -> None:
    """A server may be stopped again, long after it ended."""
    with (
        subprocess.Popen(["true"]) as ended,
        subprocess.Popen(["sleep", "60"], start_new_session=True) as somebody,
    ):
        ended.wait()
        ended.pid = somebody.pid
        try:
            child_processes.end_child(ended, ((signal.SIGTERM, 1.0),))
            os.kill(somebody.pid, signal.SIGUSR1)  # what was sent before comes first
            assert somebody.wait(30) == -signal.SIGUSR1
        finally:
            somebody.kill()


def test_nothing_outlives_a_parent_that_is_killed(data_dir: Path) -> None:
    program = """if True:
        import sys, time
        from pathlib import Path
        from authapp.dev import child_processes
        from authapp import dev
        data_dir = Path(sys.argv[1])
        with dev.private_socket_dir() as sockets:
            postgres = dev.PostgreSQL.start(data_dir / "p", sockets, "secret", durable=False)
            valkey = dev.Valkey.start(data_dir / "v", sockets, "secret")
            print(sockets, postgres.pid, valkey.pid, flush=True)
            time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", program, data_dir], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        sockets, *pids = parent.stdout.readline().split()
        parent.kill()
    await_end(*map(int, pids))
    Path(sockets, "valkey.sock").unlink(missing_ok=True)
    Path(sockets).rmdir()


def test_as_an_ordinary_user(postgres: dev.PostgreSQL) -> None:
    """As root, in a child that gives its privileges up; else every test here is this test."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                status_of = Path(f"/proc/{postgres.pid}").stat()
                os.setgroups([])
                os.setgid(status_of.st_gid)
                os.setuid(status_of.st_uid)
            with dev.private_socket_dir() as path:
                with (
                    dev.PostgreSQL.start(path / "p", path, "secret", durable=False) as server,
                    dev.Valkey.start(path / "v", path, "secret") as valkey,
                ):
                    works = sql(server.url, "SELECT 1") == [(1,)]
                    works = works and redis.Redis.from_url(valkey.url).ping() is True
                status = 0 if works else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
