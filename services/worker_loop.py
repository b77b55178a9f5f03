"""A worker: takes hints, claims attempts, supervises the trainer process that does the work. No torch here.

Celery runs one thread for tasks beside the one that listens to the broker, so connections stay alive and
SIGTERM is heard in the middle of a long stage. Leases say who works on what; see `shared/rounds.py`.
"""

import logging
import math
import os
import platform
import subprocess
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import signals
from celery.exceptions import SecurityWarning
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from shared import checkpoints, logs, memory, rounds
from shared.alive import ALIVE_S, touch
from shared.assignments import job_for
from shared.broker import TASK, Broker
from shared.database import Database
from shared.jobs import Artifact, Job, result_from_json
from shared.models import Attempt
from shared.results import BadResult
from shared.rounds import Beat
from shared.settings import Settings
from shared.states import QUEUES, AttemptState
from shared.storage import StoreError
from shared.supervision import Report, TrainerProcess
from shared.transitions import Hint, StaleState

log = logging.getLogger(__name__)

LISTEN_S = 0.25  # between two looks at what else might have happened
PROGRESS_S = 0.5  # between two heartbeats while there is progress to tell
STOP_S = 10.0  # a trainer that was asked to stop is ended by force after this
RETRY_MOST_S = 5.0  # between two tries to reach the database, at most
# A worker that can't reach the database goes on training: when the database is back, it says whether the
# lease still stands. After this many leases somebody else surely has the work.
LEASES_WITHOUT_DATABASE = 20
# InternalError: Postgres ended a transaction of ours that was idle for too long.
DATABASE_ERRORS = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)


@dataclass
class Worker:
    """What a worker holds between attempts."""

    queue: str
    settings: Settings
    database: Database
    broker: Broker
    trainer: TrainerProcess
    leaving: threading.Event = field(default_factory=threading.Event)
    identity: dict[str, Any] = field(default_factory=dict)


@dataclass
class Watch:
    """What the supervising loop knows of the attempt at hand."""

    attempt_id: int
    fraction: float = 0.0
    metrics: dict[str, Any] | None = None
    heard_at: float = field(default_factory=time.monotonic)  # when the trainer last gave a sign of life
    beat_at: float = field(default_factory=time.monotonic)  # when the last heartbeat was tried
    lease_at: float = field(default_factory=time.monotonic)  # when the lease was last renewed
    news: bool = False  # something to tell that no heartbeat has told yet
    first_told: bool = False
    leave: str | None = None  # why the stage was asked to stop
    leave_at: float = 0.0
    checkpoint: Artifact | None = None  # stored, but not yet known to the database
    clearing: threading.Thread | None = None  # deletes superseded checkpoints


def main(queue: str, settings: Settings, trainer: TrainerProcess) -> None:
    """Run a worker over its trainer process until SIGTERM or SIGINT.

    Whatever else ends it ends the process after the attempt at hand, with a status that is not 0: whoever
    started it starts it again.
    """
    logs.set_up(settings)
    logging.getLogger("kombu").setLevel(logging.WARNING)
    # In a container the worker may well be root, and it unpickles nothing.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = Worker(queue, settings, Database(settings.database_url), Broker(settings), trainer)
    revision = settings.revision or _git_revision()
    worker.identity = {"host": platform.node(), "pid": os.getpid(), "git": revision}

    @worker.broker.app.task(name=TASK)
    def attempt(attempt_id: int) -> None:
        if not worker.leaving.is_set():
            with logs.about(attempt=int(attempt_id)):
                work(worker, int(attempt_id))

    def leave(**_: Any) -> None:
        worker.leaving.set()

    def look(sender: Any, **_: Any) -> None:
        worker.broker.send(waiting(worker))
        if settings.alive_file:
            touch(settings.alive_file)
            sender.timer.call_repeatedly(ALIVE_S, alive, (sender,))

    def alive(consumer: Any) -> None:
        if consumer.connection and consumer.connection.connected:  # it hears its broker
            touch(settings.alive_file)

    signals.worker_shutting_down.connect(leave)
    signals.worker_ready.connect(look)
    signals.setup_logging.connect(lambda **_: None, weak=False)  # ours, not Celery's
    program = worker.broker.app.Worker(
        pool="threads", concurrency=1, queues=[queue], quiet=True, without_heartbeat=True,
        without_gossip=True, without_mingle=True, loglevel=settings.log_level,
    )  # fmt: skip
    try:
        program.start()
    finally:
        worker.leaving.set()
        worker.trainer.end()
        worker.database.close()
    raise SystemExit(program.exitcode or 0)


def waiting(worker: Worker) -> list[Hint]:
    """Return hints for what waits in the database: a worker that starts need not wait to be told."""
    stages = [stage for stage, queue in QUEUES.items() if queue == worker.queue]
    query = select(Attempt.id).where(Attempt.state == AttemptState.OFFERED, Attempt.stage.in_(stages))
    try:
        with worker.database.read() as session:
            return [Hint(attempt_id, worker.queue) for attempt_id in session.scalars(query)]
    except DATABASE_ERRORS as error:
        log.warning("the database can't be reached yet: %s", _first_line(error))
        return []


def work(worker: Worker, attempt_id: int) -> None:
    """Claim an attempt and carry it out; does nothing if it is not to be had."""
    try:
        with worker.database.write() as session:
            identity = {**worker.identity, **worker.trainer.hello}
            if not rounds.claim(session, attempt_id, identity, worker.settings.lease_s):
                log.info("attempt %s is not to be had", attempt_id)
                return
    except DATABASE_ERRORS as error:
        log.warning("attempt %s: the database can't be reached: %s", attempt_id, _first_line(error))
        return
    log.info("attempt %s: claimed", attempt_id)
    watch = Watch(attempt_id)
    try:
        with worker.database.read() as session:
            stage = session.get_one(Attempt, attempt_id).stage
            round_ = session.get_one(Attempt, attempt_id).round
            ids = {"experiment": round_.experiment_id, "round": round_.id}
            job = job_for(session, attempt_id, str(worker.settings.data_dir / "tensorboard"))
    except DATABASE_ERRORS as error:
        log.warning("attempt %s: the database went away: %s", attempt_id, _first_line(error))
        settle(worker, watch, lambda session: rounds.release(session, attempt_id, "the database went away"))
        return
    except StaleState as error:
        _fail(worker, watch, str(error))
        return
    try:
        with logs.about(**ids):
            supervise(worker, watch, str(stage), job)
    except Exception as error:  # a fault of ours must not leave an attempt to its lease
        log.exception("attempt %s", attempt_id)
        _fail(worker, watch, f"the worker itself failed: {type(error).__name__}: {error}")


def supervise(worker: Worker, watch: Watch, stage: str, job: Job) -> None:
    """Let the trainer process carry out `job`, beating for it, and write down how it ended."""
    trainer = _warm_trainer(worker)
    trainer.begin(stage, job)
    while True:
        report = trainer.listen(min(LISTEN_S, worker.settings.beat_s))
        if report is not None and report.values.get("attempt") in (None, watch.attempt_id):
            watch.heard_at = time.monotonic()
            if _take(worker, watch, stage, trainer, report):
                return
        if not _still_ours(worker, watch):
            log.warning("attempt %s: the lease is lost; its work is dropped", watch.attempt_id)
            trainer.end()
            _warm_trainer(worker)
            return
        if worker.leaving.is_set() and watch.leave is None:
            _ask_to_leave(watch, trainer, "its worker was asked to stop")
        if watch.leave and time.monotonic() - watch.leave_at > STOP_S:
            trainer.end()  # `gone` is its last report
        silent_s = time.monotonic() - watch.heard_at
        if silent_s > worker.settings.silence_s:
            trainer.end()
            _warm_trainer(worker)
            text = (
                f"the trainer process gave no sign of life for {silent_s:.0f} s and was ended; if the stage "
                "is merely slow, set LOCKSTEP_SILENCE_S higher"
            )
            _fail(worker, watch, text + trainer.last_lines())
            return


def settle(worker: Worker, watch: Watch, write: Callable[[Any], list[Hint]]) -> None:
    """Write an attempt's end, however long the database takes to come back, and send what follows from it."""
    pause_s = 0.1
    while True:
        try:
            with worker.database.write() as session:
                hints = write(session)
            break
        except StaleState as stale:
            log.warning("attempt %s: %s", watch.attempt_id, stale)
            return
        except DATABASE_ERRORS as error:
            log.warning("attempt %s: cannot write its end yet: %s", watch.attempt_id, _first_line(error))
            if worker.leaving.wait(pause_s):
                return  # the lease runs out, and the coordinator offers the stage again
            pause_s = min(2 * pause_s, RETRY_MOST_S)
    worker.broker.send(hints)


def _take(worker: Worker, watch: Watch, stage: str, trainer: TrainerProcess, report: Report) -> bool:
    """Take a report; True if it ends the attempt."""
    if report.kind == "progress":
        watch.fraction, watch.metrics, watch.news = report.values["fraction"], report.values["metrics"], True
        return False
    if report.kind == "checkpoint":
        watch.checkpoint = Artifact(**report.values["artifact"])  # the next heartbeat, at once, tells of it
        return False
    if report.kind == "result":
        result = result_from_json(stage, report.values["result"])
        peak = result.metrics.get(memory.METRIC, math.nan)
        log.info("attempt %s: %s is done; its peak memory was %.0f MiB", watch.attempt_id, stage, peak)
        try:
            settle(worker, watch, lambda session: rounds.complete(session, watch.attempt_id, result))
        except BadResult as error:
            _fail(worker, watch, str(error))
        if watch.clearing:
            watch.clearing.join()
            _clear(worker)
        return True
    if report.kind == "error":
        kinds = report.values["kinds"]
        told = explain(kinds, report.values["message"]) + trainer.last_lines()
        _fail(worker, watch, told, hopeless=is_hopeless(kinds))
        return True
    if report.kind not in ("stopped", "gone"):
        return False
    if watch.leave:
        reason = watch.leave
        settle(worker, watch, lambda session: rounds.release(session, watch.attempt_id, reason))
    else:
        _fail(worker, watch, trainer.fate() if report.kind == "gone" else "the stage stopped unasked")
    if not worker.leaving.is_set():
        _warm_trainer(worker)
    return True


def _still_ours(worker: Worker, watch: Watch) -> bool:
    """Beat if it is time to; False if the lease is lost. The first progress is told at once."""
    moment = time.monotonic()
    since_s = moment - watch.beat_at
    told = (watch.first_told or not watch.news) and watch.checkpoint is None
    if told and since_s < (min(PROGRESS_S, worker.settings.beat_s) if watch.news else worker.settings.beat_s):
        return True
    watch.beat_at = moment
    worker_now = {**worker.identity, **worker.trainer.hello}
    metrics = watch.metrics if watch.news else None
    lease_s = worker.settings.lease_s
    try:
        with worker.database.write() as session:
            if watch.checkpoint:
                rounds.keep_checkpoint(session, watch.attempt_id, watch.checkpoint)
            beat = rounds.heartbeat(session, watch.attempt_id, lease_s, watch.fraction, metrics, worker_now)
    except StaleState:
        return False
    except DATABASE_ERRORS as error:
        log.warning("attempt %s: heartbeat failed: %s", watch.attempt_id, _first_line(error))
        return moment - watch.lease_at < LEASES_WITHOUT_DATABASE * lease_s
    watch.lease_at, watch.first_told, watch.news = moment, watch.first_told or watch.news, False
    if watch.checkpoint:
        log.info("attempt %s: the next would go on from %s", watch.attempt_id, watch.checkpoint.key)
        watch.checkpoint = None
        watch.clearing = threading.Thread(target=_clear, args=(worker,), name="clearing", daemon=True)
        watch.clearing.start()
    if beat == Beat(lost=False, stop=True) and watch.leave is None:
        _ask_to_leave(watch, worker.trainer, "the experiment is paused")
    return not beat.lost


def _clear(worker: Worker) -> None:
    """Delete checkpoints of no more use; what cannot be deleted now is tried again after the next one."""
    try:
        checkpoints.clear(worker.database, worker.settings.open_store())
    except (StoreError, *DATABASE_ERRORS) as error:
        log.warning("superseded checkpoints are left in the store: %s", _first_line(error))


def _ask_to_leave(watch: Watch, trainer: TrainerProcess, reason: str) -> None:
    log.info("attempt %s: stopping, %s", watch.attempt_id, reason)
    watch.leave, watch.leave_at = reason, time.monotonic()
    trainer.ask_to_stop()


def _fail(worker: Worker, watch: Watch, error: str, hopeless: bool = False) -> None:
    log.error("attempt %s failed: %s", watch.attempt_id, error)
    most = 1 if hopeless else worker.settings.max_attempts
    settle(worker, watch, lambda session: rounds.fail(session, watch.attempt_id, error, most))


def is_hopeless(kinds: list[str]) -> bool:
    """Return whether another try would end the same: a stage is a function of its job, and refused it.

    `kinds` are the error's class names. What the store says may be mended by then.
    """
    return "ValueError" in kinds and "StoreError" not in kinds


def explain(kinds: list[str], message: str) -> str:
    """Say what happened in a stage and what to do; `kinds` are the error's class names, nearest first."""
    if "StoreError" in kinds or "ConfigError" in kinds:
        return message
    if "MemoryError" in kinds or "OutOfMemoryError" in kinds or "not enough memory" in message:
        return (
            f"out of memory: {message or 'no room for more'}\nGive the trainer more, or make agent.num_envs, "
            "agent.num_steps, segments.collect_steps or reward_model.members smaller in a new experiment."
        )
    return f"{kinds[0]}: {message}" if kinds[0] != "ValueError" else message


def _warm_trainer(worker: Worker) -> TrainerProcess:
    """Return the trainer process, a new one if it has died."""
    if not worker.trainer.alive:
        worker.trainer = TrainerProcess(worker.trainer.module, worker.settings)
    return worker.trainer


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _git_revision() -> str | None:
    """Return the revision of the code that runs, None if it is not a checkout (or git is missing)."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
