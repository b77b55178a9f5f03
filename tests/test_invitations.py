"""Invitations that work once, sessions that end, wrong tokens that are counted: on both databases."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from services.labeler import limits
from shared.database import now
from shared.models import BrowserSession, FailedLogIn, Invitation, Labeler
from shared.settings import SettingsError, load_settings
from tests.doors import ADMIN, TEACHER, Gate, open_gate
from tests.served import Served, reason


@pytest.fixture
def gate(tmp_path: Path, database_url: str) -> Iterator[Gate]:
    yield from open_gate(tmp_path, database_url)


def redeem(client: httpx.Client, token: str, name: str | None = None) -> httpx.Response:
    return client.post("/api/invitations/redeem", json={"token": token, "name": name})


def change(gate: Gate, statement: Any) -> None:
    with gate.scene.database.write() as session:
        session.execute(statement)


# ------------------------------------------------------------------------------- invitations


def test_an_invitation_lets_one_person_in_once(gate: Gate) -> None:
    admin, ada = gate.admin(), gate.client()
    made = admin.post("/api/admin/invitations", json={"name": "ada", "days": 2}).json()
    site, _, token = made["link"].partition("/join#")
    assert site == gate.url
    assert (made["state"], made["name"], made["labeler"]) == ("open", "ada", None)
    assert ada.post("/api/invitations/look", json={"token": token}).json() == {
        "name": "ada",
        "returning": False,
    }
    assert redeem(ada, token).json()["name"] == "ada"
    assert ada.get("/api/me").json()["name"] == "ada"
    assert 'data-experiment="shapes"' in ada.get("/label/shapes").text
    other = gate.client()
    assert reason(redeem(other, token, "eve"), 410) == "used"
    assert reason(other.post("/api/invitations/look", json={"token": token}), 410) == "used"
    assert reason(other.get("/api/me"), 401) == "no_labeler"
    (listed,) = admin.get("/api/admin/invitations").json()
    assert (listed["state"], listed["name"]) == ("used", "ada")
    assert listed["labeler"] == ada.get("/api/me").json()["id"]
    assert "link" not in listed
    assert reason(admin.delete(f"/api/admin/invitations/{listed['id']}"), 409) == "used"


def test_invitations_that_let_nobody_in(gate: Gate) -> None:
    admin, eve = gate.admin(), gate.client()
    expired, revoked, good = gate.invite(), gate.invite(), gate.invite()
    newest = [one["id"] for one in admin.get("/api/admin/invitations").json()]
    with gate.scene.database.read() as session:
        past = now(session) - timedelta(seconds=1)
    change(gate, sa.update(Invitation).where(Invitation.id == newest[2]).values(expires_at=past))
    assert admin.delete(f"/api/admin/invitations/{newest[1]}").status_code == 204
    assert admin.delete(f"/api/admin/invitations/{newest[1]}").status_code == 204  # again: no harm
    assert reason(redeem(eve, expired, "eve"), 410) == "expired"
    assert reason(redeem(eve, revoked, "eve"), 410) == "revoked"
    assert reason(redeem(eve, good[:-1], "eve"), 404) == "unknown"
    assert reason(redeem(eve, good), 422) == "malformed"  # nobody said a name
    gate.newcomer("ann")
    assert reason(redeem(eve, good, "ann"), 409) == "taken"
    assert redeem(eve, good, "eve").status_code == 200  # what was refused has used nothing up
    states = [one["state"] for one in admin.get("/api/admin/invitations").json()]
    assert states == ["used", "used", "revoked", "expired"]
    for body in ({"days": 0}, {"days": 91}, {"name": "x", "labeler": 1}, {"name": "\n"}, {"key": "x"}):
        assert reason(admin.post("/api/admin/invitations", json=body), 422) == "malformed"
    assert reason(admin.post("/api/admin/invitations", json={"name": "ann"}), 409) == "taken"
    assert reason(admin.post("/api/admin/invitations", json={"labeler": 999}), 404) == "unknown"
    assert reason(admin.delete("/api/admin/invitations/999"), 404) == "unknown"


def test_of_many_at_the_same_moment_one_gets_in(gate: Gate) -> None:
    token, replicas, start = gate.invite(), [gate.url, gate.serve()], Barrier(8)

    def come(number: int) -> httpx.Response:
        with httpx.Client(base_url=replicas[number % 2]) as client:
            start.wait()
            return redeem(client, token, f"guest {number}")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(come, range(8)))
    assert sorted(one.status_code for one in answers) == [200] + [410] * 7
    with gate.scene.database.read() as session:
        assert session.query(Labeler).count() == session.query(BrowserSession).count() == 1


def test_who_lost_the_way_in_comes_back_as_themselves(gate: Gate) -> None:
    admin, ada = gate.admin(), gate.newcomer("ada")
    token = admin.post("/api/admin/invitations", json={"labeler": 1}).json()["link"].partition("#")[2]
    elsewhere = gate.client()
    looked = elsewhere.post("/api/invitations/look", json={"token": token}).json()
    assert looked == {"name": "ada", "returning": True}
    assert redeem(elsewhere, token, "somebody else").json() == ada.get("/api/me").json()
    (listed,) = admin.get("/api/admin/labelers").json()
    assert (listed["name"], listed["labels"], listed["sessions"]) == ("ada", 0, 2)


# ---------------------------------------------------------------------------------- sessions


def test_the_admin_ends_a_labelers_sessions_token_and_open_invitations(gate: Gate) -> None:
    admin, ada, ben = gate.admin(), gate.newcomer("ada"), gate.newcomer("ben")
    made = admin.post("/api/labelers", json={"name": "program"}).json()
    program = gate.client(Authorization=f"Bearer {made['token']}")
    assert program.get("/api/me").status_code == 200
    again = admin.post("/api/admin/invitations", json={"labeler": 1}).json()["link"].partition("#")[2]
    assert admin.delete("/api/admin/labelers/1/sessions").json() == {"ended": 1}
    assert admin.delete(f"/api/admin/labelers/{made['id']}/sessions").json() == {"ended": 0}
    assert reason(ada.get("/api/me"), 401) == reason(program.get("/api/me"), 401) == "no_labeler"
    assert reason(redeem(ada, again), 410) == "revoked"
    assert ben.get("/api/me").status_code == 200
    assert reason(admin.delete("/api/admin/labelers/999/sessions"), 404) == "unknown"


def test_a_session_ends_by_itself_but_not_while_it_is_used(gate: Gate) -> None:
    ada = gate.newcomer("ada")
    with gate.scene.database.read() as session:
        moment = now(session)
    old = {"used_at": moment - timedelta(days=80), "expires_at": moment + timedelta(days=10)}
    change(gate, sa.update(BrowserSession).values(old))
    assert ada.get("/api/me").status_code == 200
    with gate.scene.database.read() as session:
        one = session.query(BrowserSession).one()
        assert one.used_at >= moment - timedelta(minutes=1)
        assert one.expires_at > moment + timedelta(days=89)
    change(gate, sa.update(BrowserSession).values(expires_at=moment - timedelta(seconds=1)))
    time.sleep(1.1)  # who asked just now is known for a second
    assert reason(ada.get("/api/me"), 401) == "no_labeler"
    gate.newcomer("ben")
    with gate.scene.database.read() as session:
        assert session.query(BrowserSession).count() == 1  # what is over is cleared away


def test_another_admin_token_ends_the_sessions_of_the_first(gate: Gate) -> None:
    browser = gate.client()
    assert browser.post("/api/admin/session", json={"token": ADMIN}).status_code == 204
    cookie = f"lockstep_admin={browser.cookies['lockstep_admin']}"
    replica = gate.serve()
    assert gate.client(url=replica, Cookie=cookie).get("/api/admin/labelers").status_code == 200
    changed = gate.serve(admin_token=type(gate.settings.admin_token)("another-Zq81mT-one-of-22"))
    assert reason(gate.client(url=changed, Cookie=cookie).get("/api/admin/labelers"), 401) == "no_admin"
    assert browser.get("/api/admin/labelers").status_code == 200
    browser.delete("/api/admin/session")
    assert reason(gate.client(url=replica, Cookie=cookie).get("/api/admin/labelers"), 401) == "no_admin"


# ------------------------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("path", "right"),
    [("/api/admin/session", "admin"), ("/api/session", "labeler"), ("/api/invitations/redeem", "invitation")],
)
def test_guesses_are_few_counted_together_and_hurt_nobody_else(gate: Gate, path: str, right: str) -> None:
    replica, ada = gate.serve(), gate.newcomer("ada")
    made = gate.admin().post("/api/labelers", json={"name": "program"}).json()["token"]
    token = {"admin": ADMIN, "labeler": made, "invitation": gate.invite(name="ben")}[right]
    browser = gate.client("203.0.113.5")
    browser.post("/api/admin/session", json={"token": ADMIN})

    def guess(number: int) -> int:
        url = (gate.url, replica)[number % 2]
        headers = {"X-Forwarded-For": "203.0.113.5"}
        return httpx.post(url + path, json={"token": f"guess {number}"}, headers=headers).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(guess, range(3 * limits.FROM_ONE)))
    assert answers.count(429) == 2 * limits.FROM_ONE
    assert set(answers) <= {401, 404, 429}
    refused = gate.client("203.0.113.5", replica).post(path, json={"token": token})
    assert reason(refused, 429) == "too_many"
    assert 0 < int(refused.headers["retry-after"]) <= limits.WINDOW.total_seconds()
    # Who is in stays in, from the same address too, and who comes from elsewhere gets in.
    ada.headers["X-Forwarded-For"] = "203.0.113.5"
    assert ada.get("/api/me").status_code == browser.get("/api/admin/labelers").status_code == 200
    assert gate.client("203.0.113.6").post(path, json={"token": token}).is_success


def test_guesses_from_everywhere_are_limited_and_forgotten(gate: Gate) -> None:
    ada = gate.newcomer("ada")
    with gate.scene.database.write() as session:
        moment = now(session)
        row = {"door": "admin", "at": moment}
        addresses = [f"198.51.{n // 256}.{n % 256}" for n in range(limits.FROM_ALL)]
        session.execute(sa.insert(FailedLogIn), [row | {"address": one} for one in addresses])
    fresh = gate.client("203.0.113.7")
    assert reason(fresh.post("/api/admin/session", json={"token": ADMIN}), 429) == "too_many"
    assert ada.get("/api/me").status_code == 200
    assert gate.admin().get("/api/admin/labelers").status_code == 200  # at the machine itself
    change(gate, sa.update(FailedLogIn).values(at=moment - limits.WINDOW))
    assert fresh.post("/api/admin/session", json={"token": "wrong"}).status_code == 401
    with gate.scene.database.read() as session:
        assert session.query(FailedLogIn).one().address == "203.0.113.7"  # the old ones are cleared away
    assert fresh.post("/api/admin/session", json={"token": ADMIN}).status_code == 204


def test_the_admins_and_the_teachers_tokens_cannot_be_guessed_by_header_either(gate: Gate) -> None:
    ada = gate.admin().post("/api/labelers", json={"name": "ada"}).json()["token"]
    program = gate.client("2001:db8::1", Authorization=f"Bearer {ada}")
    for _ in range(limits.FROM_ONE + 1):  # a labeler's own token is no guess
        assert reason(program.get("/api/admin/presets"), 401) == "no_admin"
    for number in range(limits.FROM_ONE):  # one network is one client
        eve = gate.client(f"2001:db8::{number + 2}", Authorization=f"Bearer {number}")
        assert reason(eve.get(("/api/admin/presets", "/metrics")[number % 2]), 401) == "no_admin"
    for number in range(limits.FROM_ONE):
        eve = gate.client("2001:db8::2", **{"X-Teacher-Token": str(number)})
        assert reason(eve.get("/api/teacher/experiments/shapes/rounds/1"), 401) == "no_teacher"
    right = gate.client("2001:db8::3", **{"X-Teacher-Token": TEACHER})
    assert reason(right.get("/api/teacher/experiments/shapes/rounds/1"), 429) == "too_many"
    right = gate.client("2001:db8::ffff", Authorization=f"Bearer {ADMIN}")
    assert reason(right.get("/api/admin/presets"), 429) == "too_many"
    assert program.get("/api/me").status_code == 200


def test_a_client_cannot_choose_its_address_unless_a_proxy_is_trusted(served: Served) -> None:
    for number in range(limits.FROM_ONE):
        told = {"X-Forwarded-For": f"203.0.113.{number}"}
        answer = httpx.post(f"{served.url}/api/session", json={"token": "x"}, headers=told)
        assert reason(answer, 401) == "no_labeler"
    with served.scene.database.read() as session:
        assert {one.address for one in session.query(FailedLogIn)} == {"127.0.0.1"}
    told = {"X-Forwarded-For": "203.0.113.99"}
    answer = httpx.post(f"{served.url}/api/session", json={"token": "x"}, headers=told)
    assert reason(answer, 429) == "too_many"


@pytest.mark.parametrize(
    ("name", "value"),
    [("trusted_proxies", "*"), ("trusted_proxies", "172.18.0.1/16"), ("public_url", "label.example.org")],
)
def test_settings_that_trust_anybody_or_nobody_are_refused(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=name.upper()):
        load_settings(data_dir=tmp_path, _env_file=None, **{name: value})


def test_on_this_machine_alone_nobody_logs_in(served: Served) -> None:
    with httpx.Client(base_url=served.url, headers={"Origin": served.url}) as visitor:
        assert "HttpOnly" in visitor.get("/admin").headers["set-cookie"]
        assert "set-cookie" not in visitor.get("/admin").headers  # one session is enough
        assert "Log out" not in visitor.get("/admin").text
        assert visitor.get("/api/admin/labelers").status_code == 200
        assert visitor.post("/api/labelers", json={}).status_code == 201
        assert visitor.get("/api/me").status_code == 200
