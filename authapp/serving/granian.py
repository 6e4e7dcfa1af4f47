"""How `python -m authapp.serving.granian` serves the application: as gunicorn does.

Refuses to start, in one line, on a wrong setting or a database that is not migrated.
"""

import argparse
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, Loops
from granian.http import HTTP1Settings
from granian.server.mp import MPServer, WorkerProcess

from authapp.config import Config

# first, because it names the directory of the metrics before prometheus-client is imported
from authapp.serving import bounds, common, metrics_dir

# isort: split
from authapp.dev import child_processes
from authapp.serving.granian_wsgi import GranianLayer
from authapp.telemetry import deferred as together
from authapp.telemetry.logging import logging_config

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# How large; bytes. All of a request but its body; what comes at once may be twice as much. At most
# 100 headers are a limit of hyper, which granian is made of.
HEAD = 32_768

# A fresh worker now and then bounds what a leak can grow to. By what it has grown to, as granian
# does not count requests; and once a day, for what is no memory. One after the other.
WORKER_MEMORY = 512  # MiB; a worker takes about 100
WORKER_LIFETIME = 86_400  # seconds

# It warns of more threads than cores, which is what a request that waits for Redis needs; and of
# what would be lost if each worker had a socket of its own.
_UNFOUNDED = ("Configuration allows spawning", "Workers respawn is configured, but")


_PAUSE = 1.0  # seconds before another worker starts where one could not
_RETRY = 5.0  # seconds before the system is asked again for a process
_STARTED = 10.0  # seconds after which a worker that lives has surely started

_log = logging.getLogger("authapp.granian")


class Server(MPServer):
    """Workers share one socket, as those of gunicorn do. granian would have each open its own on
    the same port: what waits there is lost when its worker dies, and a second start is not refused.
    """

    def __init__(self, target: str, listener: socket.socket, **options: Any) -> None:
        host, port = listener.getsockname()[:2]
        super().__init__(target, host, port, **options)
        self._listener = listener
        self._has_served = False

    def _init_shared_socket(self) -> None:
        told = [self._listener.fileno(), False]
        if sys.platform == "linux":
            told.append(bounds.BACKLOG)
        self._sso = self._listener
        self._shd = SocketHolder(*told)  # type: ignore[assignment]

    def _spawn_worker(self, *arguments: Any, **options: Any) -> WorkerProcess:
        worker = super()._spawn_worker(*arguments, **options)
        for does, name in ((worker.inner, "start"), (worker, "_watch")):
            setattr(does, name, partial(self._when_possible, getattr(does, name)))
        return worker

    def _when_possible(self, start: Callable[[], None]) -> None:
        """Starts a process or thread, and tries again where the system has none to give."""
        while True:
            try:
                start()
            except (OSError, RuntimeError) as error:
                _log.warning("a worker can't be started now: %s", error)
                time.sleep(_RETRY)
            else:
                return

    def _respawn_workers(self, workers: list[int], *arguments: Any, **options: Any) -> None:
        """Replaces workers: those that ended, or old ones.

        granian ends all when a worker ends soon after it was replaced. That is right only where
        none could ever start: who is killed twice is replaced twice, and what keeps a worker from
        starting may pass.
        """
        now = time.monotonic()
        self._has_served |= any(now - worker.birth > _STARTED for worker in self.wrks)
        failed = {index for index in workers if (self.wrks[index].inner.exitcode or 0) > 0}
        if failed and self._has_served:
            time.sleep(_PAUSE)  # the next one may fail for the same reason
            failed = set()
        super()._respawn_workers(workers, *arguments, **options)
        for index in set(workers) - failed:
            del self.respawned_wrks[index]
        metrics_dir.mark_dead_workers()


def main(arguments: list[str]) -> None:
    given = _parse(arguments)
    config = common.read_settings()
    threads = given.threads or config.WEB_THREADS
    common.tell_threads(threads)
    listener = _listen(given.bind, config)
    common.require_current_schema(config)
    server = Server(
        given.application,
        listener,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        websockets=False,
        loop=Loops.asyncio,  # WSGI runs in none
        workers=config.WEB_CONCURRENCY,
        blocking_threads=threads,
        backlog=bounds.BACKLOG,
        backpressure=bounds.CONNECTIONS,
        http1_settings=HTTP1Settings(
            # for the head of a request, and for the next one on a connection that is kept
            header_read_timeout=bounds.KEEPALIVE * 1000,
            max_buffer_size=HEAD,
        ),
        log_dictconfig=logging_config(),
        respawn_failed_workers=True,
        respawn_interval=1,  # s between the start of a new one and the stop of the old
        workers_lifetime=WORKER_LIFETIME,
        workers_max_rss=WORKER_MEMORY,
        workers_kill_timeout=given.graceful_timeout,
    )
    if config.TRUSTED_PROXY_HOPS:
        _log.warning(
            "granian takes X_Forwarded_For for X-Forwarded-For: the proxy must drop headers with "
            "underscores, as nginx does; behind one that does not, serve with gunicorn"
        )
    logging.getLogger("_granian").addFilter(lambda line: not line.msg.startswith(_UNFOUNDED))
    server.serve(spawn_target=_work, target_loader=_load)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m authapp.serving.granian", description=__doc__)
    parser.add_argument("application", nargs="?", default="wsgi:app")
    parser.add_argument("--bind", help="fd://N in place of HOST and PORT: a socket handed over")
    parser.add_argument("--threads", type=int, help="in place of WEB_THREADS")
    parser.add_argument("--graceful-timeout", type=int, default=bounds.GRACEFUL)
    return parser.parse_args(arguments)


def _listen(bind: str | None, config: Config) -> socket.socket:
    if bind is not None:
        number = bind.removeprefix("fd://")
        if number == bind or not number.isdecimal():
            sys.exit(f"authapp: --bind is {bind}; granian takes fd://N, a TCP socket; or set HOST")
        listener = socket.socket(fileno=int(number))
        if listener.family not in {socket.AF_INET, socket.AF_INET6}:
            sys.exit(f"authapp: --bind is {bind}, which is no TCP socket; granian takes no other")
    else:
        listener = common.listener(*common.address(config))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.set_inheritable(True)
    return listener


def _work(*arguments: Any) -> None:
    """A worker, from start to end."""
    parent = os.getppid()
    child_processes.stop_with_parent(signal.SIGKILL)  # a killed parent stops nobody
    if os.getppid() != parent:
        return
    common.register_worker()
    try:
        MPServer._spawn_wsgi_worker(*arguments)
    finally:
        together.end()  # what ends a process as multiprocessing does calls no atexit


def _load(target: str) -> "WSGIApplication":
    """In each worker, before it can answer."""
    module, _, name = target.partition(":")
    app = getattr(importlib.import_module(module), name)
    return GranianLayer(app, os.environ, bounds.REQUEST_LINE)


if __name__ == "__main__":
    main(sys.argv[1:])
