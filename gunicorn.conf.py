"""How `gunicorn wsgi:app` serves; it reads this file. The app's own settings are in config.py.

Refuses to start, in one line, on a wrong setting or a database that is not migrated.
"""

import os
import sys
from typing import Any

from authapp import schema
from authapp.errors import SettingError
from authapp.observability import logging_config
from config import Config

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
threads = 8

# how long; seconds
keepalive = (
    80  # above a proxy's 60 or 75, so that the proxy closes first and never hits a closing one
)
timeout = 30  # a worker that shows no life for so long is replaced
graceful_timeout = 10  # what requests get to end at a stop; a browser's idle connection uses it up

# a fresh worker now and then, not all at once, bounds what a leak can grow to
max_requests = 20_000
max_requests_jitter = 4_000

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
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
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
