"""Runs a study: each step that its inputs allow, in order, resumable, every one with its manifest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from brainlocus.core.errors import SchemaError, nearest
from brainlocus.pipeline.config import StepConfig, explain, input_fields
from brainlocus.pipeline.people import read_people
from brainlocus.pipeline.progress import Progress
from brainlocus.pipeline.registry import load_step
from brainlocus.pipeline.runner import Outcome, RunOptions, execute, is_current
from brainlocus.pipeline.step import Estimate, Step
from brainlocus.pipeline.study import Study, load_study
from brainlocus.pipeline.wiring import STUDY_STEPS, StudyStep, Wiring

__all__ = ["PlannedStep", "plan_study", "run_study"]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a study, ready to run."""

    key: str
    """Its table in ``study.toml``."""
    step: Step[Any]
    config: StepConfig
    out: Path

    @property
    def reads(self) -> list[Path]:
        """The files and folders it reads."""
        found: list[Path] = []
        for name in input_fields(type(self.config)):
            value = getattr(self.config, name)
            if value is not None:
                found += list(value) if isinstance(value, tuple) else [value]
        return found

    def estimate(self, memory_bytes: int) -> Estimate | None:
        """Return memory and time, where its inputs are there and it can tell."""
        if self.step.estimate is None or not all(path.exists() for path in self.reads):
            return None
        return self.step.estimate(self.config, memory_bytes)


def plan_study(study: Study, out: Path) -> list[PlannedStep]:
    """Return the steps of a study in order.

    Raises
    ------
    SchemaError
        A step was asked for without its inputs, or a setting is wrong.
    """
    people = study.inputs.get("participants")
    columns = read_people(people).names if people is not None else ()
    wiring = Wiring(study.inputs, study.name, study.description, study.genome_build, study.settings, out, columns)
    planned = []
    for entry in STUDY_STEPS:
        if study.enabled[entry.key] is False:
            continue
        wired = entry.wire(wiring)
        if wired is None:
            if study.enabled[entry.key]:
                raise SchemaError(f"[{entry.key}] enabled = true, but it needs {entry.needs}, which the study lacks.")
            continue
        planned.append(_planned(entry, wired, study.settings[entry.key], out))
        wiring.active.add(entry.key)
    if not planned:
        raise SchemaError("The study has nothing to do: give [inputs] images, scans, traits or genotypes.")
    return planned


def _planned(entry: StudyStep, wired: dict[str, Any], settings: dict[str, Any], out: Path) -> PlannedStep:
    step = load_step(entry.step)
    try:
        config = step.config(**{**settings, **wired})
    except ValidationError as error:
        raise SchemaError(f"[{entry.key}]\n{explain(error, step.config)}") from None
    return PlannedStep(entry.key, step, config, out / entry.out)


def run_study(
    path: Path, out: Path, options: RunOptions, *, only: Sequence[str] = ()
) -> Iterator[tuple[PlannedStep, Outcome]]:
    """Run a study, yielding each step when it is done.

    Parameters
    ----------
    only
        Run only these steps; the outputs of the others must be there.

    Raises
    ------
    SchemaError
        `only` names an unknown step.
    """
    study = load_study(path)
    planned = plan_study(study, out)
    keys = [p.key for p in planned]
    for name in only:
        if name not in keys:
            raise SchemaError(
                f"--only {name}: the study has no such step.{nearest(name, keys)} It has: {', '.join(keys)}."
            )
    progress = Progress(quiet=options.quiet, log=options.log)
    chosen = [p for p in planned if not only or p.key in only]
    for k, item in enumerate(chosen, start=1):
        progress.say(f"[{k}/{len(chosen)}] {item.step.name} -> {item.out}")
        # A finished step of another version of the study is simply made again: the study is resumed, not the step.
        outcome = execute(item.step, item.config, item.out, _fresh_unless_same(item, options))
        yield item, outcome


def _fresh_unless_same(item: PlannedStep, options: RunOptions) -> RunOptions:
    if options.resume and not is_current(item.step, item.config, item.out, options):
        return replace(options, resume=False)
    return options
