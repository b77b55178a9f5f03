"""The two calls that are made for every key a labeler presses, past the framework's general machinery.

For every request, FastAPI works out anew what an endpoint asks for, reads the body as bytes, JSON and model,
and checks and writes the answer by its declared type: two thirds of the processor's time that a claim takes.
What is asked for in good form is answered here instead, by the same functions. Every other request goes on to
FastAPI, which says what is wrong with it, whose declarations `/docs` tells, and which also answers for what
fails here.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import BackgroundTasks, FastAPI, Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from services.labeler import labeling, security
from services.labeler.context import Context, current_labeler
from services.labeler.schemas import ClaimBody, PreferenceBody
from shared.config import NAME_PATTERN
from shared.models import Labeler
from shared.settings import Settings

UUID_PATTERN = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
FAILED = "lockstep.failed"  # in a scope: the exception that a quick call ended in


@dataclass(frozen=True)
class Call:
    """A call that is answered quickly: its method, its addresses, its body, and what answers it."""

    method: str
    address: re.Pattern[str]  # its only group is what the address names
    form: type[BaseModel]
    answer: Callable[[Context, str, Any, Labeler, BackgroundTasks], Awaitable[BaseModel]]


async def _claim(
    service: Context, name: str, body: ClaimBody, labeler: Labeler, _: BackgroundTasks
) -> BaseModel:
    return await labeling.claim(name, body, labeler, service)


async def _answer(
    service: Context, preference_id: str, body: PreferenceBody, labeler: Labeler, background: BackgroundTasks
) -> BaseModel:
    return await labeling.answer(UUID(preference_id), body, labeler, service, background)


CALLS = (
    Call("PUT", re.compile(f"/api/preferences/({UUID_PATTERN})"), PreferenceBody, _answer),
    Call(
        "POST",
        re.compile(f"/api/experiments/({NAME_PATTERN.strip('^$')})/claims"),
        ClaimBody,
        _claim,
    ),
)


class Quick:
    """Stands before the service and answers what it can."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        self.app, self.settings = app, settings
        app.router.routes.insert(0, _Failed())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "http":
            for call in CALLS:
                if call.method == scope["method"] and (found := call.address.fullmatch(scope["path"])):
                    return await self._serve(call, found[1], scope, receive, send)
        return await self.app(scope, receive, send)

    async def _serve(self, call: Call, named: str, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request({**scope, "app": self.app}, receive)
        headers, method = request.headers, scope["method"]
        if headers.get("content-type") != "application/json" or "content-length" not in headers:
            return await self.app(scope, receive, send)
        if security.refusal(method, headers, self.settings, security.MAX_BODY):
            return await self.app(scope, receive, send)
        try:
            body = await request.body()
        except ClientDisconnect:
            return None  # nobody is there to be told
        try:
            form = call.form.model_validate_json(body)
        except ValidationError:
            return await self.app(scope, _once_more(body, receive), send)
        background = BackgroundTasks()
        try:
            labeler = await current_labeler(request)
            outcome = await call.answer(self.app.state.context, named, form, labeler, background)
        except Exception as error:
            return await self.app({**scope, FAILED: error}, _once_more(body, receive), send)
        told = outcome.__pydantic_serializer__.to_json(outcome)
        length = (b"content-length", str(len(told)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length, *HEADERS]})
        await send({"type": "http.response.body", "body": told})
        return await background()


HEADERS = [(b"content-type", b"application/json"), *security.headers_of(b"application/json")]


class _Failed(BaseRoute):
    """Raises what a quick call ended in, where the service turns exceptions into answers."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return (Match.FULL if FAILED in scope else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise scope[FAILED]


def _once_more(body: bytes, receive: Receive) -> Receive:
    """Let a body that was read be read again."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
