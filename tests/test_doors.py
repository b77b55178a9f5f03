"""Each door is tried: by nobody, by a labeler, from another site, with a guess, with what the store holds."""

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from shared import rounds
from shared.jobs import put_artifact
from shared.models import BrowserSession, Labeler, Preference
from shared.storage import DamagedArtifact, FolderStore
from tests import scenes
from tests.doors import ADMIN, TEACHER, Gate, doors, open_gate
from tests.scenes import put_answer
from tests.served import reason

ROOT = Path(__file__).parent.parent
# What answers somebody without any token, and why that gives nothing away.
OPEN = {
    "GET /healthz", "GET /readyz", "HEAD /openapi.json", "GET /openapi.json", "GET /docs",  # no data
    "POST /api/session", "POST /api/admin/session",  # take a token
    "POST /api/invitations/look", "POST /api/invitations/redeem",  # take an invitation's
    "DELETE /api/session", "DELETE /api/admin/session",  # forget a cookie
}  # fmt: skip
INLINE = re.compile(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", re.IGNORECASE)


@pytest.fixture
def gate(tmp_path: Path, database_url: str) -> Iterator[Gate]:
    yield from open_gate(tmp_path, database_url)


def test_nobody_gets_in_and_every_page_has_its_policy(gate: Gate) -> None:
    """Without a token: 401 from the API, a page that asks for one, and never an experiment."""
    nobody, found = gate.client(), doors(gate.app())
    assert len(found) > 40
    for door in found:
        answer = nobody.request(door.method, door.url, json={} if door.is_change else None)
        if not answer.headers.get("content-type", "").startswith(("text/css", "text/javascript")):
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "unsafe" not in answer.headers["content-security-policy"]
        if answer.headers.get("content-type", "").startswith("text/html"):
            assert not INLINE.search(answer.text), f"{door.path}: its policy would forbid this"
            assert "shapes" not in answer.text
            assert answer.status_code == 200
        elif f"{door.method} {door.path}" not in OPEN and not door.path.startswith("/static"):
            assert reason(answer, 401) in ("no_labeler", "no_admin", "no_teacher"), door


def test_a_labeler_reaches_nothing_of_the_admin_the_teachers_and_the_others(gate: Gate) -> None:
    """Bob answers everything, the round is trained, the experiment ends; Ann asks for all there is."""
    ann, bob, scene = gate.newcomer("ann"), gate.newcomer("robert-the-other"), gate.scene
    given = []
    for one in scene.claims(bob)["comparisons"]:
        answer = put_answer(bob, one["id"], [0, 1])
        given.append(str(answer.request.url).rpartition("/")[2])
    with scene.database.write() as session:
        session.execute(Labeler.__table__.update().values(kind="teacher"))  # no grace to wait for
    assert scene.close_labeling()
    scene.train_reward()
    scene.train_agent()
    with scene.database.write() as session:
        session.execute(Labeler.__table__.update().values(kind="person"))
        rounds.finish(session, scene.id, "test", f"solved: mean true return {scenes.SECRET_RETURN}")
        bobs = session.query(Labeler).filter_by(name="robert-the-other").one().id
    everything = []
    for door in doors(gate.app(), preference_id=given[0], labeler_id=bobs):
        if door.path.endswith("/session"):
            continue  # to log out would end the walk
        body = {"comparison": 1, "ranks": [1, 0]} if door.path.startswith("/api/preferences") else None
        with ann.stream(door.method, door.url, json=body) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                lines = answer.iter_lines()
                everything += [next(lines), next(lines)]
                continue
            answer.read()
        if not door.path.startswith(("/static", "/docs", "/openapi")):  # the same for everybody, no data
            everything.append(answer.text)
        if door.path.startswith("/api/admin") or door.path == "/metrics":
            assert reason(answer, 401) == "no_admin", door
        elif door.path.startswith("/api/teacher"):
            assert reason(answer, 401) == "no_teacher", door
        elif door.path.startswith(("/admin", "/new", "/labelers")):
            assert "The admin token" in answer.text, door
        elif door.path.startswith("/api/preferences"):
            assert answer.status_code in (403, 404, 409), door
    text = "\n".join(everything)
    assert '"shapes"' in text
    numbers = (
        scenes.SECRET_RETURN,
        scenes.SECRET_RETURN - 300,
        scenes.SECRET_JUDGEMENT,
        scenes.SECRET_METRIC,
    )
    for secret in [str(number)[:5] for number in numbers] + ["robert-the-other", *given[1:]]:
        assert secret not in text
    for word in ("true return", '"rewards":[', '"best":0', '"held_out":'):
        assert word not in text
    with scene.database.read() as session:
        kept = session.query(Preference).filter_by(labeler_id=bobs, withdrawn_at=None).count()
    assert kept == len(given)


def test_no_other_site_can_change_anything(gate: Gate) -> None:
    ann = gate.newcomer("ann")
    changes = [door for door in doors(gate.app()) if door.is_change]
    assert len(changes) > 15
    for door in changes:
        for origin in ("http://evil.example", "null", gate.url.replace("127.0.0.1", "localhost")):
            answer = ann.request(door.method, door.url, json={}, headers={"Origin": origin})
            assert reason(answer, 403) == "cross_site", door
        without = httpx.request(door.method, gate.url + door.url, json={}, cookies=dict(ann.cookies))
        assert reason(without, 403) == "cross_site", door


def test_no_script_can_read_a_cookie_and_no_cookie_holds_a_token(gate: Gate) -> None:
    made = gate.admin().post("/api/labelers", json={"name": "program"}).json()["token"]
    logs_in = [
        ("/api/invitations/redeem", gate.invite(name="ann")),
        ("/api/session", made),
        ("/api/admin/session", ADMIN),
    ]
    for path, token in logs_in:
        answer = gate.client().post(path, json={"token": token})
        name, _, rest = answer.headers["set-cookie"].partition("=")
        value, _, flags = rest.partition(";")
        assert all(word in flags for word in ("HttpOnly", "SameSite=strict", "Path=/"))
        assert "Secure" not in flags  # came by http
        assert value not in (token, "")
        with gate.scene.database.read() as session:
            stored = {one.token_sha256 for one in session.query(BrowserSession)}
        assert hashlib.sha256(value.encode()).hexdigest() in stored
        assert value not in stored
        browser = gate.client(Cookie=f"{name}={value}")
        assert browser.delete(path if "invit" not in path else "/api/session").status_code == 204
        assert reason(browser.get("/api/me" if "labeler" in name else "/api/admin/presets"), 401)
    for secure in ({"Origin": gate.url.replace("http:", "https:")}, {"X-Forwarded-Proto": "https"}):
        answer = gate.client(**secure).post("/api/session", json={"token": made})
        assert "Secure" in answer.headers["set-cookie"]


def test_keys_of_the_store_are_never_a_clients(gate: Gate) -> None:
    """No path or query takes free text, and no body has a field that could name an object or a file."""
    schema = gate.app().openapi()
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                kind = parameter["schema"]
                for one in kind.get("anyOf", [kind.get("items", kind)]):
                    bounded = one.get("type") in ("integer", "null") or {"pattern", "enum"} & set(one)
                    assert bounded or one.get("format") == "uuid", (path, parameter["name"])
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            reference = json.dumps(body).partition("#/components/schemas/")[2].partition('"')[0]
            fields = set(schema["components"]["schemas"].get(reference, {}).get("properties", {}))
            assert not fields & {"key", "path", "file", "prefix", "url", "bucket"}, path


def test_nothing_is_unpickled_or_evaluated_and_no_sum_is_left_unchecked() -> None:
    """Read the program's own code: what would run what a file says, and what would read without its sum."""
    seen = 0
    for path in [*ROOT.glob("shared/**/*.py"), *ROOT.glob("services/**/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            wrong = _runs_data(node)
            assert not wrong, f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} {wrong}"
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("store.get"):
                assert len(node.args) == 2, f"{path.relative_to(ROOT)}:{node.lineno} checks no sum"
                seen += 1
    assert seen > 5
    for bad in (
        "import pickle",
        "torch.load(x)",
        "from joblib import load",
        "f(x, allow_pickle=True)",
        "eval(x)",
    ):
        assert any(_runs_data(node) for node in ast.walk(ast.parse(bad))), bad


def _runs_data(node: ast.AST) -> str:
    loaders = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {alias.name.partition(".")[0] for alias in node.names}
        module = (getattr(node, "module", None) or "").partition(".")[0]
        return " ".join(loaders & (names | {module}))
    if not isinstance(node, ast.Call):
        return ""
    name = ast.unparse(node.func)
    if name in ("torch.load", "eval", "exec", "yaml.load", "torch.jit.load", "pandas.read_pickle"):
        return name
    pickles = [one for one in node.keywords if one.arg == "allow_pickle"]
    if any(not isinstance(one.value, ast.Constant) or one.value.value is not False for one in pickles):
        return "allow_pickle"
    return "np.load without allow_pickle" if name in ("np.load", "numpy.load") and not pickles else ""


def test_weights_with_another_sum_are_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save

    store = FolderStore(tmp_path)
    weights = put_artifact(store, "agent", "a/agent.safetensors", save({"w": torch.ones(3)}))
    (tmp_path / weights.key).write_bytes(save({"w": torch.zeros(3)}))  # good safetensors, of somebody else
    with pytest.raises(DamagedArtifact):
        store.get(weights.key, weights.sha256)


def test_tokens_open_their_own_doors_only(gate: Gate) -> None:
    ann = gate.newcomer("ann")
    by_header = gate.client(Authorization=f"Bearer {ann.cookies['lockstep_labeler']}")
    assert reason(by_header.get("/api/me"), 401) == "no_labeler"  # a cookie's token is no program's
    for token in (TEACHER, ann.cookies["lockstep_labeler"]):
        guest = gate.client()
        assert reason(guest.post("/api/admin/session", json={"token": token}), 401) == "no_admin"
        assert reason(guest.post("/api/session", json={"token": token}), 401) == "no_labeler"
        guest.cookies.set("lockstep_admin", token)
        assert reason(guest.get("/api/admin/experiments"), 401) == "no_admin"
    teacher = gate.client(**{"X-Teacher-Token": ADMIN})
    assert reason(teacher.get("/api/teacher/experiments/shapes/rounds/1"), 401) == "no_teacher"
    assert reason(gate.client().post("/api/labelers", json={"name": "eve"}), 401) == "no_admin"
