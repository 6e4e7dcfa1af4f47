"""Child processes that never outlive us: start them, end them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Stops = tuple[tuple[signal.Signals, float], ...]
"""Signals to send in turn, each with the seconds to wait for its effect."""


@contextmanager
def signals_held() -> Iterator[set[signal.Signals]]:
    """No signal handler runs between a child's start and the note of its pid. Gives the mask."""
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    mask = {signal.Signals(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, held)}
    try:
        yield mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def start_child(
    arguments: Sequence[str],
    mask: set[signal.Signals],
    death_signal: signal.Signals = signal.SIGTERM,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a program, inside `signals_held`, whose signal mask to restore it gives.

    Ctrl-C in the terminal does not reach it, for it has a session of its own. `death_signal` does,
    when the thread that called this ends (on Linux): so call it from the main thread. `options`
    are those of subprocess.Popen.
    """
    parent = os.getpid()

    def in_child() -> None:
        stop_with_parent(death_signal)  # here, for the change of account before it would clear it
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return subprocess.Popen(  # noqa: S603 - programs of ours
        arguments,
        start_new_session=True,
        preexec_fn=in_child,  # noqa: PLW1509 - a few system calls, no lock taken
        **options,
    )


def stop_with_parent(death_signal: signal.Signals) -> None:
    """Have the kernel send us `death_signal` when our parent ends, however it ends. Linux only."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))


def end_child(process: subprocess.Popen[bytes], stop_with: Stops) -> None:
    """Send the signals in turn until the process has ended; SIGKILL goes to its whole group.

    Then what a shell started, and did not take along, is told to end.
    """
    for number, seconds in stop_with:
        if process.poll() is not None:
            break
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    if process.poll() is None or not _exists(process.pid):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)


def _exists(pid: int) -> bool:
    """Whether there is such a process. After the end of ours it is somebody else's, and so is its
    group: the system gives no pid away while a process is left in the group of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
