"""What a step's configuration is made of.

A step's settings are one frozen pydantic model. The command line, the tables of ``study.toml`` and the JSON schema for
editors are all made from it, so that a setting is named and described once.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.fields import FieldInfo

__all__ = [
    "CommaFloats",
    "CommaInts",
    "CommaList",
    "Input",
    "InputPath",
    "InputPaths",
    "OutputPath",
    "Positional",
    "StepConfig",
    "input_fields",
    "is_positional",
    "output_fields",
    "parameter_fields",
]


class Input:
    """Marks a field as a path that is read: it is checked, hashed and listed in the manifest."""


class Output:
    """Marks a field as a further path that is written, besides ``--out``."""


class Positional:
    """Marks a field as a positional argument of the command."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


InputPath = Annotated[Path, Input()]
InputPaths = Annotated[tuple[Path, ...], Input()]
OutputPath = Annotated[Path, Output()]
CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
CommaInts = Annotated[tuple[int, ...], BeforeValidator(_split)]
CommaFloats = Annotated[tuple[float, ...], BeforeValidator(_split)]


class StepConfig(BaseModel):
    """Settings of one step: frozen, validated, no unknown keys.

    Fields annotated `InputPath` are inputs, `OutputPath` further outputs, all others are parameters. Every field has a
    description, which is the help of its option. Optional inputs are ``InputPath | None``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)


def _has(field: FieldInfo, marker: type) -> bool:
    def search(annotation: Any) -> bool:
        metadata = getattr(annotation, "__metadata__", ())
        arguments = getattr(annotation, "__args__", ())
        return any(isinstance(m, marker) for m in metadata) or any(search(a) for a in arguments)

    return any(isinstance(m, marker) for m in field.metadata) or search(field.annotation)


def input_fields(config: type[StepConfig]) -> list[str]:
    """Return the names of the fields that are inputs."""
    return [name for name, field in config.model_fields.items() if _has(field, Input)]


def output_fields(config: type[StepConfig]) -> list[str]:
    """Return the names of the fields that are further outputs."""
    return [name for name, field in config.model_fields.items() if _has(field, Output)]


def parameter_fields(config: type[StepConfig]) -> list[str]:
    """Return the names of all other fields, the settings."""
    paths = {*input_fields(config), *output_fields(config)}
    return [name for name in config.model_fields if name not in paths]


def is_positional(field: FieldInfo) -> bool:
    """Return whether a field is a positional argument."""
    return _has(field, Positional)
