"""The compose files and the Dockerfile, read as they are: what is published, who may do and know what.

Nothing here needs a Docker Engine; `make compose-check` brings the real thing up.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from shared.settings import COMPOSE_NAMES, Settings, check_safe, load_settings
from tests.compose.stack import COMBINATIONS

ROOT = Path(__file__).parent.parent
FILES = sorted({name for files in COMBINATIONS for name in files})
ONE_SHOT = {"secrets", "roles", "migrate", "s3_accounts"}


def load(name: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return read


def services() -> list[tuple[str, str, dict[str, Any]]]:
    """Return file, name and definition of every service that is defined in full, not merely laid over."""
    found = [(file, name, one) for file in FILES for name, one in load(file)["services"].items()]
    return [(file, name, one) for file, name, one in found if "command" in one]


ALL = pytest.mark.parametrize(
    ("file", "name", "service"), services(), ids=[f"{file}-{name}" for file, name, _ in services()]
)


def test_every_compose_file_is_tried() -> None:
    assert {path.name for path in ROOT.glob("docker-compose*.yml")} == set(FILES)


def test_only_the_label_page_is_published_and_only_to_this_machine() -> None:
    published = {name: one["ports"] for file, name, one in services() if "ports" in one}
    assert published.pop("labeler") == ["${LOCKSTEP_BIND:-127.0.0.1}:${LOCKSTEP_PORT:-8000}:8000"]
    assert set(published) == {"front"}  # docker-compose.remote.yml, TLS alone
    assert all(port.startswith("${WORKERS_BIND:-127.0.0.1}:") for port in published["front"])


@ALL
def test_a_service_has_no_rights(file: str, name: str, service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert not {"privileged", "devices", "pid", "ipc"} & set(service)
    if name == "secrets":  # gives files to their users, and can reach nothing
        assert service["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER"]
        assert service["network_mode"] == "none"
    else:
        assert "cap_add" not in service
        ours = service["image"].startswith("lockstep-")  # these name their user in the Dockerfile
        assert ours or service["user"] not in ("root", "0", "0:0")


@ALL
def test_a_service_comes_back_and_says_how_it_is(file: str, name: str, service: dict[str, Any]) -> None:
    assert service["logging"]["options"]["max-size"]
    if name in ONE_SHOT:
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True
    assert service["healthcheck"]["test"]
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace >= (30 if "trainer" in name else 10)


@ALL
def test_a_service_waits_for_what_it_needs(file: str, name: str, service: dict[str, Any]) -> None:
    waits = {other: how["condition"] for other, how in service.get("depends_on", {}).items()}
    for other, condition in waits.items():
        if other in ONE_SHOT:
            assert condition == "service_completed_successfully"
    if file == "docker-compose.yml" and name not in ONE_SHOT | {"postgres", "redis", "minio"}:
        assert waits == {"migrate": "service_completed_successfully", "redis": "service_healthy"}


@ALL
def test_settings_in_compose_are_settings(file: str, name: str, service: dict[str, Any]) -> None:
    known = {f"LOCKSTEP_{field.upper()}" for field in Settings.model_fields}
    told = {key for key in service.get("environment", {}) if key.startswith("LOCKSTEP_")}
    assert told <= known
    for name_in_text in re.findall(r"LOCKSTEP_[A-Z0-9_]+", (ROOT / file).read_text()):
        assert name_in_text in known | COMPOSE_NAMES, name_in_text


@ALL
def test_no_secret_stands_in_compose(file: str, name: str, service: dict[str, Any]) -> None:
    for key, value in service.get("environment", {}).items():
        if re.search("PASSWORD|SECRET_KEY|TOKEN|DATABASE_URL|BROKER_URL", key):
            from_file = key.endswith("_FILE") and value.startswith("/run/secrets/")
            assert from_file or value.startswith("${" + key + ":?"), f"{name}: {key}"


def test_a_service_sees_its_own_secrets_only() -> None:
    owners = {"agent_trainer": "worker", "reward_trainer": "worker", "roles": "postgres"}
    owners |= {"s3_accounts": "minio"}
    for _, name, service in services():
        mounted = {volume.split(":")[0] for volume in service.get("volumes", []) if isinstance(volume, str)}
        secret = {volume for volume in mounted if volume.startswith("secrets-")}
        if name != "secrets" and not service.get("hostname"):  # a worker elsewhere has no such volumes
            assert secret == {f"secrets-{owners.get(name, name)}"}
        assert not mounted & {"secrets-postgres"} or name in ("secrets", "postgres", "roles")


def test_images_are_named_by_tag() -> None:
    named = [one["image"] for _, _, one in services()]
    named += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    outside = {image for image in named if ":" in image}
    assert outside == {
        "postgres:17", "redis:8.6.3", "python:3.11-slim-bookworm",
        "${S3_IMAGE:-pgsty/silo:RELEASE.2026-09-16T00-00-00Z}",
    }  # fmt: skip
    assert all(not image.endswith(":latest") for image in named)


def test_the_code_comes_last_in_the_images() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for target in ("web", "trainer"):
        stage = re.search(rf"^FROM {target}-packages AS {target}\n(.*?)(?=^FROM|\Z)", text, re.M | re.S)
        assert stage, target
        assert "pip" not in stage[1], "code would be copied before packages are installed"
        assert "USER 10001:10001" in stage[1]
    assert "# syntax" not in text
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for path in line.split():
            assert f"!{path}" in ignored, f"{path} never reaches the build"


def make_secrets(root: Path, *arguments: str, **env: str) -> str:
    script = ROOT / "docker" / "secrets.sh"
    told = {"PATH": os.environ["PATH"], "ROOT": str(root), "VOLUMES": str(root / "none"), **env}
    return subprocess.run(
        ["sh", str(script), *arguments], env=told, capture_output=True, text=True, check=True
    ).stdout


def test_secrets_are_made_once_and_strong_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_secrets(tmp_path)
    first = {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    make_secrets(tmp_path)
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == first
    other = tmp_path / "other"
    make_secrets(other)
    for service, name in (("postgres", "password"), ("redis", "password"), ("minio", "password")):
        assert re.fullmatch("[0-9a-f]{48}", first[tmp_path / service / name])
        assert (other / service / name).read_text() != first[tmp_path / service / name]
    for path in first:
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"

    for name in list(os.environ):
        if name.startswith("LOCKSTEP_"):
            monkeypatch.delenv(name)
    settings = load_settings(secrets_dir=tmp_path / "labeler", host="0.0.0.0", store_url="s3://lockstep/x")
    check_safe(settings)
    # Each service has accounts and passwords of its own; none is another's.
    made = {name: load_settings(secrets_dir=tmp_path / name) for name in ("labeler", "coordinator", "worker")}
    roles = first[tmp_path / "postgres" / "roles.sql"]
    users = first[tmp_path / "redis" / "users.conf"]
    passwords = [first[tmp_path / "postgres" / "password"], first[tmp_path / "redis" / "password"]]
    for name, one in made.items():
        database, broker = urlsplit(one.database_url), urlsplit(one.broker_url)
        assert (database.username, broker.username) == (f"lockstep_{name}", name)
        assert f"ALTER ROLE lockstep_{name} LOGIN" in roles
        assert f"PASSWORD '{database.password}';" in roles
        assert f"user {name} on >{broker.password} " in users
        passwords += [str(database.password), str(broker.password)]
    owner = urlsplit(load_settings(secrets_dir=tmp_path / "migrate").database_url)
    assert owner.username == "lockstep"
    passwords.append(str(owner.password))
    assert len(set(passwords)) == len(passwords) == 9
    assert first[tmp_path / "postgres" / "password"] not in roles
    coordinator = made["coordinator"]
    assert (coordinator.admin_token, coordinator.s3_secret_key) == (None, None)
    assert made["worker"].admin_token is made["worker"].teacher_token is None


def test_passwords_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    """The owner's and the S3 server's; what was made from them in files that nobody reads any more goes."""
    for name, text in {
        "migrate/database_password": "1" * 48, "minio/password": "2" * 48,
        "postgres/10-lockstep.sql": "CREATE ROLE", "redis/redis.conf": "requirepass",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    make_secrets(tmp_path)
    assert (
        f"ALTER ROLE lockstep LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '{'1' * 48}'"
        in (tmp_path / "postgres" / "roles.sql").read_text()
    )
    assert (tmp_path / "worker" / "lockstep_s3_secret_key").read_text() == "2" * 48
    assert not (tmp_path / "postgres" / "10-lockstep.sql").exists()
    assert not (tmp_path / "redis" / "redis.conf").exists()


def test_s3_accounts_are_shared_until_they_are_made(tmp_path: Path) -> None:
    def accounts() -> dict[str, str]:
        names = ("migrate", "labeler", "worker")
        return {name: (tmp_path / name / "lockstep_s3_access_key").read_text() for name in names}

    make_secrets(tmp_path)
    shared = dict.fromkeys(("migrate", "labeler", "worker"), "lockstep")
    assert accounts() == shared
    make_secrets(tmp_path, "s3", "own")
    make_secrets(tmp_path)  # as every start does
    assert accounts() == {"migrate": "lockstep", "labeler": "lockstep-labeler", "worker": "lockstep-worker"}
    keys = {(tmp_path / name / "lockstep_s3_secret_key").read_text() for name in shared}
    assert len(keys) == 3
    told = make_secrets(tmp_path, "worker", "10.1.2.3")
    assert "LOCKSTEP_S3_ACCESS_KEY=lockstep-worker\n" in told
    make_secrets(tmp_path, "s3", "shared")
    assert accounts() == shared


def test_a_worker_elsewhere_is_told_all_it_needs(tmp_path: Path) -> None:
    make_secrets(tmp_path, TLS_NAMES="lockstep.example.org,10.1.2.3,fd00::1")
    text = make_secrets(tmp_path, "worker", "10.1.2.3", REDIS_PORT="1234")
    told = dict(line.split("=", 1) for line in text.splitlines())
    needed = load("docker-compose.worker.yml")["services"]["agent_trainer"]["environment"]
    assert set(told) == {name for name, value in needed.items() if str(value).startswith(f"${{{name}:?")}
    assert "@10.1.2.3:5432/lockstep?sslmode=verify-full" in told["LOCKSTEP_DATABASE_URL"]
    assert told["LOCKSTEP_BROKER_URL"].startswith("rediss://worker:")
    for kept, name in (("database", "LOCKSTEP_DATABASE_URL"), ("broker", "LOCKSTEP_BROKER_URL")):
        here = urlsplit((tmp_path / "worker" / f"lockstep_{kept}_url").read_text())
        assert urlsplit(told[name])[1].split("@")[0] == here.netloc.split("@")[0], "not the worker's account"
    assert "@10.1.2.3:1234/0?ssl_cert_reqs=required" in told["LOCKSTEP_BROKER_URL"]
    certificate = make_secrets(tmp_path, "certificate")
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-ext", "subjectAltName"],
        input=certificate, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in ("DNS:lockstep.example.org", "IP Address:10.1.2.3", "IP Address:FD00:0:0:0:0:0:0:1"):
        assert name in shown
    assert make_secrets(tmp_path, "certificate") == certificate
    make_secrets(tmp_path, TLS_NAMES="another.example.org")
    assert make_secrets(tmp_path, "certificate") != certificate
