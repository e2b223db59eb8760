"""Progress: a bar with the time left on a terminal, one line per ten per cent elsewhere, nothing when quiet."""

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

__all__ = ["Progress"]

Item = TypeVar("Item")


class Progress:
    """Says how far a step is.

    Parameters
    ----------
    quiet
        Say nothing (the log file still gets everything).
    log
        Append every message, with its time, to this file.
    """

    def __init__(self, *, quiet: bool = False, log: Path | None = None) -> None:
        self.quiet = quiet
        self.log = log

    def say(self, message: str) -> None:
        """Print one line to standard error and to the log file."""
        if not self.quiet:
            sys.stderr.write(message + "\n")
        if self.log is not None:
            with self.log.open("a") as stream:
                stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {message}\n")

    def track(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        """Yield the items and show how many of `total` have passed."""
        if self.quiet or not sys.stderr.isatty():
            yield from self._lines(items, description, total)
        else:
            yield from self._bar(items, description, total)

    def _bar(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(description, total=total)
            for item in items:
                yield item
                bar.advance(task)

    def _lines(self, items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
        start = time.monotonic()
        tenth = 0
        for done, item in enumerate(items, start=1):
            yield item
            reached = 10 * done // max(total, 1)
            if reached > tenth and total >= 10:
                tenth = reached
                elapsed = time.monotonic() - start
                left = elapsed * (total - done) / done
                self.say(f"{description}: {10 * tenth} % ({done} of {total}), {elapsed:.0f} s, about {left:.0f} s left")
