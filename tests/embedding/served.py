"""An app that a command of the documents serves, and a browser of its own for it."""

import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

from tests.support.instances import ROOT, free_port
from tests.support.waiting import wait_until


@contextmanager
def served(command: Sequence[str], folder: Path) -> Iterator[str]:
    """The address of an app that a command starts, with data of its own."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="authapp-", ignore_cleanup_errors=True) as data:
        os.chmod(data, 0o711)  # as root the servers run as another account
        log, library = Path(data, "log"), Path(data, "library")
        library.mkdir()  # the package alone, as pip installs it: no `wsgi.py` beside it
        (library / "authapp").symlink_to(ROOT / "authapp")
        environment = dict(os.environ) | {
            "DATA_DIR": data,
            "FLASK_RUN_PORT": str(port),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(library),
        }
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(
                lambda: _answers(port) or process.poll() is not None, log.read_text, seconds=120
            )
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)
            wait_until(lambda: not _answers(port))  # nothing is left behind


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/auth/login", timeout=5):
            return True
    except OSError:
        return False


class Browser:
    """Follows redirects and keeps cookies."""

    def __init__(self, address: str) -> None:
        self._address = address
        jar = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def ask(self, path: str, **form: str) -> tuple[str, str]:
        """Path and text of the page that comes in the end."""
        body = urlencode(form).encode() if form else None
        with self._opener.open(self._address + path, body, timeout=30) as answer:
            return answer.url.removeprefix(self._address), answer.read().decode()
