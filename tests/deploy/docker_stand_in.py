"""The part of the API of Docker (1.44) that Traefik asks for the labels of containers.

Traefik is the real one; the containers are made up from a Compose file.
"""

import json
import socketserver
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Labels = Mapping[str, Mapping[str, str]]  # by service


def _inspected(name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "Id": name,
        "Name": f"/{name}",
        "State": {"Status": "running", "Running": True},
        "Config": {"Labels": dict(labels)},
        "HostConfig": {"NetworkMode": "bridge"},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "127.0.0.1"}}},
    }


def _listed(name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {"Id": name, "Names": [f"/{name}"], "Labels": dict(labels), "State": "running"}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def __init__(self, place: Path, containers: Labels) -> None:
        super().__init__(str(place), _Handler)
        self.containers = containers
        self.ended = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        what = path[path.index("/", 1) :] if path.startswith("/v1") else path
        containers = self.server.containers
        if what == "/events":  # nothing ever happens
            self.server.ended.wait()
        elif what == "/version":
            self._answer({"Version": "25.0.0", "ApiVersion": "1.44", "MinAPIVersion": "1.24"})
        elif what == "/containers/json":
            self._answer([_listed(*container) for container in containers.items()])
        elif what.startswith("/containers/"):
            name = what.split("/")[2]
            self._answer(_inspected(name, containers[name]))
        else:
            self._answer({})

    def do_HEAD(self) -> None:
        self._answer({})

    def _answer(self, found: object) -> None:
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Api-Version", "1.44")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def address_string(self) -> str:
        return ""  # a Unix socket has none

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def docker(place: Path, containers: Labels) -> Iterator[None]:
    """Answers at a Unix socket."""
    server = _Server(place, containers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(30)
