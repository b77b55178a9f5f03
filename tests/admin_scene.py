"""An experiment with a past, for the admin pages' tests and pictures: answers, metrics and films."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from shared.models import Labeler
from tests import scenes
from tests.scenes import Scene, join, put_answer

# Of each round: held-out loss, accuracy, predicted and true return. In the last, prediction and truth part.
PAST = ((0.66, 0.55, 3.0, 22.0), (0.58, 0.7, 9.5, 61.0), (0.5, 0.75, 14.0, 130.0), (0.52, 0.7, 21.0, 84.0))


def live_through(scene: Scene, new_client: Callable[[], httpx.Client], rounds: int = len(PAST)) -> None:
    """Label and train `rounds` rounds with two labelers; the first one's comparisons are there already."""
    draw = random.Random(1)
    with new_client() as ada, new_client() as grace:
        for client, name in ((ada, "ada"), (grace, "grace")):
            join(client, name)
        with scene.database.write() as session:
            session.execute(
                update(Labeler).values(kind="teacher")
            )  # so no grace: the last answer closes labeling
        for number, (loss, accuracy, predicted, true) in enumerate(PAST[:rounds], start=1):
            if number > 1:
                scene.collect()
            for client in (ada, grace):
                while comparisons := scene.claims(client)["comparisons"]:
                    for one in comparisons:
                        worths = [random.Random(clip["id"]).random() for clip in one["clips"]]
                        agreed = [sum(other > worth for other in worths) for worth in worths]
                        turned = [len(agreed) - 1 - rank for rank in agreed]
                        tied = [0] * len(agreed)
                        answer = draw.choices((agreed, turned, tied, None), (8, 1, 2, 1))[0]
                        put_answer(client, one["id"], answer).raise_for_status()
            losses = {
                "train/loss": loss - 0.08,
                "held_out/loss": loss,
                "losses/reward_loss": loss - 0.08,
            }
            scene.train_reward(
                **losses, **{"held_out/accuracy": accuracy, "train/accuracy": accuracy + 0.1},
                **{"held_out/calibration": 1 - accuracy, "held_out/labels": 12.0},
            )  # fmt: skip
            ppo = {
                "policy_loss": -0.01,
                "value_loss": 0.4 / number,
                "entropy": 0.69 / number,
                "clipfrac": 0.1,
            }
            scene.train_agent(
                true, **{f"losses/{name}": value for name, value in ppo.items()},
                **{"charts/predicted_return": predicted},
            )  # fmt: skip


@pytest.fixture
def scene(tmp_path: Path, sqlite_template: Path) -> Iterator[Scene]:
    path = tmp_path / "lockstep.db"
    path.write_bytes(sqlite_template.read_bytes())
    settings = scenes.settings_for(tmp_path, f"sqlite:///{path}", port=0, log_level="ERROR")
    with Scene(settings) as one:
        one.collect()
        yield one


@pytest.fixture
def url(scene: Scene) -> Iterator[str]:
    with scenes.serve(scene.settings) as address:
        live_through(scene, lambda: httpx.Client(base_url=address), 1)
        yield address
