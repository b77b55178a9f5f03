"""Two or more systems measured in turns, each in a process of its own, so that all meet the same machine.

The speed of a shared machine drifts; what neighbours did within the same minute can still be compared. So
every figure is a median of ratios, each of turns that followed one another. Processor seconds are told beside
the clock's: they say more where other work is going on.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
CACHE = REPOSITORY / ".cache" / "peers"
TORCH = "torch==2.13.0"
PEERS = {  # name of an environment: what pip installs into it
    "imageio": ("imageio-ffmpeg==0.8.1", "numpy"),
    "imitation": (TORCH, "imitation==1.0.1"),
    "envs": ("envpool==1.2.5", "gymnasium==1.4.0", "ale-py==0.12.1", "opencv-python-headless", "numpy"),
    "sb3": (TORCH, "stable-baselines3==2.9.2", "ale-py==0.12.1", "opencv-python-headless"),
    # What CleanRL's own pyproject.toml asks for, but a newer ALE, which brings the games along.
    "cleanrl": (
        TORCH, "gymnasium[classic-control]==0.29.1", "numpy<2", "ale-py==0.12.1",
        "opencv-python-headless<4.12", "tensorboard", "tyro",
    ),
}  # fmt: skip


def python_of(peer: str) -> str:
    """Return the Python of a peer's environment, which is made on first use, under .cache/peers/."""
    folder, wanted = CACHE / peer, "\n".join(PEERS[peer])
    python, done = folder / "bin" / "python", folder / "installed"
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {', '.join(PEERS[peer])} into {folder.relative_to(REPOSITORY)} ...", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *PEERS[peer]], check=True)
        done.write_text(wanted)
    return str(python)


@dataclass
class Side:
    """One system: how its process is started, and what its turns gave (see benchmarks/peers/turn.py)."""

    name: str
    command: Sequence[str]
    turns: list[dict[str, float]] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def turn(self, folder: Path, **variables: str) -> dict[str, float]:
        """Let it work once; `folder` is where it runs, and where what it says is kept.

        `variables` are put into the environment of its process, which its first turn starts.
        """
        log = folder / "stderr"
        if self.process is None:
            environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"} | variables
            with log.open("w") as said:
                self.process = subprocess.Popen(
                    self.command, cwd=folder, env=environment, text=True, stderr=said,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                )  # fmt: skip
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            return dict(json.loads(self.process.stdout.readline()))
        except (OSError, ValueError) as error:
            raise SystemExit(f"{self.name} did not answer: {log.read_text()[-3000:]}") from error

    def stop(self) -> None:
        """End its process."""
        if self.process:
            assert self.process.stdin
            assert self.process.stdout
            self.process.stdin.close()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def rate(self, clock: str = "wall") -> float:
        """Return the median of units a second."""
        return statistics.median(turn["units"] / turn[clock] for turn in self.turns)


def ours(module: str, *arguments: object) -> list[str]:
    """Return the command of Lockstep's own side: `python -m benchmarks.MODULE --serve …`."""
    return [sys.executable, "-m", f"benchmarks.{module}", "--serve", *map(str, arguments)]


def theirs(peer: str, script: str, *arguments: object) -> list[str]:
    """Return the command of a peer's side: benchmarks/peers/SCRIPT.py, run in the peer's environment."""
    path = REPOSITORY / "benchmarks" / "peers" / f"{script}.py"
    return [python_of(peer), str(path), *map(str, arguments)]


def measure(sides: Sequence[Side], turns: int) -> None:
    """Let the sides take turns, and print how fast they were; a first one of each warms up."""
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
        try:
            for number in range(1 + turns):
                for place, side in enumerate(sides):
                    own = Path(folder) / str(place)
                    own.mkdir(exist_ok=True)
                    done = side.turn(own)
                    if number > 0:
                        side.turns.append(done)
        finally:
            for side in sides:
                side.stop()
    width = max(len(side.name) for side in sides)
    print(f"{'':{width}} {'a second':>12} {'a cpu second':>13}   turns, a second")
    for side in sides:
        each = " ".join(f"{turn['units'] / turn['wall']:.4g}" for turn in side.turns)
        print(f"{side.name:{width}} {side.rate():12,.1f} {side.rate('cpu'):13,.1f}   {each}")


def together(sides: Sequence[Side], turns: int, tell: Callable[[Side], str]) -> None:
    """Let all sides work at the same time, one thread each, and `tell` of every turn.

    For what comes of the work, not for how fast it is done: the processors share more of it so.
    """
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:

        def work(side: Side, own: Path) -> None:
            own.mkdir()
            try:
                for _ in range(turns):
                    side.turns.append(side.turn(own, OMP_NUM_THREADS="1"))
                    print(tell(side), flush=True)
            finally:
                side.stop()

        with ThreadPoolExecutor(len(sides)) as pool:
            for done in [pool.submit(work, side, Path(folder, str(i))) for i, side in enumerate(sides)]:
                done.result()


def ratio(mine: Side, other: Side, clock: str = "wall") -> float:
    """Return how many times as much `mine` does in a second as `other`: the median over pairs of turns."""
    pairs = zip(mine.turns, other.turns, strict=True)
    return statistics.median(a["units"] / a[clock] / (b["units"] / b[clock]) for a, b in pairs)
