"""Shared by every server of `wsgi:app`: the settings, the numbers, the steps of a start."""

import os
import signal
import socket
import sys

from authapp.serving import bounds, metrics_dir

metrics_dir.make()  # before what follows imports prometheus-client

from authapp.config import Config  # noqa: E402
from authapp.errors import SettingError  # noqa: E402
from authapp.passwords import hashing_queue  # noqa: E402
from authapp.serving.core_lending import CoreLending  # noqa: E402
from authapp.storage import schema  # noqa: E402
from authapp.telemetry import metrics  # noqa: E402


def read_settings() -> Config:
    """The settings; or the end of the process, with one line that names the remedy."""
    os.environ["WEB_THREADS"] = os.environ.get("WEB_THREADS") or str(bounds.THREADS)
    try:
        return Config.from_env()
    except SettingError as error:
        sys.exit(f"authapp: {error}")


def address(config: Config) -> tuple[str, int]:
    """Where to listen, as a numeric address; or the end of the process, as above."""
    try:
        found = socket.getaddrinfo(config.HOST, config.PORT, type=socket.SOCK_STREAM)[0][4]
        host, _ = socket.getnameinfo(found, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
    except OSError as error:
        sys.exit(f"authapp: HOST {config.HOST}: {error.strerror}; set it to one of this machine")
    return host, config.PORT


def listener(host: str, port: int) -> socket.socket:
    """A socket that is bound and listens; or the end of the process, as above.

    On `::` it takes IPv4, too, whatever the system's default is.
    """
    try:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        return socket.create_server(
            found, family=family, backlog=bounds.BACKLOG, dualstack_ipv6=both
        )
    except OSError as error:
        sys.exit(f"authapp: HOST {host}, PORT {port}: {error.strerror}; set another")


def require_current_schema(config: Config) -> None:
    """Before anything listens; as above."""
    try:
        schema.require_current(config.DATABASE_URL, config.KEY_PREFIX, config.DATABASE_SCHEMA)
    except SettingError as error:
        sys.exit(f"authapp: {error}")


def tell_threads(number: int) -> None:
    """Has the workers, which start after this, know how many threads they have."""
    os.environ["WEB_THREADS"] = str(number)


def register_worker() -> None:
    """Registers a worker at its start: it counts in a slot of its own, and shares its core.

    Ends the process if somebody removes the folder meanwhile: the server starts another, as it
    would not after an error.
    """
    # the handlers of the parent would lose a stop; the server would kill the worker later, with
    # the requests that it has then
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    try:
        slot = _claim_slot()
        metrics.count_in(slot)
        hashing_queue.lend_and_borrow(CoreLending(metrics_dir.folder(), slot))
    except FileNotFoundError as error:
        sys.stderr.write(f"authapp: {error.filename} was removed; another worker starts\n")
        sys.exit(0)


def _claim_slot() -> str:
    """A slot of the folder of all workers; or of one of its own, if that folder takes no files."""
    try:
        return metrics_dir.claim_slot()
    except FileNotFoundError:
        raise
    except OSError as error:
        sys.stderr.write(f"authapp: {error}; this worker counts by itself\n")
        metrics_dir.make_own()
        return metrics_dir.claim_slot()
