"""A result that its round could not go on with is refused, and its attempt can be failed with the reason."""

import pytest

from shared import rounds
from shared.database import Database
from shared.jobs import CollectResult, ComparisonRecord
from shared.results import BadResult
from shared.states import AttemptState, RoundState
from tests import core

BAD = {
    "no comparison": (CollectResult([], []), "nothing to label"),
    "one clip": (CollectResult(core.collected(1).clips, [ComparisonRecord([0], False)]), "two or more"),
    "one clip twice": (
        CollectResult(core.collected(1).clips, [ComparisonRecord([0, 0], False)]),
        "two or more",
    ),
    "no such clip": (CollectResult(core.collected(1).clips, [ComparisonRecord([0, 6], False)]), "of 6 there"),
    "negative": (CollectResult(core.collected(1).clips, [ComparisonRecord([0, -1], False)]), "of 6 there"),
    "other stage": (core.result_for(RoundState.TRAINING_REWARD, 1), "cannot end with a TrainRewardResult"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_result_that_leads_nowhere_is_refused_and_can_be_failed(database: Database, name: str) -> None:
    result, message = BAD[name]
    _, attempt_id = core.create(database)
    core.claim(database, attempt_id)
    with pytest.raises(BadResult, match=message), database.write() as session:
        rounds.complete(session, attempt_id, result)
    assert core.attempt(database, attempt_id).state == AttemptState.RUNNING
    assert len(core.fail(database, attempt_id, message)) == 1


@pytest.mark.parametrize("true_return", [float("nan"), float("inf")])
def test_an_evaluation_needs_finite_returns(database: Database, true_return: float) -> None:
    experiment_id, round_id = core.to_labeling(database)
    core.label_everything(database, experiment_id, core.create_labeler(database, "oracle"))
    (reward,) = core.close(database, round_id)
    (agent,) = core.work(database, reward)
    assert core.claim(database, agent)
    with pytest.raises(BadResult, match="as a finite number"):
        core.complete(database, agent, true_return=true_return)
