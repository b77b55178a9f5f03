"""Who may come in, and what is kept from whom: against a real server, on both databases."""

import json
from pathlib import Path

import httpx
import pytest

from shared import rounds
from shared.models import Labeler
from shared.settings import SettingsError
from tests import scenes
from tests.scenes import Scene, put_answer
from tests.served import Served, reason

# ---------------------------------------------------------------------------- who may come in


def test_without_a_token_nothing_is_handed_out(served: Served) -> None:
    with httpx.Client(base_url=served.url) as nobody:
        assert reason(nobody.get("/api/me"), 401) == "no_labeler"
        assert reason(nobody.post("/api/experiments/shapes/claims", json={"count": 1}), 401) == "no_labeler"
        assert reason(put_answer(nobody, 1, [0, 1]), 401) == "no_labeler"
        assert reason(nobody.get("/api/clips/1.mp4"), 401) == "no_labeler"
        nobody.headers["Authorization"] = "Bearer guess"
        assert reason(nobody.get("/api/me"), 401) == "no_labeler"


def test_admin_and_teacher_endpoints_know_their_own(served: Served) -> None:
    paths = [
        ("GET", "/api/admin/experiments"),
        ("GET", "/api/admin/experiments/shapes"),
        ("GET", "/api/admin/experiments/shapes/events"),
        ("POST", "/api/admin/experiments/shapes/pause"),
        ("POST", "/api/admin/experiments"),
    ]
    for method, path in paths:
        assert reason(served.ann.request(method, path), 401) == "no_admin"
    whole_round = "/api/teacher/experiments/shapes/rounds/1"
    assert reason(served.ann.get(whole_round), 401) == "no_teacher"
    assert reason(served.admin.get(whole_round), 401) == "no_teacher"
    clips = served.ann.get(whole_round, headers=served.teacher_header).json()["clips"]
    assert [clip["judgement"] for clip in clips] == [[scenes.SECRET_JUDGEMENT] * scenes.STEPS] * 12
    for path in ("experiments/shapes/rounds/9", "experiments/none/rounds/1"):
        unknown = served.ann.get(f"/api/teacher/{path}", headers=served.teacher_header)
        assert reason(unknown, 404) == "unknown"


def test_foreign_hosts_and_other_sites_are_refused(served: Served) -> None:
    evil = served.ann.get("/api/me", headers={"Host": "evil.example"})
    assert reason(evil, 421) == "wrong_host"
    for host in ("localhost:8000", "127.0.0.1", "[::1]:80"):
        assert served.ann.get("/api/me", headers={"Host": host}).status_code == 200
    with httpx.Client(base_url=served.url) as browser:
        browser.post("/api/labelers", json={})
        body = {"count": 1}
        assert reason(browser.post("/api/experiments/shapes/claims", json=body), 403) == "cross_site"
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            answer = browser.post("/api/experiments/shapes/claims", json=body, headers={"Origin": origin})
            assert reason(answer, 403) == "cross_site"
        own = browser.post("/api/experiments/shapes/claims", json=body, headers={"Origin": served.url})
        assert own.status_code == 200
    answer = httpx.post(f"{served.url}/api/labelers", json={}, headers={"Origin": "http://evil.example"})
    assert reason(answer, 403) == "cross_site"


def test_every_answer_has_the_security_headers(served: Served) -> None:
    for path in ("/", "/label/shapes", "/api/me", "/api/nowhere", "/healthz", "/docs"):
        headers = served.ann.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_off_loopback_everybody_needs_a_token(tmp_path: Path, database_url: str) -> None:
    weak = scenes.settings_for(tmp_path, database_url, host="0.0.0.0", port=0)
    with pytest.raises(SettingsError, match="refusing to serve"), scenes.serve(weak):
        pass
    tokens = {"admin_token": "k3Jx9-admin-Qw7Zr2Lm5v", "teacher_token": "p8Tn4-teach-Hs6Yb1Gc3d"}
    settings = scenes.settings_for(tmp_path, database_url, host="0.0.0.0", port=0, **tokens)
    scene = Scene(settings)
    with scenes.serve(settings) as url, httpx.Client(base_url=url) as nobody:
        assert reason(nobody.post("/api/labelers", json={}), 401) == "no_admin"
        assert reason(nobody.get("/api/experiments"), 401) == "no_labeler"
        for path in ("/", "/label/shapes", "/agents/shapes"):
            page = nobody.get(path).text
            assert "The token that the operator gave you" in page
            assert "data-experiment" not in page
        assert "The admin token" in nobody.get("/admin/shapes").text
        admin = {"Authorization": f"Bearer {tokens['admin_token']}"}
        dora = nobody.post("/api/labelers", json={"name": "dora"}, headers=admin)
        assert "set-cookie" not in dora.headers
        own = {"Origin": url}
        assert reason(nobody.post("/api/session", json={"token": "x"}, headers=own), 401) == "no_labeler"
        assert (
            nobody.post("/api/session", json={"token": dora.json()["token"]}, headers=own).status_code == 204
        )
        assert nobody.get("/api/me").json()["name"] == "dora"
        assert 'data-experiment="shapes"' in nobody.get("/label/shapes").text
        assert reason(nobody.post("/api/admin/session", json={"token": "x"}, headers=own), 401) == "no_admin"
        nobody.post("/api/admin/session", json={"token": tokens["admin_token"]}, headers=own)
        assert nobody.get("/api/admin/experiments/shapes").json()["name"] == "shapes"
    scene.close()


def test_labelers_cannot_read_a_judgement_a_metric_or_a_true_return(served: Served) -> None:
    """Run an experiment to its solved end and search everything a labeler can be sent for the secrets."""
    scene = served.scene
    comparisons = scene.claims(served.ann)["comparisons"]
    texts = [json.dumps(comparisons)]
    texts += [put_answer(served.ann, one["id"], [0, 1]).text for one in comparisons]
    with scene.database.write() as session:
        session.execute(Labeler.__table__.update().values(kind="teacher"))  # no grace to wait for
    assert scene.close_labeling()
    scene.train_reward()
    scene.train_agent()
    with scene.database.write() as session:
        rounds.finish(session, scene.id, "test", f"solved: mean true return {scenes.SECRET_RETURN}")
    paths = [
        "/", "/?all", "/label/shapes", "/agents/shapes", "/docs", "/openapi.json", "/api/me", "/healthz",
        "/readyz", "/api/experiments", "/api/experiments/shapes", "/admin-not",
        "/api/teacher/experiments/shapes/rounds/1",
        "/api/admin/experiments/shapes", "/api/admin/experiments/shapes/events",
    ]  # fmt: skip
    texts += [served.ann.get(path, follow_redirects=True).text for path in paths]
    with served.ann.stream("GET", "/api/experiments/shapes/events") as stream:
        lines = stream.iter_lines()
        texts += [next(lines), next(lines)]
    everything = "\n".join(texts)
    assert '"round":1' in everything.replace(" ", "")
    hidden = (
        scenes.SECRET_RETURN,
        scenes.SECRET_RETURN - 300.0,
        scenes.SECRET_JUDGEMENT,
        scenes.SECRET_METRIC,
    )
    for secret in hidden:
        assert f"{secret:.2f}"[:-1] not in everything
    assert "true return" not in everything
    assert f"{scenes.SECRET_RETURN - 300.0:.1f}" in served.admin.get("/admin/shapes").text
