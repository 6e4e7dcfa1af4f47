"""Events that the product logs, as records of `logging`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = getattr(record, "event_fields", {"event": record.getMessage()})
        self.events.append({**fields, "level": record.levelname, "message": record.getMessage()})


@contextmanager
def logged_events(logger: str = "authapp") -> Iterator[list[dict[str, Any]]]:
    """Events of this logger and of those below it: fields, level, message."""
    recorder, target = _Recorder(), logging.getLogger(logger)
    level = target.level
    target.addHandler(recorder)
    target.setLevel(logging.INFO)
    try:
        yield recorder.events
    finally:
        target.removeHandler(recorder)
        target.setLevel(level)
