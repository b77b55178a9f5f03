"""Write the parts of the documentation that the code knows best: `python -m docs.generate`.

A Markdown file marks such a part by `<!-- generated: NAME -->` and `<!-- end -->`; what stands between them
is made by the function of that name in PARTS. A test fails when a part is not what the code says now.
"""

import ast
import inspect
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sqlalchemy import Column, Table

from shared import grants, models, states
from shared.column_types import State, UTCDateTime
from shared.config import ExperimentConfig, Section
from shared.settings import Settings, load_settings

ROOT = Path(__file__).parent.parent
PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
BOUNDS = {"Ge": ("≥", "ge"), "Gt": (">", "gt"), "Le": ("≤", "le"), "Lt": ("<", "lt")}


def main() -> None:
    """Write every generated part anew."""
    for path in documents():
        text = path.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            path.write_text(new, encoding="utf-8")
            sys.stdout.write(f"{path.relative_to(ROOT)} written\n")


def documents() -> list[Path]:
    """Return every Markdown file that people read."""
    return [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "exercises").glob("*.md")),
    ]


def filled(text: str) -> str:
    """Return a document with its generated parts made anew; KeyError for a part that nobody makes."""
    return PART.sub(lambda match: match[1] + PARTS[match[2]]().strip() + "\n" + match[3], text)


# ------------------------------------------------------------------------------ the states


def round_diagram() -> str:
    """Draw the table of rounds."""
    return f"```mermaid\n{states.mermaid()}\n```"


def round_table() -> str:
    """List the table of rounds."""
    rows = [
        (row.event, ", ".join(row.sources), row.target or "the stage that failed", row.when)
        for row in states.ROUND_TABLE
    ]
    return table(("event", "from", "to", "when"), rows)


def attempt_table() -> str:
    """List what may become of an attempt."""
    return table(("an attempt that is", "may become"), _following(states.ATTEMPT_TABLE, states.AttemptState))


def experiment_table() -> str:
    """List what may become of an experiment."""
    rows = _following(states.EXPERIMENT_TABLE, states.ExperimentState)
    return table(("an experiment that is", "may become"), rows)


def _following(following: dict[Any, Any], members: Any) -> list[tuple[str, str]]:
    return [(state, ", ".join(following.get(state, ())) or "nothing: it has ended") for state in members]


# ------------------------------------------------------------------------------ the tables


def entity_diagram() -> str:
    """Draw the tables, their keys and what refers to what."""
    lines = ["```mermaid", "erDiagram"]
    for name, of in models.Base.metadata.tables.items():
        keys = [column for column in of.columns if column.primary_key or column.foreign_keys]
        lines.append(f"    {name} {{")
        for column in keys:
            kinds = ["PK"] * column.primary_key + ["FK"] * bool(column.foreign_keys)
            lines.append(f"        {_type(column)} {column.name} {', '.join(kinds)}")
        lines.append("    }")
        for column in keys:
            for key in column.foreign_keys:
                many = "||" if column.primary_key else "o{"
                one = "|o" if column.nullable else "||"
                lines.append(f"    {key.column.table.name} {one}--{many} {name} : {column.name}")
    return "\n".join([*lines, "```"])


def tables() -> str:
    """Describe each table and its columns, in the words of `models.py`."""
    parts = []
    for mapper in sorted(models.Base.registry.mappers, key=lambda mapper: _line(mapper.class_)):
        comments = _comments(mapper.class_)
        of, rows = mapper.local_table, []
        assert isinstance(of, Table)
        for column in of.columns:
            key = "".join(f"→ {key.column.table.name}" for key in column.foreign_keys)
            marks = ["key"] * column.primary_key + [key] * bool(key) + ["or null"] * bool(column.nullable)
            rows.append((f"`{column.name}`", _type(column), ", ".join(marks), comments.get(column.name, "")))
        body = table(("column", "type", "", "meaning"), rows)
        parts.append(f"### `{of.name}`\n\n{inspect.getdoc(mapper.class_)}\n\n{body}")
    return "\n\n".join(parts)


def rights() -> str:
    """List what each of Postgres's roles may do."""
    rows = [
        (f"`{name}`", *(by_role.get(role, "") for role in grants.ROLES))
        for name, by_role in grants.GRANTS.items()
    ]
    return table(("table", *(f"`{role}`" for role in grants.ROLES)), rows)


def _line(model: type) -> int:
    return inspect.getsourcelines(model)[1]


def _type(column: Column[Any]) -> str:
    kind = column.type
    if isinstance(kind, State):
        return "state"
    return "timestamp" if isinstance(kind, UTCDateTime) else type(kind).__name__.lower()


def _comments(model: type) -> dict[str, str]:
    """Return the comment that ends the definition of each column."""
    source = inspect.getsource(model)
    lines, found = source.splitlines(), {}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
            comment = lines[node.end_lineno - 1].partition("  # ")[2]
            found[node.target.id] = comment
    return found


# ------------------------------------------------------------------- settings, configuration


def settings() -> str:
    """List every setting of an installation."""
    rows = [
        (f"`LOCKSTEP_{name.upper()}`", _default(field), _bounds(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return table(("variable", "default", "bounds", "meaning"), rows)


def configuration() -> str:
    """List every key of an experiment's configuration."""
    parts = []
    for prefix, model in sections():
        rows = [
            (f"`{prefix}{name}`", _default(field), _bounds(field), field.description or "")
            for name, field in model.model_fields.items()
            if not _is_section(field)
        ]
        title = f"`[{prefix.rstrip('.')}]`" if prefix else "The experiment"
        body = table(("key", "default", "bounds", "meaning"), rows)
        parts.append(f"### {title}\n\n{inspect.getdoc(model)}\n\n{body}")
    return "\n\n".join(parts)


def sections(
    prefix: str = "", model: type[BaseModel] = ExperimentConfig
) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the tables of a configuration with the prefix of their keys."""
    yield prefix, model
    for name, field in model.model_fields.items():
        if _is_section(field):
            assert isinstance(field.annotation, type)
            yield from sections(f"{prefix}{name}.", field.annotation)


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Section)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    return "none" if field.default in (None, "") else f"`{field.default}`"


def _bounds(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for sign, name in [BOUNDS.get(type(item).__name__, ("", ""))]
        if sign
    ]
    words = getattr(field.annotation, "__args__", ()) if "Literal" in str(field.annotation) else ()
    return ", ".join(found) or ", ".join(f"`{word}`" for word in words if isinstance(word, str))


# ------------------------------------------------------------------------- API and commands


def endpoints() -> dict[str, dict[str, Any]]:
    """Return what the API's own description says of each endpoint, `GET /healthz` for instance."""
    from services.labeler.app import create_app

    with tempfile.TemporaryDirectory() as folder:
        description = create_app(load_settings(data_dir=Path(folder), _env_file=None)).openapi()
    return {
        f"{method.upper()} {path}": operation | {"schemas": description["components"]["schemas"]}
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    }


def api() -> str:
    """List the endpoints of the labeler service."""
    parts: dict[str, list[tuple[str, ...]]] = {}
    for name, operation in endpoints().items():
        meaning = " ".join(operation.get("description", "").split("\n\n")[0].split())
        row = (f"`{name}`", _body(operation), meaning, _problems(operation))
        parts.setdefault(operation.get("tags", ["other"])[0], []).append(row)
    return "\n\n".join(
        f"### {tag.capitalize()}\n\n{table(('endpoint', 'body', 'meaning', 'problems'), rows)}"
        for tag, rows in parts.items()
    )


def problems() -> str:
    """List what each status of a problem means."""
    from services.labeler.openapi import MEANINGS

    return table(("status", "meaning"), [(str(status), meaning) for status, meaning in MEANINGS.items()])


def _problems(operation: dict[str, Any]) -> str:
    """Name the problems that are this endpoint's own, besides those that any may end in."""
    of_any = ("421", "500", "503", "507")
    return ", ".join(status for status in operation["responses"] if status >= "400" and status not in of_any)


def _body(operation: dict[str, Any]) -> str:
    """Name the fields of an endpoint's body."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        name = content["schema"].get("$ref", "").rpartition("/")[2]
        if name == "ExperimentConfig":
            return "a [configuration](settings.md#configuration)"
        return ", ".join(f"`{field}`" for field in operation["schemas"].get(name, {}).get("properties", {}))
    return ""


def command_list() -> dict[str, click.Command]:
    """Return the `lockstep` commands by name."""
    from services.cli import app

    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def commands() -> str:
    """Describe the `lockstep` commands."""
    parts = []
    for name, command in command_list().items():
        rows = [(_parameter(parameter), getattr(parameter, "help", "") or "") for parameter in command.params]
        help_text = (command.help or "").strip()
        parts.append(
            f"### `lockstep {name}`\n\n{help_text}\n\n{table(('option', 'meaning'), rows) if rows else ''}"
        )
    return "\n\n".join(parts)


def _parameter(parameter: click.Parameter) -> str:
    if parameter.param_type_name == "argument":
        return f"`{(parameter.name or '').upper()}`"
    return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Write a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


PARTS: dict[str, Callable[[], str]] = {
    "round-diagram": round_diagram,
    "round-table": round_table,
    "attempt-table": attempt_table,
    "experiment-table": experiment_table,
    "entity-diagram": entity_diagram,
    "tables": tables,
    "rights": rights,
    "settings": settings,
    "configuration": configuration,
    "api": api,
    "problems": problems,
    "commands": commands,
}

if __name__ == "__main__":
    main()
