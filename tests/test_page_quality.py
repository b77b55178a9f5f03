"""Every page and every view by the rules of `page_checks.py`; and how heavy the label page is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from shared import rounds
from tests.doors import Gate, open_gate
from tests.page_checks import (
    LABEL_PAGE_BYTES,
    bar_is_seen_in_forced_colours,
    bytes_on_the_wire,
    found_on,
)
from tests.scenes import free_ports, join
from tests.test_label_page import Site, in_view, site, site_in, until
from tests.test_waiting_page import live_through

__all__ = ["site"]

PATHS = (
    "/?all",
    "/docs",
    "/nowhere",
    "/agents/shapes",  # as a labeler, who is shown nothing while people answer
    "/admin",
    "/new?preset=cartpole",
    "/labelers",
    "/actions",
    "/agents/shapes",  # as the operator, with films
    "/admin/shapes/rounds/1",
)


@pytest.fixture
def gate(tmp_path: Path, sqlite_template: Path) -> Iterator[Gate]:
    path = tmp_path / "gate.db"
    path.write_bytes(sqlite_template.read_bytes())
    yield from open_gate(tmp_path, f"sqlite:///{path}", log_level="ERROR")


@pytest.fixture
def patient_site(tmp_path: Path, sqlite_template: Path, browser: Browser) -> Iterator[Site]:
    """A site with pairs enough for two, who keep them for as long as axe takes on a slow machine."""
    (port,) = free_ports(1)
    labels = {"comparisons_per_round": 8, "lease_s": 900.0}
    with site_in(tmp_path, sqlite_template, browser, port, labels=labels) as one:
        yield one


def test_the_pages_at_the_door_are_for_everyone(gate: Gate, browser: Browser) -> None:
    page = browser.new_context(bypass_csp=True).new_page()
    found = []
    for what, path in (
        ("log-in", "/"),
        ("admin", "/admin"),
        ("invited", f"/join#{gate.invite()}"),
        ("used", "/join#x"),
    ):
        page.goto(gate.url + path)
        if what in ("invited", "used"):
            page.wait_for_selector("#problem:not(:empty), #invited:not([hidden])")
        found += found_on(page, what)
    assert found == [], "\n".join(found)


def tab_through(page: Page, presses: int) -> list[tuple[str, float]]:
    """Press Tab so often; return what each reached, and how wide its outline is in pixels."""
    tell = """() => { const one = document.activeElement;
      return [one.dataset.action ?? one.id, parseFloat(getComputedStyle(one).outlineWidth)]; }"""
    reached = []
    for _ in range(presses):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(tell)
        reached.append((str(name), float(outline)))
    return reached


def test_every_page_is_for_everyone(site: Site) -> None:
    live_through(site, 2)
    page = site.browser.new_context(bypass_csp=True).new_page()
    found = []
    for path in PATHS:
        page.goto(site.url + path)
        page.wait_for_timeout(150)
        found += found_on(page, path)
    page.goto(site.url + "/admin/shapes")
    page.wait_for_selector("#chart-seconds .main-svg", timeout=20_000)
    page.locator("#chart-seconds summary").click()
    found += found_on(page, "an experiment with its charts")
    page.get_by_role("button", name="Abandon").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    found += found_on(page, "a question before what cannot be taken back")
    assert found == [], "\n".join(found)


def test_every_view_of_the_label_page_is_for_everyone(patient_site: Site) -> None:
    site = patient_site
    live_through(site, 2)
    scene = site.scene
    context = site.browser.new_context(bypass_csp=True)
    with held_back(context, "**/api/me"):
        page = site.open(context=context)
        in_view(page, "loading")
        found = found_on(page, "loading")
    in_view(page, "labeling")
    found += found_on(page, "labeling, locked")
    page.wait_for_selector(".pair.current.seen")
    page.wait_for_timeout(1000)
    found += found_on(page, "labeling")
    reached = tab_through(page, 14)
    assert {"left", "tie", "incomparable", "right", "skip", "pause", "help"} <= {name for name, _ in reached}
    assert [name for name, outline in reached if outline < 2] == []  # each shows where the keyboard is
    for key in ("?", "h", "l"):
        page.keyboard.press(key)
        found += found_on(page, f"dialog {key}")
        page.keyboard.press(key)
    page.locator("#who").focus()
    page.keyboard.press("Enter")
    found += found_on(page, "dialog of the name")
    page.keyboard.press("Escape")
    expect(page.locator("#who")).to_be_focused()  # a dialog gives the focus back

    found += found_in_trouble(page)
    with httpx.Client(base_url=site.url) as other:
        join(other, "bob")
        held = scene.claims(other)["comparisons"]
        assert held
        with held_back(context, "**/api/preferences/*"):
            while not page.locator("body[data-view=sending]").count():
                page.wait_for_selector("body[data-view=sending], .pair.current.seen")
                page.keyboard.press("ArrowLeft")
            found += found_on(page, "sending")
        in_view(page, "waiting")
        found += found_on(page, "waiting for others")
        scene.label_all(other)
    in_view(page, "grace")
    found += found_on(page, "grace")
    until(scene.close_labeling, "the end of the grace")
    in_view(page, "training")
    attempt_id = scene.claim()
    scene.beat(attempt_id, 0.4)
    page.wait_for_function("() => document.querySelectorAll('#duo video').length === 2")
    found += found_on(page, "training, with two films")
    assert bar_is_seen_in_forced_colours(page, "[data-stage=training_reward] progress")
    act = {"pause": rounds.pause, "resume": rounds.resume}
    for view, action in (("paused", "pause"), ("training", "resume")):
        with scene.database.write() as session:
            act[action](session, scene.id, "ann")
        in_view(page, view)
        found += found_on(page, view) if view == "paused" else []
    with scene.database.write() as session:
        rounds.fail(session, attempt_id, "boom", 1)
    in_view(page, "failed")
    found += found_on(page, "failed")
    with scene.database.write() as session:
        rounds.abandon(session, scene.id, "ann", "enough")
    in_view(page, "ended")
    found += found_on(page, "ended")
    assert found == [], "\n".join(found)


@contextmanager
def held_back(context: BrowserContext, what: str) -> Iterator[None]:
    """Let what is asked of these addresses wait until the block is left."""
    waiting: list[Route] = []
    context.route(what, lambda route: waiting.append(route))
    yield
    for one in waiting:
        one.continue_()
    context.unroute(what)  # which lets through what came meanwhile


def found_in_trouble(page: Page) -> list[str]:
    """Return what is wrong with the label page when it is paused, cut off, and refused an answer."""
    toast = page.locator("#toast")
    page.evaluate("() => { document.getElementById('toast').classList.remove = () => {}; }")  # it stays
    page.evaluate("() => document.activeElement.blur()")  # or Space would press a button
    page.keyboard.press(" ")
    expect(toast).to_have_text("Paused")
    found = found_on(page, "paused by the labeler")
    page.keyboard.press(" ")

    page.context.set_offline(True)
    page.wait_for_selector(".pair.current.seen")
    page.keyboard.press("ArrowLeft")
    banner = page.locator("#offline")
    expect(banner).to_contain_text("One answer is kept here")
    found += found_on(page, "without a connection")
    page.context.set_offline(False)
    expect(banner).to_be_hidden(timeout=15_000)

    late = {"status": 409, "reason": "lease_lost", "detail": "your hold on these clips ran out"}
    page.route("**/api/preferences/*", lambda route: route.fulfill(status=409, json=late))
    page.wait_for_selector(".pair.current.seen")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#alarm")).to_contain_text("One answer was not taken")
    expect(toast).to_have_class("shown loud")
    found += found_on(page, "an answer refused")
    page.unroute("**/api/preferences/*")
    page.evaluate("() => { delete document.getElementById('toast').classList.remove; }")
    page.keyboard.press("l")
    expect(page.locator("#recent-list li")).to_have_count(1)
    found += found_on(page, "the last answers")
    page.keyboard.press("l")
    return found


def test_the_label_page_is_light(site: Site) -> None:
    sizes = bytes_on_the_wire(site.browser.new_context().new_page(), site.url + "/label/shapes")
    assert any(address.endswith("/label.js") for address in sizes)
    assert sum(sizes.values()) < LABEL_PAGE_BYTES, sizes
