"""The label page's controls, in a real browser: frames, speed, the lock, the last answers."""

from typing import Any

from playwright.sync_api import Page, expect

from tests.scenes import FPS, STEPS
from tests.test_label_page import Site, clip_ids, in_view, press, site, until

__all__ = ["site"]

TIMES = "all => all.map(one => one.currentTime)"


def frames(page: Page) -> list[int]:
    """Return which frame each clip of the pair on show stands at; Chromium calls the last one the end."""
    return [
        min(int(time * FPS), STEPS - 1) for time in page.eval_on_selector_all(".pair.current video", TIMES)
    ]


def test_frames_are_stepped_while_paused_and_answers_wait_until_the_end_was_shown(site: Site) -> None:
    page = site.open(reduced_motion="reduce")  # begins paused
    in_view(page, "labeling")
    before = clip_ids(page)
    answer = page.locator(".answers [data-action=left]")
    expect(answer).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#live")).to_contain_text("First watch both clips once")
    assert clip_ids(page) == before
    for _ in range(3):
        page.keyboard.press(".")
    assert frames(page) == [3, 3]
    page.keyboard.press(",")
    assert frames(page) == [2, 2]
    for _ in range(STEPS):
        page.get_by_role("button", name="One frame on").click()
    assert frames(page) == [STEPS - 1] * 2
    page.keyboard.press(",")
    assert frames(page) == [STEPS - 2] * 2
    expect(answer).to_have_attribute("aria-disabled", "false")
    page.keyboard.press("ArrowLeft")
    assert clip_ids(page) != before
    until(lambda: len(site.preferences()) == 1, "the answer")


def test_the_speed_is_remembered(site: Site) -> None:
    page = site.open(speed=1)
    in_view(page, "labeling")
    page.keyboard.press(",")
    expect(page.locator("#live")).to_contain_text("Pause first")
    page.keyboard.press("<")
    page.keyboard.press("<")
    expect(page.locator("#speed")).to_have_text("0.25×")
    page.reload()
    expect(page.locator("#speed")).to_have_text("0.25×")
    clip_ids(page)
    rate: Any = page.wait_for_function(
        "() => { const one = document.querySelector('.pair.current video');"
        " return !one.paused && one.playbackRate; }"
    ).json_value()
    assert 0.2 <= rate <= 0.32
    page.keyboard.press("<")
    expect(page.locator("#speed")).to_have_text("0.25×")
    page.get_by_role("button", name="Speed").click()
    expect(page.locator("#speed")).to_have_text("0.5×")
    for shown in ("1×", "1.5×", "2×", "2×"):  # no faster than that
        page.keyboard.press(">")
        expect(page.locator("#speed")).to_have_text(shown)
    page.reload()
    expect(page.locator("#speed")).to_have_text("2×")
    clip_ids(page)
    page.wait_for_function("() => document.querySelector('.pair.current video').currentTime > 0")
    rate = page.eval_on_selector(".pair.current video", "one => one.playbackRate")
    assert 1.5 <= rate <= 2.5  # 2, and what keeps the clips in step
    page.get_by_role("button", name="Speed").click()
    expect(page.locator("#speed")).to_have_text("0.25×")  # round and round


def test_instructions_are_shown_by_key(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    page.keyboard.press("h")
    expect(page.locator("#instructions")).to_contain_text("Which clip is closer")
    page.keyboard.press("h")
    expect(page.locator("#instructions")).to_be_hidden()


def test_an_earlier_answer_is_changed_until_the_batch_is_frozen(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp"):
        press(page, key)
    until(lambda: len(site.preferences()) == 3, "three answers")
    first = site.preferences()[0]
    page.reload()  # the page itself remembers nothing of them now
    in_view(page, "labeling")
    page.keyboard.press("Backspace")
    expect(page.locator("#recent")).to_be_visible()
    page.keyboard.press("l")
    expect(page.locator("#recent")).to_be_hidden()
    page.keyboard.press("?")
    page.get_by_label("Letters, digits and signs are keys here, too").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("l")
    expect(page.locator("#recent")).to_be_hidden()
    page.keyboard.press("Shift+?")
    expect(page.locator("#help")).to_be_hidden()
    page.evaluate("() => { localStorage.setItem('lockstep.keys', 'on'); location.reload(); }")
    in_view(page, "labeling")
    page.keyboard.press("l")
    rows = page.locator("#recent-list li")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("Equal")
    expect(rows.last).to_contain_text("Left is better")
    rows.last.get_by_role("button", name="Change").click()
    press(page, "ArrowRight")
    until(lambda: len(site.preferences()) == 4, "the answer anew")
    withdrawn, *_, anew = site.preferences()
    assert withdrawn.id == first.id
    assert withdrawn.withdrawn_at is not None
    assert anew.comparison_id == first.comparison_id
    assert [anew.ranks[index] for index in anew.shown] == [1, 0]  # type: ignore[index]
    for _ in range(3):
        press(page, "ArrowLeft")
    in_view(page, "grace")
    until(site.scene.close_labeling, "the end of the grace")
    in_view(page, "training")
    page.keyboard.press("l")
    expect(page.locator("#recent-note")).to_contain_text("its answers are final")
    expect(rows).to_have_count(0)


def test_a_name_is_changed_on_the_page(site: Site) -> None:
    page = site.open(viewport={"width": 1000, "height": 700})
    in_view(page, "labeling")
    longest = "w" * 80
    page.locator("#who").click()
    page.locator("#name").fill(longest)
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#who")).to_have_text(longest)
    page.reload()
    expect(page.locator("#who")).to_have_text(longest)
    expect(page.locator(".bar [data-action=help]")).to_be_in_viewport(ratio=1)
