"""What several `lockstep` commands share: their options, the terminal, the way to a running system."""

import json
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from services import client
from shared.settings import Settings, load_settings

CONFIG = Path("configs/cartpole.toml")
console = Console()

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of everything that is kept [LOCKSTEP_DATA_DIR].")
]
Url = Annotated[str | None, typer.Option(help="Address of the system, if it is not on this machine.")]
Name = Annotated[str, typer.Argument(help="The experiment's name, as `lockstep list` shows it.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the configuration: agent.gamma=0.9"),
]
ConfigFile = Annotated[Path, typer.Argument(help="The experiment's configuration.")]
Json = Annotated[bool, typer.Option("--json", help="Print what the API answers, as JSON, for programs.")]


def admin(data_dir: Path | None, url: str | None) -> "closing[client.Admin]":
    """Open the way to the admin API of a running system."""
    return closing(client.admin_of(settings(data_dir), url))


def settings(data_dir: Path | None = None, port: int | None = None) -> Settings:
    """Return the settings, with what the command line says."""
    given = {"data_dir": data_dir, "port": port}
    return load_settings(**{name: value for name, value in given.items() if value is not None})


def say(text: str) -> None:
    """Print a line as it is, however wide the terminal."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
