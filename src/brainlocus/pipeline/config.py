"""What a step's configuration is made of.

A step's settings are one frozen pydantic model. The command line, the tables of ``study.toml`` and the JSON schema for
editors are all made from it, so that a setting is named and described once.
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from brainlocus.core.errors import nearest

__all__ = [
    "CommaFloats",
    "CommaInts",
    "CommaList",
    "CommaPaths",
    "Input",
    "InputPath",
    "InputPaths",
    "InputTree",
    "KeptPath",
    "Labels",
    "OutputPath",
    "Positional",
    "StepConfig",
    "explain",
    "input_fields",
    "is_positional",
    "is_several",
    "kept_fields",
    "output_fields",
    "parameter_fields",
    "tree_fields",
]


class Input:
    """Marks a field as a path that is read: it is checked, hashed and listed in the manifest."""


class TreeInput(Input):
    """Marks a folder that is read item by item: the step itself hashes the files of each item it takes.

    For folders of which one run reads a part, such as a BIDS dataset of thousands of subjects.
    """


class Output:
    """Marks a field as a further path that is written, besides ``--out``."""


class Kept:
    """Marks a folder that runs share: the first writes it, later ones read it. It is neither input nor output."""


class Positional:
    """Marks a field as a positional argument of the command."""


class Several:
    """Marks an option that takes every value up to the next option: ``--participant-label 01 02``, as BIDS apps do."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


InputPath = Annotated[Path, Input()]
InputTree = Annotated[Path, TreeInput()]
InputPaths = Annotated[tuple[Path, ...], Input()]
OutputPath = Annotated[Path, Output()]
KeptPath = Annotated[Path, Kept()]
CommaList = Annotated[tuple[str, ...], BeforeValidator(_split)]
Labels = Annotated[tuple[str, ...], BeforeValidator(_split), Several()]
CommaInts = Annotated[tuple[int, ...], BeforeValidator(_split)]
CommaPaths = Annotated[tuple[Path, ...], Input(), BeforeValidator(_split)]
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


def tree_fields(config: type[StepConfig]) -> list[str]:
    """Return the names of the inputs that the step hashes item by item."""
    return [name for name, field in config.model_fields.items() if _has(field, TreeInput)]


def output_fields(config: type[StepConfig]) -> list[str]:
    """Return the names of the fields that are further outputs."""
    return [name for name, field in config.model_fields.items() if _has(field, Output)]


def kept_fields(config: type[StepConfig]) -> list[str]:
    """Return the names of the fields that are folders which runs share."""
    return [name for name, field in config.model_fields.items() if _has(field, Kept)]


def parameter_fields(config: type[StepConfig]) -> list[str]:
    """Return the names of all other fields, the settings."""
    paths = {*input_fields(config), *output_fields(config)}
    return [name for name in config.model_fields if name not in paths]


def is_positional(field: FieldInfo) -> bool:
    """Return whether a field is a positional argument."""
    return _has(field, Positional)


def is_several(field: FieldInfo) -> bool:
    """Return whether a field is an option that takes every value up to the next one."""
    return _has(field, Several)


def explain(error: ValidationError, model: type[BaseModel], *, as_options: bool = False) -> str:
    """Return one line per wrong setting: what was expected, what was found, and the nearest valid name.

    Parameters
    ----------
    as_options
        Name the settings as command-line options rather than as keys of a file.
    """
    lines = []
    for problem in error.errors():
        path = [str(part) for part in problem["loc"] if not str(part).startswith("function-")]
        shown = f"--{path[0].replace('_', '-')}" if as_options and path else ".".join(path)
        if problem["type"] == "extra_forbidden":
            lines.append(f"{shown}: unknown key.{nearest(path[-1], _known_keys(model, path[:-1]))}")
        elif problem["type"] == "missing":
            lines.append(f"{shown}: required, but not given.")
        else:
            text = problem["msg"].removeprefix("Value error, ")
            found = "" if ", found " in text else f"; found {problem.get('input')!r}"
            lines.append(f"{shown}: {text.removesuffix('.')}{found}." if shown else text)
    return "\n".join(lines)


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
