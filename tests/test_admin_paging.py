"""Long lists of the admin pages come a page at a time, and every row stands on one of them."""

import html
import re
from datetime import timedelta

from shared import rounds
from shared.database import now
from shared.models import Invitation, Labeler
from tests.served import Served


def walk(served: Served, path: str, row: str, turn: str) -> list[str]:
    """Follow the links of the nav called `turn` from `path` on; return what `row` finds on all the pages."""
    found: list[str] = []
    for _ in range(10):
        page = served.admin.get(path).text
        here = re.findall(row, page)
        assert len(here) <= 50
        found += here
        nav = page.partition(f'aria-label="{turn}"')[2].partition("</nav>")[0]
        following = re.search(r'rel="next" href="([^"#]*)', nav)
        if not following:
            return found
        path = path.partition("?")[0] + html.unescape(following[1])
    raise AssertionError(f"{path} has no end")


def test_people_invitations_and_history_come_a_page_at_a_time(served: Served) -> None:
    with served.scene.database.write() as session:
        moment = now(session)
        for number in range(120):
            token = f"{number:064d}"
            person = Labeler(name=f"é & {number:03d}", kind="person", token_sha256=token, created_at=moment)
            invitation = Invitation(token_sha256=token, name=f"guest {number:03d}", made_by="admin")
            invitation.created_at, invitation.expires_at = moment, moment + timedelta(days=7)
            session.add_all([person, invitation])
        for _ in range(60):
            rounds.pause(session, served.scene.id, "ada")
            rounds.resume(session, served.scene.id, "ada")
    people = walk(served, "/labelers", r'aria-label="Invite ([^"]*) again"', "Pages of people")
    assert sorted(html.unescape(one) for one in people) == [
        "ann",
        "bob",
        *(f"é & {n:03d}" for n in range(120)),
    ]
    guests = walk(served, "/labelers", r'data-revoke="\d+" data-name="guest (\d+)"', "Pages of invitations")
    assert [int(one) for one in guests] == list(range(119, -1, -1))
    # The two lists turn apart: a page of one leaves the other where it was.
    first = served.admin.get("/labelers").text
    after = re.search(r'rel="next" href="\?(after=[^&"]*)', first)
    before = re.search(r"(before=\d+)", first)
    assert after
    assert before
    both = served.admin.get(f"/labelers?{after[1]}&{before[1]}").text
    assert "guest 000" not in both
    assert "guest 060" in both
    assert html.escape("é & 060") in both
    for link in (f"?{before[1]}", f"?{after[1]}"):
        assert f'href="{link}"' in both

    told = walk(served, "/admin/shapes", r"<td>(paused|running|created)</td>", "History")
    assert told == ["running", "paused"] * 60 + ["created"]
    report = served.admin.get("/api/admin/experiments/shapes").json()["history"]
    assert [one["event"] for one in report] == ["paused", "running"] * 25
    assert [one["id"] for one in report] == sorted(one["id"] for one in report)
    path, whole = "/api/admin/experiments/shapes/history?limit=100", []
    while path:
        answer = served.admin.get(path)
        whole += answer.json()
        path = answer.links.get("next", {}).get("url", "")
    assert whole[:50] == report[::-1]
    assert [one["event"] for one in whole] == told
