"""Logs and metrics going out.

Logs: one JSON object a line, on standard error. No password, token or full email goes in.
Metrics: what `metrics.py` counts, for Prometheus; of all processes that share
`PROMETHEUS_MULTIPROC_DIR`, where it is set before this is imported (`serving/metrics_dir.py` does).
"""

import logging.config
import os
from contextvars import ContextVar
from typing import Any

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from authapp.telemetry import metrics
from authapp.telemetry.log_lines import LineHandler

METRICS_TYPE = CONTENT_TYPE_LATEST

# what each log line of a request says (its id, the client's address, the user's id once it is
# known), of the request that the current thread answers, or answered last
REQUEST_FIELDS: ContextVar[dict[str, Any] | None] = ContextVar("authapp_request", default=None)


def _add_request_fields(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    for name, value in (REQUEST_FIELDS.get() or {}).items():
        event.setdefault(name, value)
    return event


_SHARED: list[structlog.types.Processor] = [
    _add_request_fields,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


class _Lines(structlog.stdlib.ProcessorFormatter):
    """JSON; of what is JSON already (see `log_line`) the text as it is."""

    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg) if hasattr(record, "is_line") else super().format(record)


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
