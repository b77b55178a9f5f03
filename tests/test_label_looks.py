"""How the label page looks, in a real browser: its clips, its instructions, its buttons. All share a site."""

import statistics
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import Browser, Page, expect

from services.agent_trainer.clips import encode_mp4
from tests import scenes
from tests.page_checks import LARGE, SETTLED, SMALL
from tests.test_label_page import Site, in_view, press, site_in

INSTRUCTIONS = """Which one is **better**?

1. Watch both
2. Think of [safety](https://example.org/safety)

<b id="raw">raw</b><script>window.ran = 1</script><img src="x" onerror="window.ran = 1">
[bad](javascript:window.ran=1) ![far](https://example.org/far.png)
"""
ANSWERS = {"left": "←", "tie": "↑", "incomparable": "↓", "right": "→"}
TOOLS = {
    "undo": ["⌫"], "skip": ["S"], "pause": ["Space"], "back": [","], "forward": ["."], "speed": ["<", ">"],
    "recent": ["L"], "instructions": ["H"],
}  # fmt: skip

# What flashes is held at its first moment, and told.
HOLD_FLASHES = """() => {
  document.getElementById('toast').hidden = true;
  addEventListener('keydown', (event) => {
    if (!event.key.startsWith('Arrow')) return;
    const all = [...document.querySelectorAll('.answers button')];
    window.held = all.flatMap((one) => one.getAnimations());
    for (const one of window.held) { one.pause(); one.currentTime = 0; }
    window.flashing = all.filter((one) => one.getAnimations().length).map((one) => one.dataset.action);
  });
}"""

# At every frame for so long: the moment, and where both clips stand; in seconds.
SAMPLE = """async (seconds) => {
  const [left, right] = document.querySelectorAll('.pair.current video');
  const seen = [];
  for (const end = performance.now() + 1000 * seconds; performance.now() < end;) {
    const now = await new Promise(requestAnimationFrame);
    seen.push([now / 1000, left.currentTime, right.currentTime]);
  }
  return seen;
}"""


@pytest.fixture(scope="module")
def looks(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, browser: Browser
) -> Iterator[Site]:
    """An experiment with elaborate instructions, and comparisons enough for everybody here."""
    folder = tmp_path_factory.mktemp("looks")
    labels = {"comparisons_per_round": 24, "instructions": INSTRUCTIONS}
    with site_in(folder, sqlite_template, browser, labels=labels) as one:
        yield one


def test_clips_lie_side_by_side_on_a_desktop_and_one_above_the_other_on_a_phone(looks: Site) -> None:
    page = looks.open(viewport=LARGE)
    page.wait_for_selector(".pair.current.ready")
    for size in (LARGE, SMALL):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.evaluate(SETTLED)
        first, second = (one.bounding_box() for one in page.locator(".pair.current video").all())
        assert first
        assert second
        assert abs(first["width"] - second["width"]) < 1
        assert abs(first["height"] - second["height"]) < 1
        assert first["width"] > size["width"] / 4  # they are what the page is about
        for box in (first, second):
            assert box["x"] >= 0
            assert box["y"] >= 0
            assert box["x"] + box["width"] <= size["width"]
            assert box["y"] + box["height"] <= size["height"]
        if size is LARGE:
            assert abs(first["y"] - second["y"]) < 1
            assert first["x"] + first["width"] <= second["x"]
            expect(page.get_by_role("button", name="Left", exact=False)).to_be_visible()
        else:
            assert abs(first["x"] - second["x"]) < 1
            assert first["y"] + first["height"] <= second["y"]
            expect(page.get_by_role("button", name="Upper", exact=False)).to_be_visible()

    # Small clips keep their pixels' edges; large ones, with more of them than are shown, are smoothed.
    style = "all => all.map(one => [one.videoWidth < 400, getComputedStyle(one).imageRendering])"
    assert page.eval_on_selector_all(".pair.current video", style) == [[True, "pixelated"]] * 2
    large = encode_mp4(np.full((10, 300, 420, 3), 90, np.uint8), scenes.FPS)
    other = page.context.new_page()
    other.route("**/api/clips/*.mp4*", lambda route: route.fulfill(body=large, content_type="video/mp4"))
    other.goto(f"{looks.url}/label/shapes")
    other.wait_for_selector(".pair.current.ready")
    assert other.eval_on_selector_all(".pair.current video", style) == [[False, "auto"]] * 2


def test_instructions_are_markdown_and_nothing_in_them_runs(looks: Site) -> None:
    page = looks.open()
    in_view(page, "labeling")
    page.keyboard.press("h")
    for place in (".question", "#instructions"):
        one = page.locator(place)
        expect(one.locator("strong")).to_have_text("better")
        expect(one.locator("ol li")).to_have_count(2)
        expect(one.get_by_role("link", name="safety")).to_have_attribute("href", "https://example.org/safety")
        expect(one).to_contain_text('<b id="raw">raw</b><script>window.ran = 1</script><img src="x"')
        assert one.locator("script, img, #raw, [href^=javascript]").count() == 0
    assert page.evaluate("window.ran") is None


def test_every_control_shows_its_key(looks: Site) -> None:
    page = looks.open(viewport=LARGE, reduced_motion="reduce")  # paused: with the buttons that step a frame
    in_view(page, "labeling")
    shown = {
        action: [one.inner_text() for one in page.locator(f"{place} [data-action={action}] kbd").all()]
        for place, keys in ((".answers", ANSWERS), ("#view-labeling .tools", TOOLS))
        for action in keys
    }
    assert shown == {action: [key] for action, key in ANSWERS.items()} | TOOLS
    for one in page.locator("#view-labeling :is(.answers, .tools) button").all():
        expect(one).to_be_visible()
        expect(one.locator("kbd").first).to_be_visible()
    assert page.locator(".answers button").count() == len(ANSWERS)


def picture_of(page: Page, action: str) -> Image.Image:
    """Photograph an answer's button with a little of what is around it."""
    box = page.locator(f".answers [data-action={action}]").bounding_box()
    assert box
    around = {"x": box["x"] - 4, "y": box["y"] - 4, "width": box["width"] + 8, "height": box["height"] + 8}
    return Image.open(BytesIO(page.screenshot(clip=around))).convert("RGB")  # type: ignore[arg-type]


def test_the_choice_flashes(looks: Site) -> None:
    page = looks.open(viewport=LARGE)
    in_view(page, "labeling")
    page.evaluate(HOLD_FLASHES)
    for key, action in (("Left", "left"), ("Up", "tie"), ("Down", "incomparable"), ("Right", "right")):
        press(page, f"Arrow{key}")
        page.keyboard.press(" ")  # the next clips wait, so nothing but the flash changes
        assert page.evaluate("window.flashing") == [action]
        flashing = picture_of(page, action)
        page.evaluate("held.forEach((one) => one.finish())")
        rest = picture_of(page, action)
        changed = np.asarray(ImageChops.difference(flashing, rest)).max(axis=2) > 30
        assert changed.mean() > 0.05, (action, changed.mean())  # a ring around it, at least
        page.keyboard.press(" ")


def test_the_clips_run_in_step_hold_their_last_picture_and_loop(looks: Site) -> None:
    page = looks.open(speed=1)
    in_view(page, "labeling")
    page.wait_for_function("() => document.querySelector('.pair.current video').currentTime > 0.2")
    seen = page.evaluate(SAMPLE, 5)
    apart = [abs(left - right) for _, left, right in seen]
    assert statistics.median(apart) < 0.02
    assert sorted(apart)[int(0.95 * len(apart))] < 1 / scenes.FPS
    holds, stood_at, reached = [], 0.0, 0.0
    for (_, *before), (now, *after) in pairwise(seen):
        if min(after) < min(before) - 0.5:  # back at the beginning
            holds.append(now - stood_at)
            reached = 0.0
        if max(after) > reached + 0.001:  # still one of them moves
            stood_at, reached = now, max(after)
    assert len(holds) >= 2  # it went round at least twice
    assert statistics.median(holds) > 0.35, holds  # 0.6 s, less what a busy machine's players come late
