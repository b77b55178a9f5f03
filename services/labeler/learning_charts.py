"""The charts of what was learned: the agent's returns, the reward model's quality, the curves of training."""

import math
from collections.abc import Mapping
from itertools import pairwise
from statistics import stdev
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler import statistics
from services.labeler.answers import Answer
from services.labeler.chart import Cell, Chart
from services.labeler.context import Told
from shared.config import ExperimentConfig
from shared.models import Attempt, Clip, Comparison, Measurement, Round
from shared.states import STAGES, AttemptState, RoundState

CURVE_ROUNDS, CURVE_ROWS = 30, 400  # of the newest rounds, and of the table in all
BINS = 10  # of predicted probability
SURELY = 2.0  # standard errors: a smaller fall of the true return may be chance
FEW = 30  # answers below which a share swings by chance
PPO = ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac", "explained_variance")


def returns(rounds: list[dict[str, Any]]) -> Chart:
    """Predicted against true return, and whether the one still follows the other."""
    rows: list[list[Cell]] = [
        [one["number"], metric(one, "training_agent", "charts/predicted_return"), _true(one)]
        for one in rounds
    ]
    known = [(n, p, t) for n, p, t in rows if isinstance(p, float) and isinstance(t, float)]
    chart = Chart("returns", "Predicted and true return", ["round", "predicted", "true"], rows,
                  ["predicted", "true"], "panels", "mean return of an episode")  # fmt: skip
    chart.empty = "The first figures come when the first round is done."
    r = statistics.correlation([p for _, p, _ in known], [t for _, _, t in known])
    chart.says.append(
        "Their correlation needs three rounds."
        if r is None
        else f"Their correlation over the rounds is {r:.2f}."
    )
    chart.says.append("The predicted return is in the reward model's own unit, which each round sets anew.")
    errors = {one["number"]: _standard_error(one) for one in rounds}
    apart = [
        (n, p0, p1, t0, t1)
        for (before, p0, t0), (n, p1, t1) in pairwise(known)
        if p1 > p0 and t0 - t1 > SURELY * math.hypot(errors[before], errors[n])
    ]
    if apart:
        n, p0, p1, t0, t1 = apart[-1]
        words = (
            f"In round {n} the predicted return rose ({p0:.1f} to {p1:.1f}) while the true return fell "
            f"({t0:.1f} to {t1:.1f})"
        )
        if n == known[-1][0]:
            chart.warning = (
                f"{words}: the agent may have found something that the reward model likes and people would "
                "not. Watch its film; more labels correct it."
            )
        else:
            chart.says.append(f"{words}; since then they have not parted in this way.")
    return chart


def reward_model(rounds: list[dict[str, Any]], clips: int) -> Chart:
    """The reward model's loss, in training and held out, where `clips` are compared at once."""
    guess = math.log(math.factorial(clips))
    names = {"training": "train/loss", "held out": "held_out/loss"}
    chart = _by_round("reward_loss", "Reward model: loss", rounds, "training_reward", names, "nats")
    chart.says.append(f"Of a blind guess the loss is {guess:.2f}. Held-out comparisons are never trained on.")
    chart.empty = "The first figures come when the first reward model is trained."
    return chart


def accuracy(rounds: list[dict[str, Any]]) -> Chart:
    """How often the reward model is right, and how well its probabilities fit."""
    names = {
        "accuracy, training": "train/accuracy",
        "accuracy, held out": "held_out/accuracy",
        "calibration error, held out": "held_out/calibration",
        "answers held out": "held_out/labels",
    }
    title = "Reward model: accuracy and calibration"
    chart = _by_round("reward_accuracy", title, rounds, "training_reward", names, "share")
    chart.drawn = [name for name in chart.drawn if name != "answers held out"]
    few = [row for row in chart.rows if isinstance(row[-1], float) and row[-1] < FEW]
    chart.says.append(
        "The calibration error: how far predicted probabilities lie from how often they came true."
    )
    if few:
        chart.says.append("With fewer than 30 answers held out, the held-out figures swing by chance.")
    chart.empty = "The first figures come when the first reward model is trained."
    return chart


def calibration(session: Session, told: Mapping[int, Told], given: list[Answer]) -> Chart:
    """How often the clip that a round's model held to be better was preferred, by how sure the model was.

    Of held-out comparisons alone, each judged by the model of its own round; a tie counts as half.
    """
    favourites = _favourites(session, told)
    bins: dict[int, list[tuple[float, float]]] = {}
    for answer in given:
        if answer.ranks is None or answer.comparison not in favourites:
            continue
        place, sure = favourites[answer.comparison]
        best = [index for index, rank in enumerate(answer.ranks) if rank == 0]
        won = 1 / len(best) if place in best else 0.0
        bins.setdefault(min(int(sure * BINS), BINS - 1), []).append((sure, won))
    rows: list[list[Cell]] = [
        [sum(sure for sure, _ in some) / len(some), sum(won for _, won in some) / len(some), len(some)]
        for _, some in sorted(bins.items())
    ]
    chart = Chart("calibration", "Reward model: how sure, and how often right",
                  ["predicted probability", "came true", "answers"], rows, ["came true"], "diagonal",
                  "share that came true")  # fmt: skip
    count = sum(len(some) for some in bins.values())
    chart.says.append(
        f"Of {count} answers to held-out comparisons. On the dashed line a model is as sure as it may be; "
        "below it, it is too sure."
    )
    if count < FEW:
        chart.says.append("So few swing by chance.")
    chart.empty = "It needs answers to held-out comparisons, and a reward model trained after them."
    return chart


def curves(session: Session, experiment_id: int) -> list[Chart]:
    """Return PPO's curves and the reward model's, within the rounds; a round under way is drawn so far."""
    labels = {f"losses/{name}": name.replace("_", " ") for name in PPO} | {
        "charts/predicted_reward": "predicted reward", "charts/learning_rate": "learning rate",
    }  # fmt: skip
    ppo = _curve(session, experiment_id, RoundState.TRAINING_AGENT, labels)
    ppo.id, ppo.title = "ppo", "Agent: PPO while it trains"
    ppo.empty = "The curves begin with the first training of the agent."
    objective = {"losses/reward_loss": "training objective"}
    reward = _curve(session, experiment_id, RoundState.TRAINING_REWARD, objective)
    reward.id, reward.title, reward.kind = "reward_curve", "Reward model: loss while it trains", "lines"
    reward.unit = "nats"
    reward.empty = "The curve begins with the first training of the reward model."
    return [reward, ppo]


def agent(rounds: list[dict[str, Any]]) -> Chart:
    """PPO's own figures at the end of each round."""
    names = {name.replace("_", " "): f"losses/{name}" for name in PPO} | {
        "learning rate": "charts/learning_rate"
    }
    chart = _by_round("agent", "Agent: PPO at the end of each round", rounds, "training_agent", names, "")
    chart.kind = "panels"
    chart.empty = "The first figures come when the first round is done."
    return chart


def seconds(rounds: list[dict[str, Any]]) -> Chart:
    """Where the time goes."""
    rows: list[list[Cell]] = [
        [one["number"], *(one["seconds"].get(stage) for stage in STAGES)] for one in rounds
    ]
    names = [stage.replace("_", " ") for stage in STAGES]
    chart = Chart("seconds", "Seconds by stage", ["round", *names], rows, names, "stacked", "seconds")
    chart.says.append("From the moment a stage was entered: waiting for a worker counts.")
    return chart


def throughput(rounds: list[dict[str, Any]], config: ExperimentConfig) -> Chart:
    """How fast the trainers are."""
    rows: list[list[Cell]] = []
    for one in rounds:
        rows.append(
            [
                one["number"],
                _a_second(one, "collecting", config.segments.collect_steps),
                _a_second(one, "training_agent", config.agent_steps(one["number"])),
                _a_second(one, "training_reward", config.reward_model.epochs),
            ]
        )
    columns = ["round", "collecting: steps", "agent: steps", "reward model: epochs"]
    chart = Chart("throughput", "Throughput", columns, rows, columns[1:], "panels", "a second")
    chart.says.append(
        "A second, from a stage's first step to its end: clips, evaluation and film are counted in."
    )
    chart.empty = "The first figures come when the first stage is done."
    return chart


# ---------------------------------------------------------------------------------- the parts


def _by_round(
    id_: str, title: str, rounds: list[dict[str, Any]], stage: str, names: dict[str, str], unit: str
) -> Chart:
    keys = list(names.values())
    rows: list[list[Cell]] = [[one["number"], *(metric(one, stage, key) for key in keys)] for one in rounds]
    return Chart(id_, title, ["round", *names], rows, list(names), unit=unit)


def metric(round_: dict[str, Any], stage: str, key: str) -> float | None:
    """Return a metric of a round's successful attempt at `stage`; None if it is no finite number."""
    return _finite(round_["metrics"].get(stage, {}).get(key))


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _true(round_: dict[str, Any]) -> float | None:
    return float(round_["evaluation"]["mean"]) if round_["evaluation"] else None


def _standard_error(round_: dict[str, Any]) -> float:
    """Return how far a round's mean true return may lie from what more episodes would give."""
    returns = round_["evaluation"]["true_returns"] if round_["evaluation"] else []
    return stdev(returns) / math.sqrt(len(returns)) if len(returns) > 1 else 0.0


def _a_second(round_: dict[str, Any], stage: str, count: int) -> float | None:
    won = [one for one in round_["attempts"] if one["stage"] == stage and one["state"] == "succeeded"]
    if not won or not won[0]["first_step_at"]:
        return None
    took_s = (won[0]["ended_at"] - won[0]["first_step_at"]).total_seconds()
    return count / took_s if took_s > 0 else None


def _curve(session: Session, experiment_id: int, stage: RoundState, labels: dict[str, str]) -> Chart:
    """Return the metrics `labels` of the attempts that succeeded or run, over the rounds in order.

    Across: 2.4 is where 40 % of round 3's training was done.
    """
    wanted = (AttemptState.SUCCEEDED, AttemptState.RUNNING)
    tries = select(Attempt, Round.number).join(Round, Attempt.round_id == Round.id)
    tries = tries.where(
        Round.experiment_id == experiment_id, Attempt.stage == stage, Attempt.state.in_(wanted)
    )
    found = session.execute(tries.order_by(Round.number.desc()).limit(CURVE_ROUNDS)).all()
    numbers = {attempt.id: number for attempt, number in found}
    kept = select(Measurement.attempt_id, Measurement.progress, Measurement.metrics)
    kept = kept.where(Measurement.attempt_id.in_(numbers))
    points = [
        (numbers[attempt_id] - 1 + done, metrics) for attempt_id, done, metrics in session.execute(kept)
    ]
    points += [
        (number, attempt.metrics) for attempt, number in found if attempt.state == AttemptState.SUCCEEDED
    ]
    points.sort(key=lambda point: point[0])
    rows: list[list[Cell]] = [
        [round(across, 3), *(_finite((metrics or {}).get(key)) for key in labels)]
        for across, metrics in points
    ]
    rows = [row for row in rows if any(cell is not None for cell in row[1:])]
    rows = rows[:: max(1, -(-len(rows) // CURVE_ROWS))]
    names = list(labels.values())
    chart = Chart("", "", ["rounds trained", *names], rows, names, "panels")
    chart.says.append("As the workers' heartbeats told it; TensorBoard has every update.")
    return chart


def _favourites(session: Session, told: Mapping[int, Told]) -> dict[int, tuple[int, float]]:
    """Return by held-out comparison its likeliest clip, and how likely its round's model took it to be."""
    query = select(Comparison.id, Comparison.round_id, Comparison.clip_ids)
    rows = session.execute(query.where(Comparison.round_id.in_(told), Comparison.held_out)).all()
    clips = select(Clip.id, Clip.npz_sha256).where(Clip.round_id.in_(told))
    sums = {row[0]: row[1] for row in session.execute(clips)}
    found = {}
    for comparison_id, round_id, clip_ids in rows:
        best = told[round_id].get(tuple(sums[clip_id] for clip_id in clip_ids))
        if best:
            found[comparison_id] = max(enumerate(best), key=lambda one: one[1])
    return found
