"""Logs: one JSON object a line, on standard error. No password, token or full email goes in.

The line of a request is written a moment later, together with others.
"""

import logging.config
import os
from collections import deque
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from authapp.telemetry.deferred import register, request_flush

# what each log line of a request says (its id, the client's address, the user's id once it is
# known), of the request that the current thread answers, or answered last
REQUEST_FIELDS: ContextVar[dict[str, Any] | None] = ContextVar("authapp_request", default=None)


def get_logger(name: str) -> Any:
    """A logger of events with fields, on top of the standard library's `logging`.

    It neither needs nor changes a configuration of structlog, so an embedding app decides by
    `logging` alone where events go. Its plain handlers get `event field='value'` as the message.

    Returns:
        a `structlog.stdlib.BoundLogger`
    """
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _add_request_fields, _to_record],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _add_request_fields(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    for name, value in (REQUEST_FIELDS.get() or {}).items():
        event.setdefault(name, str(value))
    return event


def _to_record(
    _logger: object, _method: str, fields: structlog.types.EventDict
) -> tuple[tuple[str], dict[str, Any]]:
    event = fields.pop("event")
    for_logging = {name: fields.pop(name) for name in ("exc_info", "stack_info") if name in fields}
    # repr: a line end in a value would forge a line of the log
    text = " ".join([event, *(f"{name}={value!r}" for name, value in fields.items())])
    return (text,), {"extra": {"event_fields": {"event": event, **fields}}, **for_logging}


def _read_record(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    event.update(getattr(event["_record"], "event_fields", {}))
    return event


# the oldest lines go when nobody reads the log: no request waits for it, and memory stays bounded
_waiting: deque[dict[str, Any]] = deque(maxlen=10_000)
os.register_at_fork(after_in_child=_waiting.clear)  # the parent writes these


def log_request(logger: logging.Logger, fields: dict[str, Any]) -> None:
    """Logs the line of a request, level info: as structlog would, in a tenth of the time.

    With `configure_logging` alone in place the line waits and is written with others a moment
    later. Any other handler gets a record whose message is the line (`is_line`).
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    fields |= {"level": "info", "logger": logger.name, "timestamp": datetime.now(UTC)}
    handlers = logging.root.handlers
    if len(handlers) == 1 and isinstance(handlers[0], BufferedHandler) and not logger.handlers:
        _waiting.append(fields)
        request_flush()
        return
    line = msgspec.json.encode(fields).decode()
    record = logging.LogRecord(logger.name, logging.INFO, "", 0, line, None, None)
    record.is_line = True
    logger.handle(record)


@register
def write_lines() -> None:
    """Writes the waiting lines of every handler; runs deferred."""
    for handler in logging.root.handlers:
        if isinstance(handler, BufferedHandler):
            handler.write_waiting()


class BufferedHandler(logging.StreamHandler[Any]):
    """Writes to standard error; the lines that wait before anything else."""

    def emit(self, record: logging.LogRecord) -> None:
        self.write_waiting()
        if not getattr(self.stream, "closed", False):  # as at the end of a process: nobody reads
            super().emit(record)

    def write_waiting(self) -> None:
        """Writes the waiting lines. Those that can't be written are lost."""
        with self.lock or nullcontext():
            lines = [msgspec.json.encode(_waiting.popleft()) for _ in range(len(_waiting))]
            if lines:
                # a full disk, somebody who reads no more, a stream that was closed
                with suppress(OSError, ValueError):
                    self.stream.write(b"\n".join([*lines, b""]).decode())
                    self.stream.flush()


class _Lines(structlog.stdlib.ProcessorFormatter):
    """JSON; of what is JSON already (see `log_request`) the text as it is."""

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
                    _read_record,
                    _add_request_fields,
                    structlog.stdlib.add_log_level,
                    structlog.stdlib.add_logger_name,
                    structlog.processors.TimeStamper(fmt="iso", utc=True),
                    structlog.processors.format_exc_info,
                ],
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.JSONRenderer(default=str),
                ],
            }
        },
        "handlers": {"stderr": {"()": BufferedHandler, "formatter": "json"}},
        "root": {"level": "INFO", "handlers": ["stderr"]},
        "loggers": {
            "alembic": {"level": "WARNING"},
            # gunicorn and granian are handed this too
            "gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True},
        },
    }


def configure_logging() -> None:
    """Applies `logging_config` to this process. For the whole product, never for embedding apps."""
    logging.config.dictConfig(logging_config())
