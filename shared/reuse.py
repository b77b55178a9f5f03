"""Labels of another experiment as the past of a new one: they come in as round 0, final from the start.

Round 0 has clips, comparisons and preferences like any round, and is done before round 1 begins, so the label
set of every round holds them and nobody can answer or undo there. Their labelers are labelers of their own
(`imported_as`, `imported_from`) whose token nobody has: they never mix with those of this system.
"""

import hashlib
import json
import logging
import re
import secrets
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter, ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import labels
from shared.config import NAME_PATTERN, ConfigError, ExperimentConfig
from shared.database import now
from shared.export import clip_rows, clips_of, preference_lines
from shared.jobs import Artifact, put_artifact
from shared.models import Clip, Comparison, Experiment, Labeler, Preference, Round
from shared.segments import MOST_UNPACKED, shape_of
from shared.storage import Store, StoreError
from shared.transitions import past_round, record

# What must be the same, or one reward model could not learn from both.
SAME = ("env_id", "segments.length", "atari.frame_size", "labels.clips_per_comparison")
MOST_FILE = MOST_UNPACKED  # bytes: more than any clip of an export; each is read into memory
MOST_TABLE = 64 << 20  # bytes of a file of lines, which take many times as much memory: some 150,000 answers
MOST_CONFIG = 1 << 20  # bytes: more than any configuration
NAMESPACE = uuid.UUID("8f1d2c8e-6a3b-4d4e-9c57-0b6a4f1e7d25")  # of the ids that imported answers get

log = logging.getLogger(__name__)

Row = TypeVar("Row", bound=BaseModel)
Moment = Annotated[
    AwareDatetime, Field(gt=datetime(2000, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC))
]
FileName = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,1000}$")]
Sum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ReuseError(ConfigError):
    """Labels that cannot be taken over; nothing was changed."""


class ClipRow(BaseModel):
    """A line of an export's `clips.jsonl`."""

    clip: str
    round: int
    steps: int = Field(ge=1)
    fps: float = Field(gt=0, le=1000)
    npz: FileName
    npz_sha256: Sum
    mp4: FileName
    mp4_sha256: Sum


class AnswerRow(BaseModel):
    """A line of an export's `preferences.jsonl`."""

    id: Annotated[str, Field(min_length=1, max_length=36)]
    round: int = Field(ge=0)
    comparison: int = Field(ge=1)
    clips: Annotated[list[str], Field(min_length=2, max_length=20)]
    ranks: list[Annotated[int, Field(ge=0)]] | None
    shown: list[int]
    held_out: bool
    labeler: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,80}$")]
    labeler_kind: Annotated[str, Field(pattern="^(person|teacher)$")]
    imported_from: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,10000}$")] | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    answered_at: Moment
    withdrawn_at: Moment | None


@dataclass(frozen=True)
class StoredClip:
    """A clip with its files in the store."""

    row: ClipRow
    npz: Artifact
    mp4: Artifact


@dataclass(frozen=True)
class Past:
    """Labels to be taken over, checked, their clips in the store."""

    source: str  # the experiment they were given in
    answers: list[AnswerRow]
    clips: dict[str, StoredClip]


@contextmanager
def from_folder(folder: Path, config: ExperimentConfig, store: Store) -> Iterator[Past]:
    """Check an export and bring its clips into the store; ReuseError if it is damaged or does not fit.

    Everything is checked before the first file is stored. In the block the database takes the clips; if it
    does not, they are removed again. Every import has a folder of its own in the store, so nobody else's clip
    is among them.
    """
    given = config_of(folder)
    answers, rows = _checked(folder, given, config)
    stored: list[str] = []
    try:
        clips = _store(folder, rows, store, stored)
    except BaseException:
        _remove(stored, store)
        raise
    try:
        yield Past(_name_of(given), answers, clips)
    except Exception as error:
        # If the connection broke, nobody here knows whether the database took them: rather clips that no
        # experiment has than an experiment without clips. The same holds for a process that is stopped.
        if not getattr(error, "connection_invalidated", False):
            _remove(stored, store)
        raise


def _checked(
    folder: Path, given: dict[str, Any], config: ExperimentConfig
) -> tuple[list[AnswerRow], list[ClipRow]]:
    """Return the answers of an export, and the clips that they are about."""
    answers = [_row(AnswerRow, *line) for line in _lines(folder / "preferences.jsonl")]
    rows = [_row(ClipRow, *line) for line in _lines(folder / "clips.jsonl")]
    if twice := [name for name, count in Counter(row.clip for row in rows).items() if count > 1]:
        raise ReuseError(f"the clip {twice[0]} is in clips.jsonl twice")
    _check(given, config, answers, {row.clip: row for row in rows})
    used = {name for answer in answers for name in answer.clips}
    rows = [row for row in rows if row.clip in used]
    shapes: dict[str, Any] = {}
    for row in rows:
        _file(folder, row.mp4, row.mp4_sha256)
        try:
            shapes[row.clip] = shape_of(_file(folder, row.npz, row.npz_sha256), row.steps)
        except ValueError as error:
            if isinstance(error, ReuseError):
                raise
            raise ReuseError(f"{row.npz} is no segment of {row.steps} steps: {error}") from None
    if len(set(shapes.values())) > 1:
        raise ReuseError(f"the observations in the clips differ: {sorted(set(map(str, shapes.values())))}")
    return answers, rows


def _store(folder: Path, rows: list[ClipRow], store: Store, stored: list[str]) -> dict[str, StoredClip]:
    """Bring the clips into the store; `stored` gets each key before there is anything under it."""
    prefix, clips = f"imported/{uuid.uuid4().hex}", {}
    for row in rows:
        files = []
        for kind, path, sha256 in (("npz", row.npz, row.npz_sha256), ("mp4", row.mp4, row.mp4_sha256)):
            stored.append(f"{prefix}/{sha256}.{kind}")
            files.append(put_artifact(store, f"clip_{kind}", stored[-1], _file(folder, path, sha256)))
        clips[row.clip] = StoredClip(row, *files)
    return clips


def _remove(keys: list[str], store: Store) -> None:
    """Remove the clips of an import that failed; what went wrong with it is what is told, not this."""
    for number, key in enumerate(keys):
        try:
            store.delete(key)
        except StoreError as error:
            log.warning("%s files of an import that failed stay in the store: %s", len(keys) - number, error)
            return


def _name_of(given: dict[str, Any]) -> str:
    """Return the name of the experiment that was exported: it is stored, so it must be one."""
    name = given.get("name")
    return name if isinstance(name, str) and re.fullmatch(NAME_PATTERN, name) else "?"


def config_of(folder: Path) -> dict[str, Any]:
    """Return the configuration of the experiment that was exported."""
    given = _read_json(folder / "config.json")
    if not isinstance(given, dict):
        raise ReuseError(f"{folder / 'config.json'} is no configuration")
    return given


def from_experiment(session: Session, experiment: Experiment, config: ExperimentConfig) -> Past:
    """Take the labels of an experiment of this system; their clips are where they were."""
    answers = [AnswerRow.model_validate(line) for line in preference_lines(session, experiment.id)]
    found = zip(clip_rows(session, experiment.id), clips_of(session, experiment.id), strict=True)
    clips = {
        row["clip"]: StoredClip(
            ClipRow.model_validate(row),
            labels.npz_artifact(clip),
            Artifact("clip_mp4", clip.mp4_key, clip.mp4_sha256, clip.mp4_size),
        )
        for row, (clip, _) in found
    }
    _check(experiment.config, config, answers, {name: clip.row for name, clip in clips.items()})
    return Past(experiment.name, answers, clips)


@dataclass(frozen=True)
class Source:
    """An experiment with labels that another could begin with."""

    name: str
    answers: int  # that stand
    given_with: dict[str, Any]  # what must be the same there, by dotted key


def sources(session: Session) -> list[Source]:
    """Return the experiments that have an answer to take over, the newest first."""
    query = select(Round.experiment_id, func.count()).join(Comparison, Comparison.round_id == Round.id)
    query = query.join(Preference).where(Preference.withdrawn_at.is_(None)).group_by(Round.experiment_id)
    answers = {row[0]: row[1] for row in session.execute(query)}
    found = session.scalars(
        select(Experiment).where(Experiment.id.in_(answers)).order_by(Experiment.id.desc())
    )
    return [
        Source(
            one.name,
            answers[one.id],
            {path: value for path in SAME if (value := _at(one.config, path)) is not None},
        )
        for one in found
    ]


def store_past(session: Session, experiment: Experiment, past: Past, actor: str) -> None:
    """Write the labels of `past` as round 0 of a new experiment, in the caller's transaction."""
    round_ = past_round(session, experiment.id)
    ids: dict[str, int] = {}
    for number, name in enumerate(sorted({name for row in past.answers for name in row.clips}), start=1):
        stored = past.clips[name]
        clip = Clip(round_id=round_.id, number=number, steps=stored.row.steps, fps=stored.row.fps)
        clip.npz_key, clip.npz_sha256, clip.npz_size = stored.npz.key, stored.npz.sha256, stored.npz.size
        clip.mp4_key, clip.mp4_sha256, clip.mp4_size = stored.mp4.key, stored.mp4.sha256, stored.mp4.size
        session.add(clip)
        session.flush()
        ids[name] = clip.id
    comparisons: dict[tuple[int, int], Comparison] = {}
    for row in sorted(past.answers, key=lambda one: (one.round, one.comparison)):
        if (row.round, row.comparison) not in comparisons:
            comparison = Comparison(round_id=round_.id, number=len(comparisons) + 1, held_out=row.held_out)
            comparison.labels_wanted = comparison.labels_given = 0
            comparison.clip_ids = [ids[name] for name in row.clips]
            comparisons[row.round, row.comparison] = comparison
            session.add(comparison)
        if row.withdrawn_at is None:
            comparisons[row.round, row.comparison].labels_wanted += 1
            comparisons[row.round, row.comparison].labels_given += 1
    session.flush()
    labelers = _labelers(session, experiment, past)
    for row in past.answers:
        preference = Preference(id=str(uuid.uuid5(NAMESPACE, f"{experiment.name}\x1f{row.id}")))
        preference.comparison_id = comparisons[row.round, row.comparison].id
        preference.labeler_id = labelers[_who(row)].id
        preference.ranks, preference.shown, preference.seconds = row.ranks, row.shown, row.seconds
        preference.answered_at, preference.withdrawn_at = row.answered_at, row.withdrawn_at
        session.add(preference)
    session.flush()
    round_.label_set_sha256 = labels.label_set_sha256(session, round_)
    detail = {"from": past.source, "answers": len(past.answers), "labelers": len(labelers)}
    record(session, experiment.id, "imported", None, actor, round_id=round_.id, detail=detail)


def _who(row: AnswerRow) -> tuple[str, str, str]:
    return row.labeler, row.labeler_kind, row.imported_from or ""


def _labelers(session: Session, experiment: Experiment, past: Past) -> dict[tuple[str, str, str], Labeler]:
    """Make a labeler for each who answered there, under a name that is free here; nobody has their tokens."""
    found: dict[tuple[str, str, str], Labeler] = {}
    taken = set(session.scalars(select(Labeler.name)))
    for who in sorted({_who(row) for row in past.answers}):
        name, kind, earlier = who
        number = len(found) + 1
        while (own := f"{name[:50]} (imported {experiment.id}.{number})") in taken:
            number += 1
        taken.add(own)
        token = hashlib.sha256(secrets.token_bytes(32)).hexdigest()  # what it is the sum of is thrown away
        labeler = Labeler(name=own, kind=kind, token_sha256=token, created_at=now(session))
        labeler.imported_as = name
        labeler.imported_from = f"{earlier}, {past.source}" if earlier else past.source
        session.add(labeler)
        found[who] = labeler
    session.flush()
    return found


# ---------------------------------------------------------------------------- the checks


def _check(
    given: dict[str, Any], config: ExperimentConfig, answers: list[AnswerRow], clips: dict[str, ClipRow]
) -> None:
    """Raise ReuseError if the labels contradict themselves or cannot be learned from in `config`."""
    wanted = config.model_dump(mode="json")
    for path in SAME:
        there, here = _at(given, path), _at(wanted, path)
        if there != here and there is not None:  # an export may be older than a setting
            raise ReuseError(f"the labels were given with {path} = {there}, this experiment has {here}")
    if not any(row.withdrawn_at is None for row in answers):
        raise ReuseError("there is no answer to take over")
    ids: set[str] = set()
    standing: set[tuple[int, int, tuple[str, str, str]]] = set()
    comparisons: dict[tuple[int, int], tuple[list[str], bool]] = {}
    for row in answers:
        count, where = len(row.clips), f"the answer {row.id}"
        if missing := [name for name in row.clips if name not in clips]:
            raise ReuseError(f"{where} is about the clip {missing[0]}, which is not in clips.jsonl")
        if any(clips[name].steps != config.segments.length for name in row.clips):
            raise ReuseError(f"{where} is about a clip that has not {config.segments.length} steps")
        if len(set(row.clips)) != count or sorted(row.shown) != list(range(count)):
            raise ReuseError(f"{where} names a clip twice, or shows what it does not compare")
        if row.ranks is not None and (len(row.ranks) != count or max(row.ranks) >= count):
            raise ReuseError(f"{where} has ranks that do not order {count} clips: {row.ranks}")
        if row.id in ids:
            raise ReuseError(f"{where} is there twice")
        ids.add(row.id)
        about = (row.clips, row.held_out)
        if comparisons.setdefault((row.round, row.comparison), about) != about:
            raise ReuseError(f"{where} is about other clips than another answer to the same comparison")
        if row.withdrawn_at is None:
            if (key := (row.round, row.comparison, _who(row))) in standing:
                raise ReuseError(f"{where} is the second that {row.labeler} gave to one comparison")
            standing.add(key)
    k = config.labels.clips_per_comparison
    if any(len(row.clips) != k for row in answers):  # whatever that configuration says, or leaves out
        raise ReuseError(f"some comparisons are not of {k} clips, as those of this experiment will be")


def _at(data: Any, path: str) -> Any:
    for part in path.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data


def _file(folder: Path, name: str, sha256: str) -> bytes:
    path = folder / name
    if folder.resolve() not in path.resolve().parents:
        raise ReuseError(f"{name} lies outside the folder of the export")
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ReuseError(f"{path} is damaged: it has another SHA-256 sum than clips.jsonl says")
    return data


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_read(path, MOST_TABLE).decode("utf-8", "replace").splitlines(), start=1):
        yield f"{path}, line {number}", line


def _row(kind: type[Row], where: str, line: str) -> Row:
    try:
        return TypeAdapter(kind).validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        raise ReuseError(f"{where}: {'.'.join(map(str, first['loc']))} {first['msg']}") from None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read(path, MOST_CONFIG))
    except ReuseError:
        raise
    except (ValueError, RecursionError) as error:
        raise ReuseError(f"{path}: {error}") from None


def _read(path: Path, most: int = MOST_FILE) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise ReuseError(f"{path} is no file")
        if path.stat().st_size > most:
            raise ReuseError(f"{path} is larger than any such file of an export")
        return path.read_bytes()
    except OSError as error:
        raise ReuseError(f"{path} cannot be read: {error.strerror}; is this an export?") from None
