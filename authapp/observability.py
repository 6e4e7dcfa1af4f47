"""Logs and metrics going out.

Logs: one JSON object a line, on standard error. No password, token or full email goes in.
Metrics: what `metrics.py` counts, for Prometheus; of all processes that share
`PROMETHEUS_MULTIPROC_DIR`, where it is set before this is imported (`metrics_folder.py` does).
"""

import logging.config
import os
from collections import deque
from contextlib import nullcontext
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from authapp import metrics
from authapp.together import is_due, work_off

METRICS_TYPE = CONTENT_TYPE_LATEST

# the id of the request that the current thread answers, or answered last
REQUEST_ID: ContextVar[str | None] = ContextVar("authapp_request_id", default=None)


def _add_request_id(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    if (identifier := REQUEST_ID.get()) is not None:
        event.setdefault("request_id", identifier)
    return event


_SHARED: list[structlog.types.Processor] = [
    _add_request_id,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


class _Lines(structlog.stdlib.ProcessorFormatter):
    """JSON; of what is JSON already (see `log_line`) the text as it is."""

    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg) if hasattr(record, "is_line") else super().format(record)


# the oldest go if nobody takes what we write: that keeps no request waiting, nor fills memory
_waiting: deque[dict[str, Any]] = deque(maxlen=10_000)
os.register_at_fork(after_in_child=_waiting.clear)  # these the parent writes


@work_off
def write_lines() -> None:
    """Writes the lines that wait, together."""
    for handler in logging.root.handlers:
        if _waiting and isinstance(handler, LineHandler):
            handler.flush()


class LineHandler(logging.StreamHandler[Any]):
    """Writes to standard error; the lines of requests many together, a moment later."""

    def flush(self) -> None:
        with self.lock or nullcontext():
            lines = [msgspec.json.encode(_waiting.popleft()) for _ in range(len(_waiting))]
            if lines:
                self.stream.write(b"\n".join([*lines, b""]).decode())
            super().flush()

    def emit(self, record: logging.LogRecord) -> None:
        self.flush()  # what was before
        super().emit(record)


def log_line(logger: logging.Logger, fields: dict[str, Any]) -> None:
    """Logs an event of level info that comes with each request: as structlog would, in a tenth of
    the time."""
    if not logger.isEnabledFor(logging.INFO):
        return
    fields |= {"level": "info", "logger": logger.name, "timestamp": datetime.now(UTC)}
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], LineHandler) and not logger.handlers:
        _waiting.append(fields)
        is_due()
        return
    line = msgspec.json.encode(fields).decode()
    record = logging.LogRecord(logger.name, logging.INFO, "", 0, line, None, None)
    record.is_line = True
    logger.handle(record)


def logging_config() -> dict[str, Any]:
    """For `logging.config.dictConfig`: our events and those of all libraries, in one format."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": _Lines,
                "foreign_pre_chain": [
                    structlog.stdlib.PositionalArgumentsFormatter(),
                    *_SHARED,
                ],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.JSONRenderer(default=str),
                ],
            }
        },
        "handlers": {"stderr": {"()": LineHandler, "formatter": "json"}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": {
            "alembic": {"level": "WARNING"},
            # gunicorn and granian are handed this too
            "gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True},
        },
    }


def configure_logging() -> None:
    """Applies `logging_config`, and lets our own events go through it."""
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(logging_config())


def exposition() -> bytes:
    """All metrics in the text format of Prometheus: this process' up to now, those of others up to
    a moment ago."""
    metrics.settle()
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
