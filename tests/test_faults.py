"""A short run of the fault suite, whose full run is `make faults`."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_some_faults_are_survived_and_nothing_is_lost() -> None:
    command = [sys.executable, "-m", "tests.faults", "--faults", "6", "--seed", "3"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    figures = json.loads(answer.stdout.splitlines()[-1])
    assert (figures["faults"], figures["survived"]) == (6, 6)
    assert len(figures["wrong"]) == 6
    assert not any(figures["wrong"].values())
