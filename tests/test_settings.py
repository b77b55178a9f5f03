"""Settings: defaults that work, slips that are named, and no open door with a weak token."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.settings import (
    COMPOSE_NAMES,
    Settings,
    SettingsError,
    check_safe,
    is_loopback,
    load_settings,
    secrets,
)
from shared.storage import FolderStore

EXAMPLE = Path(__file__).parent.parent / ".env.example"
GOOD, OTHER = "f0b1c2d3e4958677a1b2", "9c8d7e6f5a4b3c2d1e0f"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("LOCKSTEP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_with_nothing_set_everything_lies_in_one_folder(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.data_dir == tmp_path / "data"
    assert settings.database_url == f"sqlite:///{tmp_path}/data/lockstep.db"
    assert settings.broker_url == f"filesystem://{tmp_path}/data/broker"
    assert settings.store_url == f"file://{tmp_path}/data/store"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    check_safe(settings)


def test_the_default_store_works_even_in_an_odd_folder(tmp_path: Path) -> None:
    store = load_settings(data_dir=tmp_path / "a %41 ü").open_store()
    store.put("key", b"x")
    assert isinstance(store, FolderStore)
    assert (tmp_path / "a %41 ü" / "store" / "key").read_bytes() == b"x"


def test_environment_beats_file_and_arguments_beat_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("LOCKSTEP_PORT=1\nLOCKSTEP_SWEEP_S=2\nPOSTGRES_PASSWORD=x\n")
    monkeypatch.setenv("LOCKSTEP_PORT", "2")
    monkeypatch.setenv("LOCKSTEP_LOG_LEVEL", "")  # empty is not set
    settings = load_settings()
    assert (settings.port, settings.sweep_s, settings.log_level) == (2, 2.0, "INFO")
    assert load_settings(port=3).port == 3


def test_every_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_PORT", "seventy")
    monkeypatch.setenv("LOCKSTEP_BEAT_S", "-1")
    monkeypatch.setenv("LOCKSTEP_LOG_LEVEL", "LOUD")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    for name in ("LOCKSTEP_PORT: ", "LOCKSTEP_BEAT_S: ", "LOCKSTEP_LOG_LEVEL: "):
        assert name in str(caught.value)


def test_a_slip_of_the_pen_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_PROT", "1")
    with pytest.raises(SettingsError, match=r"no setting LOCKSTEP_PROT; did you mean LOCKSTEP_PORT\?"):
        load_settings()
    monkeypatch.delenv("LOCKSTEP_PROT")
    (tmp_path / ".env").write_text("LOCKSTEP_ADMIN_TOCKEN=x\n")
    with pytest.raises(SettingsError, match="did you mean LOCKSTEP_ADMIN_TOKEN"):
        load_settings()


def test_secrets_may_lie_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "lockstep_admin_token").write_text(GOOD + "\n")
    (folder / "lockstep_database_url").write_text("sqlite:///from-a-file.db")
    monkeypatch.setenv("LOCKSTEP_SECRETS_DIR", str(folder))
    settings = load_settings()
    assert settings.admin_token
    assert settings.admin_token.get_secret_value() == GOOD
    assert settings.database_url == "sqlite:///from-a-file.db"
    monkeypatch.setenv("LOCKSTEP_DATABASE_URL", "sqlite:///from-the-environment.db")
    assert load_settings().database_url == "sqlite:///from-the-environment.db"
    monkeypatch.delenv("LOCKSTEP_SECRETS_DIR")
    assert load_settings().admin_token is None
    assert load_settings(secrets_dir=folder).admin_token == settings.admin_token


def test_what_is_wrong_with_files_of_secrets_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKSTEP_SECRETS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match="LOCKSTEP_SECRETS_DIR cannot be read"):
        load_settings()
    monkeypatch.setenv("LOCKSTEP_SECRETS_DIR", str(tmp_path))
    (tmp_path / "lockstep_admin_tokken").write_text(GOOD)
    with pytest.raises(SettingsError, match="lockstep_admin_tokken; did you mean LOCKSTEP_ADMIN_TOKEN"):
        load_settings()


def test_what_only_compose_reads_is_no_slip(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOCKSTEP_BIND=0.0.0.0\n")
    assert load_settings().host == "127.0.0.1"


def test_a_lease_must_outlast_some_beats() -> None:
    with pytest.raises(SettingsError, match="at least three times beat_s"):
        load_settings(lease_s=5, beat_s=2)


def test_every_setting_is_described_and_in_the_example() -> None:
    lines = [line.removeprefix("#") for line in EXAMPLE.read_text().splitlines()]
    shown = dict(line.split("=", 1) for line in lines if line.startswith("LOCKSTEP_"))
    assert set(shown) == {f"LOCKSTEP_{name.upper()}" for name in Settings.model_fields} | COMPOSE_NAMES
    for name, field in Settings.model_fields.items():
        assert field.description
        default = "" if field.default is None else str(field.default)
        assert shown[f"LOCKSTEP_{name.upper()}"].removeprefix("./") == default, name


def test_the_example_can_be_used_as_it_is(tmp_path: Path) -> None:
    without = load_settings()
    (tmp_path / ".env").write_text(EXAMPLE.read_text())
    assert load_settings() == without
    (tmp_path / ".env").write_text(EXAMPLE.read_text().replace("#LOCKSTEP", "LOCKSTEP"))
    assert load_settings() == without


def test_secrets_are_not_shown() -> None:
    settings = load_settings(
        admin_token=GOOD,
        s3_secret_key=GOOD,
        database_url=f"postgresql://u:{GOOD}@h/d",
        broker_url=f"redis://:{GOOD}@h",
    )
    assert GOOD not in repr(settings)
    assert GOOD not in repr(secrets(settings))
    assert GOOD not in str(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "", "example.org"])
def test_other_machines_are_served_only_with_good_tokens(host: str) -> None:
    check_safe(load_settings(host=host, admin_token=GOOD, teacher_token=OTHER))
    for admin, teacher, said in [
        (None, OTHER, "LOCKSTEP_ADMIN_TOKEN is not set"),
        (GOOD, None, "LOCKSTEP_TEACHER_TOKEN is not set"),
        ("f0b1c2d3e495867", OTHER, "LOCKSTEP_ADMIN_TOKEN is shorter than 20 characters"),
        (GOOD, "changeme-changeme-changeme", "LOCKSTEP_TEACHER_TOKEN is easy to guess"),
        ("a1" * 16, OTHER, "LOCKSTEP_ADMIN_TOKEN is easy to guess"),
        (GOOD, GOOD, "are the same"),
    ]:
        with pytest.raises(SettingsError, match=said) as caught:
            check_safe(load_settings(host=host, admin_token=admin, teacher_token=teacher))
        assert "openssl rand -hex 16" in str(caught.value)
        assert GOOD not in str(caught.value)


def test_a_web_server_before_this_machine_lets_others_in_too() -> None:
    behind = {"host": "127.0.0.1", "allowed_hosts": "label.example.org"}
    check_safe(load_settings(**behind))  # tokens are made
    check_safe(load_settings(**behind, admin_token=GOOD))
    for admin, teacher, said in [("a", None, "ADMIN_TOKEN is shorter"), (GOOD, GOOD, "are the same")]:
        with pytest.raises(SettingsError, match=said) as caught:
            check_safe(load_settings(**behind, admin_token=admin, teacher_token=teacher))
        assert "refusing to serve label.example.org" in str(caught.value)


def test_a_default_s3_secret_is_refused_too() -> None:
    with pytest.raises(SettingsError, match="LOCKSTEP_S3_SECRET_KEY"):
        check_safe(
            load_settings(
                host="0.0.0.0", admin_token=GOOD, teacher_token=OTHER, store_url="s3://bucket",
                s3_secret_key="minioadmin",
            )
        )  # fmt: skip


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1"])
def test_this_machine_needs_no_tokens(host: str) -> None:
    assert is_loopback(host)
    check_safe(load_settings(host=host))


def test_tokens_are_made_once_and_kept_to_oneself() -> None:
    settings = load_settings()
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: secrets(settings), range(16)))
    assert len(made) == 1
    (tokens,) = made
    assert tokens.admin_token != tokens.teacher_token
    check_safe(load_settings(host="::", **vars(tokens)))
    assert sorted(path.name for path in settings.data_dir.iterdir()) == ["secrets.json"]
    assert stat.S_IMODE((settings.data_dir / "secrets.json").stat().st_mode) == 0o600


def test_tokens_that_are_set_are_used() -> None:
    settings = load_settings(admin_token=GOOD, teacher_token=OTHER)
    assert (secrets(settings).admin_token, secrets(settings).teacher_token) == (GOOD, OTHER)
    assert not settings.data_dir.exists()
    half = load_settings(admin_token=SecretStr(GOOD))
    assert secrets(half).admin_token == GOOD
    assert (
        secrets(half).teacher_token
        == json.loads((half.data_dir / "secrets.json").read_text())["teacher_token"]
    )


@pytest.mark.parametrize("content", ["", "{", "[]", '{"admin_token": "x"}', "\xff"])
def test_broken_tokens_are_named(content: str) -> None:
    settings = load_settings()
    settings.data_dir.mkdir()
    (settings.data_dir / "secrets.json").write_text(content, encoding="latin-1")
    with pytest.raises(SettingsError, match=r"secrets\.json cannot be read .* remove it"):
        secrets(settings)
