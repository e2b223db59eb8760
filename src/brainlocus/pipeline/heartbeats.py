"""What running tasks are doing: each keeps a line in a small file, which the waiting process reads and shows.

A task and the process that waits for it may share nothing but files. The task says what it does to a `Heartbeat`, which
writes it beside the shard in the making, from a thread of its own and once a second at most: to say something costs the
task no more than setting a variable. A `Watcher` reads the files of all tasks, and removes them at the end, those of
killed workers too. No result depends on these files: one that cannot be written or read is passed over.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

__all__ = ["Heartbeat", "Watcher", "duration", "heartbeat", "heartbeat_path", "watching"]

PERIOD = 1.0
"""Seconds between two writings of a task, and between two readings of the watcher."""
PAUSE = 30.0
"""Seconds before the first printed line of a task, and between two."""


def heartbeat_path(shard: Path) -> Path:
    """Return the file that tells of the task which writes `shard`."""
    return shard.with_name(f"{shard.name}.heartbeat")


def duration(seconds: float) -> str:
    """Return a time in words.

    Examples
    --------
    >>> duration(8.4), duration(250.0), duration(7500.0)
    ('8 s', '4 min 10 s', '2 h 5 min')
    """
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class Heartbeat:
    """A task's side: what it last said, and the file of it."""

    def __init__(self, shard: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = heartbeat_path(shard)
        self._clock = clock
        self._began = clock()
        self._doing: object = ""
        self._written: object = ""

    def say(self, doing: object) -> None:
        """Keep what the task is doing; it is made text only when it is written."""
        self._doing = doing

    def write(self) -> None:
        """Write what was last said, whole or not at all, where that is new."""
        doing = self._doing
        if doing is self._written:
            return
        content = json.dumps({"doing": str(doing), "seconds": self._clock() - self._began})
        partial = self._path.with_name(f"{self._path.name}.partial")
        with suppress(OSError):
            partial.write_text(content, encoding="utf-8")
            partial.replace(self._path)
            self._written = doing

    def end(self) -> None:
        """Remove the file."""
        _remove(self._path)


@contextmanager
def heartbeat(shard: Path) -> Iterator[Callable[[object], None]]:
    """Give a task the function by which it says what it is doing.

    Parameters
    ----------
    shard
        The name that the task was given to write to.
    """
    beat = Heartbeat(shard)
    try:
        with _every(PERIOD, beat.write):
            yield beat.say
    finally:
        beat.end()


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a file said, and when that was first read."""

    doing: str
    seconds: float
    """How long the task had been running when it wrote this, by its own clock."""
    at: float
    due: float
    """When the next line of it is printed."""


@dataclass(slots=True)
class Watcher:
    """The waiting side: what every running task is doing."""

    files: Mapping[str, Path]
    """Name of each task, and its file."""
    tell: Callable[[str], None]
    """Called with a line of a task, once every 30 seconds at most."""
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def look(self) -> None:
        """Read the files, and tell what is due."""
        now = self.clock()
        seen = {}
        for name, path in self.files.items():
            found = _read(path)
            if found is None:
                continue
            earlier = self._seen.get(name)
            same = earlier is not None and found == (earlier.doing, earlier.seconds)
            at = earlier.at if earlier is not None and same else now
            due = now + PAUSE if earlier is None else earlier.due
            seen[name] = _Seen(*found, at, due)
            if now >= due:
                self.tell(_line(name, seen[name], now))
                seen[name] = _Seen(*found, at, now + PAUSE)
        # Replaced as a whole: another thread may be reading it.
        self._seen = seen

    def lines(self) -> list[str]:
        """Return a line for every running task."""
        now = self.clock()
        return [_line(name, seen, now) for name, seen in self._seen.items()]

    def clear(self) -> None:
        """Remove all files."""
        for path in self.files.values():
            _remove(path)


@contextmanager
def watching(shards: Mapping[str, Path], tell: Callable[[str], None]) -> Iterator[Watcher]:
    """Watch tasks for as long as a block lasts; of earlier runs nothing is seen, and afterwards nothing is left.

    Parameters
    ----------
    shards
        Name of each task, and the name that it is given to write to.
    """
    watcher = Watcher({name: heartbeat_path(shard) for name, shard in shards.items()}, tell)
    watcher.clear()
    try:
        with _every(PERIOD, watcher.look):
            yield watcher
    finally:
        watcher.clear()


@contextmanager
def _every(period: float, action: Callable[[], None]) -> Iterator[None]:
    """Call a function once a period, in a thread of its own."""
    ended = Event()

    def run() -> None:
        while not ended.wait(period):
            action()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _line(name: str, seen: _Seen, now: float) -> str:
    return f"{name}: {seen.doing}, {duration(seen.seconds + now - seen.at)}"


def _read(path: Path) -> tuple[str, float] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return str(content["doing"]), float(content["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove(path: Path) -> None:
    for file in (path, path.with_name(f"{path.name}.partial")):
        with suppress(OSError):
            file.unlink()
