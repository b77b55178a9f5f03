"""`python -m services.leash MODULE`: run a module that ends when the process that started it ends.

Standard input must be a pipe that the starter keeps open. When it closes, however the starter died, the
module is asked to stop, and ended by force if it does not.
"""

import os
import runpy
import signal
import sys
import threading
import time

STOP_S = 15.0  # longer than a worker takes to give back its attempt


def main() -> None:
    """Run the module named on the command line as `python -m` would."""
    threading.Thread(target=_watch, name="leash", daemon=True).start()
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _watch() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os._exit(1)


if __name__ == "__main__":
    main()
