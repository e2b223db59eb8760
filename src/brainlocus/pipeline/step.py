"""A step: one command of the package, and one box of a study.

A step is a plain function of its configuration. The runner (`pipeline.runner`) checks and hashes the inputs, gives the
function a temporary name to write to, renames it when the function returns, and writes the manifest beside it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from brainlocus.core import Executor, SchemaError
from brainlocus.io import atomic_path, partial_name
from brainlocus.pipeline.config import StepConfig
from brainlocus.pipeline.heartbeats import watching
from brainlocus.pipeline.progress import Progress

__all__ = ["Context", "Estimate", "KeptWorkError", "Step", "StepResult"]

Config = TypeVar("Config", bound=StepConfig)
Task = TypeVar("Task")


class KeptWorkError(SchemaError):
    """``--resume`` is refused by the step itself; what the interrupted run left stays where it is."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step says about its run, besides what it wrote."""

    counts: dict[str, Any] = field(default_factory=dict)
    """What was kept and what was dropped, and why; goes into the manifest."""
    n_failed: int = 0
    """Items that have a status instead of a result: exit code 3 when above 0."""
    summary: tuple[str, ...] = ()
    """Lines for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a step is expected to need, from its inputs alone."""

    peak_bytes: int
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """What a step may use while it runs."""

    executor: Executor
    memory_bytes: int
    threads: int
    seed: int
    progress: Progress
    shards: Path
    """Folder for finished parts of the work; it outlives an interrupted run, and ``--resume`` finds it again."""
    resume: bool = False
    """``--resume`` was given: for steps that keep their finished items in the output itself (``derivatives``)."""

    def rng(self, *key: int) -> np.random.Generator:
        """Return a generator for one part of the work: same seed and key, same numbers, whatever else runs."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def map_shards(
        self,
        function: Callable[[Task, Path], None],
        tasks: Mapping[str, Task],
        description: str,
        *,
        heartbeats: bool = False,
    ) -> Iterator[Path]:
        """Yield one finished file per task, in order, doing only what is not there yet.

        Parameters
        ----------
        function
            Module-level function that computes a task and writes the file it is given.
        tasks
            File name (with suffix) to a small picklable task.
        heartbeats
            The function says by `pipeline.heartbeats.heartbeat` what it is doing: show it.
        """
        paths = {name: self.shards / name for name in tasks}
        todo = [(task, paths[name]) for name, task in tasks.items() if not paths[name].exists()]
        fresh = self.executor.map(partial(_run_shard, function), todo)
        pending = {path for _, path in todo}

        def in_order() -> Iterator[Path]:
            for path in paths.values():
                if path in pending:
                    next(fresh)
                yield path

        running: Callable[[], Sequence[str]] = tuple
        with ExitStack() as stack:
            if heartbeats:
                shards = {path.stem: partial_name(path) for path in pending}
                running = stack.enter_context(watching(shards, self.progress.mention)).lines
            yield from self.progress.track(in_order(), description, len(paths), running=running)


def _run_shard(function: Callable[[Task, Path], None], work: tuple[Task, Path]) -> None:
    task, path = work
    with atomic_path(path) as partial_path:
        function(task, partial_path)


@dataclass(frozen=True, slots=True)
class Step(Generic[Config]):
    """One command: its name, its settings and the function that does it."""

    name: str
    """``stage verb``, as on the command line."""
    help: str
    """One line."""
    config: type[Config]
    run: Callable[[Config, Path, Context], StepResult]
    """Writes `out` (a temporary name: a folder that exists, or a file to be created) and nothing else."""
    out: Literal["folder", "table", "file", "prefix", "genotypes", "derivatives"] = "table"
    """What ``--out`` is: a folder, a table (format by extension), another file, a prefix (``PREFIX.grm.bin``...), a
    genotype file (``PREFIX.pgen``) whose companions are named after the same prefix, or a BIDS dataset that grows:
    the step adds each subject to it as a whole, and subjects of other runs stay, also of runs at the same time."""
    estimate: Callable[[Config, int], Estimate] | None = None
    """Memory and time from the inputs and the memory budget, for ``--dry-run``."""
    out_positional: bool = False
    """The output is a positional argument rather than ``--out``."""
