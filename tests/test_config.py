"""Configurations: a slip is named with its key and what would do, before anything starts."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from services.labeler import forms
from shared.config import ConfigError, ExperimentConfig, Section, load, parse

ROOT = Path(__file__).parent.parent
PRESETS = sorted((ROOT / "configs").glob("*.toml"))
GOOD: dict[str, Any] = {"name": "try-1", "env_id": "CartPole-v1"}


def wrong(data: dict[str, Any]) -> str:
    """Return the error of a configuration that differs from a good one in `data`."""
    with pytest.raises(ConfigError) as caught:
        parse(GOOD | data)
    return str(caught.value)


def test_a_name_and_an_environment_are_enough() -> None:
    config = parse(GOOD)
    assert (config.rounds, config.labels.labels_per_comparison) == (5, 1)
    assert parse(config.model_dump(mode="json")) == config


def test_both_must_be_given() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({})
    assert "name: Field required" in str(caught.value)
    assert "env_id: Field required" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"rounds": -1}, "rounds"),
        ({"rounds": 0}, "rounds"),
        ({"seed": -1}, "seed"),
        ({"segments": {"length": -25}}, "segments.length"),
        ({"segments": {"length": 1}}, "segments.length"),
        ({"labels": {"comparisons_per_round": 0}}, "labels.comparisons_per_round"),
        ({"labels": {"clips_per_comparison": 1}}, "labels.clips_per_comparison"),
        ({"labels": {"clips_per_comparison": 5}}, "labels.clips_per_comparison"),
        ({"labels": {"undo_grace_s": -0.5}}, "labels.undo_grace_s"),
        ({"labels": {"lease_s": 1e12}}, "labels.lease_s"),
        ({"reward_model": {"held_out": 1.0}}, "reward_model.held_out"),
        ({"agent": {"total_steps": -5}}, "agent.total_steps"),
        ({"agent": {"gamma": 1.01}}, "agent.gamma"),
        ({"agent": {"learning_rate": float("inf")}}, "agent.learning_rate"),
        ({"agent": {"learning_rate": float("nan")}}, "agent.learning_rate"),
        ({"evaluation": {"episodes": 0}}, "evaluation.episodes"),
    ],
)
def test_sizes_out_of_bounds_are_named(data: dict[str, Any], key: str) -> None:
    assert f"  {key}: Input should be" in wrong(data)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"ronds": 3}, "ronds: there is no such key; did you mean rounds?"),
        ({"agent": {"gama": 0.9}}, "agent.gama: there is no such key; did you mean gamma?"),
        ({"labels": {"lease": 9}}, "labels.lease: there is no such key; did you mean lease_s?"),
        ({"lables": {}}, "lables: there is no such key; did you mean labels?"),
        ({"evaluation": {"zzz": 1}}, "evaluation.zzz: there is no such key; known: episodes,"),
    ],
)
def test_a_typing_error_in_a_key_is_named_with_what_was_meant(data: dict[str, Any], line: str) -> None:
    assert line in wrong(data)


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"rounds": "many"}, "rounds"),
        ({"rounds": 2.5}, "rounds"),
        ({"rounds": [5]}, "rounds"),
        ({"agent": 3}, "agent"),
        ({"labels": {"comparisons_per_round": 10**20}}, "labels.comparisons_per_round"),
        ({"segments": {"collect_steps": 10**9}}, "segments.collect_steps"),
        ({"segments": {"choice": "best"}}, "segments.choice"),
        ({"env_id": ""}, "env_id"),
        ({"env_id": 7}, "env_id"),
        ({"name": "Has Spaces"}, "name"),
        ({"name": "../../etc"}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"name": "x\n"}, "name"),
    ],
)
def test_wrong_types_and_names_are_named(data: dict[str, Any], key: str) -> None:
    assert f"\n  {key}: " in wrong(data)


def test_every_slip_is_listed_at_once() -> None:
    message = wrong({"rounds": 0, "agent": {"gama": 1}, "seed": "x"})
    assert message.count("\n") == 3


def test_a_minibatch_must_fit_a_rollout() -> None:
    agent = {"num_envs": 2, "num_steps": 8, "minibatch_size": 17}
    assert "minibatch_size (17) is larger than a rollout (num_envs × num_steps = 16)" in wrong(
        {"agent": agent}
    )
    assert parse(GOOD | {"agent": agent | {"minibatch_size": 16}}).agent.minibatch_size == 16


def test_some_rounds_may_begin_with_a_fresh_agent_and_learn_for_longer() -> None:
    agent = {"restart_rounds": [2], "total_steps": 8192, "restart_steps": 16384, "final_steps": 32768}
    config = parse(GOOD | {"rounds": 4, "agent": agent})
    assert [config.begins_anew(number) for number in range(1, 5)] == [False, True, False, False]
    assert [config.agent_steps(number) for number in range(1, 5)] == [8192, 16384, 8192, 32768]
    for other, anew in (({"restart": True}, [True] * 4), ({"final_restart": True}, [False] * 3 + [True])):
        config = parse(GOOD | {"rounds": 4, "agent": other})
        assert [config.begins_anew(number) for number in range(1, 5)] == anew
        assert {config.agent_steps(number) for number in range(1, 5)} == {8192}


def test_the_first_round_may_ask_for_another_number_of_comparisons() -> None:
    labels = {"comparisons_per_round": 20, "comparisons_first_round": 50, "labels_per_comparison": 2}
    config = parse(GOOD | {"rounds": 3, "labels": labels})
    assert [config.comparisons(number) for number in (1, 2, 3)] == [50, 20, 20]
    assert config.label_budget() == 180
    assert parse(GOOD | {"rounds": 3}).label_budget() == 60


# ---------------------------------------------------------------------------------- files


def write(folder: Path, text: str) -> Path:
    path = folder / "try.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_and_overrides_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "a"\nenv_id = "CartPole-v1"\n[agent]\ngamma = 0.9\n')
    config = load(path, {"agent.gamma": 0.5, "labels.lease_s": 7, "rounds": 1})
    assert (config.agent.gamma, config.labels.lease_s, config.rounds) == (0.5, 7, 1)
    with pytest.raises(ConfigError, match=r"agent\.gama: there is no such key; did you mean gamma"):
        load(path, {"agent.gama": 0.5})
    with pytest.raises(ConfigError, match="name is not a table"):
        load(path, {"name.first": "x"})


@pytest.mark.parametrize("text", ["rounds = ", "[agent\n", "a = 1\na = 2\n", "name = 'x"])
def test_broken_toml_says_where(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"try\.toml is not valid TOML: .*(line 1|line 2|end of document)"):
        load(write(tmp_path, text))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no configuration .*nowhere\.toml; configs/ holds"):
        load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="is not valid TOML"):
        load(tmp_path / "latin.toml")


def test_every_preset_loads_and_is_named_like_its_file() -> None:
    assert PRESETS, "configs/ holds no preset"
    assert {load(path).name for path in PRESETS} == {path.stem for path in PRESETS}


# ------------------------------------------------------------------------------ the model


def sections(model: type[BaseModel] = ExperimentConfig) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = [model]
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += sections(field.annotation)
    return found


def test_every_key_is_described_and_every_number_bounded() -> None:
    unbounded = {"solved_return"}  # true returns may be anything
    for model in sections():
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                continue
            assert field.description, f"{model.__name__}.{name} has no description"
            if any(kind in str(field.annotation) for kind in ("int", "float")) and name not in unbounded:
                bounds = {type(item).__name__ for item in field.metadata}
                bounds |= set(re.findall(r"\b(Ge|Gt)\(", str(field.annotation)))  # of the numbers of a list
                assert bounds & {"Ge", "Gt"}, f"{model.__name__}.{name} has no lower bound"


def test_a_game_whose_play_must_be_repeated_has_no_sticky_actions() -> None:
    assert "sticky_actions = 0" in wrong({"env_id": "ALE/DonkeyKong-v5", "atari": {"sticky_actions": 0.25}})
    parse(GOOD | {"env_id": "ALE/Pong-v5", "atari": {"sticky_actions": 0.25}})


words = st.text("az_.\n\0é", max_size=5)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from([*ExperimentConfig.model_fields, "agents", ""])


@given(st.dictionaries(keys, json, max_size=5))
def test_whatever_is_given_the_answer_is_a_configuration_or_a_clear_error(data: dict[str, Any]) -> None:
    message = ""
    try:
        parse(data)
    except ConfigError as error:
        message = str(error)
    assert not message or message.startswith("the configuration cannot be used:\n  ")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_comes_back_from_the_form_as_it_went_in(preset: Path) -> None:
    whole, sent = load(preset).model_dump(mode="json"), dict[str, Any]()
    for _, fields in forms.form(whole):
        for field in fields:
            *tables, leaf = field.key.split(".")
            table = sent
            for part in tables:
                table = table.setdefault(part, {})
            if field.value.strip():
                table[leaf] = field.value  # everything is text there
    assert parse(sent).model_dump(mode="json") == whole
