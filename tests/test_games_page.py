"""Pong and Donkey Kong as people meet them: the whole system, a browser, the presets made small."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from services.client import Admin
from shared.settings import load_settings, secrets

from .parts import until
from .services import free_ports
from .test_cli import started
from .test_label_page import press

SMALL = [
    "rounds=2", "segments.length=10", "segments.collect_steps=128", "segments.collect_envs=4",
    "labels.comparisons_first_round=2", "labels.comparisons_per_round=2", "labels.undo_grace_s=0",
    "reward_model.held_out=0",
    "reward_model.epochs=1", "reward_model.final_epochs=1", "reward_model.hidden=8",
    "agent.num_envs=2", "agent.num_steps=16", "agent.minibatch_size=16", "agent.total_steps=32",
    "agent.final_steps=32", "agent.hidden=8", "agent.update_epochs=1",
    "evaluation.episodes=1", "atari.max_frames=1000",
]  # fmt: skip
COLOURS = """video => {
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight), pen = canvas.getContext("2d");
    pen.drawImage(video, 0, 0);
    const {data} = pen.getImageData(0, 0, canvas.width, canvas.height), found = new Set();
    for (let i = 0; i < data.length; i += 4) {
        found.add([0, 1, 2].map(channel => Math.round(data[i + channel] / 64)).join());
    }
    return [video.videoWidth, video.videoHeight, [...found]];
}"""


@pytest.mark.parametrize(("name", "size"), [("pong", (160, 160)), ("donkey_kong", (160, 180))])
def test_a_person_labels_two_rounds_of_a_game_by_keyboard(
    tmp_path: Path, browser: Browser, name: str, size: tuple[int, int]
) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    sets = [part for pair in SMALL for part in ("--set", pair)]
    run = ["run", f"configs/{name}.toml", "--data-dir", str(tmp_path), "--port", str(port), "--no-browser"]

    def up() -> bool:
        try:
            return httpx.get(f"{url}/api/experiments/{name}", timeout=5).is_success
        except httpx.TransportError:
            return False

    with started(tmp_path, *run, *sets):
        until(up, 60)
        page = browser.new_page()
        page.goto(f"{url}/label/{name}")
        for number in range(1, 5):  # two rounds of two
            expect(page.locator(".pair.current.seen")).to_have_count(1, timeout=60_000)
            width, height, colours = page.eval_on_selector(".pair.current video", COLOURS)
            assert (width, height) == size
            assert any(len(set(colour.split(","))) > 1 for colour in colours)  # not grey
            press(page, ("ArrowLeft", "ArrowUp")[number % 2])
        page.close()
        api = Admin(url, secrets(load_settings(data_dir=tmp_path)).admin_token)
        until(lambda: api.call("GET", f"/experiments/{name}")["state"] == "finished")
        rounds = api.call("GET", f"/experiments/{name}")["rounds"]
        api.close()
        assert [(one["state"], one["labels"]["given"]) for one in rounds] == [("done", 2)] * 2
        with httpx.Client(base_url=url, trust_env=False) as anybody:  # finished, so no batch is open
            for number in (1, 2):
                video = anybody.get(f"/api/experiments/{name}/rounds/{number}/video.mp4")
                assert video.content[4:8] == b"ftyp"
