"""Atari's games: what is hidden, how they are filmed, what agent and reward model make of stacked frames."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode
from PIL import Image

from benchmarks import atari as benchmark
from benchmarks import reward_check
from benchmarks.agent_alone import Places
from benchmarks.learning import MemoryStore
from services import weights
from services.agent_trainer import atari, clips, donkey_kong, envs, ppo, stages
from services.agent_trainer.play import Play
from services.reward_trainer import reward_model
from services.reward_trainer import stages as reward_stages
from shared import config as configuration
from shared.jobs import CollectJob, LabelRecord, TrainAgentJob, TrainRewardJob, put_artifact, seed_for

SMALL = atari.Settings(frame_size=42, max_frames=1200)
SHORT = {  # changes to Pong's preset that leave two rounds of a few seconds
    "segments.collect_steps": 600, "segments.collect_envs": 2, "segments.length": 12, "rounds": 2,
    "labels.comparisons_first_round": 6, "labels.comparisons_per_round": 6, "reward_model.epochs": 1,
    "agent.total_steps": 256,
    "agent.num_envs": 4, "agent.num_steps": 32, "agent.minibatch_size": 64, "evaluation.episodes": 2,
    "atari.max_frames": 1200,
}  # fmt: skip


def whole_frames(game: str, size: int, steps: int, seed: int) -> np.ndarray:
    """Return all that ALE itself shows of a game in which nothing is done: [steps, size, size]."""
    games = AtariVectorEnv(game, 1, autoreset_mode=AutoresetMode.SAME_STEP, img_height=size, img_width=size)
    games.reset(seed=seed)
    return np.stack([games.step(np.zeros(1, np.int64))[0][0, -1] for _ in range(steps)])


@pytest.mark.parametrize("size", [36, 42, 48, 60, 64, 80, 84, 96, 210])
def test_no_row_that_is_shown_is_made_of_rows_with_the_score(size: int) -> None:
    """Nothing is done, so Kong stands still; the bonus above him counts down."""
    games = atari.make_games("donkey_kong", 1, atari.Settings(frame_size=size))
    games.reset(seed=1)
    shown = np.stack([games.step(np.zeros(1, np.int64))[0][0, -1] for _ in range(250)])
    assert (shown[:, 0] == shown[0, 0]).all()
    whole = whole_frames("donkey_kong", size, 250, seed=1)
    hidden = whole[:, : games.rows.start]
    assert (hidden != hidden[0]).any()


@pytest.mark.parametrize(
    ("game", "size", "first", "last"),
    [("pong", 84, 14, 78), ("pong", 42, 7, 39), ("donkey_kong", 84, 6, 77), ("donkey_kong", 60, 4, 55)],
)
def test_the_score_is_cut_off_and_the_field_is_not(game: str, size: int, first: int, last: int) -> None:
    games = atari.make_games(game, 1, atari.Settings(frame_size=size))
    games.reset(seed=1)
    shown = np.stack([games.step(np.zeros(1, np.int64))[0][0, -1] for _ in range(250)])
    whole = whole_frames(game, size, 250, seed=1)
    kept = whole[:, first:last].copy()
    if game == "donkey_kong":
        kept[:, shown[0] != whole[0, first:last]] = 0  # the lives, made black in every frame alike
        assert (kept != whole[:, first:last]).any()
    assert np.array_equal(shown, kept)
    moves = (whole != whole[0]).any(0)  # the score, the bonus, whatever moves
    assert moves[:first].any()  # a score that changes, and is not in what is shown
    assert moves[first:last].any()


def test_the_end_of_a_game_looks_like_a_time_limit() -> None:
    hidden = atari.make_games("pong", 1, SMALL, hide_end=True)
    plain = atari.make_games("pong", 1, atari.Settings(frame_size=42))
    hidden.reset(seed=4)
    plain.reset(seed=4)
    ends = [[], []]  # type: ignore[var-annotated]
    for step in range(1000):
        for games, found in zip((hidden, plain), ends, strict=True):
            _, _, terminated, truncated, info = games.step(np.zeros(1, np.int64))
            if terminated[0] or truncated[0]:
                found.append((step, bool(terminated[0]), info["final_obs"].shape))
    assert [(terminated, shape) for _, terminated, shape in ends[0]][:2] == [(False, (1, 4, 32, 42))] * 2
    assert ends[0][0][0] < 1200 / 4  # cut off
    assert [terminated for _, terminated, _ in ends[1]] == [True]  # lost by 21


def test_people_see_the_play_that_was_played() -> None:
    settings = atari.Settings(sticky_actions=0.25, max_frames=1200)
    rng = np.random.default_rng(0)
    actions = rng.integers(0, 6, (400, 3))
    games = atari.make_games("pong", 3, settings, hide_end=True)
    games.reset(seed=7)
    played = [games.step(row)[0] for row in actions]
    segments = [(2, range(100)), (0, range(350, 400)), (2, range(0, 400, 50))]  # over an episode's end
    films = dict(envs.replay("ALE/Pong-v5", 0, 7, actions, segments, settings))
    assert [films[number].shape for number in range(3)] == [(n, 160, 160, 3) for n in (100, 50, 8)]
    assert np.array_equal(films[0][50], films[2][1])
    next(
        envs.replay("ALE/Pong-v5", 0, 1, actions, [(0, range(5))], settings)
    )  # the same games, left in the middle
    again = dict(envs.replay("ALE/Pong-v5", 0, 7, actions, segments, settings))
    assert all(np.array_equal(films[number], again[number]) for number in films)
    for number, at in ((0, 0), (1, 20), (2, 2), (2, 6), (2, 7)):
        frame, (copy, steps) = films[number][at], segments[number]
        seen = played[steps[at]][copy, -1]
        grey = np.asarray(Image.fromarray(frame).convert("L").resize((84, 64), Image.Resampling.BOX))
        moving = [np.abs(x - np.median(x)) for x in (grey.astype(float), seen.astype(float))]
        assert np.corrcoef(*(x.ravel() for x in moving))[0, 1] > 0.8  # paddles and ball are where they were
        assert np.corrcoef(*(x.ravel() for x in (moving[0], moving[1][::-1])))[0, 1] < 0.6


def test_games_that_were_closed_are_played_anew_as_new_ones_are() -> None:
    """With sticky actions, whose chance a reset must draw anew, and closed in the middle of games."""
    settings = atari.Settings(frame_size=42, max_frames=400, sticky_actions=0.25)
    actions = np.random.default_rng(1).integers(6, size=(150, 3))

    def play(games: atari.Game, seed: int) -> list[bytes]:
        seen = [games.reset(seed=seed)[0].tobytes()]
        for row in actions:
            observations, rewards, _, truncated, _ = games.step(row)
            seen.append(observations.tobytes() + rewards.tobytes() + truncated.tobytes())
        return seen

    fresh = atari.make_games("pong", 3, settings, hide_end=True)
    copies, first = fresh.env, play(fresh, 5)
    others = atari.make_games("pong", 3, settings, hide_end=True)
    assert others.env is not copies, "somebody else plays on these"
    assert play(others, 6) != first
    fresh.close()
    fresh.close()
    with pytest.raises(AttributeError):
        fresh.reset(seed=5)
    again = atari.make_games("pong", 3, settings, hide_end=True)
    assert again.env is copies
    for _ in range(7):
        again.step(actions[0])
    assert play(again, 5) == first
    assert atari.make_games("pong", 3, settings).env is not copies, "it is in play"


def test_only_allowed_actions_are_taken_and_unknown_ones_named() -> None:
    few, every = (
        atari.make_games("pong", 1, atari.Settings(actions=actions)) for actions in ((0, 2, 3), None)
    )
    assert few.single_action_space.n == 3
    few.reset(seed=1)
    every.reset(seed=1)
    for few_action, action in ((1, 2), (2, 3), (1, 2), (0, 0)) * 20:
        seen = few.step(np.array([few_action]))[0]
        assert np.array_equal(seen, every.step(np.array([action]))[0])
    with pytest.raises(ValueError, match="none of number"):
        atari.make_games("pong", 1, atari.Settings(actions=(0, 17)))


def test_the_consoles_memory_is_that_of_the_play() -> None:
    """Over ends of episodes, and with each episode's own number of idle frames at its begin."""
    settings = atari.Settings(max_frames=1000)
    actions = np.random.default_rng(3).integers(0, 18, 600)
    memory = donkey_kong.memory(settings, 5, actions.tolist())
    ((_, frames),) = envs.replay("ALE/DonkeyKong-v5", 0, 5, actions[:, None], [(0, range(600))], settings)
    found = 0
    for step, frame in enumerate(frames):
        x, y = int(memory[step, donkey_kong.MARIO_X]), int(memory[step, donkey_kong.MARIO_Y])
        assert 21 <= y <= 160
        around = frame[max(0, y - 5) : y + 28, max(0, x - 10) : x + 14].reshape(-1, 3)
        found += (around == (200, 72, 72)).all(1).any()  # his overalls; nothing else is of their red
    assert found > 570  # he also dies, and is gone for some steps


def test_a_teacher_of_donkey_kong_wants_mario_up() -> None:
    def at(x: int, y: int, jump: int = 255) -> np.ndarray:
        row = np.zeros((1, 128), np.uint8)
        row[0, [donkey_kong.MARIO_X, donkey_kong.MARIO_Y, donkey_kong.JUMP]] = x, y, jump
        return row

    ladders = [[at(110, y) for y in range(154, 131, -1)], [at(82, y) for y in range(132, 100, -1)]]
    path = [at(49, 154), at(90, 154), *ladders[0], at(90, 132), *ladders[1]]
    judged = donkey_kong.judge(np.concatenate(path), np.zeros(len(path)))
    assert (np.diff(judged) > 0).all()  # nowhere on the way is further up worth less
    jump = donkey_kong.grounded(np.concatenate([at(60, 154), at(60, 140, jump=20)]))
    same = donkey_kong.judge(jump, np.zeros(2))
    assert same[0] == same[1]
    scored = donkey_kong.judge(np.concatenate([at(60, 154)] * 2), np.array([0.0, 100.0]))
    assert scored[0] < scored[1] < judged[1]
    with pytest.raises(ValueError, match="sticky"):
        donkey_kong.memory(atari.Settings(sticky_actions=0.1), 1, [0])


def test_the_first_ladder_counts_when_it_is_climbed() -> None:
    """Walk right to the first whole ladder and up; two steps further on, up leads nowhere."""
    settings = atari.Settings(actions=(0, 2, 3))  # stay, up, right
    heights = [
        donkey_kong.height(donkey_kong.memory(settings, seed, [2] * right + [1] * 25))
        for seed, right in ((1, 45), (2, 46), (1, 48))
    ]
    assert heights == [132, 132, 154]
    jump = np.zeros((2, 128), np.uint8)
    jump[:, [donkey_kong.MARIO_Y, donkey_kong.JUMP]] = [[154, 255], [101, 20]]
    assert donkey_kong.height(donkey_kong.grounded(jump)) == 154


def test_names_of_games() -> None:
    names = [
        atari.rom_name(f"ALE/{name}-v5") for name in ("DonkeyKong", "Pong", "MsPacman", "Nothing", "pong")
    ]
    assert names == ["donkey_kong", "pong", "ms_pacman", None, None]
    assert atari.rom_name("CartPole-v1") is None


def test_stacked_frames_are_stored_once_and_come_back() -> None:
    frames = np.random.default_rng(1).integers(0, 255, (14, 32, 42), np.uint8)
    stacks = np.stack([frames[t : t + 4] for t in range(11)])  # [T + 1, 4, H, W]
    data = clips.pack_npz(stacks, np.arange(10))
    observations, actions = clips.unpack_npz(data)
    assert np.array_equal(observations, stacks)
    assert np.array_equal(actions, np.arange(10))
    assert len(data) < 1.1 * frames.nbytes
    stacks[5, 3] = 0
    with pytest.raises(ValueError, match="moved on by one"):
        clips.pack_npz(stacks, np.arange(10))


def test_the_agent_sees_a_pixel_that_seldom_changes() -> None:
    agent = ppo.Agent([4, 32, 42], 3, hidden=16)
    seen = torch.zeros(6, 1, 4, 32, 42, dtype=torch.uint8)
    seen[3, :, :, 10, 10] = 255
    agent.measure(seen, None)
    assert agent.deviation.min() == 8  # a dark pixel is not divided by nothing
    log_policy, value = agent(seen)
    assert log_policy.shape == (6, 1, 3)
    assert value.shape == (6, 1)
    again = weights.load_agent(weights.save_agent(agent))
    assert torch.equal(again(seen)[0], log_policy)


def test_members_of_a_reward_model_see_alike_and_learn_apart() -> None:
    """The batched convolutions give what each member alone gives."""
    args = reward_model.Args(members=3, hidden=8)
    model = reward_model.RewardModel([4, 32, 42], args)
    frames = torch.randint(0, 255, (5, 4, 32, 42), dtype=torch.uint8)
    together = model(frames)  # [3, 5]
    for member in range(3):
        alone = reward_model.RewardModel([4, 32, 42], reward_model.Args(members=1, hidden=8))
        for name, tensor in alone.state_dict().items():
            whole = model.state_dict()[name]
            if name.startswith(("weights", "biases")):
                tensor.copy_(whole[member : member + 1])
            elif name.startswith("eyes"):
                tensor.copy_(whole.view(3, -1, *whole.shape[1:])[member])
        torch.testing.assert_close(alone(frames)[0], together[member], rtol=1e-4, atol=1e-5)


def test_a_round_of_pong_from_end_to_end_and_again_the_same() -> None:
    """Collect, judge, train both, evaluate, film: everything but the waiting, twice with the same outcome."""
    config = configuration.load(configuration.Path("configs/pong.toml"), SHORT)
    outcomes = [one_round(config, filmed) for filmed in (True, False)]
    assert outcomes[0] == outcomes[1]


def one_round(config: configuration.ExperimentConfig, filmed: bool) -> tuple[str, str, list[float]]:
    store, data = MemoryStore(), config.model_dump()
    quiet = (store, lambda fraction, metrics: None, lambda: False)
    encode = clips.encode_mp4 if filmed else None
    about = {
        "attempt_id": 1,
        "round_number": 1,
        "seed": seed_for(1),
        "prefix": "p/",
        "config": data,
        "log_dir": None,
    }
    collected = stages.collect(CollectJob(**about, agent=None, reward_model=None), *quiet, encode)
    assert len(collected.clips) == 12
    assert {len(clip.judgement) for clip in collected.clips} == {12}
    assert store.data[collected.clips[0].mp4.key][4:8] == (b"ftyp" if filmed else b"")
    labels = [
        LabelRecord([collected.clips[i].npz for i in one.clips], [0, 1], one.held_out, "ada", 1)
        for one in collected.comparisons
    ]
    trained = reward_stages.train_reward(
        TrainRewardJob(**about, labels=labels, reward_model=None, agent=None), *quiet
    )
    result = stages.train_agent(
        TrainAgentJob(**about, reward_model=trained.reward_model, agent=None), *quiet, encode
    )
    assert store.data[result.video.key][4:8] == (b"ftyp" if filmed else b"")
    assert len(result.true_returns) == 2
    assert all(-21 <= value <= 21 for value in result.true_returns)
    return trained.reward_model.sha256, result.agent.sha256, result.true_returns


def test_judged_games_reward_what_a_teacher_judges_by_and_count_ladders() -> None:
    """`benchmarks.agent_alone` plays consoles beside the games; a teacher plays them again afterwards."""
    settings = atari.Settings(max_frames=1000)
    games: Any = envs.make_envs("ALE/DonkeyKong-v5", 2, 0, settings)
    games.env = places = Places(games.env)
    games.reset(seed=5)
    draw = np.random.default_rng(3)
    actions = draw.integers(games.single_action_space.n, size=(600, 2))  # jumps too, over an end as well
    actions[:71, 0] = [3] * 46 + [2] * 25  # to the first whole ladder, and up
    rewards, climbed = np.array([games.step(row)[1] for row in actions]), 0  # [T, 2]
    for game in range(2):
        memory = donkey_kong.memory(settings, 5 + game, actions[:, game].tolist())
        climbed += sum(donkey_kong.height(memory[a : a + 245]) <= 132 for a in (0, 250))
        wanted = donkey_kong.judge(memory, np.zeros(600))
        assert np.allclose(rewards[:, game], wanted, atol=0.1)  # but for the score, which breaks ties
    ended, first, second = places.take()
    assert (ended, second) == (4, 0)
    assert first == climbed > 0
    assert places.take() == (0, 0, 0)


def test_an_agent_that_sees_something_else_is_not_played_on_with() -> None:
    """Its experiment may have begun before what a game shows was changed."""
    store, config = MemoryStore(), configuration.load(configuration.Path("configs/pong.toml"))
    saved = put_artifact(store, "agent", "agent", weights.save_agent(ppo.Agent((4, 31, 42), 3, hidden=8)))
    with pytest.raises(ValueError, match=r"sees \[4, 31, 42\], but ALE/Pong-v5 shows \(4, 32, 42\)"):
        stages.load_agent(config, store, saved)


def test_the_benchmark_tells_each_round_and_keeps_what_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    last_round = {"reward_model.final_epochs": 1, "agent.final_steps": 256}
    changes = SHORT | last_round | {"labels.comparisons_per_round": 4}
    words = ["--env-id", "ALE/Pong-v5", "--seeds", "3", "--teacher", "coin", "--keep", str(tmp_path / "kept")]
    monkeypatch.setattr(
        "sys.argv", ["atari", *words, *(f"--set={key}={value}" for key, value in changes.items())]
    )
    benchmark.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["labels"], last["teacher"], len(last["rounds"][0])) == ([10], "coin", 2)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    assert len(kept) == 4
    assert weights.load_agent(kept["seed-3-round-2-agent.safetensors"]).sizes["actions"] == 3
    assert weights.load_reward_model(kept["seed-3-round-1-reward_model.safetensors"]).args.members == 3
    kind = str(tmp_path / "kept" / "seed-3-round-{}.safetensors")
    models = [kind.format("1-reward_model"), kind.format("2-reward_model")]
    monkeypatch.setattr("sys.argv", ["reward_check", kind.format("2-agent"), *models, "--steps", "1600"])
    reward_check.main()
    checked = json.loads(capsys.readouterr().out.splitlines()[-1])["models"]
    assert list(checked) == models
    one, other = checked.values()
    assert one["segments below"] + one["segments at"] + one["segments above"] == 16 * (100 // 25)
    assert one["segments at"] == other["segments at"] > 0
    assert one["at"] != other["at"]


def test_a_reward_is_held_against_what_was_judged() -> None:
    judged = torch.tensor([-1.0, 0, 0, 1])
    right = reward_check.compare(3 * judged + 5, judged)
    assert right["correlation"] == pytest.approx(1)
    assert right["order"] == 1
    assert (right["below"], right["at"], right["above"]) == (2, 5, 8)
    wrong = reward_check.compare(torch.tensor([2.0, 1, 1, 2]), judged)  # two and a half of five pairs right
    assert wrong["order"] == pytest.approx(2.5 / 5)
    none = reward_check.compare(judged, torch.zeros(4))
    assert (none["correlation"], none["order"], none["above"], none["segments at"]) == (None, None, None, 4)


def test_segments_follow_one_another_within_episodes() -> None:
    ended = torch.zeros(10, 2, dtype=torch.bool)
    ended[4, 1] = True
    play = Play(*(torch.zeros(0),) * 5, ended)
    assert reward_check.segments(play, 3).tolist() == [[0, 0], [3, 0], [6, 0], [0, 1], [5, 1]]
    assert len(reward_check.segments(play, 11)) == 0
