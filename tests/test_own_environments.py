"""An environment of one's own: a whole experiment with the documented example, errors that say what to do."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from sqlalchemy import select

from services import known_environments
from services.agent_trainer import atari, clips, envs, ppo
from services.worker_loop import work
from shared import config
from shared.config import ConfigError
from shared.models import Clip, Comparison, Evaluation, Judgement, StoredArtifact

from . import parts
from .parts import tiny
from .test_workers import system, worker_of

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "exercises" / "environments"
ODD = """
import gymnasium as gym
import itertools
import numpy as np

EVER_OTHER = itertools.cycle(range(-10, 10))

class Good(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-10, 10, (2,), np.int64)
    action_space = gym.spaces.Discrete(2)
    def __init__(self, render_mode=None):
        self.render_mode = render_mode
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.at = self.np_random.integers(-10, 10, 2)
        return self.seen(), {}
    def seen(self):
        return self.at.copy()
    def step(self, action):
        self.at = self.np_random.integers(-10, 10, 2)
        return self.seen(), 1.0, False, False, {}
    def render(self):
        return np.zeros((40, 40, 3), np.uint8)

class Pictures(Good):
    observation_space = gym.spaces.Box(0, 255, (40, 40), np.uint8)
    def seen(self):
        return np.full((40, 40), 100 + self.at[0], np.uint8)

class Coloured(Good):
    observation_space = gym.spaces.Box(0, 255, (40, 40, 3), np.uint8)

class Continuous(Good):
    action_space = gym.spaces.Box(-1, 1, (1,))

class Unseen(Good):
    metadata = {"render_modes": []}

class Badly(Good):
    def render(self):
        return "a picture"

class Forgetful(Good):
    def step(self, action):
        self.at = np.array([next(EVER_OTHER), 0])
        return self.seen(), 1.0, False, False, {}

class Later(Good):
    def reset(self, seed=None, options=None):
        self.age = 0
        return super().reset(seed=seed)
    def step(self, action):
        self.age += 1
        self.at = np.array([next(EVER_OTHER) if self.age > 5 else 0, 0])
        return self.seen(), 1.0, False, False, {}

class Outside(Good):
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.array([99, 99]), {}

class Broken(Good):
    def __init__(self):
        raise RuntimeError("no licence")

for made in (Good, Pictures, Coloured, Continuous, Unseen, Badly, Forgetful, Later, Outside, Broken):
    gym.register(f"{made.__name__}-v0", entry_point=made, max_episode_steps=20)
gym.register("Endless-v0", entry_point=Good)
"""


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "odd_games.py").write_text(ODD)
    (tmp_path / "half_written.py").write_text("def half(\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "odd_games", raising=False)  # imported, and registered, anew
    before = dict(gym.registry)
    yield tmp_path
    gym.registry.clear()
    gym.registry.update(before)


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("nowhere_at_all:Thing-v0", r"nowhere_at_all\.py belongs into the folder"),
        ("half_written:Thing-v0", "cannot be made: SyntaxError"),
        ("odd_games:Nothing-v0", r"registers no environment Nothing-v0.*gymnasium\.register\('Nothing-v0'"),
        ("odd_games:Broken-v0", "cannot be made: "),
        ("odd_games:Coloured-v0", "one grey picture, uint8.*GrayscaleObservation"),
        ("odd_games:Continuous-v0", "Discrete actions"),
        ("odd_games:Endless-v0", "no time limit.*max_episode_steps"),
        ("odd_games:Unseen-v0", "render mode rgb_array"),
        ("odd_games:Badly-v0", "must return a picture"),
        ("odd_games:Forgetful-v0", "breaks a rule of Gymnasium.*eterministic"),
        ("odd_games:Later-v0", "not deterministic.*self.np_random"),
        ("odd_games:Outside-v0", "breaks a rule of Gymnasium"),
    ],
)
def test_what_is_wrong_is_said(odd: Path, env_id: str, message: str) -> None:
    with pytest.raises(envs.UnknownEnvironment, match=message):
        envs.make_envs(env_id, 2, linger=0)


def test_whole_numbers_become_vectors_and_grey_pictures_are_stacked(odd: Path) -> None:
    agent = ppo.Agent([2], 2)
    play = ppo.rollout(agent, ppo.Player(envs.make_envs("odd_games:Good-v0", 2, linger=3), 1), 30)
    assert play.sights.dtype == ppo.torch.float32
    made = envs.make_envs("odd_games:Pictures-v0", 2, linger=3)
    play = ppo.rollout(ppo.Agent([4, 40, 40], 2, hidden=8), ppo.Player(made, 1), 30)
    assert play.ended.any()
    after = play.next_observations
    assert after.dtype == ppo.torch.uint8
    assert ppo.torch.equal(after[:, :, :-1], play.observations[:, :, 1:])  # moved on by one frame
    data = clips.pack_npz(play.sights[:11, 0].numpy(), play.actions[:10, 0].numpy())
    assert np.array_equal(clips.unpack_npz(data)[0], play.sights[:11, 0].numpy())


def test_a_module_that_is_not_there_is_named_before_anything_is_created(
    odd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="no module 'my_game'"):
        known_environments.check(tiny(env_id="my_game:Thing-v0"))
    known_environments.check(tiny(env_id="catch:Catch-v0"))  # of the folder that is looked into by itself
    (odd / "my_game.py").write_text("raise SystemExit('run')")
    monkeypatch.setenv("LOCKSTEP_ENVIRONMENTS_DIR", str(odd))
    known_environments.check(tiny(env_id="my_game:Thing-v0"))  # it is not run


def test_a_game_that_is_not_there_and_an_action_it_has_not_are_named_before_anything_is_created() -> None:
    with pytest.raises(ConfigError, match=r"no environment 'ALE/Pog-v5'; did you mean ALE/Pong-v5\?"):
        known_environments.check(tiny(env_id="ALE/Pog-v5"))
    with pytest.raises(ConfigError, match=r"atari.actions: ALE/Pong-v5 has the actions 0 to 5, .* \[17\]"):
        known_environments.check(tiny(env_id="ALE/Pong-v5", atari={"actions": [0, 17]}))
    known_environments.check(tiny(env_id="ALE/Pong-v5", atari={"actions": [0, 5]}))
    known_environments.check(tiny(env_id="ALE/TicTacToe3D-v5"))
    named = {"ALE/TicTacToe3D-v5": "tic_tac_toe_3d", "ALE/DonkeyKong-v5": "donkey_kong"}
    named |= dict.fromkeys(["ALE/Pog-v5", "PongNoFrameskip-v4", "CartPole-v1"])
    assert {env_id: atari.rom_name(env_id) for env_id in named} == named


def test_a_module_is_found_in_the_folder_of_the_settings_by_the_plain_commands_too(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    module = (EXAMPLES / "catch.py").read_text("utf-8")
    # It comes before an installed one of that name.
    (tmp_path / "mine" / "rich.py").write_text(module, encoding="utf-8")
    (tmp_path / ".env").write_text("LOCKSTEP_ENVIRONMENTS_DIR=mine\n", encoding="utf-8")
    command = [sys.executable, "-m", "services.agent_trainer.check", "rich:Catch-v0"]
    around = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, cwd=tmp_path, env=around, capture_output=True, text=True, timeout=120)
    assert "can be played" in found.stdout, found.stderr


def test_the_example_from_end_to_end(tmp_path: Path, sqlite_template: Path) -> None:
    """Played, filmed, judged by its reward, labeled, trained on and evaluated, as workers do it."""
    preset = config.load(ROOT / "exercises" / "catch.toml")
    (tmp_path / "lockstep.db").write_bytes(sqlite_template.read_bytes())
    with (
        system(tmp_path, f"sqlite:///{tmp_path / 'lockstep.db'}", environments_dir=EXAMPLES) as one,
        worker_of(one, "tests.all_trainer") as worker,
    ):
        wanted = tiny("catch", env_id=preset.env_id, rounds=1, segments={"length": 10, "collect_steps": 400})
        experiment_id, hints = parts.create(one.database, wanted)
        work(worker, hints[0].attempt_id)
        work(worker, parts.answer_all(one.database, experiment_id)[0].attempt_id)
        work(worker, parts.attempts(one.database, experiment_id)[-1].id)
        round_ = parts.newest_round(one.database, experiment_id)
        assert round_.experiment.state == "finished", round_.error
        store = one.settings.open_store()
        with one.database.read() as session:
            assert len(session.scalars(select(Comparison)).all()) == 3
            for clip, judgement in session.execute(select(Clip, Judgement).join(Judgement)):
                assert clip.fps == 8
                assert store.get(clip.mp4_key)[4:8] == b"ftyp"
                seen, _ = clips.unpack_npz(store.get(clip.npz_key))
                basket, fruit, row = (seen[1:] * [8, 8, 9]).round().T
                caught = np.where(np.abs(basket - fruit) <= 1, 1.0, -1.0)
                assert judgement.per_step == np.where(row == 9, caught, 0).tolist()  # its own reward
            assert all(-10 <= mean <= 10 for mean in session.scalars(select(Evaluation.mean)))
            video = session.scalars(select(StoredArtifact.key).where(StoredArtifact.kind == "video")).one()
            assert store.get(video)[4:8] == b"ftyp"
