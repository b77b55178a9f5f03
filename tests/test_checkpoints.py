"""Long training that is killed goes on from its newest checkpoint, and the outcome is the same."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from benchmarks.learning import MemoryStore
from services import weights
from services.agent_trainer import clips, stages
from services.reward_trainer import reward_model
from services.reward_trainer.stages import train_reward
from services.worker_loop import work
from shared import checkpoints, config, rounds
from shared.database import Database
from shared.jobs import (
    Artifact,
    LabelRecord,
    StageStopped,
    TrainAgentJob,
    TrainAgentResult,
    TrainRewardJob,
    TrainRewardResult,
    put_artifact,
)
from shared.models import Attempt, Checkpoint, Round, StoredArtifact
from shared.states import RoundState
from shared.transitions import StaleState

from . import core, parts
from .parts import tiny
from .test_workers import system, worker_of, working

SMALL = {
    "agent": {"total_steps": 1024, "checkpoint_steps": 256},  # 8 updates, a checkpoint after every second
    "reward_model": {"epochs": 12, "batch_size": 4},
    "evaluation": {"episodes": 2},
}
PONG = {
    "env_id": "ALE/Pong-v5",
    "atari": {"frame_size": 42, "max_frames": 1000},
    "agent": {"num_steps": 16, "update_epochs": 1, "total_steps": 384, "checkpoint_steps": 128},
    "reward_model": {"epochs": 4, "batch_size": 4, "bfloat16": True},
    "evaluation": {"episodes": 1},
}
LONG = {"total_steps": 2048, "checkpoint_steps": 256}

Trained = TrainAgentResult | TrainRewardResult
Train = Callable[..., Trained]


def the_job(store: MemoryStore, what: config.ExperimentConfig, stage: str) -> TrainAgentJob | TrainRewardJob:
    about: dict[str, Any] = {"attempt_id": 1, "round_number": 1, "seed": 1, "config": what.model_dump()}
    about |= {"prefix": "first/", "log_dir": None, "agent": None}
    rng = np.random.default_rng(1)
    frames = what.env_id.startswith("ALE/")
    if stage == "training_agent":
        args = reward_model.Args(hidden=8, members=2)
        model = reward_model.RewardModel([4, 32, 42] if frames else [4], args)
        saved = put_artifact(store, "reward_model", "model", weights.save_reward_model(model))
        return TrainAgentJob(**about, reward_model=saved)
    labels = []
    for number in range(12):
        pair = []
        for side in range(2):
            film = rng.integers(0, 255, (9, 32, 42), np.uint8)
            seen = np.stack([film[t : t + 4] for t in range(6)]) if frames else rng.random((6, 4), np.float32)
            packed = clips.pack_npz(seen, np.zeros(5, np.int64))
            pair.append(put_artifact(store, "clip_npz", f"{number}-{side}", packed))
        labels.append(LabelRecord(pair, [0, 1], number == 0, "ada", 1))
    return TrainRewardJob(**about, labels=labels, reward_model=None)


def outcome(result: Trained) -> str:
    return result.agent.sha256 if isinstance(result, TrainAgentResult) else result.reward_model.sha256


@pytest.mark.parametrize("changes", [SMALL, PONG], ids=["CartPole", "Pong"])
@pytest.mark.parametrize("stage", ["training_agent", "training_reward"])
def test_who_goes_on_from_a_checkpoint_ends_with_the_same_weights(
    stage: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_CHECKPOINT_S", "1e-9")  # after every epoch
    store, what = MemoryStore(), tiny(**changes)
    job = the_job(store, what, stage)
    train: Train = stages.train_agent if stage == "training_agent" else train_reward  # type: ignore[assignment]
    more: dict[str, Any] = {"encode": None} if stage == "training_agent" else {}
    whole = train(job, store, lambda *_: None, lambda: False, **more)
    assert not [key for key in store.data if "checkpoint" in key]  # nobody was told, so none was stored

    kept: list[Artifact] = []
    with pytest.raises(StageStopped):
        train(job, store, lambda *_: None, lambda: len(kept) == 2, keep_checkpoint=kept.append, **more)
    done = 4 if stage == "training_agent" else 2
    assert [one.key for one in kept] == [f"first/checkpoint-{n:06d}.safetensors" for n in (done // 2, done)]

    fractions: list[float] = []
    again = replace(job, prefix="second/", checkpoint=kept[-1])
    result = train(again, store, lambda done, _: fractions.append(done), lambda: False, **more)
    assert outcome(result) == outcome(whole)
    assert fractions[0] > (0.45 if stage == "training_agent" else 0.16)  # it did not begin anew
    if changes is PONG:
        return

    lost = replace(job, prefix="third/", checkpoint=kept[0])
    store.get = lambda key, sha256=None: gone(key) if "checkpoint" in key else store.data[key]  # type: ignore[method-assign]
    assert outcome(train(lost, store, lambda *_: None, lambda: False, **more)) == outcome(whole)


def gone(key: str) -> bytes:
    from shared.storage import missing

    raise missing(key)


def test_a_killed_trainers_successor_begins_where_the_checkpoint_was(
    tmp_path: Path, sqlite_template: Path
) -> None:
    """Real processes and a real store; what has been superseded is gone from it at the end."""
    (tmp_path / "lockstep.db").write_bytes(sqlite_template.read_bytes())
    with (
        system(tmp_path, f"sqlite:///{tmp_path / 'lockstep.db'}") as one,
        worker_of(one, "tests.all_trainer") as worker,
    ):
        agents = []
        for name in ("undisturbed", "disturbed"):
            experiment_id, hints = parts.create(one.database, tiny(name, rounds=1, agent=LONG))
            work(worker, hints[0].attempt_id)
            work(worker, parts.answer_all(one.database, experiment_id)[0].attempt_id)
            first = parts.attempts(one.database, experiment_id)[-1]
            if name == "undisturbed":
                work(worker, first.id)
            else:
                with working(worker, first.id):
                    parts.until(partial(newest, one.database, first), every_s=0.002)
                    os.kill(worker.trainer.process.pid, signal.SIGKILL)
                found = newest(one.database, first)
                assert found
                second = parts.attempts(one.database, experiment_id)[-1]
                work(worker, second.id)
                assert f"training goes on from {found.key}" in worker.trainer.tail
                states = [one.state for one in parts.attempts(one.database, experiment_id)]
                assert states == ["succeeded", "succeeded", "failed", "succeeded"]
            assert parts.newest_round(one.database, experiment_id).state == RoundState.DONE
            with one.database.read() as session:
                mine = select(StoredArtifact.sha256).join(Round).where(Round.experiment_id == experiment_id)
                agents += session.scalars(mine.where(StoredArtifact.kind == "agent")).all()
                assert session.scalars(select(Checkpoint)).all() == []
            assert not [key for key in one.settings.open_store().list("") if "checkpoint" in key]
        assert len(agents) == 2
        assert len(set(agents)) == 1


def newest(database: Database, attempt: Attempt) -> Artifact | None:
    with database.read() as session:
        return checkpoints.newest(session, attempt.round_id, attempt.stage)


def test_the_newest_counts_and_only_who_holds_the_lease_can_add_one(database: Database) -> None:
    store = Kept()
    _, first = core.create(database)
    core.claim(database, first)
    stage = RoundState.COLLECTING

    def keep(attempt_id: int, name: str) -> None:
        store.keys.add(name)
        with database.write() as session:
            rounds.keep_checkpoint(session, attempt_id, Artifact("checkpoint", name, "0" * 64, 1))

    def current() -> str | None:
        with database.read() as session:
            found = checkpoints.newest(session, session.get_one(Attempt, first).round_id, stage)
            return found and found.key

    assert current() is None
    keep(first, "one")
    assert checkpoints.clear(database, store) == []
    keep(first, "two")
    assert current() == "two"
    assert checkpoints.clear(database, store) == ["one"]
    assert store.keys == {"two"}
    core.run_out_of_time(database, first)
    with database.write() as session:
        round_id = session.get_one(Attempt, first).round_id
        second = rounds.sweep(session, round_id, 3).hints[0].attempt_id
    with pytest.raises(StaleState):
        keep(first, "late")
    assert current() == "two"  # the next attempt's to go on from
    assert checkpoints.clear(database, store) == []
    core.claim(database, second)
    with database.write() as session:
        rounds.complete(session, second, core.collected(second))
    assert checkpoints.clear(database, store) == ["two"]
    assert current() is None


class Kept:
    """A store of which only deleting is asked."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def delete(self, key: str) -> None:
        self.keys.discard(key)
