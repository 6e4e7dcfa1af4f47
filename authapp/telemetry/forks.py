"""Threads that a forked process starts again: those of its parent are gone."""

import os
import weakref
from collections.abc import Callable

_starts: list["weakref.WeakMethod[Callable[[], None]]"] = []


def start_in_forks(start: Callable[[], None]) -> None:
    """Has this bound method called in each process that is forked while its object lives."""
    _starts[:] = [known for known in _starts if known() is not None]
    _starts.append(weakref.WeakMethod(start))


def _start_all() -> None:
    for known in _starts:
        if (start := known()) is not None:
            start()


os.register_at_fork(after_in_child=_start_all)
