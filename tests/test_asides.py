"""Practice and repeats: what is asked, what is told, and that none of it is a label. On both databases."""

import uuid
from typing import Any

import pytest
from sqlalchemy import select

from services.labeler import handles
from shared import asides, labels
from shared.asides import Feedback, Practice, Terms
from shared.database import Database
from shared.export import aside_lines, preference_lines
from shared.labels import Claimed
from shared.models import Aside, Comparison, Labeler, Preference
from tests import core
from tests.test_labels import label_set, refuse

ASK = {"undo_grace_s": 0, "labels_per_comparison": 3, "practice": 2, "repeats": 0.5}


def terms(**changes: Any) -> Terms:
    return Terms(**{"seed": 1, "lease_s": 60.0, "practice": 2, "repeats": 1.0} | changes)


def practice(database: Database, experiment_id: int, labeler: Labeler, **changes: Any) -> Practice:
    with database.write() as session:
        return asides.practice(session, terms(**changes), experiment_id, labeler)


def rehearse(
    database: Database, labeler: Labeler, comparison_id: int, ranks: list[int] | None, key: str | None = None
) -> Feedback:
    with database.write() as session:
        key = key or str(uuid.uuid4())
        return asides.answer_practice(session, key, comparison_id, labeler, ranks, 1.0)


def draw(database: Database, labeler: Labeler, comparison_id: int, **changes: Any) -> None:
    with database.write() as session:
        asides.draw_repeat(session, terms(**changes), comparison_id, labeler)


def due(database: Database, labeler: Labeler, comparison_id: int) -> Claimed | None:
    with database.read() as session:
        found = asides.due_repeat(session, terms(), comparison_id, labeler)
        assert found is None or not found[1]
        return found[0] if found else None


def repeat(
    database: Database, labeler: Labeler, comparison_id: int, ranks: list[int] | None, key: str | None = None
) -> str:
    key = key or str(uuid.uuid4())
    with database.write() as session:
        asides.answer_repeat(session, key, comparison_id, labeler, ranks, 1.0)
    return key


def shown_best(claimed: Claimed, best: int) -> list[int]:
    """Return the ranks by place that prefer the clip of that id."""
    return [int(clip_id != best) for clip_id in claimed.clip_ids]


def answered_round(database: Database) -> tuple[int, int, list[Labeler], list[int]]:
    """A frozen round of four comparisons with three answers each, and a second one that is being labeled.

    Of the first two comparisons all people prefer the first clip, of the third two of three do, and of the
    fourth they say that it cannot be compared.
    """
    experiment_id, round_id = core.to_labeling(database, comparisons=4, labels=ASK)
    people = [core.create_labeler(database, name, "person") for name in ("ada", "ben", "cleo")]
    with database.read() as session:
        found = {one.id: one for one in session.scalars(select(Comparison).order_by(Comparison.number))}
    for place, labeler in enumerate(people):
        for one in core.take(database, experiment_id, labeler, 4):
            number, first, second = found[one.comparison_id].number, *found[one.comparison_id].clip_ids
            best = second if number == 3 and place == 0 else first
            ranks = None if number == 4 else shown_best(one, best)
            core.answer(database, labeler, one.comparison_id, ranks)
    for _ in range(2):
        (attempt_id,) = core.close(database, round_id) or [core.live_attempt(database, round_id).id]  # type: ignore[union-attr]
        core.work(database, attempt_id)
    collecting = core.live_attempt(database, core.newest_round(database, experiment_id).id)
    assert collecting is not None
    core.work(database, collecting.id, comparisons=8)
    return experiment_id, round_id, people, list(found)


# ------------------------------------------------------------------------------- practice


def test_a_newcomer_practises_what_most_others_agreed_on_and_is_told(database: Database) -> None:
    experiment_id, round_id, (ada, *_), ids = answered_round(database)
    before = label_set(database, round_id)
    dora = core.create_labeler(database, "dora", "person")
    found = practice(database, experiment_id, dora, practice=5)
    assert (found.done, found.of) == (0, 3)
    assert [one.comparison_id for one in found.comparisons] == ids[:3]  # the surest first
    again = practice(database, experiment_id, dora, practice=5)
    assert [one.clip_ids for one in again.comparisons] == [one.clip_ids for one in found.comparisons]
    with database.read() as session:
        firsts = {one.id: one.clip_ids[0] for one in session.scalars(select(Comparison))}
    one, two, three = found.comparisons
    right = shown_best(one, firsts[one.comparison_id])
    key = str(uuid.uuid4())
    for _ in range(2):  # sent again: told again
        told = rehearse(database, dora, one.comparison_id, right, key)
        assert told == Feedback(others=right, most=3, of=3, agreed=True)
    with refuse("conflict"):
        rehearse(database, dora, one.comparison_id, right[::-1], key)
    with refuse("answered"):
        rehearse(database, dora, one.comparison_id, right)
    told = rehearse(database, dora, three.comparison_id, None)
    assert (told.most, told.of, told.agreed) == (2, 3, False)
    left = practice(database, experiment_id, dora)
    assert (left.done, left.of, [one.comparison_id for one in left.comparisons]) == (
        2,
        3,
        [two.comparison_id],
    )
    with refuse("unknown"):
        rehearse(database, ada, two.comparison_id, right)
    with database.write() as session:
        asides.skip_practice(session, experiment_id, dora)
    assert practice(database, experiment_id, dora) == Practice(3, 3, [])
    # None of it is a label.
    assert label_set(database, round_id) == before
    assert core.labels_given(database)[:4] == [(3, 3, 3)] * 4
    with database.read() as session:
        assert session.query(Preference).count() == len(preference_lines(session, experiment_id)) == 12
        kept = aside_lines(session, experiment_id)
    assert [(one["kind"], one["labeler"], one["incomparable"]) for one in kept] == [
        ("practice", "dora", False), ("practice", "dora", True),
    ]  # fmt: skip
    # With a real answer the practice is over for good.
    core.answer(database, dora, core.take(database, experiment_id, dora)[0].comparison_id)
    assert practice(database, experiment_id, dora) == Practice(0, 0, [])


def test_without_anything_to_compare_with_there_is_no_practice(database: Database) -> None:
    nothing = Practice(0, 0, [])
    experiment_id, _ = core.to_labeling(database, comparisons=2, labels=ASK)
    ada = core.create_labeler(database, "ada", "person")
    assert practice(database, experiment_id, ada) == nothing
    core.label_everything(database, experiment_id, ada)
    ben = core.create_labeler(database, "ben", "person")
    assert (
        practice(database, experiment_id, ben) == nothing
    )  # a round that is still open tells nobody anything
    other_id, *_ = answered_round_of_teachers(database)
    assert practice(database, other_id, ben) == nothing  # nor does anybody learn what teachers know
    assert practice(database, other_id, core.create_labeler(database, "oracle-2")) == nothing
    assert practice(database, other_id, ben, practice=0) == nothing


def answered_round_of_teachers(database: Database) -> tuple[int, int]:
    experiment_id, round_id = core.to_labeling(database, comparisons=2, name="taught")
    core.label_everything(database, experiment_id, core.create_labeler(database, "oracle"))
    core.close(database, round_id)
    return experiment_id, round_id


# -------------------------------------------------------------------------------- repeats


def test_a_repeat_comes_later_the_other_way_round_and_is_no_label(database: Database) -> None:
    labels_ = {"undo_grace_s": 0, "repeats": 0.5}
    experiment_id, round_id = core.to_labeling(database, comparisons=8, labels=labels_)
    ada = core.create_labeler(database, "ada", "person")
    held = core.take(database, experiment_id, ada, 8)
    first, others, last = held[0], held[1 : 1 + asides.APART], held[-1].comparison_id
    given = core.answer(database, ada, first.comparison_id, [0, 1])
    for _ in range(2):  # the same answer may be sent twice
        draw(database, ada, first.comparison_id)
    assert due(database, ada, last) is None  # too soon
    for one in others:
        assert due(database, ada, last) is None
        core.answer(database, ada, one.comparison_id)
    again = due(database, ada, last)
    assert again is not None
    assert again.comparison_id == first.comparison_id
    assert again.clip_ids == first.clip_ids[::-1]
    standing, sums = core.labels_given(database), label_set(database, round_id)
    key = repeat(database, ada, first.comparison_id, [1, 0])
    assert repeat(database, ada, first.comparison_id, [5, 2], key) == key  # the same ordering, sent again
    with refuse("conflict"):
        repeat(database, ada, first.comparison_id, [0, 1], key)
    with refuse("conflict"):  # an id that a label has
        repeat(database, ada, first.comparison_id, [0, 1], given)
    with refuse("answered"):
        repeat(database, ada, first.comparison_id, [0, 1])
    assert due(database, ada, last) is None
    assert (core.labels_given(database), label_set(database, round_id)) == (standing, sums)
    with database.read() as session:
        assert labels.progress(session, round_id) == (1 + asides.APART, 8)
        (line,) = aside_lines(session, experiment_id)
        (first_line,) = [one for one in preference_lines(session, experiment_id) if one["id"] == given]
    assert (line["kind"], line["ranks"], line["comparison"]) == ("repeat", first_line["ranks"], 1)
    assert line["shown"] == first_line["shown"][::-1]
    # Undone, it is asked again; a late copy of what was undone changes nothing.
    with database.write() as session:
        assert asides.undo_repeat(session, key, ada).clip_ids == again.clip_ids
        assert asides.undo_repeat(session, key, ada).clip_ids == again.clip_ids
    repeat(database, ada, first.comparison_id, [1, 0], key)
    assert due(database, ada, last) is not None
    repeat(database, ada, first.comparison_id, [0, 0])
    with database.read() as session:
        assert [one["ranks"] for one in aside_lines(session, experiment_id)] == [[0, 0]]


def test_a_repeat_ends_with_its_round_or_with_the_answer_it_repeats(database: Database) -> None:
    experiment_id, round_id = core.to_labeling(database, comparisons=6, labels={"undo_grace_s": 0})
    ada, ben = (core.create_labeler(database, name, "person") for name in ("ada", "ben"))
    held = core.take(database, experiment_id, ada, 6)
    given = [core.answer(database, ada, one.comparison_id) for one in held[:5]]
    for one in held[:5]:
        draw(database, ada, one.comparison_id, repeats=0.0)
    last = held[-1].comparison_id
    assert due(database, ada, last) is None
    draw(database, ada, held[0].comparison_id)
    draw(database, ben, held[0].comparison_id)  # who has not answered it is not asked again
    draw(database, ada, last)
    core.undo(database, ada, given[0])
    assert due(database, ada, last) is None
    core.answer(database, ada, held[0].comparison_id)
    assert due(database, ada, last) is None  # it was answered anew just now
    with database.read() as session:
        assert session.query(Aside).count() == 1
    with database.write() as session:
        assert asides.renew_repeat(session, held[0].comparison_id, ada)
    for act in (asides.renew_repeat, asides.skip_repeat):
        with refuse("unknown"), database.write() as session:
            act(session, held[0].comparison_id, ben)
    core.answer(database, ada, last)
    core.close(database, round_id)
    for act in (asides.renew_repeat, asides.skip_repeat):
        with refuse("frozen"), database.write() as session:
            act(session, held[0].comparison_id, ada)
    with refuse("frozen"):
        repeat(database, ada, held[0].comparison_id, [0, 1])


# -------------------------------------------------------------------------------- handles


@pytest.mark.parametrize("labeler_id", [1, 2, 4711])
def test_a_handle_leads_back_to_its_comparison_and_tells_nothing(labeler_id: int) -> None:
    asked = [(number, again) for number in range(1, 400) for again in (False, True)]
    asked += [(2**29 - 1, again) for again in (False, True)]
    found = [handles.seal(labeler_id, *one) for one in asked]
    assert [handles.opened(labeler_id, one) for one in found] == asked
    assert len(set(found)) == len(found)
    assert all(handles.SEALED <= one < 2**31 for one in found)
    firsts = sorted(found[0:-2:2])
    below = sum(firsts[0] <= one <= firsts[-1] for one in found[1:-2:2])
    assert below > 390  # repeats lie among the others
    assert handles.opened(labeler_id, 17) == (17, False)
    assert handles.seal(labeler_id, 1, False) != handles.seal(labeler_id + 1, 1, False)
