"""How long a labeler waits: from key press to the next pair playing, in headless Chromium.

A real server, CartPole clips of their real size, a page driven by the keyboard. The page's own clock measures
from the key's time stamp to the moment at which both videos of the next pair have put a picture on screen
that lies behind their first one: the pair moves. `python -m benchmarks.label_page` prints a table and, as its
last line, one JSON object; `--pause 0.1` presses faster than a person could look. `--others 50` lets as many
simulated labelers work on another experiment of the same server meanwhile, from a process of their own: each
answers one comparison in four seconds, claims the next and fetches its clips, as the page does.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

from benchmarks import api_load
from benchmarks.options import positive
from shared.database import migrate
from shared.settings import Settings
from tests import scenes, services

PERIOD_S = 4.0  # in which each of the others gives one label
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# What changes the clips at once, whether two are shown or more, which are ranked.
KEYS = ["ArrowUp", "ArrowDown"]
PAIR_KEYS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowRight", "ArrowDown"]

# For each key, one promise: milliseconds from the event's time stamp until all clips that came with it move.
WATCH = """() => {
  window.waits = [];
  const current = () => document.querySelector('.pair.current');
  let before = current();
  addEventListener('keydown', (event) => {
    if (!event.key.startsWith('Arrow')) return;
    const pressed = event.timeStamp;
    const moves = (video) => new Promise((resolve) => {
      const look = (_, frame) => {
        if (frame.mediaTime > 0 && !video.paused) resolve(performance.now());
        else video.requestVideoFrameCallback(look);
      };
      video.requestVideoFrameCallback(look);
    });
    if (current() === before) throw new Error('the key changed nothing');
    before = current();
    const videos = [...before.querySelectorAll('video')];
    waits.push(Promise.all(videos.map(moves)).then((times) => Math.max(...times) - pressed));
  });
}"""


def measure(page: Page, presses: int, pause_s: float, keys: Sequence[str] = PAIR_KEYS) -> list[float]:
    """Press `presses` keys, `pause_s` after each pair has begun to move; return the waits in milliseconds."""
    waits = []
    for press in range(presses):
        page.wait_for_timeout(1000 * pause_s)
        page.wait_for_selector(".pair.current.seen")  # until then answers are locked
        page.keyboard.press(keys[press % len(keys)])
        waits.append(float(page.evaluate("press => waits[press]", press)))
    return waits


def first_paint(page: Page, address: str) -> float:
    """Load the page over a slow line (1.6 Mbit/s, 150 ms); return the milliseconds to its first paint."""
    line = {"offline": False, "latency": 150, "downloadThroughput": 200_000, "uploadThroughput": 200_000}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    session.send("Network.emulateNetworkConditions", line)
    page.goto(address)
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    return float(page.wait_for_function(f"() => {paint}").json_value())


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered) + 0.999999), len(ordered)) - 1]


@contextmanager
def busy_with(others: int, settings: Settings, url: str, seconds: float) -> Iterator[list[dict[str, Any]]]:
    """Let simulated labelers work until the block is left; the list then holds what they saw."""
    seen: list[dict[str, Any]] = []
    if others == 0:
        yield seen
        return
    labels = {"comparisons_per_round": 8, "lease_s": 60.0}
    with scenes.Scene(settings, "cart_pole", name="others", labels=labels) as scene:
        scene.collect()
        api_load.add_comparisons(scene, int(others * (api_load.IN_HAND + 1 + seconds / PERIOD_S)))
        tokens = api_load.add_labelers(scene, others)
    plan: dict[str, Any] = {"mode": "paced", "experiment": "others", "tokens": tokens}
    plan |= {
        "port": urlsplit(url).port,
        "seconds": seconds,
        "period_s": PERIOD_S,
        "count": api_load.IN_HAND,
        "clips": True,
    }
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.http_load"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=api_load.ROOT,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(plan))
        process.stdin.close()
        try:
            time.sleep(2 * PERIOD_S)  # by then everybody has begun
            yield seen
            process.send_signal(signal.SIGINT)  # it stops and tells
            seen.append(json.loads(process.stdout.read()))
        finally:
            process.kill()


def run(presses: int, pause_s: float, others: int, clips: int = 2) -> dict[str, Any]:
    """Label `presses` comparisons in a browser and return the figures."""
    folder = Path(tempfile.mkdtemp(prefix="lockstep-label-page-"))
    settings = scenes.settings_for(folder, f"sqlite:///{folder / 'lockstep.db'}", port=0, log_level="WARNING")
    migrate(settings.database_url)
    # Two more than are pressed: the last press, too, has a next pair.
    labels = {"comparisons_per_round": presses + 2, "clips_per_comparison": clips}
    scene = scenes.Scene(settings, "cart_pole", labels=labels)
    try:
        scene.collect()
        most_s = 60 + presses * (pause_s + 2)
        with (
            scenes.serve(settings) as url,
            busy_with(others, settings, url, most_s) as seen,
            sync_playwright() as play,
        ):
            browser = play.chromium.launch(
                executable_path=services.find("chromium", "google-chrome"), args=ARGS
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"{url}/label/{scene.name}")
            page.wait_for_selector(".pair.current.ready")
            page.evaluate(WATCH)
            waits = measure(page, presses, pause_s, PAIR_KEYS if clips == 2 else KEYS)
            paint_ms = first_paint(browser.new_page(), f"{url}/label/{scene.name}")
            version = browser.version
            browser.close()
    finally:
        scene.close()
        shutil.rmtree(folder)
    about_others = {name: seen[0][name] for name in ("answers_a_second", "p99_ms", "errors")} if seen else {}
    return {
        "p95_ms": round(percentile(waits, 0.95), 1),
        "median_ms": round(statistics.median(waits), 1),
        "max_ms": round(max(waits), 1),
        "first_paint_ms": round(paint_ms, 1),
        "presses": len(waits),
        "pause_s": pause_s,
        "clips": clips,
        "browser": f"Chromium {version}",
        "others": others,
        **{f"others_{name}": value for name, value in about_others.items()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def main() -> None:
    """Print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--presses", type=positive, default=120, help="keys pressed (default: 120)")
    parser.add_argument(
        "--pause", type=float, default=0.5, help="seconds between a moving pair and a key (default: 0.5)"
    )
    parser.add_argument("--others", type=int, default=0, help="other labelers at work (default: 0)")
    parser.add_argument(
        "--clips", type=int, choices=(2, 3, 4), default=2, help="clips in a comparison (default: 2)"
    )
    args = parser.parse_args()
    if args.others < 0:
        parser.error("--others: there are 0 or more")
    figures = run(args.presses, args.pause, args.others, args.clips)
    print("from key press to the next pair playing")
    for name, value in figures.items():
        print(f"  {name:<24} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
