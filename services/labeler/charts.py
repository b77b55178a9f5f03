"""What the admin page draws: a chart is a table first, with sentences about it; `figures.py` draws it."""

import math
import statistics as basic
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

from sqlalchemy.orm import Session

from services.labeler import answers, report, statistics
from services.labeler.answers import Answer
from shared.config import ExperimentConfig
from shared.models import Experiment
from shared.states import STAGES

Cell = str | float | int | datetime | None
WIDTHS_MIN = (1, 5, 15, 60, 360, 1440, 10_080)  # minutes of a bar in "labels a minute"
MOST_BARS = 200
SURE = 0.05  # below this a deviation is called unlikely to be chance


@dataclass
class Chart:
    """A table and how to draw it: the first column across, the columns named in `drawn` up."""

    id: str
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    drawn: list[str]
    kind: Literal["lines", "bars", "stacked"] = "lines"
    unit: str = ""  # of the upward axis
    says: list[str] = field(default_factory=list)
    warning: str | None = None


def charts(session: Session, experiment: Experiment) -> list[Chart]:
    """Return every chart of an experiment, also those that have nothing to show yet."""
    config = ExperimentConfig.model_validate(experiment.config)
    given = answers.standing(session, experiment.id)
    # Round 0, the labels it began with, was not trained on its own and was given at another time.
    rounds = [one for one in report.report(session, experiment)["rounds"] if one["number"] > 0]
    here = [one for one in given if one.round > 0]
    return [
        returns(rounds), reward_model(rounds, config.labels.clips_per_comparison), calibration(rounds),
        agent(rounds), pace(here),
        answer_mix(given), agreement(given), throughput(rounds, config),
    ]  # fmt: skip


# ---------------------------------------------------------------------------- what was learned


def returns(rounds: list[dict[str, Any]]) -> Chart:
    """Predicted against true return, and whether the one still follows the other."""
    rows: list[list[Cell]] = [
        [one["number"], _metric(one, "training_agent", "charts/predicted_return"), _true(one)]
        for one in rounds
    ]
    known = [(n, p, t) for n, p, t in rows if isinstance(p, float) and isinstance(t, float)]
    chart = Chart("returns", "Predicted and true return", ["round", "predicted", "true"], rows,
                  ["predicted", "true"], unit="mean return of an episode")  # fmt: skip
    r = statistics.correlation([p for _, p, _ in known], [t for _, _, t in known])
    chart.says.append(
        "Their correlation needs three rounds."
        if r is None
        else f"Their correlation over the rounds is {r:.2f}."
    )
    chart.says.append("The predicted return is in the reward model's own unit, which each round sets anew.")
    apart = [(n, p0, p1, t0, t1) for (_, p0, t0), (n, p1, t1) in pairwise(known) if p1 > p0 and t1 < t0]
    if apart:
        n, p0, p1, t0, t1 = apart[-1]
        chart.warning = (
            f"In round {n} the predicted return rose ({p0:.1f} to {p1:.1f}) while the true return fell "
            f"({t0:.1f} to {t1:.1f}): the agent may have found something that the reward model likes and "
            "people would not. Watch its film; more labels correct it."
        )
    return chart


def reward_model(rounds: list[dict[str, Any]], clips: int) -> Chart:
    """The reward model's loss, in training and held out, where `clips` are compared at once."""
    guess = math.log(math.factorial(clips))
    names = {"training": "train/loss", "held out": "held_out/loss"}
    chart = _by_round("reward_loss", "Reward model: loss", rounds, "training_reward", names, "nats")
    chart.says.append(f"Of a blind guess the loss is {guess:.2f}. Held-out comparisons are never trained on.")
    return chart


def calibration(rounds: list[dict[str, Any]]) -> Chart:
    """How often the reward model is right, and how well its probabilities fit."""
    names = {
        "accuracy, training": "train/accuracy",
        "accuracy, held out": "held_out/accuracy",
        "calibration error, held out": "held_out/calibration",
        "comparisons held out": "held_out/labels",
    }
    title = "Reward model: accuracy and calibration"
    chart = _by_round("reward_accuracy", title, rounds, "training_reward", names, "share")
    chart.drawn = [name for name in chart.drawn if name != "comparisons held out"]
    few = [row for row in chart.rows if isinstance(row[-1], float) and row[-1] < 30]
    chart.says.append(
        "The calibration error: how far predicted probabilities lie from how often they came true."
    )
    if few:
        chart.says.append("With fewer than 30 comparisons held out, the held-out figures swing by chance.")
    return chart


def agent(rounds: list[dict[str, Any]]) -> Chart:
    """PPO's own figures at the end of each round."""
    names = {name.replace("_", " "): f"losses/{name}" for name in (
        "policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac", "explained_variance",
    )} | {"learning rate": "charts/learning_rate"}  # fmt: skip
    chart = _by_round("agent", "Agent: PPO at the end of each round", rounds, "training_agent", names, "")
    chart.says.append("TensorBoard has the curves within a round.")
    return chart


# ----------------------------------------------------------------------------- who said what


def pace(given: list[Answer]) -> Chart:
    """Labels a minute."""
    chart = Chart(
        "pace", "Labels a minute", ["from", "labels", "a minute"], [], ["a minute"], "bars", "labels a minute"
    )
    if not given:
        chart.says.append("Nobody has answered yet.")
        return chart
    span_min = (given[-1].at - given[0].at).total_seconds() / 60
    width = next((one for one in WIDTHS_MIN if span_min / one < MOST_BARS), WIDTHS_MIN[-1])
    bars = Counter(int(answer.at.timestamp() // (60 * width)) for answer in given)
    chart.rows = [
        [datetime.fromtimestamp(60 * width * start, given[0].at.tzinfo), count, count / width]
        for start, count in sorted(bars.items())
    ]
    took = [answer.seconds for answer in given if answer.seconds is not None]
    if took:
        chart.says.append(f"Half of the answers took less than {basic.median(took):.1f} s.")
    chart.says.append(f"A bar is {width} min; times without an answer are left out of the table.")
    return chart


def answer_mix(given: list[Answer]) -> Chart:
    """What was answered, and whether one side is favoured."""
    by_round: dict[int, list[Answer]] = {}
    for answer in given:
        by_round.setdefault(answer.round, []).append(answer)
    places = _places(given)
    words = [*places, "tie", "incomparable"]
    rows: list[list[Cell]] = [
        [number, *(answers.mix(some)[word] for word in words)] for number, some in sorted(by_round.items())
    ]
    chart = Chart("answers", "Answers", ["round", *words], rows, words, "stacked", "answers")
    counts = answers.mix(given)
    by_place = [counts[place] for place in places]
    left, decided = by_place[0], sum(by_place)
    if decided and len(places) > 2:
        p = statistics.even_test(by_place)
        shares = ", ".join(
            f"{place} {count / decided:.0%}" for place, count in zip(places, by_place, strict=True)
        )
        chart.says.append(
            f"Where the best of {len(places)} clips was shown, in {decided} answers that name one: {shares}; "
            f"if places did not matter, as uneven shares would come up with probability {p:.3f}. "
            "A tie means that several clips are the best."
        )
        if p < SURE:
            most = places[by_place.index(max(by_place))]
            chart.warning = (
                f"Labelers prefer the {most} place more than chance explains: places are drawn at random."
            )
    elif decided:
        p = statistics.sign_test(left, decided)
        chart.says.append(
            f"The left clip was better in {left} of {decided} decided answers ({left / decided:.0%}); "
            f"if sides did not matter, as uneven a share would come up with probability {p:.3f}."
        )
        if p < SURE:
            side = "left" if 2 * left > decided else "right"
            chart.warning = (
                f"Labelers lean to the {side} more than chance explains: sides are drawn at random."
            )
    return chart


def agreement(given: list[Answer]) -> Chart:
    """How far labelers agree, on the comparisons that several answered."""
    shared = answers.units(given)
    by_labeler = statistics.agreement_by_labeler(shared)
    counts = Counter(answer.labeler for answer in given)
    leaning = {name: answers.mix([one for one in given if one.labeler == name]) for name in counts}
    places = _places(given)
    rows: list[list[Cell]] = []
    for name, labels in counts.most_common():
        same, of = by_labeler.get(name, (0, 0))
        by_place = [leaning[name][place] for place in places]
        decided, test = sum(by_place), statistics.even_test(by_place)
        if len(places) == 2:
            test = statistics.sign_test(by_place[0], decided)
        share, p = (by_place[0] / decided, test) if decided else (None, None)
        rows.append([name, labels, of, same / of if of else None, share, p])
    columns = ["labeler", "answers", "compared with others", "same answer", f"{places[0]} of decided"]
    columns.append("p of no side" if len(places) == 2 else "p of no place")
    chart = Chart("agreement", "Agreement", columns, rows, ["same answer"], "bars", "share")
    same, pairs = statistics.same_answers(shared)
    order = "left, tie, right"
    if not pairs:
        chart.says.append(
            "No comparison has two answers yet; labels.labels_per_comparison asks several labelers for one."
        )
        return chart
    alpha = statistics.ordinal_alpha([list(unit.values()) for unit in shared])
    if len(places) > 2:
        chart.says.append(
            f"Any two of the {len(places)} clips that were ranked together are counted as a case."
        )
        order = "worse, tie, better"
    chart.says.append(f"Two labelers gave the same answer in {same} of {pairs} cases ({same / pairs:.0%}).")
    chart.says.append(
        "Krippendorff's alpha is not defined while all answers are the same."
        if alpha is None
        else f"Krippendorff's alpha ({order} as an order) is {alpha:.2f}: 1 is perfect, 0 is chance."
    )
    return chart


def throughput(rounds: list[dict[str, Any]], config: ExperimentConfig) -> Chart:
    """Where the time goes."""
    rows: list[list[Cell]] = [
        [one["number"], *(one["seconds"].get(stage) for stage in STAGES)] for one in rounds
    ]
    names = [stage.replace("_", " ") for stage in STAGES]
    chart = Chart("seconds", "Seconds by stage", ["round", *names], rows, names, "stacked", "seconds")
    steps = [_steps_a_second(one, config) for one in rounds]
    chart.columns.append("agent steps a second")
    for row, pace_ in zip(rows, steps, strict=True):
        row.append(pace_)
    return chart


# ---------------------------------------------------------------------------------- the parts


def _by_round(
    id_: str, title: str, rounds: list[dict[str, Any]], stage: str, names: dict[str, str], unit: str
) -> Chart:
    keys = list(names.values())
    rows: list[list[Cell]] = [[one["number"], *(_metric(one, stage, key) for key in keys)] for one in rounds]
    return Chart(id_, title, ["round", *names], rows, list(names), unit=unit)


def _metric(round_: dict[str, Any], stage: str, key: str) -> float | None:
    value = round_["metrics"].get(stage, {}).get(key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _true(round_: dict[str, Any]) -> float | None:
    return float(round_["evaluation"]["mean"]) if round_["evaluation"] else None


def _places(given: list[Answer]) -> tuple[str, ...]:
    """Return the places at which clips were shown; all comparisons of an experiment have as many."""
    return answers.places(len(given[0].shown) if given else 2)


def _steps_a_second(round_: dict[str, Any], config: ExperimentConfig) -> float | None:
    """Return how many environment steps the agent's training made a second, its evaluation counted in."""
    last = round_["number"] == config.rounds
    steps = (config.agent.final_steps if last else None) or config.agent.total_steps
    won = [
        one for one in round_["attempts"] if one["stage"] == "training_agent" and one["state"] == "succeeded"
    ]
    if not won or not won[0]["first_step_at"]:
        return None
    seconds = (won[0]["ended_at"] - won[0]["first_step_at"]).total_seconds()
    return steps / seconds if seconds > 0 else None
