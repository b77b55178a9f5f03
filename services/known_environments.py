"""Whether an environment can be played, asked before an experiment is created, not when it is played.

Only where Gymnasium is installed: the image of the web services has none, and there it is the collecting
stage that finds out, and gives up at once.
"""

import sys
from difflib import get_close_matches
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from shared.config import ConfigError, ExperimentConfig
from shared.settings import load_settings


def check(config: ExperimentConfig) -> None:
    """Raise ConfigError, with what may have been meant, if Gymnasium is here and has no such environment.

    For a game of Atari also if it has no such actions.
    """
    if find_spec("gymnasium") is None:
        return
    # By name, and only now: it takes a quarter of a second, and only who creates an experiment should wait.
    known = import_module("gymnasium").registry
    env_id, atari = config.env_id, config.env_id.startswith("ALE/") and find_spec("ale_py") is not None
    module, colon, _ = env_id.partition(":")
    if colon:  # it is registered when a trainer imports the module; here nothing of it is run
        folder = load_settings().environments_dir
        if not PathFinder.find_spec(module.partition(".")[0], [str(folder), str(Path.cwd()), *sys.path]):
            _refuse(
                "env_id",
                f"there is no module {module!r}: put {module}.py into {folder}, or name its folder in "
                "LOCKSTEP_ENVIRONMENTS_DIR",
            )
        return
    if atari:
        import_module("ale_py")  # registers its games
    elif "/" in env_id:
        return  # package/Name is registered when a trainer imports the package
    if env_id not in known:
        close = get_close_matches(env_id, list(known), n=1)
        works = "ALE/Pong-v5" if atari else "CartPole-v1"
        meant = f"did you mean {close[0]}?" if close else f"{works} is one that works"
        _refuse("env_id", f"Gymnasium has no environment {env_id!r}; {meant}")
    if atari and config.atari.actions:
        count = _actions(known[env_id].kwargs["game"])
        if unknown := [action for action in config.atari.actions if action >= count]:
            _refuse(
                "atari.actions", f"{env_id} has the actions 0 to {count - 1}, and none of number {unknown}"
            )


def _actions(game: str) -> int:
    """Return how many actions a game of Atari has."""
    ale = import_module("ale_py")
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
    console = ale.ALEInterface()
    console.loadROM(ale.roms.get_rom_path(game))
    return len(console.getMinimalActionSet())


def _refuse(key: str, why: str) -> None:
    raise ConfigError(f"{key}: {why}", {key: why})
