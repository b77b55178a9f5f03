"""Comparisons handed out, answers taken, undone and frozen, one rule a test, on both databases."""

import random
import uuid
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from shared import labels, rounds
from shared.database import Database, now
from shared.labels import LabelError
from shared.models import Comparison, Labeler, Lease, Preference, Round
from shared.states import RoundState
from tests import core


def skip(database: Database, labeler: Labeler, comparison_id: int) -> None:
    with database.write() as session:
        labels.skip(session, comparison_id, labeler)


def renew(database: Database, labeler: Labeler, comparison_id: int) -> None:
    with database.write() as session:
        labels.renew(session, comparison_id, labeler)


def lease(database: Database, labeler: Labeler, comparison_id: int) -> Lease:
    with database.read() as session:
        query = select(Lease).where(Lease.comparison_id == comparison_id, Lease.labeler_id == labeler.id)
        return session.scalars(query).one()


def preference(database: Database, preference_id: str) -> Preference:
    with database.read() as session:
        return session.get_one(Preference, preference_id)


def refuse(reason: str) -> "pytest.RaisesExc[LabelError]":
    """Expect a LabelError of that reason."""
    return pytest.RaisesExc(LabelError, check=lambda error: error.reason == reason)


def label_set(database: Database, round_id: int) -> tuple[list[tuple[list[int], str, bool]], str]:
    """Return the label set, briefly, and its sum."""
    with database.read() as session:
        round_ = session.get_one(Round, round_id)
        records = labels.label_set(session, round_)
        return [(r.ranks, r.labeler, r.held_out) for r in records], labels.label_set_sha256(session, round_)


# ------------------------------------------------------------------------------ handing out


def test_two_labelers_never_hold_the_same_comparison(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=3)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    of_ada = core.take(database, experiment_id, ada, 2)
    of_ben = core.take(database, experiment_id, ben, 2)
    assert [len(of_ada), len(of_ben)] == [2, 1]
    assert len({one.comparison_id for one in of_ada + of_ben}) == 3
    assert len(set(of_ada[0].clip_ids)) == 2


def test_asking_again_gives_what_is_held_and_renews_what_is_a_third_over(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database)
    first = core.take(database, experiment_id, ada := core.create_labeler(database, "ada"), 2)
    for one, age_s in zip(first, (35, 45), strict=True):  # of the default lease, 120 s
        core.age_lease(database, one.comparison_id, ada, timedelta(seconds=age_s))
    again = core.take(database, experiment_id, ada, 3)
    assert [one.clip_ids for one in again[:2]] == [one.clip_ids for one in first]
    assert again[0].expires_at == first[0].expires_at - timedelta(seconds=35)
    assert again[1].expires_at > first[1].expires_at
    assert len(core.take(database, experiment_id, ada, 1)) == 1


def test_nothing_is_handed_out_unless_a_round_is_being_labeled(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    ada = core.create_labeler(database, "ada")
    assert core.take(database, experiment_id, ada) == []
    core.work(database, attempt_id)
    core.label_everything(database, experiment_id, ada)
    core.close(database, core.newest_round(database, experiment_id).id)
    assert core.take(database, experiment_id, ada) == []


def test_sides_are_drawn_from_the_seed_and_not_always_the_same(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=20)
    other_id, _ = core.to_labeling(database, comparisons=20, name="other")
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    sides = []
    for experiment, labeler in ((experiment_id, ada), (other_id, ada)):
        claimed = core.take(database, experiment, labeler, 20)
        sides.append([lease(database, labeler, one.comparison_id).shown for one in claimed])
    assert sides[0] == sides[1]  # the same seed, rounds and name
    assert 3 < sum(shown == [0, 1] for shown in sides[0]) < 17
    for one in core.take(database, experiment_id, ada, 20):
        core.run_out_of_lease(database, one.comparison_id, ada)
    others = core.take(database, experiment_id, ben, 20)
    assert [lease(database, ben, one.comparison_id).shown for one in others] != sides[0]


def test_a_skipped_comparison_goes_to_others_first_and_comes_back_last(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=3)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    (first,) = core.take(database, experiment_id, ada)
    skip(database, ada, first.comparison_id)
    with refuse("not_yours"):
        core.answer(database, ada, first.comparison_id)
    order = [one.comparison_id for one in core.take(database, experiment_id, ada, 10)]
    assert order[-1] == first.comparison_id
    assert len(order) == 3
    skip(database, ada, first.comparison_id)
    (given,) = core.take(database, experiment_id, ben)
    assert given.comparison_id == first.comparison_id
    core.answer(database, ben, first.comparison_id)
    assert len(core.take(database, experiment_id, ada, 10)) == 2


def test_several_labels_of_one_comparison_come_from_several_labelers(database: Database) -> None:
    wanted = {"undo_grace_s": 0, "labels_per_comparison": 2}
    experiment_id, round_id = core.to_labeling(database, comparisons=2, labels=wanted)
    ada, ben, cleo = (core.create_labeler(database, name) for name in ("ada", "ben", "cleo"))
    assert len(core.label_everything(database, experiment_id, ada)) == 2
    assert core.close(database, round_id) == []
    assert len(core.take(database, experiment_id, ben, 10)) == 2
    assert core.take(database, experiment_id, cleo, 10) == []  # ada's answers and ben's holds are enough
    assert len(core.label_everything(database, experiment_id, ben)) == 2
    assert core.labels_given(database) == [(2, 2, 2)] * 2
    with database.read() as session:
        assert labels.progress(session, round_id) == (4, 4)
    assert len(core.close(database, round_id)) == 1


# ---------------------------------------------------------------------------------- leases


def test_a_lease_that_ran_out_is_given_to_the_next(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=1)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    (one,) = core.take(database, experiment_id, ada)
    assert core.take(database, experiment_id, ben) == []
    core.run_out_of_lease(database, one.comparison_id, ada)
    assert len(core.take(database, experiment_id, ben)) == 1
    for act in (core.answer, renew, skip):
        with refuse("taken"):
            act(database, *((ada, one.comparison_id)))
    core.answer(database, ben, one.comparison_id)
    with refuse("taken"):
        core.answer(database, ada, one.comparison_id)
    assert core.labels_given(database) == [(1, 1, 1)]


def test_a_late_answer_counts_while_nobody_else_has_the_comparison(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=1)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    (one,) = core.take(database, experiment_id, ada)
    core.run_out_of_lease(database, one.comparison_id, ada)
    core.take(database, experiment_id, ben)
    core.run_out_of_lease(database, one.comparison_id, ben)  # both held it, neither holds it now
    core.answer(database, ada, one.comparison_id)
    with refuse("taken"):
        core.answer(database, ben, one.comparison_id)


def test_renewing_keeps_a_comparison(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=1)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    (one,) = core.take(database, experiment_id, ada)
    core.run_out_of_lease(database, one.comparison_id, ada)
    renew(database, ada, one.comparison_id)
    assert core.take(database, experiment_id, ben) == []
    with refuse("not_yours"):
        renew(database, ben, one.comparison_id)


# --------------------------------------------------------------------------------- answers


def test_an_answer_by_place_is_stored_by_clip(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=12)
    ada = core.create_labeler(database, "ada")
    shown_orders = set()
    for one in core.take(database, experiment_id, ada, 12):
        given = preference(database, core.answer(database, ada, one.comparison_id, [0, 1]))
        with database.read() as session:
            clip_ids = session.get_one(Comparison, one.comparison_id).clip_ids
        assert given.ranks is not None
        assert dict(zip(clip_ids, given.ranks, strict=True)) == {one.clip_ids[0]: 0, one.clip_ids[1]: 1}
        assert (given.shown, given.seconds) == (lease(database, ada, one.comparison_id).shown, 1.5)
        shown_orders.add(tuple(given.shown))
    assert len(shown_orders) == 2


@pytest.mark.parametrize(
    ("shown", "stored"),
    [([0, 1, 2], [0, 1, 2]), ([0, 0, 0], [0, 0, 0]), ([4, 9, 4], [0, 1, 0]), ([-3, 7, 100], [0, 1, 2])],
)
def test_three_clips_are_ranked_with_ties_and_without_gaps(
    database: Database, shown: list[int], stored: list[int]
) -> None:
    experiment_id, round_id = core.to_labeling(database, comparisons=1, clips=3)
    ada = core.create_labeler(database, "ada")
    (one,) = core.take(database, experiment_id, ada)
    given = preference(database, core.answer(database, ada, one.comparison_id, shown))
    assert given.ranks is not None
    assert [given.ranks[index] for index in given.shown] == stored
    (record,) = label_set(database, round_id)[0]
    assert record[0] == given.ranks


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_whatever_order_is_given_its_clips_keep_it(given_ranks: list[int], draw: random.Random) -> None:
    shown = draw.sample(range(len(given_ranks)), len(given_ranks))
    stored = labels.ranks_of_clips(given_ranks, shown)
    assert sorted(set(stored)) == list(range(max(stored) + 1))
    for one, other in product(range(len(shown)), repeat=2):
        before = stored[shown[one]] < stored[shown[other]]
        assert before == (given_ranks[one] < given_ranks[other])


@pytest.mark.parametrize("ranks", [[], [0], [0, 1, 2]])
def test_an_answer_about_another_number_of_clips_is_malformed(database: Database, ranks: list[int]) -> None:
    experiment_id, _ = core.to_labeling(database)
    ada = core.create_labeler(database, "ada")
    (one,) = core.take(database, experiment_id, ada)
    with refuse("malformed"):
        core.answer(database, ada, one.comparison_id, ranks)
    core.answer(database, ada, one.comparison_id)


def test_sending_an_answer_again_changes_nothing(database: Database) -> None:
    experiment_id, round_id = core.to_labeling(database, comparisons=1)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    (one,) = core.take(database, experiment_id, ada)
    given = core.answer(database, ada, one.comparison_id, [1, 0])
    first = preference(database, given)
    core.answer(database, ada, one.comparison_id, [1, 0], given)
    core.answer(database, ada, one.comparison_id, [9, 2], given)  # the same ordering
    for labeler, ranks in [(ada, [0, 1]), (ada, None), (ben, [1, 0])]:
        with refuse("conflict"):
            core.answer(database, labeler, one.comparison_id, ranks, given)
    with refuse("answered"):
        core.answer(database, ada, one.comparison_id, [1, 0])  # another id is another answer
    core.close(database, round_id)
    core.answer(database, ada, one.comparison_id, [1, 0], given)  # even when it is frozen
    assert preference(database, given).answered_at == first.answered_at
    assert core.labels_given(database) == [(1, 1, 1)]


def test_an_id_is_good_for_one_comparison(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database)
    ada = core.create_labeler(database, "ada")
    one, two, _ = core.take(database, experiment_id, ada, 3)
    given = core.answer(database, ada, one.comparison_id)
    with refuse("conflict"):
        core.answer(database, ada, two.comparison_id, [0, 1], given)


def test_what_was_not_given_cannot_be_answered(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    (one,) = core.take(database, experiment_id, ada)
    for act in (core.answer, renew, skip):
        with refuse("not_yours"):
            act(database, *((ben, one.comparison_id)))
        with refuse("unknown"):
            act(database, *((ada, 999)))


def test_an_answer_to_a_frozen_set_is_refused(database: Database) -> None:
    experiment_id, round_id = core.to_labeling(database, comparisons=1)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    (one,) = core.take(database, experiment_id, ada)
    core.run_out_of_lease(database, one.comparison_id, ada)
    core.take(database, experiment_id, ben)
    core.answer(database, ben, one.comparison_id)
    core.close(database, round_id)
    with refuse("frozen"):
        core.answer(database, ada, one.comparison_id)


# ------------------------------------------------------------------------------------ undo


def test_an_undone_answer_is_kept_but_counts_no_more(database: Database) -> None:
    experiment_id, round_id = core.to_labeling(database, comparisons=1)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    (one,) = core.take(database, experiment_id, ada)
    given = core.answer(database, ada, one.comparison_id, [1, 0])
    with refuse("unknown"):
        core.undo(database, ben, given)
    with refuse("unknown"):
        core.undo(database, ada, str(uuid.uuid4()))
    core.undo(database, ada, given)
    core.undo(database, ada, given)  # again: harmless
    assert core.labels_given(database) == [(0, 0, 1)]
    assert core.close(database, round_id) == []
    assert core.take(database, experiment_id, ben) == []  # it is ada's again
    assert preference(database, given).withdrawn_at is not None
    core.answer(database, ada, one.comparison_id, [1, 0], given)  # a late copy of what was undone
    assert core.labels_given(database) == [(0, 0, 1)]
    core.answer(database, ada, one.comparison_id, [0, 1])
    core.undo(database, ada, given)  # a late copy of the undo
    assert core.labels_given(database) == [(1, 1, 1)]
    assert label_set(database, round_id)[0] == [
        ([0, 1] if lease(database, ada, one.comparison_id).shown == [0, 1] else [1, 0], "ada", True)
    ]


def test_a_frozen_answer_cannot_be_undone(database: Database) -> None:
    experiment_id, round_id = core.to_labeling(database)
    ada = core.create_labeler(database, "ada")
    given = core.label_everything(database, experiment_id, ada)
    core.close(database, round_id)
    with refuse("frozen"):
        core.undo(database, ada, given[0])
    assert core.newest_round(database, experiment_id).state == RoundState.TRAINING_REWARD


@pytest.mark.parametrize(("kind", "waits"), [("person", True), ("teacher", False)])
def test_a_person_has_a_grace_to_undo_in_and_a_teacher_needs_none(
    database: Database, kind: str, waits: bool
) -> None:
    experiment_id, round_id = core.to_labeling(database, labels={"undo_grace_s": 5})
    labeler = core.create_labeler(database, "ada", kind)
    given = core.label_everything(database, experiment_id, labeler)
    assert core.sweep(database, round_id).frozen == ([] if waits else [round_id])
    if waits:
        core.undo(database, labeler, given[0])
        core.label_everything(database, experiment_id, labeler)
        with database.write() as session:
            long_ago = now(session) - timedelta(seconds=5.1)
            session.execute(update(Preference).where(Preference.id != given[0]).values(answered_at=long_ago))
        swept = core.sweep(database, round_id)
        assert (swept.frozen, [hint.queue for hint in swept.hints]) == ([round_id], ["reward_trainer"])
    frozen = core.newest_round(database, experiment_id)
    assert frozen.frozen_at is not None
    assert frozen.label_set_sha256 == label_set(database, round_id)[1]


# ------------------------------------------------------------------------------- label set


def test_the_label_set_does_not_depend_on_the_order_of_arrival(database: Database) -> None:
    wanted = {"undo_grace_s": 0, "labels_per_comparison": 2}
    names = ["Zoe", "ada"]  # databases sort capitals differently
    sums = []
    for turn, order in enumerate([(0, 1), (1, 0)]):
        name = f"turn-{turn}"
        experiment_id, round_id = core.to_labeling(database, comparisons=4, labels=wanted, name=name)
        if turn == 0:
            labelers = [core.create_labeler(database, name) for name in names]
        for which in order:
            claimed = core.take(database, experiment_id, labelers[which], 10)
            for one in claimed if turn == 0 else reversed(claimed):
                shown = lease(database, labelers[which], one.comparison_id).shown
                core.answer(database, labelers[which], one.comparison_id, shown)
        sums.append(label_set(database, round_id))
    assert sums[0] == sums[1]
    assert [labeler for _, labeler, _ in sums[0][0]] == names * 4


def test_what_cannot_be_compared_is_summed_but_not_trained_on(database: Database) -> None:
    experiment_id, round_id = core.to_labeling(database, comparisons=2)
    ada = core.create_labeler(database, "ada")
    one, two = core.take(database, experiment_id, ada, 2)
    core.answer(database, ada, one.comparison_id, None)
    given = core.answer(database, ada, two.comparison_id, [0, 0])
    records, before = label_set(database, round_id)
    assert records == [([0, 0], "ada", False)]
    with database.read() as session:
        assert session.scalars(select(Preference.id).where(Preference.ranks.is_(None))).all() != []
    core.undo(database, ada, given)
    core.answer(database, ada, two.comparison_id, None)
    assert label_set(database, round_id)[0] == []
    assert label_set(database, round_id)[1] != before
    assert len(core.close(database, round_id)) == 1


def test_later_labels_do_not_change_an_earlier_label_set(database: Database) -> None:
    experiment_id, first = core.to_labeling(database)
    ada = core.create_labeler(database, "ada")
    core.label_everything(database, experiment_id, ada)
    (reward,) = core.close(database, first)
    frozen = core.newest_round(database, experiment_id).label_set_sha256
    (agent,) = core.work(database, reward)
    (collecting,) = core.work(database, agent)
    core.work(database, collecting)
    core.label_everything(database, experiment_id, ada)
    second = core.newest_round(database, experiment_id).id
    assert second != first
    assert label_set(database, first)[1] == frozen
    assert len(label_set(database, second)[0]) == 6
    with database.read() as session:
        assert rounds.rounds_to_sweep(session) == [second]
