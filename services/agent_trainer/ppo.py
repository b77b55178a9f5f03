"""PPO in one file: play, estimate advantages, take clipped gradient steps, repeat.

    python -m services.agent_trainer.ppo --env-id CartPole-v1       # plain PPO on the environment's reward
    python -m services.agent_trainer.ppo --reward my_module:my_fn   # the same agent, a reward of your own

It learns from `reward_fn(observations, actions, next_observations)`. The environment's own reward is added up
as the *true return* and logged; unless `--reward env` is asked for, nothing that learns ever sees it. Where
people judge, `envs.py` also hides the ends of episodes: every end is bootstrapped like a time limit.
Equations and sources: docs/ppo.md. Left out on purpose: value clipping, recurrent and continuous policies.
"""

import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

RewardFn = Callable[[Tensor, Tensor, Tensor], Tensor]  # [B, *O], [B], [B, *O] -> [B]
Stray = Callable[[Tensor], Tensor]  # a policy's log-probabilities [N, A] -> what is drawn from instead
Progress = Callable[[float, dict[str, float]], None]  # fraction done, newest metrics


@dataclass(frozen=True)
class Args:
    """Settings; `--help` prints these lines."""

    env_id: str = "CartPole-v1"
    """the Gymnasium environment (a vector or stacked frames to see, discrete actions)"""
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
    anneal_entropy: bool = False
    """let the entropy bonus fall with it"""
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
    """units in each of the two hidden layers; for frames, in the layer after the convolutions"""
    bfloat16: bool = False
    """compute convolutions in bfloat16: two to three times as fast on a processor that knows it"""
    log_dir: str | None = None
    """TensorBoard's folder; none is written without it"""


@dataclass
class Rollout:
    """T steps in N environments; *O is [D] (a vector, float32) or [C, H, W] (C stacked frames, uint8)."""

    sights: Tensor  # [T + 1, N, *O] what was seen before each step, and after the last
    values: Tensor  # [T + 1, N] the critic's, of the same
    finals: Tensor  # [E, *O] what the E episodes that ended showed last, in the order of `ended`
    actions: Tensor  # [T, N] int64
    log_probs: Tensor  # [T, N]
    env_rewards: Tensor  # [T, N] the environment's own reward: for the true return alone
    terminated: Tensor  # [T, N] bool: the successor is worth nothing, by its nature
    ended: Tensor  # [T, N] bool: the episode ended here, for whatever reason

    @property
    def observations(self) -> Tensor:
        """What each step began with [T, N, *O]."""
        return self.sights[:-1]

    @property
    def next_observations(self) -> Tensor:
        """What each step led to [T, N, *O]: the true successors, never a reset's."""
        successors = self.sights[1:].clone()
        successors[self.ended] = self.finals
        return successors


class Agent(nn.Module):
    """A policy and a value function on normalised observations.

    Of a vector each makes its own two hidden tanh layers; of frames both read the same convolutions: those of
    Mnih et al. 2015 for 84 pixels, smaller ones for smaller frames.
    """

    def __init__(
        self, shape: Sequence[int], actions: int, hidden: int = 64, seed: int = 0, bfloat16: bool = False
    ) -> None:
        super().__init__()
        self.sizes = {"shape": [*shape], "actions": actions, "hidden": hidden, "bfloat16": bfloat16}
        self.mean = nn.Buffer(torch.zeros(*shape))  # of observations, see measure()
        self.deviation = nn.Buffer(torch.ones(*shape))
        self.measured = nn.Buffer(torch.zeros(()))
        self.in_bfloat16, draw = bfloat16, torch.Generator().manual_seed(seed)

        def start(layer: nn.Linear | nn.Conv2d, gain: float = 2**0.5) -> Any:
            nn.init.orthogonal_(layer.weight, gain, generator=draw)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            return layer

        def network(outputs: int, last_gain: float) -> nn.Sequential:
            one, two = start(nn.Linear(shape[0], hidden)), start(nn.Linear(hidden, hidden))
            return nn.Sequential(one, nn.Tanh(), two, nn.Tanh(), start(nn.Linear(hidden, outputs), last_gain))

        if len(shape) == 1:
            self.eyes = None
            self.policy, self.critic = network(actions, 0.01), network(1, 1.0)
        else:
            layers, channels = list[nn.Module](), shape[0]
            large = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, side, stride of each
            small = ((16, 4, 2), (32, 4, 2), (32, 3, 1))
            for units, side, stride in large if min(shape[1:]) >= 64 else small:
                layers += [start(nn.Conv2d(channels, units, side, stride)), nn.ReLU()]
                channels = units
            flat = nn.Sequential(*layers)(torch.zeros(1, *shape)).numel()
            layers += [nn.Flatten(), start(nn.Linear(flat, hidden)), nn.ReLU()]
            self.eyes = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.policy = start(nn.Linear(hidden, actions), 0.01)
            self.critic = start(nn.Linear(hidden, 1), 1.0)
            self.spread = nn.Buffer(torch.zeros(()))  # of discounted sums of rewards, see train()

    def features(self, observations: Tensor) -> Tensor:
        """Return what policy and critic read of observations [..., *O], or of frames from `prepare`."""
        if self.eyes is None:
            return (observations - self.mean) / self.deviation
        x = self.prepare(observations) if observations.dtype == torch.uint8 else observations
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            return self.eyes(x.flatten(0, -4).movedim(-1, 1)).float().unflatten(0, x.shape[:-3])  # type: ignore[no-any-return]

    def prepare(self, frames: Tensor) -> Tensor:
        """Return frames [..., C, H, W] as the convolutions like them: of about size 1, [..., H, W, C]."""
        x = ((frames - self.mean) * (1 / self.deviation)).clamp_(-5, 5).movedim(-3, -1)
        return x.to(torch.bfloat16 if self.in_bfloat16 else torch.float32).contiguous()

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Return every action's log-probability [..., A] and the value [...] of observations [..., *O]."""
        x = self.features(observations)
        return self.policy(x).log_softmax(-1), self.critic(x).squeeze(-1)

    def log_policy(self, observations: Tensor) -> Tensor:
        """Return every action's log-probability [..., A] at observations [..., *O]."""
        return self.policy(self.features(observations)).log_softmax(-1)  # type: ignore[no-any-return]

    def measure(self, observations: Tensor, space: Any) -> None:
        """Fix the normalisation for good: by the bounds that `space` declares, else by sights [..., *O].

        A policy whose inputs are rescaled unlearns. Frames are measured: a pixel's bounds say little.
        """
        seen = observations.flatten(0, -len(self.mean.shape) - 1).float()
        mean, deviation = seen.mean(0), seen.std(0, correction=0).clamp(min=8 if self.eyes else 0)
        if self.eyes is None:
            low, high = (torch.tensor(bound, device=seen.device) for bound in (space.low, space.high))
            bounded = (low > -1e6) & (high < 1e6)
            mean = torch.where(bounded, (low + high) / 2, mean)
            deviation = torch.where(bounded, (high - low) / 4, deviation)
        self.mean.copy_(mean)
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


@torch.autocast("cpu", enabled=False)  # type: ignore[untyped-decorator]  # casts weights once, not each step
@torch.no_grad()
def rollout(agent: Agent, player: Player, steps: int, stray: Stray = lambda policy: policy) -> Rollout:
    """Play `steps` in each environment with actions drawn from the policy.

    What an episode ends with comes as `final_obs`, for the observation returned is the next one's first
    (SAME_STEP).
    """
    sights, finals, rows = [tensor(player.observations)], list[np.ndarray](), list[tuple[Tensor, ...]]()
    device = agent.mean.device  # the network may be elsewhere; what was played stays in main memory
    features = [agent.features(sights[0].to(device))]
    for _ in range(steps):
        log_policy = stray(agent.policy(features[-1]).log_softmax(-1).cpu())  # [N, A]
        gumbel = torch.empty_like(log_policy).exponential_(generator=player.draw)
        actions = (log_policy - gumbel.log()).argmax(-1)  # the Gumbel-max trick draws from the policy
        log_probs = log_policy.gather(-1, actions[:, None]).squeeze(-1)
        player.observations, env_rewards, terminated, truncated, info = player.envs.step(actions.numpy())
        player.returns += env_rewards
        player.lengths += 1
        ended = terminated | truncated
        for i in np.flatnonzero(ended):
            finals.append(info["final_obs"][i])
            player.finished.append((float(player.returns[i]), int(player.lengths[i])))
        player.returns[ended], player.lengths[ended] = 0, 0
        sights.append(tensor(player.observations))
        features.append(agent.features(sights[-1].to(device)))
        rows.append((actions, log_probs, tensor(env_rewards), *map(torch.as_tensor, (terminated, ended))))
    last = tensor(np.array(finals, player.observations.dtype).reshape(-1, *player.observations.shape[1:]))
    values = agent.critic(torch.stack(features)).squeeze(-1)
    return Rollout(torch.stack(sights), values, last, *map(torch.stack, zip(*rows, strict=True)))


def tensor(numbers: np.ndarray) -> Tensor:
    """Return observations or rewards as they are stored: frames in bytes, anything else as float32."""
    return torch.as_tensor(numbers, dtype=None if numbers.dtype == np.uint8 else torch.float32)


def gae(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, ended: Tensor, args: Args
) -> Tensor:
    """Return generalised advantage estimates [T, N] (Schulman et al. 2016, eq. 16); all inputs are [T, N].

    `next_values` are the true successors'; terminal ones count nothing, and sums over errors stop at any end.
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
    seen = torch.stack([agent.prepare(x) for x in data.observations]) if agent.eyes else data.observations
    with torch.no_grad():
        next_values = data.values[1:].masked_scatter(data.ended, agent(data.finals)[1])
    advantages = gae(rewards, data.values[:-1], next_values, data.terminated, data.ended, args)
    targets = advantages + data.values[:-1]
    flat = [x.flatten(0, 1) for x in (seen, data.actions, data.log_probs, advantages, targets)]  # [T·N, …]
    for _ in range(args.update_epochs):
        order = torch.randperm(len(flat[0]), generator=draw).to(seen.device)
        for index in torch.split(order, args.minibatch_size):
            some, actions, old_log_probs, advantage, target = (x.index_select(0, index) for x in flat)
            log_policy, value = agent(some)  # [B, A], [B]
            log_ratio = log_policy.gather(-1, actions[:, None]).squeeze(-1) - old_log_probs
            ratio = log_ratio.exp()
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
            clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
            policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
            value_loss = 0.5 * (value - target).square().mean()
            entropy = -(log_policy.exp() * log_policy).sum(-1).mean()
            loss = policy_loss + args.vf_coef * value_loss - args.ent_coef * entropy
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()
    with torch.no_grad():  # of the last minibatch, as CleanRL logs them
        losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        losses |= {"old_approx_kl": (-log_ratio).mean(), "approx_kl": (ratio - 1 - log_ratio).mean()}
        losses["clipfrac"] = ((ratio - 1).abs() > args.clip_coef).float().mean()
        losses["explained_variance"] = 1 - advantages.var() / (targets.var() + 1e-8)
    return {f"losses/{name}": loss.item() for name, loss in losses.items()}


def train(
    args: Args, agent: Agent, envs: VectorEnv[Any, Any, Any], reward_fn: RewardFn | Literal["env"],
    on_progress: Progress = lambda fraction, metrics: None, should_stop: Callable[[], bool] = lambda: False,
    first_step: int = 0, resumable: Callable[..., Iterable[int]] = lambda updates, *parts: updates,
) -> dict[str, float]:  # fmt: skip
    """Train `agent` in place for `args.total_steps`, or until `should_stop()`; return the last metrics.

    `first_step` shifts the steps that TensorBoard shows, so that rounds follow one another; `resumable` may
    skip updates that a checkpoint holds, and change the parts it is given (see `services/checkpoints.py`).
    """
    player = Player(envs, args.seed)
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5, fused=True)
    writer = SummaryWriter(args.log_dir) if args.log_dir else None
    batch, metrics = args.num_envs * args.num_steps, dict[str, float]()
    updates = max(1, args.total_steps // batch)
    if not agent.measured:  # these steps only measure
        agent.measure(rollout(agent, player, args.num_steps).observations, envs.single_observation_space)
    for number in resumable(range(updates), agent, optimizer, player):
        if should_stop():
            break
        left = 1 - number / updates if args.anneal else 1.0
        optimizer.param_groups[0]["lr"] = rate = args.learning_rate * left
        now = replace(args, ent_coef=args.ent_coef * (left if args.anneal_entropy else 1))
        played = rollout(agent, player, args.num_steps)
        data = Rollout(*(column.to(agent.mean.device) for column in vars(played).values()))
        rewards = data.env_rewards
        if reward_fn != "env":
            with torch.no_grad():
                flat = (x.flatten(0, 1) for x in (data.observations, data.actions, data.next_observations))
                rewards = reward_fn(*flat).view_as(rewards)
        if agent.eyes:  # values of size 1, or the critic's small errors teach the shared layers nothing
            none, sum_all = torch.zeros_like(rewards), replace(args, gae_lambda=1.0)
            sums = gae(rewards - rewards.mean(), none, none, none.bool(), data.ended, sum_all)
            agent.spread.lerp_(sums.std().clamp(min=1e-6), 0.05 if agent.spread else 1.0)
        scaled = rewards * (1 / agent.spread if agent.eyes else 1 - args.gamma)  # else of a reward's size
        metrics |= update(agent, optimizer, data, scaled, now, player.draw)
        metrics |= {"charts/learning_rate": rate, "charts/predicted_reward": rewards.mean().item()}
        for name, column in zip(("return", "length"), zip(*player.finished, strict=True), strict=False):
            metrics[f"charts/episodic_{name}"] = float(np.mean(column))  # nothing where no episode ended
        player.finished.clear()
        for name, value in metrics.items() if writer else ():
            writer.add_scalar(name, value, first_step + (number + 1) * batch)  # type: ignore[union-attr]
        on_progress((number + 1) / updates, metrics)
    if writer:
        writer.close()
    return metrics


def main(args: Args) -> None:
    """Run from the command line."""
    from services.agent_trainer.envs import make_envs

    envs = make_envs(args.env_id, args.num_envs)
    shape, actions = envs.single_observation_space.shape or (), int(envs.single_action_space.n)  # type: ignore[attr-defined]
    if len(shape) == 1:
        torch.set_num_threads(1)  # small networks are quicker on one core
    device = "cuda" if torch.cuda.is_available() else "cpu"
    agent = Agent(shape, actions, args.hidden, args.seed, args.bfloat16).to(device)
    reward_fn: Any = "env" if args.reward == "env" else pkgutil.resolve_name(args.reward)

    def show(done: float, now: dict[str, float]) -> None:
        print(f"\r{done:4.0%}  {now.get('charts/episodic_return', np.nan):7.1f}", end="", flush=True)

    metrics = train(args, agent, envs, reward_fn, show)
    print("", *(f"{name:28} {value:10.4f}" for name, value in sorted(metrics.items())), sep="\n")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args))
