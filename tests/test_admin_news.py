"""The admin pages are told what is new, and ask nothing but the admin API: in a real browser."""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect

from tests.admin_scene import scene, url
from tests.scenes import Scene

__all__ = ["scene", "url"]

# The slow look goes round when the test says so.
BY_HAND = "window.slow = []; window.setInterval = (look, ms) => window.slow.push([look, ms]);"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context()
    yield opened
    opened.close()


def asked_by(page: Page) -> list[Request]:
    """Return the list in which every request of the page will stand."""
    found: list[Request] = []
    page.on("request", lambda one: found.append(one))
    return found


def test_the_pages_use_the_admin_api_and_nothing_else(
    scene: Scene, url: str, context: BrowserContext
) -> None:
    page = context.new_page()
    asked = asked_by(page)
    page.goto(f"{url}/admin")
    page.get_by_role("link", name="shapes").click()
    page.wait_for_selector("#chart-seconds .main-svg", timeout=20_000)
    expect(page.locator("#films .film")).to_have_count(1)
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator(".heading .badge.paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".heading .badge.running")).to_be_visible()
    with page.expect_download():
        page.get_by_role("button", name="Export").click()
    page.get_by_role("link", name="comparisons").last.click()
    page.locator(".comparison").first.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.querySelector('video').currentTime > 0")
    page.goto(f"{url}/labelers")
    page.get_by_role("button", name="Make a link").click()
    expect(page.locator("#made")).to_be_visible()
    page.goto(f"{url}/actions")
    page.goto(f"{url}/new?copy=shapes")
    page.locator("[name=name]").fill("again")
    page.get_by_role("button", name="Begin").click()
    expect(page.locator("h1")).to_have_text("again")
    documents = {one.url for one in asked if one.resource_type == "document"}
    others = {one.url for one in asked} - documents
    paths = {urlsplit(one).path for one in others if not one.startswith("blob:")}
    told = {path for path in paths if path.startswith("/api/")}
    assert {path for path in paths - told if not path.startswith("/static/")} <= {"/favicon.ico"}
    assert {path for path in told if not path.startswith("/api/admin/")} == set()
    assert {"/api/admin/news", "/api/admin/experiments/shapes/news", "/api/admin/experiments/shapes/films",
            "/api/admin/experiments/shapes/rounds/1/video.mp4"} <= told  # fmt: skip
    loaded = {urlsplit(one.headers["referer"]).path for one in asked if "plotly" in one.url}
    assert loaded == {"/admin/shapes", "/admin/again"}  # the pages with charts alone
    page = context.new_page()
    asked = asked_by(page)
    for path in ("/?all", "/label/shapes", "/agents/shapes", "/docs", "/join"):
        page.goto(url + path)
    assert [one.url for one in asked if "plotly" in one.url or "/admin" in one.url] == []


def test_the_overview_and_the_timeline_are_told_what_is_new(
    scene: Scene, url: str, context: BrowserContext
) -> None:
    pages = {}
    for path, place in (("/admin", "#live-part tbody td:nth-child(4)"), ("/admin/shapes", "#round-2 .says")):
        page = context.new_page()
        page.add_init_script(BY_HAND)
        with page.expect_request(lambda one: one.url.endswith("/news")):
            page.goto(url + path)
        pages[path] = page, page.locator(place)
    pages["/admin"][0].wait_for_timeout(2500)  # for the look that the first news ask for
    looks = [one for page, _ in pages.values() for one in [asked_by(page)]]
    pages["/admin"][0].wait_for_timeout(3000)
    assert [one.url for found in looks for one in found if one.resource_type == "fetch"] == []  # nobody polls
    attempt_id = scene.claim()
    scene.beat(attempt_id, 0.4)
    words = {"/admin": "40 %", "/admin/shapes": "40% done"}
    for path, (_, shown) in pages.items():
        expect(shown).to_contain_text(words[path], timeout=20_000)
    for page, _ in pages.values():  # where no news get through, something between may hold them back
        page.route(re.compile("/api/admin/.*news"), lambda route: route.abort())
        page.reload()
    scene.beat(attempt_id, 0.6)
    pages["/admin"][0].wait_for_timeout(1500)
    for path, (page, shown) in pages.items():
        expect(shown).to_contain_text(words[path])
        (every,) = page.evaluate("() => window.slow.map(([_, ms]) => ms)")
        assert 5_000 <= every <= 30_000
        page.evaluate("() => window.slow.forEach(([look]) => look())")
        expect(shown).to_contain_text(words[path].replace("40", "60"), timeout=10_000)
