"""The `lockstep` command. Each command's help says what it does, with an example to copy."""

import runpy
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import httpx
import typer

from services import cli_admin, client, reusing, show, teachers
from services.cli_options import CONFIG, ConfigFile, DataDir, Name, Overrides, Url, admin, console
from services.cli_options import settings as settings_of
from shared import config as configuration
from shared.config import ConfigError
from shared.settings import SettingsError

app = typer.Typer(
    help="Train agents from human preferences, in synchronous rounds.\n\n"
    "Begin with `lockstep run`: it starts everything on this machine and prints where to label. "
    "`lockstep demo` shows the same without hands.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)
Port = Annotated[
    int | None, typer.Option(help="Port of the pages, 0 for any free one [LOCKSTEP_PORT].", min=0, max=65535)
]


class WorkerKind(StrEnum):
    """The two kinds of worker."""

    AGENT = "agent"
    REWARD = "reward"


class ExportForm(StrEnum):
    """What an export holds."""

    FILES = "files"
    DATASET = "dataset"


def main() -> None:
    """Run the command line; errors that are meant for people come without a traceback."""
    from services.embedded import CannotStartError
    from services.sitting import Stopped
    from shared.backup import BackupError
    from shared.export import ExportError
    from shared.storage import StoreError
    from shared.transitions import StaleState

    try:
        app()
    except Stopped:
        console.print("stopped before its end")
        raise SystemExit(130) from None
    except (
        CannotStartError, ConfigError, SettingsError, client.Refused, BackupError, ExportError, StoreError,
        StaleState, ValueError,
    ) as error:  # fmt: skip
        console.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        raise SystemExit(2) from None


@app.command()
def run(
    config: ConfigFile = CONFIG,
    data_dir: DataDir = None,
    port: Port = None,
    overrides: Overrides = None,
    browser: Annotated[bool, typer.Option(help="Open the label page.")] = True,
) -> None:
    """Start the whole system on this machine, with the experiment of CONFIG.

    Ctrl-C stops everything; the next run goes on where it was. The parts' logs are in the data folder.

        lockstep run configs/cartpole.toml --data-dir data/mine --port 8080
    """
    from services import sitting

    settings = settings_of(data_dir, port)
    wanted = configuration.load(config, configuration.parse_overrides(overrides))
    try:
        sitting.run(settings, wanted, console, browser and sitting.can_show_a_page())
    except sitting.Stopped:  # the ordinary end, so the status is 0
        console.print("stopped; start again to go on from here")


@app.command()
def demo(
    config: ConfigFile = CONFIG,
    data_dir: DataDir = None,
    port: Port = 0,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(help="The experiment's seed.", min=0)] = None,
    teacher: Annotated[str, typer.Option(help=f"One of {', '.join(teachers.KINDS)}.")] = "oracle",
) -> None:
    """Run an experiment without hands: a teacher answers through the API like any labeler.

    Uses a fresh folder in the data folder. Exit status 0: solved; 1: the labels ran out first; 2: it failed.

        lockstep demo --seed 3 --set rounds=3
    """
    from services import sitting

    changes = configuration.parse_overrides(overrides)
    if seed is not None:
        changes["seed"] = seed
    wanted = configuration.load(config, changes)
    settings = settings_of(data_dir, port)
    settings = settings_of(sitting.fresh_folder(settings.data_dir), port)
    console.print(f"everything of this run is in {settings.data_dir}", soft_wrap=True)
    answering = teachers.Teacher(kind=teacher, seed=wanted.seed)
    raise typer.Exit(sitting.demo(settings, wanted, answering, console))


app.add_typer(cli_admin.app)


@app.command()
def teach(
    name: Name,
    kind: Annotated[str, typer.Option(help=f"One of {', '.join(teachers.KINDS)}.")] = "oracle",
    seed: Annotated[int, typer.Option(help="Seed of the teacher's own chances.")] = 1,
    error_rate: Annotated[float, typer.Option(help="Of mistake, skip and equal.")] = 0.1,
    labels: Annotated[int | None, typer.Option(help="Answers after which it stops.", min=1)] = None,
    data_dir: DataDir = None,
    url: Url = None,
) -> None:
    """Let a simulated labeler answer in a running system until the experiment ends.

    lockstep teach cartpole --kind mistake --error-rate 0.1
    """
    from shared.settings import secrets

    with admin(data_dir, url) as api:  # a clear word if nothing answers, rather than waiting for ever
        api.call("GET", f"/experiments/{name}")
        token = secrets(settings_of(data_dir)).teacher_token
        answering = teachers.Teacher(kind=kind, seed=seed, error_rate=error_rate)
        try:
            called = f"{kind}-{seed} of {name}"[:80]  # of one name there is one: two at once need two
            lesson = teachers.Lesson(api.url, name, answering, token, called, labels)
            given = teachers.teach(lesson)
        except httpx.HTTPStatusError as error:
            raise client.Refused(f"the teacher was refused: {error.response.text[:300]}") from None
    console.print(f"{given} answers given")


@app.command()
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    data_dir: DataDir = None,
    form: Annotated[
        ExportForm, typer.Option("--format", help="Plain files, or with Parquet tables and a data card too.")
    ] = ExportForm.FILES,
    licence: Annotated[str, typer.Option(help="What the data card says the data may be used for.")] = "other",
) -> None:
    """Write an experiment as plain files: labels, clips, weights, videos, results.

    lockstep export cartpole exported/cartpole --format dataset --licence cc-by-4.0
    """
    from sqlalchemy.exc import DBAPIError

    from shared import acts, dataset
    from shared.database import Database
    from shared.export import ExportError, nothing_more
    from shared.export import export as write

    settings = settings_of(data_dir)
    if licence != "other" and form != ExportForm.DATASET:
        raise ExportError("a licence stands in the data card, which only --format dataset writes")
    file = settings.database_url.partition("sqlite:///")[2]
    if file and not Path(file).exists():
        raise ExportError(f"there is no Lockstep in {settings.data_dir}: name its folder with --data-dir")
    add = dataset.adder(licence) if form == ExportForm.DATASET else nothing_more
    database = Database(settings.database_url)
    try:
        acts.check_noting(database)
    except DBAPIError as error:
        reason = f"every export is noted in the database, which takes no note: {error.orig}"
        raise ExportError(f"{reason}; nothing was written") from None
    with database.read(snapshot=True) as session:
        written = write(session, settings.open_store(), name, folder, add=add)
    with database.write() as session:
        what = {"form": str(form), "licence": licence, "folder": str(folder.absolute())}
        acts.note(session, acts.COMMAND_LINE, "exported", name, **what)
    console.print(f"written: {written}", soft_wrap=True)


@app.command("import")
def import_labels(
    folder: Annotated[Path, typer.Argument(help="What `lockstep export` wrote.")],
    config: ConfigFile = CONFIG,
    overrides: Overrides = None,
    data_dir: DataDir = None,
) -> None:
    """Create an experiment that begins with the labels of an export: trained on from its first round on.

    lockstep import exported/cartpole configs/cartpole.toml --set name=second
    """
    wanted = configuration.load(config, configuration.parse_overrides(overrides))
    console.print(reusing.create(settings_of(data_dir), wanted, folder), soft_wrap=True, markup=False)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="A file that is not there yet.")], data_dir: DataDir = None
) -> None:
    """Write the whole database and every artifact into one file, while the system runs or not.

    lockstep backup backups/monday.tar
    """
    from shared.backup import backup as write
    from shared.database import Database

    settings = settings_of(data_dir)
    written = write(Database(settings.database_url), settings.open_store(), file)
    console.print(f"written: {file}, {show.counts(written)}", soft_wrap=True)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="What `lockstep backup` wrote.")], data_dir: DataDir = None
) -> None:
    """Bring a backup into an empty database (SQLite or Postgres) and store, before anything else runs.

    lockstep restore backups/monday.tar --data-dir data/restored
    """
    from shared.backup import restore as bring

    settings = settings_of(data_dir)
    restored = bring(settings.database_url, settings.open_store(), file)
    console.print(f"restored: {show.counts(restored)}", soft_wrap=True)


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest schema. `lockstep run` does so by itself.

    LOCKSTEP_DATABASE_URL=postgresql+psycopg://… lockstep migrate
    """
    from shared.database import migrate as bring

    bring(settings_of(data_dir).database_url)


@app.command()
def labeler() -> None:
    """Serve the label page, the admin page and the API: one part of the full size.

    LOCKSTEP_HOST=0.0.0.0 lockstep labeler
    """
    runpy.run_module("services.labeler", run_name="__main__")


@app.command()
def coordinator() -> None:
    """Move rounds on and repair what got lost: one part of the full size. A second one waits for the first.

    lockstep coordinator
    """
    runpy.run_module("services.coordinator", run_name="__main__")


@app.command()
def worker(kind: Annotated[WorkerKind, typer.Argument(help="Whose stages it serves.")]) -> None:
    """Train: one part of the full size, as many as there are machines for it.

    lockstep worker agent
    """
    runpy.run_module(f"services.{kind.value}_trainer.worker", run_name="__main__")


if __name__ == "__main__":
    main()
