"""The benchmarks' command lines: small ones run to their end, and wrong ones are refused in a line."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmarks import (
    agent_alone,
    atari,
    cartpole_labels,
    env_throughput,
    gradient_steps,
    learning,
    learning_curves,
    memory,
    ppo_throughput,
    reward_check,
)
from services import weights
from services.agent_trainer import ppo
from services.reward_trainer import reward_model
from services.teachers import Teacher

CARTPOLE = "configs/cartpole.toml"
SMALL = {
    "rounds": 3, "segments.collect_steps": 400, "agent.total_steps": 128, "agent.final_steps": 128,
    "agent.num_envs": 2, "agent.minibatch_size": 64, "evaluation.episodes": 1, "reward_model.epochs": 1,
}  # fmt: skip
SMALL_SET = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what runs a benchmark's command, and gives what it printed on both streams."""

    def run(module: ModuleType, *arguments: object) -> Any:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        module.main()
        return capsys.readouterr().out

    return run


def test_memory_measures_every_stage(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SimpleNamespace(apply=lambda function, arguments: function(*arguments))
    here = SimpleNamespace(Pool=lambda *_, **__: nullcontext(pool))  # new processes take seconds to import
    monkeypatch.setattr(memory.multiprocessing, "get_context", lambda _: here)
    out = call(memory, "--config", CARTPOLE, "--labels", 30, "--steps", 128, 256, *SMALL_SET)
    peaks = json.loads(out.splitlines()[-1])
    assert [*peaks] == [
        "collecting",
        "training_reward, 30 labels",
        "training_agent, 128 steps",
        "training_agent, 256 steps",
    ]
    assert min(peaks.values()) > 0


def test_a_run_tells_how_many_labels_were_given_after_each_round() -> None:
    split = [f"{key}={value}" for key, value in SMALL.items()]
    (config,) = learning.configurations(Path(CARTPOLE), split, [1], labels=9)
    found = learning.run(config, Teacher("oracle", seed=1))
    told = atari.summary(config, [found | {"minutes": 0, "core_minutes": 0, "ladders": []}])
    assert told["labels"] == [9]
    assert told["labels_after"] == [[5, 7, 9]]


@pytest.mark.parametrize(
    ("module", "arguments", "why"),
    [
        (atari, ["--seeds", "3-1"], "write 1-30 or 4,7,9"),
        (atari, ["--seeds", "x"], "write 1-30 or 4,7,9"),
        (atari, ["--labels", "0"], "'0' is no whole number from 1"),
        (atari, ["--labels", "4"], "4 labels are too few for 10 rounds: give 11 or more"),
        (atari, ["--set", "rounds=abc", "--labels", "500"], "rounds: Input should be a valid integer"),
        (atari, ["--set", "foo=1"], "foo: there is no such key"),
        (atari, ["--set", "atari.frame_size=5"], "atari.frame_size: Input should be greater than or equal"),
        (atari, ["--keep", __file__], "File exists"),
        (learning, ["--labels", "0"], "'0' is no whole number from 1"),
        (cartpole_labels, ["--labels", "0"], "'0' is no whole number from 1"),
        (cartpole_labels, ["--set", "foo=1"], "foo: there is no such key"),
        (agent_alone, ["--steps", "0"], "'0' is no whole number from 1"),
        (agent_alone, ["--until", "-3"], "'-3' is no whole number from 1"),
        (agent_alone, ["--config", "none.toml"], "there is no configuration none.toml"),
        (memory, ["--steps", "0", "1"], "'0' is no whole number from 1"),
        (memory, ["--set", "foo=1"], "foo: there is no such key"),
        (env_throughput, ["--turns", "0"], "'0' is no whole number from 1"),
        (env_throughput, ["--filmed", "1.5"], "invalid share value: '1.5'"),
        (ppo_throughput, ["--turns", "0"], "'0' is no whole number from 1"),
        (ppo_throughput, ["--only", "cartpole"], "--cleanrl PATH"),
        (ppo_throughput, ["--learn", "cartpole", "--steps", "9"], "--cleanrl PATH"),
        (ppo_throughput, ["--learn", "pong"], "--learn needs --steps"),
        (ppo_throughput, ["--cleanrl", "docs"], "is no checkout of CleanRL"),
        (gradient_steps, ["--steps", "few"], "'few' is no whole number from 1"),
        (reward_check, ["none", "none"], "none: No such file"),
        (learning_curves, ["none", "--out", "x.svg"], "none: No such file"),
        (learning_curves, [__file__, "--out", "x.svg"], "line 1, is none that benchmarks.atari ends with"),
        (learning_curves, ["docs/results/pong.jsonl", "--out", "x.svg", "--ladder", "y"], "there are: none"),
        (
            learning_curves,
            ["docs/results/donkey_kong.jsonl", "--out", "x.svg", "--ladder", "y"],
            "those there are: y <= 101, y <= 132",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is(
    call: Any, module: ModuleType, arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        call(module, *arguments)
    assert end.value.code == 2
    assert why in capsys.readouterr().err


def test_reward_models_are_checked_on_frames_of_another_size(
    call: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent, model = tmp_path / "agent", tmp_path / "model"
    agent.write_bytes(weights.save_agent(ppo.Agent((4, 36, 48), 3, hidden=8)))
    small = reward_model.RewardModel((4, 36, 48), reward_model.Args(hidden=8))
    model.write_bytes(weights.save_reward_model(small))
    with pytest.raises(SystemExit):
        call(reward_check, agent, model)
    assert "the agent sees [4, 36, 48] and has 3 actions, the configuration" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        call(reward_check, model, agent)
    assert f"{model}: this file holds no agent" in capsys.readouterr().err
    fits = ["--set", "atari.frame_size=48", "--set", "segments.collect_envs=1"]
    found = json.loads(call(reward_check, agent, model, "--steps", 50, *fits).splitlines()[-1])
    assert sum(found["models"][str(model)][f"segments {place}"] for place in ("below", "at", "above")) == 2
