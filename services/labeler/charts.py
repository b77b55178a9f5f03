"""What the admin page draws: a chart is a table first, with sentences about it; `figures.py` draws it."""

import statistics as basic
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from services.labeler import answers, learning_charts, report, statistics
from services.labeler.answers import Answer, Repeat
from services.labeler.chart import Cell, Chart
from services.labeler.context import Told
from shared.config import ExperimentConfig
from shared.models import Experiment

WIDTHS_MIN = (1, 5, 15, 60, 360, 1440, 10_080)  # minutes of a bar in "labels a minute"
MOST_BARS = 200
SURE = 0.05  # below this a deviation is called unlikely to be chance


def charts(session: Session, experiment: Experiment, told: Mapping[int, Told] | None = None) -> list[Chart]:
    """Return every chart of an experiment, also those that have nothing to show yet.

    `told` holds by round id what the round's reward model says of the held-out comparisons.
    """
    config = ExperimentConfig.model_validate(experiment.config)
    given = answers.standing(session, experiment.id)
    # Round 0, the labels it began with, was not trained on its own and was given at another time.
    rounds = [one for one in report.report(session, experiment)["rounds"] if one["number"] > 0]
    here = [one for one in given if one.round > 0]
    found = [
        learning_charts.returns(rounds), pace(here), answer_mix(given), agreement(given),
        *consistency(answers.repeats(session, experiment.id), config.labels.repeats),
        learning_charts.reward_model(rounds, config.labels.clips_per_comparison),
        learning_charts.accuracy(rounds),
        learning_charts.calibration(session, told or {}, here),
        *learning_charts.curves(session, experiment.id), learning_charts.agent(rounds),
        learning_charts.seconds(rounds), learning_charts.throughput(rounds, config),
    ]  # fmt: skip
    for chart in found:
        if not chart.known:
            chart.says = [chart.empty]
        elif chart.kind == "panels":  # none for what was never reported; the table says so
            chart.drawn = [name for name in chart.drawn if chart.has(name)]
    return found


def pace(given: list[Answer]) -> Chart:
    """Labels a minute."""
    chart = Chart(
        "pace", "Labels a minute", ["from", "labels", "a minute"], [], ["a minute"], "bars", "labels a minute"
    )
    if not given:
        chart.empty = "Nobody has answered yet."
        return chart
    span_min = (given[-1].at - given[0].at).total_seconds() / 60
    width = next((one for one in WIDTHS_MIN if span_min / one < MOST_BARS), WIDTHS_MIN[-1])
    bars = Counter(int(answer.at.timestamp() // (60 * width)) for answer in given)
    chart.bar_min = width
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
    chart.empty = "Nobody has answered yet."
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
            f"if sides did not matter, as uneven a share would come up with probability {p:.3f}, so "
            + ("hardly by chance." if p < SURE else "this may well be chance.")
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
        chart.empty = (
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
    names = statistics.nominal_alpha([list(one.values()) for one in answers.units(given, incomparable=True)])
    if names is not None:
        chart.says.append(f"With the answers as mere names, can't compare among them, it is {names:.2f}.")
    return chart


def consistency(repeats: list[Repeat], share: float) -> list[Chart]:
    """How far each labeler agrees with themselves; no chart where nobody is asked twice."""
    if not repeats and not share:
        return []
    found = statistics.self_agreement((one.labeler, one.first, one.again) for one in repeats)
    asked = Counter(one.labeler for one in repeats)
    rows: list[list[Cell]] = [
        [name, asked[name], same, of, same / of if of else None] for name, (same, of) in found.items()
    ]
    columns = ["labeler", "asked twice", "same order", "orders", "same answer"]
    chart = Chart("consistency", "Agreement with oneself", columns, rows, ["same answer"], "bars", "share")
    if not repeats:
        chart.empty = "Nobody has answered a comparison twice yet."
        return [chart]
    same, of = (sum(column) for column in zip(*found.values(), strict=True))
    chart.says.append(
        f"Asked once more, with the clips in another order, labelers answered as before in {same} of {of} "
        f"cases ({same / of:.0%}). The second answers are no labels."
    )
    return [chart]


def _places(given: list[Answer]) -> tuple[str, ...]:
    """Return the places at which clips were shown; all comparisons of an experiment have as many."""
    return answers.places(len(given[0].shown) if given else 2)
