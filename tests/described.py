"""The API's own description, held against what it really answers."""

import copy
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import httpx
from jsonschema import Draft202012Validator

from services.labeler.app import create_app
from shared.settings import Settings

PROBLEM = "application/problem+json"


@cache
def document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return create_app(Settings(_env_file=None, data_dir=Path(folder))).openapi()


def operations() -> dict[tuple[str, str], dict[str, Any]]:
    """Return every call by its method and path."""
    return {
        (method.upper(), path): operation
        for path, calls in document()["paths"].items()
        for method, operation in calls.items()
    }


def wrong(schema: dict[str, Any], value: Any) -> list[str]:
    """Return what keeps `value` from being what `schema` says, fields that it does not name included."""
    validator = Draft202012Validator(schema | {"components": _strict()})
    return [f"{one.json_path}: {one.message}" for one in validator.iter_errors(value)]


@cache
def _strict() -> dict[str, Any]:
    parts = copy.deepcopy(document()["components"])
    for shape in parts["schemas"].values():
        if "properties" in shape:
            shape["additionalProperties"] = False
    return {"schemas": parts["schemas"]}


def of(answer: httpx.Response) -> dict[str, Any] | None:
    """Return the operation that answered; None for a page, or what no operation is."""
    path = answer.request.url.path
    for (method, template), operation in operations().items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template))
        if method == answer.request.method and re.fullmatch(pattern, path):
            return operation
    return None


def check_problem(answer: httpx.Response) -> dict[str, Any]:
    """Check that an error is a problem document, and one that its operation declares; return it."""
    assert answer.headers["content-type"] == PROBLEM, f"{answer.request.url}: {answer.text[:200]}"
    problem: dict[str, Any] = answer.json()
    assert not wrong({"$ref": "#/components/schemas/Problem"}, problem)
    assert problem["status"] == answer.status_code
    operation = of(answer)
    if operation is not None:
        place = f"{answer.request.method} {answer.request.url.path}"
        declared = operation["responses"].get(str(answer.status_code))
        assert declared, f"{place} does not declare {problem}: add {answer.status_code} to openapi.MORE"
        part = document()["components"]["responses"][declared["$ref"].rpartition("/")[2]]
        assert part["content"] == {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return problem
