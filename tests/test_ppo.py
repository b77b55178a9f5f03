"""PPO: its estimates against naive loops, what happens at a reset, and that it learns."""

import json
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from services import weights
from services.agent_trainer import ppo
from services.agent_trainer.envs import HideTermination
from services.reward_trainer import reward_model


class Corridor(gym.Env[np.ndarray, int]):
    """Walk left or right from 0 for `length` steps, or up to `end`; a step is worth its position."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, length: int = 20, end: int | None = None, counted: bool = False) -> None:
        self.length, self.end, self.counted = length, end, counted
        self.episode = 0

    def observe(self) -> np.ndarray:
        """Return the position and, if asked for, the episode's number, which shows what is mixed up."""
        return np.array([self.position, self.episode if self.counted else 0], np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self.position, self.steps = 0, 0
        self.episode += 1
        return self.observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position += 1 if action == 1 else -1
        self.steps += 1
        fell = self.end is not None and abs(self.position) >= self.end
        return self.observe(), float(self.position), fell, self.steps >= self.length, {}


def vector(make: Callable[[], gym.Env[Any, Any]], count: int = 4) -> SyncVectorEnv:
    return SyncVectorEnv([make] * count, autoreset_mode=AutoresetMode.SAME_STEP)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # small networks are quicker on one core


def test_gae_is_the_naive_sum() -> None:
    draw = torch.Generator().manual_seed(1)
    T, N = 12, 3
    rewards, values, next_values = torch.randn(3, T, N, generator=draw)
    ended = torch.rand(T, N, generator=draw) < 0.25
    terminated = ended & (torch.rand(T, N, generator=draw) < 0.5)
    assert terminated.any()
    assert (ended & ~terminated).any()
    args = ppo.Args(gamma=0.9, gae_lambda=0.7)
    advantages = ppo.gae(rewards, values, next_values, terminated, ended, args)
    for n in range(N):
        for t in range(T):
            total = 0.0
            for step in range(t, T):  # Σ (γλ)^l δ, up to the end of the episode
                worth = 0.0 if terminated[step, n] else next_values[step, n].item()
                delta = rewards[step, n].item() + 0.9 * worth - values[step, n].item()
                total += (0.9 * 0.7) ** (step - t) * delta
                if ended[step, n]:
                    break
            assert advantages[t, n].item() == pytest.approx(total, abs=1e-4)


def test_no_transition_crosses_a_reset() -> None:
    player = ppo.Player(vector(lambda: Corridor(length=7, end=4, counted=True)), seed=1)
    data = ppo.rollout(ppo.Agent([2], 2), player, 50)
    assert data.ended.any()
    before, after = data.observations, data.next_observations
    assert torch.equal(before[..., 1], after[..., 1])  # the same episode on both sides of every step
    step = torch.where(data.actions == 1, 1.0, -1.0)
    assert torch.equal(after[..., 0] - before[..., 0], step)  # the true successor, at an episode's end too
    # After an end comes the next episode's first observation, otherwise the successor.
    following = before[1:]
    assert torch.equal(following[~data.ended[:-1]], after[:-1][~data.ended[:-1]])
    assert (following[data.ended[:-1]][:, 0] == 0).all()
    assert torch.equal(data.terminated, after[..., 0].abs() >= 4)


def test_every_episode_is_counted_once_with_its_own_return() -> None:
    player = ppo.Player(vector(lambda: Corridor(length=7, end=4)), seed=1)
    chunks = [
        ppo.rollout(ppo.Agent([2], 2), player, steps) for steps in (13, 1, 36)
    ]  # ends lie across chunks
    rewards, ended = (torch.cat([getattr(c, name) for c in chunks]) for name in ("env_rewards", "ended"))
    expected = []
    for t in range(50):
        for n in range(4):
            if ended[t, n]:
                start = max((s + 1 for s in range(t) if ended[s, n]), default=0)
                expected.append((rewards[start : t + 1, n].sum().item(), t + 1 - start))
    assert player.finished == expected


def test_log_probabilities_are_those_of_the_actions_drawn() -> None:
    agent, player = ppo.Agent([2], 2, seed=5), ppo.Player(vector(Corridor, 64), seed=1)
    with torch.no_grad():
        agent.policy[-1].bias.copy_(torch.tensor([0.0, 1.0]))  # type: ignore[union-attr]
    data = ppo.rollout(agent, player, 40)
    expected = agent.log_policy(data.observations).gather(-1, data.actions[..., None]).squeeze(-1)
    torch.testing.assert_close(data.log_probs, expected)
    with torch.no_grad():
        torch.testing.assert_close(data.values, agent(data.sights)[1])
    share = (data.actions == 1).float().mean().item()
    assert share == pytest.approx(agent.log_policy(data.observations).exp()[..., 1].mean().item(), abs=0.03)


def test_other_reset_modes_are_refused() -> None:
    envs = SyncVectorEnv([Corridor], autoreset_mode=AutoresetMode.NEXT_STEP)
    with pytest.raises(ValueError, match="SAME_STEP"):
        ppo.Player(envs, seed=1)


def test_the_first_update_of_a_fresh_rollout_starts_at_ratio_one() -> None:
    agent, player = ppo.Agent([2], 2), ppo.Player(vector(Corridor), seed=1)
    data = ppo.rollout(agent, player, 16)
    args = ppo.Args(update_epochs=1, minibatch_size=64, learning_rate=1e-3)
    losses = ppo.update(
        agent, torch.optim.Adam(agent.parameters()), data, data.env_rewards, args, torch.Generator()
    )
    assert losses["losses/approx_kl"] == pytest.approx(0, abs=1e-6)
    assert losses["losses/clipfrac"] == 0
    assert losses["losses/policy_loss"] == pytest.approx(0, abs=1e-6)  # normalised advantages average to 0


def test_the_normalisation_is_declared_or_measured_once() -> None:
    agent = ppo.Agent([2], 2)
    low, high = np.array([-4, -np.inf], np.float32), np.array([8, np.inf], np.float32)
    seen = torch.tensor([[[0.0, 1.0]], [[0.0, 5.0]]])
    agent.measure(seen, gym.spaces.Box(low, high))
    torch.testing.assert_close(agent.features(torch.tensor([8.0, 5.0])), torch.tensor([2.0, 1.0]))


def true_return(agent: ppo.Agent) -> float:
    """Return the mean true return of one episode in each of four corridors."""
    data = ppo.rollout(agent, ppo.Player(vector(Corridor), seed=99), 20)
    return data.env_rewards.sum(0).mean().item()


def test_it_learns_from_the_environments_reward() -> None:
    args = ppo.Args(seed=1, total_steps=4096, num_envs=4, num_steps=64, minibatch_size=64)
    agent = ppo.Agent([2], 2)
    metrics = ppo.train(args, agent, vector(Corridor), "env")
    assert true_return(agent) > 120  # of at most 210
    assert {"charts/episodic_return", "charts/episodic_length", "losses/value_loss"} <= metrics.keys()


def test_it_learns_from_a_callable_and_never_from_the_environments_reward() -> None:
    shapes: set[tuple[int, ...]] = set()

    def leftwards(before: torch.Tensor, actions: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        shapes.update(tuple(x.shape) for x in (before, actions, after))
        return before[:, 0] - after[:, 0]

    args = ppo.Args(seed=1, total_steps=4096, num_envs=4, num_steps=64, minibatch_size=64)
    agent = ppo.Agent([2], 2)
    metrics = ppo.train(args, agent, vector(Corridor), leftwards)
    assert shapes == {(256, 2), (256,)}
    assert true_return(agent) < -120
    assert metrics["charts/episodic_return"] < -50  # the true return, logged beside it, went down


def test_a_hidden_termination_never_reaches_the_learner() -> None:
    envs = vector(lambda: HideTermination(Corridor(length=30, end=3), linger=2))
    data = ppo.rollout(ppo.Agent([2], 2), ppo.Player(envs, seed=1), 60)
    assert data.ended.any()
    assert not data.terminated.any()


def test_preferences_alone_improve_the_true_return() -> None:
    """The whole idea in one test: preferences by true return, a reward model, an agent that learns."""
    agent = ppo.Agent([2], 2, seed=1)
    before = true_return(agent)
    data = ppo.rollout(agent, ppo.Player(vector(lambda: Corridor(10)), seed=1), 200)
    clips = data.next_observations[..., :1].transpose(0, 1).reshape(40, 2, 10, 1)  # one episode each
    ranks = clips.sum((-1, -2)).argsort(descending=True).argsort()
    model = reward_model.RewardModel([1], reward_model.Args())
    reward_model.train(model, reward_model.Preferences(clips, ranks, torch.zeros(40, dtype=torch.bool)))
    args = ppo.Args(seed=1, total_steps=4096, num_envs=4, num_steps=64, minibatch_size=64)
    ppo.train(
        args, agent, vector(Corridor), lambda obs, actions, after: model.reward(obs, actions, after[:, :1])
    )
    assert true_return(agent) > before + 50  # random play, of which people spoke, goes no further than 6


class Flicker(gym.Env[np.ndarray, int]):
    """Four grey pictures of noise, as bright as the last action was large."""

    observation_space = gym.spaces.Box(0, 255, (4, 36, 36), np.uint8)
    action_space = gym.spaces.Discrete(3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Any]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(0), {}

    def observe(self, action: int) -> np.ndarray:
        return self.np_random.integers(0, 40, (4, 36, 36), np.uint8) + np.uint8(70 * action)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self.observe(int(action)), 0.0, False, self.steps >= 30, {}


def brightness(_: torch.Tensor, __: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return after.float().mean((1, 2, 3))


def test_of_frames_the_unit_of_a_reward_does_not_matter() -> None:
    """The critic sees the same values whatever the size of the reward model's numbers."""
    args = ppo.Args(total_steps=512, num_envs=4, num_steps=64, minibatch_size=64, update_epochs=2)
    ends = []
    for unit in (1.0, 1000.0):
        agent = ppo.Agent([4, 36, 36], 3, hidden=16)

        def reward(*seen: torch.Tensor, unit: float = unit) -> torch.Tensor:
            return unit * brightness(*seen)

        ends.append((ppo.train(args, agent, vector(Flicker), reward), agent))
    (one, agent), (other, again) = ends
    assert again.spread.item() == pytest.approx(1000 * agent.spread.item(), rel=1e-3)
    assert other["losses/value_loss"] == pytest.approx(one["losses/value_loss"], rel=0.05)
    for name in ("policy.weight", "critic.weight"):
        torch.testing.assert_close(agent.state_dict()[name], again.state_dict()[name], atol=2e-3, rtol=0.05)


def test_of_no_frames_there_are_no_values() -> None:
    policy, values = ppo.Agent([4, 32, 32], 3, hidden=8)(torch.zeros(0, 4, 32, 32, dtype=torch.uint8))
    assert policy.shape == (0, 3)
    assert values.shape == (0,)  # a rollout in which no episode ended has no last sights


def test_it_learns_from_frames() -> None:
    agent = ppo.Agent([4, 36, 36], 3, hidden=16)
    args = ppo.Args(total_steps=4096, num_envs=8, num_steps=64, minibatch_size=64, update_epochs=4)
    ppo.train(args, agent, vector(Flicker, 8), brightness)
    with torch.no_grad():
        seen = ppo.tensor(vector(Flicker, 8).reset(seed=5)[0])
        assert (agent.log_policy(seen).argmax(-1) == 2).all()


@pytest.mark.parametrize(("anneal", "left"), [(True, [0.4, 0.2]), (False, [0.4, 0.4])])
def test_the_entropy_bonus_falls_with_the_step_size_if_asked_for(
    monkeypatch: pytest.MonkeyPatch, anneal: bool, left: list[float]
) -> None:
    used = []
    real = ppo.update

    def spy(
        agent: Any, optimizer: Any, data: Any, rewards: Any, args: ppo.Args, draw: Any
    ) -> dict[str, float]:
        used.append(args.ent_coef)
        return real(agent, optimizer, data, rewards, args, draw)

    monkeypatch.setattr(ppo, "update", spy)
    args = ppo.Args(total_steps=512, num_envs=4, num_steps=64, ent_coef=0.4, anneal_entropy=anneal)
    ppo.train(args, ppo.Agent([2], 2), vector(Corridor), "env")
    assert used == pytest.approx(left)


def test_training_is_the_same_twice_and_stops_when_asked() -> None:
    args = ppo.Args(seed=3, total_steps=1024, num_envs=4, num_steps=64, minibatch_size=64)
    agents = [ppo.Agent([2], 2, seed=3) for _ in range(3)]
    for agent in agents[:2]:
        ppo.train(args, agent, vector(Corridor), "env")
    assert weights.save_agent(agents[0]) == weights.save_agent(agents[1])
    fractions: list[float] = []
    ppo.train(
        args, agents[2], vector(Corridor), "env", lambda fraction, _: fractions.append(fraction),
        lambda: len(fractions) == 2,
    )  # fmt: skip
    assert fractions == [0.25, 0.5]
    assert weights.save_agent(agents[2]) != weights.save_agent(agents[0])


def test_a_saved_agent_comes_back_whole() -> None:
    agent = ppo.Agent([3], 4, hidden=8, seed=2)
    again = weights.load_agent(weights.save_agent(agent))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(agent.log_policy(x), again.log_policy(x))
    with pytest.raises(ValueError, match="no agent"):
        weights.load_agent(weights.save_agent(agent)[:-7])
    with pytest.raises(ValueError, match="no agent"):
        weights.load_agent(weights.save_reward_model(reward_model.RewardModel([3], reward_model.Args())))


def test_an_agent_of_frames_from_before_its_rewards_were_scaled_is_read() -> None:
    agent = ppo.Agent([4, 36, 36], 3, hidden=16)
    agent.spread.fill_(3)
    state = agent.state_dict()
    header = {"agent": json.dumps(agent.sizes)}
    old = safetensors.torch.save(
        {name: x.contiguous() for name, x in state.items() if name != "spread"}, header
    )
    read = weights.load_agent(old).state_dict()
    assert read.pop("spread") == 0
    assert all(torch.equal(x, state[name]) for name, x in read.items())
    with pytest.raises(ValueError, match="holds no agent"):
        weights.load_agent(safetensors.torch.save({"spread": agent.spread}, header))


def test_tensorboard_gets_the_known_names(tmp_path: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    args = ppo.Args(total_steps=512, num_envs=4, num_steps=64, minibatch_size=64, log_dir=str(tmp_path))
    ppo.train(args, ppo.Agent([2], 2), vector(Corridor), "env", first_step=1000)
    events = EventAccumulator(str(tmp_path)).Reload()
    names = set(events.Tags()["scalars"])
    assert {
        "charts/episodic_return",
        "charts/learning_rate",
        "losses/policy_loss",
        "losses/approx_kl",
    } <= names
    assert [event.step for event in events.Scalars("losses/entropy")] == [1256, 1512]


def test_it_runs_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    ppo.main(ppo.Args(total_steps=2048))
    assert "charts/episodic_return" in capsys.readouterr().out
    ppo.main(ppo.Args(total_steps=1024, reward="tests.test_ppo:nothing"))
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("charts/predicted_reward"))
    assert float(line.split()[-1]) == 0


def nothing(before: torch.Tensor, actions: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(before))


def test_a_successor_that_the_next_step_sees_is_worth_what_it_is_worth_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = torch.Generator().manual_seed(1)
    T, N, agent = 6, 2, ppo.Agent([4, 32, 32], 3, hidden=8)
    agent.deviation.fill_(60)
    frames = torch.randint(256, (T + 1, N, 4, 32, 32), dtype=torch.uint8, generator=draw)
    ended, after = torch.zeros(T, N, dtype=torch.bool), frames[1:].clone()
    ended[2, 0] = ended[5, 1] = True
    after[ended] = torch.randint(256, after[ended].shape, dtype=torch.uint8, generator=draw)
    actions = torch.randint(3, (T, N), generator=draw)
    zeros = torch.zeros(T, N)
    with torch.no_grad():
        values, next_values = agent(frames)[1], agent(after)[1]
    data = ppo.Rollout(frames, values, after[ended], actions, zeros, zeros, ended & False, ended)
    seen: list[torch.Tensor] = []

    def keep(rewards: torch.Tensor, *found: Any) -> torch.Tensor:
        seen.extend(found[:2])
        return rewards

    monkeypatch.setattr(ppo, "gae", keep)
    ppo.update(agent, torch.optim.Adam(agent.parameters()), data, zeros, ppo.Args(update_epochs=1), draw)
    torch.testing.assert_close(seen[0], values[:-1])
    torch.testing.assert_close(seen[1], next_values)
