"""Comparisons asked beside the labels: practice for newcomers, and repeats of a labeler's own answers.

Nothing here is a label: it stands in a table of its own, which no label set, progress or agreement between
labelers is made from. Both are for people; a teacher needs no practice and answers a repeat as it did before.

Practice is chosen among rounds whose labels are final, so that what others said sways no answer that counts,
and where most people gave the same answer. A repeat is asked as any comparison is, with the clips in another
order than before, at least APART of the labeler's answers later. Neither may hold up a round: a repeat is
only asked while the labeler has a real comparison in hand, and is forgotten when the round is frozen.
"""

import random
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from shared.config import ExperimentConfig
from shared.database import now
from shared.jobs import seed_for
from shared.labels import Claimed, LabelError, ranks_of_clips
from shared.models import Aside, Comparison, Experiment, Labeler, Preference, Round
from shared.states import RoundState

PRACTICE, REPEAT = "practice", "repeat"
OPEN, ANSWERED, SKIPPED = "open", "answered", "skipped"
APART = 3  # answers between the first time and the second; those the page has fetched ahead come on top
LOOKED_AT = 200  # comparisons that practice is chosen from: those with the most answers, the newest first

Said = Counter[tuple[int, ...] | None]  # how often each answer was given to a comparison


@dataclass(frozen=True)
class Terms:
    """What an experiment's configuration says of all this; it never changes."""

    seed: int
    lease_s: float
    practice: int
    repeats: float


@dataclass(frozen=True)
class Practice:
    """Where a newcomer's practice stands: how many are done, of how many, and those left."""

    done: int
    of: int
    comparisons: list[Claimed]


@dataclass(frozen=True)
class Feedback:
    """What most others answered to a practice pair, by place shown, and whether the newcomer did too."""

    others: list[int]
    most: int  # how many gave that answer
    of: int  # how many answered
    agreed: bool


def terms(session: Session, experiment: str | None = None, comparison_id: int | None = None) -> Terms | None:
    """Return the terms of an experiment, found by its name or a comparison of it; None if there is none."""
    query = select(Experiment.config)
    if experiment is not None:
        query = query.where(Experiment.name == experiment)
    else:
        query = query.join(Round).join(Comparison).where(Comparison.id == comparison_id)
    found = session.scalar(query)
    if found is None:
        return None
    config = ExperimentConfig.model_validate(found)
    return Terms(config.seed, config.labels.lease_s, config.labels.practice, config.labels.repeats)


# ------------------------------------------------------------------------------- practice


def practice(session: Session, terms: Terms, experiment_id: int, labeler: Labeler) -> Practice:
    """Return a newcomer's practice, chosen at the first call; nothing for who has answered here already."""
    if not terms.practice or labeler.kind != "person" or _has_answered(session, experiment_id, labeler):
        return Practice(0, 0, [])
    # Locked: two windows of one newcomer may ask at the same moment.
    session.execute(select(Labeler.id).where(Labeler.id == labeler.id).with_for_update())
    planned = _planned(session, experiment_id, labeler)
    if not planned:
        for comparison in _choose(session, experiment_id, labeler, terms.practice):
            shown = list(range(len(comparison.clip_ids)))
            random.Random(seed_for(terms.seed, PRACTICE, comparison.id, labeler.name)).shuffle(shown)
            session.add(_aside(session, PRACTICE, comparison.id, labeler, shown))
        session.flush()
        planned = _planned(session, experiment_id, labeler)
    until = now(session) + timedelta(seconds=terms.lease_s)
    left = [_claimed(*row, until) for row in planned if row[0].state == OPEN]
    return Practice(len(planned) - len(left), len(planned), left)


def answer_practice(
    session: Session,
    answer_id: str,
    comparison_id: int,
    labeler: Labeler,
    shown_ranks: list[int] | None,
    seconds: float | None = None,
) -> Feedback:
    """Take a practice answer and say what others answered; the same one again is told the same."""
    aside, comparison, _ = _find(session, PRACTICE, comparison_id, labeler)
    ranks = _take(session, aside, answer_id, shown_ranks, seconds, is_open=True)
    said = _said(session, [comparison], labeler)[comparison.id]
    majority = _majority(said)
    assert majority is not None, "it was chosen because there is one, and labels of frozen rounds are final"
    others, most = majority
    by_place = [others[index] for index in aside.shown]
    return Feedback(by_place, most, said.total(), ranks == list(others))


def skip_practice(session: Session, experiment_id: int, labeler: Labeler) -> None:
    """Leave out what is left of a newcomer's practice."""
    planned = [aside.id for aside, _, _ in _planned(session, experiment_id, labeler)]
    left = Aside.id.in_(planned) & (Aside.state == OPEN)
    session.execute(update(Aside).where(left).values(state=SKIPPED))


# -------------------------------------------------------------------------------- repeats


def draw_repeat(session: Session, terms: Terms, comparison_id: int, labeler: Labeler) -> None:
    """Decide whether an answer that was just taken is to be asked for once more, later in its round."""
    lot = random.Random(seed_for(terms.seed, REPEAT, comparison_id, labeler.name))
    if lot.random() >= terms.repeats:
        return
    mine = (Preference.comparison_id == comparison_id) & (Preference.labeler_id == labeler.id)
    first = session.scalar(select(Preference.shown).where(mine, Preference.withdrawn_at.is_(None)))
    known = (Aside.comparison_id == comparison_id) & (Aside.labeler_id == labeler.id)
    if first is None or session.scalar(select(Aside.id).where(known, Aside.kind == REPEAT)) is not None:
        return
    shown = list(first)
    while shown == first:
        lot.shuffle(shown)
    session.add(_aside(session, REPEAT, comparison_id, labeler, shown))


def due_repeat(
    session: Session, terms: Terms, comparison_id: int, labeler: Labeler
) -> tuple[Claimed, bool] | None:
    """Return the repeat to ask now of who holds that comparison, and whether they have it in hand already."""
    query = (
        select(Aside, Comparison, Round, Preference.answered_at)
        .join(Comparison, Aside.comparison_id == Comparison.id)
        .join(Round, Comparison.round_id == Round.id)
        .join(
            Preference,
            (Preference.comparison_id == Aside.comparison_id) & (Preference.labeler_id == Aside.labeler_id),
        )
        .where(Aside.labeler_id == labeler.id, Aside.state == OPEN, Aside.kind == REPEAT)
        .where(Comparison.round_id == _round_of(comparison_id), Preference.withdrawn_at.is_(None))
        .order_by(Aside.asked_at.is_(None), Aside.id)
        .limit(1)
    )
    found = session.execute(query).first()
    if found is None:
        return None
    aside, comparison, round_, answered_at = found
    if aside.asked_at is None:
        later = (Preference.labeler_id == labeler.id) & (Preference.answered_at > answered_at)
        given = session.scalars(select(func.count()).where(later, Preference.withdrawn_at.is_(None))).one()
        if given < APART:
            return None
    until = now(session) + timedelta(seconds=terms.lease_s)
    return _claimed(aside, comparison, round_, until), aside.asked_at is not None


def hand_out_repeat(session: Session, comparison_id: int, labeler: Labeler) -> None:
    """Note that a labeler has a repeat in hand from now on."""
    aside, _, _ = _find(session, REPEAT, comparison_id, labeler)
    aside.asked_at = now(session)


def answer_repeat(
    session: Session,
    answer_id: str,
    comparison_id: int,
    labeler: Labeler,
    shown_ranks: list[int] | None,
    seconds: float | None = None,
) -> int:
    """Take the answer to a repeat, on the terms of `labels.answer`; return the round's id."""
    aside, _, round_ = _find(session, REPEAT, comparison_id, labeler)
    _take(session, aside, answer_id, shown_ranks, seconds, round_.state == RoundState.LABELING)
    return round_.id


def renew_repeat(session: Session, comparison_id: int, labeler: Labeler) -> datetime:
    """Say until when a labeler keeps a repeat; nobody else wants it."""
    aside, _, round_ = _find(session, REPEAT, comparison_id, labeler)
    _check_open(aside, round_.state == RoundState.LABELING)
    return _until(session, round_)


def skip_repeat(session: Session, comparison_id: int, labeler: Labeler) -> None:
    """Leave a repeat out for good."""
    aside, _, round_ = _find(session, REPEAT, comparison_id, labeler)
    _check_open(aside, round_.state == RoundState.LABELING)
    aside.state = SKIPPED


def undo_repeat(session: Session, answer_id: str, labeler: Labeler) -> Claimed:
    """Withdraw the answer to a repeat, on the terms of `labels.undo`."""
    query = _asides(REPEAT, labeler).where(Aside.answer_id == answer_id).with_for_update(of=Aside)
    found = session.execute(query).first()
    if found is None:
        raise LabelError("unknown", "there is no such answer of yours")
    aside, comparison, round_ = found
    if aside.state == ANSWERED:
        if round_.state != RoundState.LABELING:
            raise LabelError("frozen", "this batch is complete and in training: its answers are final")
        aside.state, aside.ranks, aside.seconds, aside.answered_at = OPEN, None, None, None
    return _claimed(aside, comparison, round_, _until(session, round_))


def last_repeats(
    session: Session, comparison_id: int, labeler: Labeler, most: int
) -> list[tuple[datetime, Aside, Claimed]]:
    """Return a labeler's last answers to repeats in the round of a comparison, the newest first, and when."""
    query = _asides(REPEAT, labeler).where(Aside.state == ANSWERED)
    query = query.where(Comparison.round_id == _round_of(comparison_id))
    found = session.execute(query.order_by(Aside.answered_at.desc(), Aside.id).limit(most))
    return [(a.answered_at, a, _claimed(a, c, round_, _until(session, round_))) for a, c, round_ in found]


def repeats_answered(session: Session, labeler: Labeler) -> int:
    """Return how many repeats a labeler has answered."""
    mine = (Aside.labeler_id == labeler.id) & (Aside.state == ANSWERED) & (Aside.kind == REPEAT)
    return session.scalars(select(func.count()).where(mine)).one()


# ------------------------------------------------------------------------------ the parts


def _aside(session: Session, kind: str, comparison_id: int, labeler: Labeler, shown: list[int]) -> Aside:
    one = Aside(kind=kind, comparison_id=comparison_id, labeler_id=labeler.id, state=OPEN, shown=shown)
    one.created_at = now(session)
    return one


def _asides(kind: str, labeler: Labeler) -> Any:
    """Return the query of a labeler's asides of a kind, each with its comparison and round."""
    query = select(Aside, Comparison, Round).join(Comparison, Aside.comparison_id == Comparison.id)
    query = query.join(Round, Comparison.round_id == Round.id)
    return query.where(Aside.kind == kind, Aside.labeler_id == labeler.id)


def _planned(session: Session, experiment_id: int, labeler: Labeler) -> list[tuple[Aside, Comparison, Round]]:
    query = _asides(PRACTICE, labeler).where(Round.experiment_id == experiment_id)
    return [tuple(row) for row in session.execute(query.order_by(Aside.id))]


def _find(
    session: Session, kind: str, comparison_id: int, labeler: Labeler
) -> tuple[Aside, Comparison, Round]:
    """Return what was asked of a labeler, locked; LabelError if nothing was."""
    query = _asides(kind, labeler).where(Comparison.id == comparison_id).with_for_update(of=Aside)
    found = session.execute(query).first()
    if found is None:
        raise LabelError("unknown", "there is no such comparison")
    aside, comparison, round_ = found
    return aside, comparison, round_


def _take(
    session: Session,
    aside: Aside,
    answer_id: str,
    shown_ranks: list[int] | None,
    seconds: float | None,
    is_open: bool,
) -> list[int] | None:
    """Store an answer, unless it came before, and return its ranks by clip; LabelError if it can't be."""
    ranks = None if shown_ranks is None else ranks_of_clips(shown_ranks, aside.shown)
    if aside.answer_id == answer_id:  # sent again, or a late copy of what was undone
        if aside.state == ANSWERED and aside.ranks != ranks:
            raise LabelError("conflict", "an answer with this id, but another content, has been given")
        return ranks
    elsewhere = select(Aside.id).where(Aside.answer_id == answer_id)
    if session.get(Preference, answer_id) is not None or session.scalar(elsewhere) is not None:
        raise LabelError("conflict", "an answer with this id, but another content, has been given")
    _check_open(aside, is_open)
    aside.state, aside.answer_id, aside.ranks, aside.seconds = ANSWERED, answer_id, ranks, seconds
    aside.answered_at = now(session)
    return ranks


def _check_open(aside: Aside, is_open: bool) -> None:
    """Raise LabelError if nothing is to be answered, in the words that `labels` has for a comparison."""
    if aside.state == ANSWERED:
        raise LabelError("answered", "you have compared these clips already; undo that answer to change it")
    if not is_open:
        raise LabelError("frozen", "this batch is complete and in training: no more answers are taken")
    if aside.state == SKIPPED:
        raise LabelError("not_yours", "you gave these clips back")


def _claimed(aside: Aside, comparison: Comparison, round_: Round, until: datetime) -> Claimed:
    clip_ids = [comparison.clip_ids[index] for index in aside.shown]
    return Claimed(comparison.id, round_.id, clip_ids, until)


def _until(session: Session, round_: Round) -> datetime:
    """Return when a lease that begins now would end."""
    config = ExperimentConfig.model_validate(round_.experiment.config)
    return now(session) + timedelta(seconds=config.labels.lease_s)


def _round_of(comparison_id: int) -> Any:
    """Return the query of the round that a comparison is of."""
    return select(Comparison.round_id).where(Comparison.id == comparison_id).scalar_subquery()


def _has_answered(session: Session, experiment_id: int, labeler: Labeler) -> bool:
    given = select(Preference.id).join(Comparison).join(Round).where(Round.experiment_id == experiment_id)
    return session.scalar(given.where(Preference.labeler_id == labeler.id).limit(1)) is not None


def _choose(session: Session, experiment_id: int, labeler: Labeler, count: int) -> list[Comparison]:
    """Return comparisons of frozen rounds to which most people gave one answer that prefers a clip."""
    query = (
        select(Comparison)
        .join(Round, Comparison.round_id == Round.id)
        .where(Round.experiment_id == experiment_id, Round.frozen_at.is_not(None))
        .where(Comparison.labels_given > 0)
        .order_by(Comparison.labels_given.desc(), Round.number.desc(), Comparison.number)
        .limit(LOOKED_AT)
    )
    found = list(session.scalars(query))
    said = _said(session, found, labeler)
    agreed = [(one, majority[1]) for one in found if (majority := _majority(said[one.id]))]
    agreed.sort(key=lambda one: one[1], reverse=True)
    return [one for one, _ in agreed[:count]]


def _said(session: Session, comparisons: list[Comparison], labeler: Labeler) -> dict[int, Said]:
    """Return what people other than the labeler answered; teachers know what nobody is to be told."""
    said: dict[int, Said] = {one.id: Counter() for one in comparisons}
    query = select(Preference.comparison_id, Preference.ranks).join(Labeler)
    query = query.where(Preference.comparison_id.in_(said), Preference.withdrawn_at.is_(None))
    for comparison_id, ranks in session.execute(
        query.where(Labeler.kind == "person", Labeler.id != labeler.id)
    ):
        said[comparison_id][None if ranks is None else tuple(ranks)] += 1
    return said


def _majority(said: Said) -> tuple[tuple[int, ...], int] | None:
    """Return the answer that more than half gave, and how many did; None unless it prefers a clip."""
    if not said:
        return None
    ranks, most = said.most_common(1)[0]
    prefers = ranks is not None and len(set(ranks)) > 1
    return (ranks, most) if prefers and ranks is not None and 2 * most > said.total() else None
