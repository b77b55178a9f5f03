"""The reward model: its likelihood against closed forms, its training, its file."""

import math
from itertools import permutations

import pytest
import torch

from services import weights
from services.reward_trainer import reward_model
from services.reward_trainer.reward_model import Args, Preferences, RewardModel


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # small networks are quicker on one core


def made_up(count: int, clips: int = 2, seed: int = 3) -> tuple[Preferences, torch.Tensor]:
    """Random clips of 2-D points; what is preferred is a large first number. Returns the taste [B, K] too."""
    draw = torch.Generator().manual_seed(seed)
    observations = 5 + 2 * torch.randn(count, clips, 10, 2, generator=draw)
    taste = observations[..., 0].sum(-1)
    ranks = taste.argsort(descending=True).argsort()
    held_out = torch.zeros(count, dtype=torch.bool)
    held_out[::5] = True
    return Preferences(observations, ranks, held_out), taste


@pytest.mark.parametrize("error_rate", [0.0, 0.1])
def test_two_clips_are_bradley_terry(error_rate: float) -> None:
    difference = torch.linspace(-6, 6, 25, dtype=torch.float64)
    sums = torch.stack([difference, torch.zeros_like(difference)], -1)
    p = (1 - error_rate) * torch.sigmoid(difference) + error_rate / 2
    for ranks, expected in (
        ([0, 1], -p.log()),
        ([1, 0], -(1 - p).log()),
        ([0, 0], -(p.log() + (1 - p).log()) / 2),
    ):
        given = torch.tensor([ranks] * len(difference))
        torch.testing.assert_close(reward_model.loss(sums, given, error_rate), expected)


def test_three_clips_are_plackett_luce() -> None:
    a, b, c = 0.3, -1.2, 2.0
    e = [math.exp(x) for x in (a, b, c)]
    cab = e[2] / sum(e) * e[0] / (e[0] + e[1])
    cba = e[2] / sum(e) * e[1] / (e[0] + e[1])
    sums = torch.tensor([[a, b, c]])
    strict = reward_model.loss(sums, torch.tensor([[1, 2, 0]]), 0.0)
    assert strict.item() == pytest.approx(-math.log(cab), rel=1e-5)
    tied = reward_model.loss(sums, torch.tensor([[1, 1, 0]]), 0.0)
    assert tied.item() == pytest.approx(-(math.log(cab) + math.log(cba)) / 2, rel=1e-5)
    blind = reward_model.loss(sums, torch.tensor([[1, 2, 0]]), 0.3)
    assert blind.item() == pytest.approx(-math.log(0.7 * cab + 0.3 / 6), rel=1e-5)


def test_with_smoothing_the_best_difference_is_finite_and_the_same_for_what_is_seen_seldom() -> None:
    """Three clips: the second loses to the first in nine answers, the third wins over it in one."""
    ranks = torch.tensor([[0, 1]] * 9 + [[1, 0]])
    ends = {}
    for smooth in (False, True):
        values = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.Adam([values], lr=0.05)
        for _ in range(400):
            lost, won = values[[0, 1]].expand(9, 2), values[[0, 2]].expand(1, 2)
            loss = reward_model.loss(torch.cat([lost, won]), ranks, 0.1, smooth)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
        ends[smooth] = values.detach()
    best = math.log(0.95 / 0.05)
    assert (ends[True][[0, 2]] - ends[True][[1, 0]]).tolist() == pytest.approx([best, best], abs=0.1)
    assert (ends[False][0] - ends[False][1]).item() > 1.5 * best
    tie = reward_model.loss(torch.tensor([[1.0, 1.0]]), torch.tensor([[0, 0]]), 0.1, smooth=True)
    assert tie.item() == pytest.approx(math.log(2))
    four = reward_model.loss(torch.zeros(1, 4), torch.tensor([[0, 1, 2, 3]]), 0.3, smooth=True)
    assert four.item() == pytest.approx(math.log(24))


@pytest.mark.parametrize("ranks", [[0, 1, 2, 3], [2, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("error_rate", [0.0, 0.1])
def test_ties_among_four_clips_are_every_ordering_that_agrees(ranks: list[int], error_rate: float) -> None:
    sums = [0.5, -1.0, 2.0, 0.1]

    def probability(ordering: tuple[int, ...]) -> float:
        p = 1.0
        for drawn, clip in enumerate(ordering):
            p *= math.exp(sums[clip]) / sum(math.exp(sums[other]) for other in ordering[drawn:])
        return (1 - error_rate) * p + error_rate / 24

    agree = [one for one in permutations(range(4)) if sorted(one, key=lambda clip: ranks[clip]) == list(one)]
    expected = -sum(math.log(probability(one)) for one in agree) / len(agree)
    found = reward_model.loss(torch.tensor([sums]), torch.tensor([ranks]), error_rate)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_accuracy_and_calibration_of_three_clips_are_those_of_their_pairs() -> None:
    sums = torch.tensor([[[2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])  # one member, two comparisons
    metrics = reward_model.evaluate(sums, torch.tensor([[0, 1, 2], [0, 1, 1]]), error_rate=0.0)
    assert metrics["labels"] == 2
    assert metrics["accuracy"] == pytest.approx((1 + 1 + 1 + 0.5 + 0) / 5)  # the tie of two orders no pair
    p1, p2 = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    # Each pair from both sides: p1 came true twice and failed once, 1 − p1 the other way, p2 once, 0.5 both.
    expected = (2 * abs(3 * p1 - 2) + 2 * (1 - p2) + 2 * abs(0.5 - 0.5)) / 10
    assert metrics["calibration"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("clips", [2, 3, 4])
def test_probabilities_sum_to_one_and_ignore_a_constant(clips: int) -> None:
    sums = torch.randn(7, clips, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for error_rate in (0.0, 0.2):
        log_p = reward_model.log_probabilities(sums, error_rate)
        torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(7, dtype=torch.float64))
        torch.testing.assert_close(log_p, reward_model.log_probabilities(sums + 123.4, error_rate))


def test_a_large_difference_stays_finite() -> None:
    sums = torch.tensor([[1000.0, -1000.0]], requires_grad=True)
    value = reward_model.loss(sums, torch.tensor([[1, 0]]), 0.1)
    value.sum().backward()
    assert value.item() == pytest.approx(-math.log(0.05), rel=1e-5)
    assert sums.grad is not None
    assert sums.grad.isfinite().all()


def test_members_are_what_each_would_be_alone() -> None:
    model = RewardModel([2], Args(members=3))
    x = torch.randn(4, 5, 2, generator=torch.Generator().manual_seed(1))
    together = model(x)
    assert together.shape == (3, 4, 5)
    for m in range(3):
        h = x
        for layer, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
            h = (h if layer == 0 else h.tanh()) @ weight[m] + bias[m]
        torch.testing.assert_close(together[m], h.squeeze(-1))
    assert not torch.equal(together[0], together[1])


def test_training_recovers_the_order_and_reports_on_the_held_out() -> None:
    data, taste = made_up(100)
    model = RewardModel([2], Args())
    metrics = reward_model.train(model, data)
    assert metrics["held_out/labels"] == 20
    assert metrics["train/labels"] == 80
    assert metrics["held_out/accuracy"] >= 0.85
    assert metrics["held_out/loss"] < math.log(2) * 0.7
    assert 0 <= metrics["held_out/calibration"] < 0.2
    fresh, taste = made_up(200, seed=4)
    predicted = model.members(fresh.observations).mean(0).sum(-1)
    agree = (predicted[:, 0] > predicted[:, 1]) == (taste[:, 0] > taste[:, 1])
    assert agree.float().mean() > 0.85


def test_held_out_preferences_do_not_touch_the_weights() -> None:
    data, _ = made_up(40)
    first, second = RewardModel([2], Args(epochs=10)), RewardModel([2], Args(epochs=10))
    reward_model.train(first, data)
    data.ranks[data.held_out] = 1 - data.ranks[data.held_out]
    reward_model.train(second, data)
    assert weights.save_reward_model(first) == weights.save_reward_model(second)
    data.ranks[~data.held_out] = 1 - data.ranks[~data.held_out]
    third = RewardModel([2], Args(epochs=10))
    reward_model.train(third, data)
    assert weights.save_reward_model(first) != weights.save_reward_model(third)


def test_predictions_are_normalised_after_the_first_training() -> None:
    data, _ = made_up(40)
    model = RewardModel([2], Args(epochs=30))
    reward_model.train(model, data)
    members = model.members(data.observations).flatten(1)
    torch.testing.assert_close(members.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(members.std(1), torch.ones(3), atol=1e-4, rtol=0)
    seen = data.observations.flatten(0, 2)
    torch.testing.assert_close(model.mean, seen.mean(0))
    torch.testing.assert_close(model.deviation, seen.std(0, correction=0))


def test_a_number_that_never_changes_does_no_harm() -> None:
    data, _ = made_up(20)
    data.observations[..., 1] = 7.0
    model = RewardModel([2], Args(epochs=10))
    reward_model.train(model, data)
    off = torch.tensor([[5.0, 7.001]])
    assert model.reward(off, off, off).isfinite().all()


def test_calibration_and_accuracy_against_numbers_worked_by_hand() -> None:
    model = RewardModel([1], Args(members=1, error_rate=0.0))
    with torch.no_grad():  # a member that predicts about 2 · 10⁻³ x: nearly linear
        for weight in model.weights:
            weight.zero_()
        model.weights[0][0, 0, 0] = model.weights[1][0, 0, 0] = 1e-2
        model.weights[2][0, 0, 0] = 1e4
    clips = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]).view(4, 2, 1, 1)
    ranks = torch.tensor([[0, 1], [0, 1], [0, 1], [0, 0]])
    metrics = reward_model.evaluate(model.predict(clips).sum(-1), ranks, error_rate=0.0)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    p1, p2 = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    # Given p1 (right), p2 (right) and 1 − p2 (wrong), and what is left to 1 of each: four bins.
    expected = (2 * (1 - p1) + 2 * (2 * p2 - 1)) / 6
    assert metrics["calibration"] == pytest.approx(expected, abs=1e-2)


def test_pessimism_takes_deviations_off() -> None:
    points = torch.randn(6, 2, generator=torch.Generator().manual_seed(2))
    model = RewardModel([2], Args(pessimism=2.0))
    members = model.members(points)
    expected = members.mean(0) - 2 * members.std(0, correction=0)
    torch.testing.assert_close(model.reward(points, points, points), expected)


def test_the_reward_carries_no_gradient_and_depends_on_what_a_step_led_to() -> None:
    model = RewardModel([2], Args())
    before, after = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(2))
    rewards = model.reward(before, torch.zeros(6), after)
    assert not rewards.requires_grad
    assert torch.equal(rewards, model.reward(before + 1, torch.ones(6), after))


def test_a_saved_model_comes_back_whole() -> None:
    data, _ = made_up(20)
    model = RewardModel([2], Args(epochs=5, pessimism=0.5))
    reward_model.train(model, data)
    again = weights.load_reward_model(weights.save_reward_model(model))
    assert again.args == model.args
    assert weights.save_reward_model(again) == weights.save_reward_model(model)
    x = data.observations
    assert torch.equal(again.reward(x, x, x), model.reward(x, x, x))


@pytest.mark.parametrize("data", [b"", b"\x00" * 40, b"not safetensors at all, by any means"])
def test_a_damaged_file_is_named(data: bytes) -> None:
    with pytest.raises(ValueError, match="no reward_model"):
        weights.load_reward_model(data)


def test_all_held_out_is_an_error() -> None:
    data, _ = made_up(4)
    data.held_out[:] = True
    with pytest.raises(ValueError, match="no preference to train on"):
        reward_model.train(RewardModel([2], Args()), data)


def test_training_stops_when_asked() -> None:
    data, _ = made_up(20)
    calls = iter([False, False, True])
    fractions: list[float] = []
    reward_model.train(
        RewardModel([2], Args()),
        data,
        lambda fraction, metrics: fractions.append(fraction),
        lambda: next(calls),
    )
    assert fractions == []


def test_the_demonstration_learns(capsys: pytest.CaptureFixture[str]) -> None:
    reward_model.main(Args())
    lines = capsys.readouterr().out.splitlines()
    rewards = [float(line.split()[-1]) for line in lines if line.startswith("reward at")]
    assert rewards[0] == max(rewards)
