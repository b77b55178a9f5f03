"""The trainers' stages: the same job gives the same result, and they store what was agreed."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from services import weights
from services.agent_trainer import clips, envs, stages
from services.agent_trainer.stages import collect, evaluate, train_agent
from services.reward_trainer.stages import train_reward
from shared import config as configuration
from shared.jobs import (
    CollectJob,
    CollectResult,
    LabelRecord,
    StageStopped,
    TrainAgentJob,
    TrainAgentResult,
    TrainRewardJob,
    TrainRewardResult,
    job_from_json,
    result_from_json,
    to_json,
)

SMALL: dict[str, Any] = {
    "name": "small",
    "env_id": "CartPole-v1",
    "rounds": 2,
    "segments": {"length": 8, "collect_steps": 256, "collect_envs": 4, "choice": "disagreement"},
    "labels": {"comparisons_per_round": 5},
    "reward_model": {"epochs": 15, "held_out": 0.3},
    "agent": {
        "num_envs": 4, "num_steps": 32, "minibatch_size": 64, "total_steps": 256, "final_steps": 512,
        "update_epochs": 2,
    },
    "evaluation": {"episodes": 3},
}  # fmt: skip


@dataclass
class Memory:
    data: dict[str, bytes] = field(default_factory=dict)

    def put(self, key: str, data: bytes) -> None:
        assert key not in self.data
        self.data[key] = data

    def get(self, key: str, sha256: str | None = None) -> bytes:
        assert sha256 in (None, hashlib.sha256(self.data[key]).hexdigest())
        return self.data[key]


def silent(fraction: float, metrics: dict[str, Any]) -> None:
    assert 0 <= fraction <= 1


def go_on() -> bool:
    return False


def labels_of(result: CollectResult, number: int) -> list[LabelRecord]:
    labels = []
    for comparison in result.comparisons:
        chosen = [result.clips[i] for i in comparison.clips]
        scores = [sum(clip.judgement) for clip in chosen]
        ranks = [sum(other > score for other in scores) for score in scores]
        labels.append(LabelRecord([c.npz for c in chosen], ranks, comparison.held_out, "teacher", number))
    return labels


Round = tuple[CollectResult, TrainRewardResult, TrainAgentResult]


def two_rounds(store: Memory, attempt: int) -> list[Round]:
    """Run two rounds, each job and result sent through JSON as on the way to a worker."""
    rounds: list[Round] = []
    labels: list[LabelRecord] = []
    for number in (1, 2):
        about: dict[str, Any] = {"attempt_id": attempt, "round_number": number, "seed": 1, "config": SMALL}
        about |= {"prefix": f"{number}/{attempt}/", "log_dir": None}
        agent = rounds[-1][2].agent if rounds else None
        model = rounds[-1][1].reward_model if rounds else None
        job = job_from_json("collecting", to_json(CollectJob(**about, agent=agent, reward_model=model)))
        assert isinstance(job, CollectJob)
        collected = collect(job, store, silent, go_on)
        labels += labels_of(collected, number)
        reward_job = TrainRewardJob(**about, labels=labels, reward_model=model, agent=agent)
        trained = train_reward(reward_job, store, silent, go_on)
        agent_job = TrainAgentJob(**about, reward_model=trained.reward_model, agent=agent)
        result = train_agent(agent_job, store, silent, go_on)
        for stage, value in (
            ("collecting", collected),
            ("training_reward", trained),
            ("training_agent", result),
        ):
            assert result_from_json(stage, to_json(value)) == value
        rounds.append((collected, trained, result))
    return rounds


@pytest.fixture(scope="module")
def store() -> Memory:
    return Memory()


@pytest.fixture(scope="module")
def rounds(store: Memory) -> list[Round]:
    return two_rounds(store, attempt=1)


def test_another_attempt_gives_the_same_bit_for_bit(store: Memory, rounds: list[Round]) -> None:
    again = two_rounds(store, attempt=2)
    for number in (1, 2):
        first = {
            key.split("/", 2)[2]: data for key, data in store.data.items() if key.startswith(f"{number}/1/")
        }
        second = {
            key.split("/", 2)[2]: data for key, data in store.data.items() if key.startswith(f"{number}/2/")
        }
        assert first == second
        assert len(first) == 5 * 2 * 2 + 4  # clips as npz and mp4, weights twice, predictions, a video
    for (collected, _, trained), (collected_again, _, trained_again) in zip(rounds, again, strict=True):
        assert [c.judgement for c in collected.clips] == [c.judgement for c in collected_again.clips]
        assert collected.comparisons == collected_again.comparisons
        assert trained.true_returns == trained_again.true_returns


def test_the_reward_model_tells_what_it_thinks_of_the_rounds_comparisons(
    store: Memory, rounds: list[Round]
) -> None:
    for collected, reward, _ in rounds:
        assert reward.predictions is not None
        told = json.loads(store.get(reward.predictions.key, reward.predictions.sha256))["comparisons"]
        known = {clip.npz.sha256: clip for clip in collected.clips}
        assert 0 < len(told) <= len(collected.comparisons)
        for one in told:
            assert sum(one["best"]) == pytest.approx(1, abs=1e-3)
            first, second = (sum(steps) for steps in one["rewards"])
            if abs(first - second) > 1:  # a mean of members may lean the other way where it is close
                assert (one["best"][0] > one["best"][1]) == (first > second)
            assert [len(steps) for steps in one["rewards"]] == [known[clip].steps for clip in one["clips"]]


def test_rounds_and_seeds_differ(store: Memory, rounds: list[Round]) -> None:
    assert rounds[0][0].clips[0].npz.sha256 != rounds[1][0].clips[0].npz.sha256
    assert rounds[0][2].agent.sha256 != rounds[1][2].agent.sha256
    about: dict[str, Any] = {"attempt_id": 9, "round_number": 1, "seed": 2, "config": SMALL | {"seed": 2}}
    other = collect(
        CollectJob(**about, prefix="other/", log_dir=None, agent=None, reward_model=None),
        store,
        silent,
        go_on,
    )
    assert other.clips[0].npz.sha256 != rounds[0][0].clips[0].npz.sha256


def test_clips_hold_consecutive_steps_of_one_episode(store: Memory, rounds: list[Round]) -> None:
    seen_a_fall = False
    for collected, _, _ in rounds:
        assert len(collected.clips) == 10
        assert [c.clips for c in collected.comparisons] == [[2 * i, 2 * i + 1] for i in range(5)]
        for clip in collected.clips:
            observations, actions = clips.unpack_npz(store.get(clip.npz.key, clip.npz.sha256))
            assert observations.shape == (9, 4)
            assert actions.shape == (8,)
            assert (clip.steps, clip.fps, len(clip.judgement)) == (8, 50, 8)
            assert clip.judgement == envs.judge_cartpole(observations[1:]).tolist()
            fallen = envs.judge_cartpole(observations) == -2
            seen_a_fall |= bool(fallen.any())
            for t in range(8):  # CartPole's equation of motion, or a fallen pole that stands still
                x, speed = observations[t][:2]
                moved = np.isclose(observations[t + 1][0], x + 0.02 * speed, atol=1e-6)
                still = np.array_equal(observations[t + 1], observations[t])
                assert still if fallen[t] else moved
    assert seen_a_fall


def test_artifacts_are_named_summed_and_inside_the_attempt(store: Memory, rounds: list[Round]) -> None:
    for number, (collected, trained, result) in enumerate(rounds, 1):
        artifacts = [a for clip in collected.clips for a in (clip.npz, clip.mp4)]
        artifacts += [trained.reward_model, result.agent, result.video]
        for artifact in artifacts:
            data = store.data[artifact.key]
            assert artifact.key.startswith(f"{number}/1/")
            assert artifact.sha256 == hashlib.sha256(data).hexdigest()
            assert artifact.size == len(data)
        assert result.video.size < 200_000
        assert store.data[result.video.key][4:8] == b"ftyp"
        assert all(store.data[clip.mp4.key][4:8] == b"ftyp" for clip in collected.clips)


def test_metrics_and_true_returns(rounds: list[Round]) -> None:
    for collected, trained, result in rounds:
        assert len(result.true_returns) == 3
        assert all(value == int(value) and 8 <= value <= 500 for value in result.true_returns)
        assert result.metrics["charts/true_return"] == pytest.approx(np.mean(result.true_returns))
        assert {"charts/predicted_return", "losses/entropy"} <= result.metrics.keys()
        assert {"train/accuracy", "train/calibration", "train/loss"} <= trained.metrics.keys()
        for one in (collected, trained, result):  # a process with torch in it, and no more
            assert 50 < one.metrics["system/peak_memory_mib"] < 4096


def logged(folder: Path) -> dict[str, float]:
    """Return the last value of everything that TensorBoard finds in `folder`."""
    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {name: pytest.approx(reader.Scalars(name)[-1].value) for name in reader.Tags()["scalars"]}


def test_no_true_reward_reaches_the_reward_model(store: Memory, rounds: list[Round], tmp_path: Path) -> None:
    """What training reads is the label set alone: the judgement beside a clip changes nothing."""
    collected, trained, _ = rounds[0]
    about: dict[str, Any] = {"attempt_id": 3, "round_number": 1, "seed": 1, "config": SMALL}
    about["log_dir"] = str(tmp_path)
    labels = labels_of(collected, 1)
    again = train_reward(
        TrainRewardJob(**about, prefix="same/", labels=labels, reward_model=None, agent=None),
        store,
        silent,
        go_on,
    )
    assert again.reward_model.sha256 == trained.reward_model.sha256
    numbers = {name: value for name, value in again.metrics.items() if name != "labels_sha256"}
    found = logged(tmp_path)
    assert numbers == {name: found[name] for name in numbers}
    turned = [replace(label, ranks=label.ranks[::-1]) for label in labels]
    other = train_reward(
        TrainRewardJob(**about, prefix="turned/", labels=turned, reward_model=None, agent=None),
        store, silent, go_on,
    )  # fmt: skip
    assert other.reward_model.sha256 != trained.reward_model.sha256


def job(**changes: Any) -> CollectJob:
    config = configuration.parse(SMALL).model_dump()
    for key, value in changes.items():
        table, _, leaf = key.partition("__")
        if leaf:
            config[table][leaf] = value
        else:
            config[table] = value
    return CollectJob(
        attempt_id=1, round_number=1, seed=1, prefix="x/", config=config, log_dir=None, agent=None,
        reward_model=None,
    )  # fmt: skip


def test_a_stage_stops_when_asked() -> None:
    store = Memory()
    with pytest.raises(StageStopped):
        collect(job(), store, silent, lambda: True)
    assert store.data == {}


def test_segments_longer_than_any_episode_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"segments\.length"):
        collect(job(env_id="MountainCar-v0", segments__length=201), Memory(), silent, go_on, encode=None)


def test_a_round_of_few_pairs_always_has_one_to_train_on() -> None:
    few = job(labels__comparisons_first_round=2, reward_model__held_out=0.99)
    for seed in range(5):
        held_out = [
            comparison.held_out
            for comparison in collect(
                replace(few, config={**few.config, "seed": seed}), Memory(), silent, go_on, encode=None
            ).comparisons
        ]
        assert held_out == [False, True]


def test_the_evaluations_actions_play_it_again(store: Memory, rounds: list[Round]) -> None:
    """Episode i begins from seed + i, so whoever has its actions can look at it from another side."""
    parsed = configuration.parse(SMALL)
    agent, model = (store.get(a.key) for a in (rounds[1][2].agent, rounds[1][1].reward_model))
    loaded = weights.load_agent(agent), weights.load_reward_model(model)
    true_returns, _, played = evaluate(*loaded, parsed, 7, go_on)
    assert len(true_returns) == len(played) == 3
    for i, actions in enumerate(played):
        env = envs.make_env(parsed.env_id)
        env.reset(seed=7 + i)
        steps = [env.step(action) for action in actions]
        assert sum(float(step[1]) for step in steps) == true_returns[i]
        assert [step[2] or step[3] for step in steps] == [False] * (len(steps) - 1) + [True]


def test_the_last_round_may_begin_anew_and_learn_for_longer(store: Memory, rounds: list[Round]) -> None:
    last = SMALL | {"rounds": 1}  # so that round 1 is the last
    about: dict[str, Any] = {"attempt_id": 3, "round_number": 1, "seed": 1, "log_dir": None}
    collected, trained, result = rounds[0]
    agents, models = [], []
    anew, here, on = {"final_restart": True}, {"restart_rounds": [1]}, dict[str, Any]()
    for setting, begin in ((anew, result.agent), (here, result.agent), (anew, None), (on, result.agent)):
        job = TrainAgentJob(
            **about, prefix=f"{len(agents)}/", config=last | {"agent": SMALL["agent"] | setting},
            reward_model=trained.reward_model, agent=begin,
        )  # fmt: skip
        agents.append(train_agent(job, store, silent, go_on, encode=None).agent.sha256)
    assert agents[0] == agents[1] == agents[2] != agents[3]
    for number, (epochs, final) in enumerate([(4, None), (15, 4), (15, None)]):
        config = last | {"reward_model": SMALL["reward_model"] | {"epochs": epochs, "final_epochs": final}}
        reward_job = TrainRewardJob(
            **about,
            prefix=f"e{number}/",
            config=config,
            labels=labels_of(collected, 1),
            reward_model=None,
            agent=None,
        )
        model = train_reward(reward_job, store, silent, go_on).reward_model
        models.append(weights.load_reward_model(store.get(model.key)))
    same = [torch.equal(models[0].weights[0], other.weights[0]) for other in models[1:]]
    assert same == [True, False]


def test_drawn_actions_are_the_policys_own(store: Memory, rounds: list[Round]) -> None:
    """Of an agent that knows nothing the likeliest action is one for ever; drawn ones are not."""
    config = configuration.parse(SMALL | {"evaluation": {"episodes": 3, "actions": "drawn"}})
    agent = stages.load_agent(config, store, None)
    with torch.no_grad():
        agent.policy[-1].weight.zero_()
        agent.policy[-1].bias.copy_(torch.tensor([0.1, 0.0]))
    model = stages.load_reward_model(store, rounds[0][1].reward_model)
    likeliest = configuration.parse(SMALL)
    drawn, again, same = (stages.evaluate(agent, model, c, 5, go_on)[2] for c in (config, config, likeliest))
    assert {action for game in same for action in game} == {0}
    assert {action for game in drawn for action in game} == {0, 1}
    assert drawn == again


def test_an_unknown_environment_is_an_error() -> None:
    with pytest.raises(envs.UnknownEnvironment, match="CartPoel"):
        collect(job(env_id="CartPoel-v1"), Memory(), silent, go_on)


def test_damaged_and_missing_inputs_are_errors(store: Memory, rounds: list[Round]) -> None:
    labels, store_copy = labels_of(rounds[0][0], 1), Memory(dict(store.data))
    about: dict[str, Any] = {"attempt_id": 3, "round_number": 1, "seed": 1, "config": SMALL, "log_dir": None}
    empty = TrainRewardJob(**about, prefix="a/", labels=[], reward_model=None, agent=None)
    with pytest.raises(ValueError, match="no preference to train on"):
        train_reward(empty, store_copy, silent, go_on)
    broken = replace(labels[0].clips[0], sha256=hashlib.sha256(b"junk").hexdigest())
    store_copy.data[broken.key] = b"junk"
    damaged = replace(empty, labels=[replace(labels[0], clips=[broken, labels[0].clips[1]]), *labels[1:]])
    with pytest.raises(ValueError, match="not a segment"):
        train_reward(damaged, store_copy, silent, go_on)


@pytest.mark.parametrize("k", [3, 4])
def test_several_clips_are_chosen_ranked_and_learned_from(k: int) -> None:
    store, asked = Memory(), job(labels__clips_per_comparison=k, labels__comparisons_per_round=6)
    collected = collect(asked, store, silent, go_on, encode=None)
    assert [one.clips for one in collected.comparisons] == [list(range(k * n, k * n + k)) for n in range(6)]
    assert len({clip.npz.sha256 for clip in collected.clips}) == 6 * k
    labels = labels_of(collected, 1)
    about = {"attempt_id": 2, "round_number": 1, "seed": 1, "config": asked.config, "log_dir": None}
    learning = TrainRewardJob(**about, prefix="y/", labels=labels, reward_model=None, agent=None)  # type: ignore[arg-type]
    trained = train_reward(learning, store, silent, go_on)
    assert 0.5 < trained.metrics["train/accuracy"] <= 1
    assert trained.predictions is not None
    for one in json.loads(store.get(trained.predictions.key))["comparisons"]:
        assert len(one["best"]) == len(one["rewards"]) == k
        assert sum(one["best"]) == pytest.approx(1, abs=1e-3)

    def disagreement(choice: str) -> float:
        """How far the members disagree on what this choice takes, on average over all pairs of clips."""
        changed = configuration.parse(asked.config).model_copy(deep=True).model_dump()
        changed["segments"] |= {"choice": choice, "collect_steps": 2048}  # room to choose in
        again = replace(
            asked, config=changed, round_number=2, prefix=f"{choice}/", reward_model=trained.reward_model
        )
        found = collect(again, store, silent, go_on, encode=None)
        model = weights.load_reward_model(store.get(trained.reward_model.key))
        seen = [clips.unpack_npz(store.get(clip.npz.key))[0][1:] for clip in found.clips]
        sums = model.predict(torch.from_numpy(np.array(seen))).sum(-1).view(len(model.shift), -1, k)
        pairs = [
            (sums[..., i] - sums[..., j]).sigmoid().std(0, correction=0) for i in range(k) for j in range(i)
        ]
        return float(torch.stack(pairs).mean())

    assert disagreement("disagreement") > 1.2 * disagreement("uniform")
    mixed = replace(labels[0], clips=labels[0].clips[:2], ranks=[0, 1])
    with pytest.raises(ValueError, match="differ in number"):
        train_reward(replace(learning, labels=[mixed, *labels]), store, silent, go_on)


def test_another_environment_with_the_uniform_choice() -> None:
    store = Memory()
    result = collect(job(env_id="Acrobot-v1", segments__choice="uniform"), store, silent, go_on)
    assert len(result.clips) == 10
    assert all(clip.judgement == [-1.0] * 8 for clip in result.clips)
