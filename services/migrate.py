"""`python -m services.migrate`: bring the database up to date and make the bucket, before all else starts.

It is the one service that owns the tables, and grants the others what they may do with them.
"""

import logging
import time

from sqlalchemy.exc import OperationalError

from shared import grants, logs
from shared.database import migrate
from shared.settings import load_settings
from shared.storage import StoreError

log = logging.getLogger(__name__)

WAIT_S = 60.0  # a server that does not answer is waited for this long
PAUSE_S = 0.5  # between two tries


def main() -> None:
    """Migrate, grant, and make the bucket; fails with the last error if a server stays away."""
    settings = load_settings()
    logs.set_up(settings)
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            migrate(settings.database_url)
            granted = grants.grant(settings.database_url)
            settings.open_store()
            break
        except (OperationalError, StoreError) as error:
            if time.monotonic() > deadline:
                raise
            log.info("waiting: %s", str(error).partition("\n")[0])
            time.sleep(PAUSE_S)
    log.info("the database is up to date, and the bucket is there")
    log.info("rights granted to %s", ", ".join(granted) or "nobody: there are no roles but the owner")


if __name__ == "__main__":
    main()
