"""A job names its inputs, is the same for every try, and holds nothing that its trainer must not know."""

import pytest

from shared.assignments import job_for
from shared.database import Database
from shared.jobs import CollectJob, TrainAgentJob, TrainRewardJob
from shared.models import Experiment, Preference
from shared.states import ExperimentState
from shared.transitions import StaleState
from tests import core


def test_each_job_names_its_inputs(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    teacher = core.create_labeler(database, "oracle")
    jobs = []
    for _ in range(2):
        for _ in range(3):
            with database.read() as session:
                jobs.append(job_for(session, attempt_id, "/logs"))
            hints = core.work(database, attempt_id)
            if not hints and core.label_everything(database, experiment_id, teacher):
                hints = core.close(database, core.newest_round(database, experiment_id).id)
            attempt_id = hints[0] if hints else 0
    one, two, three, four, five, six = jobs
    assert isinstance(one, CollectJob)
    assert isinstance(four, CollectJob)
    assert isinstance(two, TrainRewardJob)
    assert isinstance(five, TrainRewardJob)
    assert isinstance(three, TrainAgentJob)
    assert isinstance(six, TrainAgentJob)
    assert (one.agent, one.reward_model, two.agent, two.reward_model, three.agent) == (None,) * 5
    assert three.reward_model.key == f"{two.attempt_id}/reward_model"
    assert four.reward_model == five.reward_model == three.reward_model
    assert four.agent is not None
    assert four.agent == five.agent == six.agent
    assert four.agent.key == f"{three.attempt_id}/agent"
    assert six.reward_model.key == f"{five.attempt_id}/reward_model"
    assert (len(two.labels), len(five.labels)) == (3, 6)
    assert five.labels[:3] == two.labels
    assert len({job.prefix for job in jobs}) == len({job.seed for job in jobs}) == 6
    assert one.log_dir == "/logs/cartpole/round-0001/collecting"


def test_another_try_has_the_same_seed_and_a_prefix_of_its_own(database: Database) -> None:
    _, first = core.create(database)
    core.claim(database, first)
    (second,) = core.fail(database, first)
    with database.read() as session:
        jobs = [job_for(session, attempt_id, None) for attempt_id in (first, second)]
    assert jobs[0].seed == jobs[1].seed
    assert jobs[0].prefix != jobs[1].prefix
    assert jobs[0].prefix.endswith("/")  # a folder of its own


def test_preferences_changed_by_hand_after_the_freeze_are_noticed(database: Database) -> None:
    experiment_id, round_id = core.to_labeling(database)
    teacher = core.create_labeler(database, "oracle")
    (preference_id, *_) = core.label_everything(database, experiment_id, teacher)
    (reward,) = core.close(database, round_id)
    with database.write() as session:
        session.get_one(Preference, preference_id).ranks = [0, 0]
    with database.read() as session, pytest.raises(StaleState, match="changed preferences by hand"):
        job_for(session, reward, None)


def test_a_job_holds_nothing_of_true_returns_or_judgements(database: Database) -> None:
    experiment_id, round_id = core.to_labeling(database)
    core.label_everything(database, experiment_id, core.create_labeler(database, "oracle"))
    (reward,) = core.close(database, round_id)
    (agent,) = core.work(database, reward)
    (collecting,) = core.work(database, agent, true_return=123456.0)
    with database.read() as session:
        for attempt_id in (reward, agent, collecting):
            text = repr(job_for(session, attempt_id, None))
            assert "123456" not in text
            assert "123455" not in text
            assert "judgement" not in text
    with database.write() as session:
        assert session.get_one(Experiment, experiment_id).state == ExperimentState.RUNNING
