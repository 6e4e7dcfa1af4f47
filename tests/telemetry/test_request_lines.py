"""A log that can't be written fails nothing, and says so only to somebody who can read it."""

import io
import logging

import pytest

from authapp.telemetry.logging import BufferedHandler


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("authapp", logging.WARNING, "", 0, message, args, None)


def test_a_stream_that_was_closed_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """At the end of a process the stream may be closed before the last warning."""
    stream = io.StringIO()
    stream.close()
    BufferedHandler(stream).handle(record("attempts_not_recorded"))
    assert capsys.readouterr().err == ""


def test_a_record_that_cannot_be_laid_out_is_still_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    BufferedHandler(io.StringIO()).handle(record("%d", "no number"))
    assert "Logging error" in capsys.readouterr().err
