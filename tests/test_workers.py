"""Workers: whole rounds on both sizes, undisturbed and disturbed, and every way an attempt can end."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import select, update

from services import worker_loop
from services.worker_loop import Worker, explain, work
from shared import rounds
from shared.broker import Broker
from shared.config import ExperimentConfig
from shared.database import Database, now
from shared.models import Attempt, Clip, Event, Round
from shared.settings import Settings, load_settings
from shared.states import AttemptState
from shared.supervision import TrainerProcess
from shared.transitions import Hint

from . import parts
from .parts import HASTE, answer_all, attempts, newest_round, part, tiny, until

AGENT, REWARD = "services.agent_trainer.worker", "services.reward_trainer.worker"
LONG = {"agent": {"total_steps": 2048}}  # long enough to be disturbed


@dataclass
class System:
    settings: Settings
    database: Database
    broker: Broker


@contextmanager
def system(folder: Path, database_url: str, broker_url: str = "", **more: object) -> Iterator[System]:
    folder.mkdir(exist_ok=True)
    given = {"data_dir": folder, "database_url": database_url, "broker_url": broker_url, **HASTE, **more}
    settings = load_settings(**given)
    database, broker = Database(settings.database_url), Broker(settings)
    yield System(settings, database, broker)
    broker.close()
    database.close()


# ------------------------------------------------------------- whole rounds, real processes


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> dict[tuple[int, str], str]:
    """The sums of what a run gives that nobody disturbs: SQLite, hints through a folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "lockstep.db").write_bytes(sqlite_template.read_bytes())
    with system(folder, f"sqlite:///{folder / 'lockstep.db'}") as one, ExitStack() as stack:
        for module in ("services.coordinator", AGENT, REWARD):
            stack.enter_context(part(module, one.settings))
        experiment_id, hints = parts.create(one.database, tiny(**LONG))
        one.broker.send(hints)
        parts.play(one.database, one.broker, experiment_id)
        tried = attempts(one.database, experiment_id)
        assert [attempt.state for attempt in tried] == ["succeeded"] * 6
        assert all(attempt.first_step_at for attempt in tried)
        assert all(attempt.worker and attempt.worker["device"] == "cpu" for attempt in tried)
        found = parts.sums(one.database)
    kinds = ("agent", "reward_model", "predictions", "video")
    assert set(found) == {(number, kind) for number in (1, 2) for kind in kinds}
    return found


def test_a_disturbed_run_gives_the_same_weights(
    tmp_path: Path, sqlite_template: Path, undisturbed: dict[tuple[int, str], str]
) -> None:
    """A killed worker, a killed trainer process, doubled and lost hints, a pause: not a bit changes."""
    (tmp_path / "lockstep.db").write_bytes(sqlite_template.read_bytes())
    killed: dict[str, int] = {}
    with system(tmp_path, f"sqlite:///{tmp_path / 'lockstep.db'}") as one, ExitStack() as stack:
        for module in ("services.coordinator", AGENT, REWARD):
            stack.enter_context(part(module, one.settings))
        experiment_id, hints = parts.create(one.database, tiny(**LONG))
        one.broker.send(hints * 3)

        def meddle(round_: Round, tried: list[Attempt]) -> None:
            last = tried[-1]
            training = last.stage == "training_agent" and last.state == "running" and last.progress > 0
            if not (training and last.worker and "trainer_pid" in last.worker):
                return
            if round_.number == 1 and "trainer" not in killed:
                os.kill(last.worker["trainer_pid"], signal.SIGKILL)
                killed["trainer"] = last.id
            elif round_.number == 2 and "worker" not in killed:
                os.kill(last.worker["pid"], signal.SIGKILL)
                killed["worker"] = last.id
                stack.enter_context(part(AGENT, one.settings))

        parts.play(one.database, one.broker, experiment_id, meddle)
        ends = {attempt.id: attempt for attempt in attempts(one.database, experiment_id)}
        assert ends[killed["trainer"]].state == AttemptState.FAILED
        assert "SIGKILL" in (ends[killed["trainer"]].error or "")
        assert ends[killed["worker"]].state == AttemptState.EXPIRED
        assert sorted(one.state for one in ends.values()) == ["expired", "failed"] + ["succeeded"] * 6
        assert parts.sums(one.database) == undisturbed


def test_postgres_and_redis_give_the_same_weights(
    tmp_path: Path,
    postgres_url: str,
    postgres_template: str,
    redis_url: str,
    undisturbed: dict[tuple[int, str], str],
) -> None:
    """The full size runs the same code; hints that are lost with all of Redis cost time alone."""
    from .conftest import fresh_postgres

    broker_url = redis_url.rpartition("/")[0] + "/5"
    with fresh_postgres(postgres_url, postgres_template) as database_url, ExitStack() as stack:
        one = stack.enter_context(system(tmp_path, database_url, broker_url))
        experiment_id, _ = parts.create(one.database, tiny(**LONG))  # its hint is lost
        with redis.Redis.from_url(broker_url) as client:
            client.flushdb()
        for module in ("services.coordinator", AGENT, REWARD):
            stack.enter_context(part(module, one.settings))
        parts.play(one.database, one.broker, experiment_id)
        assert parts.sums(one.database) == undisturbed


# --------------------------------------------------- every way an attempt can end, one at a time


@pytest.fixture
def one(tmp_path: Path, database_url: str) -> Iterator[System]:
    with system(tmp_path, database_url) as made:
        yield made


@contextmanager
def worker_of(one: System, module: str = "tests.odd_trainer", **more: object) -> Iterator[Worker]:
    settings = one.settings.model_copy(update=more)
    trainer = TrainerProcess(module, settings)
    worker = Worker("agent_trainer", settings, one.database, one.broker, trainer)
    worker.identity = {"host": "here", "pid": os.getpid()}
    try:
        yield worker
    finally:
        worker.trainer.end()


def odd(what: str) -> ExperimentConfig:
    return tiny(env_id=what)


@contextmanager
def working(worker: Worker, attempt_id: int) -> Iterator[None]:
    thread = threading.Thread(target=work, args=(worker, attempt_id))
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()


def progressing(one: System, experiment_id: int) -> Callable[[], bool]:
    return lambda: attempts(one.database, experiment_id)[-1].progress > 0


def test_doubled_hints_run_once(one: System) -> None:
    experiment_id, hints = parts.create(one.database, odd("slow:2"))
    with worker_of(one) as worker:
        work(worker, hints[0].attempt_id)
        work(worker, hints[0].attempt_id)
        work(worker, 10_000)
    assert [attempt.state for attempt in attempts(one.database, experiment_id)] == ["succeeded"]
    assert newest_round(one.database, experiment_id).state == "labeling"


def test_a_pause_gives_the_attempt_back_and_resuming_goes_on(one: System) -> None:
    experiment_id, hints = parts.create(one.database, odd("slow:60"))
    with worker_of(one) as worker:
        with working(worker, hints[0].attempt_id):
            until(progressing(one, experiment_id))
            with one.database.write() as session:
                rounds.pause(session, experiment_id, "a test")
        first, second = attempts(one.database, experiment_id)
        assert (first.state, second.state) == (AttemptState.RELEASED, AttemptState.OFFERED)
        assert first.error == "the experiment is paused"
        work(worker, second.id)
        assert attempts(one.database, experiment_id)[-1].state == AttemptState.OFFERED
        with one.database.write() as session:
            hints = rounds.resume(session, experiment_id, "a test")
        assert hints == [Hint(second.id, "agent_trainer")]
        assert worker.trainer.alive
        work(worker, second.id)
    assert newest_round(one.database, experiment_id).state == "labeling"


def test_a_worker_that_is_asked_to_stop_gives_its_attempt_back(one: System) -> None:
    experiment_id, hints = parts.create(one.database, odd("slow:200"))
    with worker_of(one) as worker, working(worker, hints[0].attempt_id):
        until(progressing(one, experiment_id))
        worker.leaving.set()
    states = [attempt.state for attempt in attempts(one.database, experiment_id)]
    assert states == [AttemptState.RELEASED, AttemptState.OFFERED]


def test_a_lost_lease_stops_the_work_and_writes_nothing(one: System) -> None:
    experiment_id, hints = parts.create(one.database, odd("slow:400"))
    with worker_of(one) as worker:
        before = worker.trainer
        with working(worker, hints[0].attempt_id):
            until(progressing(one, experiment_id))
            with one.database.write() as session:
                past = now(session) - timedelta(seconds=1)
                session.execute(update(Attempt).values(lease_until=past))
                round_id = session.scalars(select(Round.id)).one()
                assert rounds.sweep(session, round_id, 5).expired == [hints[0].attempt_id]
        with one.database.read() as session:
            assert session.scalars(select(Event.event).order_by(Event.id.desc())).first() == "offered"
            assert session.scalars(select(Clip)).all() == []
        assert not before.alive
    states = [attempt.state for attempt in attempts(one.database, experiment_id)]
    assert states == [AttemptState.EXPIRED, AttemptState.OFFERED]


def test_training_goes_on_while_the_database_is_away(
    tmp_path: Path, postgres_url: str, postgres_template: str
) -> None:
    """Away in the middle, and away at the end: the result is written when the database is back."""
    from .conftest import fresh_postgres

    with fresh_postgres(postgres_url, postgres_template) as url, ExitStack() as stack:
        one = stack.enter_context(system(tmp_path / "direct", url))
        port = int(url.rpartition("/")[0].rpartition(":")[2])
        cable = stack.enter_context(parts.cable(port))
        far = stack.enter_context(system(tmp_path / "far", url.replace(f":{port}/", f":{cable.port}/")))
        experiment_id, hints = parts.create(one.database, odd("slow:30"))
        with worker_of(far) as worker, working(worker, hints[0].attempt_id):
            until(progressing(one, experiment_id))
            cable.cut.set()
            time.sleep(0.7)
            cable.cut.clear()
            seen = attempts(one.database, experiment_id)[-1].progress
            until(lambda: attempts(one.database, experiment_id)[-1].progress > seen)
            cable.cut.set()  # until after the stage's end
            time.sleep(2.0)
            assert attempts(one.database, experiment_id)[-1].state == AttemptState.RUNNING
            cable.cut.clear()
        assert [attempt.state for attempt in attempts(one.database, experiment_id)] == ["succeeded"]


def test_a_hanging_trainer_is_ended_and_said_so(one: System) -> None:
    experiment_id, hints = parts.create(one.database, odd("deaf"))
    with worker_of(one, silence_s=0.5) as worker:
        work(worker, hints[0].attempt_id)
    failed, again = attempts(one.database, experiment_id)
    assert failed.state == AttemptState.FAILED
    assert "no sign of life" in (failed.error or "")
    assert "LOCKSTEP_SILENCE_S" in (failed.error or "")
    assert again.state == AttemptState.OFFERED


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("fail:full", ["oh no", "Its last lines"]),
        ("fail:memory", ["out of memory", "agent.num_envs"]),
        ("fail:key", ["KeyError", "oh no", "Traceback"]),
        ("exit:3", ["status 3"]),
    ],
)
def test_a_failed_stage_tells_what_happened(
    tmp_path: Path, sqlite_template: Path, what: str, words: list[str]
) -> None:
    (tmp_path / "lockstep.db").write_bytes(sqlite_template.read_bytes())
    with system(tmp_path, f"sqlite:///{tmp_path / 'lockstep.db'}") as one:
        experiment_id, hints = parts.create(one.database, odd(what))
        with worker_of(one, max_attempts=1) as worker:
            work(worker, hints[0].attempt_id)
        round_ = newest_round(one.database, experiment_id)
        assert round_.state == "failed"
        for word in words:
            assert word in (round_.error or "")


def test_what_a_stage_refuses_is_not_tried_again(one: System) -> None:
    experiment_id, hints = parts.create(one.database, odd("fail:value"))
    with worker_of(one) as worker:
        work(worker, hints[0].attempt_id)
        assert [attempt.state for attempt in attempts(one.database, experiment_id)] == ["failed"]
        assert newest_round(one.database, experiment_id).state == "failed"
        experiment_id, hints = parts.create(one.database, tiny("full", env_id="fail:full"))
        work(worker, hints[0].attempt_id)
    states = [attempt.state for attempt in attempts(one.database, experiment_id)]
    assert states == ["failed", "offered"]  # there may be room by then


def test_a_damaged_artifact_is_named_and_a_retry_works_once_it_is_back(
    tmp_path: Path, sqlite_template: Path
) -> None:
    (tmp_path / "lockstep.db").write_bytes(sqlite_template.read_bytes())
    with (
        system(tmp_path, f"sqlite:///{tmp_path / 'lockstep.db'}") as one,
        worker_of(one, "tests.all_trainer", max_attempts=1) as worker,
    ):
        experiment_id, hints = parts.create(one.database, tiny(rounds=1))
        work(worker, hints[0].attempt_id)
        with one.database.read() as session:
            key = session.scalars(select(Clip.npz_key)).first()
        clip = tmp_path / "store" / str(key)
        whole = clip.read_bytes()
        for damage in (whole[:-1], None):
            hints = answer_all(one.database, experiment_id) or hints
            if damage is None:
                clip.unlink()
            else:
                clip.write_bytes(damage)
            work(worker, hints[0].attempt_id)
            round_ = newest_round(one.database, experiment_id)
            assert (round_.state, round_.failed_stage) == ("failed", "training_reward")
            assert str(key) in (round_.error or "")
            assert "backup" in (round_.error or "")
            with one.database.write() as session:
                hints = rounds.retry(session, round_.id, "a test")
        clip.write_bytes(whole)
        for _ in ("training_reward", "training_agent"):
            work(worker, hints[0].attempt_id)
            hints = [Hint(attempts(one.database, experiment_id)[-1].id, "agent_trainer")]
        assert newest_round(one.database, experiment_id).experiment.state == "finished"


def test_explanations_say_what_to_do() -> None:
    assert explain(["StoreFull", "StoreError"], "no room is left") == "no room is left"
    assert "make agent.num_envs" in explain(["OutOfMemoryError", "RuntimeError"], "CUDA out of memory")
    assert explain(["KeyError", "LookupError"], "'x'") == "KeyError: 'x'"


def test_a_worker_that_starts_finds_what_waits(one: System) -> None:
    _, hints = parts.create(one.database, odd("slow:1"))
    with worker_of(one) as worker:
        assert worker_loop.waiting(worker) == hints
        worker.queue = "reward_trainer"
        assert worker_loop.waiting(worker) == []
