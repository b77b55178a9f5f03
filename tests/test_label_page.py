"""The label page in a real browser against a real server."""

import json
import re
import sqlite3
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from sqlalchemy import Engine, event

from benchmarks.label_page import WATCH, measure
from shared.models import Clip, Comparison, Labeler, Lease, Preference
from tests import scenes
from tests.scenes import Scene

OUTBOX = "Object.entries(localStorage).filter(([key]) => key.startsWith('lockstep.outbox.'))"


@dataclass
class Site:
    """A server that can be stopped and started again on its port, and an experiment."""

    scene: Scene
    browser: Browser
    url: str = ""
    errors: list[str] = field(default_factory=list)
    running: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        self.url = self.running.enter_context(scenes.serve(self.scene.settings))

    def stop(self) -> None:
        self.running.close()

    def open(
        self,
        path: str = "/label/shapes",
        context: BrowserContext | None = None,
        speed: float = 2,
        **options: Any,
    ) -> Page:
        page = (context or self.browser.new_context(**options)).new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.add_init_script(f"localStorage['lockstep.speed'] ??= {speed}")
        page.goto(self.url + path)
        return page

    def preferences(self) -> list[Preference]:
        with self.scene.database.read() as session:
            return session.query(Preference).order_by(Preference.answered_at).all()


@contextmanager
def site_in(
    folder: Path, sqlite_template: Path, browser: Browser, port: int = 0, **options: Any
) -> Iterator[Site]:
    """An experiment of `options` and its server; at the end no page may have met an error."""
    path = folder / "lockstep.db"
    path.write_bytes(sqlite_template.read_bytes())
    settings = scenes.settings_for(folder, f"sqlite:///{path}", port=port, log_level="ERROR")
    with Scene(settings, **options) as scene:
        scene.collect()
        one = Site(scene, browser)
        one.start()
        yield one
        for context in browser.contexts:
            context.close()
        one.stop()
    assert one.errors == []


@pytest.fixture
def site(tmp_path: Path, sqlite_template: Path, browser: Browser) -> Iterator[Site]:
    (port,) = scenes.free_ports(1)
    with site_in(tmp_path, sqlite_template, browser, port) as one:
        yield one


def in_view(page: Page, view: str) -> None:
    expect(page.locator("body")).to_have_attribute("data-view", view, timeout=10_000)


def press(page: Page, key: str) -> None:
    """Press `key` once the pair on show can be answered."""
    expect(page.locator(".pair.current:is(.seen, .broken)")).to_have_count(1)
    page.keyboard.press(key)


def clip_ids(page: Page) -> list[str]:
    """Tell which pair is on show by its files, once it has them."""
    page.wait_for_selector(".pair.current.ready")
    return list(page.eval_on_selector_all(".pair.current video", "videos => videos.map(one => one.src)"))


def until(condition: Any, what: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def test_a_batch_is_labeled_by_keyboard_alone(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    expect(page.locator("#count")).to_have_text("0 of 6")
    for key in ("ArrowLeft", "ArrowRight", "ArrowUp", "=", "ArrowDown", "ArrowLeft"):
        press(page, key)
    in_view(page, "grace")
    expect(page.locator("#note-undo")).to_be_visible()
    until(lambda: len(site.preferences()) == 6, "six answers")
    given = site.preferences()
    with site.scene.database.read() as session:
        shown = [[one.ranks[index] for index in one.shown] if one.ranks else None for one in given]
        assert session.query(Labeler).one().kind == "person"
    assert shown == [[0, 1], [1, 0], [0, 0], [0, 0], None, [0, 1]]
    assert all(one.seconds is not None and 0 < one.seconds < 60 for one in given)


def test_the_buttons_do_what_the_keys_do_and_are_large(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    for label in ("Left", "Equal", "Can’t compare", "Right"):
        expect(page.locator(".pair.current.ready")).to_have_count(1)
        page.get_by_role("button", name=re.compile(label)).click()
    expect(page.locator("#count")).to_have_text("4 of 6")
    expect(page.locator("#live")).to_have_text("Right is better")
    for box in page.eval_on_selector_all(
        "button:not([hidden])", "all => all.map(one => one.getBoundingClientRect().toJSON())"
    ):
        assert not box["height"] or (box["height"] >= 44 and box["width"] >= 44)


def test_skip_undo_pause_and_help(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    first = clip_ids(page)
    press(page, "ArrowLeft")
    second = clip_ids(page)
    assert second != first
    press(page, "Backspace")
    assert clip_ids(page) == first
    expect(page.locator("#count")).to_have_text("0 of 6")
    press(page, "ArrowRight")
    press(page, "s")
    assert clip_ids(page) != second
    until(lambda: len(site.preferences()) == 2, "an answer, its undo, another")
    withdrawn, standing = site.preferences()
    assert withdrawn.withdrawn_at is not None
    assert standing.withdrawn_at is None
    assert [standing.ranks[index] for index in standing.shown] == [1, 0]  # type: ignore[index]
    page.keyboard.press(" ")
    expect(page.locator("#pause-word")).to_have_text("Play")
    assert page.eval_on_selector_all(".pair.current video", "all => all.every(one => one.paused)")
    page.keyboard.press(" ")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.pair.current video')].every(one => !one.paused)"
    )
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_hidden()
    expect(page.locator("#count")).to_have_text("1 of 6")


def test_two_browsers_never_get_the_same_comparison(site: Site) -> None:
    one, other = site.open(), site.open()
    in_view(one, "labeling")
    in_view(other, "labeling")
    while (
        one.locator("body[data-view=labeling]").count() or other.locator("body[data-view=labeling]").count()
    ):
        for page in (one, other):
            if page.locator(".pair.current.seen").count():
                page.keyboard.press("ArrowLeft")
        one.wait_for_timeout(60)
    in_view(one, "grace")
    in_view(other, "grace")
    with site.scene.database.read() as session:
        assert [row.labels_given for row in session.query(Comparison)] == [1] * 6
        assert session.query(Preference).count() == 6
        assert session.query(Lease).count() == 6
        assert session.query(Labeler).count() == 2


def test_a_full_disk_is_named_and_its_answers_wait_for_room(site: Site) -> None:
    site.stop()
    with closing(sqlite3.connect(site.scene.settings.database_url.removeprefix("sqlite:///"))) as file:
        file.execute("CREATE TABLE ballast (weight BLOB)")
        weigh = "INSERT INTO ballast VALUES (zeroblob(1000000))"
        file.execute(f"CREATE TRIGGER full AFTER INSERT ON preferences BEGIN {weigh}; END")
        (pages,) = file.execute("PRAGMA page_count").fetchone()

        def limit(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute(f"PRAGMA max_page_count = {pages + 20}")  # SQLite's own "disk is full"

        event.listen(Engine, "connect", limit)
        site.running.callback(event.remove, Engine, "connect", limit)
        site.start()
        page = site.open()
        press(page, "ArrowLeft")
        expect(page.locator("#offline")).to_contain_text(re.compile("disk is full.*One answer is kept here"))
        assert site.preferences() == []
        file.execute("DROP TRIGGER full")
    until(lambda: len(site.preferences()) == 1, "the answer once there is room")
    expect(page.locator("#offline")).to_be_hidden()


def test_answers_survive_a_dropped_connection_a_reload_and_a_server_restart(site: Site) -> None:
    context = site.browser.new_context()
    page = site.open(context=context)
    in_view(page, "labeling")
    expect(page.locator(".pair.ready")).to_have_count(4)
    context.set_offline(True)
    press(page, "ArrowLeft")
    press(page, "ArrowRight")
    expect(page.locator("#offline")).to_contain_text("2 answers are kept here")
    assert site.preferences() == []
    context.set_offline(False)
    until(lambda: len(site.preferences()) == 2, "both answers after the connection is back")
    expect(page.locator("#offline")).to_be_hidden()

    site.stop()
    press(page, "ArrowLeft")
    expect(page.locator("#offline")).to_contain_text("One answer is kept here")
    kept = page.evaluate(OUTBOX)
    assert len(kept) == 1
    page.close()  # the only copy is in the browser's store now
    site.start()
    page = site.open(context=context)
    until(lambda: len(site.preferences()) == 3, "the answer of the page that was closed")
    assert site.preferences()[-1].id == json.loads(kept[0][1])["id"]
    in_view(page, "labeling")
    expect(page.locator("#count")).to_have_text("3 of 6")
    until(lambda: page.evaluate(OUTBOX) == [], "an empty outbox")


def test_an_answer_that_arrived_but_whose_reply_was_lost_counts_once(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    lost: list[str] = []
    strange: list[str] = []

    def lose_the_reply(route: Any) -> None:
        if not strange:  # a web server in front of ours, which is just being started again
            strange.append(route.request.url)
            route.fulfill(status=404, content_type="text/html", body="<h1>Not Found</h1>")
        elif not lost:
            route.fetch()  # the server stores the answer; the page never hears of it
            lost.append(route.request.url)
            route.abort()
        else:
            route.continue_()

    page.route("**/api/preferences/*", lose_the_reply)
    press(page, "ArrowLeft")
    until(lambda: page.evaluate(OUTBOX) == [], "an empty outbox")
    assert lost
    assert len(site.preferences()) == 1
    expect(page.locator("#count")).to_have_text("1 of 6")


def test_training_is_shown_live_and_the_next_batch_comes_by_itself(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    for _ in range(6):
        press(page, "ArrowLeft")
    in_view(page, "grace")
    until(site.scene.close_labeling, "the end of the grace")
    in_view(page, "training")
    scene = site.scene
    attempt_id = scene.claim()
    scene.beat(attempt_id, 0.42)
    expect(page.locator("[data-stage=training_reward] .note")).to_contain_text("42 %")
    expect(page).to_have_title(re.compile("Training 42 %"))
    scene.beat(attempt_id, 0.9)
    expect(page.locator("[data-stage=training_reward] .note")).to_contain_text("90 %")
    scene.release(attempt_id)
    scene.train_reward()
    scene.train_agent()
    expect(page.locator("#duo video")).to_have_count(1)
    expect(page.locator("[data-stage=training_agent] .note")).to_have_text("done")
    scene.collect()
    in_view(page, "labeling")
    expect(page).to_have_title(re.compile("New clips"))
    press(page, "ArrowLeft")
    expect(page).to_have_title(re.compile("^Label"))
    until(lambda: len(site.preferences()) == 7, "an answer of the second round")


def test_undo_of_the_last_answer_reopens_the_batch(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    for _ in range(6):
        press(page, "ArrowLeft")
    in_view(page, "grace")
    page.keyboard.press("Backspace")
    in_view(page, "labeling")
    until(lambda: sum(one.withdrawn_at is not None for one in site.preferences()) == 1, "the undo")
    assert not site.scene.close_labeling()
    press(page, "ArrowRight")
    in_view(page, "grace")


def test_a_lost_lease_is_told_plainly(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    until(lambda: page.locator(".pair.ready").count() == 4, "four pairs")
    lose_lease(site, 0)
    press(page, "ArrowLeft")
    expect(page.locator("#toast")).to_contain_text("not taken: your hold on these clips ran out")
    in_view(page, "labeling")
    # Back at a machine that slept for an hour: it is said before anybody looks at the pair in vain.
    lose_lease(site, 1)
    lost = clip_ids(page)
    page.evaluate("() => { const now = Date.now; Date.now = () => now() + 3600 * 1000; }")
    page.mouse.move(200, 200)
    expect(page.locator("#toast")).to_contain_text("Here are other clips: your hold on these clips ran out")
    expect(page.locator("#alarm")).to_contain_text("your hold on these clips ran out")
    assert clip_ids(page) != lost


def lose_lease(site: Site, place: int) -> None:
    """Let somebody else answer the comparison that came up in that place, as if the page had been asleep."""
    with site.scene.database.write() as session:
        lease = session.query(Lease).order_by(Lease.comparison_id).offset(place).first()
        assert lease is not None
        session.get_one(Comparison, lease.comparison_id).labels_given = 1
        lease.expires_at = session.query(Labeler).one().created_at


def test_a_clip_that_is_gone_is_said_and_can_be_passed(site: Site) -> None:
    page = site.open("/agents/shapes")
    with site.scene.database.read() as session:
        keys = [clip.mp4_key for clip in session.query(Clip).order_by(Clip.id).limit(2)]
    for key in keys:
        (site.scene.settings.data_dir / "store" / key).unlink()
    page = site.open()
    in_view(page, "labeling")
    expect(page.locator(".pair.current .failure")).to_contain_text("These clips cannot be shown")
    page.keyboard.press("ArrowLeft")  # nobody can prefer what nobody saw
    page.keyboard.press("ArrowDown")
    expect(page.locator(".pair.current .failure")).to_be_hidden()
    until(lambda: len(site.preferences()) == 1, "one answer")
    assert site.preferences()[0].ranks is None


def test_reduced_motion_begins_paused(site: Site) -> None:
    page = site.open(reduced_motion="reduce")
    in_view(page, "labeling")
    expect(page.locator(".pair.current.ready")).to_have_count(1)
    page.wait_for_timeout(300)
    assert page.eval_on_selector_all(".pair.current video", "all => all.every(one => one.paused)")
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('.pair.current video').currentTime > 0")


def test_the_next_pair_plays_at_once(site: Site) -> None:
    page = site.open()
    in_view(page, "labeling")
    until(lambda: page.locator(".pair.ready").count() == 4, "four pairs")
    page.evaluate(WATCH)
    waits = measure(page, 5, 0.4)
    # The benchmark holds the figure of 100 ms; this machine may be busy with other tests.
    assert statistics.median(waits) < 250, waits


def test_an_operator_pauses_and_resumes_on_the_admin_page(site: Site) -> None:
    label = site.open()
    in_view(label, "labeling")
    admin = site.open("/admin/shapes")
    admin.get_by_role("button", name="Pause").click()
    in_view(label, "paused")
    admin.get_by_role("button", name="Resume").click()
    in_view(label, "labeling")
    admin.get_by_role("button", name="Abandon").click()
    admin.get_by_role("dialog").get_by_role("button", name="Abandon").click()
    in_view(label, "ended")
    expect(admin.locator(".badge.abandoned")).to_be_visible()
