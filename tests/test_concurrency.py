"""Many at once: whoever is first wins, nobody wins twice, nothing gets lost, and nobody waits in a circle."""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select, update

from services import worker_loop
from shared import handing_out, labels, rounds
from shared.database import IDLE_S, Database
from shared.handing_out import Wish
from shared.labels import Given, LabelError
from shared.models import Attempt, Comparison, Lease, Preference, StoredArtifact
from shared.states import AttemptState, ExperimentState, RoundState
from shared.transitions import StaleState, lock_round
from tests import core
from tests.conftest import fresh_postgres

REPEATS = 8  # a race has two orders; a few turns see both


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Run `acts` in a thread each, all starting together; return what they return, StaleState for a refusal.

    Any other error, a deadlock or a broken constraint for instance, is raised here.
    """
    barrier = threading.Barrier(len(acts))

    def start(act: Callable[[], Any]) -> Any:
        barrier.wait(30)
        try:
            return act()
        except StaleState:
            return StaleState

    with ThreadPoolExecutor(len(acts)) as pool:
        return [future.result(60) for future in [pool.submit(start, act) for act in acts]]


def expire(database: Database, round_id: int) -> bool:
    return bool(core.sweep(database, round_id).expired)


def end(database: Database, experiment_id: int, rival: str) -> bool:
    with database.write() as session:
        (rounds.abandon if rival == "abandon" else rounds.finish)(session, experiment_id, "op", "enough")
    return True


def test_a_transaction_that_falls_silent_holds_up_nobody_for_long(
    postgres_url: str, postgres_template: str
) -> None:
    """A worker frozen in the middle of one: its locks go, and when it is back it has written nothing."""
    with fresh_postgres(postgres_url, postgres_template) as url:
        database = Database(url)
        experiment_id, attempt_id = core.create(database)
        core.claim(database, attempt_id)
        round_id = core.newest_round(database, experiment_id).id
        frozen = database.write()
        session = frozen.__enter__()
        session.execute(update(Attempt).where(Attempt.id == attempt_id).values(progress=0.7))
        lock_round(session, round_id)
        began = time.monotonic()
        core.run_out_of_time(database, attempt_id)
        assert core.sweep(database, round_id).expired == [attempt_id]
        assert time.monotonic() - began < IDLE_S + 5
        with pytest.raises(worker_loop.DATABASE_ERRORS):
            frozen.__exit__(None, None, None)
        assert core.attempt(database, attempt_id).progress == 0.0
        database.close()


def test_of_eight_workers_exactly_one_gets_an_attempt(database: Database) -> None:
    for turn in range(3):
        experiment_id, attempt_id = core.create(database, f"turn-{turn}")
        claims = at_once(*[lambda attempt_id=attempt_id: core.claim(database, attempt_id)] * 8)
        assert Counter(claims) == {True: 1, False: 7}
        events = [event.event for event in core.events(database, experiment_id)]
        assert events.count("claimed") == 1


def test_of_eight_equal_results_exactly_one_is_taken(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    core.claim(database, attempt_id)
    ends = at_once(*[lambda: core.complete(database, attempt_id)] * 8)
    assert sorted(map(str, ends)) == sorted(map(str, [[], *[StaleState] * 7]))
    assert core.newest_round(database, experiment_id).state == RoundState.LABELING


@pytest.mark.parametrize("rival", ["expire", "abandon", "fail", "finish"])
def test_of_a_result_and_what_takes_it_away_exactly_one_wins(database: Database, rival: str) -> None:
    for turn in range(REPEATS):
        experiment_id, attempt_id = core.create(database, f"turn-{turn}")
        core.claim(database, attempt_id)
        core.run_out_of_time(database, attempt_id)
        round_id = core.attempt(database, attempt_id).round_id

        def take_away() -> bool:
            if rival == "expire":
                return expire(database, round_id)  # noqa: B023 (used within this turn)
            if rival == "fail":
                return bool(core.fail(database, attempt_id))  # noqa: B023
            return end(database, experiment_id, rival)  # noqa: B023

        completed, taken = at_once(lambda: core.complete(database, attempt_id), take_away)  # noqa: B023
        state = core.attempt(database, attempt_id).state
        round_ = core.newest_round(database, experiment_id)
        if completed == []:
            assert state == AttemptState.SUCCEEDED
            assert round_.state == RoundState.LABELING
            assert rival in ("abandon", "finish") or taken in (False, StaleState)
        else:
            assert completed is StaleState
            assert taken is True
            assert state in (AttemptState.EXPIRED, AttemptState.FAILED, AttemptState.RELEASED)
            assert round_.state == RoundState.COLLECTING
        if rival in ("abandon", "finish"):
            assert core.live_attempt(database, round_id) is None


def test_an_experiment_that_ends_leaves_no_attempt_behind(database: Database) -> None:
    for turn in range(REPEATS):
        experiment_id, attempt_id = core.create(database, f"turn-{turn}")
        core.claim(database, attempt_id)
        round_id = core.attempt(database, attempt_id).round_id
        failed, ended = at_once(
            lambda: core.fail(database, attempt_id),  # noqa: B023 (used within this turn); it offers another
            lambda: end(database, experiment_id, "abandon"),  # noqa: B023
        )
        assert ended is True
        assert core.live_attempt(database, round_id) is None
        released = [AttemptState.RELEASED]
        assert core.tries(database, round_id) == (
            released if failed is StaleState else [AttemptState.FAILED, *released]
        )


def test_a_beat_that_is_told_to_go_on_is_not_overtaken_by_an_expiry(database: Database) -> None:
    for turn in range(REPEATS):
        _, attempt_id = core.create(database, f"turn-{turn}")
        core.claim(database, attempt_id)
        core.run_out_of_time(database, attempt_id)
        round_id = core.attempt(database, attempt_id).round_id

        def beat() -> bool:
            with database.write() as session:
                return not rounds.heartbeat(session, attempt_id, core.LEASE_S, 0.1, None).lost  # noqa: B023

        alive, expired = at_once(beat, lambda: expire(database, round_id))  # noqa: B023
        assert alive != expired


def test_two_coordinators_sweep_as_one(database: Database) -> None:
    _, attempt_id = core.create(database)
    core.claim(database, attempt_id)
    core.run_out_of_time(database, attempt_id)
    round_id = core.attempt(database, attempt_id).round_id
    assert sorted(at_once(*[lambda: expire(database, round_id)] * 4)) == [False, False, False, True]
    assert core.tries(database, round_id) == [AttemptState.EXPIRED, AttemptState.OFFERED]


def test_one_name_is_given_to_one_experiment(database: Database) -> None:
    made = at_once(*[lambda: core.create(database)] * 4)
    assert made.count(StaleState) == 3


def test_pause_and_resume_race_without_harm(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)

    def pause() -> bool:
        with database.write() as session:
            rounds.pause(session, experiment_id, "op")
        return True

    results = at_once(pause, pause, lambda: core.claim(database, attempt_id))
    assert results[:2].count(True) == 1
    with database.write() as session:
        rounds.resume(session, experiment_id, "op")
    assert core.experiment(database, experiment_id).state == ExperimentState.RUNNING
    assert results[2] != core.claim(database, attempt_id)  # claimed before the pause, or free after it


# ---------------------------------------------------------------------------------- labels


@pytest.mark.parametrize("wanted", [1, 2])
def test_eight_labelers_share_forty_comparisons(database: Database, wanted: int) -> None:
    options = {"undo_grace_s": 0, "labels_per_comparison": wanted}
    experiment_id, round_id = core.to_labeling(database, comparisons=40, labels=options)
    people = [core.create_labeler(database, f"labeler-{n}") for n in range(8)]

    def take_all(which: int) -> list[int]:
        taken: list[int] = []
        empty = 0
        while empty < 5:  # a comparison that is locked just now is passed over: ask again
            claimed = core.take(database, experiment_id, people[which], len(taken) + 2)
            new = [one.comparison_id for one in claimed if one.comparison_id not in taken]
            taken += new
            empty = 0 if new else empty + 1
        return taken

    taken = at_once(*[lambda which=which: take_all(which) for which in range(8)])
    times = Counter(comparison for one in taken for comparison in one)
    assert set(times.values()) == {wanted}
    assert len(times) == 40
    at_once(
        *[
            lambda which=which: [core.answer(database, people[which], one) for one in taken[which]]
            for which in range(8)
        ]
    )
    assert core.labels_given(database) == [(wanted, wanted, wanted)] * 40
    closed = at_once(*[lambda: core.close(database, round_id)] * 4)
    assert sorted(map(len, closed)) == [0, 0, 0, 1]


def test_three_services_that_each_serve_four_labelers_together_share_all_comparisons(
    database: Database,
) -> None:
    """Each hands out and takes many at once, and though each locks many rows none waits in a circle."""
    options = {"labels_per_comparison": 2}
    experiment_id, _ = core.to_labeling(database, comparisons=30, labels=options)
    name = core.experiment(database, experiment_id).name
    people = [core.create_labeler(database, f"labeler-{n}") for n in range(12)]

    def service(which: int) -> list[Any]:
        mine, outcomes, empty = people[4 * which : 4 * which + 4], [], 0
        while empty < 5:
            with database.write() as session:
                all_handed = handing_out.claim_all(session, name, [Wish(one, 3) for one in mine])
            answers = [
                Given(str(uuid.uuid4()), one.comparison_id, labeler, [1, 0])
                for labeler, handed in zip(mine, all_handed, strict=True)
                for one in handed.comparisons[:2]
            ]
            empty = 0 if answers else empty + 1
            with database.write() as session:
                outcomes += labels.answer_all(session, answers[::-1] if which else answers)
        return outcomes

    outcomes = at_once(*[lambda which=which: service(which) for which in range(3)])
    assert [one for each in outcomes for one in each if isinstance(one, LabelError)] == []
    assert core.labels_given(database) == [(2, 2, 2)] * 30


def test_one_answer_sent_eight_times_at_once_counts_once(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=6)
    ada = core.create_labeler(database, "ada")
    for turn, one in enumerate(core.take(database, experiment_id, ada, 6)):
        given = f"00000000-0000-4000-8000-{turn:012d}"
        send = lambda one=one, given=given: core.answer(database, ada, one.comparison_id, [1, 0], given)  # noqa: E731
        assert at_once(*[send] * 8) == [given] * 8
    assert core.labels_given(database) == [(1, 1, 1)] * 6


def test_one_labeler_in_four_windows_holds_each_comparison_once(database: Database) -> None:
    options = {"labels_per_comparison": 2}
    experiment_id, _ = core.to_labeling(database, comparisons=12, labels=options)
    ada = core.create_labeler(database, "ada")

    def label() -> int:
        given = 0
        for _ in range(12):
            for one in core.take(database, experiment_id, ada, 3):
                with suppress(LabelError):  # another window was faster
                    core.answer(database, ada, one.comparison_id)
                    given += 1
        return given

    assert sum(at_once(*[label] * 4)) == 12
    assert core.labels_given(database) == [(1, 1, 2)] * 12
    with database.read() as session:
        assert len(session.scalars(select(Lease.id)).all()) == 12


def test_answers_undos_and_the_freeze_race_and_every_count_is_right(database: Database) -> None:
    for turn in range(3):
        experiment_id, round_id = core.to_labeling(database, comparisons=6, name=f"turn-{turn}")
        people = [core.create_labeler(database, f"labeler-{turn}-{n}") for n in range(3)]

        def label_and_waver(which: int) -> None:
            labeler = people[which]  # noqa: B023 (used within this turn)
            for step in range(12):
                for one in core.take(database, experiment_id, labeler, 2):  # noqa: B023
                    with suppress(LabelError):
                        given = core.answer(database, labeler, one.comparison_id)
                        if step < 6:
                            core.undo(database, labeler, given)

        def close() -> list[int]:
            hints: list[int] = []
            for _ in range(30):
                hints += core.close(database, round_id)  # noqa: B023
            return hints

        ends = at_once(*[lambda n=n: label_and_waver(n) for n in range(3)], close, close)
        hints = ends[-1] + ends[-2] + core.close(database, round_id)
        with database.read() as session:
            mine = select(Comparison).where(Comparison.round_id == round_id)
            for comparison in session.scalars(mine):
                standing = select(Preference.id).where(Preference.withdrawn_at.is_(None))
                standing = standing.where(Preference.comparison_id == comparison.id)
                assert len(session.scalars(standing).all()) == comparison.labels_given
            round_ = rounds.current_round(session, experiment_id)
            if round_.state == RoundState.TRAINING_REWARD:
                assert len(hints) == 1
                assert labels.progress(session, round_id) == (6, 6)
                assert labels.label_set_sha256(session, round_) == round_.label_set_sha256
            else:
                assert hints == []


def test_the_freeze_and_the_last_undo_exclude_each_other(database: Database) -> None:
    for turn in range(REPEATS):
        experiment_id, round_id = core.to_labeling(database, comparisons=1, name=f"turn-{turn}")
        ada = core.create_labeler(database, f"ada-{turn}")
        (given,) = core.label_everything(database, experiment_id, ada)

        def undo() -> bool:
            try:
                core.undo(database, ada, given)  # noqa: B023 (used within this turn)
            except LabelError:
                return False
            return True

        undone, closed = at_once(undo, lambda: bool(core.close(database, round_id)))  # noqa: B023
        assert undone != closed


def test_a_whole_experiment_with_many_hands(database: Database) -> None:
    """Four workers, two coordinators and two labelers stumble over each other and finish every round once."""
    experiment_id, _ = core.create(database, rounds=2)
    people = [core.create_labeler(database, f"labeler-{n}") for n in range(2)]

    def ended() -> bool:
        return core.experiment(database, experiment_id).state == ExperimentState.FINISHED

    def worker() -> None:
        while not ended():
            live = core.live_attempt(database, core.newest_round(database, experiment_id).id)
            if live is not None and core.claim(database, live.id):
                core.complete(database, live.id)

    def coordinator() -> None:
        while not ended():
            core.sweep(database, core.newest_round(database, experiment_id).id)

    def labeler(which: int) -> None:
        while not ended():
            for one in core.take(database, experiment_id, people[which], 2):
                core.answer(database, people[which], one.comparison_id)

    crew = [worker] * 4 + [coordinator] * 2 + [lambda: labeler(0), lambda: labeler(1)]
    assert at_once(*crew) == [None] * 8
    with database.read() as session:
        found = session.execute(select(StoredArtifact.round_id, StoredArtifact.kind)).all()
        assert len(found) == len(set(found)) == 6
    events = [event.event for event in core.events(database, experiment_id)]
    for once in ("collected", "labeled", "reward_trained", "agent_trained"):
        assert events.count(once) == 2
    assert core.labels_given(database) == [(1, 1, 1)] * 6
