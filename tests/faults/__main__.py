"""`python -m tests.faults --faults 200 --seed 1`: break the running system, and see that it goes on.

Real processes, a real Postgres, Redis and S3 server, a teacher that answers over HTTP. Faults strike at
seeded moments of seeded stages. It ends with a table by kind of fault and one JSON object. With
`--containers` all of it runs in the containers of `docker compose`, as a project of its own.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tests.faults import run, show
from tests.faults.container_kinds import CONTAINERS
from tests.faults.kinds import PROCESSES


def main() -> None:
    """Run, show, exit with 0 if every fault was survived and nothing is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many")
    parser.add_argument("--seed", type=int, default=1, help="of their kinds and moments")
    parser.add_argument("--kinds", default="", help="only kinds whose names contain this")
    parser.add_argument(
        "--containers", action="store_true", help="on the compose stack; needs a Docker Engine"
    )
    parser.add_argument("--keep", type=Path, help="a folder for everything, kept afterwards")
    given = parser.parse_args()
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is stopped in order
    with tempfile.TemporaryDirectory(prefix="lockstep-faults-", ignore_cleanup_errors=True) as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # Postgres's own user comes through
        flavour = CONTAINERS if given.containers else PROCESSES
        outcome = run.run(flavour, folder, given.faults, given.seed, given.kinds, console)
    show.show(outcome, console)
    raise SystemExit(0 if outcome.good else 1)


if __name__ == "__main__":
    main()
