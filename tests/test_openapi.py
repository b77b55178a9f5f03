"""The API's description is complete and true: examples, problems, pages, and what is really answered."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.labeler.examples import CONFIG, EXAMPLES
from services.labeler.openapi import MORE
from shared import config
from shared.database import migrate
from shared.settings import secrets
from tests import scenes
from tests.admin_scene import live_through
from tests.described import check_problem, document, of, operations, wrong
from tests.served import Served

CALLS = operations()
NAME, NUMBERS = "shapes", ("clip_id", "comparison_id", "labeler_id", "invitation_id", "number")
ODD = {
    "name": ("No Such!", "nothing", "x" * 64),
    "action": ("explode", "retry"),
    "preference_id": ("1", "0b0c6b3e-6a83-4a2b-8f63-f5a7c4b6a111"),
    "answer_id": ("1", "0b0c6b3e-6a83-4a2b-8f63-f5a7c4b6a111"),
    **dict.fromkeys(NUMBERS, ("0", "abc", str(2**31), "99999")),
}
UNKNOWN = {"PUT /api/preferences/{preference_id}": {"comparison": 99999}}
LISTS = (
    "/api/admin/actions",
    "/api/admin/invitations",
    "/api/admin/labelers",
    "/api/admin/experiments",
    "/api/experiments",
)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two rounds of an experiment with two labelers, on SQLite; nothing here asks what the database is."""
    folder = tmp_path_factory.mktemp("lived")
    url = f"sqlite:///{folder / 'lockstep.db'}"
    migrate(url)
    settings = scenes.settings_for(folder, url, port=0, log_level="WARNING", import_mib=1)
    kept = secrets(settings)
    header = {"Authorization": f"Bearer {kept.admin_token}"}
    with scenes.Scene(settings, labels={"labels_per_comparison": 2}) as scene:
        scene.collect()
        with (
            scenes.serve(settings) as address,
            httpx.Client(base_url=address) as ann,
            httpx.Client(base_url=address) as bob,
            httpx.Client(base_url=address, headers=header) as admin,
        ):
            live_through(scene, lambda: httpx.Client(base_url=address), 2)
            scene.collect()
            scenes.join(ann, "ann")
            for name in ("eve", "joe", "zoe"):
                admin.post("/api/admin/invitations", json={"name": name}).raise_for_status()
            one = scene.claims(ann, 1)["comparisons"][0]
            scenes.put_answer(ann, one["id"], [0, 1]).raise_for_status()
            for action in ("pause", "resume"):
                admin.post(f"/api/admin/experiments/{NAME}/{action}").raise_for_status()
            yield Served(scene, address, ann, bob, admin, {"X-Teacher-Token": kept.teacher_token})


def is_stream(call: tuple[str, str]) -> bool:
    return "text/event-stream" in CALLS[call]["responses"].get("200", {}).get("content", {})


def name_of(call: tuple[str, str]) -> str:
    return " ".join(call)


def test_every_call_says_what_it_does_and_shows_it() -> None:
    for (method, path), call in CALLS.items():
        place = f"{method} {path}"
        assert call.get("summary"), place
        assert call.get("description"), place
        told = [("body", body) for body in call.get("requestBody", {}).get("content", {}).values()]
        told += [
            (status, content)
            for status, answer in call["responses"].items()
            for kind, content in answer.get("content", {}).items()
            if kind == "application/json"
        ]
        for what, content in told:
            assert "example" in content, f"{place}, {what}: give examples.py an example"
            assert not wrong(content["schema"], content["example"]), f"{place}, {what}"
        for parameter in call.get("parameters", ()):
            if parameter["name"] in ("after", "before", "limit"):
                assert parameter.get("description"), f"{place}: {parameter['name']}"
        assert {"421", "500"} <= set(call["responses"]), place
    config.parse(CONFIG)


def test_no_example_and_no_exception_is_left_of_what_there_is_no_more() -> None:
    schemas = set(document()["components"]["schemas"])
    places = {name_of(call) for call in CALLS}
    for name in EXAMPLES:
        assert name in schemas or name.removesuffix(" body") in places, name
    assert set(MORE) <= places
    for name, shape in document()["components"]["schemas"].items():
        for example in shape.get("examples", ()):
            assert not wrong({"$ref": f"#/components/schemas/{name}"}, example), name


def fill(path: str, **odd: str) -> str:
    values = {"name": NAME, "action": "pause", "preference_id": ODD["preference_id"][1]}
    values["answer_id"] = ODD["answer_id"][1]
    return path.format(**{**dict.fromkeys(NUMBERS, "1"), **values, **odd})


def bad_calls(method: str, path: str, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield ways to make a call badly, as arguments of httpx."""
    body = {}
    for kind, content in call.get("requestBody", {}).get("content", {}).items():
        if kind != "application/json":
            yield {"url": fill(path), "params": {"name": "new"}, "content": b"x" * (1 << 20)}
            yield {"url": fill(path), "params": {"name": "new"}, "content": b"x" * ((1 << 20) + 1)}
            continue
        body = {"json": content["example"]}
        yield {"url": fill(path), "json": {**content["example"], **UNKNOWN.get(name_of((method, path)), {})}}
    for name, values in ODD.items():
        if "{" + name + "}" in path:
            for value in values:
                yield {"url": fill(path, **{name: value}), **body}
    for parameter in call.get("parameters", ()):
        if parameter["in"] == "query":
            for value in ("-1", "abc", str(2**31), "\x00"):
                yield {"url": fill(path), "params": {parameter["name"]: value}}
    if "requestBody" in call:
        for content in (
            b"",
            b"{",
            b"[]",
            b"null",
            b'{"no": "such"}',
            b"\xff\xfe{}",
            b'"' + b"x" * 70_000 + b'"',
        ):
            yield {"url": fill(path), "content": content, "headers": {"Content-Type": "application/json"}}
    yield {"url": fill(path), "headers": {"Host": "elsewhere.example.org"}}
    if method != "GET":
        yield {"url": fill(path), "headers": {"Origin": "https://elsewhere.example.org"}}


@pytest.mark.parametrize("call", CALLS, ids=name_of)
def test_whatever_is_asked_badly_is_answered_by_a_declared_problem(
    lived: Served, call: tuple[str, str]
) -> None:
    method, path = call
    if is_stream(call):
        return  # it has no end; what keeps it from beginning is what keeps its neighbours
    seen = set()
    nobody = httpx.Client(base_url=lived.url)
    who = {"admin": lived.admin, "labeler": lived.ann}
    keys = [key for one in CALLS[call].get("security", ()) for key in one]
    with nobody:
        asking = who.get(keys[0] if keys else "", nobody)
        header = lived.teacher_header if keys == ["teacher"] else {}
        for bad in bad_calls(method, path, CALLS[call]):
            bad["headers"] = header | bad.get("headers", {})
            answer = asking.request(method, **bad)
            if answer.status_code >= 400:
                seen.add(check_problem(answer)["status"])
        if (keys and keys != ["labeler"]) or path == "/api/me":
            seen.add(check_problem(nobody.request(method, fill(path)))["status"])
            assert 401 in seen
    declared = {int(status) for status in CALLS[call]["responses"]}
    assert seen >= declared & {421, 413 if "requestBody" in CALLS[call] else 421}
    assert seen >= declared & ({404, 422} if "{" in path else set()), path
    assert 500 not in seen
    lived.admin.post(f"/api/admin/experiments/{NAME}/resume")


def test_what_is_no_call_at_all_is_a_problem_too(lived: Served) -> None:
    for method, path, status in (("GET", "/api/nothing", 404), ("PATCH", "/api/admin/presets", 405)):
        assert check_problem(lived.admin.request(method, path))["status"] == status


@pytest.mark.parametrize("call", [call for call in CALLS if call[0] == "GET"], ids=name_of)
def test_an_answer_is_what_its_description_says(lived: Served, call: tuple[str, str]) -> None:
    path = call[1]
    if is_stream(call):
        return
    client = lived.ann if path in ("/api/me", "/api/experiments/{name}/preferences") else lived.admin
    if path == "/api/clips/{clip_id}.mp4":
        client = lived.ann
    answer = client.get(fill(path), headers=lived.teacher_header if "/teacher/" in path else {})
    assert answer.status_code == 200, answer.text
    operation = of(answer)
    assert operation is CALLS[call]
    ((kind, content),) = operation["responses"]["200"]["content"].items()
    assert answer.headers["content-type"].startswith(kind)
    if kind == "application/json":
        assert not wrong(content["schema"], answer.json())


@pytest.mark.parametrize(
    "path",
    [
        *LISTS,
        f"/api/admin/experiments/{NAME}",
        f"/api/admin/experiments/{NAME}/events",
        f"/api/admin/experiments/{NAME}/history",
        f"/api/admin/experiments/{NAME}/rounds/1/comparisons",
    ],
)
def test_every_long_list_comes_in_pages_that_link_to_the_next(lived: Served, path: str) -> None:
    for name in ("second", "third"):
        body = {"config": CONFIG | {"name": name}}
        assert lived.admin.post("/api/admin/experiments", json=body).status_code in (201, 409)

    def rows(answer: httpx.Response) -> list[Any]:
        body = answer.json()
        if isinstance(body, dict):
            body = body.get("comparisons") or body["rounds"][::-1]
        return list(body)

    whole = lived.admin.get(path, params={"limit": 100})
    assert not whole.links
    found, following = [], f"{path}?limit=1"
    while following:
        answer = lived.admin.get(following)
        answer.raise_for_status()
        assert len(rows(answer)) == 1
        found += rows(answer)
        following = answer.links.get("next", {}).get("url", "")
    assert len(found) >= 3
    for one in (*found, *(others := rows(whole))):
        for key in ("seconds", "timeline"):  # of a round that goes on
            one.pop(key, None)
    assert found == others
    operation = of(whole)
    assert operation
    assert operation["responses"]["200"]["headers"]["Link"]
