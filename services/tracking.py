"""Metrics to Trackio or Weights & Biases, beside TensorBoard, where LOCKSTEP_TRACKER asks for it.

One run for an experiment, under TensorBoard's names. The tracker's library lives in a process of its own
(`tracker_process.py`), fed through a queue that never makes a stage wait: whatever becomes of that process or
of its server, the stage goes on, its random draws and its outcome are the same, and one warning says so.
"""

import json
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from shared import config as configuration
from shared.jobs import Job, Metrics, Result, Store
from shared.settings import Settings, check_tracker, load_settings
from shared.states import RoundState
from shared.trainer_process import Progress, Stage

log = logging.getLogger(__name__)

QUEUE = 10_000  # lines that may wait for the tracker's process; what comes on top is dropped
CLOSE_S = 10.0  # a stage waits so long, at its end, for its metrics to be taken
TRAINING = 0.9  # of the agent trainer's progress; what follows is the evaluation


def tracked(stages: dict[str, Stage], settings: Settings | None = None) -> dict[str, Stage]:
    """Return the stages as they are, or such that tell the tracker what they tell TensorBoard."""
    settings = settings or load_settings()
    if settings.tracker == "none":
        return stages
    check_tracker(settings)
    tracker = Tracker(settings)
    return {name: _told_to(tracker, name, stage) for name, stage in stages.items()}


@dataclass(frozen=True)
class Axis:
    """Which steps belong to a stage's progress: the run's own, which only grow, and TensorBoard's."""

    name: str  # of TensorBoard's steps in the run
    begin: int  # the run's step at the stage's beginning
    first: int  # TensorBoard's
    updates: int
    size: int  # steps of an update
    whole: int  # steps of the stage
    part: float  # of the progress that is training

    def at(self, fraction: float) -> int | None:
        """Return how many steps are done at `fraction`, None once the training is over."""
        done = fraction / self.part
        return round(done * self.updates) * self.size if done <= 1.0 + 1e-9 else None


def axis(stage: str, job: Job) -> Axis | None:
    """Return the axis of a stage; None for one that says nothing to TensorBoard.

    A round takes the reward model's epochs and then the agent's steps, the same in every attempt.
    """
    config = configuration.parse(job.config)
    past, epochs, agent = job.round_number - 1, config.reward_model.epochs, config.agent
    played = config.agent_steps_before(job.round_number)
    begin = past * epochs + played
    if stage == RoundState.TRAINING_REWARD:
        return Axis("reward_epoch", begin, past * epochs, epochs, 1, epochs, 1.0)
    if stage == RoundState.TRAINING_AGENT:
        whole = config.agent_steps(job.round_number)
        batch = agent.num_envs * agent.num_steps
        updates = max(1, whole // batch)
        return Axis("global_step", begin + epochs, played, updates, batch, whole, TRAINING)
    return None


def _told_to(tracker: "Tracker", name: str, stage: Stage) -> Stage:
    def run(
        job: Job, store: Store, on_progress: Progress, should_stop: Callable[[], bool], **more: Any
    ) -> Result:
        along = axis(name, job)
        if along is None:
            return stage(job, store, on_progress, should_stop, **more)
        told: set[str] = set()

        def tell(fraction: float, metrics: Metrics) -> None:
            on_progress(fraction, metrics)
            done = along.at(fraction)
            if done is not None:
                told.update(metrics)
                tracker.log(along, done, job.round_number, metrics)

        tracker.open(job)
        try:
            result = stage(job, store, tell, should_stop, **more)
            rest = {key: value for key, value in result.metrics.items() if key not in told}
            tracker.log(along, along.whole, job.round_number, rest)
        finally:
            tracker.close()
        return result

    return run


class Tracker:
    """The way to the tracker's process, which is started when it is first needed and again if it died."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue(QUEUE)
        self._asked = self._answered = 0  # runs that were to be closed, and that were
        self._news = threading.Condition()
        self._warned = False

    def open(self, job: Job) -> None:
        """Begin, or go on with, the run of the job's experiment."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        name = str(job.config["name"])
        about = {"run": job.run or name, "name": name, "project": self._settings.tracker_project}
        self._put({"open": {**about, "config": job.config}})

    def log(self, along: Axis, done: int, round_number: int, metrics: Metrics) -> None:
        """Send the numbers among `metrics`, `done` steps into the stage of `along`."""
        numbers = {name: float(value) for name, value in metrics.items() if not isinstance(value, str)}
        if numbers:
            places = {along.name: along.first + done, "round": round_number}
            self._put({"log": {**numbers, **places}, "step": along.begin + done})

    def close(self) -> None:
        """End the run, and wait a moment until all of it is taken, unless that was in vain before."""
        with self._news:
            behind = self._answered < self._asked
            self._asked += 1
            self._put({"close": True})
            if not behind and not self._news.wait_for(lambda: self._answered >= self._asked, CLOSE_S):
                self._warn(f"it took more than {CLOSE_S:.0f} s to take a stage's metrics")

    def _put(self, message: dict[str, Any]) -> None:
        try:
            self._lines.put_nowait(json.dumps(message) + "\n")
        except queue.Full:
            self._warn("it does not keep up, so metrics are left out")

    def _start(self) -> None:
        self._lines, self._asked, self._answered = queue.Queue(QUEUE), 0, 0
        folder = self._settings.data_dir / "tracker"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / "log").open("ab") as said:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "services.tracker_process", self._settings.tracker, str(folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                )
        except OSError as error:
            self._warn(f"its process cannot be started: {error}")
            self._answered = 1 << 60  # nobody is to be waited for
            return
        for work in (self._write, self._read):
            threading.Thread(target=work, args=(self._process, self._lines), daemon=True).start()

    def _write(self, process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
        pipe = process.stdin
        assert pipe is not None
        with suppress(OSError), pipe:  # when it is gone, who reads from it says so
            while process.poll() is None:
                pipe.write(lines.get())
                pipe.flush()

    def _read(self, process: "subprocess.Popen[str]", lines: "queue.Queue[str]") -> None:
        answers: IO[str] | None = process.stdout
        assert answers is not None
        with answers:
            for line in answers:
                answer = json.loads(line)
                if "warning" in answer:
                    self._warn(answer["warning"])
                with self._news:
                    self._answered += "closed" in answer
                    self._news.notify_all()
        self._warn(f"its process ended with status {process.wait()}; it is started again at the next stage")
        with suppress(queue.Full):  # then there is enough to wake it
            lines.put_nowait("")  # who writes waits for something to write, and lets go of the pipe
        with self._news:
            self._answered = 1 << 60
            self._news.notify_all()

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            where = self._settings.data_dir / "tracker" / "log"
            log.warning("tracker %s: %s (training goes on; see %s)", self._settings.tracker, what, where)
