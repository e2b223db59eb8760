"""From a step's configuration to a click command."""

import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from brainlocus.cli.common import common_options, run_options
from brainlocus.core.errors import SchemaError
from brainlocus.pipeline.config import explain, is_positional, is_several
from brainlocus.pipeline.runner import Outcome, execute
from brainlocus.pipeline.step import Step

__all__ = ["command_from_step"]


def _is_tuple(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_tuple(a) for a in get_args(annotation))
    return get_origin(annotation) is tuple


def _is_bool(annotation: Any) -> bool:
    return annotation is bool


def _metavar(field: FieldInfo) -> str:
    annotation = field.annotation
    for choice in (annotation, *get_args(annotation)):
        # Also where the setting may be left to another: Literal[...] | None.
        if get_origin(choice) is Literal:
            return "|".join(map(str, get_args(choice)))
    text = str(annotation)
    kinds = (("Path", "PATH"), ("float", "NUMBER"), ("int", "N"))
    name = next((name for token, name in kinds if token in text), "TEXT")
    if is_several(field):
        return "LABEL..."
    if _is_tuple(annotation):
        return "A,B,..." if name == "TEXT" else f"{name},..."
    return name


def _parameter(name: str, field: FieldInfo) -> click.Parameter:
    option = f"--{name.replace('_', '-')}"
    required = field.is_required()
    if is_positional(field):
        many = _is_tuple(field.annotation)
        metavar = f"{name.upper()}{'...' if many else ''}"
        return click.Argument([name], nargs=-1 if many else 1, required=required, metavar=metavar)
    text = (field.description or "").rstrip(".") + "."
    if _is_bool(field.annotation):
        return click.Option([f"{option}/--no-{option[2:]}"], default=None, help=f"{text}  [default: {_switch(field)}]")
    shown = ""
    if not required and field.default not in (None, (), ""):
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        shown = f"  [default: {default}]"
    return click.Option([option, name], required=required, default=None, metavar=_metavar(field), help=text + shown)


def _switch(field: FieldInfo) -> str:
    return "on" if field.default else "off"


_OUT_HELP = {
    "folder": "Folder to write.",
    "derivatives": "BIDS dataset to write or to add to; subjects that are in it already and not named now stay.",
    "table": "Table to write (.parquet, .tsv, .tsv.gz).",
    "genotypes": "Genotypes to write: PREFIX.bed, PREFIX.pgen or PREFIX.bgen, with their companions.",
    "prefix": "Beginning of the names of the files to write, without an extension.",
}


def _help(step: Step[Any]) -> str:
    """Return what the command does, and what its positional arguments are."""
    rows = [(n.upper(), f.description or "") for n, f in step.config.model_fields.items() if is_positional(f)]
    if step.out_positional:
        rows.append(("OUT", _OUT_HELP[step.out]))
    width = max((len(name) for name, _ in rows), default=0)
    lines = [f"{name:{width}}  {text.rstrip('.')}." for name, text in rows]
    return "\n".join([step.help, "", "\b", *lines]) if lines else step.help


def _report(outcome: Outcome, out: Path) -> None:
    for line in outcome.result.summary:
        click.echo(line)
    if outcome.skipped:
        click.echo(f"{out} is already there, made from the same inputs and settings.", err=True)
    elif outcome.result.n_failed:
        click.echo(f"{outcome.result.n_failed} items have no result; see the columns status and reason.", err=True)


class _Command(click.Command):
    """A command of which some options take all values up to the next option."""

    several: tuple[str, ...] = ()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the values of such an option with commas, which is how the configuration splits them."""
        others: list[str] = []
        taken: dict[str, list[str]] = {}
        taking: list[str] | None = None
        for word in args:
            if word in self.several:
                taking = taken.setdefault(word, [])
            elif taking is not None and not word.startswith("-"):
                taking.append(word)
            else:
                taking = None
                others.append(word)
        joined = [part for option, values in taken.items() for part in (option, ",".join(values))]
        return super().parse_args(ctx, joined + others)


def command_from_step(step: Step[Any]) -> click.Command:
    """Return the command of a step: its fields as options, then the common ones."""

    def run(**values: Any) -> None:
        out = Path(values.pop("out"))
        options = run_options(values)
        given = {name: value for name, value in values.items() if value not in (None, ())}
        try:
            config = step.config(**given)
        except ValidationError as error:
            raise SchemaError(explain(error, step.config, as_options=True)) from None
        outcome = execute(step, config, out, options)
        _report(outcome, out)
        if outcome.exit_code:
            raise SystemExit(outcome.exit_code)

    parameters: list[click.Parameter] = [_parameter(n, f) for n, f in step.config.model_fields.items()]
    if step.out_positional:
        parameters.insert(sum(isinstance(p, click.Argument) for p in parameters), click.Argument(["out"]))
    else:
        what = _OUT_HELP.get(step.out, "File to write.")
        parameters.append(click.Option(["--out"], required=True, metavar="PATH", help=what))
    several = [f"--{n.replace('_', '-')}" for n, f in step.config.model_fields.items() if is_several(f)]
    command = _Command(step.name.split()[-1], callback=run, params=parameters, help=_help(step))
    command.several = tuple(several)
    return _with_common(command)


def _with_common(command: click.Command) -> click.Command:
    def nothing() -> None: ...

    common = getattr(common_options(nothing), "__click_params__", [])
    command.params.extend(reversed(common))
    return command
