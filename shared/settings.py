"""What an installation decides, as opposed to an experiment: where things lie, who may come in, and so on.

Every setting is an environment variable `LOCKSTEP_<NAME>`, a line of `.env` or a file in the folder
LOCKSTEP_SECRETS_DIR; `.env.example` and the documentation list them all. With none set, everything lies in
`./data` and only this machine is served.
"""

import ipaddress
import json
import os
import secrets as random_secrets
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.storage import Store, open_store

MIN_TOKEN = 20  # characters: `openssl rand -hex 16` gives 32
# What the compose files read from the same .env: no settings of the programs, and no slips of the pen either.
COMPOSE_NAMES = frozenset({"LOCKSTEP_BIND"})
WEAK_WORDS = ("changeme", "change-me", "password", "secret", "lockstep", "minioadmin", "example", "12345")


class SettingsError(ValueError):
    """Settings that cannot or must not be used; the message says which and what to do."""


class Settings(BaseSettings):
    """The settings of one installation. Read them once, with `load_settings`, and pass them on."""

    model_config = SettingsConfigDict(
        env_prefix="LOCKSTEP_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    data_dir: Path = Field(Path("data"), description="folder of everything that is kept in the embedded size")
    database_url: str = Field(
        "",
        repr=False,
        description="SQLAlchemy's address of the database; empty: SQLite in data_dir",
    )
    broker_url: str = Field(
        "",
        repr=False,
        description="where hints to workers travel: redis://… or filesystem:///folder; empty: in data_dir",
    )
    store_url: str = Field(
        "",
        description="where clips and weights lie: file:///folder or s3://bucket/prefix; empty: in data_dir",
    )
    s3_endpoint: str | None = Field(None, description="address of the S3 server; empty: Amazon's")
    s3_access_key: str | None = Field(None, description="the S3 account's name")
    s3_secret_key: SecretStr | None = Field(None, description="the S3 account's secret")
    s3_region: str = Field("us-east-1", description="region of the S3 bucket")
    host: str = Field("127.0.0.1", description="address the labeler listens on; 0.0.0.0 for every one")
    port: int = Field(8000, ge=0, le=65535, description="port the labeler listens on; 0 for any free one")
    allowed_hosts: str = Field(
        "",
        description="names, separated by commas, under which browsers reach the labeler; "
        "localhost and plain addresses always work",
    )
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^/?#\s]+/?)?$",
        description="address under which people reach the pages, for the links of invitations "
        "(https://label.example.org); empty: the one by which the admin came",
    )
    trusted_proxies: str = Field(
        "",
        description="addresses or networks, separated by commas, of the web servers before the labeler whose "
        "X-Forwarded-For and X-Forwarded-Proto are believed; empty: nobody's are",
    )
    import_mib: int = Field(
        2048,
        ge=1,
        description="largest archive, in MiB, that the admin page takes in as labels to begin with; "
        "it lies in data_dir while it is looked at",
    )
    environments_dir: Path = Field(
        Path("exercises/environments"),
        description="folder of modules that register environments of your own (docs/environments.md); "
        "trainers import from it, and with docker compose it is mounted into them",
    )
    lease_s: float = Field(
        15, gt=0, description="seconds after which a worker that stopped beating is given up"
    )
    beat_s: float = Field(2, gt=0, description="seconds between a worker's heartbeats")
    sweep_s: float = Field(0.25, gt=0, description="seconds between two looks of the coordinator")
    max_attempts: int = Field(
        5, ge=1, description="failed attempts at a stage after which the round has failed"
    )
    silence_s: float = Field(
        600, gt=0, description="seconds without progress after which a trainer process is taken for hanging"
    )
    checkpoint_s: float = Field(
        300, gt=0, description="seconds of training a reward model after which a checkpoint is stored"
    )
    torch_threads: int = Field(1, ge=1, description="threads of a trainer process")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto",
        description="what trainers compute on; auto: CUDA where it is, else Apple's, else the processor",
    )
    tracker: Literal["none", "trackio", "wandb"] = Field(
        "none",
        description="where trainers send their metrics beside TensorBoard; needs the extra of that name",
    )
    tracker_project: str = Field("lockstep", min_length=1, description="the tracker's project")
    alive_file: Path | None = Field(
        None,
        description="file that coordinator and workers touch every few seconds while they go round; "
        "health checks look at its age",
    )
    revision: str = Field("", description="git revision of the code, told where it is no checkout")
    secrets_dir: Path | None = Field(
        None,
        description="folder of files, each named like a variable in lower case (lockstep_admin_token) and "
        "holding its value; variables and .env win over it",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="what is logged")
    log_format: Literal["text", "json"] = Field(
        "text", description="how: lines for people, or one JSON object a line, with ids, for programs"
    )
    admin_token: SecretStr | None = Field(
        None,
        description="opens the admin pages and commands; empty: made at the first start, on loopback only",
    )
    teacher_token: SecretStr | None = Field(
        None,
        description="lets a teacher see what it judges by; empty: made at the first start, on loopback only",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        for one in value.split(",") if value else ():
            ipaddress.ip_network(
                one.strip()
            )  # a ValueError names it; 172.18.0.1/16 is no network: 172.18.0.0/16 is
        return value

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        folder = self.data_dir.absolute()
        defaults = {
            "database_url": f"sqlite:///{folder / 'lockstep.db'}",
            "broker_url": f"filesystem://{folder / 'broker'}",
            "store_url": (folder / "store").as_uri(),
        }
        object.__setattr__(self, "data_dir", folder)
        object.__setattr__(self, "environments_dir", self.environments_dir.absolute())
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)  # the model is frozen for everybody else
        if self.beat_s * 3 > self.lease_s:
            raise ValueError(
                f"lease_s ({self.lease_s}) must be at least three times beat_s ({self.beat_s}), or a worker "
                "that is merely slow is taken for dead"
            )
        return self

    def open_store(self) -> Store:
        """Open the store these settings name."""
        return open_store(
            self.store_url,
            endpoint=self.s3_endpoint,
            access_key=self.s3_access_key,
            secret_key=self.s3_secret_key.get_secret_value() if self.s3_secret_key else None,
            region=self.s3_region,
        )


@dataclass(frozen=True)
class Secrets:
    """The two tokens, in the clear. Never log them."""

    admin_token: str
    teacher_token: str

    def __repr__(self) -> str:
        return "Secrets(…)"


def load_settings(**overrides: object) -> Settings:
    """Read the settings; `overrides` win over the environment. A SettingsError names every wrong variable."""
    known = {f"LOCKSTEP_{name.upper()}" for name in Settings.model_fields}
    told = {**dotenv_values(".env"), **os.environ}
    folder = overrides.get("secrets_dir") or told.get("LOCKSTEP_SECRETS_DIR") or None
    files = _files_in(Path(str(folder))) if folder else set()
    for name in sorted({*told, *files} - known - COMPOSE_NAMES):
        if name.upper().startswith("LOCKSTEP_") and name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else "; .env.example lists them all"
            raise SettingsError(f"there is no setting {name}{hint}")
    try:
        return Settings(_secrets_dir=folder, **overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = ["these settings cannot be used:"]
        for item in error.errors(include_input=False):
            name = "_".join(str(part) for part in item["loc"]).upper()
            lines.append(f"  {'LOCKSTEP_' + name + ': ' if name else ''}{item['msg']}")
        raise SettingsError("\n".join(lines)) from None


def _files_in(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir() if path.is_file()}
    except OSError as error:
        raise SettingsError(f"LOCKSTEP_SECRETS_DIR cannot be read: {error}") from None


def check_safe(settings: Settings) -> None:
    """Raise SettingsError unless only this machine is served or every secret is set and hard to guess.

    With allowed_hosts a web server on this machine lets others in. Tokens that are not set are then made, as
    they are on loopback; those that are set must be good.
    """
    at_home = is_loopback(settings.host)
    if at_home and not settings.allowed_hosts:
        return
    wrong = []
    s3 = ("s3_secret_key",) if settings.store_url.startswith("s3:") and settings.s3_secret_key else ()
    for name in ("admin_token", "teacher_token", *s3):
        secret: SecretStr | None = getattr(settings, name)
        if secret is None and at_home:
            continue
        problem = _weakness(secret.get_secret_value() if secret else "")
        if problem:
            wrong.append(f"  LOCKSTEP_{name.upper()} {problem}")
    if not wrong and settings.admin_token is not None and settings.admin_token == settings.teacher_token:
        wrong.append("  LOCKSTEP_ADMIN_TOKEN and LOCKSTEP_TEACHER_TOKEN are the same")
    if wrong:
        place = settings.allowed_hosts if at_home else settings.host
        raise SettingsError(
            f"refusing to serve {place}, which other machines can reach:\n" + "\n".join(wrong) + "\n"
            "Set each to something of its own, as `openssl rand -hex 16` prints it, or set "
            "LOCKSTEP_HOST=127.0.0.1 to serve this machine alone."
        )


def check_tracker(settings: Settings) -> None:
    """Raise SettingsError if the tracker that is asked for is not installed."""
    name = settings.tracker
    if name != "none" and find_spec(name) is None:
        raise SettingsError(
            f"LOCKSTEP_TRACKER={name} needs the package {name}, which is not installed here: "
            f"pip install 'lockstep[{name}]', or leave LOCKSTEP_TRACKER unset"
        )


def is_loopback(host: str) -> bool:
    """Return whether `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def secrets(settings: Settings) -> Secrets:
    """Return the tokens that are set, the others from data_dir/secrets.json: made at the first start."""
    given = {
        name: secret.get_secret_value()
        for name, secret in (("admin_token", settings.admin_token), ("teacher_token", settings.teacher_token))
        if secret
    }
    if len(given) == 2:
        return Secrets(**given)
    path = settings.data_dir / "secrets.json"
    if not path.exists():
        _make_secrets(path)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        made = {name: str(kept[name]) for name in ("admin_token", "teacher_token")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{path} cannot be read ({error}); remove it to have new tokens made") from None
    return Secrets(**(made | given))


def _make_secrets(path: Path) -> None:
    """Write new tokens, for the owner's eyes only; if another process was quicker, its tokens stay."""
    tokens = {name: random_secrets.token_urlsafe(24) for name in ("admin_token", "teacher_token")}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{random_secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(tokens, file)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _weakness(token: str) -> str:
    if not token:
        return "is not set"
    if len(token) < MIN_TOKEN:
        return f"is shorter than {MIN_TOKEN} characters"
    if len(set(token)) < 8 or any(word in token.lower() for word in WEAK_WORDS):
        return "is easy to guess"
    return ""
