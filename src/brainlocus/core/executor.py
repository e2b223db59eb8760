"""The one thing the package asks of an executor: an ordered, bounded map."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

__all__ = ["Executor"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@runtime_checkable
class Executor(Protocol):
    """Runs independent tasks.

    Tasks are module-level functions of small picklable values that open files themselves and write their
    output atomically. Results come in the order of the items, with at most a bounded number in flight, so
    that memory does not grow with the number of items. The result never depends on the executor.
    """

    @property
    def workers(self) -> int:
        """How many tasks run at the same time."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield ``function(item)`` for every item, in order."""
