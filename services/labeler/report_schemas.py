"""The shapes of what an administrator is told of experiments. What is made in `report.py`, field by field."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Told(BaseModel):
    """A field that is not described yet gets through; a test finds it."""

    model_config = ConfigDict(extra="allow")


class ExperimentBrief(Told):
    """An experiment, and how it ended."""

    name: str
    state: str = Field(description="running, paused, finished or abandoned")
    reason: str | None = Field(description="why it ended")
    created_at: datetime
    ended_at: datetime | None


class ExperimentRow(ExperimentBrief):
    """An experiment in a list, with where it stands."""

    id: int
    round: int = Field(description="the newest; 0 is the labels it began with")
    of: int = Field(description="rounds in all")
    round_state: str
    given: int = Field(description="labels of this round")
    wanted: int
    progress: float | None = Field(description="0 to 1, of the worker's stage that is under way")
    last_event: int = Field(description="id of its newest change")


class GivenLabels(Told):
    """The labels of a round."""

    given: int = Field(description="that stand")
    wanted: int
    withdrawn: int


class StageSpan(Told):
    """A stay of a round in a stage."""

    stage: str
    began_at: datetime
    ended_at: datetime | None = Field(description="null where the round is now")
    seconds: float
    attempts: list[int] = Field(description="ids")
    says: str | None = Field(description="in words: what it does or waits for, or why it failed")


class TrueReturn(Told):
    """How the environment itself scores a round's agent."""

    mean: float
    true_returns: list[float] = Field(description="of each evaluation episode")


class StoredFile(Told):
    """A file in the store."""

    key: str
    sha256: str
    size: int


class AttemptView(Told):
    """One try of a worker at one stage."""

    id: int
    stage: str
    number: int
    state: str
    progress: float = Field(description="0 to 1")
    hints: int = Field(description="how often a worker was told")
    not_before: datetime
    lease_until: datetime | None
    claimed_at: datetime | None
    first_step_at: datetime | None
    ended_at: datetime | None
    worker: dict[str, Any] | None = Field(description="host, process, device, versions, git revision")
    metrics: dict[str, Any] | None
    error: str | None


class RoundReport(Told):
    """A round. Number 0 is the labels that the experiment began with."""

    number: int
    state: str
    failed_stage: str | None
    error: str | None
    created_at: datetime
    changed_at: datetime
    frozen_at: datetime | None = Field(description="when its label set became final")
    label_set_sha256: str | None
    labels: GivenLabels
    seconds: dict[str, float] = Field(description="by stage")
    timeline: list[StageSpan]
    metrics: dict[str, dict[str, Any]] = Field(description="by stage, under TensorBoard's names")
    evaluation: TrueReturn | None
    artifacts: dict[str, StoredFile] = Field(description="by kind: reward_model, predictions, agent, video")
    video: str | None = Field(description="its address")
    attempts: list[AttemptView]


class LabelerRow(Told):
    """How much somebody gave to an experiment."""

    name: str
    kind: str
    labels: int


class EventRow(Told):
    """Something that was done to an experiment, or a change of state in it."""

    id: int
    event: str
    round: int | None
    actor: str
    at: datetime
    detail: dict[str, Any] | None
    source: str | None
    target: str | None
    attempt_id: int | None


class ExperimentReport(ExperimentBrief):
    """All that is known of an experiment."""

    config: dict[str, Any] = Field(description="its configuration, every default filled in")
    rounds: list[RoundReport]
    labelers: list[LabelerRow]
    history: list[EventRow] = Field(description="its own last fifty events, retries too, oldest first")


class Ended(Told):
    """How many browsers were logged out."""

    ended: int


class Health(Told):
    """That all is well; anything else is a problem."""

    status: str
