"""The agent trainer's stages: collect clips to compare, train the agent.

A stage is a function of its job: every random draw comes from the experiment's seed, the round and the stage,
never from the attempt, so an attempt that is killed and tried again gives the same clips and weights.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from services import weights
from services.agent_trainer import atari, envs, ppo
from services.agent_trainer.choosing import choose
from services.agent_trainer.clips import encode_mp4, pack_npz, unpack_npz
from services.agent_trainer.play import Play, whole
from services.agent_trainer.straying import Straying
from services.checkpoints import Checkpoints, Tell
from services.reward_trainer import reward_model
from services.torch_setup import device, set_up
from shared import config as configuration
from shared import memory
from shared.config import ExperimentConfig
from shared.jobs import (
    Artifact,
    ClipRecord,
    CollectJob,
    CollectResult,
    ComparisonRecord,
    StageStopped,
    Store,
    TrainAgentJob,
    TrainAgentResult,
    put_artifact,
    seed_for,
)

Progress = Callable[[float, dict[str, float]], None]
Encode = Callable[[np.ndarray, float], bytes]  # frames [T, H, W, 3] uint8, frames a second -> MP4
CHUNK = 64  # steps played between two looks at should_stop
# Settings of `[agent]` that are about rounds and environments; all others are PPO's own.
NOT_PPO = {
    "linger",
    "restart",
    "restart_rounds",
    "restart_steps",
    "final_restart",
    "final_steps",
    "anneal",
    "checkpoint_steps",
}
VIDEO_FRAMES = 500  # at most, in a round's video
VIDEO_FPS = 30.0  # at most; faster play is thinned out, which keeps its speed


def collect(
    job: CollectJob, store: Store, on_progress: Progress, should_stop: Callable[[], bool],
    encode: Encode | None = encode_mp4,
) -> CollectResult:  # fmt: skip
    """Play the newest agent, cut its play into segments, choose comparisons, store their clips.

    Raises ValueError if no segment of the wanted length fits into an episode, StageStopped if asked to stop.
    `encode=None` leaves the pictures out (their artifacts are empty): for trials in which nobody looks.
    """
    set_up()
    memory.begin()
    config = configuration.parse(job.config)
    seed = seed_for(config.seed, job.round_number, "collecting")
    agent = load_agent(config, store, job.agent)
    check_past(job, store, agent)
    player = ppo.Player(
        envs.make_envs(config.env_id, config.segments.collect_envs, config.segments.length, games(config)),
        seed,
    )
    steps = max(-(-config.segments.collect_steps // config.segments.collect_envs), config.segments.length)
    model = load_reward_model(store, job.reward_model) if job.reward_model else None
    stray = straying(config, player, model, torch.Generator().manual_seed(seed))

    def rollouts() -> Iterator[ppo.Rollout]:
        for done in range(0, steps, CHUNK):
            stop_if(should_stop)
            yield ppo.rollout(agent, player, min(CHUNK, steps - done), stray)
            on_progress(0.5 * (done + 1) / steps, {})

    play = whole(rollouts())
    player.envs.close()
    draw = torch.Generator().manual_seed(seed)
    chosen = choose(play, model, config, config.comparisons(job.round_number), draw)
    segments = [segment for together in chosen for segment in together]
    fps = config.segments.fps or envs.frame_rate(config.env_id)
    judged = {env: judge(config, seed, play, env) for env in sorted({segment.env for segment in segments})}
    clips: dict[int, ClipRecord] = {}  # by number, the segment's place in `segments`
    shown = [(one.env, range(one.start, one.start + config.segments.length)) for one in segments]
    unseen = ((number, np.empty(0)) for number in range(len(segments)))
    films = envs.replay(
        config.env_id, config.segments.length, seed, play.actions.numpy(), shown, games(config)
    )
    for number, frames in films if encode else unseen:
        stop_if(should_stop)
        (env, steps_shown), key = shown[number], f"{job.prefix}clips/{number:04d}"
        mp4 = encode(frames, fps) if encode else b""
        clips[number] = ClipRecord(
            npz=put_artifact(store, "clip_npz", key + ".npz", pack(play, env, steps_shown)),
            mp4=put_artifact(store, "clip_mp4", key + ".mp4", mp4),
            steps=len(steps_shown),
            fps=fps,
            judgement=judged[env][steps_shown.start : steps_shown.stop].tolist(),
        )
        on_progress(0.5 + 0.5 * len(clips) / len(segments), {})
    held_out = torch.rand(len(chosen), generator=draw) < config.reward_model.held_out
    held_out[0] &= not held_out.all()  # a round of few comparisons still has one to train on
    k = config.labels.clips_per_comparison
    comparisons = [
        ComparisonRecord(list(range(k * i, k * i + k)), out) for i, out in enumerate(held_out.tolist())
    ]
    metrics = {
        "episodes": len(player.finished),
        "steps": play.ended.numel(),
        memory.METRIC: memory.peak_mib(),
    }
    log_scalars(job.log_dir, {memory.METRIC: metrics[memory.METRIC]}, job.round_number)
    return CollectResult([clips[number] for number in sorted(clips)], comparisons, metrics)


def check_past(job: CollectJob, store: Store, agent: ppo.Agent) -> None:
    """Raise ValueError, before anybody labels, if the labels it began with are of other observations."""
    if job.past_clip:
        there, here = unpack_npz(read(store, job.past_clip))[0].shape[1:], tuple(agent.mean.shape)
        if there != here:
            raise ValueError(
                f"this experiment began with labels of observations of shape {there}, but its environment "
                f"gives {here}: one reward model cannot learn from both. Abandon it, and begin without them"
            )


def judge(config: ExperimentConfig, seed: int, play: Play, env: int) -> np.ndarray:
    """Return what a teacher judges by, of each step of an environment's whole play [T]."""
    actions, rewards = play.actions[:, env].numpy(), play.env_rewards[:, env].numpy()
    # Nobody judges by frames, of which a whole play would be many.
    seen = play.sights[play.after[:, env]].numpy() if play.sights.dim() == 2 else None
    return envs.judgement(config.env_id, games(config), seed + env, actions, seen, rewards)


def pack(play: Play, env: int, steps: range) -> bytes:
    """Return what a segment's reward is learned from, as it is stored."""
    rows = torch.cat([play.before[steps.start, None, env], play.after[steps.start : steps.stop, env]])
    return pack_npz(play.sights[rows].numpy(), play.actions[steps.start : steps.stop, env].numpy())


def straying(
    config: ExperimentConfig,
    player: ppo.Player,
    model: reward_model.RewardModel | None,
    draw: torch.Generator,
) -> Straying:
    """Return what strays from the policy in play that is collected, as `config` has it."""
    settings = config.segments
    noise = torch.linspace(0, settings.noise, settings.collect_envs)
    if model is None or not settings.noise_above:
        return Straying(noise, settings.noise_steps, draw)

    def worth() -> torch.Tensor:
        sights = ppo.tensor(player.observations)
        return model.reward(sights, sights, sights).cpu()  # of what a step led to alone

    return Straying(noise, settings.noise_steps, draw, worth, settings.noise_above)


def train_agent(
    job: TrainAgentJob, store: Store, on_progress: Progress, should_stop: Callable[[], bool],
    encode: Encode | None = encode_mp4, keep_checkpoint: Tell | None = None,
) -> TrainAgentResult:  # fmt: skip
    """Go on training the agent, on the reward model's predictions alone; evaluate and film it.

    Raises StageStopped if asked to stop. `encode=None` leaves the film out; `keep_checkpoint` is told of
    checkpoints, without which none is stored.
    """
    set_up()
    memory.begin()
    config = configuration.parse(job.config)
    seed = seed_for(config.seed, job.round_number, "training_agent")
    last = job.round_number == config.rounds
    agent = load_agent(config, store, None if config.begins_anew(job.round_number) else job.agent)
    model = load_reward_model(store, job.reward_model)
    settings = config.agent.model_dump(exclude=NOT_PPO)
    settings["total_steps"] = config.agent_steps(job.round_number)
    anneal = config.agent.anneal == "every_round" or (last and config.agent.anneal == "last_round")
    args = ppo.Args(env_id=config.env_id, seed=seed, anneal=anneal, log_dir=job.log_dir, **settings)
    played = config.agent_steps_before(job.round_number)
    vector = envs.make_envs(config.env_id, config.agent.num_envs, config.agent.linger, games(config))
    legs = in_legs(Checkpoints(job, store, keep_checkpoint), config, seed)
    metrics = ppo.train(
        args, agent, vector, model.reward, lambda done, m: on_progress(0.9 * done, m), should_stop, played,
        legs,
    )  # fmt: skip
    vector.close()
    stop_if(should_stop)
    true_returns, predicted_returns, played_actions = evaluate(agent, model, config, seed, should_stop)
    metrics |= {
        "charts/true_return": float(np.mean(true_returns)),
        "charts/predicted_return": float(np.mean(predicted_returns)),
    }
    on_progress(0.95, metrics)
    video = video_of_episode(config, seed, played_actions[0], encode) if encode else b""
    metrics[memory.METRIC] = memory.peak_mib()
    found = {name: metrics[name] for name in ("charts/true_return", "charts/predicted_return", memory.METRIC)}
    log_scalars(job.log_dir, found, played + args.total_steps)
    return TrainAgentResult(
        agent=put_artifact(store, "agent", job.prefix + "agent.safetensors", weights.save_agent(agent)),
        video=put_artifact(store, "video", job.prefix + "video.mp4", video),
        true_returns=true_returns,
        metrics=metrics,
    )


def in_legs(checkpoints: Checkpoints, config: ExperimentConfig, seed: int) -> Callable[..., Iterator[int]]:
    """Return what cuts the updates of long training into legs, between which it can be interrupted.

    The inside of a game can't be saved. So each leg after the first begins with fresh episodes, drawn from
    its own seed, in every attempt alike: one that goes on from a checkpoint gives the same weights as one
    that never stopped.
    """
    leg = max(1, config.agent.checkpoint_steps // (config.agent.num_envs * config.agent.num_steps))

    def resumable(
        updates: range, agent: ppo.Agent, optimizer: torch.optim.Optimizer, player: ppo.Player
    ) -> Iterator[int]:
        begin = checkpoints.restore(agent, optimizer)
        for number in updates[begin:]:
            if number and number % leg == 0:
                if number != begin:
                    checkpoints.save(number, agent, optimizer)
                vars(player).update(vars(ppo.Player(player.envs, seed_for(seed, number))))
            yield number

    return resumable


@torch.no_grad()
def evaluate(
    agent: ppo.Agent, model: reward_model.RewardModel, config: ExperimentConfig, seed: int,
    should_stop: Callable[[], bool],
) -> tuple[list[float], list[float], list[list[int]]]:  # fmt: skip
    """Play whole episodes of the environment as it is; episode i from `seed + i`.

    Returns of each episode the true return, the return that the reward model predicts, and the actions.
    """
    true_returns, predicted_returns = list[float](), list[float]()
    played: list[list[int]] = [[] for _ in range(config.evaluation.episodes)]
    place, draw = agent.mean.device, torch.Generator().manual_seed(seed)
    likeliest = config.evaluation.actions == "likeliest"
    for begin in range(0, config.evaluation.episodes, 64):
        count = min(64, config.evaluation.episodes - begin)
        playing = envs.Episodes(config.env_id, count, seed + begin, games(config))
        returns, predicted, alive = np.zeros(count), np.zeros(count), np.arange(count)
        while len(alive):
            stop_if(should_stop)
            before = ppo.tensor(playing.current[alive]).to(place)
            policy = agent.log_policy(before).cpu()
            actions = policy.argmax(-1) if likeliest else policy.exp().multinomial(1, generator=draw)[:, 0]
            for i, action in zip(alive, actions.tolist(), strict=True):
                played[begin + i].append(action)
            rewards, ended = playing.step(alive, actions.numpy())
            returns[alive] += rewards
            after = ppo.tensor(playing.current[alive]).to(place)
            predicted[alive] += model.reward(before, actions.to(place), after).cpu().numpy()
            alive = alive[~ended]
        playing.close()
        true_returns += returns.tolist()
        predicted_returns += predicted.tolist()
    return true_returns, predicted_returns, played


def video_of_episode(config: ExperimentConfig, seed: int, actions: list[int], encode: Encode) -> bytes:
    """Film the first evaluation episode at its own speed, thinned out to VIDEO_FPS, up to VIDEO_FRAMES."""
    fps = envs.frame_rate(config.env_id)
    every = int(-(-fps // VIDEO_FPS))
    wanted = range(0, len(actions), every)[:VIDEO_FRAMES]
    column = np.array(actions)[:, None]
    ((_, frames),) = envs.replay(config.env_id, None, seed, column, [(0, wanted)], games(config))
    return encode(frames, fps / every)


def load_agent(config: ExperimentConfig, store: Store, artifact: Artifact | None) -> ppo.Agent:
    """Return the agent of the round before, or a fresh one; ValueError if it cannot see what is shown now."""
    env = envs.make_envs(config.env_id, 1, settings=games(config))
    shape, actions = env.single_observation_space.shape or (), int(env.single_action_space.n)  # type: ignore[attr-defined]
    env.close()
    if artifact:
        agent = weights.load_agent(read(store, artifact)).to(device())
        if agent.sizes["shape"] != [*shape]:
            raise ValueError(
                f"the agent of the round before sees {agent.sizes['shape']}, but {config.env_id} shows "
                f"{shape}: another experiment can begin with the labels of this one (lockstep export, import)"
            )
        return agent
    seed = seed_for(config.seed, "agent")
    return ppo.Agent(shape, actions, config.agent.hidden, seed, config.agent.bfloat16).to(device())


def load_reward_model(store: Store, artifact: Artifact) -> reward_model.RewardModel:
    """Return a reward model, on the device to compute on."""
    return weights.load_reward_model(read(store, artifact)).to(device())


def log_scalars(log_dir: str | None, values: dict[str, float], step: int) -> None:
    """Let TensorBoard show `values`, if anything is logged."""
    if log_dir:
        with SummaryWriter(log_dir) as writer:
            for name, value in values.items():
                writer.add_scalar(name, value, step)


def games(config: ExperimentConfig) -> atari.Settings:
    """Return how games of Atari are prepared."""
    return atari.Settings(**config.atari.model_dump())


def read(store: Store, artifact: Artifact) -> bytes:
    """Return what an artifact holds, its sum checked."""
    return store.get(artifact.key, artifact.sha256)


def stop_if(should_stop: Callable[[], bool]) -> None:
    """Leave the stage if that is asked for."""
    if should_stop():
        raise StageStopped
