"""Ranking three or four clips on the label page, in a real browser against a real server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.page_checks import LABEL_PAGE_BYTES, LARGE, SETTLED, SMALL, bytes_on_the_wire, found_on
from tests.test_label_page import Site, site_in, until

SEEN = ".pair.current.seen"


@pytest.fixture
def clips() -> int:
    """How many clips a comparison has."""
    return 4


@pytest.fixture
def site(tmp_path: Path, sqlite_template: Path, browser: Browser, clips: int) -> Iterator[Site]:
    labels = {"clips_per_comparison": clips, "comparisons_per_round": 8, "practice": 1}
    with site_in(tmp_path, sqlite_template, browser, labels=labels) as one:
        yield one


def by_place(site: Site) -> list[list[int] | None]:
    """Return the standing answers, in the order they were given, by the place at which clips were shown."""
    return [
        None if one.ranks is None else [one.ranks[clip] for clip in one.shown]
        for one in site.preferences()
        if one.withdrawn_at is None
    ]


def press(page: Page, *keys: str) -> None:
    """Press keys once the clips on show can be answered."""
    page.wait_for_selector(SEEN)
    for key in keys:
        page.keyboard.press(key)


def shelf(page: Page) -> list[str]:
    """Return the tiers on the shelf."""
    return [text.strip() for text in page.locator(".tier").all_inner_texts()]


def drag(page: Page, what: Locator, onto: Locator, part: float = 0.5) -> None:
    """Drag with the mouse to a part of the width of another thing, some steps on the way."""
    start, end = what.bounding_box(), onto.bounding_box()
    assert start
    assert end
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + 20)
    page.mouse.down()
    page.mouse.move(end["x"] + part * end["width"], end["y"] + end["height"] / 2, steps=4)
    page.mouse.up()


def test_clips_are_ranked_by_keys_by_dragging_and_by_buttons(site: Site) -> None:
    page = site.open(viewport={"width": 1120, "height": 640}, reduced_motion="reduce")  # begins paused
    page.wait_for_selector(".pair.current.ready")
    page.keyboard.press("1")
    expect(page.locator("#toast")).to_contain_text("First watch all clips once")
    assert shelf(page) == []
    page.keyboard.press(" ")
    expected: list[list[int] | None] = []

    def answered(*ranks: int) -> None:
        expected.append([*ranks])
        until(lambda: by_place(site) == expected, f"the answers {expected}, not {by_place(site)}")

    # By keys: 3, then 1 = 4, then 2; the last number sends it. What is wrong is taken back step by step.
    press(page, "3", "2")
    expect(page.locator(".current .rank .place")).to_have_text(["3rd?", "2nd", "1st", "3rd?"])
    page.keyboard.press("Backspace")
    press(page, "1", "=", "4")
    expect(page.locator(".current .rank .place")).to_have_text(["= 2nd", "4th?", "1st", "= 2nd"])
    press(page, "2")
    answered(1, 2, 0, 1)
    expect(page.locator("#live")).to_have_text("Best first: 3, then 1 = 4, then 2")
    # Backspace on an untouched comparison undoes the answer; its clips come back, without the ranking.
    first = [video.get_attribute("src") for video in page.locator(".pair.current video").all()]
    page.keyboard.press("Backspace")
    expected.clear()
    until(lambda: by_place(site) == [], "the undo")
    assert [video.get_attribute("src") for video in page.locator(".pair.current video").all()] != first
    assert shelf(page) == []
    press(page, "2", "Enter")  # those without a place share the last one
    answered(1, 0, 1, 1)
    press(page, "ArrowUp")
    answered(0, 0, 0, 0)

    # By dragging: behind, in front, onto one, within the shelf; nothing is sent before it is confirmed.
    page.wait_for_selector(SEEN)
    videos, tiers = page.locator(".pair.current video"), page.locator(".tier")
    drag(page, videos.nth(0), page.locator(".slot").last)
    drag(page, videos.nth(1), tiers.first, part=0.1)
    drag(page, videos.nth(2), tiers.last)
    assert [text.split() for text in shelf(page)] == [["2"], ["1", "3"]]
    drag(page, videos.nth(3), tiers.last, part=0.9)
    drag(page, page.locator(".chip", has_text="1"), tiers.first)
    assert [text.split() for text in shelf(page)] == [["2", "1"], ["3"], ["4"]]
    assert len(by_place(site)) == 2
    page.get_by_role("button", name="Done").click()
    answered(0, 0, 1, 2)

    # By buttons alone, as with a finger or a screen reader; a chip takes its clip out again.
    page.wait_for_selector(SEEN)
    for name in ("Clip 4", "Clip 2"):
        page.locator(".pair.current").get_by_role("button", name=name).click()
    page.get_by_role("button", name="4: take this clip out").click()
    assert shelf(page) == ["2"]
    page.get_by_role("button", name="Equal to 2").click()
    expect(page.locator(".answers [data-action=tie]")).to_have_attribute("aria-pressed", "true")
    for name in ("Clip 1", "Clip 3", "Clip 4"):
        page.locator(".pair.current").get_by_role("button", name=name).click()
    answered(0, 0, 1, 2)
    press(page, "4", "ArrowDown")
    expected.append(None)
    until(lambda: by_place(site) == expected, "the answer that they cannot be compared")

    page.keyboard.press("l")
    rows = page.locator("#recent-list li")
    expect(rows).to_have_count(5)
    expect(rows.first).to_contain_text("Cannot compare")
    expect(rows.nth(3)).to_contain_text("All equal")
    expect(rows.last).to_contain_text("Best first: 2, then 1 = 3 = 4")
    page.keyboard.press("l")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_contain_text("this clip is next, the best one first")


@pytest.mark.parametrize("clips", [3])
def test_three_clips_are_ranked_in_one_row_or_two(site: Site) -> None:
    page = site.open()
    page.wait_for_selector(".pair.current.ready")
    for size in (LARGE, SMALL):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.evaluate(SETTLED)
        boxes = [one.bounding_box() for one in page.locator(".pair.current video").all()]
        assert len({(round(box["width"]), round(box["height"])) for box in boxes if box}) == 1, boxes
        first, second, third = ((box["x"], box["y"], box["width"]) for box in boxes if box)
        assert first[0] + first[2] <= second[0]
        assert abs(first[1] - second[1]) < 1
        if size is LARGE:
            assert second[0] + second[2] <= third[0]
            assert abs(second[1] - third[1]) < 1
        else:
            assert third[1] > first[1] + 40
            assert abs(third[0] - (first[0] + second[0]) / 2) < 1  # below the two, in the middle
        for box in boxes:
            assert box
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= size["width"]
    page.set_viewport_size(LARGE)  # type: ignore[arg-type]
    assert page.locator(".pair.current .rank kbd").all_inner_texts() == ["1", "2", "3"]
    assert page.locator(".answers button kbd").all_inner_texts() == ["=", "↓", "Enter"]
    page.evaluate(
        """() => {
          const flashes = (one) => one.getAnimations().length > 0;
          const all = [...document.querySelectorAll('.answers button')];
          const tell = () => (window.flashing = all.filter(flashes).map((one) => one.dataset.action));
          addEventListener('keydown', tell);
        }"""
    )
    press(page, "4", "3", "=", "1")  # there is no fourth one
    assert page.evaluate("window.flashing") == []
    expect(page.locator(".current .rank .place")).to_have_text(["= 1st", "3rd?", "= 1st"])
    page.keyboard.press("2")
    assert page.evaluate("window.flashing") == ["done"]
    until(lambda: by_place(site) == [[0, 1, 0]], "1 = 3, then 2")
    press(page, "2", "Enter")
    until(lambda: by_place(site) == [[0, 1, 0], [1, 0, 1]], "2, then the rest")


def test_the_ranking_is_accessible_and_all_clips_have_one_size_on_any_screen(site: Site) -> None:
    page = site.open(bypass_csp=True, has_touch=True)
    press(page, "2", "=")
    found = found_on(page, "ranking")
    for width, height in ((1280, 800), (390, 844), (800, 360)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(100)
        boxes = [one.bounding_box() for one in page.locator(".pair.current video").all()]
        assert len({(round(box["width"]), round(box["height"])) for box in boxes if box}) == 1, boxes
        for one in page.locator(".pair.current .rank, .answers button").all():
            box = one.bounding_box()
            assert box
            assert box["height"] >= 44, (width, one.inner_text(), box)
            assert box["width"] >= 44, (width, one.inner_text(), box)
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
    page.set_viewport_size({"width": 390, "height": 844})
    finger = page.context.new_cdp_session(page)
    start, end = (page.locator(one).first.bounding_box() for one in (".pair.current video", ".slot"))
    assert start
    assert end
    for kind, at in (("touchStart", start), ("touchMove", end), ("touchMove", end), ("touchEnd", None)):
        touches = [{"x": at["x"] + 20, "y": at["y"] + 20}] if at else []
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
    assert shelf(page) == ["2", "1"]
    page.keyboard.press("?")
    found += found_on(page, "help")
    assert found == [], "\n".join(found)


def test_the_heaviest_label_page_is_light(site: Site) -> None:
    sizes = bytes_on_the_wire(site.browser.new_context().new_page(), site.url + "/label/shapes")
    assert any(address.endswith("/practice.js") for address in sizes)
    assert any(address.endswith("/ranker.js") for address in sizes)
    assert sum(sizes.values()) < LABEL_PAGE_BYTES, sizes
