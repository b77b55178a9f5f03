"""What must be true after all faults, read from database and store. Each check returns what is wrong."""

import hashlib
from collections import Counter
from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import labels, states
from shared.jobs import labels_sha256
from shared.models import (
    Attempt,
    Clip,
    Comparison,
    Event,
    Experiment,
    Preference,
    Round,
    StoredArtifact,
)  # fmt: skip
from shared.states import WORKER_STAGES, AttemptState, RoundState
from shared.storage import Store, StoreError
from tests.faults.system import System

ROUND_EVENTS = {row.event for row in states.ROUND_TABLE}
KINDS_OF = {
    RoundState.COLLECTING: (),
    RoundState.TRAINING_REWARD: ("reward_model",),
    RoundState.TRAINING_AGENT: ("agent", "video"),
}


def check(plant: System, calm: str, taken: set[str]) -> dict[str, list[str]]:
    """Run every check; `calm` names the undisturbed experiment, `taken` the answers that got a 200."""
    store = plant.settings.open_store()
    with plant.database.read(snapshot=True) as session:  # one that may take its time over the store
        return {
            "one legal path of transitions for each round": list(paths(session)),
            "no label lost or counted twice": list(answers(session, taken)),
            "each reward model trained on exactly its frozen set": list(frozen_sets(session)),
            "one and only one official artifact for each stage": list(artifacts(session)),
            "all sums right": list(sums(session, store)),
            "the same weights as the undisturbed run": list(weights(session, calm)),
        }


def paths(session: Session) -> Iterator[str]:
    """Every round's events follow the table, each once, and lead to the state that it is in."""
    for round_ in session.scalars(select(Round)):
        state, moves = RoundState.COLLECTING, 0
        query = select(Event).where(Event.round_id == round_.id).order_by(Event.id)
        for event in session.scalars(query):
            if event.event not in ROUND_EVENTS:
                continue
            moves += 1
            failed_stage = RoundState(str(event.target)) if event.event == "retried" else None
            try:
                wanted = states.target(event.event, state, failed_stage)
            except ValueError as error:
                yield f"round {round_.id}: {error}"
                break
            if (event.source, event.target) != (state, wanted):
                yield f"round {round_.id}: {event.event} from {event.source} to {event.target}, not {wanted}"
            state = wanted
        if (state, moves) != (round_.state, round_.version):
            yield f"round {round_.id} is {round_.state} v{round_.version}; its events say {state}, {moves}"


def answers(session: Session, taken: set[str]) -> Iterator[str]:
    """What stands is what was taken, each answer once."""
    standing = list(session.scalars(select(Preference).where(Preference.withdrawn_at.is_(None))))
    ids = {preference.id for preference in standing}
    yield from (f"answer {one} was taken and is lost" for one in sorted(taken - ids))
    yield from (f"answer {one} stands and was never confirmed" for one in sorted(ids - taken))
    counts = Counter(preference.comparison_id for preference in standing)
    for comparison in session.scalars(select(Comparison)):
        if comparison.labels_given != counts[comparison.id]:
            yield f"comparison {comparison.id} counts {comparison.labels_given}, not {counts[comparison.id]}"
        round_ = session.get_one(Round, comparison.round_id)
        if round_.frozen_at and counts[comparison.id] != comparison.labels_wanted:
            yield f"comparison {comparison.id} was frozen with {counts[comparison.id]} answers"


def frozen_sets(session: Session) -> Iterator[str]:
    """The frozen sum still holds, nothing came later, and the trainer got these very labels."""
    for round_ in session.scalars(select(Round).where(Round.frozen_at.is_not(None))):
        if labels.label_set_sha256(session, round_) != round_.label_set_sha256:
            yield f"round {round_.id}: the label set is not the one that was frozen"
        late = select(Preference.id).join(Comparison).where(Comparison.round_id == round_.id)
        for one in session.scalars(late.where(Preference.answered_at > round_.frozen_at)):
            yield f"round {round_.id}: answer {one} came after the freeze"
        query = select(Attempt).where(
            Attempt.round_id == round_.id, Attempt.stage == RoundState.TRAINING_REWARD
        )
        attempt = session.scalar(query.where(Attempt.state == AttemptState.SUCCEEDED))
        given = labels_sha256(labels.label_set(session, round_))
        if attempt is not None and (attempt.metrics or {}).get("labels_sha256") != given:
            yield f"round {round_.id}: its reward model was trained on other labels"


def artifacts(session: Session) -> Iterator[str]:
    """Every finished stage has one success, and the artifacts of that success alone."""
    for round_ in session.scalars(select(Round)):
        for stage in WORKER_STAGES:
            tried = list(
                session.scalars(select(Attempt).where(Attempt.round_id == round_.id, Attempt.stage == stage))
            )
            won = [attempt.id for attempt in tried if attempt.state == AttemptState.SUCCEEDED]
            query = select(StoredArtifact).where(StoredArtifact.round_id == round_.id)
            found = [
                (one.kind, one.attempt_id) for one in session.scalars(query) if one.kind in KINDS_OF[stage]
            ]
            if (
                sorted(found) != sorted((kind, one) for one in won for kind in KINDS_OF[stage])
                or len(won) > 1
            ):
                yield f"round {round_.id}, {stage}: successes {won}, artifacts {found}"
            if round_.state == RoundState.DONE and not won:
                yield f"round {round_.id} is done without {stage}"


def sums(session: Session, store: Store) -> Iterator[str]:
    """Everything that the database points at is in the store, with its sum and size."""
    named = [(one.key, one.sha256, one.size) for one in session.scalars(select(StoredArtifact))]
    for clip in session.scalars(select(Clip)):
        named += [
            (clip.npz_key, clip.npz_sha256, clip.npz_size),
            (clip.mp4_key, clip.mp4_sha256, clip.mp4_size),
        ]
    for key, sha256, size in named:
        try:
            data = store.get(key)
        except StoreError as error:
            yield str(error)
            continue
        if (hashlib.sha256(data).hexdigest(), len(data)) != (sha256, size):
            yield f"{key} is not what was stored"


def weights(session: Session, calm: str) -> Iterator[str]:
    """Weights, videos, clips and label sets are those of the undisturbed run, round by round."""
    query = select(Experiment).where(Experiment.name == calm)
    reference = _made(session, session.scalars(query).one())
    for experiment in session.scalars(select(Experiment).where(Experiment.name != calm)):
        made = _made(session, experiment)
        for what in sorted(made):
            if made[what] != reference.get(what):
                yield f"{experiment.name}, round {what[0]}: another {what[1]} than in the undisturbed run"


def _made(session: Session, experiment: Experiment) -> dict[tuple[int, str], str]:
    found: dict[tuple[int, str], str] = {}
    for round_ in session.scalars(select(Round).where(Round.experiment_id == experiment.id)):
        for one in session.scalars(select(StoredArtifact).where(StoredArtifact.round_id == round_.id)):
            found[round_.number, one.kind] = one.sha256
        for clip in session.scalars(select(Clip).where(Clip.round_id == round_.id)):
            found[round_.number, f"clip {clip.number}"] = clip.npz_sha256
        if round_.label_set_sha256:
            found[round_.number, "label set"] = round_.label_set_sha256
    return found
