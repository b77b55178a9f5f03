"""Each kind of teacher has its one weakness, applied once, and no other."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.teachers import KINDS, Teacher, answer, score

ROUND = 3
judgements = st.lists(
    st.lists(st.floats(-10, 10, allow_nan=False), min_size=4, max_size=4), min_size=2, max_size=12
)


def rates(teacher: Teacher, clips: list[list[float]], *shown: int, draws: int = 4000) -> dict[str, float]:
    """Return how often each answer is given over many rounds: each round is a fresh draw."""
    seen: dict[str, int] = {}
    for number in range(draws):
        word = str(answer(teacher, number, clips, *shown))
        seen[word] = seen.get(word, 0) + 1
    return {word: count / draws for word, count in seen.items()}


@given(judgements, st.sampled_from(KINDS))
def test_an_answer_does_not_depend_on_which_clip_is_left(clips: list[list[float]], kind: str) -> None:
    teacher = Teacher(kind)
    forward, backward = answer(teacher, ROUND, clips, 0, 1), answer(teacher, ROUND, clips, 1, 0)
    assert forward == (None if backward is None else backward[::-1])
    assert forward == answer(teacher, ROUND, clips, 0, 1)


@given(judgements)
def test_the_oracle_prefers_the_larger_sum(clips: list[list[float]]) -> None:
    a, b = math.fsum(clips[0]), math.fsum(clips[1])
    expected = [0, 0] if a == b else [0, 1] if a > b else [1, 0]
    assert answer(Teacher("oracle"), ROUND, clips, 0, 1) == expected


def test_mistakes_happen_at_the_stated_rate_and_ties_stay_ties() -> None:
    clips = [[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert rates(Teacher("mistake", error_rate=0.1), clips, 0, 1)["[1, 0]"] == pytest.approx(0.1, abs=0.02)
    assert rates(Teacher("mistake", error_rate=0.1), clips, 1, 2) == {"[0, 0]": 1.0}
    assert rates(Teacher("mistake", error_rate=0.0), clips, 0, 1) == {"[0, 1]": 1.0}


def test_noise_follows_the_logistic_curve_of_the_scores_in_units_of_the_spread() -> None:
    clips = [[3.0], [1.0]]  # spread 1, difference 2
    expected = 1 / (1 + math.exp(-2.0))
    assert rates(Teacher("noisy"), clips, 0, 1)["[0, 1]"] == pytest.approx(expected, abs=0.02)
    sharp = rates(Teacher("noisy", rationality=50.0), clips, 0, 1)
    assert sharp == {"[0, 1]": 1.0}


def test_equal_ties_what_lies_within_its_share_of_the_spread_once() -> None:
    clips = [[0.0], [0.09], [2.0]]
    spread = 0.923
    assert 0.09 < 0.1 * spread < 0.11
    assert answer(Teacher("equal", error_rate=0.1), ROUND, clips, 0, 1) == [0, 0]
    assert answer(Teacher("equal", error_rate=0.1), ROUND, [[0.0], [0.11], [2.0]], 0, 1) == [1, 0]
    assert answer(Teacher("oracle"), ROUND, clips, 0, 1) == [1, 0]


def test_skip_refuses_only_pairs_in_which_both_are_among_the_worst() -> None:
    clips = [[float(value)] for value in range(10)]
    teacher = Teacher("skip", error_rate=0.2)
    assert answer(teacher, ROUND, clips, 0, 1) is None
    assert answer(teacher, ROUND, clips, 1, 2) == [1, 0]
    assert answer(Teacher("skip", error_rate=0.0), ROUND, clips, 0, 1) == [1, 0]


def test_myopia_weighs_the_end_of_a_clip_more() -> None:
    early, late = [2.0, 0.0, 0.0], [0.0, 0.0, 1.7]
    assert answer(Teacher("oracle"), ROUND, [early, late], 0, 1) == [0, 1]
    assert answer(Teacher("myopic", discount=0.9), ROUND, [early, late], 0, 1) == [1, 0]
    assert score(Teacher("myopic", discount=0.9), early) == pytest.approx(2 * 0.81)


def test_a_coin_knows_nothing() -> None:
    found = rates(Teacher("coin"), [[1.0], [0.0]], 0, 1)
    assert found["[0, 1]"] == pytest.approx(0.5, abs=0.03)
    assert set(found) == {"[0, 1]", "[1, 0]"}


@given(judgements, st.sampled_from(KINDS), st.integers(3, 4), st.randoms(use_true_random=False))
def test_several_clips_are_ranked_whichever_way_they_are_shown(
    clips: list[list[float]], kind: str, count: int, draw: random.Random
) -> None:
    clips = clips + [[0.0] * 4] * (count - len(clips))
    shown = draw.sample(range(len(clips)), count)
    ranks, again = (answer(Teacher(kind), ROUND, clips, *order) for order in (shown, sorted(shown)))
    if ranks is None:
        assert again is None
        return
    assert again == [rank for _, rank in sorted(zip(shown, ranks, strict=True))]
    assert sorted(set(ranks)) == list(range(max(ranks) + 1))
    if kind in ("oracle", "skip"):
        sums = [math.fsum(clips[place]) for place in shown]
        assert [[a < b for b in ranks] for a in ranks] == [[a > b for b in sums] for a in sums]


def test_noise_among_three_follows_plackett_and_luce() -> None:
    clips = [[1.0], [0.0], [2.5]]
    e = [math.exp(value / statistics.pstdev([1.0, 0.0, 2.5])) for value in (1.0, 0.0, 2.5)]
    found, total = rates(Teacher("noisy"), clips, 0, 1, 2), sum(e)
    assert found["[1, 2, 0]"] == pytest.approx(e[2] / total * e[0] / (e[0] + e[1]), abs=0.025)
    assert found["[0, 1, 2]"] == pytest.approx(e[0] / total * e[1] / (e[1] + e[2]), abs=0.025)
    assert sum(found.values()) == pytest.approx(1)
    assert rates(Teacher("noisy", rationality=1e6), clips, 0, 1, 2, draws=20) == {"[1, 2, 0]": 1.0}
    blind = rates(Teacher("coin"), clips, 0, 1, 2)
    assert len(blind) == 6
    assert all(rate == pytest.approx(1 / 6, abs=0.025) for rate in blind.values())


def test_the_other_weaknesses_among_several_clips() -> None:
    found = rates(Teacher("mistake", error_rate=0.2), [[3.0], [1.0], [1.0], [0.0]], 0, 1, 2, 3)
    assert found == {
        "[2, 1, 1, 0]": pytest.approx(0.2, abs=0.02),
        "[0, 1, 1, 2]": pytest.approx(0.8, abs=0.02),
    }
    ten = [[float(value)] for value in range(10)]
    assert answer(Teacher("skip", error_rate=0.3), ROUND, ten, 0, 1, 2) is None
    assert answer(Teacher("skip", error_rate=0.3), ROUND, ten, 0, 1, 3) == [2, 1, 0]
    near = 0.5 * statistics.pstdev(
        [0.0, 0.4, 0.8, 3.0]
    )  # 0.58: 0.8 is near to 0.4, and 0.4 to 0, but 0.8 not to 0
    assert 0.4 < near < 0.8
    assert answer(Teacher("equal", error_rate=0.5), ROUND, [[0.0], [0.4], [0.8], [3.0]], 0, 1, 2, 3) == [
        2,
        1,
        1,
        0,
    ]


@pytest.mark.parametrize(
    "wrong", [{"kind": "wise"}, {"error_rate": 1.5}, {"discount": 0.0}, {"rationality": 0.0}]
)
def test_wrong_teachers_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"kinds are|must lie"):
        Teacher(**wrong)  # type: ignore[arg-type]
