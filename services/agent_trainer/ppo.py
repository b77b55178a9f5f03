"""PPO in one file: play, estimate advantages, take clipped gradient steps, repeat.

    python -m services.agent_trainer.ppo --env-id CartPole-v1       # plain PPO on the environment's reward
    python -m services.agent_trainer.ppo --reward my_module:my_fn   # the same agent, a reward of your own

It learns from `reward_fn(observations, actions, next_observations)`. The environment's own reward is added up
as the *true return* and logged; unless `--reward env` is asked for, nothing that learns ever sees it. Where
people judge, `envs.py` also hides the ends of episodes: such an environment never reports `terminated`, and
every end is bootstrapped like a time limit.

Equations and sources: docs/ppo.md. Left out on purpose: value clipping, recurrent and continuous policies.
"""

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import safetensors
import safetensors.torch
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor, nn

RewardFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # [B, D], [B], [B, D] -> [B]
Progress = Callable[[float, dict[str, float]], None]  # fraction done, newest metrics


@dataclass(frozen=True)
class Args:
    """Settings; `--help` prints these lines."""

    env_id: str = "CartPole-v1"
    """the Gymnasium environment (a flat observation, discrete actions)"""
    reward: str = "env"
    """"env" for the environment's own reward, or module:function for another one"""
    seed: int = 1
    """the seed of every random draw"""
    total_steps: int = 32_768
    """environment steps, counted over all environments"""
    num_envs: int = 16
    """environments played side by side"""
    num_steps: int = 64
    """steps in each environment between two updates"""
    update_epochs: int = 10
    """passes over a rollout in an update"""
    minibatch_size: int = 256
    """samples in a gradient step"""
    learning_rate: float = 1e-3
    """Adam's step size"""
    anneal: bool = True
    """let the step size fall linearly to zero"""
    gamma: float = 0.98
    """discount factor"""
    gae_lambda: float = 0.95
    """λ of generalised advantage estimation"""
    clip_coef: float = 0.2
    """PPO's clipping range"""
    ent_coef: float = 0.0
    """weight of the entropy bonus"""
    vf_coef: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """largest norm of a gradient"""
    hidden: int = 64
    """units in each of the two hidden layers"""
    log_dir: str | None = None
    """TensorBoard's folder; none is written without it"""


@dataclass
class Rollout:
    """What T steps in N environments gave. `next_observations` holds true successors, never a reset's."""

    observations: Tensor  # [T, N, D] float32
    actions: Tensor  # [T, N] int64
    log_probs: Tensor  # [T, N]
    next_observations: Tensor  # [T, N, D]
    env_rewards: Tensor  # [T, N] the environment's own reward: for the true return alone
    terminated: Tensor  # [T, N] bool: the successor is worth nothing, by its nature
    ended: Tensor  # [T, N] bool: the episode ended here, for whatever reason


class Agent(nn.Module):
    """A policy and a value function, two hidden tanh layers each, on normalised observations."""

    def __init__(self, observation_size: int, actions: int, hidden: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.sizes = {"observation_size": observation_size, "actions": actions, "hidden": hidden}
        self.mean = nn.Buffer(torch.zeros(observation_size))  # of observations, see measure()
        self.deviation = nn.Buffer(torch.ones(observation_size))
        self.measured = nn.Buffer(torch.zeros(()))
        draw = torch.Generator().manual_seed(seed)

        def network(outputs: int, last_gain: float) -> nn.Sequential:
            sizes, gains = [observation_size, hidden, hidden, outputs], [2**0.5, 2**0.5, last_gain]
            layers: list[nn.Module] = []
            for (inputs, units), gain in zip(pairwise(sizes), gains, strict=True):
                layer = nn.Linear(inputs, units)
                nn.init.orthogonal_(layer.weight, gain, generator=draw)
                nn.init.zeros_(layer.bias)
                layers += [layer, nn.Tanh()]
            return nn.Sequential(*layers[:-1])

        self.policy, self.critic = network(actions, 0.01), network(1, 1.0)

    def normalise(self, observations: Tensor) -> Tensor:
        """Return observations [..., D], each number of about size 1."""
        return (observations - self.mean) / self.deviation

    def value(self, observations: Tensor) -> Tensor:
        """Return the value [...] of observations [..., D]."""
        return self.critic(self.normalise(observations)).squeeze(-1)  # type: ignore[no-any-return]

    def log_policy(self, observations: Tensor) -> Tensor:
        """Return every action's log-probability [..., A] at observations [..., D]."""
        return self.policy(self.normalise(observations)).log_softmax(-1)  # type: ignore[no-any-return]

    def measure(self, observations: Tensor, space: Any) -> None:
        """Fix the normalisation for good: by the bounds that `space` declares, else by observations [..., D].

        Fixed, since a policy whose inputs are rescaled while it learns unlearns: with running statistics
        CartPole took more than twice as many steps.
        """
        seen, low, high = observations.flatten(0, -2), torch.tensor(space.low), torch.tensor(space.high)
        bounded = (low > -1e6) & (high < 1e6)
        self.mean.copy_(torch.where(bounded, (low + high) / 2, seen.mean(0)))
        deviation = torch.where(bounded, (high - low) / 4, seen.std(0, correction=0))
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))
        self.measured.fill_(1)


class Player:
    """Environments in play and where they stand: the observation and the true return so far of each."""

    def __init__(self, envs: VectorEnv[Any, Any, Any], seed: int) -> None:
        if envs.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise ValueError("the environments must reset in the same step (AutoresetMode.SAME_STEP)")
        self.envs, self.draw = envs, torch.Generator().manual_seed(seed)
        self.observations: np.ndarray = envs.reset(seed=seed)[0]
        self.returns, self.lengths = np.zeros(envs.num_envs), np.zeros(envs.num_envs, int)
        self.finished: list[tuple[float, int]] = []  # true return and length of every episode that ended


@torch.no_grad()
def rollout(agent: Agent, player: Player, steps: int, noise: Tensor | None = None) -> Rollout:
    """Play `steps` in each environment with actions drawn from the policy.

    `noise` [N] mixes the policy of each environment with blind chance: the share of steps left to it.

    With SAME_STEP the observation returned at an episode's end is already the next episode's first, and the
    last one comes as `final_obs`; the successor stored is that last one, so no transition crosses a reset.
    """
    rows: list[tuple[Any, ...]] = []
    for _ in range(steps):
        before = torch.from_numpy(player.observations).float()  # [N, D]
        log_policy = agent.log_policy(before)  # [N, A]
        if noise is not None:
            log_policy = log_policy.exp().lerp(torch.tensor(1 / log_policy.shape[-1]), noise[:, None]).log()
        gumbel = torch.empty_like(log_policy).exponential_(generator=player.draw)
        actions = (log_policy - gumbel.log()).argmax(-1)  # the Gumbel-max trick draws from the policy
        log_probs = log_policy.gather(-1, actions[:, None]).squeeze(-1)
        after, env_rewards, terminated, truncated, info = player.envs.step(actions.numpy())
        ended, successors = terminated | truncated, after
        player.returns += env_rewards
        player.lengths += 1
        if ended.any():
            successors = after.copy()
            for i in np.flatnonzero(ended):
                successors[i] = info["final_obs"][i]
                player.finished.append((float(player.returns[i]), int(player.lengths[i])))
            player.returns[ended], player.lengths[ended] = 0, 0
        player.observations = after
        numbers = (torch.as_tensor(array, dtype=torch.float32) for array in (successors, env_rewards))
        rows.append((before, actions, log_probs, *numbers, *map(torch.as_tensor, (terminated, ended))))
    return Rollout(*(torch.stack(column) for column in zip(*rows, strict=True)))


def gae(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, ended: Tensor, args: Args
) -> Tensor:
    """Return generalised advantage estimates [T, N] (Schulman et al. 2016, eq. 16); all inputs are [T, N].

    `next_values` belong to the true successors. A terminal successor counts nothing; any other end of an
    episode is bootstrapped, and the sum over later errors stops at either.
    """
    errors = rewards + args.gamma * next_values * ~terminated - values  # δ_t
    advantages, running = torch.zeros_like(errors), torch.zeros_like(errors[0])
    for t in reversed(range(len(errors))):
        running = errors[t] + args.gamma * args.gae_lambda * running * ~ended[t]
        advantages[t] = running
    return advantages


def update(
    agent: Agent, optimizer: torch.optim.Optimizer, data: Rollout, rewards: Tensor, args: Args,
    draw: torch.Generator,
) -> dict[str, float]:  # fmt: skip
    """Improve the agent on one rollout with rewards [T, N]; return the losses under CleanRL's names."""
    with torch.no_grad():
        values, next_values = agent.value(data.observations), agent.value(data.next_observations)
    advantages = gae(rewards, values, next_values, data.terminated, data.ended, args)
    targets = advantages + values
    observations = data.observations.flatten(0, 1)  # [T·N, D]
    flat = [x.flatten() for x in (data.actions, data.log_probs, advantages, targets)]  # [T·N] each
    for _ in range(args.update_epochs):
        for index in torch.split(torch.randperm(len(observations), generator=draw), args.minibatch_size):
            obs = observations[index]
            actions, old_log_probs, advantage, target = (x[index] for x in flat)
            log_policy = agent.log_policy(obs)  # [B, A]
            log_ratio = log_policy.gather(-1, actions[:, None]).squeeze(-1) - old_log_probs
            ratio = log_ratio.exp()
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
            clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
            value_loss = 0.5 * (agent.value(obs) - target).square().mean()
            entropy = -(log_policy.exp() * log_policy).sum(-1).mean()
            loss = policy_loss + args.vf_coef * value_loss - args.ent_coef * entropy
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()
    with torch.no_grad():  # of the last minibatch, as CleanRL logs them
        explained = 1 - (targets - values).var() / (targets.var() + 1e-8)
        losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        losses |= {"old_approx_kl": (-log_ratio).mean(), "approx_kl": (ratio - 1 - log_ratio).mean()}
        losses["clipfrac"] = ((ratio - 1).abs() > args.clip_coef).float().mean()
        losses["explained_variance"] = explained
    return {f"losses/{name}": value.item() for name, value in losses.items()}


def train(
    args: Args, agent: Agent, envs: VectorEnv[Any, Any, Any], reward_fn: RewardFn | Literal["env"],
    on_progress: Progress = lambda fraction, metrics: None, should_stop: Callable[[], bool] = lambda: False,
    first_step: int = 0,
) -> dict[str, float]:  # fmt: skip
    """Train `agent` in place for `args.total_steps`, or until `should_stop()`; return the last metrics.

    `first_step` shifts the steps that TensorBoard shows, so that rounds follow one another.
    """
    from torch.utils.tensorboard import SummaryWriter

    player = Player(envs, args.seed)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5, fused=True)
    writer = SummaryWriter(args.log_dir) if args.log_dir else None
    metrics: dict[str, float] = {}
    batch = args.num_envs * args.num_steps
    updates = max(1, args.total_steps // batch)
    if not agent.measured:  # these steps only measure
        agent.measure(rollout(agent, player, args.num_steps).observations, envs.single_observation_space)
    for number in range(updates):
        if should_stop():
            break
        if args.anneal:
            optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - number / updates)
        data = rollout(agent, player, args.num_steps)
        if reward_fn == "env":
            rewards = data.env_rewards
        else:
            with torch.no_grad():
                flat = (x.flatten(0, 1) for x in (data.observations, data.actions, data.next_observations))
                rewards = reward_fn(*flat).view_as(data.env_rewards)
        # Rewards times 1 − γ keep values at the size of a reward, which the critic learns far sooner.
        metrics |= update(agent, optimizer, data, rewards * (1 - args.gamma), args, player.draw)
        metrics["charts/learning_rate"] = optimizer.param_groups[0]["lr"]
        metrics["charts/predicted_reward"] = rewards.mean().item()
        if player.finished:
            metrics["charts/episodic_return"], metrics["charts/episodic_length"] = (
                float(np.mean(column)) for column in zip(*player.finished, strict=True)
            )
            player.finished.clear()
        for name, value in metrics.items() if writer else ():
            writer.add_scalar(name, value, first_step + (number + 1) * batch)  # type: ignore[union-attr]
        on_progress((number + 1) / updates, metrics)
    if writer:
        writer.close()
    return metrics


def save(agent: Agent) -> bytes:
    """Return the agent as safetensors, its sizes in the metadata."""
    return safetensors.torch.save(agent.state_dict(), {"agent": json.dumps(agent.sizes)})


def load(data: bytes) -> Agent:
    """Return the agent that `save` wrote; a ValueError if `data` is something else."""
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        agent = Agent(**json.loads(header["__metadata__"]["agent"]))
        agent.load_state_dict(tensors)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"this is not an agent that ppo.save wrote: {error}") from error
    return agent


def main(args: Args) -> None:
    """Run from the command line."""
    from rich.progress import Progress

    torch.set_num_threads(1)  # small networks are quicker on one core
    makers = [lambda: gym.make(args.env_id)] * args.num_envs
    envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    size = int(np.prod(envs.single_observation_space.shape or ()))
    agent = Agent(size, int(envs.single_action_space.n), args.hidden, args.seed)  # type: ignore[attr-defined]
    reward_fn: RewardFn | Literal["env"] = "env"
    if args.reward != "env":
        module, _, name = args.reward.partition(":")
        reward_fn = getattr(importlib.import_module(module), name)
    with Progress() as bar:
        task = bar.add_task("true return", total=1.0)

        def show(fraction: float, metrics: dict[str, float]) -> None:
            text = f"true return {metrics.get('charts/episodic_return', float('nan')):7.1f}"
            bar.update(task, completed=fraction, description=text)

        metrics = train(args, agent, envs, reward_fn, show)
    for name, value in sorted(metrics.items()):
        print(f"{name:28} {value:10.4f}")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args))
