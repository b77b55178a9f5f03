"""Take the pictures of the documentation: `python -m docs.screenshots` writes docs/*.png.

A real server, CartPole played for real and a real browser; needs the development packages and Chromium. What
the admin sees is a whole demo, trained for the pictures; the label page's rounds are played without trainers.
"""

import io
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import text

from benchmarks.label_page import ARGS
from benchmarks.whole_run import demo
from shared.database import migrate
from shared.models import Attempt
from shared.settings import load_settings, secrets
from tests import scenes, services

HERE = Path(__file__).parent
COLOURS = 64  # the pages have few: a palette makes the file a third of the size
WIDE, PHONE = {"width": 1120, "height": 640}, {"width": 390, "height": 844}
TOOK_S = {"collecting": 50, "training_reward": 40, "training_agent": 420}  # as long as a game takes, say
MOST_BYTES = 200_000


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=services.find("chromium", "google-chrome"), args=ARGS)
        label_page(Path(folder) / "label", browser)
        ranking_page(Path(folder) / "ranking", browser)
        admin_pages(Path(folder) / "admin", browser)
        browser.close()


def label_page(folder: Path, browser: Browser) -> None:
    """Take the label page in both themes and on a phone, and what it shows while trainers work."""
    settings = scenes.settings_for(folder, f"sqlite:///{folder / 'x.db'}", port=0, log_level="WARNING")
    migrate(settings.database_url)
    labels = {"comparisons_per_round": 20, "instructions": "Which cart balances its pole better?"}
    scene = scenes.Scene(settings, "cart_pole", "cartpole", rounds=6, labels=labels)
    scene.collect()
    with scenes.serve(settings) as url:
        address = f"{url}/label/cartpole"
        page = open_page(browser, address)
        answer(page, 7)
        take(page, "label")
        page.emulate_media(color_scheme="dark")
        take(page, "label-dark")
        page.close()  # what it holds goes to the phone once its leases end: others have enough
        phone = open_page(browser, address, PHONE, has_touch=True, is_mobile=True)
        phone.wait_for_selector(".pair.current.seen")
        phone.wait_for_timeout(1300)
        take(phone, "label-phone")
        phone.close()
        live_through(scene, url, 4)
        page = open_page(browser, address)
        page.wait_for_function("() => document.querySelectorAll('#duo video').length === 2")
        page.wait_for_timeout(1500)
        take(page, "waiting")
    scene.close()


def ranking_page(folder: Path, browser: Browser) -> None:
    """Rank two of four real clips as equally good and take the picture."""
    settings = scenes.settings_for(folder, f"sqlite:///{folder / 'x.db'}", port=0, log_level="WARNING")
    migrate(settings.database_url)
    labels = {"clips_per_comparison": 4, "instructions": "Which cart balances its pole best?"}
    scene = scenes.Scene(settings, "cart_pole", "cartpole", labels=labels)
    scene.collect()
    with scenes.serve(settings) as url:
        page = browser.new_page(viewport={"width": 1120, "height": 640})
        page.goto(f"{url}/label/cartpole")
        page.wait_for_selector(".pair.current.seen")
        for key in ("2", "=", "3"):
            page.keyboard.press(key)
        page.wait_for_timeout(900)
        take(page, "ranking")
    scene.close()


def live_through(scene: scenes.Scene, url: str, rounds: int) -> None:
    """Label and train so many rounds, the last one up to the middle of its agent's training."""
    with httpx.Client(base_url=url) as teacher:
        scenes.join(teacher, "oracle", **{"X-Teacher-Token": secrets(scene.settings).teacher_token})
        with scene.database.write() as session:  # those of the pages are left to the teacher
            session.execute(text("UPDATE leases SET state = 'skipped' WHERE state = 'held'"))
        for number in range(1, rounds + 1):
            scene.label_all(teacher)
            scene.train_reward()
            if number < rounds:
                scene.train_agent()
                scene.collect()
    attempt_id = scene.claim()
    scene.beat(attempt_id, 0.0)
    with scene.database.write() as session:
        for one in session.query(Attempt):
            if one.ended_at:
                one.claimed_at = one.ended_at - timedelta(seconds=TOOK_S[one.stage])
            elif one.first_step_at:
                one.first_step_at -= timedelta(seconds=0.4 * TOOK_S[one.stage])
    scene.beat(attempt_id, 0.4)


def admin_pages(folder: Path, browser: Browser) -> None:
    """Run the demo to its end and take the admin's pages of it."""
    database, _, _ = demo(folder, seed=2, overrides=())
    database.close()
    data = folder / "demo-1"
    settings = load_settings(data_dir=data, port=0, log_level="WARNING")
    with scenes.serve(settings) as url:
        page = open_page(browser, f"{url}/admin", {"width": 1120, "height": 300})
        take(page, "admin-overview")
        page.set_viewport_size({"width": 1120, "height": 1290})
        page.goto(f"{url}/admin/cartpole")
        page.wait_for_selector("#chart-seconds .main-svg", timeout=60_000)
        page.wait_for_timeout(2500)
        take(page, "admin")
        charts = page.locator("#charts").bounding_box()
        last = page.locator(".chart").nth(5).bounding_box()
        assert charts
        assert last
        until = last["y"] + last["height"] - charts["y"]
        take(page, "charts", full_page=True, clip=charts | {"height": until})
        page.set_viewport_size({"width": 1120, "height": 760})
        page.goto(f"{url}/admin/cartpole/rounds/2")
        page.wait_for_timeout(1000)
        take(page, "round")


def open_page(browser: Browser, address: str, size: Any = WIDE, **options: Any) -> Page:
    """Open a page in a browser of its own."""
    page = browser.new_context(viewport=size, color_scheme="light", **options).new_page()
    page.goto(address)
    return page


def answer(page: Page, pairs: int) -> None:
    """Answer so many pairs, and wait until the next one runs and the last word is gone."""
    for _ in range(pairs):
        page.wait_for_selector(".pair.current.seen")
        page.keyboard.press("ArrowLeft")
    page.wait_for_selector(".pair.current.seen")
    page.wait_for_timeout(1300)


def take(page: Page, name: str, **options: Any) -> None:
    """Write a picture with few colours as a small file."""
    path = HERE / f"{name}.png"
    image = Image.open(io.BytesIO(page.screenshot(**options))).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size // 1024} KiB")
    assert size < MOST_BYTES, f"{path} is too large for a page that shows it"


if __name__ == "__main__":
    main()
