"""The statistics of answers against values worked out by hand or published."""

import math
from datetime import UTC, datetime

import pytest

from services.labeler.answers import Answer, in_order
from services.labeler.statistics import (
    agreement_by_labeler,
    correlation,
    even_test,
    nominal_alpha,
    ordinal_alpha,
    same_answers,
    self_agreement,
    sign_test,
)

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": four observers, twelve units.
EXAMPLE = [
    [1, 1, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4], [4, 4, 4, 4],
    [1, 1, 2, 1], [2, 2, 2, 2], [5, 5, 5], [1, 1], [3],
]  # fmt: skip


def test_alpha_is_the_published_one() -> None:
    assert nominal_alpha(EXAMPLE) == pytest.approx(0.743, abs=0.0005)
    assert ordinal_alpha(EXAMPLE) == pytest.approx(0.815, abs=0.0005)


def test_alpha_of_two_values_worked_out_by_hand() -> None:
    # Four things, two labelers: coincidences of −1 and 1 are o = [[4, 1], [1, 2]], so n = 8, n₋ = 5, n₊ = 3;
    # any metric of two values cancels: α = 1 − (n − 1) · o₋₊ / (n₋ · n₊) = 1 − 7 · 1 / 15.
    assert ordinal_alpha([[-1, -1], [-1, -1], [-1, 1], [1, 1]]) == pytest.approx(1 - 7 / 15)


def test_alpha_knows_perfect_agreement_and_none() -> None:
    assert ordinal_alpha([[-1, -1], [0, 0], [1, 1]]) == 1.0
    worse = ordinal_alpha([[-1, 1], [1, -1], [-1, 1]])
    assert worse is not None
    assert worse < 0


def test_a_tie_is_nearer_to_both_sides_than_they_are_to_each_other() -> None:
    near = ordinal_alpha([[-1, 0], [-1, -1], [0, 0], [1, 1]])
    far = ordinal_alpha([[-1, 1], [-1, -1], [0, 0], [1, 1]])
    assert near is not None
    assert far is not None
    assert near > far


@pytest.mark.parametrize("units", [[], [[1]], [[1], [0]], [[1, 1], [1, 1]]])
def test_alpha_is_not_defined_without_pairs_or_without_variety(units: list[list[int]]) -> None:
    assert ordinal_alpha(units) is None


@pytest.mark.parametrize(
    ("successes", "trials", "p"),
    [
        (0, 0, 1.0),
        (5, 10, 1.0),
        (8, 10, 2 * (45 + 10 + 1) / 1024),
        (2, 10, 2 * (45 + 10 + 1) / 1024),
        (10, 10, 2 / 1024),
        (3, 5, 1.0),
    ],
)
def test_the_sign_test_is_exact(successes: int, trials: int, p: float) -> None:
    assert sign_test(successes, trials) == pytest.approx(p)


def test_the_sign_test_of_many_answers_does_not_overflow() -> None:
    z = 2.0  # deviations from the middle: the normal tail, two-sided, is 0.0455
    trials = 40_000
    assert sign_test(int(trials / 2 + z * math.sqrt(trials) / 2), trials) == pytest.approx(0.0455, abs=0.001)


@pytest.mark.parametrize(
    ("counts", "p"),  # χ² is 10 in each: the published tails for 1, 2 and 3 degrees of freedom
    [([30, 10], 0.001565), ([10, 20, 30], 0.006738), ([30, 10, 20, 20], 0.018566), ([0, 0, 0], 1.0)],
)
def test_the_test_of_even_places(counts: list[int], p: float) -> None:
    assert even_test(counts) == pytest.approx(p, abs=1e-6)
    assert even_test([5, 5, 5]) == 1.0


@pytest.mark.parametrize(
    ("ranks", "shown", "word", "said"),
    [
        ([1, 0], [0, 1], "right", "right"),
        ([1, 0], [1, 0], "left", "left"),
        ([0, 0], [1, 0], "tie", "tie"),
        (None, [1, 0, 2], "incomparable", "incomparable"),
        ([1, 0, 2], [2, 0, 1], "third", "3 > 2 > 1"),
        ([0, 0, 1], [2, 0, 1], "tie", "2 = 3 > 1"),
        ([1, 1, 0, 1], [3, 0, 1, 2], "fourth", "4 > 1 = 2 = 3"),
    ],
)
def test_an_answer_is_told_as_it_was_seen(
    ranks: list[int] | None, shown: list[int], word: str, said: str
) -> None:
    answer = Answer(1, 1, "ada", ranks, shown, None, datetime.now(UTC))
    assert (answer.word, answer.said) == (word, said)


def test_an_ordering_is_written_by_the_numbers_of_its_clips() -> None:
    assert in_order([1, 0, 1]) == "2 > 1 = 3"


def test_agreement_counts_pairs_and_each_labelers_others() -> None:
    units = [{"ada": 1, "bob": 1, "eve": 0}, {"ada": -1, "eve": -1}, {"bob": 1}]
    assert same_answers(units) == (2, 4)
    assert agreement_by_labeler(units) == {"ada": (2, 3), "bob": (1, 2), "eve": (1, 3)}


def test_correlation() -> None:
    assert correlation([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert correlation([1, 2], [1, 2]) is None
    assert correlation([1, 2, 3], [5, 5, 5]) is None


def test_agreement_with_oneself_counts_pairs_of_clips_and_both_kinds_of_incomparable() -> None:
    repeats = [
        ("ada", [0, 1], [0, 1]),
        ("ada", [0, 1], [0, 0]),
        ("ada", None, None),
        ("ada", None, [0, 1]),
        ("bob", [0, 1, 2], [0, 2, 1]),  # of three pairs, one is the other way round
    ]
    assert self_agreement(repeats) == {"ada": (2, 4), "bob": (2, 3)}
    assert self_agreement([]) == {}
