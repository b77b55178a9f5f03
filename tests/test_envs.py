"""Environments: what they hide, how they are filmed, what teachers judge by, and clear errors."""

import gymnasium as gym
import numpy as np
import pytest

from services.agent_trainer import envs


def test_termination_is_hidden_and_lingers() -> None:
    env, plain = envs.make_env("CartPole-v1", linger=5), envs.make_env("CartPole-v1")
    first, _ = env.reset(seed=3)
    assert np.array_equal(first, plain.reset(seed=3)[0])
    terminated, steps = False, 0
    while not terminated:  # always to the right: the pole falls
        observation, reward, terminated, _, _ = plain.step(1)
        seen, hidden_reward, flag, cut, info = env.step(1)
        assert np.array_equal(seen, observation)
        assert (hidden_reward, flag, cut, info) == (reward, False, False, {})
        steps += 1
    for left in (4, 3, 2, 1, 0):
        seen, reward, flag, cut, info = env.step(0)
        assert np.array_equal(seen, observation)  # it stands still
        assert (reward, flag, cut, info) == (0.0, False, left == 0, {})
    again, _ = env.reset()
    assert not np.array_equal(again, observation)
    assert not env.step(1)[3]


def test_without_lingering_the_end_is_a_time_limit_at_once() -> None:
    env = envs.make_env("CartPole-v1", linger=0)
    env.reset(seed=3)
    for _ in range(100):
        _, _, terminated, truncated, _ = env.step(1)
        assert not terminated
        if truncated:
            return
    pytest.fail("the pole never fell")


def test_a_real_time_limit_stays_one() -> None:
    env = envs.HideTermination(gym.make("CartPole-v1", max_episode_steps=4), linger=50)
    env.reset(seed=3)
    assert [env.step(step % 2)[3] for step in range(4)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPoel-v1", "CartPoel"),
        ("CartPole-v99", "CartPole"),
        ("nowhere:Thing-v0", "nowhere"),
        ("", "no environment"),
        ("Pendulum-v1", "Discrete"),
        ("Blackjack-v1", "vector of numbers"),
    ],
)
def test_what_cannot_be_played_is_named(env_id: str, message: str) -> None:
    with pytest.raises(envs.UnknownEnvironment, match=message):
        envs.make_envs(env_id, 2)


def test_a_fall_is_the_worst_then_come_centre_angle_and_calm() -> None:
    states = np.array(
        [
            [0, 0, 0, 0],  # perfect
            [0, 0, 0, 1],  # moving
            [1.2, 0, 0, 0],  # half way to the edge
            [2.3, 2, 0.2, 2],  # about to fail in every way
            [2.5, 0, 0, 0],  # off the track
            [0, 0, 0.3, 0],  # fallen
        ]
    )
    judged = envs.judge_cartpole(states)
    assert judged[0] == 1
    assert judged[1] == pytest.approx(0.95)
    assert judged[2] == pytest.approx(0.75)
    assert 0 < judged[3] < judged[2]
    assert judged[4] == judged[5] == -2
    assert np.array_equal(judged, envs.judge_cartpole(-states))  # neither side is better


def test_the_limits_of_the_judgement_are_the_environments() -> None:
    env = envs.make_env("CartPole-v1")
    env.reset(seed=5)
    terminated = False
    while not terminated:
        state, _, terminated, _, _ = env.step(1)
        assert (envs.judge_cartpole(state[None])[0] == -2) == terminated


def test_other_environments_are_judged_by_their_own_reward() -> None:
    rewards = np.array([0.5, -1.0], np.float32)
    played = (envs.atari.Settings(), 1, np.zeros(2, int), np.zeros((2, 6)), rewards)
    assert envs.judgement("Acrobot-v1", *played).tolist() == [0.5, -1.0]


def test_a_replay_shows_what_was_played() -> None:
    linger, actions = 4, [1] * 40
    env = envs.make_env("CartPole-v1", linger=linger, render=True)
    env.reset(seed=8)
    expected = []
    for action in actions:
        truncated = env.step(action)[3]
        expected.append(np.asarray(env.render()))
        if truncated:
            env.reset()
    segments = [(1, range(0, 40, 13)), (1, range(8, 14)), (0, range(3))]
    films = dict(envs.replay("CartPole-v1", linger, 7, np.array([actions, actions]).T, segments))
    assert sorted(films) == [0, 1, 2]
    for number in (0, 1):
        frames = films[number]
        assert frames.shape == (len(segments[number][1]), 240, 320, 3)
        assert frames.dtype == np.uint8
        assert all(
            np.array_equal(*pair)
            for pair in zip(frames, [expected[i] for i in segments[number][1]], strict=True)
        )
    assert not np.array_equal(films[0][0], films[1][1])
    assert not np.array_equal(films[0][0], films[2][0])  # each environment has a seed of its own


def test_frames_shrink_by_a_whole_number_to_even_sides() -> None:
    frame = np.zeros((401, 650, 3), np.uint8)
    frame[:, ::2] = 200
    small = envs.shrink(frame)
    assert small.shape == (132, 216, 3)
    assert envs.shrink(np.zeros((210, 160, 3), np.uint8)).shape == (210, 160, 3)
    line = np.full((400, 600, 3), 255, np.uint8)
    line[299] = 0  # one pixel thick, on an odd row
    assert envs.shrink(line)[149].max() < 255


def test_natural_speed() -> None:
    assert envs.frame_rate("CartPole-v1") == 50
