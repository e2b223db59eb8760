"""From a step's configuration to a click command."""

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from brainlocus.core.errors import SchemaError
from brainlocus.pipeline.config import explain, is_positional
from brainlocus.pipeline.executors import EXECUTORS
from brainlocus.pipeline.runner import Outcome, RunOptions, execute, parse_memory
from brainlocus.pipeline.step import Step

__all__ = ["command_from_step", "common_options", "run_options"]


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command has."""
    for option in reversed(
        (
            click.option("--threads", type=click.IntRange(0), default=0, help="CPUs to use.  [default: all]"),
            click.option("--memory", default="", metavar="SIZE", help="Memory to stay within, such as 8GiB.  "
                         "[default: 3/4 of free]"),
            click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all draws."),
            click.option("--executor", default="threads", show_default=True, metavar="SPEC",
                         help=f"Where tasks run: {', '.join(EXECUTORS)}. The result is the same."),
            click.option("--resume", is_flag=True, help="Take up finished work; refuse if inputs or settings differ."),
            click.option("--quiet", is_flag=True, help="No progress."),
            click.option("--log", type=click.Path(path_type=Path), default=None, help="Append messages to a file."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def run_options(values: dict[str, Any]) -> RunOptions:
    """Take the common options out of a command's values."""
    memory = values.pop("memory")
    return RunOptions(
        threads=values.pop("threads"),
        memory_bytes=parse_memory(memory) if memory else 0,
        seed=values.pop("seed"),
        executor=values.pop("executor"),
        resume=values.pop("resume"),
        quiet=values.pop("quiet"),
        log=values.pop("log"),
    )


def _is_tuple(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_tuple(a) for a in get_args(annotation))
    return get_origin(annotation) is tuple


def _is_bool(annotation: Any) -> bool:
    return annotation is bool


def _metavar(field: FieldInfo) -> str:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    text = str(annotation)
    for token, name in (("Path", "PATH"), ("float", "NUMBER"), ("int", "N"), ("tuple", "A,B,...")):
        if token in text:
            return name
    return "TEXT"


def _parameter(name: str, field: FieldInfo) -> click.Parameter:
    option = f"--{name.replace('_', '-')}"
    required = field.is_required()
    if is_positional(field):
        many = _is_tuple(field.annotation)
        return click.Argument([name], nargs=-1 if many else 1, required=required, metavar=name.upper())
    text = (field.description or "").rstrip(".") + "."
    if _is_bool(field.annotation):
        return click.Option([f"{option}/--no-{option[2:]}"], default=None, help=f"{text}  [default: {field.default}]")
    shown = ""
    if not required and field.default not in (None, (), ""):
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        shown = f"  [default: {default}]"
    return click.Option([option, name], required=required, default=None, metavar=_metavar(field), help=text + shown)


def _report(outcome: Outcome, out: Path) -> None:
    for line in outcome.result.summary:
        click.echo(line)
    if outcome.skipped:
        click.echo(f"{out} is already there, made from the same inputs and settings.", err=True)
    elif outcome.result.n_failed:
        click.echo(f"{outcome.result.n_failed} items have no result; see the status column.", err=True)


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
        what = {"folder": "Folder to write", "table": "Table to write (.parquet, .tsv, .tsv.gz)"}.get(
            step.out, "Output"
        )
        parameters.append(click.Option(["--out"], required=True, metavar="PATH", help=f"{what}."))
    command = click.Command(step.name.split()[-1], callback=run, params=parameters, help=step.help)
    return _with_common(command)


def _with_common(command: click.Command) -> click.Command:
    def nothing() -> None: ...

    common = getattr(common_options(nothing), "__click_params__", [])
    command.params.extend(reversed(common))
    return command
