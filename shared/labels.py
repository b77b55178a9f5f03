"""Comparisons handed out, answers taken: the only writer of leases, preferences and a comparison's count.

An answer is an ordering of the clips: ranks[i] belongs to clip_ids[i], 0 is the best, equal ranks are a tie,
and None means that the clips cannot be compared. Left and right exist only on the page; they are turned into
ranks by the order that was drawn for the lease, which is stored beside the answer.

On Postgres a comparison's row is locked before it is decided on, and the round's row is share-locked, so a
label set can't be frozen in the middle of an answer or an undo.
"""

import hashlib
import json
import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.config import ExperimentConfig
from shared.database import now
from shared.jobs import Artifact, LabelRecord, seed_for
from shared.models import Clip, Comparison, Experiment, Labeler, Lease, Preference, Round
from shared.states import ExperimentState, RoundState

HELD, ANSWERED, SKIPPED = "held", "answered", "skipped"
INCOMPARABLE = "incomparable"


class LabelError(ValueError):
    """An answer that cannot be taken; `reason` is a short word for programs, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Claimed:
    """A comparison handed to a labeler: the clips in the order they are to be shown, left to right."""

    comparison_id: int
    round_number: int
    clip_ids: list[int]
    steps: list[int]
    fps: float
    expires_at: datetime


def claim(session: Session, experiment: Experiment, labeler: Labeler, count: int) -> list[Claimed]:
    """Hand out up to `count` comparisons, those the labeler holds already first; renews their leases.

    Nobody else is given a comparison that as many labelers hold or have answered as it wants labels.
    """
    query = select(Round).where(Round.experiment_id == experiment.id, Round.state == RoundState.LABELING)
    round_ = session.scalars(query.with_for_update(read=True, of=Round)).one_or_none()
    if round_ is None or experiment.state != ExperimentState.RUNNING:
        return []
    config = ExperimentConfig.model_validate(experiment.config)
    held = select(Lease).join(Comparison).where(Lease.labeler_id == labeler.id, Lease.state == HELD)
    held = held.where(Comparison.round_id == round_.id).order_by(Comparison.number)
    # Locked before we look at the clock, or what is renewed here might just have been given to somebody else.
    session.scalars(held.with_for_update(key_share=True, of=Comparison)).all()
    moment = now(session)
    until = moment + timedelta(seconds=config.labels.lease_s)
    fresh = held.where(Lease.expires_at > moment).limit(count).execution_options(populate_existing=True)
    mine = list(session.scalars(fresh))
    for lease in mine:
        lease.expires_at = until
    if len(mine) < count:
        for comparison in _open_comparisons(session, round_, labeler, moment, count - len(mine)):
            mine.append(_lease(session, comparison, round_, labeler, moment, until))
    return [_claimed(session, lease, round_.number) for lease in mine]


def renew(session: Session, comparison_id: int, labeler: Labeler) -> datetime:
    """Keep a comparison for another lease; LabelError if it is no longer the labeler's."""
    _, round_, lease = _held(session, comparison_id, labeler)
    config = ExperimentConfig.model_validate(round_.experiment.config)
    lease.expires_at = now(session) + timedelta(seconds=config.labels.lease_s)
    return lease.expires_at


def skip(session: Session, comparison_id: int, labeler: Labeler) -> None:
    """Give a comparison back unanswered; others get it first, the same labeler when nothing else is left."""
    _, _, lease = _held(session, comparison_id, labeler)
    lease.state, lease.expires_at = SKIPPED, now(session)


def answer(
    session: Session,
    preference_id: str,
    comparison_id: int,
    labeler: Labeler,
    shown_ranks: list[int] | None,
    seconds: float | None = None,
) -> Preference:
    """Take an answer: `shown_ranks[i]` is the rank of the clip shown at place i; None: cannot be compared.

    The client makes `preference_id`; the same id with the same answer again changes nothing, so resending is
    harmless. LabelError if the comparison is not the labeler's, was answered, or is frozen.
    """
    _locked(session, comparison_id)  # before we look: the same answer may be on its way twice at once
    existing = session.get(Preference, preference_id)
    if existing is not None:
        return _same_answer(existing, comparison_id, labeler, shown_ranks)
    comparison, _, lease = _held(session, comparison_id, labeler)
    ranks = None if shown_ranks is None else _ranks_of_clips(shown_ranks, lease.shown)
    preference = Preference(id=preference_id, comparison_id=comparison_id, labeler_id=labeler.id, ranks=ranks)
    preference.shown, preference.seconds, preference.answered_at = lease.shown, seconds, now(session)
    session.add(preference)
    comparison.labels_given += 1
    lease.state = ANSWERED
    session.flush()
    return preference


def undo(session: Session, preference_id: str, labeler: Labeler) -> Comparison:
    """Withdraw an answer and hand its comparison back to its labeler; LabelError once the set is frozen."""
    preference = session.get(Preference, preference_id)
    if preference is None or preference.labeler_id != labeler.id:
        raise LabelError("unknown", "there is no such answer of yours")
    comparison, round_ = _locked(session, preference.comparison_id)
    session.refresh(preference)
    if preference.withdrawn_at is not None:
        return comparison
    if round_.state != RoundState.LABELING:
        raise LabelError("frozen", "this batch is complete and in training: its answers are final")
    config = ExperimentConfig.model_validate(round_.experiment.config)
    moment = now(session)
    preference.withdrawn_at = moment
    comparison.labels_given -= 1
    lease = _lease_of(session, comparison.id, labeler)
    assert lease is not None
    lease.state, lease.expires_at = HELD, moment + timedelta(seconds=config.labels.lease_s)
    session.flush()
    return comparison


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


def _open_comparisons(
    session: Session, round_: Round, labeler: Labeler, moment: datetime, count: int
) -> list[Comparison]:
    """Lock and return up to `count` comparisons that want a label and that this labeler may give one."""
    settled = select(Lease.comparison_id).where(Lease.labeler_id == labeler.id)
    taken = settled.where((Lease.state == ANSWERED) | ((Lease.state == HELD) & (Lease.expires_at > moment)))
    skipped = settled.where(Lease.state == SKIPPED)
    holding = (
        select(func.count())
        .where(Lease.comparison_id == Comparison.id, Lease.state == HELD, Lease.expires_at > moment)
        .correlate(Comparison)
        .scalar_subquery()
    )
    query = (
        select(Comparison)
        .where(
            Comparison.round_id == round_.id,
            Comparison.labels_given + holding < Comparison.labels_wanted,
            Comparison.id.not_in(taken),
        )
        .order_by(Comparison.id.in_(skipped), Comparison.number)
        .with_for_update(skip_locked=True, of=Comparison)
    )
    chosen: list[Comparison] = []
    for comparison in session.scalars(query.limit(count).execution_options(populate_existing=True)):
        # Somebody may have committed a lease or an answer between the query's snapshot and our lock (another
        # labeler, or this one in another window): look again.
        held = session.scalars(select(holding).where(Comparison.id == comparison.id)).one()
        lease = _lease_of(session, comparison.id, labeler)
        if lease is not None and lease.state == ANSWERED:
            continue
        if comparison.labels_given + held < comparison.labels_wanted:
            chosen.append(comparison)
    return chosen


def _lease(
    session: Session,
    comparison: Comparison,
    round_: Round,
    labeler: Labeler,
    moment: datetime,
    until: datetime,
) -> Lease:
    lease = _lease_of(session, comparison.id, labeler)
    if lease is None:
        shown = list(range(len(comparison.clip_ids)))
        # Drawn from the seed, not from the clock: the same experiment shows the same sides.
        seed = seed_for(
            round_.experiment.config["seed"], "shown", round_.number, comparison.number, labeler.name
        )
        random.Random(seed).shuffle(shown)
        lease = Lease(comparison_id=comparison.id, labeler_id=labeler.id, shown=shown)
        session.add(lease)
    lease.state, lease.claimed_at, lease.expires_at = HELD, moment, until
    session.flush()
    return lease


def _claimed(session: Session, lease: Lease, round_number: int) -> Claimed:
    comparison = session.get_one(Comparison, lease.comparison_id)
    clips = [session.get_one(Clip, comparison.clip_ids[index]) for index in lease.shown]
    return Claimed(
        comparison_id=comparison.id,
        round_number=round_number,
        clip_ids=[clip.id for clip in clips],
        steps=[clip.steps for clip in clips],
        fps=clips[0].fps,
        expires_at=lease.expires_at,
    )


def _lease_of(session: Session, comparison_id: int, labeler: Labeler) -> Lease | None:
    query = select(Lease).where(Lease.comparison_id == comparison_id, Lease.labeler_id == labeler.id)
    return session.scalars(query.execution_options(populate_existing=True)).one_or_none()


def _locked(session: Session, comparison_id: int) -> tuple[Comparison, Round]:
    """Return a comparison, locked, and its round, share-locked so that it can't be frozen meanwhile."""
    found = session.get(Comparison, comparison_id)
    if found is None:
        raise LabelError("unknown", "there is no such comparison")
    rounds = select(Round).where(Round.id == found.round_id).with_for_update(read=True, of=Round)
    round_ = session.scalars(rounds.execution_options(populate_existing=True)).one()
    query = select(Comparison).where(Comparison.id == comparison_id).with_for_update(key_share=True)
    comparison = session.scalars(query.execution_options(populate_existing=True)).one()
    return comparison, round_


def _held(session: Session, comparison_id: int, labeler: Labeler) -> tuple[Comparison, Round, Lease]:
    """Return what a labeler may act on: a comparison they were given and have not answered yet.

    A lease that ran out still counts while nobody else has taken the comparison: a pause loses no answer.
    """
    comparison, round_ = _locked(session, comparison_id)
    lease = _lease_of(session, comparison_id, labeler)
    if lease is None:
        raise LabelError("not_yours", "this pair was not given to you")
    if lease.state == ANSWERED:
        raise LabelError("answered", "you have answered this pair already; undo that answer to change it")
    if round_.state != RoundState.LABELING:
        raise LabelError("frozen", "this batch is complete and in training: no more answers are taken")
    if lease.state == SKIPPED:
        raise LabelError("not_yours", "you gave this pair back")
    others = select(func.count()).where(
        Lease.comparison_id == comparison_id,
        Lease.labeler_id != labeler.id,
        Lease.state == HELD,
        Lease.expires_at > now(session),
    )
    expired = lease.expires_at <= now(session)
    taken = comparison.labels_given + (session.scalars(others).one() if expired else 0)
    if taken >= comparison.labels_wanted:
        raise LabelError("taken", "your hold on this pair ran out and somebody else has it now")
    return comparison, round_, lease


def _ranks_of_clips(shown_ranks: list[int], shown: list[int]) -> list[int]:
    """Turn ranks by place on the page into ranks by clip, closing gaps: [4, 9, 4] becomes [0, 1, 0]."""
    if len(shown_ranks) != len(shown):
        raise LabelError("malformed", f"an answer about {len(shown)} clips needs {len(shown)} ranks")
    order = sorted(set(shown_ranks))
    ranks = [0] * len(shown)
    for place, clip_index in enumerate(shown):
        ranks[clip_index] = order.index(shown_ranks[place])
    return ranks


def _same_answer(
    existing: Preference, comparison_id: int, labeler: Labeler, shown_ranks: list[int] | None
) -> Preference:
    ranks = None if shown_ranks is None else _ranks_of_clips(shown_ranks, existing.shown)
    same = (existing.comparison_id, existing.labeler_id, existing.ranks) == (comparison_id, labeler.id, ranks)
    if not same:
        raise LabelError("conflict", "an answer with this id, but another content, has been given")
    return existing


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
