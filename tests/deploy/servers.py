"""The servers of a deployment as processes, each with its file of deploy/."""

import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
import redis

from authapp import dev
from authapp.dev import child_processes
from authapp.dev.postgres import postgres_programs
from tests.deploy.files import DEPLOY, adapted, read_env
from tests.support.instances import free_port
from tests.support.waiting import wait_until

START_SECONDS = 30.0
ADMIN_PASSWORD = "tests-only"

# for connections that any certificate will do for; `create_default_context` would read all
# certificates of this machine each time, for about 20 ms
ANY_CERTIFICATE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANY_CERTIFICATE.check_hostname, ANY_CERTIFICATE.verify_mode = False, ssl.CERT_NONE


def over_tls(
    plain: socket.socket, host: str, context: ssl.SSLContext = ANY_CERTIFICATE
) -> ssl.SSLSocket:
    """This connection, by https. Its requests do not wait for the proxy's delayed ACK of the
    handshake, which takes 40 ms."""
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname=host)


def needs_redis() -> None:
    """Skips, and says how not to."""
    missing = [program for program in ("redis-server", "openssl") if not shutil.which(program)]
    if missing:
        pytest.skip(
            f"NO {' AND NO '.join(missing)}, so nothing shows that deploy/ works as it is: "
            f"apt-get install {' '.join(missing)}"
        )


def make_secrets(folder: Path, host: str, key_prefix: str = "") -> Path:
    """Run deploy/make-secrets for servers on this machine; return its folder."""
    secrets = folder / "secrets"
    subprocess.run(
        [DEPLOY / "make-secrets", secrets, host, "localhost", "postgres", key_prefix],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return secrets


class Server:
    """A process that can be stopped and started again.

    Args:
        answers: whether it does.
    """

    def __init__(
        self, arguments: Sequence[str], log_path: Path, answers: Callable[[], bool]
    ) -> None:
        self._arguments = arguments
        self._answers = answers
        self.log_path = log_path
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with child_processes.signals_held() as mask, self.log_path.open("ab") as log:
            self.process = child_processes.start_child(
                self._arguments, mask, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        process = self.process

        def answers() -> bool:
            assert process.poll() is None, f"it ended:\n{self.log_path.read_text()}"
            return self._answers()

        wait_until(answers, lambda: f"no answer:\n{self.log_path.read_text()}")

    def stop(self) -> None:
        if self.process is not None:
            child_processes.end_child(self.process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))


@dataclass(frozen=True)
class Redis:
    """redis-server with deploy/redis.conf, so with TLS and the ACL; and an account for tests."""

    secrets: Path
    port: int
    server: Server

    @classmethod
    def prepare(cls, home: Path, secrets: Path) -> "Redis":
        home.mkdir()
        with (secrets / "redis-users.acl").open("a") as file:
            file.write(f"user admin on >{ADMIN_PASSWORD} ~* &* +@all\n")
        port = free_port()
        places = {
            "tls-port 6379": f"tls-port {port}",
            "bind *": "bind 127.0.0.1",
            "/etc/redis/users.acl": str(secrets / "redis-users.acl"),
            "/etc/redis/": f"{secrets}/",
            "dir /data": f"dir {home}",
        }
        config = home / "redis.conf"
        config.write_text(adapted("redis.conf", places))
        arguments = [str(shutil.which("redis-server")), str(config)]
        server = Server(arguments, home / "log", lambda: cls(secrets, port, server).answers())
        return cls(secrets, port, server)

    @property
    def url(self) -> str:
        """As authapp.env has it, but for the places."""
        url = read_env(self.secrets / "authapp.env")["REDIS_URL"]
        url = url.replace(":6379/", f":{self.port}/")
        return url.replace("/etc/authapp/redis-ca.crt", str(self.secrets / "redis-ca.crt"))

    def admin(self) -> "redis.Redis":
        return redis.Redis(
            host="localhost",
            port=self.port,
            ssl=True,
            ssl_ca_certs=str(self.secrets / "redis-ca.crt"),
            username="admin",
            password=ADMIN_PASSWORD,
        )

    def answers(self) -> bool:
        with self.admin() as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=30).close()
    except OSError:
        return False
    return True


def postgres_program(name: str) -> Path:
    """A client that comes with the embedded server."""
    return postgres_programs() / name


def postgres_as_the_image_has_it(home: Path, sockets: Path) -> dev.PostgreSQL:
    """A server whose superuser is `postgres` and where nothing is called authapp."""
    server = dev.PostgreSQL.start(home, sockets, ADMIN_PASSWORD, durable=False, tcp=True)
    rename = "ALTER DATABASE authapp RENAME TO embedded; ALTER ROLE authapp RENAME TO embedded"
    for url, statement in (
        (server.url, f"CREATE ROLE postgres SUPERUSER LOGIN PASSWORD '{ADMIN_PASSWORD}'"),
        (url_of(server, "postgres", "postgres"), rename),
    ):
        execute(url, *statement.split("; "))
    return server


def url_of(server: dev.PostgreSQL, user: str, database: str) -> str:
    return f"postgresql://{user}:{ADMIN_PASSWORD}@127.0.0.1:{port_of(server)}/{database}"


def port_of(server: dev.PostgreSQL) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


def execute(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    finally:
        connection.close()
