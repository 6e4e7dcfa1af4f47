"""Events of ours go through the standard library's `logging`, whatever an app makes of it."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from authapp.telemetry.logging import REQUEST_FIELDS, get_logger
from tests.support.events import logged_events

ADDRESS = "198.51.100.7"


@pytest.fixture(autouse=True)
def no_request() -> Iterator[None]:
    """Forget the fields of the last request that another test made in this thread."""
    token = REQUEST_FIELDS.set(None)
    yield
    REQUEST_FIELDS.reset(token)


@pytest.fixture
def request_fields() -> Iterator[None]:
    token = REQUEST_FIELDS.set({"request_id": "r1", "address": ADDRESS})
    yield
    REQUEST_FIELDS.reset(token)


def test_an_event_is_a_record_with_its_fields() -> None:
    with logged_events("some.place") as events:
        get_logger("some.place").warning("breaker_opened", store="redis", tries=3)
    assert events == [
        {
            "event": "breaker_opened",
            "store": "redis",
            "tries": 3,
            "level": "WARNING",
            "message": "breaker_opened store='redis' tries=3",
        }
    ]


def test_it_says_which_request_it_belongs_to(request_fields: None) -> None:
    with logged_events("some.place") as events:
        get_logger("some.place").info("x", address="its own")
    assert (events[0]["request_id"], events[0]["address"]) == ("r1", "its own")


def test_a_value_with_a_line_end_forges_no_line() -> None:
    with logged_events("some.place") as events:
        get_logger("some.place").warning("x", host="a\nERROR forged")
    assert "\n" not in events[0]["message"]


def test_the_level_of_the_logger_counts() -> None:
    with logged_events("some.quiet") as events:
        logging.getLogger("some.quiet").setLevel(logging.ERROR)
        get_logger("some.quiet").warning("x")
        get_logger("some.quiet").error("y")
    assert [event["event"] for event in events] == ["y"]


def test_the_configuration_of_structlog_is_left_alone() -> None:
    """An embedding app may use structlog in its own way."""
    before = structlog.get_config()["processors"]
    with logged_events("some.place") as events:
        get_logger("some.place").warning("x")
    assert events
    assert structlog.get_config()["processors"] is before


@pytest.mark.parametrize(
    ("configured", "line"),
    [
        ("logging.basicConfig(format='%(levelname)s %(name)s %(message)s')", "WARNING a.b x n=1"),
        ("configure_logging()", {"event": "x", "n": 1, "logger": "a.b", "level": "warning"}),
    ],
)
def test_it_leaves_by_the_handlers_of_the_process(
    configured: str, line: str | dict[str, object]
) -> None:
    script = (
        "import logging\n"
        "from authapp.telemetry.logging import configure_logging, get_logger\n"
        f"{configured}\n"
        "get_logger('a.b').warning('x', n=1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "", "nothing is printed past `logging`"
    if isinstance(line, str):
        assert done.stderr == f"{line}\n"
        return
    shown = json.loads(done.stderr)
    assert line.items() <= shown.items()
    assert set(shown) - set(line) == {"timestamp"}


def test_an_error_keeps_its_traceback() -> None:
    script = (
        "from authapp.telemetry.logging import configure_logging, get_logger\n"
        "configure_logging()\n"
        "try:\n    1 / 0\n"
        "except ZeroDivisionError:\n    get_logger('a').exception('failed')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert "ZeroDivisionError" in json.loads(done.stderr)["exception"]
