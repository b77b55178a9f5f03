"""Whether Gymnasium knows an environment, asked before an experiment is created, not when it is played.

Only where Gymnasium is installed: the image of the web services has none, and there it is the collecting
stage that finds out, and gives up at once.
"""

from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec

from shared.config import ConfigError


def check(env_id: str) -> None:
    """Raise ConfigError, with what may have been meant, if Gymnasium is here and has no such environment."""
    if find_spec("gymnasium") is None:
        return
    # By name, and only now: it takes a quarter of a second, and only who creates an experiment should wait.
    known = list(import_module("gymnasium").registry)
    if env_id in known or ":" in env_id or "/" in env_id:
        return  # package:Name and package/Name are registered when a trainer imports the package
    close = get_close_matches(env_id, known, n=1)
    meant = f"did you mean {close[0]}?" if close else "CartPole-v1 is one that works"
    raise ConfigError(f"env_id: Gymnasium has no environment {env_id!r}; {meant}")
