"""What the fault suite needs of a running system, be it of processes or of containers."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shared.database import Database
from shared.models import Attempt
from shared.settings import Settings
from shared.states import RoundState


class System(Protocol):
    """A running system: its settings as they hold from outside, and our own way into its database."""

    settings: Settings
    database: Database
    striker: ThreadPoolExecutor  # in which faults strike

    @property
    def url(self) -> str:
        """Where the labeler answers."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault; `strike(system, victim, draw)` returns when the fault is over.

    What takes a while to take hold is in `begin(system, victim)`: time counts from its end.
    """

    name: str
    strike: Callable[[Any, Any, random.Random], None]
    stages: tuple[RoundState, ...]
    meanwhile: bool = False  # others must go on while it lasts: recovery counts from its begin, not its end
    hits: str | None = None  # the part that must be up again afterwards, if not a worker
    begin: Callable[[Any, Any], None] | None = None


@dataclass(frozen=True)
class Flavour:
    """How one kind of system is run, struck and looked at."""

    running: Callable[[Path], AbstractContextManager[Any]]  # everything it writes in the folder
    available: Callable[[Any], tuple[list[Kind], list[str]]]  # what can be done here, why the rest can't
    find_victim: Callable[[Any, Kind, RoundState, Attempt | None, random.Random], Any]
    work: dict[str, Any]  # what an experiment is to do, so that faults strike in the middle of its stages
    goes_round: Callable[[Any, float], bool]  # whether the coordinator has gone round since that moment
