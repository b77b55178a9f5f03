"""The tables. `docs/data-model.md` draws them; `shared/migrations` creates them.

State columns of rounds, attempts and experiments are written by `rounds.py` alone; comparisons, leases and
preferences by `labels.py` and `handing_out.py` alone, asides by `asides.py` alone.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from shared.column_types import State, UTCDateTime
from shared.states import LIVE_ATTEMPTS, AttemptState, ExperimentState, RoundState


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can change them on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        datetime: UTCDateTime,
        # None is stored as NULL, not as JSON's null, so that IS NULL finds it.
        dict[str, Any]: JSON(none_as_null=True),
        list[int]: JSON(none_as_null=True),
        list[float]: JSON(none_as_null=True),
    }


class Experiment(Base):
    """A configuration and its rounds."""

    __tablename__ = "experiments"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)  # in the addresses of its pages
    config: Mapped[dict[str, Any]]  # an ExperimentConfig; it never changes
    state: Mapped[ExperimentState] = mapped_column(State(ExperimentState))  # what people want of it
    version: Mapped[int] = mapped_column(default=0)  # counts the changes of state
    reason: Mapped[str | None] = mapped_column(Text)  # why it ended
    created_at: Mapped[datetime]  # when it was created
    ended_at: Mapped[datetime | None]  # when it was finished or abandoned
    rounds: Mapped[list["Round"]] = relationship(order_by="Round.number", back_populates="experiment")


class Round(Base):
    """One turn of collect, label, train, train."""

    __tablename__ = "rounds"
    __table_args__ = (UniqueConstraint("experiment_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id"), index=True)
    number: Mapped[int]  # from 1
    state: Mapped[RoundState] = mapped_column(State(RoundState), index=True)  # where it stands
    failed_stage: Mapped[RoundState | None] = mapped_column(State(RoundState))  # where a retry goes back to
    version: Mapped[int] = mapped_column(default=0)  # counts the changes of state
    error: Mapped[str | None] = mapped_column(Text)  # of the attempt after which it was given up
    created_at: Mapped[datetime]  # when it began
    changed_at: Mapped[datetime]  # when its state last changed
    frozen_at: Mapped[datetime | None]  # when its labels became final
    label_set_sha256: Mapped[str | None] = mapped_column(String(64))  # the sum of all labels up to this round
    forgiven: Mapped[int] = mapped_column(default=0)  # attempts at this stage that no longer count as tries
    experiment: Mapped[Experiment] = relationship(back_populates="rounds")


class Attempt(Base):
    """One try of a worker at one stage of a round. Its id is the fence: it is claimed at most once."""

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("round_id", "stage", "number"),
        # At most one live attempt for a round, whatever happens: the database itself refuses a second.
        Index(
            "uq_attempts_live",
            "round_id",
            unique=True,
            sqlite_where=text(f"state IN ('{LIVE_ATTEMPTS[0]}', '{LIVE_ATTEMPTS[1]}')"),
            postgresql_where=text(f"state IN ('{LIVE_ATTEMPTS[0]}', '{LIVE_ATTEMPTS[1]}')"),
        ),
        CheckConstraint(f"state <> '{AttemptState.RUNNING}' OR lease_until IS NOT NULL", name="lease"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), index=True)
    stage: Mapped[RoundState] = mapped_column(State(RoundState))  # of the round, as it was offered
    number: Mapped[int]  # from 1, for this stage of this round
    state: Mapped[AttemptState] = mapped_column(State(AttemptState), index=True)  # where it stands
    not_before: Mapped[datetime]  # a failed stage is tried again after a pause
    hinted_at: Mapped[datetime | None]  # when a worker was last told of it
    hints: Mapped[int] = mapped_column(default=0)  # how often workers were told of it
    lease_until: Mapped[datetime | None]  # its worker must beat before then
    claimed_at: Mapped[datetime | None]  # when a worker took it
    first_step_at: Mapped[datetime | None]  # when the trainer process reported its first progress
    ended_at: Mapped[datetime | None]  # when it ended, however it ended
    worker: Mapped[dict[str, Any] | None]  # host, process, device, versions
    progress: Mapped[float] = mapped_column(default=0.0)  # 0 to 1
    metrics: Mapped[dict[str, Any] | None]  # of its training, the latest
    error: Mapped[str | None] = mapped_column(Text)  # why it did not succeed
    round: Mapped[Round] = relationship()


class Measurement(Base):
    """The metrics of an attempt on its way, some two hundred times at most: what curves are drawn of."""

    __tablename__ = "measurements"
    id: Mapped[int] = mapped_column(primary_key=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"), index=True)
    progress: Mapped[float]  # 0 to 1: where it was then
    metrics: Mapped[dict[str, Any]]  # what its trainer reported


class StoredArtifact(Base):
    """The official weights and videos of a round: one of each kind, written by its stage's one success."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("round_id", "kind"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"))
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"))
    kind: Mapped[str] = mapped_column(String(20))  # reward_model, predictions, agent, video
    key: Mapped[str] = mapped_column(Text, unique=True)  # where it lies in the store
    sha256: Mapped[str] = mapped_column(String(64))  # of its bytes
    size: Mapped[int] = mapped_column(BigInteger)  # bytes


class Checkpoint(Base):
    """Half-done training that is in the store; the newest of a stage is what its next attempt goes on from.

    Rows are deleted, after their files, once there is a newer one or the stage is over.
    """

    __tablename__ = "checkpoints"
    id: Mapped[int] = mapped_column(primary_key=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"), index=True)
    key: Mapped[str] = mapped_column(Text, unique=True)  # where it lies in the store
    sha256: Mapped[str] = mapped_column(String(64))  # of its bytes
    size: Mapped[int] = mapped_column(BigInteger)  # bytes
    stored_at: Mapped[datetime]  # when the database heard of it
    attempt: Mapped[Attempt] = relationship()


class Clip(Base):
    """A stored segment: the reward model sees the npz, people see the mp4."""

    __tablename__ = "clips"
    __table_args__ = (UniqueConstraint("round_id", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"))
    number: Mapped[int]  # from 1, in the round
    steps: Mapped[int]  # of the environment
    fps: Mapped[float]  # steps a second as people see them
    npz_key: Mapped[str] = mapped_column(Text)  # where observations and actions lie
    npz_sha256: Mapped[str] = mapped_column(String(64))  # of its bytes
    npz_size: Mapped[int]  # bytes
    mp4_key: Mapped[str] = mapped_column(Text)  # where the film lies
    mp4_sha256: Mapped[str] = mapped_column(String(64))  # of its bytes
    mp4_size: Mapped[int]  # bytes


class Judgement(Base):
    """What a teacher judges a clip by, one number a step. Only teachers read this table."""

    __tablename__ = "judgements"
    clip_id: Mapped[int] = mapped_column(ForeignKey("clips.id"), primary_key=True)
    per_step: Mapped[list[float]]  # one number a step


class Evaluation(Base):
    """The true returns of a round's agent. For people to read; nothing that learns sees them."""

    __tablename__ = "evaluations"
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempts.id"))
    true_returns: Mapped[list[float]]  # one for each episode
    mean: Mapped[float]  # of the true returns


class Comparison(Base):
    """Two or more clips shown together."""

    __tablename__ = "comparisons"
    __table_args__ = (
        UniqueConstraint("round_id", "number"),
        CheckConstraint("labels_given BETWEEN 0 AND labels_wanted", name="labels"),
        # Only what wants a label: the next one is found as quickly in a large round as in a small one.
        Index(
            "ix_comparisons_open",
            "round_id",
            "number",
            sqlite_where=text("labels_given < labels_wanted"),
            postgresql_where=text("labels_given < labels_wanted"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), index=True)
    number: Mapped[int]  # from 1, in the round
    held_out: Mapped[bool]  # kept out of training, to measure it
    labels_wanted: Mapped[int]  # how many labelers are to answer
    labels_given: Mapped[int] = mapped_column(default=0)  # how many answers stand
    clip_ids: Mapped[list[int]]  # the comparison's own order; what a labeler sees is drawn anew


class Labeler(Base):
    """A person or a teacher who answers."""

    __tablename__ = "labelers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)  # as they gave it
    kind: Mapped[str] = mapped_column(String(10))  # person, teacher
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)  # the token itself is not kept
    created_at: Mapped[datetime]  # when they joined
    imported_as: Mapped[str | None] = mapped_column(String(80))  # their name where their labels come from
    imported_from: Mapped[str | None] = mapped_column(Text)  # that experiment; nobody logs in as them


class Invitation(Base):
    """A link that lets one person in once: as a new labeler, or back in as one who lost their way in."""

    __tablename__ = "invitations"
    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)  # the token itself is in the link only
    name: Mapped[str | None] = mapped_column(String(80))  # a new labeler's, if the admin chose it
    labeler_id: Mapped[int | None] = mapped_column(  # who it let in, or is to let in again
        ForeignKey("labelers.id"), index=True
    )
    made_by: Mapped[str] = mapped_column(String(120))  # who invited
    created_at: Mapped[datetime]  # when it was made
    expires_at: Mapped[datetime]  # it lets nobody in from then on
    used_at: Mapped[datetime | None]  # when it let somebody in
    revoked_at: Mapped[datetime | None]  # when it was taken back


class BrowserSession(Base):
    """A browser that is logged in: its cookie holds a random token, of which the sum stands here."""

    __tablename__ = "sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)  # of the cookie's token
    labeler_id: Mapped[int | None] = mapped_column(ForeignKey("labelers.id"), index=True)  # NULL: the admin's
    admin_sha256: Mapped[str | None] = mapped_column(String(64))  # of the admin token: another one ends it
    created_at: Mapped[datetime]  # when it was logged in
    used_at: Mapped[datetime]  # when it last asked for something, to the hour
    expires_at: Mapped[datetime] = mapped_column(index=True)  # moved on with each use


class FailedLogIn(Base):
    """A wrong token at one of the doors, kept for minutes: so many, and the door stays shut for a while."""

    __tablename__ = "failed_logins"
    __table_args__ = (Index("ix_failed_logins_door_at", "door", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    door: Mapped[str] = mapped_column(String(12))  # admin, teacher, labeler, invitation
    address: Mapped[str] = mapped_column(String(45))  # the client's; of IPv6 the network (/64)
    at: Mapped[datetime]  # when


class Lease(Base):
    """A labeler's hold on a comparison, with the order in which the clips are shown to them."""

    __tablename__ = "leases"
    __table_args__ = (
        UniqueConstraint("comparison_id", "labeler_id"),
        # What a labeler has in hand, however much they have answered.
        Index(None, "labeler_id", "state"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparisons.id"))
    labeler_id: Mapped[int] = mapped_column(ForeignKey("labelers.id"))
    state: Mapped[str] = mapped_column(String(10))  # held, answered, skipped
    shown: Mapped[list[int]]  # shown[i] is the index in clip_ids of the clip at place i, from the left
    claimed_at: Mapped[datetime]  # when it was last handed out
    expires_at: Mapped[datetime]  # others may have it from then on


class Preference(Base):
    """One labeler's answer: ranks[i] belongs to clip_ids[i]; 0 is the best, equal ranks are ties."""

    __tablename__ = "preferences"
    __table_args__ = (
        Index(
            "uq_preferences_standing",
            "comparison_id",
            "labeler_id",
            unique=True,
            sqlite_where=text("withdrawn_at IS NULL"),
            postgresql_where=text("withdrawn_at IS NULL"),
        ),
    )
    id: Mapped[str] = mapped_column(
        String(36), primary_key=True
    )  # made by the client, so resending is harmless
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparisons.id"), index=True)
    labeler_id: Mapped[int] = mapped_column(ForeignKey("labelers.id"), index=True)
    ranks: Mapped[list[int] | None]  # None: the clips cannot be compared
    shown: Mapped[list[int]]  # the order in which the clips were shown
    seconds: Mapped[float | None]  # from shown to answered, as the client measured it
    answered_at: Mapped[datetime]  # when it arrived
    withdrawn_at: Mapped[datetime | None]  # when it was undone


class Aside(Base):
    """A comparison asked beside the labels, for practice or once more: its answer is never a label."""

    __tablename__ = "asides"
    __table_args__ = (
        UniqueConstraint("comparison_id", "labeler_id", "kind"),
        Index(None, "labeler_id", "state"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))  # practice, repeat (of the labeler's own answer)
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparisons.id"))
    labeler_id: Mapped[int] = mapped_column(ForeignKey("labelers.id"))
    state: Mapped[str] = mapped_column(String(10))  # open, answered, skipped
    shown: Mapped[list[int]]  # the order in which the clips are shown, as in a lease
    created_at: Mapped[datetime]  # when it was decided to ask
    asked_at: Mapped[datetime | None]  # when it was first handed out, if it is a repeat
    answer_id: Mapped[str | None] = mapped_column(String(36))  # the client's, so resending is harmless
    ranks: Mapped[list[int] | None]  # the answer, as in a preference; None: cannot be compared
    seconds: Mapped[float | None]  # from shown to answered, as the client measured it
    answered_at: Mapped[datetime | None]  # when the answer arrived


class Event(Base):
    """Append-only: every change of state, who made it, and why. The database refuses to change a row."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id"), index=True)
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))
    attempt_id: Mapped[int | None] = mapped_column(ForeignKey("attempts.id"))
    event: Mapped[str] = mapped_column(String(30))  # what happened
    source: Mapped[str | None] = mapped_column(String(20))  # the state before
    target: Mapped[str | None] = mapped_column(String(20))  # the state after
    actor: Mapped[str] = mapped_column(String(120))  # who did it
    at: Mapped[datetime]  # when
    detail: Mapped[dict[str, Any] | None]  # why, in words or values


class AdminAction(Base):
    """Append-only: everything the admin did, with who, when and from where. The database keeps each row."""

    __tablename__ = "admin_actions"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]  # when
    actor: Mapped[str] = mapped_column(String(120))  # who did it
    address: Mapped[str] = mapped_column(String(45))  # the client's; of IPv6 the network (/64)
    action: Mapped[str] = mapped_column(String(30))  # what was done
    about: Mapped[str | None] = mapped_column(String(120))  # to which experiment, labeler or invitation
    detail: Mapped[dict[str, Any] | None]  # why, in words or values
