"""The form of a new experiment, made from the configuration's own fields: names, words, bounds, choices."""

import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shared.config import ExperimentConfig, Section


@dataclass(frozen=True)
class Field:
    """One field of the form."""

    key: str  # dotted, as in `--set` and in errors
    label: str
    help: str
    kind: Literal["text", "long", "number", "choice"]
    value: str  # empty: the default, or none
    needed: bool
    choices: tuple[str, ...] = ()


def form(config: dict[str, Any]) -> list[tuple[str, list[Field]]]:
    """Return the form's parts, each with its title and fields: values of `config`, else the defaults."""
    return list(_parts("", "Experiment", ExperimentConfig, config))


def _parts(
    prefix: str, title: str, model: type[BaseModel], values: dict[str, Any]
) -> typing.Iterator[tuple[str, list[Field]]]:
    sections = {name: one for name, one in model.model_fields.items() if _is_section(one)}
    plain = {name: one for name, one in model.model_fields.items() if name not in sections}
    yield title, [_field(prefix + name, name, one, values.get(name)) for name, one in plain.items()]
    for name, one in sections.items():
        assert isinstance(one.annotation, type)
        yield from _parts(
            f"{prefix}{name}.", name.replace("_", " ").capitalize(), one.annotation, values.get(name, {})
        )


def _field(key: str, name: str, field: FieldInfo, value: Any) -> Field:
    if value is None and not field.is_required():
        value = field.default
    if isinstance(value, list | tuple):
        value = ", ".join(str(one) for one in value)
    choices = _choices(field.annotation)
    number = not choices and _holds(field.annotation, (int, float))
    kind: Literal["text", "long", "number", "choice"]
    kind = "choice" if choices else "number" if number else "long" if name == "instructions" else "text"
    return Field(
        key=key,
        label=name.replace("_", " "),
        help=field.description or "",
        kind=kind,
        value="" if value is None else str(value).lower() if isinstance(value, bool) else str(value),
        needed=field.is_required(),
        choices=choices,
    )


def _choices(annotation: Any) -> tuple[str, ...]:
    if annotation is bool:
        return ("true", "false")
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def _holds(annotation: Any, kinds: tuple[type, ...]) -> bool:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(one in kinds for one in typing.get_args(annotation))
    return annotation in kinds


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, Section)
