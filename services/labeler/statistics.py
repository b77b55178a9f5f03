"""Figures about answers: agreement, side bias, correlation. Pure functions, standard library only."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, product


def sign_test(successes: int, trials: int) -> float:
    """Return the two-sided p-value of `successes` in `trials` if both sides were as likely (exact binomial).

    The probability of an outcome at least as far from the middle. 1.0 for no trials.
    """
    fewer = min(successes, trials - successes)
    log_all = trials * math.log(2)
    tail = math.fsum(math.exp(log_choose(trials, k) - log_all) for k in range(fewer + 1))
    return min(2 * tail, 1.0)


def log_choose(n: int, k: int) -> float:
    """Return ln of the number of ways to choose k of n."""
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def even_test(counts: Sequence[int]) -> float:
    """Return the p-value of counts as uneven as these if all were as likely (Pearson's chi-squared test).

    Two counts are better tested by `sign_test`, which is exact. 1.0 if nothing was counted.
    """
    expected = sum(counts) / len(counts)
    if not expected:
        return 1.0
    x = math.fsum((count - expected) ** 2 for count in counts) / expected
    freedom = len(counts) - 1
    # The tail of χ² for 1 or 2 degrees of freedom, and what every 2 more add to it.
    tail = math.erfc(math.sqrt(x / 2)) if freedom % 2 else math.exp(-x / 2)
    for k in range(2 - freedom % 2, freedom, 2):
        tail += (x / 2) ** (k / 2) * math.exp(-x / 2) / math.gamma(k / 2 + 1)
    return tail


def ordinal_alpha(units: Sequence[Sequence[int]]) -> float | None:
    """Return Krippendorff's alpha for ordered answers; None where it is not defined.

    A unit has the answers that one thing was given; with one answer it says nothing of agreement and is left
    out. 1 is perfect agreement, 0 what chance gives, below 0 is worse. Not defined without two answers to one
    thing, or if all answers are the same. Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability",
    with its metric for ordinal data.
    """

    def distance(low: int, high: int, often: Mapping[int, float]) -> float:
        between = sum(count for value, count in often.items() if low <= value <= high)
        return (between - (often[low] + often[high]) / 2) ** 2

    return _alpha(units, distance)


def nominal_alpha(units: Sequence[Sequence[int]]) -> float | None:
    """Return Krippendorff's alpha for answers that are mere names, any two as far apart as any others."""
    return _alpha(units, lambda low, high, often: 1.0)


def _alpha(
    units: Sequence[Sequence[int]], distance: Callable[[int, int, Mapping[int, float]], float]
) -> float | None:
    pairable = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in pairable for value in unit})
    together = dict.fromkeys(product(values, values), 0.0)  # the coincidence matrix
    for unit in pairable:
        for i, first in enumerate(unit):
            for second in (*unit[:i], *unit[i + 1 :]):
                together[first, second] += 1 / (len(unit) - 1)
    often = {value: sum(together[value, other] for other in values) for value in values}

    pairs = list(combinations(values, 2))  # a distance to oneself is 0, and both orders are alike
    observed = sum(together[pair] * distance(*pair, often) for pair in pairs)
    expected = sum(often[low] * often[high] * distance(low, high, often) for low, high in pairs)
    return 1 - (sum(often.values()) - 1) * observed / expected if expected else None


def same_answers(units: Sequence[Mapping[str, int]]) -> tuple[int, int]:
    """Return (pairs of labelers who gave one thing the same answer, all pairs); units map who to what."""
    pairs = [pair for unit in units for pair in combinations(unit.values(), 2)]
    return sum(first == second for first, second in pairs), len(pairs)


def agreement_by_labeler(units: Sequence[Mapping[str, int]]) -> dict[str, tuple[int, int]]:
    """Return for each labeler how often another gave the same answer, of how often another answered."""
    found: dict[str, tuple[int, int]] = {}
    for unit in units:
        for labeler, answer in unit.items():
            same, of = found.get(labeler, (0, 0))
            others = [value for who, value in unit.items() if who != labeler]
            found[labeler] = (same + others.count(answer), of + len(others))
    return found


def self_agreement(
    repeats: Iterable[tuple[str, Sequence[int] | None, Sequence[int] | None]],
) -> dict[str, tuple[int, int]]:
    """Return for each labeler how many pairs of clips they ordered as before, of how many they ordered twice.

    A repeat is (labeler, ranks the first time, ranks again). Two clips are one pair, three are three. That
    clips cannot be compared (None) has no order: said once it is no agreement, said twice it is, once.
    """
    found: dict[str, tuple[int, int]] = {}
    for labeler, first, again in repeats:
        same, of = found.get(labeler, (0, 0))
        if first is None or again is None:
            found[labeler] = (same + (first is again), of + 1)
            continue
        pairs = list(combinations(range(len(first)), 2))
        as_before = sum(_order(first[i], first[j]) == _order(again[i], again[j]) for i, j in pairs)
        found[labeler] = (same + as_before, of + len(pairs))
    return found


def _order(first: int, second: int) -> int:
    return (first > second) - (first < second)


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Return Pearson's correlation; None for fewer than three points, or if one side never changes."""
    if len(xs) < 3:
        return None
    mean_x, mean_y = math.fsum(xs) / len(xs), math.fsum(ys) / len(ys)
    dx, dy = [x - mean_x for x in xs], [y - mean_y for y in ys]
    spread = math.sqrt(math.fsum(d * d for d in dx) * math.fsum(d * d for d in dy))
    return math.fsum(a * b for a, b in zip(dx, dy, strict=True)) / spread if spread else None
