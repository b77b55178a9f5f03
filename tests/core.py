"""Short ways to drive the core in tests: what workers, labelers and the coordinator would do, a line each."""

import uuid
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update

from shared import config, handing_out, labels, rounds
from shared.database import Database, now
from shared.jobs import (
    Artifact,
    ClipRecord,
    CollectResult,
    ComparisonRecord,
    Result,
    TrainAgentResult,
    TrainRewardResult,
)
from shared.models import Attempt, Comparison, Event, Experiment, Labeler, Lease, Preference, Round
from shared.states import LIVE_ATTEMPTS, AttemptState, RoundState

WORKER = {"host": "gpu-1", "pid": 7}
LEASE_S = 60.0
MAX_ATTEMPTS = 3


def experiment_config(name: str = "cartpole", **changes: Any) -> config.ExperimentConfig:
    """A small experiment without grace; `changes` are top-level keys."""
    data: dict[str, Any] = {"name": name, "env_id": "CartPole-v1", "rounds": 2, "labels": {"undo_grace_s": 0}}
    return config.parse(data | changes)


def create(database: Database, name: str = "cartpole", **changes: Any) -> tuple[int, int]:
    """Create an experiment; return its id and its first attempt's."""
    with database.write() as session:
        experiment, hints = rounds.create_experiment(session, experiment_config(name, **changes), "test")
        return experiment.id, hints[0].attempt_id


def create_labeler(database: Database, name: str, kind: str = "teacher") -> Labeler:
    with database.write() as session:
        labeler = Labeler(name=name, kind=kind, token_sha256=uuid.uuid4().hex, created_at=now(session))
        session.add(labeler)
    return labeler


def artifact(kind: str, owner: object, content: str = "") -> Artifact:
    return Artifact(kind=kind, key=f"{owner}/{kind}{content}", sha256="0" * 64, size=3_000_000_000)


def collected(attempt_id: int, comparisons: int = 3, clips: int = 2) -> CollectResult:
    """A result of collecting with that many comparisons of `clips` clips each."""
    records = [
        ClipRecord(
            npz=Artifact("clip_npz", f"{attempt_id}/{n}.npz", f"{n:064d}", 10),
            mp4=Artifact("clip_mp4", f"{attempt_id}/{n}.mp4", f"{n:064d}", 10),
            steps=25,
            fps=30.0,
            judgement=[1.0] * 25,
        )
        for n in range(comparisons * clips)
    ]
    pairs = [
        ComparisonRecord(clips=[n * clips + i for i in range(clips)], held_out=n == 0)
        for n in range(comparisons)
    ]
    return CollectResult(clips=records, comparisons=pairs, metrics={"steps": 100})


def result_for(
    stage: RoundState, attempt_id: int, comparisons: int = 3, clips: int = 2, true_return: float = 10.0
) -> Result:
    """What a worker could give back for `stage`."""
    if stage == RoundState.COLLECTING:
        return collected(attempt_id, comparisons, clips)
    if stage == RoundState.TRAINING_REWARD:
        return TrainRewardResult(artifact("reward_model", attempt_id), {"accuracy": float("nan")})
    agent, video = artifact("agent", attempt_id), artifact("video", attempt_id)
    return TrainAgentResult(agent, video, [true_return - 1, true_return + 1])


def live_attempt(database: Database, round_id: int) -> Attempt | None:
    with database.read() as session:
        query = select(Attempt).where(Attempt.round_id == round_id, Attempt.state.in_(LIVE_ATTEMPTS))
        return session.scalars(query).one_or_none()


def newest_round(database: Database, experiment_id: int) -> Round:
    with database.read() as session:
        return rounds.current_round(session, experiment_id)


def attempt(database: Database, attempt_id: int) -> Attempt:
    with database.read() as session:
        return session.get_one(Attempt, attempt_id)


def experiment(database: Database, experiment_id: int) -> Experiment:
    with database.read() as session:
        return session.get_one(Experiment, experiment_id)


def claim(database: Database, attempt_id: int) -> bool:
    with database.write() as session:
        return rounds.claim(session, attempt_id, WORKER, LEASE_S)


def complete(database: Database, attempt_id: int, **how: Any) -> list[int]:
    """Complete a running attempt; return the attempts hinted at."""
    with database.write() as session:
        stage = session.get_one(Attempt, attempt_id).stage
        return [
            h.attempt_id for h in rounds.complete(session, attempt_id, result_for(stage, attempt_id, **how))
        ]


def work(database: Database, attempt_id: int, **how: Any) -> list[int]:
    """Claim and complete an attempt."""
    assert claim(database, attempt_id)
    return complete(database, attempt_id, **how)


def fail(database: Database, attempt_id: int, error: str = "boom") -> list[int]:
    with database.write() as session:
        return [h.attempt_id for h in rounds.fail(session, attempt_id, error, MAX_ATTEMPTS)]


def sweep(database: Database, round_id: int) -> rounds.Swept:
    with database.write() as session:
        return rounds.sweep(session, round_id, MAX_ATTEMPTS)


def to_labeling(database: Database, comparisons: int = 3, clips: int = 2, **changes: Any) -> tuple[int, int]:
    """Create an experiment whose first round waits for labels; return (experiment id, round id)."""
    experiment_id, attempt_id = create(database, **changes)
    assert work(database, attempt_id, comparisons=comparisons, clips=clips) == []
    return experiment_id, newest_round(database, experiment_id).id


def take(database: Database, experiment_id: int, labeler: Labeler, count: int = 1) -> list[labels.Claimed]:
    """Claim comparisons as `labeler`."""
    with database.write() as session:
        name = session.get_one(Experiment, experiment_id).name
        return handing_out.claim(session, name, labeler, count).comparisons


def answer(
    database: Database,
    labeler: Labeler,
    comparison_id: int,
    ranks: list[int] | None = [0, 1],  # noqa: B006 (never changed)
    preference_id: str | None = None,
) -> str:
    preference_id = preference_id or str(uuid.uuid4())
    with database.write() as session:
        labels.answer(session, preference_id, comparison_id, labeler, ranks, 1.5)
    return preference_id


def undo(database: Database, labeler: Labeler, preference_id: str) -> None:
    with database.write() as session:
        labels.undo(session, preference_id, labeler)


def close(database: Database, round_id: int) -> list[int]:
    with database.write() as session:
        return [hint.attempt_id for hint in rounds.close_labeling(session, round_id, "test")]


def label_everything(database: Database, experiment_id: int, labeler: Labeler) -> list[str]:
    """Answer whatever `labeler` is given until nothing is left."""
    given = []
    while claimed := take(database, experiment_id, labeler, 10):
        given += [answer(database, labeler, one.comparison_id) for one in claimed]
    return given


def run_out_of_time(database: Database, attempt_id: int) -> None:
    """Let an attempt's lease end a second ago, as if its worker had been silent that long."""
    with database.write() as session:
        past = now(session) - timedelta(seconds=1)
        session.execute(update(Attempt).where(Attempt.id == attempt_id).values(lease_until=past))


def make_due(database: Database, attempt_id: int) -> None:
    """Let the pause before an attempt, and before its next hint, be over."""
    with database.write() as session:
        past = now(session) - timedelta(hours=1)
        values: dict[str, Any] = {"not_before": past, "hinted_at": past}
        session.execute(update(Attempt).where(Attempt.id == attempt_id).values(**values))


def run_out_of_lease(database: Database, comparison_id: int, labeler: Labeler) -> None:
    """Let a labeler's hold on a comparison end a second ago."""
    with database.write() as session:
        past = now(session) - timedelta(seconds=1)
        mine = (Lease.comparison_id == comparison_id) & (Lease.labeler_id == labeler.id)
        session.execute(update(Lease).where(mine).values(expires_at=past))


def age_lease(database: Database, comparison_id: int, labeler: Labeler, by: timedelta) -> None:
    """Let a labeler's hold on a comparison be so much older."""
    with database.write() as session:
        mine = (Lease.comparison_id == comparison_id) & (Lease.labeler_id == labeler.id)
        lease = session.scalars(select(Lease).where(mine)).one()
        lease.claimed_at, lease.expires_at = lease.claimed_at - by, lease.expires_at - by


def events(database: Database, experiment_id: int) -> list[Event]:
    with database.read() as session:
        query = select(Event).where(Event.experiment_id == experiment_id).order_by(Event.id)
        return list(session.scalars(query))


def labels_given(database: Database) -> list[tuple[int, int, int]]:
    """Return (labels_given, standing preferences, labels_wanted) of every comparison."""
    with database.read() as session:
        return [
            (
                comparison.labels_given,
                len(
                    session.scalars(
                        select(Preference.id).where(
                            Preference.comparison_id == comparison.id, Preference.withdrawn_at.is_(None)
                        )
                    ).all()
                ),
                comparison.labels_wanted,
            )
            for comparison in session.scalars(select(Comparison).order_by(Comparison.id))
        ]


def tries(database: Database, round_id: int) -> list[AttemptState]:
    """Return the states of a round's attempts, oldest first."""
    with database.read() as session:
        return list(
            session.scalars(select(Attempt.state).where(Attempt.round_id == round_id).order_by(Attempt.id))
        )
