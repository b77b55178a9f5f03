"""Where a round stands, counted for every answer but not from the start each time."""

from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from services.labeler.kept import Kept
from shared import labels

FRESH_S = 1.0  # how long a count of a whole round is good for
NEAR = 1000  # labels to the end: from there on what is missing is counted each time


@dataclass
class Tally:
    """Counts labels: exactly when few are missing, else as they stood a second ago."""

    counts: Kept[int, tuple[int, int]] = field(default_factory=lambda: Kept(FRESH_S, 100))

    def of(self, session: Session, round_id: int) -> tuple[int, int]:
        """Return (labels given, labels wanted) of a round."""
        counted = self.counts.get(round_id)
        if counted is None:
            given, wanted = labels.progress(session, round_id)
            if wanted > 0:  # later on there will be more than none
                self.counts.put(round_id, (given, wanted))
            return given, wanted
        given, wanted = counted
        if wanted - given > NEAR:
            return given, wanted
        return max(wanted - labels.missing(session, round_id), 0), wanted
