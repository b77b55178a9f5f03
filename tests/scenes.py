"""Experiments with real clips in a real store, taken to any state without a trainer.

The trainers' part is played by calling `shared.rounds` as a worker would. For tests, benchmarks and pictures.
"""

import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from services.agent_trainer.clips import encode_mp4, pack_npz
from services.labeler.__main__ import Server, configure
from services.labeler.app import create_app
from shared import config, rounds
from shared.database import Database
from shared.jobs import (
    ClipRecord,
    CollectResult,
    ComparisonRecord,
    Result,
    TrainAgentResult,
    TrainRewardResult,
    put_artifact,
)
from shared.models import Attempt, Clip, Comparison, Experiment, Round
from shared.settings import Settings
from shared.states import LIVE_ATTEMPTS
from tests.services import free_ports

__all__ = ["Scene", "free_ports", "join", "put_answer", "serve", "settings_for"]

WORKER = {"host": "here", "pid": 1, "device": "cpu"}
LEASE_S = 15.0
STEPS, FPS = 25, 25.0
SECRET_RETURN = 487.1234  # a true return that no labeler may ever see
SECRET_JUDGEMENT = 598.8765  # figures that nothing else here can happen to begin with
SECRET_METRIC = 376.54321


def moving_shape(seed: int, steps: int = STEPS, side: int = 60) -> np.ndarray:
    """Draw a square that wanders over a shaded ground: [steps, side, side, 3], uint8."""
    draw = np.random.default_rng(seed)
    frames = np.empty((steps, side, side, 3), np.uint8)
    frames[:] = np.linspace(30, 70, side, dtype=np.uint8)[:, None, None]
    colour, place, speed = draw.integers(90, 255, 3), draw.uniform(10, side - 22, 2), draw.uniform(-2, 2, 2)
    for frame in frames:
        place = np.clip(place + speed, 0, side - 12)
        row, column = place.astype(int)
        frame[row : row + 12, column : column + 12] = colour
    return frames


def cart_pole(seed: int, steps: int = STEPS) -> np.ndarray:
    """Play CartPole, well or badly as the seed has it: [steps, 400, 600, 3], uint8."""
    import gymnasium

    environment: Any = gymnasium.make("CartPole-v1", render_mode="rgb_array").unwrapped
    environment.reset(seed=seed)
    draw, frames = np.random.default_rng(seed), []
    state = environment.state = draw.normal(scale=(0.7, 0.5, 0.1, 0.5))
    skill, fallen = draw.uniform(0.2, 1.0), False
    for _ in range(steps):
        if not fallen:  # the last picture stands for what comes after a fall
            lean = state[2] + 0.4 * state[3] + 0.05 * state[1]
            action = int(lean > 0) if draw.uniform() < skill else int(draw.integers(2))
            state, _, fallen, *_ = environment.step(action)
        frames.append(environment.render())
    environment.close()
    return np.array(frames, np.uint8)


@cache
def _clip(kind: str, seed: int, steps: int) -> tuple[bytes, bytes]:
    frames = cart_pole(seed, steps) if kind == "cart_pole" else moving_shape(seed, steps)
    draw = np.random.default_rng(seed)
    npz = pack_npz(draw.normal(size=(steps + 1, 4)).astype(np.float32), draw.integers(0, 2, steps))
    return encode_mp4(frames, 50.0 if kind == "cart_pole" else FPS), npz


def settings_for(folder: Path, database_url: str, **more: Any) -> Settings:
    """Return settings with everything in `folder` apart from the database."""
    return Settings(_env_file=None, data_dir=folder / "data", database_url=database_url, **more)


@contextmanager
def serve(settings: Settings) -> Iterator[str]:
    """Run the labeler service, as its own process would, on the port of `settings`; yield its address."""
    app = create_app(settings)
    server = Server(configure(app, settings))
    server.live = app.state.context.live
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the labeler did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class Scene:
    """One experiment, its database and its store."""

    def __init__(
        self, settings: Settings, kind: str = "shape", name: str = "shapes", **overrides: Any
    ) -> None:
        self.settings, self.kind, self.name = settings, kind, name
        self.database, self.store = Database(settings.database_url), settings.open_store()
        labels = {"comparisons_per_round": 6, "undo_grace_s": 2.0, "lease_s": 60.0} | overrides.pop(
            "labels", {}
        )
        data = {"name": name, "env_id": "CartPole-v1", "rounds": 4, "labels": labels} | overrides
        with self.database.write() as session:
            self.id = rounds.create_experiment(session, config.parse(data), "test")[0].id

    def close(self) -> None:
        self.database.close()

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def round(self) -> Round:
        with self.database.read() as session:
            return rounds.current_round(session, self.id)

    def claim(self) -> int:
        """Take the attempt that waits, as a worker."""
        with self.database.write() as session:
            round_ = rounds.current_round(session, self.id)
            query = session.query(Attempt).filter(
                Attempt.round_id == round_.id, Attempt.state.in_(LIVE_ATTEMPTS)
            )
            attempt_id = query.one().id
            assert rounds.claim(session, attempt_id, WORKER, LEASE_S)
            return attempt_id

    def beat(self, attempt_id: int, progress: float, **metrics: float) -> None:
        """Report progress, as a worker."""
        with self.database.write() as session:
            rounds.heartbeat(session, attempt_id, LEASE_S, progress, metrics or {"loss": SECRET_METRIC})

    def release(self, attempt_id: int) -> None:
        """Give an attempt back, as a worker that was asked to stop."""
        with self.database.write() as session:
            rounds.release(session, attempt_id, "asked to stop")

    def complete(self, attempt_id: int, result: Result) -> None:
        with self.database.write() as session:
            rounds.complete(session, attempt_id, result)

    def collect(self) -> None:
        """Store the comparisons of this round, so that labeling begins."""
        attempt_id, round_ = self.claim(), self.round()
        wanted = config.parse(self._config())
        count, k = wanted.comparisons(round_.number), wanted.labels.clips_per_comparison
        clips = [self._clip_record(round_.number, attempt_id, index) for index in range(k * count)]
        comparisons = [
            ComparisonRecord([k * index + place for place in range(k)], index % 5 == 4)
            for index in range(count)
        ]
        self.complete(attempt_id, CollectResult(clips, comparisons))

    def close_labeling(self) -> bool:
        """Freeze the label set if it is complete, as the coordinator would."""
        with self.database.write() as session:
            return bool(rounds.close_labeling(session, self.round().id, "coordinator"))

    def train_reward(self, **metrics: float) -> None:
        attempt_id = self.claim()
        self.beat(attempt_id, 0.5)
        weights = put_artifact(self.store, "reward_model", f"rm/{attempt_id}", b"weights")
        told = put_artifact(self.store, "predictions", f"rm/{attempt_id}.json", self._predictions())
        metrics = metrics or {"held_out/accuracy": SECRET_METRIC}
        self.complete(attempt_id, TrainRewardResult(weights, metrics, told))

    def _predictions(self) -> bytes:
        """Say of every comparison of the round that its first clip is better, in a reward trainer's form."""
        found, rising = [], [round(0.1 * step - 1, 3) for step in range(STEPS)]
        with self.database.read() as session:
            round_ = rounds.current_round(session, self.id)
            for one in session.query(Comparison).filter(Comparison.round_id == round_.id):
                clips = [session.get_one(Clip, clip_id).npz_sha256 for clip_id in one.clip_ids]
                falling, rest = [-value for value in rising], len(clips) - 1
                found.append(
                    {
                        "clips": clips,
                        "held_out": one.held_out,
                        "best": [0.75, *[0.25 / rest] * rest],
                        "rewards": [rising, *[falling] * rest],
                    }
                )
        return json.dumps({"comparisons": found}).encode()

    def train_agent(self, true_return: float = SECRET_RETURN - 300.0, **metrics: float) -> None:
        attempt_id = self.claim()
        self.beat(attempt_id, 0.5)
        agent = put_artifact(self.store, "agent", f"agent/{attempt_id}", b"weights")
        film = _clip(self.kind, 1000 + self.round().number, 3 * STEPS)[0]
        video = put_artifact(self.store, "video", f"video/{attempt_id}.mp4", film)
        metrics = metrics or {"charts/predicted": SECRET_METRIC}
        self.complete(attempt_id, TrainAgentResult(agent, video, [true_return] * 3, metrics))

    def label_all(self, client: httpx.Client) -> None:
        """Answer everything that is open through the API."""
        while comparisons := self.claims(client)["comparisons"]:
            for one in comparisons:
                put_answer(client, one["id"], range(len(one["clips"]))).raise_for_status()

    def claims(self, client: httpx.Client, count: int = 10) -> dict[str, Any]:
        answer = client.post(f"/api/experiments/{self.name}/claims", json={"count": count})
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    def _config(self) -> dict[str, Any]:
        with self.database.read() as session:
            return session.get_one(Experiment, self.id).config

    def _clip_record(self, number: int, attempt_id: int, index: int) -> ClipRecord:
        mp4, npz = _clip(self.kind, 100 * number + index, STEPS)
        key = f"clips/{self.name}-{number}-{attempt_id}-{index:03d}"
        return ClipRecord(
            npz=put_artifact(self.store, "clip_npz", f"{key}.npz", npz),
            mp4=put_artifact(self.store, "clip_mp4", f"{key}.mp4", mp4),
            steps=STEPS,
            fps=50.0 if self.kind == "cart_pole" else FPS,
            judgement=[SECRET_JUDGEMENT] * STEPS,
        )


def put_answer(
    client: httpx.Client, comparison: int, ranks: Sequence[int] | None, key: str | None = None
) -> httpx.Response:
    """Give an answer through the API."""
    body = {"comparison": comparison, "ranks": None if ranks is None else [*ranks], "seconds": 1.5}
    return client.put(f"/api/preferences/{key or uuid.uuid4()}", json=body)


def join(client: httpx.Client, name: str | None = None, **headers: str) -> str:
    """Become a labeler and return the token; `client` sends it from now on."""
    kind = "teacher" if headers else "person"
    answer = client.post("/api/labelers", json={"name": name, "kind": kind}, headers=headers)
    answer.raise_for_status()
    client.cookies.clear()
    token: str = answer.json()["token"]
    client.headers["Authorization"] = f"Bearer {token}"
    return token
