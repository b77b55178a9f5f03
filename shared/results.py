"""What a worker gives back: checked, then written into the tables. `rounds.complete` alone calls this."""

import math

from sqlalchemy.orm import Session

from shared.config import ExperimentConfig
from shared.jobs import RESULTS, Artifact, CollectResult, Result, TrainAgentResult, TrainRewardResult
from shared.models import Attempt, Clip, Comparison, Evaluation, Judgement, Round, StoredArtifact
from shared.states import RoundState


class BadResult(ValueError):
    """A result that its round could not go on with; nothing was written: `fail` the attempt with it."""


def check(stage: RoundState, result: Result) -> None:
    """Raise BadResult unless `result` is one of `stage` that the next stage can work with."""
    if not isinstance(result, RESULTS[stage]):
        raise BadResult(f"{stage} cannot end with a {type(result).__name__}")
    if isinstance(result, CollectResult):
        _check_comparisons(result)
    elif isinstance(result, TrainRewardResult):
        _check_kind(result.reward_model, "reward_model")
        if result.predictions:
            _check_kind(result.predictions, "predictions")
    else:
        _check_kind(result.agent, "agent")
        _check_kind(result.video, "video")
        if not result.true_returns or not all(map(math.isfinite, result.true_returns)):
            raise BadResult(f"{stage} needs the true return of each evaluation episode, as a finite number")


def store(
    session: Session, round_: Round, attempt: Attempt, config: ExperimentConfig, result: Result
) -> None:
    """Write the rows of a result that `check` let pass."""
    if isinstance(result, CollectResult):
        _store_comparisons(session, round_, config, result)
    elif isinstance(result, TrainRewardResult):
        _store_artifact(session, attempt, result.reward_model)
        if result.predictions:
            _store_artifact(session, attempt, result.predictions)
    else:
        _store_artifact(session, attempt, result.agent)
        _store_artifact(session, attempt, result.video)
        _store_evaluation(session, attempt, result)


def _check_comparisons(result: CollectResult) -> None:
    if not result.comparisons:
        raise BadResult("collecting gave no comparison, so there would be nothing to label")
    known = range(len(result.clips))
    for number, comparison in enumerate(result.comparisons, start=1):
        if len(set(comparison.clips)) != len(comparison.clips) or len(comparison.clips) < 2:
            raise BadResult(f"comparison {number} needs two or more different clips, not {comparison.clips}")
        if not all(index in known for index in comparison.clips):
            raise BadResult(f"comparison {number} is of clips {comparison.clips}, of {len(known)} there are")
    for clip in result.clips:
        _check_kind(clip.npz, "clip_npz")
        _check_kind(clip.mp4, "clip_mp4")


def _check_kind(artifact: Artifact, kind: str) -> None:
    if artifact.kind != kind:
        raise BadResult(f"{artifact.key} is a {artifact.kind}, where a {kind} belongs")


def _store_comparisons(
    session: Session, round_: Round, config: ExperimentConfig, result: CollectResult
) -> None:
    clips = [
        Clip(
            round_id=round_.id,
            number=number,
            steps=stored.steps,
            fps=stored.fps,
            **{f"npz_{name}": getattr(stored.npz, name) for name in ("key", "sha256", "size")},
            **{f"mp4_{name}": getattr(stored.mp4, name) for name in ("key", "sha256", "size")},
        )
        for number, stored in enumerate(result.clips, start=1)
    ]
    session.add_all(clips)
    session.flush()
    for clip, stored in zip(clips, result.clips, strict=True):
        session.add(Judgement(clip_id=clip.id, per_step=stored.judgement))
    for number, comparison in enumerate(result.comparisons, start=1):
        row = Comparison(round_id=round_.id, number=number, held_out=comparison.held_out)
        row.labels_wanted = config.labels.labels_per_comparison
        row.clip_ids = [clips[index].id for index in comparison.clips]
        session.add(row)


def _store_artifact(session: Session, attempt: Attempt, artifact: Artifact) -> None:
    row = StoredArtifact(round_id=attempt.round_id, attempt_id=attempt.id, kind=artifact.kind)
    row.key, row.sha256, row.size = artifact.key, artifact.sha256, artifact.size
    session.add(row)


def _store_evaluation(session: Session, attempt: Attempt, result: TrainAgentResult) -> None:
    row = Evaluation(round_id=attempt.round_id, attempt_id=attempt.id, true_returns=result.true_returns)
    row.mean = mean_return(result)
    session.add(row)


def mean_return(result: TrainAgentResult) -> float:
    """Return the mean of the true returns."""
    return sum(result.true_returns) / len(result.true_returns)
