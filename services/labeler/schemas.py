"""The shapes of what the API takes and gives."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MAX_ID = 2**31 - 1
Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00-\x1f\x7f]{1,80}$")]


class Body(BaseModel):
    """What a client sends: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class NewLabeler(Body):
    """Who wants to label."""

    name: Name | None = Field(None, description="empty: a friendly name is drawn")
    kind: Literal["person", "teacher"] = "person"


class Rename(Body):
    """A labeler's new name."""

    name: Name


class Token(Body):
    """A secret that somebody was given."""

    token: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class NewInvitation(Body):
    """Who is invited, and for how long."""

    name: Name | None = Field(None, description="what the newcomer is called; empty: they choose")
    labeler: Id | None = Field(None, description="id of a labeler who is to be let in again")
    days: int = Field(7, ge=1, le=90, description="days until it runs out")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.name is not None and self.labeler is not None:
            raise ValueError("give a name or a labeler's id, not both: a labeler has a name")
        return self


class Redeem(Token):
    """An invitation's token, and how the newcomer wants to be called."""

    name: Name | None = Field(None, description="empty: the name that the admin chose")


class ClaimBody(Body):
    """How many comparisons are asked for."""

    count: int = Field(ge=1, le=10)


class PreferenceBody(Body):
    """An answer: ranks by place shown, 0 the best, equal ranks a tie, null: cannot be compared."""

    comparison: Id
    ranks: Annotated[list[Annotated[int, Field(ge=0, le=100)]], Field(min_length=2, max_length=20)] | None
    seconds: float | None = Field(None, ge=0, le=1e7, allow_inf_nan=False)


class NewExperiment(Body):
    """The configuration of an experiment, as in `configs/*.toml`, and where it comes from."""

    config: dict[str, Any]
    origin: Annotated[str, StringConstraints(max_length=200)] | None = Field(
        None, description="a preset or the experiment it was copied from, for the history"
    )
    labels_from: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        None, description="an experiment of this system whose labels this one begins with, as its round 0"
    )


class Reason(Body):
    """Why an operator does what they do."""

    reason: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)] = (
        "an operator asked for it"
    )


class Me(BaseModel):
    """A labeler as they see themselves."""

    id: int
    name: str
    kind: str
    labels: int = Field(description="answers given that stand; a pair that was asked twice counts twice")


class Joined(BaseModel):
    """A new labeler; the token is shown this once."""

    id: int
    name: str
    kind: str
    token: str


class Welcome(BaseModel):
    """Whom an invitation is for."""

    name: str | None
    returning: bool = Field(description="it lets a labeler in who was here before")


class Invited(BaseModel):
    """An invitation as the admin sees it."""

    id: int
    name: str | None
    labeler: int | None = Field(description="whom it let in, or is to let in again")
    state: str = Field(description="open, used, expired or revoked")
    made_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


class InvitedNow(Invited):
    """A new invitation; its link is shown this once."""

    link: str


class LabelerSeen(BaseModel):
    """A labeler as the admin sees them."""

    id: int
    name: str
    kind: str
    labels: int = Field(description="answers given that stand")
    repeats: int = Field(description="answers to pairs that they were asked once more")
    repeated: int = Field(description="how many of those were as before")
    sessions: int = Field(description="browsers that are logged in")
    used_at: datetime | None = Field(description="when one of those last asked for something, to the hour")
    created_at: datetime


class Film(BaseModel):
    """A round and the video of its agent, once there is one."""

    round: int
    state: str
    video: str | None


class Work(BaseModel):
    """The worker's stage that is under way."""

    stage: str
    state: str = Field(description="offered (waits for a worker) or running")
    progress: float = Field(description="0 to 1")
    eta_s: float | None = Field(description="seconds to its end, if its pace is known")


class StageWait(BaseModel):
    """A stage that labelers wait for."""

    stage: str
    left_s: float | None = Field(description="seconds it may still take; null: nobody knows")


class Wait(BaseModel):
    """What has to happen before the next batch, and how long it may take."""

    stages: list[StageWait] = Field(description="what is left, in order; the first is under way")
    left_s: float | None = Field(description="seconds until all is done; null: nobody knows")
    is_last: bool = Field(description="no batch follows: the experiment ends with this")


class Agents(BaseModel):
    """The rounds of an experiment, and the videos of their agents."""

    round: int
    of: int
    rounds: list[Film]


class Status(BaseModel):
    """What everybody may know of an experiment: nothing about how good the agent or the model is.

    While people answer it does not speak of rounds either: how far the agent is might sway them.
    """

    name: str
    state: str
    instructions: str
    batch: str = Field(description="another one with every batch; it tells nothing else")
    round: int | None = Field(description="null while people answer")
    of: int | None = Field(description="null while people answer")
    round_state: str
    given: int = Field(description="labels of this round")
    wanted: int
    final_in_s: float | None = Field(description="seconds left to undo, once every label is in")
    attempt: Work | None
    wait: Wait | None = Field(description="while trainers work: what labelers wait for")
    rounds: list[Film] = Field(description="empty while people answer")


class ClipView(BaseModel):
    """A clip as it is shown."""

    id: int
    url: str
    steps: int
    fps: float


class ComparisonView(BaseModel):
    """A comparison handed to a labeler: clips in the order to be shown, left to right, row by row."""

    id: int
    batch: str = Field(description="the mark of its batch, as in the status: it tells batches apart, no more")
    clips: list[ClipView]
    expires_at: datetime


class OwnAnswer(BaseModel):
    """One of a labeler's own standing answers."""

    id: str
    ranks: list[int] | None = Field(description="by place shown, as it was given")
    comparison: ComparisonView


class OwnAnswers(BaseModel):
    """A labeler's own last answers in the current round, the newest first."""

    frozen: bool = Field(description="the round takes no more answers: these are final")
    answers: list[OwnAnswer]


class Claims(BaseModel):
    """The comparisons a labeler holds now, and where the round stands."""

    comparisons: list[ComparisonView]
    state: str
    experiment_state: str
    given: int
    wanted: int


class PracticePair(BaseModel):
    """A comparison to practise on: clips in the order to be shown, left to right."""

    id: int
    clips: list[ClipView]


class PracticeView(BaseModel):
    """Where a newcomer's practice stands."""

    done: int
    of: int = Field(description="practice pairs in all; 0: there is none")
    comparisons: list[PracticePair] = Field(description="those left, in order")


class Feedback(BaseModel):
    """What others answered to a practice pair."""

    others: list[int] = Field(description="the ranks that most gave, by place shown")
    most: int = Field(description="how many gave them")
    of: int = Field(description="how many people answered")
    agreed: bool = Field(description="the newcomer answered the same")


class Renewed(BaseModel):
    """A lease that goes on."""

    expires_at: datetime


class Counted(BaseModel):
    """Where the round stands after an answer."""

    given: int
    wanted: int


class ClipJudgement(BaseModel):
    """What a teacher judges a clip by, one number a step."""

    id: int
    judgement: list[float]


class RoundOf(BaseModel):
    """The round of a comparison, which labelers are not told."""

    round: int


class TeacherView(BaseModel):
    """A comparison's clips as a teacher judges them."""

    clips: list[ClipJudgement]


class Act(BaseModel):
    """Something the admin did."""

    id: int
    at: datetime
    actor: str
    address: str = Field(description="where it was asked for")
    action: str
    about: str | None = Field(description="the experiment, labeler or invitation it was done to")
    detail: dict[str, Any] | None = Field(description="why, or with what")


class Reusable(BaseModel):
    """An experiment whose labels another one can begin with."""

    name: str
    answers: int = Field(description="how many stand")
    given_with: dict[str, Any] = Field(description="what must be the same in the other, by dotted key")


class ChartView(BaseModel):
    """A chart: a table, what it says, and the figure that draws it."""

    id: str
    title: str
    columns: list[str]
    rows: list[list[str | float | int | datetime | None]]
    drawn: list[str] = Field(description="the columns that the figure shows over the first one")
    kind: Literal["lines", "bars", "stacked", "panels", "diagonal"]
    unit: str = Field(description="of the upward axis")
    says: list[str] = Field(description="sentences about the figures")
    warning: str | None
    figure: dict[str, Any] = Field(description="data and layout for Plotly")


class SeenClip(ClipView):
    """A clip with what the round's reward model says of it."""

    best: float | None = Field(description="predicted probability that it is preferred to all others")
    rewards: list[float] | None = Field(description="predicted reward of each step, normalised")


class GivenAnswer(BaseModel):
    """An answer as it is stored: ranks[i] belongs to clip i, shown[i] is the clip at place i."""

    labeler: str
    kind: str
    ranks: list[int] | None
    shown: list[int]
    said: str = Field(
        description="left, right, tie or incomparable; of more than two clips their places, as in 2 > 1 = 3"
    )
    seconds: float | None
    answered_at: datetime
    withdrawn_at: datetime | None


class SeenComparison(BaseModel):
    """A comparison with its answers, the withdrawn ones too."""

    id: int
    number: int
    held_out: bool
    labels_given: int
    labels_wanted: int
    clips: list[SeenClip]
    answers: list[GivenAnswer]


class ComparisonPage(BaseModel):
    """Some comparisons of a round; `next_after` asks for the following ones, null at the end."""

    total: int
    next_after: int | None
    comparisons: list[SeenComparison]
