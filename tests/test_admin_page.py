"""The admin pages in a real browser against a real server."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from shared.database import now
from shared.models import Aside, Experiment, Labeler, Preference
from tests import scenes
from tests.admin_scene import live_through
from tests.scenes import Scene, join, put_answer


@pytest.fixture
def scene(tmp_path: Path, sqlite_template: Path) -> Iterator[Scene]:
    path = tmp_path / "lockstep.db"
    path.write_bytes(sqlite_template.read_bytes())
    settings = scenes.settings_for(tmp_path, f"sqlite:///{path}", port=0, log_level="ERROR")
    labels = {"labels_per_comparison": 2, "comparisons_per_round": 12}
    with Scene(settings, rounds=9, labels=labels) as one:
        one.collect()
        yield one


@pytest.fixture
def url(scene: Scene) -> Iterator[str]:
    with scenes.serve(scene.settings) as address:
        yield address


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(color_scheme="light")
    opened, errors = context.new_page(), list[str]()
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


def colour(page: Page, selector: str) -> Any:
    return page.eval_on_selector(selector, "one => getComputedStyle(one).fill")


def ask_ada_once_more(scene: Scene) -> None:
    """Let ada have answered three comparisons once more, one of them otherwise than before."""
    with scene.database.write() as session:
        moment = now(session)
        ada = session.query(Labeler).filter_by(name="ada").one().id
        given = session.query(Preference).filter_by(labeler_id=ada).order_by(Preference.answered_at).limit(3)
        for number, one in enumerate(given.all()):
            again = one.ranks if number else ([0, 0] if one.ranks != [0, 0] else [0, 1])
            aside = Aside(kind="repeat", comparison_id=one.comparison_id, labeler_id=ada, state="answered")
            aside.ranks, aside.shown, aside.answer_id = again, one.shown[::-1], str(uuid.uuid4())
            aside.created_at = aside.asked_at = aside.answered_at = moment
            session.add(aside)


def test_every_chart_is_drawn_and_has_its_table(scene: Scene, url: str, page: Page) -> None:
    live_through(scene, lambda: httpx.Client(base_url=url))
    ask_ada_once_more(scene)
    page.goto(f"{url}/admin/shapes")
    for chart in (
        "consistency",
        "reward_curve",
        "ppo",
        "returns",
        "reward_loss",
        "reward_accuracy",
        "agent",
        "pace",
        "answers",
        "agreement",
        "seconds",
        "calibration",
        "throughput",
    ):
        article = page.locator(f"#chart-{chart}")
        expect(article.locator(".main-svg").first).to_be_visible(timeout=20_000)
        box, plot = article.bounding_box(), article.locator(".main-svg").first.bounding_box()
        assert box
        assert plot
        assert plot["width"] <= box["width"]
        article.locator("summary").click()
        expect(article.locator("tbody tr").first).to_be_visible()
    expect(page.locator("#chart-consistency tbody tr").first).to_contain_text("ada3")
    expect(page.locator("#chart-consistency .says")).to_contain_text("as before in 2 of 3")
    expect(page.locator("#chart-returns .warning")).to_contain_text("In round 4 the predicted return rose")
    expect(page.locator("#chart-returns tbody tr").nth(3)).to_have_text("42184")
    expect(page.locator("#films .film")).to_have_count(4)
    strip = page.locator("script[src$='charts.js']").get_attribute("src").replace("charts.js", "strip.js")
    page.evaluate(
        """async (strip) => {
          const video = document.querySelector("#films video").src;
          const rounds = Array.from({length: 30}, (_, i) => ({round: i + 1, video: `${video}&film=${i}`}));
          (await import(strip)).update(rounds);
        }""",
        strip,
    )
    captions = page.locator("#films figcaption")
    expect(captions).to_have_text([*(f"Round {number}" for number in range(19, 30)), "Round 30 · newest"])
    page.get_by_role("button", name="Earlier").click()
    expect(captions).to_have_text([f"Round {number}" for number in range(7, 19)])
    light = colour(page, "#chart-returns .xtick text")
    page.emulate_media(color_scheme="dark")
    expect(page.locator("#chart-returns .main-svg").first).to_be_visible()
    page.wait_for_function(
        "light => getComputedStyle(document.querySelector('#chart-returns .xtick text')).fill !== light",
        arg=light,
    )


def test_the_timeline_keeps_what_was_opened_while_it_renews_itself(
    scene: Scene, url: str, page: Page
) -> None:
    live_through(scene, lambda: httpx.Client(base_url=url), 1)
    page.goto(f"{url}/admin/shapes")
    expect(page.locator("#round-2")).to_have_attribute("open", "")
    expect(page.locator("#round-2 .says")).to_have_text("waits for a free agent trainer")
    page.locator("#round-1 > summary").click()
    page.locator("#round-2 > summary").click()
    pause = page.get_by_role("button", name="Pause", exact=True)
    pause.focus()
    page.evaluate("scrollTo(0, 200)")
    attempt_id = scene.claim()
    scene.beat(attempt_id, 0.4)
    expect(page.locator("#round-2 .says")).to_have_text("40% done", timeout=10_000)
    expect(page.locator("#round-1")).to_have_attribute("open", "")
    expect(page.locator("#round-2")).not_to_have_attribute("open", "")
    expect(pause).to_be_focused()
    assert page.evaluate("scrollY") == 200


def test_the_clips_of_a_comparison_play_together_beside_their_answers(
    scene: Scene, url: str, page: Page
) -> None:
    live_through(scene, lambda: httpx.Client(base_url=url), 1)
    page.goto(f"{url}/admin/shapes")
    page.get_by_role("link", name="comparisons").last.click()
    expect(page.locator(".comparison")).to_have_count(10)
    first = page.locator(".comparison").first
    expect(first.locator(".answers-given > [aria-label^=Answers] tbody tr")).to_have_count(2)
    expect(first.locator(".spark")).to_have_count(2)
    expect(first.locator("figcaption").first).to_have_text("Clip 1 · 75 %")
    expect(first.locator(".moment")).to_have_count(2)
    first.get_by_role("slider").fill("25")
    both = "() => [...document.querySelector('.comparison').querySelectorAll('video')].every(one => {})"
    page.wait_for_function(both.format("one.currentTime > 0.95"))
    for mark in first.locator(".moment").all():
        assert mark.get_attribute("transform") == "translate(200 0)"
    first.get_by_role("button", name="Play").click()
    page.wait_for_function(both.format("!one.paused"))
    place = "parseFloat(document.querySelector('.moment').getAttribute('transform').slice(10))"
    page.wait_for_function(f"() => 0 < {place} && {place} < 200")
    first.locator("summary").click()
    expect(first.get_by_role("row", name="25 1.40 -1.40")).to_be_visible()
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".comparison")).to_have_count(2)
    page.get_by_role("link", name="Previous").click()
    expect(page.locator(".comparison")).to_have_count(10)


def test_a_preset_becomes_an_experiment_once_its_errors_are_mended(
    scene: Scene, url: str, page: Page
) -> None:
    page.goto(f"{url}/admin")
    page.get_by_role("link", name="New experiment").click()
    page.get_by_role("link", name="cartpole").click()
    page.locator("[name=name]").fill("Mine!")
    page.locator("[name='agent.gamma']").fill("2")
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("#problem")).to_contain_text("see the marked fields")
    expect(page.locator("[id='name-error']")).to_contain_text("pattern")
    expect(page.locator("[id='agent.gamma-error']")).to_contain_text("less than 1")
    expect(page.locator("[aria-invalid]")).to_have_count(2)
    expect(page.locator("[name=name]")).to_be_focused()
    page.locator("[name=name]").fill("mine")
    page.locator("[name='agent.gamma']").fill("0.9")
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("h1")).to_have_text("mine")
    expect(page.get_by_text("the preset cartpole")).to_be_visible()
    with scene.database.read() as session:
        made = session.query(Experiment).filter_by(name="mine").one().config
    assert made["agent"]["gamma"] == 0.9


def test_an_experiment_is_copied_and_ended_only_when_asked_twice(scene: Scene, url: str, page: Page) -> None:
    with httpx.Client(base_url=url) as ada:
        join(ada, "ada")
        put_answer(ada, scene.claims(ada, 1)["comparisons"][0]["id"], [0, 1]).raise_for_status()
    page.goto(f"{url}/admin/shapes")
    page.get_by_role("link", name="Copy").click()
    expect(page.locator("[name='labels.comparisons_per_round']")).to_have_value("12")
    page.locator("[name=name]").fill("shapes")
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("#name-error")).to_contain_text("already")
    expect(page.locator("[name=name]")).to_be_focused()
    page.locator("[name=name]").fill("again")
    labels = page.get_by_label("labels from")
    page.locator("[name='segments.length']").fill("10")
    expect(labels.locator("option:enabled")).to_have_count(1)
    expect(labels.locator("option:disabled")).to_have_text(
        "shapes: 1 answer (given with segments.length = 25)"
    )
    page.locator("[name='segments.length']").fill("25")
    labels.select_option("shapes")
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("h1")).to_have_text("again")
    expect(page.locator("#history")).to_contain_text("a copy of shapes")
    with scene.database.read() as session:
        first, second = (one.config for one in session.query(Experiment).order_by(Experiment.id))
    assert second == first | {"name": "again"}
    expect(page.locator("#history")).to_contain_text("imported")
    page.get_by_role("button", name="Finish").click()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Finish")).to_be_focused()
    expect(page.locator(".heading .badge.running")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("cannot be resumed")
    page.keyboard.type("good enough")
    page.keyboard.press("Enter")
    expect(page.locator(".heading .badge.finished")).to_be_visible()
    expect(page.locator("#history")).to_contain_text("good enough")
