"""Where a round stands, counted for every answer but not from the start each time."""

from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from services.labeler.kept import Kept
from shared import labels

LARGE = 1000  # labels: below that they are quickly counted
FRESH_S = 1.0  # how long a count of a large round is good for
NEAR = 1000  # labels to the end: from there on they are counted each time


@dataclass
class Tally:
    """Counts labels: exactly in small rounds and near a round's end, else as they stood a second ago."""

    counts: Kept[int, tuple[int, int]] = field(default_factory=lambda: Kept(FRESH_S, 100))

    def of(self, session: Session, round_id: int) -> tuple[int, int]:
        """Return (labels given, labels wanted) of a round."""
        counted = self.counts.get(round_id)
        if counted is not None:
            return counted
        given, wanted = labels.progress(session, round_id)
        if wanted > LARGE and wanted - given > NEAR:
            self.counts.put(round_id, (given, wanted))
        return given, wanted
