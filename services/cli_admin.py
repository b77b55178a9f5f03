"""The `lockstep` commands of an administrator: each asks the admin API of a running system."""

import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from services import client, show
from services.cli_options import (
    ConfigFile,
    DataDir,
    Json,
    Name,
    Overrides,
    Url,
    admin,
    console,
    print_json,
    say,
)
from shared import config as configuration

app = typer.Typer()

Reason = Annotated[str | None, typer.Option(help="Why, for the history.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask whether that is meant.")]
RoundNumber = Annotated[int, typer.Argument(help="The round's number; 0 is the labels it began with.", min=0)]
LabelsFrom = Annotated[
    str | None, typer.Option(help="An experiment of this system whose labels the new one begins with.")
]


@app.command("list")
def list_experiments(data_dir: DataDir = None, url: Url = None, as_json: Json = False) -> None:
    """List the experiments of a running system.

        lockstep list
    """  # fmt: skip
    with admin(data_dir, url) as api:
        listed = api.pages("/experiments")
    print_json(listed) if as_json else console.print(show.experiments_table(listed))


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="The experiment; all of them if left out.")] = None,
    data_dir: DataDir = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Say where experiments stand: round, stage, labels, attempts and their errors.

    lockstep status cartpole
    """
    with admin(data_dir, url) as api:
        names = [name] if name else [one["name"] for one in api.pages("/experiments")]
        reports = [api.call("GET", f"/experiments/{one}") for one in names]
    if as_json:
        print_json(reports[0] if name else reports)
        return
    for report in reports:
        say(show.plain_line(report))
        console.print(show.rounds_table(report))
        for line in show.attempts_lines(report):
            say(line)


@app.command("round")
def show_round(
    name: Name, number: RoundNumber, data_dir: DataDir = None, url: Url = None, as_json: Json = False
) -> None:
    """Say what became of a round: its stages in time, why it waits, its attempts, errors and figures.

    lockstep round cartpole 2
    """
    with admin(data_dir, url) as api:
        report = api.call("GET", f"/experiments/{name}?before={number + 1}&limit=1")
    found = [one for one in report["rounds"] if one["number"] == number]
    if not found:
        raise client.Refused(f"{name} has no round {number}")
    if as_json:
        print_json(found[0])
        return
    console.print(show.timeline_table(found[0]))
    for line in [*show.attempts_lines({"rounds": found}), *show.metrics_lines(found[0])]:
        say(line)


@app.command()
def comparisons(
    name: Name, number: RoundNumber, data_dir: DataDir = None, url: Url = None, as_json: Json = False
) -> None:
    """List the comparisons of a round: who answered what, and what the reward model says.

    lockstep comparisons cartpole 1 --json
    """
    with admin(data_dir, url) as api:
        pages = api.pages(f"/experiments/{name}/rounds/{number}/comparisons?limit=100", "comparisons")
    print_json(pages) if as_json else console.print(show.comparisons_table(pages))


@app.command()
def charts(
    name: Name,
    chart: Annotated[str | None, typer.Argument(help="Its id; all of them if left out.")] = None,
    data_dir: DataDir = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print the statistics of an experiment: every chart of the admin page as a table, with what it says.

    lockstep charts cartpole agreement
    """
    with admin(data_dir, url) as api:
        found = api.call("GET", f"/experiments/{name}/charts")
    chosen = [one for one in found if chart in (None, one["id"])]
    if not chosen:
        raise client.Refused(f"there is no chart {chart}; there are {', '.join(one['id'] for one in found)}")
    if as_json:
        print_json(chosen)
        return
    for one in chosen:
        console.print(show.chart_table(one))
        for line in [*one["says"], *([one["warning"]] if one["warning"] else [])]:
            say(line)


@app.command()
def events(
    name: Name,
    after: Annotated[int, typer.Option(help="Only what came after the event of this id.", min=0)] = 0,
    own: Annotated[
        bool, typer.Option("--own", help="Only what was done to it itself, newest first.")
    ] = False,
    data_dir: DataDir = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print every change of state of an experiment: when, who, from what to what, and why.

    lockstep events cartpole --after 120
    """
    with admin(data_dir, url) as api:
        found = api.pages(f"/experiments/{name}/{'history' if own else f'events?after={after}'}")
    print_json(found) if as_json else console.print(show.events_table(found))


@app.command()
def actions(
    about: Annotated[
        str | None, typer.Option(help="Only what was done to this experiment or labeler.")
    ] = None,
    data_dir: DataDir = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print what administrators did, the newest first: when, from where, to what, and why.

    lockstep actions --about cartpole
    """
    with admin(data_dir, url) as api:
        found = api.pages(f"/actions?{urlencode({'about': about} if about else {})}")
    print_json(found) if as_json else console.print(show.actions_table(found))


@app.command()
def reusable(data_dir: DataDir = None, url: Url = None, as_json: Json = False) -> None:
    """List the experiments whose labels another can begin with, and what must be the same there.

        lockstep reusable
    """  # fmt: skip
    with admin(data_dir, url) as api:
        found = api.call("GET", "/reusable")
    if as_json:
        print_json(found)
        return
    for one in found:
        same = ", ".join(f"{key} = {value}" for key, value in one["given_with"].items())
        say(f"{one['name']}: {one['answers']} answers, given with {same}")


@app.command()
def presets(data_dir: DataDir = None, url: Url = None, as_json: Json = False) -> None:
    """List the ready-made configurations that the system knows.

        lockstep presets
    """  # fmt: skip
    with admin(data_dir, url) as api:
        found = api.call("GET", "/presets")
    if as_json:
        print_json(found)
        return
    for preset, config in found.items():
        say(f"{preset}: {config['env_id']}, {config['rounds']} rounds")


@app.command()
def create(
    config: ConfigFile,
    overrides: Overrides = None,
    labels_from: LabelsFrom = None,
    data_dir: DataDir = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Create an experiment in a running system; several may run at once.

    lockstep create configs/cartpole.toml --set name=second --set seed=2
    """
    wanted = configuration.load(config, configuration.parse_overrides(overrides))
    body = {"config": wanted.model_dump(mode="json"), "labels_from": labels_from}
    with admin(data_dir, url) as api:
        _create(api, body, as_json)


@app.command()
def copy(
    name: Name,
    new: Annotated[str, typer.Argument(help="What the new experiment is called.")],
    overrides: Overrides = None,
    with_labels: Annotated[
        bool, typer.Option("--with-labels", help="Begin with the labels that were given to it.")
    ] = False,
    data_dir: DataDir = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Create an experiment with the configuration of another one, changed as you say.

    lockstep copy cartpole calmer --set agent.ent_coef=0.01 --with-labels
    """
    changes = configuration.parse_overrides(overrides)
    with admin(data_dir, url) as api:
        config = api.call("GET", f"/experiments/{name}?limit=1")["config"]
        wanted = configuration.parse(configuration.changed(config, {"name": new, **changes}))
        body = {"config": wanted.model_dump(mode="json"), "origin": f"a copy of {name}"}
        _create(api, {**body, "labels_from": name if with_labels else None}, as_json)


@app.command()
def pause(name: Name, data_dir: DataDir = None, url: Url = None, as_json: Json = False) -> None:
    """Stop an experiment for a while: labelers at once, trainers at their next checkpoint.

    lockstep pause cartpole
    """
    _act(name, "pause", data_dir, url, as_json)


@app.command()
def resume(name: Name, data_dir: DataDir = None, url: Url = None, as_json: Json = False) -> None:
    """Go on with a paused experiment.

    lockstep resume cartpole
    """
    _act(name, "resume", data_dir, url, as_json)


@app.command()
def retry(name: Name, data_dir: DataDir = None, url: Url = None, as_json: Json = False) -> None:
    """Try the failed stage of an experiment again, once what made it fail is mended.

    lockstep retry cartpole
    """
    _act(name, "retry", data_dir, url, as_json)


@app.command()
def finish(
    name: Name, reason: Reason = None, yes: Yes = False, data_dir: DataDir = None, url: Url = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """End an experiment as it stands: its results count.

    lockstep finish cartpole --reason "good enough"
    """
    _confirm(f"Finish {name} as it stands? It cannot be resumed.", yes)
    _act(name, "finish", data_dir, url, as_json, reason)


@app.command()
def abandon(
    name: Name, reason: Reason = None, yes: Yes = False, data_dir: DataDir = None, url: Url = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Give an experiment up for good. What it made stays.

    lockstep abandon cartpole --reason "the camera was upside down"
    """
    _confirm(f"Abandon {name} for good? What it made stays; nothing more is done.", yes)
    _act(name, "abandon", data_dir, url, as_json, reason)


@app.command()
def invite(
    name: Annotated[
        str | None, typer.Argument(help="What the labeler is called; left out, they choose a name.")
    ] = None,
    days: Annotated[int, typer.Option(help="Days until the link runs out.", min=1, max=90)] = 7,
    data_dir: DataDir = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print a link that lets one person in, once; one who labeled here before comes back as themselves.

    lockstep invite ada --days 2
    """
    with admin(data_dir, url) as api:
        known = _labelers(api).get(name)
        who = {"name": name} if known is None else {"labeler": known["id"]}
        made = api.call("POST", "/invitations", {**who, "days": days})
    print_json(made) if as_json else say(show.invitation(made, name, again=known is not None))


@app.command()
def invitations(data_dir: DataDir = None, url: Url = None, as_json: Json = False) -> None:
    """List the invitations: open, used, expired and revoked ones.

        lockstep invitations
    """  # fmt: skip
    with admin(data_dir, url) as api:
        found = api.pages("/invitations")
    print_json(found) if as_json else console.print(show.invitations_table(found))


@app.command()
def revoke(
    invitation: Annotated[int, typer.Argument(help="Its id, as `lockstep invitations` shows it.", min=1)],
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Take an invitation back that nobody has used.

    lockstep revoke 5
    """
    with admin(data_dir, url) as api:
        api.call("DELETE", f"/invitations/{invitation}")
    say(f"invitation {invitation} lets nobody in any more")


@app.command()
def labelers(data_dir: DataDir = None, url: Url = None, as_json: Json = False) -> None:
    """List who labels here: how many answers, on how many browsers, when last.

        lockstep labelers
    """  # fmt: skip
    with admin(data_dir, url) as api:
        found = api.pages("/labelers")
    print_json(found) if as_json else console.print(show.labelers_table(found))


@app.command("shut-out")
def shut_out(
    name: Annotated[str, typer.Argument(help="The labeler's name, as `lockstep labelers` shows it.")],
    yes: Yes = False,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Log a labeler out everywhere and end their token and invitations. Their answers stay.

    lockstep shut-out ada
    """
    _confirm(f"Log {name} out everywhere? Their answers stay; a new invitation lets them in again.", yes)
    with admin(data_dir, url) as api:
        found = _labelers(api).get(name)
        if found is None:
            raise client.Refused(f"nobody here is called {name}; `lockstep labelers` shows who there is")
        ended = api.call("DELETE", f"/labelers/{found['id']}/sessions")["ended"]
    say(f"{name} is shut out (browsers logged out: {ended}); `lockstep invite {name}` lets them in again")


def _labelers(api: client.Admin) -> dict[str | None, Any]:
    return {one["name"]: one for one in api.pages("/labelers")}


def _create(api: client.Admin, body: dict[str, Any], as_json: bool) -> None:
    made = api.call("POST", "/experiments", body)
    print_json(made) if as_json else say(f"created {made['name']}: label at {api.url}/label/{made['name']}")


def _act(
    name: str, action: str, data_dir: Path | None, url: str | None, as_json: bool, reason: str | None = None
) -> None:
    with admin(data_dir, url) as api:
        body = None if reason is None else {"reason": reason}
        report = api.call("POST", f"/experiments/{name}/{action}", body)
    print_json(report) if as_json else say(show.plain_line(report))


def _confirm(question: str, yes: bool) -> None:
    """Ask a person; a script has made up its mind."""
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True)
