"""One side of a comparison: a process that works whenever it is asked to, and says how long it took.

Runs in any environment: nothing but the standard library is imported.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def used() -> float:
    """Return the processor seconds that this process and the children it waited for have used."""
    each = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in each)


class Clock:
    """Seconds that passed, and seconds of processors used by this process and the children it waited for."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count from now on: what was prepared until now is no part of the work."""
        self.wall, self.cpu = time.perf_counter(), used()

    def read(self) -> dict[str, float]:
        """Return what was counted."""
        return {"wall": time.perf_counter() - self.wall, "cpu": used() - self.cpu}

    @contextmanager
    def halted(self) -> Iterator[None]:
        """Let what is done inside not count."""
        before = self.read()
        yield
        self.wall, self.cpu = time.perf_counter() - before["wall"], used() - before["cpu"]


Work = Callable[[Clock], dict[str, float]]


def serve(work: Work) -> None:
    """Do `work` for each line that comes in; answer each with a line of JSON.

    `work` returns what it did: `units`, how much of it, and whatever else is to be told. It may restart the
    clock. What it prints goes to standard error.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for _ in sys.stdin:
        clock = Clock()
        done = work(clock)
        print(json.dumps(clock.read() | done), file=answers, flush=True)
