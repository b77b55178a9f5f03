"""What a trainer is asked to do and what it answers: the contract between workers and trainer processes.

A stage is a function of its job: the same job gives the same result, bit for bit, on one kind of machine. A
job names its inputs by key and SHA-256 sum in the store, and holds no address of a database or queue, so a
trainer process can neither change the state of a round nor read what it should not.

`to_json` and `from_json` carry these dataclasses through the pipe to the trainer process and back.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from pydantic import TypeAdapter

Metrics = dict[str, Any]


class StageStopped(Exception):
    """A stage was asked to stop and did: another attempt begins anew, or from its last checkpoint."""


@dataclass(frozen=True)
class Artifact:
    """A file in the store. It is official only when the database points at it."""

    kind: str  # "reward_model", "predictions", "agent", "video", "clip_npz", "clip_mp4", "checkpoint"
    key: str
    sha256: str
    size: int  # bytes


class Store(Protocol):
    """What a stage needs of a store; `shared.storage` has the real ones."""

    def put(self, key: str, data: bytes) -> None:
        """Store `data` under `key`."""

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Return what lies under `key`; an error if its sum is not `sha256`."""


def put_artifact(store: Store, kind: str, key: str, data: bytes) -> Artifact:
    """Store `data` and return what the database keeps of it."""
    store.put(key, data)
    return Artifact(kind, key, hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True)
class CollectJob:
    """Play the newest agent, cut its play into segments, choose comparisons, store their clips."""

    attempt_id: int
    round_number: int  # from 1
    seed: int
    prefix: str  # every key this attempt stores begins with it; unique to the attempt
    config: dict[str, Any]  # an ExperimentConfig
    log_dir: str | None  # TensorBoard's folder for this stage
    agent: Artifact | None  # of the round before; None in round 1
    reward_model: Artifact | None
    run: str = ""  # the experiment's name with trackers, unlike any other's
    past_clip: Artifact | None = None  # one of those that the experiment began with, in round 1


@dataclass(frozen=True)
class ClipRecord:
    """A stored segment."""

    npz: Artifact  # observations and actions, for the reward model; no reward of the environment's
    mp4: Artifact  # what people see
    steps: int
    fps: float
    judgement: list[float]  # what a teacher judges by, one number a step; kept in the teachers' own table


@dataclass(frozen=True)
class ComparisonRecord:
    """Two or more clips to be shown together: indices into the result's clips."""

    clips: list[int]
    held_out: bool  # kept out of training, drawn at random


@dataclass(frozen=True)
class CollectResult:
    """What collecting gives."""

    clips: list[ClipRecord]
    comparisons: list[ComparisonRecord]
    metrics: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class LabelRecord:
    """One preference of the frozen set: ranks[i] belongs to clips[i], 0 is the best, equal ranks are ties."""

    clips: list[Artifact]
    ranks: list[int]
    held_out: bool
    labeler: str
    round_number: int


@dataclass(frozen=True)
class TrainRewardJob:
    """Train the reward model on every preference given so far (incomparable ones left out)."""

    attempt_id: int
    round_number: int
    seed: int
    prefix: str
    config: dict[str, Any]
    log_dir: str | None
    labels: list[LabelRecord]
    reward_model: Artifact | None  # of the round before
    agent: Artifact | None  # of the round before
    run: str = ""
    checkpoint: Artifact | None = None  # of an earlier attempt, to go on from


@dataclass(frozen=True)
class TrainRewardResult:
    """What training the reward model gives."""

    reward_model: Artifact
    metrics: Metrics = field(default_factory=dict)
    predictions: Artifact | None = None  # what it says of the round's comparisons, for people to look at


@dataclass(frozen=True)
class TrainAgentJob:
    """Train the agent on the reward model's predictions, evaluate it, film it."""

    attempt_id: int
    round_number: int
    seed: int
    prefix: str
    config: dict[str, Any]
    log_dir: str | None
    reward_model: Artifact
    agent: Artifact | None  # of the round before
    run: str = ""
    checkpoint: Artifact | None = None  # of an earlier attempt, to go on from


@dataclass(frozen=True)
class TrainAgentResult:
    """What training the agent gives. The true return goes to the database alone, for people to read."""

    agent: Artifact
    video: Artifact
    true_returns: list[float]  # one for each evaluation episode
    metrics: Metrics = field(default_factory=dict)


Job = CollectJob | TrainRewardJob | TrainAgentJob
Result = CollectResult | TrainRewardResult | TrainAgentResult

JOBS: dict[str, type[Job]] = {
    "collecting": CollectJob,
    "training_reward": TrainRewardJob,
    "training_agent": TrainAgentJob,
}
RESULTS: dict[str, type[Result]] = {
    "collecting": CollectResult,
    "training_reward": TrainRewardResult,
    "training_agent": TrainAgentResult,
}


def to_json(value: Job | Result) -> dict[str, Any]:
    """Return `value` as plain JSON values."""
    return asdict(value)


def job_from_json(stage: str, data: dict[str, Any]) -> Job:
    """Return the job of `stage`; a pydantic ValidationError if `data` is not one."""
    return TypeAdapter(JOBS[stage]).validate_python(data)


def result_from_json(stage: str, data: dict[str, Any]) -> Result:
    """Return the result of `stage`; a pydantic ValidationError if `data` is not one."""
    return TypeAdapter(RESULTS[stage]).validate_python(data)


def labels_sha256(labels: list[LabelRecord]) -> str:
    """Return the sum of what a reward model was trained on: clips, ranks, who said so and when."""
    digest = hashlib.sha256()
    for label in labels:
        clips = [clip.sha256 for clip in label.clips]
        line = [label.round_number, label.labeler, clips, label.ranks, label.held_out]
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()


def seed_for(*parts: object) -> int:
    """Derive a 31-bit seed from `parts` (experiment seed, round, stage, …): stable over runs and machines."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
