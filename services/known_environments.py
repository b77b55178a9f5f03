"""Whether Gymnasium knows an environment, asked before an experiment is created, not when it is played.

Only where Gymnasium is installed: the image of the web services has none, and there it is the collecting
stage that finds out, and gives up at once.
"""

import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from shared.config import ConfigError
from shared.settings import load_settings


def check(env_id: str) -> None:
    """Raise ConfigError, with what may have been meant, if Gymnasium is here and has no such environment."""
    if find_spec("gymnasium") is None:
        return
    # By name, and only now: it takes a quarter of a second, and only who creates an experiment should wait.
    known = list(import_module("gymnasium").registry)
    module, colon, _ = env_id.partition(":")
    if colon:  # it is registered when a trainer imports the module; here nothing of it is run
        folder = load_settings().environments_dir
        if PathFinder.find_spec(module.partition(".")[0], [str(folder), str(Path.cwd()), *sys.path]):
            return
        why = f"there is no module {module!r}: put {module}.py into {folder}, or name its folder in "
        why += "LOCKSTEP_ENVIRONMENTS_DIR"
        raise ConfigError(f"env_id: {why}", {"env_id": why})
    if env_id in known or "/" in env_id:
        return  # package/Name is registered when a trainer imports the package
    close = get_close_matches(env_id, known, n=1)
    meant = f"did you mean {close[0]}?" if close else "CartPole-v1 is one that works"
    why = f"Gymnasium has no environment {env_id!r}; {meant}"
    raise ConfigError(f"env_id: {why}", {"env_id": why})
