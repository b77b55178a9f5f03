"""What may happen to rounds, attempts and experiments, one rule a test, on both databases."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from shared import rounds
from shared.database import Database, now
from shared.models import (
    Attempt,
    Clip,
    Comparison,
    Evaluation,
    Judgement,
    Round,
    StoredArtifact,
)
from shared.states import AttemptState, ExperimentState, RoundState
from shared.transitions import StaleState, move_round
from tests import core
from tests.core import LEASE_S, MAX_ATTEMPTS


def stop_early(database: Database, act: str, experiment_id: int) -> None:
    with database.write() as session:
        if act == "pause":
            rounds.pause(session, experiment_id, "op")
        elif act == "abandon":
            rounds.abandon(session, experiment_id, "op", "enough")
        else:
            rounds.finish(session, experiment_id, "op", "good enough")


def resume(database: Database, experiment_id: int) -> list[int]:
    with database.write() as session:
        return [hint.attempt_id for hint in rounds.resume(session, experiment_id, "op")]


def beat(database: Database, attempt_id: int, progress: float = 0.5) -> rounds.Beat:
    with database.write() as session:
        return rounds.heartbeat(session, attempt_id, LEASE_S, progress, {"loss": 1.0}, None)


def give_up(database: Database, attempt_id: int) -> None:
    """Fail a stage as often as it takes."""
    for _ in range(MAX_ATTEMPTS):
        round_id = core.attempt(database, attempt_id).round_id
        live = core.live_attempt(database, round_id)
        assert live is not None
        core.make_due(database, live.id)
        assert core.claim(database, live.id)
        core.fail(database, live.id, f"error of {live.number}")


def test_a_whole_experiment_runs_through_its_table(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    teacher = core.create_labeler(database, "oracle")
    for number in (1, 2):
        assert core.work(database, attempt_id) == []
        round_ = core.newest_round(database, experiment_id)
        assert (round_.number, round_.state) == (number, RoundState.LABELING)
        assert core.close(database, round_.id) == []  # not a label yet
        assert len(core.label_everything(database, experiment_id, teacher)) == 3
        (attempt_id,) = core.close(database, round_.id)
        (attempt_id,) = core.work(database, attempt_id)
        hints = core.work(database, attempt_id)
        with database.read() as session:
            assert session.get_one(Round, round_.id).state == RoundState.DONE
        if number == 1:
            (attempt_id,) = hints
    assert hints == []
    ended = core.experiment(database, experiment_id)
    assert (ended.state, ended.reason) == (ExperimentState.FINISHED, "its 2 rounds are done")
    assert ended.ended_at is not None
    with database.read() as session:
        kinds = session.execute(select(StoredArtifact.round_id, StoredArtifact.kind)).all()
        assert len(kinds) == len(set(kinds)) == 6
        assert session.scalar(select(func.count()).select_from(Judgement)) == 12
        assert session.scalars(select(Evaluation.mean)).all() == [10.0, 10.0]
        metrics = session.scalars(select(Attempt.metrics).where(Attempt.stage == "training_reward")).all()
        assert metrics == [{"accuracy": None}] * 2  # NaN is not JSON


@pytest.mark.parametrize(
    ("stop", "state"), [(True, ExperimentState.FINISHED), (False, ExperimentState.RUNNING)]
)
def test_a_solved_experiment_finishes_unless_told_to_go_on(
    database: Database, stop: bool, state: ExperimentState
) -> None:
    goal = {"solved_return": 475.0, "stop_when_solved": stop}
    experiment_id, round_id = core.to_labeling(database, evaluation=goal)
    core.label_everything(database, experiment_id, core.create_labeler(database, "oracle"))
    (reward,) = core.close(database, round_id)
    (agent,) = core.work(database, reward)
    core.work(database, agent, true_return=475.0)
    assert core.experiment(database, experiment_id).state == state
    assert core.newest_round(database, experiment_id).number == (1 if stop else 2)


def test_the_name_of_an_experiment_is_its_own(database: Database) -> None:
    core.create(database)
    with pytest.raises(StaleState, match="give this one another name"):
        core.create(database)


# ------------------------------------------------------------------------- claims and fences


def test_an_attempt_is_claimed_once_however_often_it_is_hinted_at(database: Database) -> None:
    _, attempt_id = core.create(database)
    assert [core.claim(database, attempt_id) for _ in range(3)] == [True, False, False]
    core.complete(database, attempt_id)
    assert not core.claim(database, attempt_id)
    assert not core.claim(database, 999)


def test_a_result_is_taken_once(database: Database) -> None:
    _, attempt_id = core.create(database)
    core.work(database, attempt_id)
    with pytest.raises(StaleState, match="its result is not taken"):
        core.complete(database, attempt_id)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Comparison)) == 3


def test_an_offered_attempt_can_neither_beat_nor_end(database: Database) -> None:
    _, attempt_id = core.create(database)
    assert beat(database, attempt_id) == rounds.Beat(lost=True, stop=True)
    with pytest.raises(StaleState):
        core.complete(database, attempt_id)
    with pytest.raises(StaleState):
        core.fail(database, attempt_id)
    with pytest.raises(StaleState, match="there is no attempt 999"):
        core.fail(database, 999)


def test_a_beat_renews_the_lease_and_notes_the_first_step_once(database: Database) -> None:
    _, attempt_id = core.create(database)
    core.claim(database, attempt_id)
    with database.write() as session:  # before the trainer has begun
        assert rounds.heartbeat(session, attempt_id, LEASE_S, 0.0, None) == rounds.Beat(False, False)
    assert core.attempt(database, attempt_id).first_step_at is None
    core.run_out_of_time(database, attempt_id)
    assert beat(database, attempt_id, 0.25) == rounds.Beat(False, False)  # late, but nobody has noticed
    first = core.attempt(database, attempt_id)
    assert first.lease_until is not None
    assert first.claimed_at is not None
    assert first.lease_until > first.claimed_at + timedelta(seconds=LEASE_S - 1)
    assert (first.progress, first.metrics) == (0.25, {"loss": 1.0})
    beat(database, attempt_id, 0.5)
    second = core.attempt(database, attempt_id)
    assert second.first_step_at == first.first_step_at is not None
    assert second.lease_until is not None
    assert second.lease_until > first.lease_until


def test_a_silent_worker_loses_its_attempt_and_can_change_nothing(database: Database) -> None:
    _, silent = core.create(database)
    core.claim(database, silent)
    round_id = core.attempt(database, silent).round_id
    assert core.sweep(database, round_id) == rounds.Swept()  # its lease has not run out
    core.run_out_of_time(database, silent)
    swept = core.sweep(database, round_id)
    assert swept.expired == [silent]
    (hint,) = swept.hints
    assert (hint.queue, core.claim(database, hint.attempt_id)) == ("agent_trainer", True)
    assert beat(database, silent).lost
    for late in (core.complete, core.fail):
        with pytest.raises(StaleState, match="is expired"):
            late(database, silent)
    with database.write() as session, pytest.raises(StaleState):
        rounds.release(session, silent, "late")
    core.complete(database, hint.attempt_id)
    assert core.tries(database, round_id) == [AttemptState.EXPIRED, AttemptState.SUCCEEDED]
    assert "gpu-1:7" in (core.attempt(database, silent).error or "")


def test_failures_are_tried_again_ever_later_and_then_given_up(database: Database) -> None:
    _, first = core.create(database)
    core.claim(database, first)
    (second,) = core.fail(database, first, "boom\0")  # Postgres's text takes no NUL
    assert core.attempt(database, first).error == "boom�"
    core.claim(database, second)
    round_id = core.attempt(database, first).round_id
    assert core.fail(database, second) == []  # the third waits: a sweep hints at it when it is due
    third = core.live_attempt(database, round_id)
    assert third is not None
    assert not core.claim(database, third.id)
    assert core.sweep(database, round_id).hints == []
    core.make_due(database, third.id)
    assert [hint.attempt_id for hint in core.sweep(database, round_id).hints] == [third.id]
    core.claim(database, third.id)
    assert core.fail(database, third.id, "the last straw") == []
    with database.read() as session:
        round_ = session.get_one(Round, round_id)
        assert (round_.state, round_.error) == (RoundState.FAILED, "the last straw")
        assert (round_.failed_stage, rounds.rounds_to_sweep(session)) == (RoundState.COLLECTING, [])
    assert core.live_attempt(database, round_id) is None


def test_pauses_between_tries_grow_as_stated(database: Database) -> None:
    _, attempt_id = core.create(database)
    round_id = core.attempt(database, attempt_id).round_id
    waits = []
    for _ in range(7):
        live = core.live_attempt(database, round_id)
        assert live is not None
        core.make_due(database, live.id)
        core.claim(database, live.id)
        with database.write() as session:
            rounds.fail(session, live.id, "boom", max_attempts=100)
        following = core.live_attempt(database, round_id)
        ended = core.attempt(database, live.id).ended_at
        assert following is not None
        assert ended is not None
        waits.append((following.not_before - ended).total_seconds())
    assert waits == pytest.approx([0, 1, 5, 20, 60, 60, 60], abs=0.2)


def test_a_retry_forgives_what_failed_before(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    with database.write() as session, pytest.raises(StaleState, match="only a failed round"):
        rounds.retry(session, core.attempt(database, attempt_id).round_id, "op")
    give_up(database, attempt_id)
    round_id = core.newest_round(database, experiment_id).id
    with database.write() as session:
        (hint,) = rounds.retry(session, round_id, "op")
    round_ = core.newest_round(database, experiment_id)
    assert (round_.state, round_.error, round_.failed_stage) == (RoundState.COLLECTING, None, None)
    core.claim(database, hint.attempt_id)
    core.fail(database, hint.attempt_id)
    assert core.newest_round(database, experiment_id).state == RoundState.COLLECTING  # one of three, not four
    give_up_again = core.live_attempt(database, round_id)
    assert give_up_again is not None
    assert give_up_again.number == MAX_ATTEMPTS + 2
    core.make_due(database, give_up_again.id)
    core.work(database, give_up_again.id)
    assert core.newest_round(database, experiment_id).forgiven == 0  # the next stage starts afresh


def test_released_attempts_are_no_failures(database: Database) -> None:
    _, attempt_id = core.create(database)
    for _ in range(MAX_ATTEMPTS + 2):
        assert core.claim(database, attempt_id)
        with database.write() as session:
            (hint,) = rounds.release(session, attempt_id, "stopped")
        attempt_id = hint.attempt_id
    core.work(database, attempt_id)


def test_a_lost_hint_is_sent_again_ever_more_seldom(database: Database) -> None:
    _, attempt_id = core.create(database)
    round_id = core.attempt(database, attempt_id).round_id
    assert core.sweep(database, round_id).hints == []
    for hints, wait in [(1, 5), (2, 10), (3, 20), (9, 300), (40, 300)]:
        for early, expected in [(1, []), (-1, [attempt_id])]:
            with database.write() as session:
                hinted_at = now(session) - timedelta(seconds=wait - early)
                values = {"hints": hints, "hinted_at": hinted_at}
                session.execute(update(Attempt).where(Attempt.id == attempt_id).values(**values))
            assert [hint.attempt_id for hint in core.sweep(database, round_id).hints] == expected


# --------------------------------------------------------------------- pauses and endings


def test_a_pause_stops_workers_at_a_checkpoint_and_labelers_at_once(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    core.claim(database, attempt_id)
    stop_early(database, "pause", experiment_id)
    assert beat(database, attempt_id) == rounds.Beat(lost=False, stop=True)
    with database.write() as session:
        (hint,) = rounds.release(session, attempt_id, "paused")
    assert not core.claim(database, hint.attempt_id)
    core.make_due(database, hint.attempt_id)
    assert core.sweep(database, core.attempt(database, attempt_id).round_id) == rounds.Swept()
    assert resume(database, experiment_id) == [hint.attempt_id]
    core.work(database, hint.attempt_id)
    teacher = core.create_labeler(database, "oracle")
    (held,) = core.take(database, experiment_id, teacher)
    stop_early(database, "pause", experiment_id)
    assert core.take(database, experiment_id, teacher) == []
    core.answer(database, teacher, held.comparison_id)  # what was shown is not lost
    assert resume(database, experiment_id) == []
    assert len(core.label_everything(database, experiment_id, teacher)) == 2


def test_a_stage_that_ends_in_a_pause_counts_and_the_next_one_waits(database: Database) -> None:
    experiment_id, round_id = core.to_labeling(database)
    core.label_everything(database, experiment_id, core.create_labeler(database, "oracle"))
    stop_early(database, "pause", experiment_id)
    assert core.close(database, round_id) == []
    assert core.sweep(database, round_id) == rounds.Swept()
    resume(database, experiment_id)
    (reward,) = core.close(database, round_id)
    core.claim(database, reward)
    stop_early(database, "pause", experiment_id)
    (agent,) = core.complete(database, reward)
    assert not core.claim(database, agent)
    assert resume(database, experiment_id) == [agent]
    assert core.claim(database, agent)


def test_a_worker_that_falls_silent_in_a_pause_is_noticed(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    core.claim(database, attempt_id)
    stop_early(database, "pause", experiment_id)
    core.run_out_of_time(database, attempt_id)
    assert core.sweep(database, core.attempt(database, attempt_id).round_id).expired == [attempt_id]


@pytest.mark.parametrize("act", ["abandon", "finish"])
@pytest.mark.parametrize("paused", [False, True])
def test_a_worker_that_ends_after_its_experiment_changes_nothing(
    database: Database, act: str, paused: bool
) -> None:
    experiment_id, attempt_id = core.create(database)
    core.claim(database, attempt_id)
    if paused:
        stop_early(database, "pause", experiment_id)
    stop_early(database, act, experiment_id)
    assert beat(database, attempt_id) == rounds.Beat(lost=True, stop=True)
    with pytest.raises(StaleState, match="is released"):
        core.complete(database, attempt_id)
    round_ = core.newest_round(database, experiment_id)
    assert round_.state == RoundState.COLLECTING
    assert core.sweep(database, round_.id) == rounds.Swept()
    with database.read() as session:
        assert rounds.rounds_to_sweep(session) == []
        assert session.scalar(select(func.count()).select_from(Clip)) == 0


@pytest.mark.parametrize("act", ["abandon", "finish"])
def test_what_has_ended_stays_ended(database: Database, act: str) -> None:
    experiment_id, attempt_id = core.create(database)
    give_up(database, attempt_id)
    stop_early(database, act, experiment_id)
    for again in ("pause", "abandon", "finish"):
        with pytest.raises(StaleState, match="it cannot become"):
            stop_early(database, again, experiment_id)
    with pytest.raises(StaleState):
        resume(database, experiment_id)
    with database.write() as session, pytest.raises(StaleState, match="nothing of it can be retried"):
        rounds.retry(session, core.newest_round(database, experiment_id).id, "op")


def test_pausing_twice_and_resuming_what_runs_is_refused(database: Database) -> None:
    experiment_id, _ = core.create(database)
    with pytest.raises(StaleState):
        resume(database, experiment_id)
    stop_early(database, "pause", experiment_id)
    with pytest.raises(StaleState):
        stop_early(database, "pause", experiment_id)


def test_experiments_do_not_touch_each_other(database: Database) -> None:
    first, attempt_of_first = core.create(database, "first")
    second, attempt_of_second = core.create(database, "second")
    core.claim(database, attempt_of_first)
    core.claim(database, attempt_of_second)
    stop_early(database, "abandon", first)
    core.complete(database, attempt_of_second)
    assert core.experiment(database, second).state == ExperimentState.RUNNING
    assert core.newest_round(database, first).state == RoundState.COLLECTING
    teacher = core.create_labeler(database, "oracle")
    assert core.take(database, first, teacher) == []
    assert len(core.label_everything(database, second, teacher)) == 3
    with database.read() as session:
        assert rounds.rounds_to_sweep(session) == [core.newest_round(database, second).id]


# ------------------------------------------------------------------------------ safeguards


def test_the_database_refuses_a_second_live_attempt_of_a_round(database: Database) -> None:
    experiment_id, _ = core.create(database)
    round_ = core.newest_round(database, experiment_id)
    with database.write() as session:
        moment = now(session)
        session.add(
            Attempt(round_id=round_.id, stage=round_.state, number=2, state="offered", not_before=moment)
        )
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()


def test_a_round_moves_only_from_where_it_was_seen(database: Database) -> None:
    experiment_id, _ = core.create(database)
    with database.write() as session:
        seen = rounds.current_round(session, experiment_id)
        session.execute(
            update(Round).values(version=Round.version + 1), execution_options={"synchronize_session": False}
        )
        with pytest.raises(StaleState, match="no longer collecting"):
            move_round(session, seen, "collected", "test")
