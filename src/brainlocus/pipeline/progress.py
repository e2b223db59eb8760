"""Progress: a bar with the time left on a terminal, one line per ten per cent elsewhere, nothing when quiet.

Below the bar stands a line for each task that says what it is doing (`pipeline.heartbeats`); elsewhere such lines are
printed now and then.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
        self._note(message)

    def mention(self, message: str) -> None:
        """Print one line where there is no bar that shows the same; the log file gets it in any case."""
        if not self.quiet and not self._has_bar:
            sys.stderr.write(message + "\n")
        self._note(message)

    @property
    def _has_bar(self) -> bool:
        return not self.quiet and sys.stderr.isatty()

    def _note(self, message: str) -> None:
        if self.log is not None:
            with self.log.open("a") as stream:
                stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {message}\n")

    def track(
        self, items: Iterable[Item], description: str, total: int, *, running: Callable[[], Sequence[str]] = tuple
    ) -> Iterator[Item]:
        """Yield the items and show how many of `total` have passed.

        Parameters
        ----------
        running
            Returns the lines that stand below the bar; asked again whenever it is drawn.
        """
        if self._has_bar:
            yield from self._bar(items, description, total, running)
        else:
            yield from self._lines(items, description, total)

    def _bar(
        self, items: Iterable[Item], description: str, total: int, running: Callable[[], Sequence[str]]
    ) -> Iterator[Item]:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        bar = RichProgress(*columns, console=console)
        task = bar.add_task(description, total=total)

        def drawn() -> Group:
            return Group(bar, *(Text(f"  {line}", no_wrap=True, overflow="ellipsis") for line in running()))

        with Live(get_renderable=drawn, console=console, transient=True, refresh_per_second=10):
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
