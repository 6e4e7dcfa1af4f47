"""A request passes few calls and few files, so that it can be followed."""

import pytest

from authapp.config import Config
from authapp.storage import postgres
from authapp.storage.deadlines import remaining
from benchmarks.calls import trace, warm_json_log_in, warm_session_check


def test_the_calls_of_a_request_are_few(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "USED_JUST_NOW", 60)  # a slow machine pings more often
    log_in, cookie = warm_json_log_in(config)
    check = warm_session_check(config, cookie)
    assert len(check.calls) <= 45, check.calls
    assert len(check.files) <= 18, check.files
    # some 323, and a few more where a thread waits for another; the aim is 200 through 25 files
    assert len(log_in.calls) <= 340, log_in.calls
    assert len(log_in.files) <= 65, log_in.files


def test_a_call_of_the_package_counts_and_one_of_a_library_does_not() -> None:
    """The control."""
    assert trace(lambda: sorted([2, 1], key=lambda one: -one)).calls == []
    assert trace(lambda: remaining(1.0)).calls == [("storage/deadlines.py", "remaining")]
