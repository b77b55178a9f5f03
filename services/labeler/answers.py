"""The standing answers of an experiment as values to count: by place shown, and by two clips each."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from shared.asides import ANSWERED, REPEAT
from shared.models import Aside, Comparison, Labeler, Preference, Round

SIDES = ("left", "right")
PLACES = ("first", "second", "third", "fourth")


@dataclass(frozen=True)
class Answer:
    """One standing answer: ranks[i] belongs to the comparison's clip i, clip shown[i] stood at place i."""

    comparison: int
    round: int
    labeler: str
    ranks: list[int] | None
    shown: list[int]
    seconds: float | None
    at: datetime

    @property
    def word(self) -> str:
        """Where the best clip was shown: one of `places`; `tie` if several are best; or `incomparable`."""
        if self.ranks is None:
            return "incomparable"
        by_place = [self.ranks[index] for index in self.shown]
        best = min(by_place)
        if by_place.count(best) > 1:
            return "tie"
        return places(len(by_place))[by_place.index(best)]

    @property
    def said(self) -> str:
        """What was answered, as the labeler saw it: `left`, …, or the order of more than two clips."""
        if self.ranks is None or len(self.ranks) == 2:
            return self.word
        return in_order([self.ranks[index] for index in self.shown])


def places(clips: int) -> tuple[str, ...]:
    """Return what the places are called at which so many clips are shown."""
    return SIDES if clips == 2 else PLACES[:clips]


def in_order(ranks: list[int]) -> str:
    """Write an ordering with its clips numbered from 1, the best first: [1, 0, 1] is "2 > 1 = 3"."""
    ties = [
        [str(i) for i, other in enumerate(ranks, start=1) if other == rank] for rank in sorted(set(ranks))
    ]
    return " > ".join(" = ".join(tie) for tie in ties)


def standing(session: Session, experiment_id: int) -> list[Answer]:
    """Return every answer that was not withdrawn, oldest first."""
    query = (
        select(
            Preference.comparison_id, Round.number, Labeler.name, Preference.ranks, Preference.shown,
            Preference.seconds, Preference.answered_at,
        )
        .join(Comparison, Preference.comparison_id == Comparison.id)
        .join(Round, Comparison.round_id == Round.id)
        .join(Labeler, Preference.labeler_id == Labeler.id)
        .where(Round.experiment_id == experiment_id, Preference.withdrawn_at.is_(None))
        .order_by(Preference.answered_at, Preference.id)
    )  # fmt: skip
    return [Answer(*row) for row in session.execute(query)]


@dataclass(frozen=True)
class Repeat:
    """What a labeler answered to a comparison, and what they answered when they were asked once more."""

    labeler: str
    first: list[int] | None
    again: list[int] | None


def repeats(session: Session, experiment_id: int) -> list[Repeat]:
    """Return every repeat that was answered and whose first answer stands."""
    query = (
        select(Labeler.name, Preference.ranks, Aside.ranks)
        .join(Preference, Preference.labeler_id == Labeler.id)
        .join(Aside, _once_more())
        .join(Comparison, Aside.comparison_id == Comparison.id)
        .join(Round, Comparison.round_id == Round.id)
        .where(Round.experiment_id == experiment_id)
        .order_by(Aside.answered_at, Aside.id)
    )
    return [Repeat(*row) for row in session.execute(query)]


def repeats_by_labeler(session: Session) -> dict[int, tuple[int, int]]:
    """Return for each labeler's id how many repeats they answered as before, of how many, everywhere."""
    query = select(Preference.labeler_id, Preference.ranks, Aside.ranks).join(Aside, _once_more())
    found: dict[int, tuple[int, int]] = {}
    for labeler_id, first, again in session.execute(query):
        same, of = found.get(labeler_id, (0, 0))
        found[labeler_id] = (same + (first == again), of + 1)
    return found


def _once_more() -> ColumnElement[bool]:
    """Join an answer that stands with the answer to the repeat of its comparison."""
    same = (Aside.comparison_id == Preference.comparison_id) & (Aside.labeler_id == Preference.labeler_id)
    standing = Preference.withdrawn_at.is_(None)
    return and_(same, standing, Aside.kind == REPEAT, Aside.state == ANSWERED)


def mix(answers: list[Answer]) -> Counter[str]:
    """Count the answers by their word."""
    return Counter(answer.word for answer in answers)


def units(answers: list[Answer], incomparable: bool = False) -> list[Mapping[str, int]]:
    """Return who said what of any two clips of a comparison: −1 the first is better, 0 a tie, 1 the second.

    In the comparison's own order of clips, so that a labeler who leans to one side does not look like one who
    agrees. Incomparable has no place in this order and is left out, unless it is asked for: then it is 2, as
    a mere name.
    """
    found: dict[tuple[int, int, int], dict[str, int]] = defaultdict(dict)
    for answer in answers:
        ranks = answer.ranks
        if ranks is None and not incomparable:
            continue
        for i, j in combinations(range(len(answer.shown)), 2):
            said = 2 if ranks is None else (ranks[i] > ranks[j]) - (ranks[i] < ranks[j])
            found[answer.comparison, i, j][answer.labeler] = said
    return list(found.values())
