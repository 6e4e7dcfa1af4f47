"""How `gunicorn wsgi:app` serves; it reads this file. The app's own settings are in config.py.

Refuses to start, in one line, on a wrong setting or a database that is not migrated.
"""

import atexit
import fcntl
import gc
import os
import shutil
import sys
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

# Where the workers keep what they count, for one answer of all of them. prometheus-client looks
# for it when it is imported, which what follows does.
_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 — no disk can stall it
_PREFIX = "authapp-metrics."
_MAKING = 60  # seconds; more than it takes to lock a folder that was made


def _lock(folder: str) -> int | None:
    """Holds the folder until the process and those it forks have ended, however they end."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_left_behind(parent: Path) -> None:
    """Folders of those who were killed, and could not clean up."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.lstat().st_mtime < _MAKING:
                continue
            lock = _lock(str(folder))
        except OSError:  # somebody else's, or somebody was faster
            continue
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # it is, after a reload
    _folder = tempfile.mkdtemp(prefix=_PREFIX, dir=_memory)
    _lock(_folder)
    _remove_left_behind(Path(_folder).parent)
    _master = os.getpid()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _folder

    def _clean_up() -> None:
        if os.getpid() == _master:  # workers come by here too when they end
            shutil.rmtree(_folder, ignore_errors=True)

    atexit.register(_clean_up)

gc.disable()  # until the end, as in wsgi.py

from prometheus_client import multiprocess  # noqa: E402

from authapp import metrics, schema  # noqa: E402
from authapp.errors import SettingError  # noqa: E402
from authapp.observability import logging_config  # noqa: E402
from authapp.services import REQUEST_THREADS  # noqa: E402
from config import Config  # noqa: E402

try:
    _config = Config.from_env()
except SettingError as error:
    sys.exit(f"authapp: {error}")

# where
_host = f"[{_config.HOST}]" if ":" in _config.HOST else _config.HOST
bind = f"{_host}:{_config.PORT}"

# how many requests at once
worker_class = "gthread"
workers = _config.WEB_CONCURRENCY
threads = REQUEST_THREADS

# how long; seconds
keepalive = (
    80  # above a proxy's 60 or 75, so that the proxy closes first and never hits a closing one
)
timeout = 30  # a worker that shows no life for so long is replaced
graceful_timeout = 10  # what requests get to end at a stop; a browser's idle connection uses it up

# a fresh worker now and then, not all at once, bounds what a leak can grow to; it costs a second
# of a core, so not every few seconds of full load
max_requests = 1_000_000
max_requests_jitter = 200_000

# how large; bytes
limit_request_line = 8_190
limit_request_fields = 100
limit_request_field_size = 16_380

# Only the app believes a proxy, as far as TRUSTED_PROXY_HOPS says. gunicorn by itself would, from
# 127.0.0.1 and always on a Unix socket: scheme, SCRIPT_NAME and PATH_INFO.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# the heartbeat file, where no disk can stall it
worker_tmp_dir = _memory
accesslog = None  # the app logs requests itself
logconfig_dict = logging_config()
control_socket_disable = True  # nothing here uses it


def post_worker_init(worker: Any) -> None:
    """In each worker, once it can answer."""
    extensions = getattr(worker.app.callable, "extensions", {})
    if "authapp" in extensions:
        extensions["authapp"].services.maintenance.keep_running()


def on_starting(_server: object) -> None:
    """Before anything listens."""
    try:
        schema.require_current(_config.DATABASE_URL)
    except SettingError as error:
        sys.exit(f"authapp: {error}")


def pre_fork(server: Any, worker: Any) -> None:
    """Before a worker starts: it counts on where one that is gone left off."""
    taken = {other.slot for other in server.WORKERS.values()}
    worker.slot = next(slot for number in count(1) if (slot := f"worker{number}") not in taken)


def post_fork(_server: object, worker: Any) -> None:
    """In each worker, at its start."""
    metrics.count_in(worker.slot)


def child_exit(_server: object, worker: Any) -> None:
    """A worker is gone: what it is doing no longer counts; what it did stays counted."""
    multiprocess.mark_process_dead(worker.slot)  # type: ignore[no-untyped-call]


gc.freeze()  # the workers share it
gc.enable()
