"""`lockstep import`: a new experiment that begins with the labels of an export."""

from pathlib import Path

from services import known_environments
from shared import acts, reuse, rounds
from shared.backup import as_owner
from shared.config import ExperimentConfig
from shared.database import Database, migrate
from shared.settings import Settings


def create(settings: Settings, config: ExperimentConfig, folder: Path) -> str:
    """Create the experiment in the database of `settings` and say so; an error if nothing was changed.

    The clips go into the store first; the database then takes everything in one transaction.
    """
    known_environments.check(config)
    with as_owner(reuse.ReuseError):
        migrate(settings.database_url)
    database = Database(settings.database_url)
    try:
        with (
            reuse.from_folder(folder, config, settings.open_store()) as past,
            database.write() as session,  # no hint is sent: a coordinator's next sweep finds the new round
        ):
            rounds.create_experiment(session, config, "import", f"labels of {past.source}", past)
            what = {"labels_of": past.source, "answers": len(past.answers)}
            acts.note(session, acts.COMMAND_LINE, "imported", config.name, **what)
    finally:
        database.close()
    return f"created {config.name} with {len(past.answers)} answers given in {past.source}"
