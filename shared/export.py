"""An experiment as a folder of plain files: its labels, clips, weights and results.

config.json          the configuration it ran with
preferences.jsonl    one answer a line, withdrawn ones too: who, when, which clips, which ranks
asides.jsonl         one answer a line that is no label: of practice, or to a comparison asked once more
clips.jsonl          one clip a line: its steps, frames a second, files and their SHA-256 sums
rounds.csv           one round a line: labels, held-out accuracy, predicted and true return
clips/               NNNN-NNN.npz (observations and actions) and .mp4 (what people saw): round, number
agents/, reward_models/   weights of every round, safetensors
videos/              the agent's video of every round
predictions/         what every round's reward model says of that round's comparisons, step by step
"""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import labels
from shared.models import (
    Aside,
    Attempt,
    Clip,
    Comparison,
    Evaluation,
    Experiment,
    Labeler,
    Preference,
    Round,
    StoredArtifact,
)
from shared.states import AttemptState, RoundState

FOLDERS = {
    "agent": ("agents", "safetensors"),
    "reward_model": ("reward_models", "safetensors"),
    "video": ("videos", "mp4"),
    "predictions": ("predictions", "json"),
}
ROUND_COLUMNS = (
    "round",
    "state",
    "labels",
    "held_out_accuracy",
    "predicted_return",
    "true_return",
    *(
        f"{stage}_s"
        for stage in (RoundState.COLLECTING, RoundState.TRAINING_REWARD, RoundState.TRAINING_AGENT)
    ),
)
METRICS = {"held_out_accuracy": "held_out/accuracy", "predicted_return": "charts/predicted_return"}


class ExportError(RuntimeError):
    """An export that cannot be made; nothing was written."""


class Reader(Protocol):
    """The part of a store that an export needs."""

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Return the bytes under `key`."""
        ...


def nothing_more(session: Session, experiment: Experiment, folder: Path) -> None:
    """Leave a plain export as it is."""


def export(
    session: Session,
    store: Reader,
    name: str,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    add: Callable[[Session, Experiment, Path], None] = nothing_more,
) -> Path:
    """Write experiment `name` into `folder`, which must not exist yet; return it. `add` may write more.

    Everything is written beside it first and moved into place at the end, so a folder that is there is whole.
    """
    experiment = session.scalars(select(Experiment).where(Experiment.name == name)).one_or_none()
    if experiment is None:
        raise ExportError(f"there is no experiment {name}; `lockstep list` shows those there are")
    if folder.exists():
        raise ExportError(f"{folder} is there already: name another folder")
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_json(partial / "config.json", experiment.config)
    with (partial / "preferences.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in preference_lines(session, experiment.id))
    with (partial / "asides.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in aside_lines(session, experiment.id))
    with (partial / "clips.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in clip_rows(session, experiment.id))
    with (partial / "rounds.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ROUND_COLUMNS)
        writer.writeheader()
        writer.writerows(round_rows(session, experiment.id))
    files = _files(session, experiment.id)
    for done, (path, key, sha256) in enumerate(files, start=1):
        (partial / path).parent.mkdir(exist_ok=True)
        (partial / path).write_bytes(store.get(key, sha256))
        on_progress(done, len(files))
    add(session, experiment, partial)
    partial.rename(folder)
    return folder


def measure(session: Session, experiment: Experiment) -> tuple[int, int]:
    """Return how many files an export of `experiment` has beside its tables, and how many bytes."""
    of = select(func.count(), func.coalesce(func.sum(Clip.npz_size + Clip.mp4_size), 0)).join(Round)
    clips, clip_bytes = session.execute(of.where(Round.experiment_id == experiment.id)).one()
    of = select(func.count(), func.coalesce(func.sum(StoredArtifact.size), 0)).join(Round)
    others, other_bytes = session.execute(of.where(Round.experiment_id == experiment.id)).one()
    return 2 * clips + others, int(clip_bytes + other_bytes)


def round_rows(session: Session, experiment_id: int) -> list[dict[str, Any]]:
    """Return one row a round, as in `rounds.csv`; what is not known yet is None."""
    rows = []
    query = select(Round).where(Round.experiment_id == experiment_id).order_by(Round.number)
    for round_ in session.scalars(query):
        row: dict[str, Any] = dict.fromkeys(ROUND_COLUMNS)
        row |= {"round": round_.number, "state": str(round_.state)}
        row["labels"] = labels.progress(session, round_.id)[0]
        won = select(Attempt).where(Attempt.round_id == round_.id, Attempt.state == AttemptState.SUCCEEDED)
        for attempt in session.scalars(won):
            if attempt.claimed_at and attempt.ended_at:
                seconds = (attempt.ended_at - attempt.claimed_at).total_seconds()
                row[f"{attempt.stage}_s"] = round(seconds, 3)
            for column, metric in METRICS.items():
                if metric in (attempt.metrics or {}):
                    row[column] = (attempt.metrics or {})[metric]
        row["true_return"] = session.scalar(select(Evaluation.mean).where(Evaluation.round_id == round_.id))
        rows.append(row)
    return rows


def preference_lines(session: Session, experiment_id: int) -> list[dict[str, Any]]:
    """Return every answer ever given, the withdrawn ones too, as in `preferences.jsonl`."""
    query = (
        select(Preference, Comparison, Labeler, Round.number)
        .join(Comparison, Preference.comparison_id == Comparison.id)
        .join(Labeler, Preference.labeler_id == Labeler.id)
        .join(Round, Comparison.round_id == Round.id)
        .where(Round.experiment_id == experiment_id)
        .order_by(Round.number, Comparison.number, Preference.answered_at, Preference.id)
    )
    names = {clip.id: _clip_name(clip, number) for clip, number in clips_of(session, experiment_id)}
    return [
        {
            "id": preference.id,
            "round": number,
            "comparison": comparison.number,
            "clips": [names[clip_id] for clip_id in comparison.clip_ids],
            "ranks": preference.ranks,
            "incomparable": preference.ranks is None,
            "shown": preference.shown,
            "held_out": comparison.held_out,
            "labeler": labeler.imported_as or labeler.name,
            "labeler_kind": labeler.kind,
            "imported_from": labeler.imported_from,
            "seconds": preference.seconds,
            "answered_at": preference.answered_at.isoformat(),
            "withdrawn_at": preference.withdrawn_at and preference.withdrawn_at.isoformat(),
        }
        for preference, comparison, labeler, number in session.execute(query)
    ]


def aside_lines(session: Session, experiment_id: int) -> list[dict[str, Any]]:
    """Return every answer to practice and to repeats, as in `asides.jsonl`; an import leaves them alone."""
    query = (
        select(Aside, Comparison, Labeler.name, Round.number)
        .join(Comparison, Aside.comparison_id == Comparison.id)
        .join(Labeler, Aside.labeler_id == Labeler.id)
        .join(Round, Comparison.round_id == Round.id)
        .where(Round.experiment_id == experiment_id, Aside.answered_at.is_not(None))
        .order_by(Round.number, Comparison.number, Aside.answered_at, Aside.id)
    )
    names = {clip.id: _clip_name(clip, number) for clip, number in clips_of(session, experiment_id)}
    return [
        {
            "kind": aside.kind,
            "round": number,
            "comparison": comparison.number,
            "clips": [names[clip_id] for clip_id in comparison.clip_ids],
            "ranks": aside.ranks,
            "incomparable": aside.ranks is None,
            "shown": aside.shown,
            "labeler": labeler,
            "seconds": aside.seconds,
            "answered_at": aside.answered_at and aside.answered_at.isoformat(),
        }
        for aside, comparison, labeler, number in session.execute(query)
    ]


def clip_rows(session: Session, experiment_id: int) -> list[dict[str, Any]]:
    """Return one row a clip: its name, its round, and its files in the export."""
    return [
        {
            "clip": (name := _clip_name(clip, number)),
            "round": number,
            "steps": clip.steps,
            "fps": clip.fps,
            "npz": f"clips/{name}.npz",
            "npz_sha256": clip.npz_sha256,
            "mp4": f"clips/{name}.mp4",
            "mp4_sha256": clip.mp4_sha256,
        }
        for clip, number in clips_of(session, experiment_id)
    ]


def _files(session: Session, experiment_id: int) -> list[tuple[str, str, str]]:
    """Return (path in the export, key, sha256) of every file."""
    files = []
    for clip, number in clips_of(session, experiment_id):
        name = _clip_name(clip, number)
        files.append((f"clips/{name}.npz", clip.npz_key, clip.npz_sha256))
        files.append((f"clips/{name}.mp4", clip.mp4_key, clip.mp4_sha256))
    query = select(StoredArtifact, Round.number).join(Round).where(Round.experiment_id == experiment_id)
    for row, number in session.execute(query.order_by(Round.number, StoredArtifact.kind)):
        folder, ending = FOLDERS[row.kind]
        files.append((f"{folder}/round-{number:04d}.{ending}", row.key, row.sha256))
    return files


def clips_of(session: Session, experiment_id: int) -> list[tuple[Clip, int]]:
    """Return every clip with the number of its round, in order."""
    query = select(Clip, Round.number).join(Round).where(Round.experiment_id == experiment_id)
    return [(clip, number) for clip, number in session.execute(query.order_by(Round.number, Clip.number))]


def _clip_name(clip: Clip, round_number: int) -> str:
    return f"{round_number:04d}-{clip.number:03d}"


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
