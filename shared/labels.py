"""Comparisons handed out, answers taken: the only writer of leases, preferences and a comparison's count.

An answer is an ordering of the clips: ranks[i] belongs to clip_ids[i], 0 is the best, equal ranks are a tie,
and None means that the clips cannot be compared. Places exist only on the page; they are turned into
ranks by the order that was drawn for the lease, which is stored beside the answer.

On Postgres a comparison's row is locked before it is decided on, and the round's row is share-locked, so a
label set can't be frozen in the middle of an answer or an undo.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import label_statements as sql
from shared.config import ExperimentConfig
from shared.jobs import Artifact, LabelRecord, seed_for
from shared.label_statements import run, to_list, to_moment
from shared.models import Clip, Comparison, Labeler, Preference, Round
from shared.states import ExperimentState, RoundState

HELD, ANSWERED, SKIPPED = "held", "answered", "skipped"
INCOMPARABLE = "incomparable"
LOOKS = 10  # for comparisons that nobody else takes at the same moment; then the labeler asks again


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


@dataclass
class Handed:
    """What a labeler holds now, and where the experiment stands."""

    comparisons: list[Claimed]
    experiment_state: ExperimentState
    round_id: int
    round_state: RoundState
    open_from: int = 0  # the first number that was open, if all were looked at


@dataclass(frozen=True)
class _Terms:
    """What handing out needs of a configuration."""

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


def claim(session: Session, experiment: str, labeler: Labeler, count: int, start: int = 0) -> Handed:
    """Hand out up to `count` comparisons, those the labeler holds already first; renews their leases.

    Nobody else is given a comparison that as many labelers hold or have answered as it wants labels. Looks
    from number `start` on, and at all of them if there are not enough. LabelError if there is no experiment
    of that name.
    """
    newest = run(session, sql.NEWEST_ROUND, name=experiment)
    if not newest:
        raise LabelError("unknown", f"there is no experiment named {experiment[:80]}")
    state, config, round_id, number, round_state, *_ = newest[0]
    handed = Handed([], ExperimentState(state), round_id, RoundState(round_state))
    if (handed.experiment_state, handed.round_state) != (ExperimentState.RUNNING, RoundState.LABELING):
        return handed
    terms = _terms(config)
    whose = {"labeler": labeler.id, "round": round_id}
    clips = {row[0]: to_list(row[1]) for row in run(session, sql.LOCK_HELD, **whose)}
    rows = run(session, sql.RENEW_HELD, terms.lease_s, **whose, count=count) if clips else []
    rows = [row for row in rows if row[0] in clips]  # what another window took since is left to that window
    rows.sort(key=lambda row: list(clips).index(row[0]))
    everywhere = [(sql.OPEN, 0), (sql.RETURNED, 0)]
    for statement, first in [(sql.OPEN, start), *everywhere] if start else everywhere:
        for _ in range(LOOKS):
            wanted = count - len(rows)
            found = run(session, statement, **whose, start=first, count=wanted) if wanted else []
            for comparison_id, place, clip_ids in found:
                clips[comparison_id] = to_list(clip_ids)
                shown = _drawn(terms.seed, number, place, labeler, len(clips[comparison_id]))
                lease = {"comparison": comparison_id, "labeler": labeler.id, "shown": json.dumps(shown)}
                rows += run(session, sql.GRANT, terms.lease_s, **lease)
            if not found:
                break
            if first == 0 and statement is sql.OPEN:
                handed.open_from = handed.open_from or found[0][1]
    for comparison_id, order, expires_at in rows:
        clip_ids = [clips[comparison_id][index] for index in to_list(order)]
        handed.comparisons.append(Claimed(comparison_id, round_id, clip_ids, to_moment(expires_at)))
    return handed


def renew(session: Session, comparison_id: int, labeler: Labeler) -> datetime:
    """Keep a comparison for another lease; LabelError if it is no longer the labeler's."""
    comparison = _lock(session, comparison_id)
    _check_hold(comparison, *_standing_of(session, comparison, labeler)[:4])
    return _hold_on(session, comparison, labeler).expires_at


def skip(session: Session, comparison_id: int, labeler: Labeler) -> None:
    """Give a comparison back unanswered; others get it first, the same labeler when nothing else is left."""
    comparison = _lock(session, comparison_id)
    _check_hold(comparison, *_standing_of(session, comparison, labeler)[:4])
    run(session, sql.GIVE_BACK, comparison=comparison_id, labeler=labeler.id)


def answer(
    session: Session,
    preference_id: str,
    comparison_id: int,
    labeler: Labeler,
    shown_ranks: list[int] | None,
    seconds: float | None = None,
) -> int:
    """Take an answer: `shown_ranks[i]` is the rank of the clip shown at place i; None: cannot be compared.

    The client makes `preference_id`; the same id with the same answer again changes nothing, so resending is
    harmless. LabelError if the comparison is not the labeler's, was answered, or is frozen. Returns the
    round's id.
    """
    comparison = _lock(session, comparison_id)  # before we look: the same answer may be on its way twice
    *hold, existing, of_comparison, of_labeler, stored, order = _standing_of(
        session, comparison, labeler, preference_id
    )
    if existing is not None:
        ranks = None if shown_ranks is None else _ranks_of_clips(shown_ranks, to_list(order))
        if (of_comparison, of_labeler, to_list(stored)) != (comparison_id, labeler.id, ranks):
            raise LabelError("conflict", "an answer with this id, but another content, has been given")
        return comparison.round_id
    shown = _check_hold(comparison, *hold)
    ranks = None if shown_ranks is None else _ranks_of_clips(shown_ranks, shown)
    sql.take(
        session,
        preference=preference_id,
        comparison=comparison_id,
        labeler=labeler.id,
        ranks=None if ranks is None else json.dumps(ranks),
        shown=json.dumps(shown),
        seconds=seconds,
    )
    return comparison.round_id


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


def progress(session: Session, round_id: int) -> tuple[int, int]:
    """Return (labels given, labels wanted) of a round."""
    query = select(func.sum(Comparison.labels_given), func.sum(Comparison.labels_wanted))
    given, wanted = session.execute(query.where(Comparison.round_id == round_id)).one()
    return int(given or 0), int(wanted or 0)


# ---------------------------------------------------------------------------- the parts


@lru_cache(maxsize=256)
def _terms(config: str) -> _Terms:
    """Read a configuration, which never changes."""
    read = ExperimentConfig.model_validate_json(config)
    return _Terms(read.seed, read.labels.lease_s)


def _drawn(seed: int, round_number: int, number: int, labeler: Labeler, clips: int) -> list[int]:
    """Draw the sides from the seed, not from the clock: the same experiment shows the same ones."""
    shown = list(range(clips))
    random.Random(seed_for(seed, "shown", round_number, number, labeler.name)).shuffle(shown)
    return shown


def _lock(session: Session, comparison_id: int) -> _Locked:
    """Lock a comparison; share-lock its round so that it can't be frozen meanwhile."""
    found = run(session, sql.LOCK, comparison=comparison_id)
    if not found:
        raise LabelError("unknown", "there is no such comparison")
    round_id, state, number, given, wanted, clip_ids = found[0]
    return _Locked(comparison_id, round_id, RoundState(state), number, given, wanted, to_list(clip_ids))


def _standing_of(
    session: Session, comparison: _Locked, labeler: Labeler, preference_id: str | None = None
) -> tuple[Any, ...]:
    """Return the row of what has become of a locked comparison."""
    whose = {"comparison": comparison.id, "labeler": labeler.id}
    (row,) = run(session, sql.STANDING, **whose, preference=preference_id)
    return tuple(row)


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
    whose = {"comparison": comparison.id, "labeler": labeler.id}
    run(session, sql.HOLD_ON, _terms(config).lease_s, **whose)
    return _claimed(session, comparison, labeler)


def _claimed(session: Session, comparison: _Locked, labeler: Labeler) -> Claimed:
    """Return a comparison as its labeler sees it."""
    ((shown, expires_at),) = run(session, sql.LEASE, comparison=comparison.id, labeler=labeler.id)
    clip_ids = [comparison.clip_ids[index] for index in to_list(shown)]
    return Claimed(comparison.id, comparison.round_id, clip_ids, to_moment(expires_at))


def _ranks_of_clips(shown_ranks: list[int], shown: list[int]) -> list[int]:
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
