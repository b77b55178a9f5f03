"""`lockstep run` and `lockstep demo`: sit in front of an embedded system until it is done or told to stop."""

import os
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live

from services import embedded, show, teachers
from services.client import Admin, Refused
from services.embedded import System
from shared.config import ConfigError, ExperimentConfig
from shared.settings import Settings

LOOK_S = 0.25  # between two looks at the system
QUICK_LOOK_S = 0.05  # the same while it starts
START_S = 60.0  # a labeler that does not answer after this is reported as broken
ENDED = ("finished", "abandoned")


class Stopped(Exception):
    """Somebody asked us to stop."""


def run(settings: Settings, config: ExperimentConfig, console: Console, browser: bool) -> None:
    """Run the system with the experiment of `config` until Ctrl-C."""
    with _stoppable(), embedded.running(settings) as system:
        different = embedded.ensure_experiment(system, config)
        said = []
        if different:
            said.append(f"{config.name} goes on as it was created, whatever the file says now: {different}")
        with admin(system) as api:
            opened = False
            for report in watch(system, api, config.name, console, said):
                if report and browser and not opened:
                    opened = webbrowser.open(f"{system.url}/label/{config.name}") or True


def demo(settings: Settings, config: ExperimentConfig, teacher: teachers.Teacher, console: Console) -> int:
    """Run the system with a teacher until the experiment ends; 0: solved, 1: budget spent, 2: failed."""
    began = time.monotonic()
    with _stoppable(), embedded.running(settings) as system, admin(system) as api:
        embedded.ensure_experiment(system, config)
        lesson = teachers.Lesson(system.url, config.name, teacher, system.secrets.teacher_token)
        report: Any = None
        with _teaching(lesson, system) as problems:
            for report in watch(system, api, config.name, console, problems):
                if report and (report["state"] in ENDED or report["rounds"][-1]["state"] == "failed"):
                    break
                if problems:
                    break
        took_s = time.monotonic() - began
        report = api.call("GET", f"/experiments/{config.name}")
        videos = save_videos(system, report)
    console.print(show.rounds_table(report))
    for path in videos:
        console.print(f"video: {path}", soft_wrap=True)
    return _verdict(report, console, took_s, problems)


def watch(
    system: System, api: Admin, name: str, console: Console, said: list[str]
) -> Iterator[show.Report | None]:
    """Show the live screen (without a terminal, single lines) and yield each report; never ends itself."""
    report: show.Report | None = None
    began, line, told = time.monotonic(), "", 0
    if not console.is_terminal:  # in a log the addresses stand once, at the beginning
        console.print(*show.addresses(system.url, name), sep="\n", soft_wrap=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            said += system.look_after()
            try:
                report = api.call("GET", f"/experiments/{name}")
            except Refused as problem:
                report = None
                if time.monotonic() - began > START_S:
                    said.append(str(problem))
                    began = time.monotonic()
            if console.is_terminal:
                live.update(show.screen(report, system.url, name, said), refresh=True)
            else:
                for word in said[told:]:
                    console.print(word, soft_wrap=True, markup=False)
                told = len(said)
                if report and show.plain_line(report) != line:
                    line = show.plain_line(report)
                    console.print(line, soft_wrap=True)
            yield report
            time.sleep(LOOK_S if report else QUICK_LOOK_S)


@contextmanager
def admin(system: System) -> Iterator[Admin]:
    """Open the way to the system's admin API."""
    api = Admin(system.url, system.secrets.admin_token)
    try:
        yield api
    finally:
        api.close()


def save_videos(system: System, report: show.Report) -> list[Path]:
    """Write every round's video as a file of its own and return the paths."""
    store, folder = system.settings.open_store(), system.settings.data_dir / "videos"
    paths = []
    for round_ in report["rounds"]:
        video = round_["artifacts"].get("video")
        if video:
            folder.mkdir(exist_ok=True)
            path = folder / f"round-{round_['number']:02d}.mp4"
            path.write_bytes(store.get(video["key"], video["sha256"]))
            paths.append(path)
    return paths


def can_show_a_page() -> bool:
    """Return whether a browser would be of any use here."""
    screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(screen) and sys.stdout.isatty()


def fresh_folder(parent: Path) -> Path:
    """Make and return the first folder `demo-N` that is not there yet."""
    number = 1
    while True:
        folder = parent / f"demo-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise ConfigError(
                f"cannot make {folder} ({error.strerror}): name another with --data-dir"
            ) from None
        else:
            return folder


@contextmanager
def _teaching(lesson: teachers.Lesson, system: System) -> Iterator[list[str]]:
    """Let a teacher answer in a thread of its own while the block runs; the list says what went wrong."""
    problems: list[str] = []
    leaving = threading.Event()

    def answer() -> None:
        while not leaving.is_set():  # the labeler takes a moment to start
            try:
                httpx.get(f"{system.url}/healthz", timeout=5.0, trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                leaving.wait(QUICK_LOOK_S)
        try:
            teachers.teach(lesson, should_stop=leaving.is_set)
        except httpx.HTTPStatusError as error:
            problems.append(f"the teacher was refused: {error.response.text[:300]}")
        except Exception as error:  # without a teacher nothing goes on: say it, don't hang
            problems.append(f"the teacher failed: {type(error).__name__}: {error}")

    thread = threading.Thread(target=answer, name="teacher", daemon=True)
    thread.start()
    try:
        yield problems
    finally:
        leaving.set()
        thread.join(5.0)


def _verdict(report: show.Report, console: Console, took_s: float, problems: list[str]) -> int:
    goal = report["config"]["evaluation"]["solved_return"]
    means = [one["evaluation"]["mean"] for one in report["rounds"] if one["evaluation"]]
    labels = sum(one["labels"]["given"] for one in report["rounds"])
    cost = f"{labels} labels, {took_s:.1f} s"
    if report["state"] not in ENDED:
        error = report["rounds"][-1]["error"] or "; ".join(problems) or "it was stopped"
        console.print(f"not finished ({cost}): {error}", soft_wrap=True, style="red")
        return 2
    if goal is not None and means and means[-1] >= goal:
        console.print(f"solved: mean true return {means[-1]:.1f} of {goal:g} wanted ({cost})", style="green")
        return 0
    best = f"{means[-1]:.1f}" if means else "none"
    console.print(f"not solved: the budget is spent, mean true return {best} ({cost})", style="yellow")
    return 1


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into one exception, so that all is stopped in order."""

    def stop(number: int, _frame: object) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)  # the second Ctrl-C must not leave parts behind
        raise Stopped(signal.Signals(number).name)

    before: dict[signal.Signals, Callable[..., Any] | int | None] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
