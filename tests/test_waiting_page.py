"""What the label page tells before the answer, and while trainers work: in a real browser."""

import re
from typing import Any

import httpx
from playwright.sync_api import Page, expect

from shared.settings import secrets
from tests.scenes import join
from tests.test_label_page import Site, in_view, site, until

__all__ = ["site"]

# Headless Chromium hides no tab, so the test says when; the notifications are the browser's own.
AWAY = """
  window.away = false; window.asked = 0; window.rung = [];
  Object.defineProperty(Document.prototype, "hidden", { get: () => window.away });
  const ask = Notification.requestPermission.bind(Notification);
  Notification.requestPermission = () => { window.asked += 1; return ask(); };
  window.Notification = class extends Notification {
    constructor(title, options) {
      super(title, options);
      const told = { title, tag: this.tag, shown: false, closed: false };
      window.rung.push(told);
      this.addEventListener("show", () => (told.shown = true));
      this.addEventListener("close", () => (told.closed = true));
    }
  };
"""
GO = "away => { window.away = away; document.dispatchEvent(new Event('visibilitychange')); }"


def live_through(site: Site, rounds: int) -> None:
    """Let a teacher label and the trainers work for so many rounds."""
    header = {"X-Teacher-Token": secrets(site.scene.settings).teacher_token}
    with httpx.Client(base_url=site.url) as teacher:
        join(teacher, "oracle", **header)
        for _ in range(rounds):
            site.scene.label_all(teacher)
            site.scene.train_reward()
            site.scene.train_agent()
            site.scene.collect()


def label_until(page: Page, view: str) -> None:
    """Answer what this page's labeler is given, faster than its keys allow, until the page shows `view`."""
    in_view(page, "labeling")
    page.evaluate(
        """async () => {
          const send = (method, path, body) => fetch(path, {
            method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
          });
          for (;;) {
            const answer = await send("POST", "/api/experiments/shapes/claims", { count: 10 });
            const { comparisons } = await answer.json();
            if (!comparisons.length) return;
            for (const { id } of comparisons) {
              await send("PUT", `/api/preferences/${crypto.randomUUID()}`, { comparison: id, ranks: [0, 1] });
            }
          }
        }"""
    )
    in_view(page, view)


def label_the_batch(site: Site, page: Page) -> None:
    label_until(page, "labeling")
    until(site.scene.close_labeling, "the end of the grace")
    in_view(page, "training")


def playing(page: Page, films: str = "#duo") -> Any:
    return page.eval_on_selector_all(f"{films} video", "all => all.map(one => !one.paused)")


def films_begin_paused(page: Page, films: str, count: int) -> None:
    """Check that nothing moves until it is asked to, by who asked the system for less motion."""
    expect(page.locator(f"{films} video")).to_have_count(count)
    page.wait_for_function(
        "films => [...document.querySelectorAll(`${films} video`)].every(one => one.readyState >= 2)",
        arg=films,
    )
    page.wait_for_timeout(300)  # films that need not wait have begun by then
    assert playing(page, films) == [False] * count
    assert page.eval_on_selector_all(f"{films} video", "all => all.every(one => one.currentTime === 0)")
    button = page.get_by_role("button", name="Play")
    expect(button).to_be_visible()
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.wait_for_function(
        "films => [...document.querySelectorAll(`${films} video`)].every(one => one.currentTime > 0)",
        arg=films,
    )


def test_who_waits_is_told_what_happens_sees_two_agents_and_is_called_back(site: Site) -> None:
    live_through(site, 2)
    context = site.browser.new_context(viewport={"width": 1280, "height": 800})
    context.grant_permissions(["notifications"], origin=site.url)
    context.add_init_script(AWAY)
    page = site.open(context=context)
    in_view(page, "labeling")
    assert "ound" not in page.inner_text("body")  # before the answer no word of rounds or agents
    assert page.get_by_role("link", name="Agents").count() == 0
    assert page.locator("#live").text_content() == ""
    label_the_batch(site, page)
    scene = site.scene

    # What happens, and how long: no worker has begun, but earlier rounds tell how long it takes.
    expect(page.locator(".training-text")).to_contain_text("learns from them what you prefer")
    expect(page.locator(".training-wait")).to_have_text(
        re.compile("next clips come up here (in about|any mom)")
    )
    expect(page.locator("[data-stage=training_reward] .note")).to_have_text("waits for a free trainer")
    expect(page.locator("#live")).to_contain_text("what you prefer")
    scene.train_reward()
    expect(page.locator(".training-text")).to_have_text("The agent practises what you prefer.")
    attempt_id = scene.claim()
    scene.beat(attempt_id, 0.4)
    expect(page.locator("[data-stage=training_agent] .note")).to_contain_text("40 %")
    expect(page.locator("#live")).to_contain_text("practises")  # the stage was read out, its percents are not
    scene.release(attempt_id)

    # The newest agent beside the last round's, in step, paused and played together, earlier ones at hand.
    captions = page.locator("#duo figcaption")
    expect(captions).to_have_text(["Before: after round 1", "Now: after round 2"])
    expect(page.locator("#against-part")).to_be_hidden()  # there is no other one
    page.wait_for_function(
        "() => [...document.querySelectorAll('#duo video')].every(one => one.currentTime > 0.2)"
    )
    left, right = page.eval_on_selector_all("#duo video", "all => all.map(one => one.currentTime)")
    assert abs(left - right) < 0.2
    page.keyboard.press(" ")
    assert playing(page) == [False, False]
    page.get_by_role("button", name="Play").click()
    assert playing(page) == [True, True]
    scene.train_agent()
    expect(captions).to_have_text(["Before: after round 2", "Now: after round 3"])
    page.locator("#against").focus()
    page.keyboard.press("ArrowDown")  # by the keyboard alone
    expect(captions).to_have_text(["Before: after round 1", "Now: after round 3"])
    page.wait_for_function(
        "() => [...document.querySelectorAll('#duo video')].every(one => one.currentTime > 0)"
    )

    # The call: nothing asks for permission but the button, and only a hidden tab is rung for.
    assert page.evaluate("window.asked") == 0
    page.get_by_role("button", name="Notify me").click()
    expect(page.locator("#notify-note")).to_contain_text("the browser tells you")
    assert page.evaluate("window.asked") == 1
    page.evaluate(GO, True)
    expect(page.get_by_role("link", name="All rounds")).to_have_attribute("href", "/agents/shapes")
    less_motion = site.browser.new_context(reduced_motion="reduce")
    still = site.open(context=less_motion)
    in_view(still, "training")
    films_begin_paused(still, "#duo", 2)
    still.close()
    agents = site.open("/agents/shapes", context=less_motion)
    expect(agents.locator("#round")).to_have_text("Round 4 of 4")
    films_begin_paused(agents, "#films", 3)
    operator = site.open("/admin")
    operator.goto(f"{site.url}/agents/shapes")
    expect(operator.locator("#films video")).to_have_count(3)
    scene.collect()
    expect(agents.get_by_role("status")).to_contain_text("New clips are here")
    nothing_is_shown(agents)
    agents.reload()
    nothing_is_shown(agents)
    expect(operator.locator("#films video")).to_have_count(3)  # who runs it all may look at any time
    expect(operator.locator("#closed")).to_be_hidden()
    expect(page).to_have_title(re.compile("New clips"))
    page.wait_for_function("() => window.rung.length === 1 && window.rung[0].shown")
    assert page.evaluate("window.rung[0]") | {"closed": False} == {
        "title": "New clips are here", "tag": "lockstep-shapes", "shown": True, "closed": False,
    }  # fmt: skip
    with site.scene.database.read() as session:  # who is away keeps no pair from others
        leases = "SELECT count(*) FROM leases JOIN comparisons c ON c.id = comparison_id WHERE round_id = 4"
        assert session.connection().exec_driver_sql(leases).scalar() == 0
    page.evaluate(GO, False)
    in_view(page, "labeling")
    expect(page).to_have_title(re.compile("^Label"))
    page.wait_for_function("() => window.rung[0].closed")
    expect(page.locator("#films-area")).to_be_hidden()
    assert "ound" not in page.inner_text("body")
    label_the_batch(site, page)
    expect(agents.locator("#films video")).to_have_count(3)  # and between two batches they are there again
    expect(agents.locator("#round")).to_have_text("Round 4 of 4")
    expect(agents.locator("#closed")).to_be_hidden()


def nothing_is_shown(agents: Page) -> None:
    """Check that a labeler is told why there are no films, and nothing of rounds and their agents."""
    expect(agents.locator("#closed")).to_contain_text("films are shown between two rounds")
    expect(agents.locator("#films video")).to_have_count(0)
    expect(agents.locator("#play")).to_be_hidden()
    expect(agents.locator("#empty")).to_be_hidden()
    assert re.search(r"ound \d", agents.content()) is None


def test_in_the_first_round_the_time_is_not_known(site: Site) -> None:
    page = site.open()
    label_the_batch(site, page)
    expect(page.locator(".training-wait")).to_contain_text("once a trainer is free")
    site.scene.beat(site.scene.claim(), 0.01)
    expect(page.locator(".training-wait")).to_contain_text("not known yet: this is the first round")
