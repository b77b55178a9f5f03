"""Teachers: simulated labelers that answer through the public HTTP API like any person.

The six kinds are those of B-Pref (Lee et al. 2021, "B-Pref: Benchmarking Preference-Based Reinforcement
Learning", section 3). Each is the oracle with one weakness, applied once:

    oracle   prefers the clip with the larger score, the sum of its judgement over its steps
    noisy    prefers clip a with probability sigmoid(β (score_a − score_b)), in units of the round's spread
    mistake  answers the wrong way round with probability ε
    skip     calls a pair incomparable when both scores are among the round's worst share ε
    myopic   discounts the judgement of earlier steps by γ for each step before the last
    equal    calls it a tie when the scores differ by less than ε times the round's spread
    coin     flips a coin; not of B-Pref: the control that shows that the labels do the work

More than two clips they rank in the same manner: by their scores, equal scores tied. `noisy` draws the best
with weights exp(β score), then the next among those left, and so on (Plackett and Luce). `mistake` turns the
whole ranking round, so that any two clips are the wrong way round with probability ε. `skip` refuses when all
scores are among the worst. `equal` goes down from the best clip and ties with it what lies nearer than its
threshold; the first that does not is the best of the next tie. `coin` draws any order.

B-Pref's thresholds are a share of the policy's average return, which means nothing when a score may be
negative, so "spread" here is the standard deviation of the scores of the round's clips. B-Pref's skipped
query is used up, so it is stored here as incomparable rather than given back.

What a teacher judges by comes from an address that only the teachers' credential opens. A teacher's answer
depends on its seed, the round and the clips, never on the order or the time in which comparisons reach it.
"""

import math
import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import httpx

from shared.jobs import seed_for

KINDS = ("oracle", "noisy", "mistake", "skip", "myopic", "equal", "coin")
ENDED = ("finished", "abandoned")
POLL_S, POLL_MOST_S = 0.05, 0.25  # between two looks for comparisons: the first, and after a long wait


@dataclass(frozen=True)
class Teacher:
    """How a teacher answers."""

    kind: str = "oracle"  # one of KINDS
    error_rate: float = 0.1  # ε of mistake, skip and equal
    rationality: float = 1.0  # β of noisy
    discount: float = 0.9  # γ of myopic
    seed: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no teacher {self.kind!r}; the kinds are {', '.join(KINDS)}")
        if not 0 <= self.error_rate <= 1 or not 0 < self.discount <= 1 or self.rationality <= 0:
            raise ValueError("error rate and discount must lie between 0 and 1, rationality above 0")


def score(teacher: Teacher, judgement: list[float]) -> float:
    """Return a clip's score: the sum of its judgement, which only `myopic` discounts towards the start."""
    gamma = teacher.discount if teacher.kind == "myopic" else 1.0
    last = len(judgement) - 1
    return math.fsum(value * gamma ** (last - step) for step, value in enumerate(judgement))


def answer(
    teacher: Teacher, round_number: int, judgements: list[list[float]], *clips: int
) -> list[int] | None:
    """Return the ranks of `clips` (0 is the best, equal ranks are a tie), None for incomparable.

    `judgements` holds the judgement of every clip of the round; `clips` are places in it.
    """
    order = sorted(clips)  # in whichever order they are shown, the same draws decide on them
    all_scores = [score(teacher, judgement) for judgement in judgements]
    scores = [all_scores[clip] for clip in order]
    spread = statistics.pstdev(all_scores) or 1.0
    draw = random.Random(seed_for(teacher.seed, teacher.kind, round_number, *order))
    if teacher.kind == "skip":
        worst = sorted(all_scores)[: math.ceil(teacher.error_rate * len(all_scores))]
        if worst and max(scores) <= worst[-1]:
            return None
    if teacher.kind in ("coin", "noisy"):
        rationality = teacher.rationality / spread if teacher.kind == "noisy" else 0.0
        ranks = drawn([rationality * one for one in scores], draw)
    else:
        ranks = ranked(scores, teacher.error_rate * spread if teacher.kind == "equal" else 0.0)
        if teacher.kind == "mistake" and draw.random() < teacher.error_rate:
            ranks = [max(ranks) - rank for rank in ranks]
    return [ranks[order.index(clip)] for clip in clips]


def ranked(scores: list[float], near: float) -> list[int]:
    """Return ranks by score; what equals the best of a tie, or is nearer to it than `near`, belongs to it."""
    ranks = [0] * len(scores)
    best, rank = max(scores), 0
    for clip in sorted(range(len(scores)), key=lambda clip: -scores[clip]):
        if scores[clip] != best and best - scores[clip] >= near:
            best, rank = scores[clip], rank + 1
        ranks[clip] = rank
    return ranks


def drawn(worths: list[float], draw: random.Random) -> list[int]:
    """Return ranks drawn as Plackett and Luce have it: again and again the best of those left."""
    ranks, left = [0] * len(worths), list(range(len(worths)))
    for rank in range(len(worths) - 1):
        most = max(worths[clip] for clip in left)
        weights = [math.exp(worths[clip] - most) for clip in left]
        point = draw.random() * math.fsum(weights)
        chosen = next((i for i, upto in enumerate(accumulate(weights)) if point < upto), len(left) - 1)
        ranks[left.pop(chosen)] = rank
    ranks[left[0]] = len(worths) - 1
    return ranks


@dataclass
class Lesson:
    """A teacher at work on one experiment of a running system."""

    base_url: str
    experiment: str
    teacher: Teacher
    teacher_token: str = field(repr=False)
    name: str = ""
    most_labels: int | None = None  # answers after which the teacher stops; None: until the experiment ends

    def __post_init__(self) -> None:
        self.name = self.name or f"{self.teacher.kind}-{self.teacher.seed}"


def teach(
    lesson: Lesson,
    on_answer: Callable[[int, str], None] = lambda given, preference_id: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Answer until the experiment ends or the lesson's labels are spent; return how many were given.

    `on_answer` hears of each answer that was taken: how many there are now, and its id. A server that is away
    for a while is waited for: every answer is sent again under its own id until
    taken.
    httpx.HTTPStatusError if the server refuses the credential or does not know the experiment.
    """
    given = 0
    with httpx.Client(base_url=lesson.base_url, timeout=30.0) as client:
        joined = _send(client, "POST", "/api/labelers", lesson, {"name": lesson.name, "kind": "teacher"})
        client.headers["Authorization"] = f"Bearer {joined['token']}"
        judgements: dict[int, dict[int, list[float]]] = {}  # round → clip → judgement
        numbers: dict[str, int] = {}  # batch → round
        for comparison in _comparisons(client, lesson, should_stop):
            batch = comparison["batch"]
            if batch not in numbers:
                path = f"/api/teacher/comparisons/{comparison['id']}"
                numbers[batch] = _send(client, "GET", path, lesson)["round"]
            number = numbers[batch]
            if number not in judgements:
                path = f"/api/teacher/experiments/{lesson.experiment}/rounds/{number}"
                clips = _send(client, "GET", path, lesson)["clips"]
                judgements = {number: {clip["id"]: clip["judgement"] for clip in clips}}
            known = judgements[number]
            places = {clip_id: place for place, clip_id in enumerate(known)}
            shown = [places[clip["id"]] for clip in comparison["clips"]]
            ranks = answer(lesson.teacher, number, list(known.values()), *shown)
            body = {"comparison": comparison["id"], "ranks": ranks, "seconds": None}
            preference_id = str(uuid.uuid4())
            if (
                _send(client, "PUT", f"/api/preferences/{preference_id}", lesson, body, refusable=True)
                is None
            ):
                continue  # somebody else was faster: not an answer of ours
            given += 1
            on_answer(given, preference_id)
            if lesson.most_labels is not None and given >= lesson.most_labels:
                break
    return given


def _comparisons(
    client: httpx.Client, lesson: Lesson, should_stop: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """Yield comparison after comparison, waiting while trainers work, until the experiment ends."""
    path = f"/api/experiments/{lesson.experiment}"
    pause_s = POLL_S
    while not should_stop():
        batch = _send(client, "POST", f"{path}/claims", lesson, {"count": 10})
        yield from batch["comparisons"]
        if batch["comparisons"]:
            pause_s = POLL_S
        elif batch["experiment_state"] in ENDED:
            return
        else:
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, POLL_MOST_S)


def _send(
    client: httpx.Client,
    method: str,
    path: str,
    lesson: Lesson,
    body: dict[str, Any] | None = None,
    refusable: bool = False,
) -> Any:
    """Send a request, again and again while the server cannot be reached or says that it is in trouble."""
    pause_s = 0.1
    headers = {"X-Teacher-Token": lesson.teacher_token}
    while True:
        try:
            response = client.request(method, path, json=body, headers=headers)
        except httpx.TransportError:
            response = None
        if response is not None and response.status_code < 500:
            if refusable and response.status_code == httpx.codes.CONFLICT:
                return None
            response.raise_for_status()
            return response.json()
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 5.0)
