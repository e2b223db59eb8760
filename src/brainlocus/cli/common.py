"""The options that every command has. Nothing heavy is imported before a command runs."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from brainlocus.pipeline.runner import RunOptions

__all__ = ["common_options", "run_options"]


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every command has."""
    for option in reversed(
        (
            click.option("--threads", type=click.IntRange(0), default=0, help="CPUs to use.  [default: all]"),
            click.option("--memory", default="", metavar="SIZE",
                         help="Memory to stay within, such as 8GiB.  [default: 3/4 of free]"),
            click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all draws."),
            click.option("--executor", default="threads", show_default=True, metavar="SPEC",
                         help="Where tasks run: serial, threads, processes. The result is the same."),
            click.option("--resume", is_flag=True, help="Take up finished work; refuse if inputs or settings differ."),
            click.option("--quiet", is_flag=True, help="No progress."),
            click.option("--log", type=click.Path(path_type=Path), default=None, help="Append messages to a file."),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def run_options(values: dict[str, Any]) -> "RunOptions":
    """Take the common options out of a command's values."""
    from brainlocus.pipeline.runner import RunOptions, parse_memory

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
