"""The coordinator: a plain loop that repairs. It hints again at unclaimed attempts, gives up silent workers,
and closes labeling when the grace for undoing has passed. Everything else moves without it.

One coordinator works; others wait for its lock, an advisory lock on Postgres, a locked file beside SQLite.
"""

import fcntl
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import and_, exists, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared import logs, rounds
from shared.alive import touch
from shared.broker import Broker
from shared.database import Database, now
from shared.models import Attempt, Comparison, Experiment, Round
from shared.settings import Settings, load_settings
from shared.states import LIVE_ATTEMPTS, STAGES, AttemptState, ExperimentState, RoundState
from shared.transitions import StaleState

log = logging.getLogger(__name__)

LOCK_ID = 0x10C45739  # of Postgres's advisory lock: any number, the same in every coordinator
WAIT_S = 1.0  # between two tries to become the coordinator, or to reach the database
SLOW_SWEEP_S = 5.0  # all live rounds are swept this often, even if the quick look finds nothing to do

Reader = Callable[[], AbstractContextManager[Session]]

_LIVE = and_(Attempt.round_id == Round.id, Attempt.state.in_(LIVE_ATTEMPTS))
_UNLABELED = exists().where(
    Comparison.round_id == Round.id, Comparison.labels_given < Comparison.labels_wanted
)
# The rounds that do not wait for people, and what says whether they are due. Made once, as it is asked often.
MOVING = (
    select(
        Round.id, Round.state, Experiment.state, Attempt.state, Attempt.lease_until, Attempt.hinted_at,
        Attempt.hints, Attempt.not_before,
    )
    .join(Experiment)
    .outerjoin(Attempt, _LIVE)
    .where(
        Experiment.state.in_((ExperimentState.RUNNING, ExperimentState.PAUSED)),
        Round.state.in_(STAGES),
        (Round.state != RoundState.LABELING) | ~_UNLABELED,
    )
    .order_by(Round.id)
)  # fmt: skip


def main() -> None:
    """Coordinate until SIGTERM or SIGINT."""
    settings = load_settings()
    logs.set_up(settings)
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    database, broker = Database(settings.database_url), Broker(settings)
    coordinate(settings, database, broker, leaving)
    broker.close()
    database.close()


def coordinate(settings: Settings, database: Database, broker: Broker, leaving: threading.Event) -> None:
    """Become the coordinator, then look at every round each `sweep_s` seconds, until `leaving` is set."""
    failed = False
    while not leaving.is_set():
        touch(settings.alive_file)  # one that waits for its turn, or for the database, is alive too
        try:
            with _lock(settings, database) as read:
                if read is None:
                    leaving.wait(WAIT_S)
                    continue
                log.info("coordinating")
                if failed:  # workers could not beat either: they get time for it before they are given up
                    leaving.wait(2 * settings.beat_s)
                    failed = False
                _look_again_and_again(settings, database, broker, leaving, read)
        except SQLAlchemyError as error:
            failed = True
            log.warning("the database can't be reached: %s", str(error).partition("\n")[0])
            leaving.wait(WAIT_S)


def due(session: Session) -> list[int]:
    """Return the rounds that a sweep would do something about, by one query that locks nothing."""
    rows = session.execute(MOVING).all()
    if not rows:  # while people label, there is nothing else to ask
        return []
    moment = now(session)
    return [row[0] for row in rows if _is_due(moment, *row[1:])]


def sweep(database: Database, broker: Broker, max_attempts: int, round_ids: list[int]) -> None:
    """Repair each of the rounds in a transaction of its own; one that fails does not hold up the others."""
    for round_id in round_ids:
        with logs.about(round=round_id):
            _sweep_one(database, broker, max_attempts, round_id)


def _sweep_one(database: Database, broker: Broker, max_attempts: int, round_id: int) -> None:
    try:
        with database.write() as session:
            swept = rounds.sweep(session, round_id, max_attempts)
    except StaleState as stale:  # somebody was faster
        log.info("round %s: %s", round_id, stale)
        return
    except SQLAlchemyError as error:
        if getattr(error, "connection_invalidated", False):
            raise
        log.exception("round %s could not be swept", round_id)
        return
    except Exception:
        log.exception("round %s could not be swept", round_id)
        return
    for attempt_id in swept.expired:
        log.warning("attempt %s: its worker fell silent", attempt_id, extra={"attempt": attempt_id})
    broker.send(swept.hints)


def _look_again_and_again(
    settings: Settings,
    database: Database,
    broker: Broker,
    leaving: threading.Event,
    read: Reader,
) -> None:
    slow_every = max(round(SLOW_SWEEP_S / settings.sweep_s), 1)
    looks = 0
    while not leaving.is_set():
        with read() as session:
            thorough = looks % slow_every == 0
            round_ids = rounds.rounds_to_sweep(session) if thorough else due(session)
        sweep(database, broker, settings.max_attempts, round_ids)
        looks += 1
        touch(settings.alive_file)
        leaving.wait(settings.sweep_s)


def _is_due(
    moment: datetime,
    round_state: RoundState,
    experiment_state: ExperimentState,
    attempt_state: AttemptState | None,
    lease_until: datetime | None,
    hinted_at: datetime | None,
    hints: int | None,
    not_before: datetime | None,
) -> bool:
    if attempt_state == AttemptState.RUNNING:
        return lease_until is not None and lease_until < moment
    if experiment_state != ExperimentState.RUNNING:
        return False
    if attempt_state is None:
        return round_state == RoundState.LABELING
    if not_before is not None and not_before > moment:
        return False
    # When exactly the next hint is due is the sweep's to say; this keeps it from being asked all the time.
    return hinted_at is None or hinted_at + timedelta(seconds=rounds.HINT_AGAIN_S) < moment


@contextmanager
def _lock(settings: Settings, database: Database) -> Iterator[Reader | None]:
    """Try to take the coordinator's lock; yield how to read while it is held, None if another one has it."""
    if database.is_sqlite:
        with _file_lock(settings.data_dir / "coordinator.lock") as got:
            yield database.read if got else None
        return
    # The lock belongs to this connection: if it breaks, the next use raises and we stop being coordinator.
    # The looks go through it too: one round trip says that the lock is held still, and what is due.
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        got = bool(connection.execute(text(f"SELECT pg_try_advisory_lock({LOCK_ID})")).scalar_one())

        def read() -> Session:
            return Session(connection, autoflush=False, expire_on_commit=False)

        try:
            yield read if got else None
        finally:
            connection.invalidate()  # closes the session, and with it the lock


@contextmanager
def _file_lock(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
