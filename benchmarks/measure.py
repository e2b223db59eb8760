"""What a benchmark reports, and how CPU time and peak memory are taken."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured number beside the number asked for."""

    name: str
    value: float
    unit: str
    target: float | None = None
    """Largest value asked for; None where nothing is asked."""
    note: str = ""


def cpu_seconds(function: Callable[[], Result]) -> tuple[Result, float]:
    """Return the function's result and the CPU seconds (all threads, children too) it took."""

    def now() -> float:
        own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
        return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime

    start = now()
    result = function()
    return result, now() - start


def wall_seconds(function: Callable[[], Result]) -> tuple[Result, float]:
    """Return the function's result and the wall-clock seconds it took."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start
