"""What must hold in the database at any moment, whatever happened before."""

from typing import Any

from sqlalchemy import select

from shared import states
from shared.models import Attempt, Comparison, Event, Experiment, Preference, Round, StoredArtifact
from shared.states import AttemptState, ExperimentState, RoundState


def check_attempts(session: Any) -> None:
    """At most one attempt of a round is live, it is of the round's stage, and its number follows the last."""
    live: dict[int, Attempt] = {}
    numbers: dict[tuple[int, RoundState], list[int]] = {}
    for attempt in session.scalars(select(Attempt).order_by(Attempt.id)):
        numbers.setdefault((attempt.round_id, attempt.stage), []).append(attempt.number)
        if attempt.state in states.LIVE_ATTEMPTS:
            assert attempt.round_id not in live
            live[attempt.round_id] = attempt
        assert (attempt.ended_at is None) == (attempt.state in states.LIVE_ATTEMPTS)
    for tries in numbers.values():
        assert tries == list(range(1, len(tries) + 1))
    for round_, state in session.execute(select(Round, Experiment.state).join(Experiment)):
        ended = state not in states.EXPERIMENT_TABLE
        has_one = round_.state in states.WORKER_STAGES and not ended
        assert (round_.id in live) == has_one, "a stage of a worker has exactly one live attempt"
        assert not has_one or live[round_.id].stage == round_.state


def check_artifacts(session: Any) -> None:
    """Each kind of artifact is official once a round, and belongs to the one attempt that succeeded."""
    seen = set()
    query = select(StoredArtifact, Attempt).join(Attempt, StoredArtifact.attempt_id == Attempt.id)
    for stored, attempt in session.execute(query):
        assert (stored.round_id, stored.kind) not in seen
        seen.add((stored.round_id, stored.kind))
        assert attempt.state == AttemptState.SUCCEEDED
        assert attempt.round_id == stored.round_id
    won = session.execute(select(Attempt.round_id, Attempt.stage).where(Attempt.state == "succeeded")).all()
    assert len(won) == len(set(won))
    for round_id, stage in won:
        kinds = {"collecting": (), "training_reward": ("reward_model",), "training_agent": ("agent", "video")}
        assert all((round_id, kind) in seen for kind in kinds[stage])


def check_labels(session: Any) -> None:
    """A comparison's count is the number of its standing preferences, each by another labeler."""
    standing: dict[int, list[int]] = {}
    for preference in session.scalars(select(Preference).where(Preference.withdrawn_at.is_(None))):
        standing.setdefault(preference.comparison_id, []).append(preference.labeler_id)
    for comparison in session.scalars(select(Comparison)):
        who = standing.get(comparison.id, [])
        assert len(who) == len(set(who)) == comparison.labels_given <= comparison.labels_wanted


def check_events(session: Any) -> None:
    """Told event by event, each thing walks a legal path through its table and ends where it stands now."""
    of_rounds = {line.event for line in states.ROUND_TABLE} | {"begun"}
    stands: dict[tuple[str, int], str] = {}
    failed: dict[int, RoundState] = {}
    for row in session.scalars(select(Event).order_by(Event.id)):
        if row.event in of_rounds:
            key = ("round", row.round_id)
            if row.event != "begun":
                source = RoundState(row.source)
                assert row.target == states.target(row.event, source, failed.get(row.round_id))
                failed[row.round_id] = source
        elif row.attempt_id is not None:
            key = ("attempt", row.attempt_id)
            if row.source is not None:
                assert AttemptState(row.target) in states.ATTEMPT_TABLE[AttemptState(row.source)]
        else:
            key = ("experiment", row.experiment_id)
            if row.source is not None:
                assert ExperimentState(row.target) in states.EXPERIMENT_TABLE[ExperimentState(row.source)]
        assert stands.get(key) == row.source
        stands[key] = row.target
    for name, model in (("experiment", Experiment), ("round", Round), ("attempt", Attempt)):
        for row_id, state in session.execute(select(model.id, model.state)):
            assert stands.pop((name, row_id)) == state
    assert stands == {}
