"""A newcomer on the label page: practice with feedback first, then pairs of which some come up twice."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from shared.models import Aside
from tests.page_checks import LARGE, NARROW, WIDER, found_on
from tests.scenes import join, put_answer
from tests.test_label_page import Site, clip_ids, in_view, press, site_in

LABELS = {
    "comparisons_first_round": 2,
    "comparisons_per_round": 10,
    "practice": 2,
    "repeats": 1.0,
    "undo_grace_s": 0.0,
}


@pytest.fixture
def site(tmp_path: Path, sqlite_template: Path, browser: Browser) -> Iterator[Site]:
    """The second round of an experiment whose first one was labeled by somebody else."""
    with site_in(tmp_path, sqlite_template, browser, labels=LABELS) as one:
        scene = one.scene
        with httpx.Client(base_url=one.url) as ann:
            join(ann, "ann")
            while scene.round().state == "labeling":
                for pair in scene.claims(ann)["comparisons"]:
                    put_answer(ann, pair["id"], [0, 1])
        scene.train_reward()
        scene.train_agent()
        scene.collect()
        yield one


def test_practice_is_told_apart_and_repeats_are_not(site: Site) -> None:
    context = site.browser.new_context(bypass_csp=True)  # axe comes as a script
    context.request.post(f"{site.url}/api/labelers", data={"name": "bob"})  # known by a name
    page = site.open(context=context)
    in_view(page, "labeling")
    practice, told = page.locator("#practice"), page.locator("#practice-text")
    expect(told).to_contain_text("Practice 1 of 2: it does not count")
    press(page, "ArrowLeft")
    expect(told).to_contain_text(re.compile("Somebody else said: .*(So did you|You did not)"))
    expect(page.get_by_role("button", name="Next")).to_be_focused()
    assert found_on(page, "practice") == []
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#live")).to_have_text("Press Enter to go on.")
    page.keyboard.press("Enter")
    expect(told).to_contain_text("Practice 2 of 2: it does not count")
    expect(page.locator("#count")).to_have_text("0 %")  # in steps: a count would stand still at a repeat
    expect(page.locator("#mine")).to_have_text("You: 0")
    page.reload()  # what was practised is known
    expect(told).to_contain_text("Practice 2 of 2: it does not count")
    page.get_by_role("button", name="Skip practice").click()
    expect(practice).to_be_hidden()

    counts = []
    page.set_viewport_size(LARGE)
    labeling = page.locator("body[data-view=labeling] .pair.current.seen")
    done = page.locator("body[data-view=training]")
    while labeling.or_(done).wait_for() or labeling.count():
        before = clip_ids(page)
        page.keyboard.press("ArrowLeft")
        counts.append(int((page.locator("#count").text_content() or "?").split()[0]))
        page.wait_for_function(
            "before => document.querySelector('.pair.current video')?.src !== before", arg=before[0]
        )
    in_view(page, "training")
    page.set_viewport_size(NARROW)
    assert page.evaluate(WIDER) == []
    expect(practice).to_be_hidden()
    assert counts == sorted(counts)
    with site.scene.database.read() as session:
        newcomers = session.query(Aside).filter(Aside.labeler_id == 2)
        states = [(one.kind, one.state) for one in newcomers.order_by(Aside.id)]
    repeats = states.count(("repeat", "answered"))
    assert states[:2] == [("practice", "answered"), ("practice", "skipped")]
    assert repeats >= 1
    assert len(counts) == 10 + repeats
    assert len(site.preferences()) == 12
    expect(page.locator("#mine")).to_have_text(re.compile(rf"You: {10 + repeats} · \d+ a minute"))
