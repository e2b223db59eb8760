"""Executors of one machine: serial, threads, processes. All give the same result.

`core.Executor` is all that the steps see: an ordered, bounded ``map``. An executor on many machines needs nothing
more, because tasks are picklable, open files themselves and write atomically.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor as Pool
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Generic, TypeVar

from threadpoolctl import threadpool_limits

from brainlocus.core import Executor

__all__ = ["EXECUTORS", "ProcessExecutor", "SerialExecutor", "ThreadExecutor", "make_executor"]

EXECUTORS = ("serial", "threads", "processes")

Item = TypeVar("Item")
Result = TypeVar("Result")

_IN_FLIGHT = 2
"""Tasks per worker that are running or waiting: enough to keep it busy, few enough to bound memory."""
_RETRIES = 2
"""How often a task is tried again after the worker that ran it died."""


@dataclass(frozen=True, slots=True)
class _Limited(Generic[Item, Result]):
    """Calls a function with a given number of BLAS threads; picklable."""

    function: Callable[[Item], Result]
    blas_threads: int

    def __call__(self, item: Item) -> Result:
        with threadpool_limits(limits=self.blas_threads):
            return self.function(item)


@dataclass(frozen=True, slots=True)
class SerialExecutor:
    """One task after the other in this process; a debugger works."""

    workers: int = 1

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` for every item, in order."""
        return map(_Limited(function, 1), items)


@dataclass(frozen=True, slots=True)
class ThreadExecutor:
    """Tasks in threads: for NumPy, numba and input/output, which release the interpreter lock."""

    workers: int = 2

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` for every item, in order."""
        with threadpool_limits(limits=1), ThreadPoolExecutor(self.workers) as pool:
            yield from _bounded(pool, function, items, self.workers)


@dataclass(frozen=True, slots=True)
class ProcessExecutor:
    """Tasks in fresh processes. A worker that dies is replaced and its tasks are tried again."""

    workers: int = 2

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` for every item, in order."""
        waiting: deque[Item] = deque()
        source = iter(items)
        failures = 0
        while True:
            with ProcessPoolExecutor(self.workers, mp_context=get_context("spawn")) as pool:
                try:
                    yield from _resumable(pool, _Limited(function, 1), source, waiting, self.workers)
                    return
                except BrokenProcessPool:
                    failures += 1
                    if failures > _RETRIES:
                        raise


def _bounded(pool: Pool, function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    yield from _resumable(pool, function, iter(items), deque(), workers)


def _resumable(
    pool: Pool,
    function: Callable[[Item], Result],
    source: Iterator[Item],
    waiting: "deque[Item]",
    workers: int,
) -> Iterator[Result]:
    """Yield results in order; `waiting` always holds the items whose result has not been yielded."""
    running: deque[Future[Result]] = deque(pool.submit(function, item) for item in waiting)
    exhausted = False
    try:
        while True:
            while not exhausted and len(running) < _IN_FLIGHT * workers:
                try:
                    item = next(source)
                except StopIteration:
                    exhausted = True
                    break
                waiting.append(item)
                running.append(pool.submit(function, item))
            if not running:
                return
            result = running.popleft().result()
            waiting.popleft()
            yield result
    finally:
        for future in running:
            future.cancel()


def make_executor(spec: str, *, threads: int) -> Executor:
    """Return the executor that ``--executor`` names.

    Parameters
    ----------
    spec
        ``serial``, ``threads`` or ``processes``.
    threads
        Workers; each task has one BLAS thread on every executor, because matrix products round differently with
        another number of threads and the result must not depend on the executor.

    Raises
    ------
    ValueError
        An unknown name.
    """
    if spec == "serial":
        return SerialExecutor()
    if spec == "threads":
        return ThreadExecutor(threads)
    if spec == "processes":
        return ProcessExecutor(threads)
    raise ValueError(f"--executor: expected one of {', '.join(EXECUTORS)}, found {spec!r}.")
