"""Steps, studies and executors: the only place where files, stages and people meet."""

from brainlocus.pipeline.config import (
    CommaFloats,
    CommaInts,
    CommaList,
    InputPath,
    InputPaths,
    OutputPath,
    Positional,
    StepConfig,
)
from brainlocus.pipeline.executors import ProcessExecutor, SerialExecutor, ThreadExecutor, make_executor
from brainlocus.pipeline.progress import Progress
from brainlocus.pipeline.runner import Outcome, RunOptions, execute, manifest_path, parse_memory
from brainlocus.pipeline.step import Context, Estimate, Step, StepResult

__all__ = [
    "CommaFloats",
    "CommaInts",
    "CommaList",
    "Context",
    "Estimate",
    "InputPath",
    "InputPaths",
    "Outcome",
    "OutputPath",
    "Positional",
    "ProcessExecutor",
    "Progress",
    "RunOptions",
    "SerialExecutor",
    "Step",
    "StepConfig",
    "StepResult",
    "ThreadExecutor",
    "execute",
    "make_executor",
    "manifest_path",
    "parse_memory",
]
