"""What is answered past FastAPI says the same as FastAPI, and leaves to it what is not in good form."""

import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from tests.scenes import put_answer
from tests.served import Served, reason

CLAIMS = "/api/experiments/shapes/claims"
PASSED_ON = {"Content-Type": "application/json; charset=utf-8"}


@pytest.fixture
def passed_on(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of the calls that FastAPI was asked to answer."""
    asked: list[str] = []
    through = FastAPI.__call__

    async def noted(self: FastAPI, scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope.get("path", ""))
        await through(self, scope, receive, send)

    monkeypatch.setattr(FastAPI, "__call__", noted)
    return asked


def both_ways(client: httpx.Client, method: str, path: str, body: Any) -> Iterator[httpx.Response]:
    content = json.dumps(body)
    for headers in ({"Content-Type": "application/json"}, PASSED_ON):
        yield client.request(method, path, content=content, headers=headers)


def test_both_ways_answer_the_same(served: Served, passed_on: list[str]) -> None:
    quick, slow = both_ways(served.ann, "POST", CLAIMS, {"count": 3})
    assert passed_on == [CLAIMS]
    assert quick.status_code == slow.status_code == 200
    assert quick.content == slow.content
    assert len(quick.json()["comparisons"]) == 3
    headers = [
        {name: value for name, value in one.headers.items() if name != "date"} for one in (quick, slow)
    ]
    assert headers[0] == headers[1]
    body = {"comparison": quick.json()["comparisons"][0]["id"], "ranks": [0, 1], "seconds": 1.5}
    quick, slow = both_ways(served.ann, "PUT", f"/api/preferences/{uuid.uuid4()}", body)
    assert quick.json() == slow.json() == {"given": 1, "wanted": 6}
    assert quick.content == slow.content


@pytest.mark.parametrize("body", [{"count": 0}, {"count": 11}, {}, {"count": 1, "more": 2}, [], "x", None])
def test_what_is_not_in_good_form_is_refused_in_the_same_words(served: Served, body: Any) -> None:
    quick, slow = both_ways(served.ann, "POST", CLAIMS, body)
    assert reason(quick, 422) == "malformed"
    assert quick.content == slow.content


def test_refusals_are_the_same(served: Served, passed_on: list[str]) -> None:
    with httpx.Client(base_url=served.url) as nobody:
        for client, path, status in (
            (nobody, CLAIMS, 401),
            (served.ann, "/api/experiments/nothing/claims", 404),
        ):
            quick, slow = both_ways(client, "POST", path, {"count": 1})
            assert reason(quick, status) == reason(slow, status)
            assert quick.content == slow.content
    assert passed_on == [CLAIMS] * 2 + ["/api/experiments/nothing/claims"] * 2  # to say what is wrong
    (comparison,) = served.scene.claims(served.ann, 1)["comparisons"]
    assert reason(put_answer(served.bob, comparison["id"], [0, 1]), 403) == "not_yours"
    strange = served.ann.post(CLAIMS, json={"count": 1}, headers={"Host": "example.org"})
    assert reason(strange, 421) == "wrong_host"


def test_a_body_without_a_length_and_one_that_breaks_off(served: Served, passed_on: list[str]) -> None:
    pieces = iter([b'{"count"', b": 2}"])
    headers = {"Content-Type": "application/json"}
    told = served.ann.post(CLAIMS, content=pieces, headers=headers)
    assert len(told.json()["comparisons"]) == 2
    assert passed_on == [CLAIMS]
    place = urlsplit(served.url)
    with socket.create_connection((place.hostname, place.port)) as raw:
        lines = [f"POST {CLAIMS} HTTP/1.1", f"Host: {place.netloc}", "Content-Type: application/json"]
        raw.sendall("\r\n".join([*lines, "Content-Length: 12", "", '{"cou']).encode())
    assert len(served.scene.claims(served.ann, 2)["comparisons"]) == 2
    assert passed_on == [CLAIMS]
