"""What the terminal shows: the live screen of `lockstep run`, the table of rounds, a line per experiment."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Report = dict[str, Any]  # GET /api/admin/experiments/{name}

STAGES = {
    "collecting": "the agent plays",
    "labeling": "people compare",
    "training_reward": "the reward model learns",
    "training_agent": "the agent learns",
}
SAMPLE_S = 0.5  # a stage younger than this gives no estimate


def screen(report: Report | None, url: str, name: str, said: Sequence[str]) -> RenderableType:
    """Draw where an experiment stands: its stages, progress, rounds so far, and what was `said` last."""
    lines: list[RenderableType] = []
    if report is None:
        lines.append(Text("starting …", style="dim"))
    else:
        current = report["rounds"][-1]
        head = f"round {current['number']} of {report['config']['rounds']}"
        lines.append(Text.assemble((head, "bold"), f"   {report['state']}   {report['reason'] or ''}"))
        lines.append(_stages(current))
        if current["error"]:
            lines.append(Text(current["error"].partition("\n")[0], style="red"))
            lines.append(Text(f"when that is mended: lockstep retry {name}", style="red"))
        if len(report["rounds"]) > 1 or current["evaluation"]:
            lines.append(rounds_table(report))
    lines += addresses(url, name)
    lines.append(Text("stop:       Ctrl-C; the next run goes on from here", style="dim"))
    lines += [Text(line, style="yellow") for line in said[-4:]]
    return Panel(Group(*lines), title=f"Lockstep: {name}", border_style="cyan")


def addresses(url: str, name: str) -> list[Text]:
    """Say where to label, and where to look on."""
    label = Text.assemble("label here: ", (f"{url}/label/{name}", "bold cyan"))
    pages = (Text(f"{page + ':':12}{url}/{page}/{name}", style="dim") for page in ("agents", "admin"))
    return [label, *pages]


def plain_line(report: Report) -> str:
    """Say where an experiment stands in one line that changes only with its stage, labels or state."""
    current = report["rounds"][-1]
    line = f"{report['name']}: {report['state']}, round {current['number']}/{report['config']['rounds']}"
    line += f", {current['state']}"
    if current["state"] == "labeling":
        line += f" {current['labels']['given']}/{current['labels']['wanted']}"
    if current["state"] == "failed":
        line += f": {(current['error'] or '').partition(chr(10))[0]}"
    return line + (f" ({report['reason']})" if report["reason"] else "")


def rounds_table(report: Report) -> Table:
    """Draw one line a round: labels, held-out accuracy, predicted and true return, seconds by stage."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    titles = ("round", "labels", "held-out accuracy", "predicted return", "true return")
    for title in (*titles, "collect s", "label s", "reward s", "agent s"):
        table.add_column(title, justify="right", min_width=max(map(len, title.split())))
    for round_ in report["rounds"]:
        reward, agent = (
            round_["metrics"].get("training_reward", {}),
            round_["metrics"].get("training_agent", {}),
        )
        true = round_["evaluation"]["mean"] if round_["evaluation"] else None
        table.add_row(
            str(round_["number"]),
            str(round_["labels"]["given"]),
            _number(reward.get("held_out/accuracy"), 2),
            _number(agent.get("charts/predicted_return"), 1),
            _number(true, 1),
            *(_number(round_["seconds"].get(stage), 1) for stage in STAGES),
        )
    return table


def experiments_table(listed: Sequence[Report]) -> Table:
    """Draw one line an experiment."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("name", "state", "round", "stage", "labels", "since", "reason"):
        table.add_column(title)
    for one in listed:
        since = str(one["ended_at"] or one["created_at"])[:16].replace("T", " ")
        done = "" if one["progress"] is None else f", {one['progress']:.0%}"
        where = f"{one['round']} of {one['of']}", one["round_state"] + done
        labels = f"{one['given']} of {one['wanted']}"
        table.add_row(one["name"], one["state"], *where, labels, since, one["reason"] or "")
    return table


def attempts_lines(report: Report) -> list[str]:
    """Describe the attempts of the newest round: the last one's error in full, the others' in a line."""
    lines = []
    last = report["rounds"][-1]["attempts"][-1:]
    for attempt in report["rounds"][-1]["attempts"]:
        worker = attempt["worker"] or {}
        where = f" on {worker['host']} ({worker.get('device', 'starting')})" if worker else ""
        line = f"attempt {attempt['id']}: {attempt['stage']} #{attempt['number']} {attempt['state']}{where}"
        lines.append(line + (f", {100 * attempt['progress']:.0f} %" if attempt["state"] == "running" else ""))
        if attempt["error"]:
            told = attempt["error"].splitlines()
            lines += [f"    {line}" for line in (told if attempt in last else told[:1])]
    return lines


def _stages(current: Report) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    order = list(STAGES)
    stage = current["failed_stage"] if current["state"] == "failed" else current["state"]
    at = order.index(stage) if stage in order else len(order)
    for place, (name, what) in enumerate(STAGES.items()):
        done, note = float(place < at), f"{current['seconds'].get(name, 0.0):.1f} s" if place < at else ""
        if place == at and name == "labeling":
            given, wanted = current["labels"]["given"], current["labels"]["wanted"]
            done, note = given / max(wanted, 1), f"{wanted - given} of {wanted} labels left"
        elif place == at:
            done, note = _progress(current)
        style = "bold" if place == at else "dim" if place > at else ""
        table.add_row(Text(what, style=style), ProgressBar(total=1.0, completed=done, width=30), Text(note))
    return table


def _progress(current: Report) -> tuple[float, str]:
    """Return how far the running stage is (0 to 1), and when it may end."""
    running = [one for one in current["attempts"] if one["state"] == "running"]
    if current["state"] == "failed":
        return 0.0, "failed"
    if not running:
        return 0.0, "waits for a worker"
    done, began = running[-1]["progress"], running[-1]["first_step_at"]
    if not began or done <= 0:
        return done, "begins"
    took_s = (datetime.now().astimezone() - datetime.fromisoformat(began)).total_seconds()
    if took_s < SAMPLE_S:
        return done, ""
    return done, f"about {took_s * (1 - done) / done:.0f} s left"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def counts(numbers: dict[str, int]) -> str:
    """Return how much of what there is, as people write it."""
    return ", ".join(f"{number} {what}" for what, number in numbers.items())


def invitation(made: Report, name: str | None, again: bool) -> str:
    """Say what an invitation that was just made is good for, and its link on a line of its own."""
    until = datetime.fromisoformat(made["expires_at"]).astimezone()
    what = f"{name}'s way back in" if again else f"The invitation of {name or 'whoever opens it first'}"
    return f"{what}, good once, until {until:%Y-%m-%d %H:%M %Z}:\n{made['link']}"


def timeline_table(round_: Report) -> Table:
    """Draw one line a stay in a stage: from when to when, how long, and what it does or waits for."""
    table = _table("stage", "from", "to", "seconds", "attempts", "says")
    for one in round_["timeline"]:
        attempts = ", ".join(map(str, one["attempts"]))
        times = _moment(one["began_at"]), _moment(one["ended_at"])
        table.add_row(one["stage"], *times, f"{one['seconds']:.1f}", attempts, one["says"] or "")
    return table


def metrics_lines(round_: Report) -> list[str]:
    """Write every figure of a round, a line each: the stages' metrics, the true return."""
    lines = [
        f"{stage} {name}: {value:.6g}"
        for stage, metrics in round_["metrics"].items()
        for name, value in sorted(metrics.items())
        if not isinstance(value, str)
    ]
    evaluation = round_["evaluation"]
    return lines + ([f"true return: {evaluation['mean']:.6g}"] if evaluation else [])


def comparisons_table(found: Sequence[Report]) -> Table:
    """Draw one line a comparison: what each labeler said, what the reward model says."""
    table = _table("number", "id", "held out", "labels", "answers", "preferred, as predicted")
    for one in found:
        answers = ", ".join(
            f"{answer['labeler']}: {answer['said']}{' (withdrawn)' if answer['withdrawn_at'] else ''}"
            for answer in one["answers"]
        )
        best = ", ".join(_number(clip["best"], 2) for clip in one["clips"])
        labels = f"{one['labels_given']}/{one['labels_wanted']}"
        held_out = "yes" if one["held_out"] else ""
        table.add_row(str(one["number"]), str(one["id"]), held_out, labels, answers, best)
    return table


def chart_table(chart: Report) -> Table:
    """Draw the table of a chart."""
    table = _table(*chart["columns"])
    table.title, table.title_justify = f"{chart['title']} ({chart['id']})", "left"
    for row in chart["rows"]:
        cells = (f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row)
        table.add_row(*("–" if cell is None else str(cell) for cell in cells))
    return table


def events_table(found: Sequence[Report]) -> Table:
    """Draw one line a change of state."""
    table = _table("id", "at", "round", "event", "from", "to", "by", "why")
    for one in found:
        why = ", ".join(
            f"{key}: {value}" for key, value in (one["detail"] or {}).items() if value is not None
        )
        where = "" if one["round"] is None else str(one["round"])
        states = one["source"] or "", one["target"] or ""
        about = (str(one["id"]), _moment(one["at"]), where, one["event"], *states, one["actor"])
        table.add_row(*about, why.partition("\n")[0])
    return table


def actions_table(found: Sequence[Report]) -> Table:
    """Draw one line an act of an administrator."""
    table = _table("id", "at", "from", "did", "to", "with")
    for one in found:
        detail = ", ".join(f"{key}: {value}" for key, value in (one["detail"] or {}).items())
        place = _moment(one["at"]), one["address"], one["action"], one["about"] or ""
        table.add_row(str(one["id"]), *place, detail)
    return table


def invitations_table(found: Sequence[Report]) -> Table:
    """Draw one line an invitation."""
    table = _table("id", "for", "state", "made", "good until")
    for one in found:
        times = _moment(one["created_at"]), _moment(one["expires_at"])
        table.add_row(str(one["id"]), one["name"] or "whoever opens it first", one["state"], *times)
    return table


def labelers_table(found: Sequence[Report]) -> Table:
    """Draw one line a labeler."""
    table = _table("id", "name", "kind", "labels", "browsers", "last seen", "since")
    for one in found:
        numbers = str(one["labels"]), str(one["sessions"])
        times = _moment(one["used_at"]), _moment(one["created_at"])
        table.add_row(str(one["id"]), one["name"], one["kind"], *numbers, *times)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    return table


def _moment(at: str | None) -> str:
    return f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M:%S}" if at else ""
