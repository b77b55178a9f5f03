"""The state machine of rounds, attempts and experiments: the one table that says what may follow what.

Standard library only. `shared/rounds.py` is the only writer of these states and asks this table before every
write; the diagrams in the documentation and on the pages are drawn from it by `mermaid()`.
"""

from dataclasses import dataclass
from enum import StrEnum


class RoundState(StrEnum):
    """Where a round stands. The first four are its stages, in order."""

    COLLECTING = "collecting"
    LABELING = "labeling"
    TRAINING_REWARD = "training_reward"
    TRAINING_AGENT = "training_agent"
    DONE = "done"
    FAILED = "failed"


class AttemptState(StrEnum):
    """One try of a worker at one stage of a round."""

    OFFERED = "offered"  # waits for a worker; a hint is on its way
    RUNNING = "running"  # a worker holds its lease
    SUCCEEDED = "succeeded"  # its result is the stage's result
    FAILED = "failed"  # its worker reported an error
    EXPIRED = "expired"  # its worker stopped beating
    RELEASED = "released"  # given back without blame: a pause, or a worker that was asked to stop


class ExperimentState(StrEnum):
    """What people want of an experiment."""

    RUNNING = "running"
    PAUSED = "paused"
    FINISHED = "finished"
    ABANDONED = "abandoned"


@dataclass(frozen=True)
class Transition:
    """One row of the table: `event` takes a round from any state in `sources` to `target`."""

    event: str
    sources: tuple[RoundState, ...]
    target: RoundState | None  # None: the stage that failed, remembered in the round
    when: str


STAGES = (RoundState.COLLECTING, RoundState.LABELING, RoundState.TRAINING_REWARD, RoundState.TRAINING_AGENT)
WORKER_STAGES = (RoundState.COLLECTING, RoundState.TRAINING_REWARD, RoundState.TRAINING_AGENT)
LIVE_ATTEMPTS = (AttemptState.OFFERED, AttemptState.RUNNING)

ROUND_TABLE = (
    Transition(
        "collected", (RoundState.COLLECTING,), RoundState.LABELING, "comparisons and clips are stored"
    ),
    Transition(
        "labeled", (RoundState.LABELING,), RoundState.TRAINING_REWARD, "every label is in; the set is frozen"
    ),
    Transition(
        "reward_trained", (RoundState.TRAINING_REWARD,), RoundState.TRAINING_AGENT, "weights are stored"
    ),
    Transition(
        "agent_trained", (RoundState.TRAINING_AGENT,), RoundState.DONE, "weights and video are stored"
    ),
    Transition("gave_up", WORKER_STAGES, RoundState.FAILED, "too many attempts failed"),
    Transition("retried", (RoundState.FAILED,), None, "an operator asked for another try"),
)

# The event that the successful end of a worker's stage means.
COMPLETES = {
    RoundState.COLLECTING: "collected",
    RoundState.TRAINING_REWARD: "reward_trained",
    RoundState.TRAINING_AGENT: "agent_trained",
}

# The queue, and so the kind of worker, that serves a stage.
QUEUES = {
    RoundState.COLLECTING: "agent_trainer",
    RoundState.TRAINING_REWARD: "reward_trainer",
    RoundState.TRAINING_AGENT: "agent_trainer",
}

ATTEMPT_TABLE: dict[AttemptState, tuple[AttemptState, ...]] = {
    AttemptState.OFFERED: (AttemptState.RUNNING, AttemptState.RELEASED),
    AttemptState.RUNNING: (
        AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.EXPIRED, AttemptState.RELEASED,
    ),
}  # fmt: skip

EXPERIMENT_TABLE: dict[ExperimentState, tuple[ExperimentState, ...]] = {
    ExperimentState.RUNNING: (ExperimentState.PAUSED, ExperimentState.FINISHED, ExperimentState.ABANDONED),
    ExperimentState.PAUSED: (ExperimentState.RUNNING, ExperimentState.FINISHED, ExperimentState.ABANDONED),
}


def target(event: str, state: RoundState, failed_stage: RoundState | None = None) -> RoundState:
    """Return the state that `event` leads to from `state`; ValueError if the table has no such row."""
    for row in ROUND_TABLE:
        if row.event == event and state in row.sources:
            if row.target is not None:
                return row.target
            if failed_stage in WORKER_STAGES:
                return failed_stage
    raise ValueError(f"a round that is {state} cannot be {event}")


def mermaid() -> str:
    """Draw the table of rounds as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {RoundState.COLLECTING}"]
    for row in ROUND_TABLE:
        for source in row.sources:
            for to in (row.target,) if row.target else WORKER_STAGES:
                lines.append(f"    {source} --> {to}: {row.event}")
    return "\n".join([*lines, f"    {RoundState.DONE} --> [*]"])
