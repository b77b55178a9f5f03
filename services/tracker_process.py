"""The tracker's own process: `python -m services.tracker_process trackio FOLDER`. Started by `tracking.py`.

One JSON object a line comes in: `{"open": …}`, `{"log": …, "step": …}`, `{"close": true}`; out go
`{"closed": true}` and `{"warning": …}`. Steps that a run has already are left out, so an attempt that is made
again goes on where the one before ended. It ends when nobody writes to it any more.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

INIT_S = 20.0  # a server that has not answered by then is taken for unreachable
FINISH_S = 60.0  # for what a run has left to send at its end
RETRY_S = 600.0  # before a server that could not be reached is asked again
# Of which steps Weights & Biases draws what, the first that fits.
AXES = {
    "losses/reward_loss": "reward_epoch", "train/*": "reward_epoch", "held_out/*": "reward_epoch",
    "losses/*": "global_step", "charts/*": "global_step",
}  # fmt: skip

About = dict[str, Any]
Say = Callable[[str], None]


class Library(Protocol):
    """What is needed of a tracker's library."""

    def open(self, about: About, say: Say) -> int:
        """Begin or resume a run; return the first step that it has not got, 0 if it does not know."""
        ...

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take the metrics of a step."""
        ...

    def close(self) -> None:
        """End the run: everything is kept, or sent as far as the server answers."""
        ...


class Trackio:
    """Trackio: a SQLite file in the data folder, or the server or Space that TRACKIO_… variables name."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder.parent / "trackio"))

    def open(self, about: About, say: Say) -> int:
        """Begin or resume a run."""
        import trackio

        given = {"project": about["project"], "name": about["run"], "config": about["config"]}
        given |= {"resume": "allow", "embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        try:
            self._run = trackio.init(**given)
        except Exception as error:
            away = [os.environ.pop(name, None) for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")]
            if not any(away):
                raise
            say(f"the server cannot be reached ({_short(error)}); metrics go into a local file")
            self._run = trackio.init(**given)
        return 0

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take the metrics of a step."""
        self._run.log(metrics, step=step)

    def close(self) -> None:
        """End the run."""
        import trackio

        trackio.finish()


class Wandb:
    """Weights & Biases, told by its WANDB_… variables; offline while its server cannot be reached."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.parent
        self._offline_until = 0.0

    def open(self, about: About, say: Say) -> int:
        """Begin or resume a run."""
        import wandb

        settings = wandb.Settings(
            init_timeout=INIT_S, finish_timeout=FINISH_S, silent=True, console="off", x_disable_stats=True
        )
        given = {"project": about["project"], "id": about["run"], "name": about["name"]}
        given |= {"config": about["config"], "dir": str(self._folder), "settings": settings}
        try:
            if time.monotonic() < self._offline_until:
                self._run = wandb.init(**given, mode="offline")
            else:
                self._run = wandb.init(**given, resume="allow")
        except Exception as error:
            self._offline_until = time.monotonic() + RETRY_S
            say(
                f"the server cannot be used ({_short(error)}); metrics are kept in {self._folder}/wandb, and "
                "`wandb sync` sends them"
            )
            wandb.teardown()  # or the failed try still holds the run's name
            self._run = wandb.init(**given, mode="offline")
        for metric, name in AXES.items():
            self._run.define_metric(metric, step_metric=name)
        return int(self._run.starting_step)

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take the metrics of a step."""
        self._run.log(metrics, step=step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class Run:
    """An open run: puts together what belongs to one step, and leaves out what the run has already."""

    def __init__(self, library: Library, about: About, folder: Path, say: Say) -> None:
        self._library = library
        self._place = folder / f"{about['run']}.json"
        self._next = max(library.open(about, say), self._kept())
        self._row: dict[str, float] = {}
        self._step = 0

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take metrics; those of one step may come in parts."""
        if step != self._step:
            self._pass_on()
        self._step = step
        self._row |= metrics

    def close(self) -> None:
        """Pass on the last row and end the run."""
        self._pass_on()
        self._library.close()

    def _pass_on(self) -> None:
        if self._row and self._step >= self._next:
            self._library.log(self._row, self._step)
            self._next = self._step + 1
            unfinished = self._place.with_suffix(".partial")
            unfinished.write_text(json.dumps({"next": self._next}))
            unfinished.replace(self._place)
        self._row = {}

    def _kept(self) -> int:
        try:
            return int(json.loads(self._place.read_text())["next"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0


LIBRARIES: dict[str, Callable[[Path], Library]] = {"trackio": Trackio, "wandb": Wandb}


def main(name: str, folder: Path) -> None:
    """Take lines until there are no more. An error costs a run's metrics at most."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print belongs to the log

    def say(text: str) -> None:
        answers.write(json.dumps({"warning": text}) + "\n")

    library = LIBRARIES[name](folder)
    run: Run | None = None
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if "open" in message:
                run = Run(library, message["open"], folder, say)
            elif "log" in message and run:
                run.log(message["log"], message["step"])
            elif "close" in message and run:
                run.close()
        except Exception as error:  # of a library of somebody else's: anything
            say(_short(error))
            run = None
        if "close" in message:
            run = None
            answers.write(json.dumps({"closed": True}) + "\n")
    if run:
        run.close()


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
