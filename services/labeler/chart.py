"""A chart: a table first, with sentences about it. `figures.py` draws it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Cell = str | float | int | datetime | None


@dataclass
class Chart:
    """A table and how to draw it: the first column across, the columns named in `drawn` up."""

    id: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    drawn: list[str]
    kind: Literal["lines", "bars", "stacked", "panels", "diagonal"] = "lines"
    unit: str = ""  # of the upward axis; each of several panels has its own
    says: list[str] = field(default_factory=list)
    warning: str | None = None
    empty: str = "There is nothing to show yet."  # said instead, as long as there is no figure
    bar_min: int | None = None  # minutes of a bar, where the first column is a time

    @property
    def known(self) -> bool:
        """Whether there is anything to draw."""
        return any(self.has(name) for name in self.drawn)

    def has(self, name: str) -> bool:
        """Whether a column has any value."""
        place = self.columns.index(name)
        return any(row[place] is not None for row in self.rows)
