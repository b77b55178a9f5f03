"""The inside of a trainer process: jobs come in by a pipe, reports go out by another. No database, no queue.

The worker that started this process is its only partner. Both pipes carry one JSON object a line. Jobs are
`{"stage", "job"}` and `{"stop": true}`; every report has a `type`: `hello` once, then for each job some
`progress` and, of long training, `checkpoint`, and at last one of `result`, `stopped` and `error`. What
libraries print goes to standard error, never into the reports.

A trainer never outlives its worker: it ends at once when the pipe of its jobs is closed, in whatever it does.
"""

import ctypes
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from shared import memory
from shared.jobs import (
    Artifact,
    CollectJob,
    Job,
    Metrics,
    Result,
    StageStopped,
    Store,
    job_from_json,
    to_json,
)
from shared.patience import PatientStore
from shared.settings import load_settings

REPORT_S = 0.1  # between two reports of progress, at least; the first of a job goes out at once

Progress = Callable[[float, Metrics], None]
Stage = Callable[..., Result]  # of a job, a store, Progress, should_stop, and for training keep_checkpoint


@dataclass(frozen=True)
class Order:
    """A stage to be carried out."""

    stage: str
    job: Job


class Link:
    """The two pipes to the worker, and the wish that the stage should stop."""

    def __init__(self, jobs_fd: int, reports_fd: int) -> None:
        for handle in (jobs_fd, reports_fd):
            os.set_inheritable(handle, False)  # a trainer's own children must not keep the pipes open
        self.orders: queue.Queue[Order] = queue.Queue()
        self.stop = threading.Event()
        self._jobs = os.fdopen(jobs_fd, "rb")
        self._reports_fd = reports_fd
        self._writing = threading.Lock()
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def report(self, kind: str, **values: Any) -> None:
        """Send one report; ends the process if nobody listens any more."""
        # `float` turns NumPy's and torch's numbers, which metrics may hold, into plain ones.
        line = memoryview(json.dumps({"type": kind, **values}, default=float).encode() + b"\n")
        with self._writing:
            try:
                while line:
                    line = line[os.write(self._reports_fd, line) :]
            except OSError:
                os._exit(0)

    def _listen(self) -> None:
        for line in self._jobs:
            message = json.loads(line)
            if message.get("stop"):
                self.stop.set()
            else:
                self.stop.clear()
                self.orders.put(Order(message["stage"], job_from_json(message["stage"], message["job"])))
        os._exit(0)  # the worker closed the pipe, or died


def serve(stages: dict[str, Stage], hello: Metrics, prepare: Callable[[int], None]) -> None:
    """Carry out jobs until the worker closes the pipe. Its two ends are named on the command line.

    `hello` says what this process is (device, versions); `prepare(seed)` is called before every job, so that
    a warm process begins each one as a fresh one does.
    """
    _die_with_parent()
    os.dup2(2, 1)  # what libraries print belongs to the log
    link = Link(int(sys.argv[1]), int(sys.argv[2]))
    store = PatientStore(load_settings().open_store, link.stop.is_set)
    link.report("hello", trainer_pid=os.getpid(), **hello)
    while True:
        order = link.orders.get()
        prepare(order.job.seed)
        _carry_out(stages[order.stage], order.job, store, link)
        memory.give_back()  # while people label, others may need it


def _carry_out(stage: Stage, job: Job, store: Store, link: Link) -> None:
    last = 0.0

    def on_progress(fraction: float, metrics: Metrics) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_S:
            link.report("progress", attempt=job.attempt_id, fraction=float(fraction), metrics=metrics)
            last = time.monotonic()

    def keep_checkpoint(artifact: Artifact) -> None:
        link.report("checkpoint", attempt=job.attempt_id, artifact=asdict(artifact))

    more = {} if isinstance(job, CollectJob) else {"keep_checkpoint": keep_checkpoint}
    try:
        result = stage(job, store, on_progress, link.stop.is_set, **more)
    except StageStopped:
        link.report("stopped", attempt=job.attempt_id)
    except Exception as error:
        traceback.print_exc()
        kinds = [kind.__name__ for kind in type(error).__mro__]
        link.report("error", attempt=job.attempt_id, kinds=kinds, message=str(error))
    else:
        link.report("result", attempt=job.attempt_id, result=to_json(result))


def _die_with_parent() -> None:
    # On Linux the kernel sees to it even while a library holds Python's lock; elsewhere the pipe's end does.
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))
