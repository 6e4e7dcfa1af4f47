"""Does several things at the same time, each in a process of its own, so that none waits for the
interpreter of another."""

import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from benchmarks.servers import ROOT, BenchmarkError

T = TypeVar("T")


class Process(Generic[T]):
    """Waits until it may begin.

    Args:
        work: of a module that is quick to import.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _DO],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._work = pickle.dumps(work)

    def prepare(self) -> None:
        """Returns once it is ready to begin."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._work)
        self._process.stdin.flush()
        self._process.stdout.readline()

    def begin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def result(self) -> T:
        """Waits for its end.

        Raises:
            BenchmarkError: the work failed.
        """
        told, said = self._process.communicate()
        if self._process.returncode:
            raise BenchmarkError(f"a load failed:\n{said.decode(errors='replace')[-2_000:]}")
        found: T = pickle.loads(told)
        return found


_DO = """
import pickle, sys
work = pickle.load(sys.stdin.buffer)
print("ready", flush=True)
sys.stdin.buffer.readline()
sys.stdout.buffer.write(pickle.dumps(work()))
"""


def begin_together(processes: Sequence[Process[Any]]) -> None:
    for process in processes:
        process.prepare()
    for process in processes:
        process.begin()
