"""The benchmarks beside other systems: each does its work, in turns, and a side that fails says why."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import clip_encoding, env_throughput, gradient_steps, pictures, ppo_throughput, reward_model
from benchmarks.peers.turn import Clock, Work
from benchmarks.side_by_side import Side, measure, ratio, together
from services.agent_trainer import atari


def did(work: Work) -> dict[str, float]:
    done = work(Clock())
    assert done["units"] > 0
    return done


def test_clips_are_encoded(tmp_path: Path) -> None:
    frames = clip_encoding.play("donkey_kong", 4)
    assert frames.shape == (4, 210, 160, 3)
    assert len({frame.tobytes() for frame in frames}) > 1
    np.save(tmp_path / "frames.npy", frames)
    assert did(clip_encoding.our_work(str(tmp_path / "frames.npy")))["bytes"] > 1000


@pytest.mark.parametrize(("members", "batch_size"), [(1, 0), (3, 8)])
def test_a_reward_model_learns_the_pairs_that_are_made_up(
    tmp_path: Path, members: int, batch_size: int
) -> None:
    reward_model.make_clips(tmp_path / "clips.npz", 20, 5)
    done = did(reward_model.our_work(str(tmp_path / "clips.npz"), members, 80, batch_size))
    assert done["units"] == 20 * 80
    assert done["accuracy"] > 0.8  # so they are in an order that can be learned


@pytest.mark.parametrize("kind", ["pong", "pong-whole", "pong-reward-model"])
def test_pong_is_trained_on(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atari, "VISIBLE", dict(atari.VISIBLE))
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    small = {"num_envs": 2, "num_steps": 4, "minibatch_size": 4, "update_epochs": 1, "hidden": 8}
    args = type(ppo_throughput.ARGS["pong"])(**vars(ppo_throughput.ARGS["pong"]) | small)
    monkeypatch.setitem(ppo_throughput.ARGS, "pong", args)
    assert math.isnan(did(ppo_throughput.our_work(kind, 8, learn=False))["return"])


def test_how_well_it_learned_is_the_return_of_the_last_episodes() -> None:
    assert 8 < did(ppo_throughput.our_work("cartpole", 512, learn=True))["return"] < 200


@pytest.mark.parametrize("kind", ["agent", "ensemble"])
def test_gradient_steps_are_taken(kind: str) -> None:
    assert did(gradient_steps.our_work(kind, bfloat16=True, compiled=False, steps=1))["units"] == 1


@pytest.mark.parametrize("kind", ["ours", "bare"])
def test_games_are_played(kind: str) -> None:
    assert did(env_throughput.our_work(kind, "donkey_kong", 2, 7, 0.5))["units"] == 4 * 2 * 7


@pytest.mark.parametrize(
    ("way", "shown", "held"),
    [("none", 0, 0), ("replay", 75, 0), ("colour", 75, 50 * 2 * 160 * 160 * 3), ("states", 75, 2000)],
)
def test_pictures_for_people_are_made_in_every_way(
    way: str, shown: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "COPIES", 2)
    done = did(pictures.our_work(way, "pong", 30, 3))
    assert done["units"] == 2 * 50  # whole clips
    assert done["shown"] == shown
    assert held <= done["mib"] * 2**20 <= 100 * held


@pytest.mark.parametrize(
    ("share", "play"), [(1 / 7, (16, 256)), (3 / 7, (28, 438)), (1.0, (64, 448)), (0.0, (16, 0))]
)
def test_as_large_a_share_of_the_play_is_filmed_as_is_asked_for(share: float, play: tuple[int, int]) -> None:
    assert env_throughput.filmed_play(share, 64, 448) == play


@pytest.mark.parametrize(
    ("options", "games", "peers"),
    [
        (["--cleanrl", "."], ["pong", "cartpole"], [["CleanRL", "Stable-Baselines3"], ["CleanRL"]]),
        ([], ["pong"], [["Stable-Baselines3"]]),
        (["--alone"], ["pong", "cartpole"], [[], []]),
        (["--only", "cartpole", "--cleanrl", "."], ["cartpole"], [["CleanRL"]]),
    ],
)
def test_cleanrl_is_compared_to_where_there_is_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], games: list[str], peers: list[str]
) -> None:
    (tmp_path / "cleanrl").mkdir()
    (tmp_path / "cleanrl" / "ppo_atari.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ppo_throughput", *options])
    monkeypatch.setattr(ppo_throughput, "theirs", lambda *command: [*map(str, command)])
    seen: list[list[Side]] = []
    monkeypatch.setattr(ppo_throughput, "measure", lambda sides, turns: seen.append(sides))
    monkeypatch.setattr(ppo_throughput, "ratio", lambda mine, other, clock="wall": 1.0)
    ppo_throughput.main()
    assert [sides[0].command[4].partition("-")[0] for sides in seen] == games
    assert [[side.name for side in sides if "Lockstep" not in side.name] for sides in seen] == peers


def side(name: str, work: str) -> Side:
    code = f"from benchmarks.peers.turn import serve; serve(lambda clock: {work})"
    return Side(name, [sys.executable, "-c", code])


def test_sides_take_turns_and_their_ratio_is_that_of_their_rates(capsys: pytest.CaptureFixture[str]) -> None:
    quick = side("quick", '{"units": 30, "wall": 0.5, "cpu": 1}')
    slow = side("slow", '{"units": 10, "wall": 0.5, "cpu": 0.1}')
    measure([quick, slow], turns=3)
    assert (len(quick.turns), len(slow.turns)) == (3, 3)
    assert ratio(quick, slow) == pytest.approx(3)
    assert ratio(quick, slow, "cpu") == pytest.approx(0.3)
    assert "60.0" in capsys.readouterr().out


def test_sides_that_learn_work_at_the_same_time_with_one_thread_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    work = '{"units": 1, "return": float(__import__("os").environ["OMP_NUM_THREADS"])}'
    first, second = side("first", work), side("second", work)
    together([first, second], 2, ppo_throughput.learned)
    assert [turn["return"] for turn in (*first.turns, *second.turns)] == [1, 1, 1, 1]
    assert (
        sorted(line.split()[0] for line in capsys.readouterr().out.splitlines())
        == ["first"] * 2 + ["second"] * 2
    )


@pytest.mark.parametrize("run", [measure, lambda sides, turns: together(sides, turns, str)])
def test_a_side_that_fails_says_why(run: Callable[..., None]) -> None:
    with pytest.raises(SystemExit, match=r"(?s)broken did not answer.*ZeroDivisionError"):
        run([side("broken", "1 / 0")], turns=1)
