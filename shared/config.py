"""The configuration of an experiment: what stands in `configs/*.toml`, checked before anything starts.

Every field has a default except the environment, a description that the documentation prints, and bounds that
turn a slip into an error that names the key. A configuration is stored with its experiment and never changes.
"""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}$"
DONKEY_KONG = "ALE/DonkeyKong-v5"  # the game whose teacher reads more than the score


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, why, and what would do.

    `errors` says the same by dotted key; the empty key is the whole file.
    """

    def __init__(self, message: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.errors = errors or {}


class Section(BaseModel):
    """A table of the file. Unknown keys are errors, so that a slip of the pen never passes unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def _numbers(value: Any) -> Any:
    """Take "0, 2, 3" for a list too, as a form sends it."""
    return value.strip("[]()").replace(",", " ").split() if isinstance(value, str) else value


class SegmentsConfig(Section):
    """How the agent's play is cut into the segments that people compare."""

    length: int = Field(25, ge=2, le=1000, description="steps in a segment")
    collect_steps: int = Field(
        8192, ge=1, le=10_000_000, description="environment steps played in a round to choose from"
    )
    collect_envs: int = Field(
        16, ge=1, le=4096, description="environments they are played in; in fewer, the play is longer"
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of random actions in the last of them, rising evenly from none in the first",
    )
    noise_steps: int = Field(
        1, ge=1, le=1000, description="steps for which such an action is kept up, so that it leads somewhere"
    )
    noise_above: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="they begin where the predicted reward is above this quantile of what it was of late; "
        "at 0 anywhere",
    )
    choice: Literal["uniform", "disagreement", "difference", "novelty"] = Field(
        "uniform",
        description="how comparisons are chosen: at random, where the reward ensemble disagrees most, "
        "where it sees the largest difference, so that fewer are ties, or where a clip is least like those "
        "that were labeled before",
    )
    chosen: float = Field(
        1.0, ge=0, le=1, description="share of the comparisons that are chosen so; the others are random"
    )
    candidates: int = Field(
        10, ge=1, le=1000, description="candidates for each comparison, of which the best are chosen"
    )
    fps: float | None = Field(
        None, gt=0, le=240, description="frames a second that people see; the environment's own if absent"
    )


class LabelsConfig(Section):
    """How many answers are asked for, and how."""

    comparisons_per_round: int = Field(20, ge=1, le=100_000, description="comparisons in a round")
    clips_per_comparison: int = Field(
        2, ge=2, le=4, description="clips that are compared at once: two side by side, three or four ranked"
    )
    comparisons_first_round: int | None = Field(
        None, ge=1, le=100_000, description="the same for round 1, if different"
    )
    labels_per_comparison: int = Field(
        1, ge=1, le=20, description="how many labelers answer the same comparison"
    )
    lease_s: float = Field(
        120, gt=0, le=604_800, description="seconds a labeler keeps a comparison without a sign of life"
    )
    undo_grace_s: float = Field(
        5, ge=0, le=86_400, description="seconds after a person's last answer in which it can still be undone"
    )
    practice: int = Field(
        0,
        ge=0,
        le=20,
        description="practice pairs a person does before the first real one, out of earlier rounds; told "
        "afterwards what most people answered",
    )
    repeats: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of a person's answers that are asked for again unannounced, to see whether they "
        "agree with themselves; no labels",
    )
    instructions: str = Field(
        "Which clip is closer to what you want the agent to do?",
        description="what labelers are told (Markdown)",
    )


class RewardModelConfig(Section):
    """The reward model and its training; the fields are those of `reward_model.Args`."""

    members: int = Field(3, ge=1, le=50, description="networks in the ensemble")
    hidden: int = Field(32, ge=1, le=16_384, description="units in each of the two hidden layers")
    learning_rate: float = Field(3e-3, gt=0, description="AdamW's step size")
    weight_decay: float = Field(1e-4, ge=0, description="AdamW's weight decay")
    epochs: int = Field(80, ge=1, le=100_000, description="passes over the label set in a round")
    final_epochs: int | None = Field(
        None, ge=1, le=100_000, description="the same for the last round, if different"
    )
    held_out: float = Field(
        0.1, ge=0, lt=1, description="fraction of comparisons kept out of training, at random"
    )
    error_rate: float = Field(
        0.1, ge=0, lt=1, description="share of answers taken to be given at random, right or wrong alike"
    )
    smooth: bool = Field(
        False,
        description="let that share smooth the answers instead (label smoothing): no preference is certain, "
        "so what is seen often comes to count no more than what is seen seldom",
    )
    pessimism: float = Field(
        0.0, ge=0, description="how many of the ensemble's deviations are taken off its mean reward"
    )
    restart: bool = Field(True, description="begin every round with a fresh ensemble, not the last round's")
    batch_size: int | None = Field(
        None, ge=1, description="comparisons in a gradient step; all of them if absent"
    )
    bfloat16: bool = Field(False, description="compute the convolutions for frames in bfloat16")


class AgentConfig(Section):
    """The agent (PPO) and its training; the fields are those of `ppo.Args`."""

    num_envs: int = Field(16, ge=1, le=4096, description="environments played side by side")
    num_steps: int = Field(64, ge=1, le=100_000, description="steps in each environment between two updates")
    total_steps: int = Field(8192, ge=1, description="environment steps in a round")
    final_steps: int | None = Field(None, ge=1, description="the same for the last round, if different")
    update_epochs: int = Field(10, ge=1, description="passes over a rollout in an update")
    minibatch_size: int = Field(256, ge=1, description="samples in a gradient step")
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step size")
    anneal: Literal["every_round", "last_round", "never"] = Field(
        "last_round", description="when the step size falls linearly to zero"
    )
    anneal_entropy: bool = Field(False, description="let the entropy bonus fall with the step size")
    restart: bool = Field(False, description="begin every round with a fresh agent, not the last round's")
    restart_rounds: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="rounds that begin with a fresh agent, which may find what the one before avoids"
    )
    restart_steps: int | None = Field(
        None, ge=1, description="environment steps in such a round, if different"
    )
    final_restart: bool = Field(
        False,
        description="begin the last round with a fresh agent: it learns from the final reward model alone",
    )
    checkpoint_steps: int = Field(
        250_000,
        ge=1,
        description="environment steps after which training stores a checkpoint and begins fresh episodes",
    )
    hidden: int = Field(
        64,
        ge=1,
        le=16_384,
        description="units in each of the two hidden layers; for frames, in the one after the convolutions",
    )
    linger: int = Field(
        10,
        ge=0,
        description="steps for which the agent goes on seeing the end of an episode that ended itself",
    )
    gamma: float = Field(0.98, gt=0, lt=1, description="discount factor")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="λ of generalised advantage estimation")
    clip_coef: float = Field(0.2, gt=0, description="PPO's clipping range")
    ent_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    bfloat16: bool = Field(False, description="compute the convolutions for frames in bfloat16")

    _in_words = field_validator("restart_rounds", mode="before")(_numbers)


class AtariConfig(Section):
    """How a game of Atari (`ALE/Pong-v5` and the like) is prepared; nothing else reads it."""

    frame_size: int = Field(84, ge=36, le=210, description="pixels of a side to which frames are reduced")
    sticky_actions: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability that the console repeats the last action instead of a new one",
    )
    actions: tuple[Annotated[int, Field(ge=0, le=17)], ...] | None = Field(
        None,
        min_length=2,
        max_length=18,
        description="numbers of the actions the agent may take; all if absent",
    )
    max_frames: int = Field(27_000, ge=1000, description="frames after which a game is cut off, 60 a second")

    _in_words = field_validator("actions", mode="before")(_numbers)


class EvaluationConfig(Section):
    """How the agent's true return is measured. Nothing that learns ever sees it."""

    episodes: int = Field(100, ge=1, le=10_000, description="episodes played at the end of each round")
    actions: Literal["likeliest", "drawn"] = Field(
        "likeliest",
        description="what is played: the policy's likeliest action, or one drawn from it, as in training",
    )
    solved_return: float | None = Field(None, description="mean true return that counts as solved")
    stop_when_solved: bool = Field(True, description="finish the experiment in the round that reaches it")


class ExperimentConfig(Section):
    """A whole experiment: what `configs/*.toml` holds."""

    name: str = Field(description="its name, in the addresses of its pages", pattern=NAME_PATTERN)
    env_id: str = Field(description="the Gymnasium environment the agent plays", min_length=1)
    seed: int = Field(1, ge=0, lt=2**31, description="the seed that every random draw is derived from")
    rounds: int = Field(5, ge=1, le=10_000, description="rounds after which the experiment is finished")
    segments: SegmentsConfig = SegmentsConfig()
    labels: LabelsConfig = LabelsConfig()
    reward_model: RewardModelConfig = RewardModelConfig()
    agent: AgentConfig = AgentConfig()
    atari: AtariConfig = AtariConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _rollout_holds_a_minibatch(self) -> Self:
        rollout = self.agent.num_envs * self.agent.num_steps
        if self.agent.minibatch_size > rollout:
            raise ValueError(
                f"agent.minibatch_size ({self.agent.minibatch_size}) is larger than a rollout "
                f"(num_envs × num_steps = {rollout})"
            )
        return self

    @model_validator(mode="after")
    def _donkey_kong_is_judged(self) -> Self:
        if self.env_id == DONKEY_KONG and self.atari.sticky_actions:
            raise ValueError(
                "Donkey Kong needs atari.sticky_actions = 0: its teacher repeats the play exactly"
            )
        return self

    def comparisons(self, round_number: int) -> int:
        """Return how many comparisons round `round_number` (from 1) asks for."""
        first = self.labels.comparisons_first_round
        return first if round_number == 1 and first is not None else self.labels.comparisons_per_round

    def begins_anew(self, round_number: int) -> bool:
        """Return whether round `round_number` (from 1) trains a fresh agent, not the last round's."""
        last = round_number == self.rounds
        return (
            self.agent.restart
            or round_number in self.agent.restart_rounds
            or (last and self.agent.final_restart)
        )

    def agent_steps(self, round_number: int) -> int:
        """Return for how many environment steps the agent is trained in round `round_number` (from 1)."""
        if round_number == self.rounds and self.agent.final_steps:
            return self.agent.final_steps
        if round_number in self.agent.restart_rounds and self.agent.restart_steps:
            return self.agent.restart_steps
        return self.agent.total_steps

    def agent_steps_before(self, round_number: int) -> int:
        """Return for how many environment steps agents were trained before round `round_number`."""
        return sum(self.agent_steps(number) for number in range(1, round_number))

    def label_budget(self) -> int:
        """Return how many labels the whole experiment asks for at most."""
        per_comparison = self.labels.labels_per_comparison
        return per_comparison * sum(self.comparisons(number) for number in range(1, self.rounds + 1))


def parse(data: dict[str, Any], source: str = "the configuration") -> ExperimentConfig:
    """Check `data`; a ConfigError lists every key that is wrong and why."""
    try:
        return ExperimentConfig.model_validate(data)
    except ValidationError as error:
        wrong = {
            ".".join(str(part) for part in item["loc"]): _explain(item["type"], item["msg"], item["loc"])
            for item in error.errors()
        }
        lines = [f"  {key or 'the whole file'}: {why}" for key, why in wrong.items()]
        raise ConfigError("\n".join([f"{source} cannot be used:", *lines]), wrong) from None


def load(path: Path, overrides: dict[str, Any] | None = None) -> ExperimentConfig:
    """Read and check a TOML file; `overrides` maps dotted keys (`agent.gamma`) to new values."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration {path}; configs/ holds the ready-made ones") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    return parse(changed(data, overrides or {}), str(path))


def changed(data: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Change values of a configuration in place, by dotted key; return it."""
    for key, value in overrides.items():
        *tables, leaf = key.split(".")
        table = data
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{key}: {part} is not a table")
        table[leaf] = value
    return data


def presets(folder: Path = Path("configs")) -> dict[str, ExperimentConfig]:
    """Return the ready-made configurations by name, the files in `folder`; ConfigError if one is wrong."""
    return {path.stem: load(path) for path in sorted(folder.glob("*.toml"))}


def parse_overrides(pairs: list[str] | None) -> dict[str, Any]:
    """Turn `agent.gamma=0.9` and the like into keys and values; the values are read as TOML, else as text."""
    values: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"--set {pair}: write it as key=value, for instance --set agent.gamma=0.9")
        try:
            values[key] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key] = text
    return values


def _explain(kind: str, message: str, path: tuple[int | str, ...]) -> str:
    if kind != "extra_forbidden":
        return message.removeprefix("Value error, ")
    fields = _fields_beside(path)
    close = get_close_matches(str(path[-1]), fields, n=1)
    return "there is no such key" + (
        f"; did you mean {close[0]}?" if close else f"; known: {', '.join(fields)}"
    )


def _fields_beside(path: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = ExperimentConfig
    for part in path[:-1]:
        annotation = model.model_fields[str(part)].annotation
        assert isinstance(annotation, type)
        model = annotation
    return list(model.model_fields)
