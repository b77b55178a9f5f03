"""Take the pictures of the documentation: `python -m docs.screenshots` writes docs/*.png.

A real server, real CartPole clips and a real browser; needs the development packages and Chromium.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from benchmarks.label_page import ARGS
from benchmarks.whole_run import demo
from shared.database import migrate
from shared.settings import load_settings
from tests import scenes, services

HERE = Path(__file__).parent
COLOURS = 64  # the page has few: a palette makes the file a third of the size


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=services.find("chromium", "google-chrome"), args=ARGS)
        label_page(Path(folder) / "label", browser)
        ranking_page(Path(folder) / "ranking", browser)
        admin_page(Path(folder) / "admin", browser)
        browser.close()


def label_page(folder: Path, browser: Browser) -> None:
    """Label seven pairs of real clips and take the picture of the eighth."""
    settings = scenes.settings_for(folder, f"sqlite:///{folder / 'x.db'}", port=0, log_level="WARNING")
    migrate(settings.database_url)
    labels = {"comparisons_per_round": 20, "instructions": "Which cart balances its pole better?"}
    scene = scenes.Scene(settings, "cart_pole", "cartpole", labels=labels)
    scene.collect()
    with scenes.serve(settings) as url:
        page = browser.new_page(viewport={"width": 1120, "height": 640})
        page.goto(f"{url}/label/cartpole")
        for _ in range(7):
            page.wait_for_selector(".pair.current.seen")
            page.keyboard.press("ArrowLeft")
        page.wait_for_timeout(1800)  # the word about the last answer is gone, the clips run
        save(page.screenshot(), HERE / "label.png")
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
        save(page.screenshot(), HERE / "ranking.png")
    scene.close()


def admin_page(folder: Path, browser: Browser) -> None:
    """Run the demo to its end and take the picture of its page."""
    database, _, _ = demo(folder, seed=2, overrides=())
    database.close()
    data = folder / "demo-1"
    settings = load_settings(data_dir=data, port=0, log_level="WARNING")
    with scenes.serve(settings) as url:
        page = browser.new_page(viewport={"width": 1120, "height": 1290})
        page.goto(f"{url}/admin/cartpole")
        page.wait_for_selector("#chart-seconds .main-svg", timeout=60_000)
        page.wait_for_timeout(2500)
        save(page.screenshot(), HERE / "admin.png")


def save(png: bytes, path: Path) -> None:
    """Write a picture with few colours as a small file."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
