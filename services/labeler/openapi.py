"""The API's description: what FastAPI knows of it, with the problems each call can end in, and examples."""

from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from pydantic import BaseModel, Field

from services.labeler import context, labelers
from services.labeler.examples import EXAMPLES

PROBLEM = "application/problem+json"


class ProblemDocument(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="about:blank: the status says the kind")
    title: str = Field(description="the status in words")
    status: int
    detail: str = Field(description="for people: what is wrong, and where possible what to do")
    reason: str = Field(description="for programs: a short word that stays the same")
    errors: dict[str, str] | None = Field(None, description="by field, what is wrong with it")


# What each status means here, with the reasons that a program may find.
MEANINGS = {
    400: "The body is no text in UTF-8 (`bad_request`).",
    401: "Nobody known is asking (`no_labeler`, `no_admin`, `no_teacher`).",
    403: "A change from another site (`cross_site`), or to what was given to somebody else (`not_yours`).",
    404: "There is no such thing (`unknown`), or not any more (`missing_artifact`).",
    409: "It does not fit the state of things (`stale_state`, `conflict`, `taken`, `frozen`, `labeling`, …).",
    410: "The invitation is no good any more (`used`, `revoked`, `expired`).",
    413: "The body is too large (`too_large`).",
    416: "The file has no such bytes (`no_such_range`).",
    421: "The server does not go by the name in Host (`wrong_host`).",
    422: "Something is not as it must be (`malformed`, `bad_config`); `errors` may say by field what.",
    429: "Too many wrong tokens came lately (`too_many`); Retry-After says for how long.",
    500: "The server's own fault (`internal`), or a file was damaged (`damaged_artifact`).",
    503: "Database, store or broker do not answer (`database`, `store`, …), or another export or import is "
    "under way (`busy`): send it again in a while.",
    507: "The disk is full (`full`): nothing was stored.",
}
# What a call can end in beyond what its parameters and its door tell.
MORE: dict[str, tuple[int, ...]] = {
    "POST /api/experiments/{name}/claims": (409,),
    "POST /api/comparisons/{comparison_id}/renew": (403, 409),
    "POST /api/comparisons/{comparison_id}/skip": (403, 409),
    "PUT /api/preferences/{preference_id}": (403, 409),
    "DELETE /api/preferences/{preference_id}": (403, 409),
    "PUT /api/practice/{answer_id}": (403, 409),
    "POST /api/labelers": (409,),
    "POST /api/session": (401, 429),
    "PATCH /api/me": (409,),
    "POST /api/invitations/look": (404, 410, 429),
    "POST /api/invitations/redeem": (404, 409, 410, 429),
    "GET /metrics": (401, 429),
    "GET /api/clips/{clip_id}.mp4": (416,),
    "GET /api/experiments/{name}/rounds": (409,),
    "GET /api/experiments/{name}/rounds/{number}/video.mp4": (409, 416),
    "POST /api/admin/session": (401, 429),
    "POST /api/admin/invitations": (404, 409),
    "DELETE /api/admin/invitations/{invitation_id}": (409,),
    "POST /api/admin/experiments": (404, 409),
    "POST /api/admin/experiments/{name}/{action}": (409,),
    "GET /api/admin/clips/{clip_id}.mp4": (416,),
    "GET /api/admin/experiments/{name}/rounds/{number}/video.mp4": (416,),
    "GET /api/admin/experiments/{name}/export": (409, 507),
    "POST /api/admin/import": (400, 409),
}
DOORS: dict[Any, tuple[int, ...]] = {
    context.current_labeler: (401,),
    context._visitor: (401, 429),
    context._admin: (401, 429),
    context._teacher: (401, 429),
    labelers._may_join: (401, 429),
}
# Who has to be known where, by what they show.
KEYS: dict[Any, str] = {
    context.current_labeler: "labeler",
    context._visitor: "labeler",
    context._admin: "admin",
    context._teacher: "teacher",
}
SCHEMES = {
    "labeler": {
        "type": "http",
        "scheme": "bearer",
        "description": "a labeler's token, or a session's cookie",
    },
    "admin": {
        "type": "http",
        "scheme": "bearer",
        "description": "LOCKSTEP_ADMIN_TOKEN, or a session's cookie",
    },
    "teacher": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Teacher-Token",
        "description": "LOCKSTEP_TEACHER_TOKEN",
    },
}
MEDIA = {
    "/metrics": "text/plain",
    "/api/admin/plotly.min.js": "text/javascript",
    "/api/clips/{clip_id}.mp4": "video/mp4",
    "/api/admin/clips/{clip_id}.mp4": "video/mp4",
    "/api/admin/experiments/{name}/rounds/{number}/video.mp4": "video/mp4",
    "/api/admin/experiments/{name}/export": "application/zip",
    "/api/experiments/{name}/rounds/{number}/video.mp4": "video/mp4",
}
PAGED = {"after", "before"}  # parameters that turn the pages of a list
NEXT = {
    "description": 'the address of the next page, as `<…>; rel="next"`; absent on the last one',
    "schema": {"type": "string"},
}


def install(app: FastAPI) -> None:
    """Let `app` describe itself with problems and examples."""

    def describe() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = description(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def description(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of `app`."""
    told = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    parts = told["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    parts["schemas"]["Problem"] = ProblemDocument.model_json_schema()
    parts["securitySchemes"] = SCHEMES
    parts["responses"] = {
        f"Problem{status}": {
            "description": meaning,
            "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, meaning in MEANINGS.items()
    }
    for name, example in EXAMPLES.items():
        if name in parts["schemas"]:
            parts["schemas"][name]["examples"] = [example]
    for route in iter_route_contexts(app.routes):
        if isinstance(route.original_route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete(told["paths"][route.path_format][method.lower()], route, method)
    return told


def _complete(operation: dict[str, Any], route: RouteContext, method: str) -> None:
    path = str(route.path_format)
    operation["summary"] = " ".join(operation.get("description", "").split("\n\n")[0].split())
    answers = operation["responses"]
    answers.pop("422", None)
    for answer in answers.values():
        for content in answer.get("content", {}).values():
            example = example_of(content.get("schema", {}), f"{method} {path}")
            if example is not None:
                content["example"] = example
        if path in MEDIA:
            answer["content"] = {MEDIA[path]: {"schema": {"type": "string"}}}
        if PAGED & {one["name"] for one in operation.get("parameters", ())}:
            answer["headers"] = {"Link": NEXT}
    for content in operation.get("requestBody", {}).get("content", {}).values():
        example = example_of(content["schema"], f"{method} {path} body")
        if example is not None:
            content["example"] = example
    keys = sorted({KEYS[one.call] for one in _tree(route.dependant) if one.call in KEYS})
    if keys:
        operation["security"] = [{key: []} for key in keys]
    for status in sorted(problems_of(route, method)):
        answers[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}


def example_of(schema: dict[str, Any], place: str) -> Any:
    """Return an example of what a schema describes: its model's, or the one that stands for its `place`."""
    if place in EXAMPLES:
        return EXAMPLES[place]
    for one in (schema, *schema.get("anyOf", ())):
        if name := one.get("$ref", "").rpartition("/")[2]:
            return EXAMPLES.get(name)
    if schema.get("type") == "array":
        inner = example_of(schema["items"], "")
        return None if inner is None else [inner]
    return None


def problems_of(route: RouteContext, method: str) -> set[int]:
    """Return the statuses of the problems that a call can end in."""
    found = {421, 500, *MORE.get(f"{method} {route.path_format}", ())}
    if route.path_format != "/healthz":
        found.add(503)
    tree = list(_tree(route.dependant))
    for one in tree:
        found |= set(DOORS.get(one.call, ()))
        if one.path_params:
            found.add(404)
        if one.path_params or one.query_params:
            found.add(422)
    if method != "GET":
        found |= {403, 413, 507}
    if route.body_field:
        found |= {400, 413, 422}
    return found


def _tree(dependant: Dependant) -> Any:
    yield dependant
    for one in dependant.dependencies:
        yield from _tree(one)
