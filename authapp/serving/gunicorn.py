"""How `gunicorn wsgi:app` serves; it reads this file. The app's own settings are in config.py.

Refuses to start, in one line, on a wrong setting or a database that is not migrated.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn import glogging
from gunicorn.workers.gthread import ThreadWorker
from gunicorn.workers.sync import SyncWorker

# first, because it names the directory of the metrics before prometheus-client is imported
from authapp.serving import bounds, common, metrics_dir

# isort: split
from authapp.telemetry.logging import logging_config

_PAUSE = 1.0  # seconds that a worker that can't start takes at least

_config = common.read_settings()

# where
_host, _port = common.address(_config)
bind = f"[{_host}]:{_port}" if ":" in _host else f"{_host}:{_port}"
backlog = bounds.BACKLOG

# how many requests at once
worker_class = "authapp.serving.gunicorn_worker.BufferingWorker"  # gthread that waits for no client
workers = _config.WEB_CONCURRENCY
threads = _config.WEB_THREADS
worker_connections = bounds.CONNECTIONS

# how long; seconds
keepalive = bounds.KEEPALIVE
timeout = 30  # a worker that shows no life for so long is replaced
graceful_timeout = bounds.GRACEFUL

# a fresh worker now and then, not all at once, bounds what a leak can grow to; it costs a second
# of a core, so not every few seconds of full load
max_requests = 1_000_000
max_requests_jitter = 200_000

# how large; bytes
limit_request_line = bounds.REQUEST_LINE
limit_request_fields = 100
limit_request_field_size = 16_380

# Only the app believes a proxy, as far as TRUSTED_PROXY_HOPS says. gunicorn by itself would, from
# 127.0.0.1 and always on a Unix socket: scheme, SCRIPT_NAME and PATH_INFO.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

worker_tmp_dir = metrics_dir.IN_MEMORY  # the heartbeat file
logconfig_dict = logging_config()


class logger_class(glogging.Logger):  # type: ignore[misc]  # noqa: N801 - the setting's name
    """Leaves requests to the app. With a configuration of logging gunicorn makes an access line of
    each, a quarter of what it takes for a bare answer, even if nobody listens."""

    def access(self, *_args: Any) -> None:
        pass


control_socket_disable = True  # nothing here uses it


def on_starting(server: Any) -> None:
    """Before anything listens."""
    _require_threads(server.cfg)
    common.tell_threads(server.cfg.threads)  # `--threads` may have changed it
    # gunicorn tries for five seconds; and sockets that were handed over are there already
    if server.cfg.settings["bind"].get() == [bind] and not {"LISTEN_FDS", "GUNICORN_FD"} & {
        *os.environ
    }:
        common.listener(_host, _port).close()
    common.require_current_schema(_config)
    server.spawn_worker = partial(_spawn_unless_impossible, server, server.spawn_worker)
    server.app.reload = partial(_reload_unless_impossible, server.app, server.app.reload)


def _require_threads(config: Any) -> None:
    """Refuses workers that can't cut a wait for Postgres: they run no threads beside it."""
    if not issubclass(config.worker_class, (ThreadWorker, SyncWorker)):
        sys.exit(
            f"authapp: worker class {config.worker_class_str}: a frozen Postgres would stop all of "
            "its requests; leave out -k, or take gthread"
        )


def _spawn_unless_impossible(server: Any, spawn: Callable[[], Any]) -> Any:
    """Starts a worker. Where the system has no process or file to give, gunicorn tries again a
    second later; the error would end it."""
    try:
        return spawn()
    except OSError as error:
        server.log.warning("a worker can't be started now: %s", error)


def _reload_unless_impossible(app: Any, reload: Callable[[], None]) -> None:
    """Reads the configuration at SIGHUP. gunicorn would end if it could not be read; so new workers
    start with what is known, and gunicorn has said what is wrong."""
    config = app.cfg
    try:
        reload()
    except SystemExit:
        app.cfg = config


def post_fork(server: Any, worker: Any) -> None:
    """Registers a worker at its start: it counts in a slot of its own.

    gunicorn ends when a worker can't start. That is right only for the first ones: what keeps
    another from starting may pass, and meanwhile the rest goes on.
    """
    if worker.age > server.cfg.workers:
        server.WORKER_BOOT_ERROR = server.APP_LOAD_ERROR = 1  # in this process; any other status
    common.register_worker()


def worker_exit(server: Any, worker: Any) -> None:
    """In a worker that ends; before it has started only if something was wrong."""
    if worker.booted or worker.pid != os.getpid():
        return
    if worker.age > server.cfg.workers:
        time.sleep(_PAUSE)  # the next one may fail for the same reason
    error = sys.exc_info()[1]
    if isinstance(error, SystemExit) and isinstance(error.code, str):  # a setting that is wrong
        sys.stderr.write(f"{error.code}\n")
        sys.exit(server.WORKER_BOOT_ERROR)  # gunicorn would try for ever at its first start


def child_exit(_server: object, _worker: object) -> None:
    """A worker is gone."""
    metrics_dir.mark_dead_workers()


def pre_exec(server: Any) -> None:
    """Another server is about to take over (SIGUSR2). It outlives the folder of this one."""
    metrics_dir.forget_made(server.cfg.env_orig)
