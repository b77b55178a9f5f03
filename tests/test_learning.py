"""Whole learning runs: CartPole from preferences, and the control that shows that the labels do the work."""

from pathlib import Path

import pytest

from benchmarks.learning import label_split, run
from services.teachers import Teacher
from shared import config as configuration

PRESET = Path(__file__).parent.parent / "configs" / "cartpole.toml"
LABELS = 60


def final_returns(kind: str, seeds: range, labels: int = LABELS, clips: int = 2) -> list[float]:
    """Return the true return of each seed's final agent, after the whole label budget."""
    split = label_split(labels, configuration.load(PRESET).rounds)
    overrides: dict[str, int] = {f"labels.{key}": value for key, value in split.items()}
    overrides["labels.clips_per_comparison"] = clips
    returns = []
    for seed in seeds:
        config = configuration.load(PRESET, overrides | {"seed": seed, "evaluation.episodes": 20})
        returns.append(run(config, Teacher(kind, seed=seed))["rounds"][-1])
    return returns


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sixty_labels_solve_cartpole() -> None:
    returns = final_returns("oracle", range(1, 6))
    assert sum(value >= 475 for value in returns) >= 4, returns  # 29 of 30 in the benchmark


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_half_as_many_rankings_of_three_do_too() -> None:
    returns = final_returns("oracle", range(1, 4), labels=30, clips=3)
    assert sum(value >= 475 for value in returns) >= 2, returns


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_coin_flips_do_not() -> None:
    """Of 60 flips one reward in six wants the pole up by chance: docs/label_efficiency.md."""
    returns = final_returns("coin", range(1, 6), labels=100)
    assert not any(value >= 475 for value in returns), returns
