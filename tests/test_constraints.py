"""constraints.txt names the version of everything that pyproject.toml leads to, and no registry."""

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
APART = ("trackio", "wandb")  # extras that the ordinary environment goes without
BY_PLATFORM = re.compile(r"nvidia-.*|cuda-.*|triton")  # what torch's builds for GPUs bring along


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def needed() -> dict[str, str]:
    """Return name and version of all that is installed for the project, its trainers and its tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [lines for name, lines in project["optional-dependencies"].items() if name not in APART]
    waiting = [Requirement(line) for line in sum(extras, project["dependencies"])]
    found: dict[str, str] = {}
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        package = distribution(requirement.name)
        found[canonicalize_name(requirement.name)] = package.version
        for line in package.requires or []:
            inner = Requirement(line)
            chosen = requirement.extras or {""}
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in chosen):
                waiting.append(inner)
    return found


def test_a_line_is_a_name_and_a_version() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line)


def test_everything_that_gets_installed_is_there_and_as_tested() -> None:
    told = constraints()
    for name, version in needed().items():
        if not BY_PLATFORM.fullmatch(name):
            assert name in told, f"add {name}=={version} to constraints.txt"
            assert Version(told[name]).public == Version(version).public, name
