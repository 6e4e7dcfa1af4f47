"""`authapp dev`, and so `make run`: engines, migrations, first administrator, server; their end.

It imports only the engines and `child_processes`; everything else runs as an operator would run it.
"""

import errno
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from authapp import dev
from authapp.dev import child_processes

# serving/common.py gives requests 10 s to end
SERVER_STOPS: child_processes.Stops = ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0))
STEP_STOPS: child_processes.Stops = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
AUTHAPP = (sys.executable, "-m", "authapp")
SERVERS = {
    "gunicorn": (
        sys.executable,
        "-m",
        "gunicorn",
        "-c",
        "python:authapp.serving.gunicorn",
        "authapp.wsgi:app",
    ),
    "granian": (sys.executable, "-m", "authapp.serving.granian", "authapp.wsgi:app"),
}
FOR_OTHER_SHELLS = (
    "DATABASE_URL",
    "REDIS_URL",
    "KEY_PREFIX",
    "SECRET_KEY",
    "PASSWORD_PEPPER",
    "SESSION_COOKIE_SECURE",
    "SIGNUP",
    "EMAIL_VERIFICATION",
    "PUBLIC_URL",
    "MAIL_URL",
    "MAIL_FROM",
)


class LaunchError(Exception):
    """The start failed. The first line says what to do; `status` is for the shell."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class _Stop(BaseException):  # not an Exception: nobody handles it but `main`
    """Somebody asked us to stop, by a signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(command: Sequence[str] = (), *, with_parent: bool = False) -> int:
    """Start the engines, and run a command with their URLs until it ends or we are told to stop.

    Args:
        command: program and arguments; if empty, migrate, make the first administrator and serve.
        with_parent: stop, too, when the parent process ends.

    Returns:
        The status of the command. If a signal stopped us, 0 for the server, and for other commands
        what a shell tells of that signal. Otherwise the status of the step that failed.
    """
    if with_parent:  # make, killed, could not pass anything on
        child_processes.stop_with_parent(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, _raise_stop)
    try:
        with ExitStack() as running:
            try:
                return _start(running, dict(os.environ), command)
            finally:
                _ignore_signals()
    except _Stop as stop:
        _say("stopped")
        return 128 + stop.number if command else 0
    except (LaunchError, dev.EmbeddedError) as error:
        _say(str(error))
        return error.status if isinstance(error, LaunchError) else 1


def _start(running: ExitStack, environment: dict[str, str], command: Sequence[str]) -> int:
    if not command:
        server = _check_server(environment)
    data_dir = Path(environment.get("DATA_DIR") or "var").absolute()
    if not command:
        _open_to_everybody(environment, data_dir)
    own_database = not environment.get("DATABASE_URL")
    own_redis = not environment.get("REDIS_URL")
    if own_database or own_redis:
        _start_engines(running, environment, data_dir, own_database, own_redis)
    if command:
        return _run(command, environment, SERVER_STOPS, stdin=None)

    _run_step((*AUTHAPP, "db", "upgrade"), environment)
    if own_database:
        _run_step((*AUTHAPP, "users", "first-admin"), environment)
    if environment.get("MAIL_URL") == _mail_url(data_dir):
        sys.stdout.write(f"Mail is written to {data_dir / 'mail'}, one file each.\n")
    if address := _address_with_passkeys(environment):
        sys.stdout.write(f"Open {address} (passkeys work there, but not at an IP address).\n")
    sys.stdout.flush()
    status = _run(SERVERS[server], environment, SERVER_STOPS)
    if status != 0:
        raise LaunchError(f"{server} ended with status {status}; all else is stopped", status)
    return 0


def _open_to_everybody(environment: dict[str, str], data_dir: Path) -> None:
    """Open sign-up, and mail in files, for whoever tries the product, unless settings say else."""
    host, port = environment.get("HOST") or "127.0.0.1", environment.get("PORT") or "8000"
    if host in {"0.0.0.0", "::", "[::]"}:  # noqa: S104 - every address of this machine
        host = "127.0.0.1"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    wanted = {"SIGNUP": "open", "EMAIL_VERIFICATION": "off"}
    if environment.get("SIGNUP_DOMAINS"):
        del wanted["SIGNUP"]
    if int(port) or environment.get("PUBLIC_URL"):  # port 0 is a free one, which nobody knows yet
        wanted |= {"PUBLIC_URL": f"http://{host}:{port}", "MAIL_URL": _mail_url(data_dir)}
    for name, value in wanted.items():
        environment[name] = environment.get(name) or value


def _address_with_passkeys(environment: Mapping[str, str]) -> str:
    """Where the browsers of this machine find us under a name; empty where we don't know."""
    public = environment.get("PUBLIC_URL", "")
    return public.replace("127.0.0.1", "localhost") if "//127.0.0.1" in public else ""


def _mail_url(data_dir: Path) -> str:
    return f"file:{data_dir / 'mail'}"


def _check_server(environment: Mapping[str, str]) -> str:
    """Fail before anything is started if the server can't be, or could not listen in the end."""
    server = environment.get("SERVER") or "gunicorn"
    if server not in SERVERS:
        raise LaunchError(f"SERVER is {server!r}: set it to {' or '.join(SERVERS)}")
    host = environment.get("HOST") or "127.0.0.1"
    if host.startswith("[") and host.endswith("]"):  # an IPv6 address as in a URL
        host = host[1:-1]
    _check_address(host, environment.get("PORT") or "8000")
    return server


def _check_address(host: str, port: str) -> None:
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise LaunchError(f"PORT is {port!r}: set it to a number from 0 to 65535")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            probe.bind(address)
    except PermissionError:
        raise LaunchError(f"PORT {port} on {host} needs privileges; set PORT above 1023") from None
    except socket.gaierror as error:
        raise LaunchError(f"HOST {host} is unknown ({error.strerror}); set HOST") from None
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise LaunchError(f"HOST {host} is no address of this machine; set HOST") from None
        raise LaunchError(
            f"PORT {port} on {host} is taken; stop what uses it or set PORT"
        ) from None


def _start_engines(
    running: ExitStack,
    environment: dict[str, str],
    data_dir: Path,
    own_database: bool,
    own_redis: bool,
) -> None:
    """Start what has no URL, and add its URL, and what belongs to its data, to `environment`."""
    try:
        data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise LaunchError(f"DATA_DIR {data_dir} cannot be made: {error.strerror}") from None
    sockets = running.enter_context(dev.private_socket_dir())
    if own_database:
        kept = _kept_secrets(data_dir)
        postgres = dev.PostgreSQL.start(data_dir / "postgres", sockets, kept["POSTGRES_PASSWORD"])
        running.callback(postgres.stop)
        environment["DATABASE_URL"] = postgres.url
        for name in ("SECRET_KEY", "PASSWORD_PEPPER"):
            environment[name] = environment.get(name) or kept[name]
        # on the loopback address and without a proxy there is no TLS
        environment["SESSION_COOKIE_SECURE"] = environment.get("SESSION_COOKIE_SECURE") or "0"
    if own_redis:
        valkey = dev.Valkey.start(data_dir / "valkey", sockets, secrets.token_urlsafe(32))
        running.callback(valkey.stop)
        environment["REDIS_URL"] = valkey.url
    running.enter_context(_linked(data_dir / "run", sockets))
    running.enter_context(_settings_file(data_dir / "env", environment))


def _kept_secrets(data_dir: Path) -> dict[str, str]:
    """The secrets that belong to the data beside them, made once. git ignores the folder."""
    path = data_dir / "secrets.json"
    names = ("SECRET_KEY", "PASSWORD_PEPPER", "POSTGRES_PASSWORD")
    try:
        kept = json.loads(path.read_text())
        return {name: str(kept[name]) for name in names}
    except FileNotFoundError:
        pass
    except OSError as error:
        raise LaunchError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise LaunchError(f"{path} is damaged; restore it from a backup") from None
    if (data_dir / "postgres" / "cluster").exists():
        raise LaunchError(
            f"{path} is missing and the data beside it is useless without: "
            f"restore it from a backup, or remove {data_dir} to start afresh"
        )
    if not (data_dir / ".gitignore").exists():
        _write_private(data_dir / ".gitignore", "*\n")
    made = {name: secrets.token_urlsafe(48) for name in names}
    _write_private(path, json.dumps(made, indent=2) + "\n")
    return made


@contextmanager
def _linked(link: Path, sockets: Path) -> Iterator[None]:
    """Say where the sockets are, so that the next start can remove them if this one is killed."""
    with suppress(OSError):  # the data is locked by us: whoever made these is gone
        stale = link.readlink()
        for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock", "valkey.sock"):
            (stale / name).unlink(missing_ok=True)
        stale.rmdir()
    link.unlink(missing_ok=True)
    link.symlink_to(sockets)
    try:
        yield
    finally:
        link.unlink(missing_ok=True)


@contextmanager
def _settings_file(path: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """While we run, `. var/env` in another shell makes `authapp …` and `flask …` work there."""
    lines = [
        f"export {name}={shlex.quote(environment[name])}\n"
        for name in FOR_OTHER_SHELLS
        if environment.get(name)
    ]
    _write_private(path, "".join(lines))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _write_private(path: Path, text: str) -> None:
    """Write it whole or not at all, for the owner of the directory only."""
    try:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        opened, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        with open(opened, "w") as file:
            if os.geteuid() == 0:  # somebody's own checkout, once started with sudo
                owner = path.parent.stat()
                os.fchown(opened, owner.st_uid, owner.st_gid)
            file.write(text)
            file.flush()
            os.fsync(opened)
        os.replace(draft, path)
    except OSError as error:
        raise LaunchError(f"{path} cannot be written: {error.strerror}") from None


def _run_step(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    status = _run(arguments, environment, STEP_STOPS)
    if status != 0:
        command = shlex.join(arguments[2:])  # without the path of Python
        raise LaunchError(f"`{command}` ended with status {status}; all else is stopped", status)


def _run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    stop_with: child_processes.Stops,
    stdin: int | None = subprocess.DEVNULL,
) -> int:
    """Run a program to its end, and end it if we have to stop before. Gives its status."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with child_processes.signals_held() as mask:
            process = child_processes.start_child(
                arguments, mask, stdin=stdin, env=dict(environment)
            )
        status = process.wait()
    except OSError as error:
        raise LaunchError(f"{arguments[0]} can't be run: {error.strerror}", 127) from None
    finally:
        if process is not None:
            child_processes.end_child(process, stop_with)
    return status if status >= 0 else 128 - status  # as a shell counts signals


def _raise_stop(number: int, _frame: FrameType | None) -> NoReturn:
    _ignore_signals()
    raise _Stop(number)


def _ignore_signals() -> None:
    """From here on all is being stopped, in bounded time; a second Ctrl-C must not leave half."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _say(line: str) -> None:
    sys.stderr.write(f"authapp: {line}\n")
    sys.stderr.flush()
