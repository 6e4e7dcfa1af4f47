"""Deadlines: how long stores may be waited for."""

import pytest

from authapp.storage.deadlines import deadline, remaining


def test_without_a_deadline_all_that_is_asked_for_may_be_waited() -> None:
    assert remaining(7.0) == 7.0


def test_the_deadline_that_comes_first_counts() -> None:
    with deadline(5.0):
        assert 4.5 < remaining(60.0) <= 5.0
        assert remaining(0.25) == 0.25
        with deadline(60.0):
            assert remaining(60.0) <= 5.0, "a later one prolongs nothing"
        with deadline(1.0):
            assert remaining(60.0) <= 1.0
        assert remaining(60.0) > 4.0
    assert remaining(60.0) == 60.0


def test_after_the_deadline_nothing_remains() -> None:
    with deadline(0.0):
        assert remaining(60.0) == 0.0


def test_a_deadline_ends_with_an_error_too() -> None:
    with pytest.raises(KeyError), deadline(1.0):
        raise KeyError("a defect")
    assert remaining(60.0) == 60.0
