"""The standing answers of an experiment as values to count: by place shown, and by pair of clips."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import Comparison, Labeler, Preference, Round

WORDS = ("left", "right", "tie", "incomparable")


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
        """What was answered, by where the best clip was shown: `left`, …, or `order` of more than two."""
        if self.ranks is None:
            return "incomparable"
        if len(self.ranks) > 2:
            return "order"
        left, right = (self.ranks[index] for index in self.shown)
        return "tie" if left == right else "left" if left < right else "right"


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


def mix(answers: list[Answer]) -> Counter[str]:
    """Count the answers by their word."""
    return Counter(answer.word for answer in answers)


def units(answers: list[Answer], incomparable: bool = False) -> list[Mapping[str, int]]:
    """Return who said what of each pair of clips: −1 the first is better, 0 a tie, 1 the second is better.

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
