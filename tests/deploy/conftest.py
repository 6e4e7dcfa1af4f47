"""The deployment of deploy/ as processes: nginx → two instances → PostgreSQL and Redis."""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from authapp import dev
from tests.deploy.files import DEPLOY, ROOT, compose, copied_by_dockerfile, read_env
from tests.deploy.guarded import EMAIL, Guarded, SignedIn, Start, product, proxies_before
from tests.deploy.guarding import PROXIES
from tests.deploy.proxies import nginx
from tests.deploy.scripted_answers import WithScriptedAnswers
from tests.deploy.servers import (
    ADMIN_PASSWORD,
    Redis,
    Server,
    make_secrets,
    needs_redis,
    over_tls,
    port_of,
    postgres_as_the_image_has_it,
    postgres_program,
)
from tests.support.instances import FLASK, Instance, free_port, serving
from tests.support.people import PASSWORD
from tests.support.waiting import wait_until

HOST = "auth.example.org"
COOKIE = "__Host-SESSION-TOKEN"
VISITOR = "127.0.0.7"  # not the proxy's address, so that they can be told apart

ONE_WORKER = {"WEB_CONCURRENCY": "1"}  # of each instance, where another only takes time to start

_numbers = count(1)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: Any

    @property
    def token(self) -> str:
        found = re.match(rf"{COOKIE}=([^;]+);", self.headers["Set-Cookie"])
        assert found
        return found[1]


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    token: str = "",
    body: object = None,
    **headers: str,
) -> Answer:
    """One request, as a program sends it."""
    sent = {"Accept": "application/json"}
    if token:
        sent["Cookie"] = f"{COOKIE}={token}"
    if body is not None:
        sent["Content-Type"] = "application/json"
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    with closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        response = connection.getresponse()
        text = response.read()
    is_json = "json" in response.headers.get("Content-Type", "")
    return Answer(response.status, response.headers, json.loads(text) if is_json else text)


@dataclass(frozen=True)
class Deployment:
    """
    Attributes:
        image: the folder that the instances run in.
        settings: theirs.
        port: of the proxy, by https; `plain_port` by http.
    """

    folder: Path
    image: Path
    secrets: Path
    postgres: dev.PostgreSQL
    redis: Redis
    settings: Mapping[str, str]
    instances: tuple[Instance, ...]
    proxy: Server
    port: int
    plain_port: int

    def connect(self, host: str = HOST) -> http.client.HTTPConnection:
        """To the proxy, from the visitor's address."""
        context = ssl.create_default_context(cafile=str(self.secrets / "tls.crt"))
        plain = socket.create_connection(
            ("127.0.0.1", self.port), timeout=40, source_address=(VISITOR, 0)
        )
        connection = http.client.HTTPConnection(host, self.port)
        connection.sock = over_tls(plain, host, context)
        return connection

    def ask(
        self, method: str, path: str, token: str = "", body: object = None, **headers: str
    ) -> Answer:
        """Through the proxy."""
        return ask(self.connect(), method, path, token, body, **headers)

    def ask_each(
        self, method: str, path: str, token: str = "", body: object = None
    ) -> list[Answer]:
        """Each instance itself, with what the proxy would say of the visitor."""
        ports = [instance.port for instance in self.instances]
        connections = [http.client.HTTPConnection("127.0.0.1", p, timeout=40) for p in ports]
        visitor = {"X_Forwarded_For": VISITOR}
        return [ask(made, method, path, token, body, **visitor) for made in connections]

    def statuses(self, token: str) -> list[int]:
        return [answer.status for answer in self.ask_each("GET", "/api/v1/me", token)]

    def somebody(self) -> dict[str, str]:
        """Signs somebody up."""
        who = {
            "email": f"ada{next(_numbers)}@example.org",
            "password": "copper lantern drifts north",
        }
        assert self.ask("POST", "/api/v1/signup", body=who).status == 201
        return who

    def log_in(self, who: Mapping[str, str], **headers: str) -> str:
        answer = self.ask("POST", "/api/v1/login", body=who, **headers)
        assert answer.status == 200, answer
        return answer.token

    def logged(self, answer: Answer) -> dict[str, Any]:
        """The proxy's line about a request."""
        request_id = answer.headers["X-Request-ID"]

        def found() -> list[dict[str, Any]]:
            lines = map(json.loads, self.access_log_path.read_text().splitlines())
            return [dict(line) for line in lines if line["request_id"] == request_id]

        return wait_until(found, "the proxy did not log the request")[-1]

    @property
    def access_log_path(self) -> Path:
        return self.folder / "access.log"


@pytest.fixture(scope="session")
def deployment(served_by: str, shared_dir: Path) -> Iterator[Deployment]:
    needs_redis()
    with deployed(shared_dir / "deployment") as made:
        yield made


@contextmanager
def deployed(folder: Path, **changes: str) -> Iterator[Deployment]:
    """In the order of compose.yaml: the stores, the migration, the instances, the proxy.

    Args:
        changes: settings of the instances that differ from compose.yaml.
    """
    mounted = [volume.split(":")[:2] for volume in compose()["services"]["proxy"]["volumes"]]
    (upstream,) = (str(Path(s)) for s, t in mounted if t.startswith("/etc/nginx/authapp/"))
    folder.mkdir()
    secrets, image = make_secrets(folder, HOST), make_image(folder / "image")
    with ExitStack() as stack:
        sockets = stack.enter_context(dev.private_socket_dir())
        postgres = stack.enter_context(postgres_as_the_image_has_it(folder / "postgres", sockets))
        make_database(postgres, secrets)
        redis = Redis.prepare(folder / "redis", secrets)
        stack.callback(redis.server.stop)
        redis.server.start()
        settings = settings_of_an_instance(secrets, postgres, redis) | changes
        migrate(settings, image)
        instances = tuple(
            stack.enter_context(serving("wsgi:app", settings, folder / f"{name}.log", cwd=image))
            for name in ("web-1", "web-2")
        )
        port, plain_port = free_port(), free_port()
        ports = [instance.port for instance in instances]
        proxy = nginx(
            folder,
            secrets,
            {8443: port, 8080: plain_port},
            ports,
            upstream=upstream,
            places={"rate=1r/s": "rate=1000r/s"},  # as LOGIN_LIMIT_PER_ADDRESS of the instances
        )
        stack.callback(proxy.stop)
        proxy.start()
        yield Deployment(
            folder, image, secrets, postgres, redis, settings, instances, proxy, port, plain_port
        )


def make_image(folder: Path) -> Path:
    """A folder with the files that the Dockerfile copies, and nothing else."""
    folder.mkdir()
    for name in copied_by_dockerfile():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


def make_database(postgres: dev.PostgreSQL, secrets: Path) -> None:
    """As the image of Postgres does, at its first start."""
    subprocess.run(
        [DEPLOY / "postgres-init.sh"],
        env={
            "PATH": f"{postgres_program('psql').parent}:{os.environ['PATH']}",
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port_of(postgres)),
            **read_env(secrets / "postgres.env"),
            "PGPASSWORD": ADMIN_PASSWORD,  # the image needs none
        },
        check=True,
        timeout=60,
    )


def settings_of_an_instance(
    secrets: Path, postgres: dev.PostgreSQL, redis: Redis
) -> dict[str, str]:
    """Those of compose.yaml, at other places; and what makes tests quick."""
    service = compose()["services"]["web-1"]
    settings = read_env(secrets / "authapp.env") | dict(service["environment"])
    return {
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        **settings,
        "DATABASE_URL": settings["DATABASE_URL"].replace(
            "@postgres:5432/", f"@127.0.0.1:{port_of(postgres)}/"
        ),
        "REDIS_URL": redis.url,
        "BCRYPT_ROUNDS": "4",
        "LOGIN_LIMIT_PER_ADDRESS": "100000 per minute",
        "SIGNUP": "open",
    }


def migrate(settings: Mapping[str, str], image: Path) -> None:
    command = compose()["services"]["migrate"]["command"]
    assert tuple(command[:3]) == FLASK[2:], "adapt the tests to the new command"
    subprocess.run([*FLASK, *command[3:]], env=settings, cwd=image, check=True, timeout=60)


# -- guarded apps ---------------------------------------------------------------------------------


@pytest.fixture(scope="package")
def auth(postgres: dev.PostgreSQL, valkey: dev.Valkey) -> Iterator[Flask]:
    with product(postgres, valkey, "guarding", "Ada Ł") as app:
        app.wsgi_app = WithScriptedAnswers(app.wsgi_app)  # type: ignore[method-assign]
        yield app


@pytest.fixture(scope="package")
def start(auth: Flask, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    with proxies_before(auth, tmp_path_factory) as starting:
        yield starting


@pytest.fixture(scope="package", params=PROXIES)
def guarded(request: pytest.FixtureRequest, start: Start) -> Guarded:
    return start(request.param, {})


@pytest.fixture(scope="package")
def ada(guarded: Guarded) -> SignedIn:
    return SignedIn(*guarded.log_in(EMAIL, PASSWORD))
