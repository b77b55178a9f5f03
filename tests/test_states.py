"""The table of states: complete, without dead ends, small, and free of anything but the standard library."""

import ast
import sys
from pathlib import Path

import pytest

from shared import states
from shared.states import AttemptState, ExperimentState, RoundState

SOURCE = Path(states.__file__)


def following(state: RoundState) -> set[RoundState]:
    """The states one event away."""
    found: set[RoundState] = set()
    for row in states.ROUND_TABLE:
        if state in row.sources:
            found |= {row.target} if row.target else set(states.WORKER_STAGES)
    return found


def reachable(start: RoundState) -> set[RoundState]:
    seen, edge = {start}, [start]
    while edge:
        new = following(edge.pop()) - seen
        seen |= new
        edge += new
    return seen


def test_every_round_state_is_reachable() -> None:
    assert reachable(RoundState.COLLECTING) == set(RoundState)


@pytest.mark.parametrize("state", list(RoundState))
def test_only_done_ends_a_round(state: RoundState) -> None:
    assert (not following(state)) == (state == RoundState.DONE)
    assert RoundState.DONE in reachable(state)


def test_a_round_passes_its_stages_in_order() -> None:
    state = RoundState.COLLECTING
    passed = [state]
    for event in ("collected", "labeled", "reward_trained", "agent_trained"):
        state = states.target(event, state)
        passed.append(state)
    assert tuple(passed) == (*states.STAGES, RoundState.DONE)


def test_what_is_not_in_the_table_is_refused() -> None:
    allowed = {(row.event, source) for row in states.ROUND_TABLE for source in row.sources}
    events = {row.event for row in states.ROUND_TABLE}
    refused = 0
    for event in events | {"teleported"}:
        for state in RoundState:
            if (event, state) not in allowed:
                with pytest.raises(ValueError, match="cannot be"):
                    states.target(event, state)
                refused += 1
    assert refused == (len(events) + 1) * len(RoundState) - len(allowed)


def test_a_retry_leads_back_to_the_stage_that_failed_and_nowhere_else() -> None:
    for stage in states.WORKER_STAGES:
        assert states.target("gave_up", stage) == RoundState.FAILED
        assert states.target("retried", RoundState.FAILED, stage) == stage
    for other in (None, RoundState.LABELING, RoundState.DONE, RoundState.FAILED):
        with pytest.raises(ValueError, match="cannot be retried"):
            states.target("retried", RoundState.FAILED, other)


def test_no_state_and_event_has_two_targets() -> None:
    pairs = [(row.event, source) for row in states.ROUND_TABLE for source in row.sources]
    assert len(pairs) == len(set(pairs))


def test_each_worker_stage_has_a_queue_and_an_event_that_completes_it() -> None:
    assert set(states.QUEUES) == set(states.COMPLETES) == set(states.WORKER_STAGES)
    for stage, event in states.COMPLETES.items():
        assert states.target(event, stage) in following(stage)


def test_attempts_end_and_stay_ended() -> None:
    assert set(states.ATTEMPT_TABLE) == set(states.LIVE_ATTEMPTS)
    ends = {state for targets in states.ATTEMPT_TABLE.values() for state in targets}
    assert ends | {AttemptState.OFFERED} == set(AttemptState)


def test_experiments_end_and_stay_ended() -> None:
    assert set(states.EXPERIMENT_TABLE) == {ExperimentState.RUNNING, ExperimentState.PAUSED}
    for targets in states.EXPERIMENT_TABLE.values():
        assert {ExperimentState.FINISHED, ExperimentState.ABANDONED} <= set(targets)


def test_the_diagram_draws_each_row_and_no_other_arrow() -> None:
    arrows = {line.strip() for line in states.mermaid().splitlines() if "-->" in line and "[*]" not in line}
    wanted = {
        f"{source} --> {target}: {row.event}"
        for row in states.ROUND_TABLE
        for source in row.sources
        for target in ((row.target,) if row.target else states.WORKER_STAGES)
    }
    assert arrows == wanted
    assert "[*] --> collecting" in states.mermaid()
    assert "done --> [*]" in states.mermaid()


def test_the_table_stays_small_and_needs_only_the_standard_library() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    assert imported <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("state", [*RoundState, *AttemptState, *ExperimentState])
def test_states_fit_their_columns(state: str) -> None:
    assert len(state) <= 20
