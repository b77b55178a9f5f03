"""The outside of a trainer process: start it, keep it warm, give it jobs, hear it, stop it. No torch here.

The process is started afresh (exec), never forked from one that may hold threads or a GPU. It leads a process
group of its own, so that whatever it started ends with it. Its last lines are kept for error messages.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shared.jobs import Job, to_json
from shared.settings import Settings

TERM_S = 5.0  # between the request to end and the end by force
TAIL_LINES = 50
LOG_END = "\n\nIts last lines:\n"  # between an error and the end of its log
# A trainer needs none of these, so it is not told.
WITHHELD = ("DATABASE_URL", "BROKER_URL", "ADMIN_TOKEN", "TEACHER_TOKEN", "SECRETS_DIR")


@dataclass(frozen=True)
class Report:
    """What a trainer process said; `kind` is `gone` when it has ended."""

    kind: str  # hello, progress, checkpoint, result, stopped, error, gone
    values: dict[str, Any]


class TrainerProcess:
    """A trainer process and what became of it. One thread may use it at a time."""

    def __init__(self, module: str, settings: Settings) -> None:
        """Run `python -m module JOBS REPORTS`, the two being numbers of inherited pipes."""
        jobs_end, self._jobs = os.pipe()
        self._reports, reports_end = os.pipe()
        self.module = module
        self.hello: dict[str, Any] = {}
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._inbox: queue.Queue[Report] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(jobs_end), str(reports_end)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(jobs_end, reports_end),
            env=_environment(settings),
            start_new_session=True,
        )
        os.close(jobs_end)
        os.close(reports_end)
        self._log = threading.Thread(target=self._follow_log, daemon=True)
        self._log.start()
        threading.Thread(target=self._follow_reports, daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def begin(self, stage: str, job: Job) -> None:
        """Give it a job; if it has died, the next report says so."""
        self.tail.clear()  # an error's last lines should be those of its own job
        self._send({"stage": stage, "job": to_json(job)})

    def ask_to_stop(self) -> None:
        """Ask it to leave its job at the next good moment; `stopped` is the answer."""
        self._send({"stop": True})

    def listen(self, timeout_s: float) -> Report | None:
        """Return the next report, None if there is none within `timeout_s` seconds."""
        try:
            report = self._inbox.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            return None
        if report.kind == "hello":
            self.hello = report.values
        return report

    def end(self) -> None:
        """End the process and everything it started: asked first, by force after TERM_S seconds."""
        with suppress(OSError):
            os.close(self._jobs)
        self._jobs = -1
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(TERM_S)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def fate(self) -> str:
        """Say how the process ended, and what it said last."""
        code = self.process.poll()
        if code is None:
            return "the trainer process closed its reports and hangs" + self.last_lines()
        self._log.join(1.0)
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            what = f"the trainer process was killed by {name}"
            if -code == signal.SIGKILL:
                what += (
                    "; if nobody did that on purpose, the machine ran out of memory: give it more, or make "
                    "agent.num_envs, agent.num_steps or segments.collect_steps smaller"
                )
        else:
            what = f"the trainer process ended by itself with status {code}"
        return what + self.last_lines()

    def last_lines(self) -> str:
        """Return what the process printed last, to be put under an error."""
        return LOG_END + "\n".join(self.tail) if self.tail else ""

    def _send(self, message: dict[str, Any]) -> None:
        line = memoryview(json.dumps(message).encode() + b"\n")
        with suppress(OSError):  # it is gone, which its reports will say
            while line:
                line = line[os.write(self._jobs, line) :]

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):  # it and all it started are gone already
            os.killpg(self.process.pid, number)

    def _follow_reports(self) -> None:
        with os.fdopen(self._reports, "rb") as reports:
            for line in reports:
                with suppress(ValueError, KeyError):  # the half line of a process that was killed
                    values = json.loads(line)
                    self._inbox.put(Report(values.pop("type"), values))
        with suppress(subprocess.TimeoutExpired):  # the pipe closes a moment before the process has ended
            self.process.wait(TERM_S)
        self._inbox.put(Report("gone", {}))

    def _follow_log(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip()
                self.tail.append(text[:500])
                print(text, file=sys.stderr, flush=True)


def _environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a trainer: the store and how to compute, but no way to the database."""
    withheld = {f"LOCKSTEP_{name}" for name in WITHHELD}
    environment = {name: value for name, value in os.environ.items() if name.upper() not in withheld}
    environment["LOCKSTEP_DATA_DIR"] = str(settings.data_dir)
    environment["LOCKSTEP_STORE_URL"] = settings.store_url
    secret = settings.s3_secret_key.get_secret_value() if settings.s3_secret_key else None
    for name, value in (("ACCESS_KEY", settings.s3_access_key), ("SECRET_KEY", secret)):
        if value:  # it may have come from a file among those that are withheld
            environment[f"LOCKSTEP_S3_{name}"] = value
    environment["LOCKSTEP_TORCH_THREADS"] = str(settings.torch_threads)
    environment["LOCKSTEP_CHECKPOINT_S"] = str(settings.checkpoint_s)
    environment["LOCKSTEP_ENVIRONMENTS_DIR"] = str(settings.environments_dir)
    paths = (str(settings.environments_dir), os.environ.get("PYTHONPATH"))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    environment["PYTHONUNBUFFERED"] = "1"
    # One thread a library unless told otherwise: several trainers share a machine, and sums stay in order.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(settings.torch_threads)
    return environment
