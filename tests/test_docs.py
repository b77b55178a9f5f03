"""The documentation is complete, current, and leads nowhere that does not exist."""

import importlib.util
import re
from pathlib import Path

import pytest

from docs import generate
from shared.config import Section
from shared.models import Base
from shared.settings import Settings
from shared.states import mermaid

ROOT = generate.ROOT
DOCUMENTS = generate.documents()
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def code(document: Path) -> str:
    """Return what a document shows as code, a piece a line."""
    pieces = [block or inline for block, inline in CODE.findall(document.read_text(encoding="utf-8"))]
    return "\n".join(pieces)


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = HEADING.findall(document.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_generated_parts_say_what_the_code_says(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert generate.filled(text) == text, "run `python -m docs.generate`"


def test_every_part_is_shown_somewhere() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    shown = {match[1] for match in generate.PART.findall(text)}
    assert shown == set(generate.PARTS)


def test_a_change_would_be_seen() -> None:
    text = read("docs/state-machine.md").replace("labeling: collected", "done: collected")
    assert generate.filled(text) != text


@pytest.mark.parametrize("path", ["README.md", "docs/state-machine.md"])
def test_the_round_is_drawn_from_the_table(path: str) -> None:
    assert f"```mermaid\n{mermaid()}\n```" in read(path)


@pytest.mark.parametrize("setting", Settings.model_fields)
def test_every_setting_is_documented(setting: str) -> None:
    assert f"| `LOCKSTEP_{setting.upper()}` |" in read("docs/settings.md")
    assert Settings.model_fields[setting].description


def test_every_key_of_a_configuration_is_documented() -> None:
    text = read("docs/settings.md")
    for prefix, model in generate.sections():
        for key, field in model.model_fields.items():
            if not (isinstance(field.annotation, type) and issubclass(field.annotation, Section)):
                assert f"| `{prefix}{key}` |" in text
                assert field.description, f"{prefix}{key} has no description"


def test_every_table_and_column_is_documented() -> None:
    text = read("docs/data-model.md")
    for table in Base.metadata.tables.values():
        part = text.partition(f"### `{table.name}`\n")[2].partition("\n### ")[0]
        assert len(part.split("\n\n")[1]) > 10, f"{table.name} has no description"
        for column in table.columns:
            row = next(line for line in part.splitlines() if line.startswith(f"| `{column.name}` |"))
            said = row.split(" | ")[-1].strip("| ")
            assert said or column.primary_key or column.foreign_keys, (
                f"{table.name}.{column.name} says nothing"
            )


def test_every_endpoint_is_documented() -> None:
    text = read("docs/api.md")
    found = generate.endpoints()
    assert len(found) > 15
    for endpoint, operation in found.items():
        assert f"| `{endpoint}` |" in text
        assert operation.get("description"), f"{endpoint} has no docstring"


def test_every_command_is_documented_and_helpful() -> None:
    text = read("docs/commands.md")
    found = generate.command_list()
    assert {"run", "demo", "status"} <= set(found)
    for command, what in found.items():
        assert f"### `lockstep {command}`\n" in text
        assert what.help, f"lockstep {command} has no help"
        for parameter in what.params:
            assert getattr(parameter, "help", None), f"lockstep {command}: {parameter.name} has no help"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text(encoding="utf-8")):
        if re.match(r"https?://|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_that_are_named_exist(document: Path) -> None:
    shown = code(document)
    for module in re.findall(r"python3? -m ([\w.]+)", shown):
        found = importlib.util.find_spec(module)
        assert found, f"python -m {module}: there is no such module"
        if found.submodule_search_locations:
            assert importlib.util.find_spec(f"{module}.__main__"), f"python -m {module}: it has no __main__"
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    for target in re.findall(r"^make ([a-z][\w-]*)", shown, re.MULTILINE):
        assert target in targets, f"make {target}: there is no such target"
    for command in re.findall(r"^\s*(?:\S*/)?lockstep ([a-z][\w-]*)", shown, re.MULTILINE):
        assert command in generate.command_list(), f"lockstep {command}: there is no such command"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_that_are_named_exist(document: Path) -> None:
    for path in re.findall(
        r"^((?:services|shared|configs|tests|docs)/[\w/.-]+\.\w+)$", code(document), re.MULTILINE
    ):
        assert (ROOT / path).exists(), f"{path} does not exist"
    for test_file in re.findall(r"pytest (tests/\S+)", code(document)):
        assert (ROOT / test_file).exists(), f"{test_file} does not exist"
