"""What the README promises of the two learning files: their length and what they import."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = ("services/agent_trainer/ppo.py", "services/reward_trainer/reward_model.py")
ALLOWED = {"numpy", "torch", "gymnasium", "tyro", "safetensors", "tensorboard", "rich"}


def test_together_they_stay_under_600_lines() -> None:
    assert sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in FILES) < 600


@pytest.mark.parametrize("name", FILES)
def test_they_import_learning_libraries_alone(name: str) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            assert node.module is not None
            if node.module == "services.agent_trainer.envs":  # how it makes environments when run by itself
                continue
            imported.add(node.module.split(".")[0])
    assert imported - sys.stdlib_module_names <= ALLOWED
