"""Answers taken: with `handing_out.py` the only writer of leases, preferences and a comparison's count.

An answer is an ordering of the clips: ranks[i] belongs to clip_ids[i], 0 is the best, equal ranks are a tie,
and None means that the clips cannot be compared. Places exist only on the page; they are turned into
ranks by the order that was drawn for the lease, which is stored beside the answer.

On Postgres a comparison's row is locked before it is decided on, and the round's row is share-locked, so a
label set can't be frozen in the middle of an answer or an undo.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import label_statements as sql
from shared.config import ExperimentConfig
from shared.jobs import Artifact, LabelRecord
from shared.label_statements import run, to_list, to_moment
from shared.models import Clip, Comparison, Labeler, Preference, Round
from shared.states import RoundState

HELD, ANSWERED, SKIPPED = "held", "answered", "skipped"
INCOMPARABLE = "incomparable"


class LabelError(ValueError):
    """An answer that cannot be taken; `reason` is a short word for programs, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Claimed:
    """A comparison handed to a labeler: the clips as they are to be shown, left to right, row by row."""

    comparison_id: int
    round_id: int
    clip_ids: list[int]
    expires_at: datetime


@dataclass(frozen=True)
class Given:
    """An answer as it comes in: ranks[i] is the rank of the clip at place i; None: cannot be compared."""

    preference_id: str
    comparison_id: int
    labeler: Labeler
    ranks: list[int] | None
    seconds: float | None = None


@dataclass(frozen=True)
class Terms:
    """What leases need of a configuration."""

    seed: int
    lease_s: float


@dataclass(frozen=True)
class _Locked:
    """A comparison that is locked, with its round, which can't be frozen meanwhile."""

    id: int
    round_id: int
    round_state: RoundState
    round_number: int
    labels_given: int
    labels_wanted: int
    clip_ids: list[int]


def renew(session: Session, comparison_id: int, labeler: Labeler) -> datetime:
    """Keep a comparison for another lease; LabelError if it is no longer the labeler's."""
    comparison = _lock(session, comparison_id)
    _check_hold(comparison, *_hold_of(session, comparison_id, labeler))
    return _hold_on(session, comparison, labeler).expires_at


def skip(session: Session, comparison_id: int, labeler: Labeler) -> None:
    """Give a comparison back unanswered; others get it first, the same labeler when nothing else is left."""
    comparison = _lock(session, comparison_id)
    _check_hold(comparison, *_hold_of(session, comparison_id, labeler))
    run(session, sql.GIVE_BACK, comparison=comparison_id, labeler=labeler.id)


def answer(
    session: Session,
    preference_id: str,
    comparison_id: int,
    labeler: Labeler,
    shown_ranks: list[int] | None,
    seconds: float | None = None,
) -> int:
    """Take one answer; LabelError if it cannot be taken. See `answer_all`."""
    given = Given(preference_id, comparison_id, labeler, shown_ranks, seconds)
    (outcome,) = answer_all(session, [given])
    if isinstance(outcome, LabelError):
        raise outcome
    return outcome


def answer_all(session: Session, answers: Sequence[Given]) -> list[int | LabelError]:
    """Take answers; return for each its round's id, or why it was not taken.

    The client makes `preference_id`; the same id with the same answer again changes nothing, so resending is
    harmless. An answer is refused if the comparison is not the labeler's, was answered, or is frozen.
    """
    outcomes: dict[int, int | LabelError] = {}
    for turn in in_turns([one.comparison_id for one in answers]):
        those = [answers[place] for place in turn]
        # Locked before we look: the same answer may be on its way twice.
        locked = _lock_all(session, [one.comparison_id for one in those])
        asked = [
            {"comparison": one.comparison_id, "labeler": one.labeler.id, "preference": one.preference_id}
            for one in those
        ]
        standing = {row[0]: row[1:] for row in run(session, sql.STANDING, these=asked)}
        rows = []
        for place, one in zip(turn, those, strict=True):
            try:
                comparison = _known(locked, one.comparison_id)
                rows += _to_take(one, comparison, standing[one.comparison_id])
                outcomes[place] = comparison.round_id
            except LabelError as refusal:
                outcomes[place] = refusal
        if rows:
            sql.take(session, rows)
    return [outcomes[place] for place in range(len(answers))]


def undo(session: Session, preference_id: str, labeler: Labeler) -> Claimed:
    """Withdraw an answer and hand its comparison back to its labeler; LabelError once the set is frozen."""
    found = run(session, sql.ANSWER, preference=preference_id)
    if not found or found[0][1] != labeler.id:
        raise LabelError("unknown", "there is no such answer of yours")
    comparison = _lock(session, found[0][0])
    ((*_, withdrawn_at),) = run(session, sql.ANSWER, preference=preference_id)
    if withdrawn_at is not None:
        return _claimed(session, comparison, labeler)
    if comparison.round_state != RoundState.LABELING:
        raise LabelError("frozen", "this batch is complete and in training: its answers are final")
    run(session, sql.WITHDRAW, preference=preference_id)
    run(session, sql.DISCOUNT, comparison=comparison.id)
    return _hold_on(session, comparison, labeler)


def complete_at(session: Session, round_id: int, grace_s: float) -> datetime | None:
    """Return when the round's labels are (or were) complete and final, None while some are missing.

    The grace for undoing counts from the last answer that a person gave; teachers need none.
    """
    missing = select(func.count()).where(
        Comparison.round_id == round_id, Comparison.labels_given < Comparison.labels_wanted
    )
    if session.scalars(missing).one() > 0:
        return None
    given = select(func.max(Preference.answered_at)).join(Comparison).join(Labeler)
    given = given.where(Comparison.round_id == round_id, Preference.withdrawn_at.is_(None))
    last_of_people: datetime | None = session.scalar(given.where(Labeler.kind == "person"))
    if last_of_people is not None:
        return last_of_people + timedelta(seconds=grace_s)
    last: datetime | None = session.scalar(given)
    return last


def label_set(session: Session, round_: Round) -> list[LabelRecord]:
    """Return every standing preference up to and including `round_`, in an order that is always the same.

    Answers that say the clips cannot be compared are stored but not trained on, so they are left out.
    """
    rows = [row for row in _standing(session, round_) if row[0].ranks is not None]
    of_experiment = select(Clip).join(Round).where(Round.experiment_id == round_.experiment_id)
    clips = {clip.id: clip for clip in session.scalars(of_experiment.where(Round.number <= round_.number))}
    return [
        LabelRecord(
            clips=[npz_artifact(clips[clip_id]) for clip_id in comparison.clip_ids],
            ranks=preference.ranks or [],
            held_out=comparison.held_out,
            labeler=name,
            round_number=number,
        )
        for preference, comparison, name, number in rows
    ]


def label_set_sha256(session: Session, round_: Round) -> str:
    """Return the sum of the label set by content, so that two runs with equal answers have equal sums."""
    digest = hashlib.sha256()
    for preference, comparison, name, number in _standing(session, round_):
        line = [number, comparison.number, name, preference.ranks, comparison.held_out]
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()


def npz_artifact(clip: Clip) -> Artifact:
    """Return the file of a clip that the reward model sees."""
    return Artifact(kind="clip_npz", key=clip.npz_key, sha256=clip.npz_sha256, size=clip.npz_size)


def missing(session: Session, round_id: int) -> int:
    """Return how many labels a round still lacks."""
    return int(run(session, sql.MISSING, round=round_id)[0][0])


def progress(session: Session, round_id: int) -> tuple[int, int]:
    """Return (labels given, labels wanted) of a round."""
    query = select(func.sum(Comparison.labels_given), func.sum(Comparison.labels_wanted))
    given, wanted = session.execute(query.where(Comparison.round_id == round_id)).one()
    return int(given or 0), int(wanted or 0)


# ---------------------------------------------------------------------------- the parts


@lru_cache(maxsize=256)
def terms_of(config: str) -> Terms:
    """Read a configuration, which never changes."""
    read = ExperimentConfig.model_validate_json(config)
    return Terms(read.seed, read.labels.lease_s)


def in_turns(keys: Sequence[Hashable]) -> list[list[int]]:
    """Split the places of `keys` into turns, in each of which no key occurs twice. Mostly one is enough."""
    seen: Counter[Hashable] = Counter()
    turns: list[list[int]] = []
    for place, key in enumerate(keys):
        if seen[key] == len(turns):
            turns.append([])
        turns[seen[key]].append(place)
        seen[key] += 1
    return turns


def _lock_all(session: Session, comparison_ids: list[int]) -> dict[int, _Locked]:
    """Lock comparisons, those that exist; share-lock their rounds so that they can't be frozen meanwhile."""
    rows = run(session, sql.LOCK, these=[{"comparison": one} for one in comparison_ids])
    return {
        one: _Locked(one, round_id, RoundState(state), number, given, wanted, to_list(clip_ids))
        for one, round_id, state, number, given, wanted, clip_ids in rows
    }


def _lock(session: Session, comparison_id: int) -> _Locked:
    return _known(_lock_all(session, [comparison_id]), comparison_id)


def _known(locked: dict[int, _Locked], comparison_id: int) -> _Locked:
    if comparison_id not in locked:
        raise LabelError("unknown", "there is no such comparison")
    return locked[comparison_id]


def _hold_of(session: Session, comparison_id: int, labeler: Labeler) -> tuple[Any, ...]:
    """Return what `_check_hold` judges of a locked comparison."""
    these = [{"comparison": comparison_id, "labeler": labeler.id, "preference": None}]
    ((_, *standing),) = run(session, sql.STANDING, these=these)
    return tuple(standing[:4])


def _to_take(one: Given, comparison: _Locked, standing: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the row to store of an answer, none if it is stored already; LabelError if it can't be taken."""
    *hold, existing, of_comparison, of_labeler, stored, order = standing
    if existing is not None:
        ranks = None if one.ranks is None else ranks_of_clips(one.ranks, to_list(order))
        if (of_comparison, of_labeler, to_list(stored)) != (one.comparison_id, one.labeler.id, ranks):
            raise LabelError("conflict", "an answer with this id, but another content, has been given")
        return []
    shown = _check_hold(comparison, *hold)
    ranks = None if one.ranks is None else ranks_of_clips(one.ranks, shown)
    whose = {"preference": one.preference_id, "comparison": one.comparison_id, "labeler": one.labeler.id}
    return [whose | {"ranks": ranks, "shown": shown, "seconds": one.seconds}]


def _check_hold(
    comparison: _Locked, state: str | None, shown: Any, expired: bool | None, others: int
) -> list[int]:
    """Return the order in which a comparison is shown to who holds it and has not answered; else LabelError.

    A lease that ran out still counts while nobody else has taken the comparison: a pause loses no answer.
    """
    if state is None:
        raise LabelError("not_yours", "these clips were not given to you")
    if state == ANSWERED:
        raise LabelError("answered", "you have compared these clips already; undo that answer to change it")
    if comparison.round_state != RoundState.LABELING:
        raise LabelError("frozen", "this batch is complete and in training: no more answers are taken")
    if state == SKIPPED:
        raise LabelError("not_yours", "you gave these clips back")
    if comparison.labels_given + (others if expired else 0) >= comparison.labels_wanted:
        raise LabelError("taken", "your hold on these clips ran out and somebody else has them now")
    order: list[int] = to_list(shown)
    return order


def _hold_on(session: Session, comparison: _Locked, labeler: Labeler) -> Claimed:
    """Begin a labeler's lease on a comparison anew."""
    ((config,),) = run(session, sql.CONFIG, round=comparison.round_id)
    lease_s = terms_of(config).lease_s
    run(session, sql.HOLD_ON, comparison=comparison.id, labeler=labeler.id, lease_s=lease_s)
    return _claimed(session, comparison, labeler)


def _claimed(session: Session, comparison: _Locked, labeler: Labeler) -> Claimed:
    """Return a comparison as its labeler sees it."""
    ((shown, expires_at),) = run(session, sql.LEASE, comparison=comparison.id, labeler=labeler.id)
    clip_ids = [comparison.clip_ids[index] for index in to_list(shown)]
    return Claimed(comparison.id, comparison.round_id, clip_ids, to_moment(expires_at))


def ranks_of_clips(shown_ranks: list[int], shown: list[int]) -> list[int]:
    """Turn ranks by place on the page into ranks by clip, closing gaps: [4, 9, 4] becomes [0, 1, 0]."""
    if len(shown_ranks) != len(shown):
        raise LabelError("malformed", f"an answer about {len(shown)} clips needs {len(shown)} ranks")
    order = sorted(set(shown_ranks))
    ranks = [0] * len(shown)
    for place, clip_index in enumerate(shown):
        ranks[clip_index] = order.index(shown_ranks[place])
    return ranks


def _standing(session: Session, round_: Round) -> list[tuple[Preference, Comparison, str, int]]:
    """Return every preference not withdrawn up to `round_`, with comparison, labeler's name, round number."""
    rows: Any = session.execute(
        # Those whose labels were imported count under the name they had: equal answers have equal sums.
        select(Preference, Comparison, func.coalesce(Labeler.imported_as, Labeler.name), Round.number)
        .join(Comparison, Preference.comparison_id == Comparison.id)
        .join(Labeler, Preference.labeler_id == Labeler.id)
        .join(Round, Comparison.round_id == Round.id)
        .where(
            Round.experiment_id == round_.experiment_id,
            Round.number <= round_.number,
            Preference.withdrawn_at.is_(None),
        )
    )
    # Sorted here, because databases do not agree about the order of names.
    return sorted((tuple(row) for row in rows), key=lambda row: (row[3], row[1].number, row[2]))
