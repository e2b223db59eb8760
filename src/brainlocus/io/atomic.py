"""Files that are either whole or absent: written to a temporary name, then renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["atomic_path", "locked_folder", "partial_name", "replace_path"]


def partial_name(path: Path) -> Path:
    """Return the temporary name beside `path`: hidden, same suffixes, so that writers see the right format.

    Examples
    --------
    >>> partial_name(Path("out/hits.tsv.gz")).name
    '.hits.partial.tsv.gz'
    """
    stem, dot, suffixes = path.name.partition(".")
    return path.with_name(f".{stem}.partial{dot}{suffixes}")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it there on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_path(partial: Path, path: Path) -> None:
    """Rename a finished file or folder to its name, in place of what was there."""
    if path.is_dir():
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        path.replace(old)
        partial.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        partial.replace(path)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Let one process at a time into a block of the same folder; others wait.

    The folder itself is locked, so that nothing is left behind, also by a process that is killed. File systems without
    locks (and Windows) go on without: files are whole then, too, but the last writer may not have seen the others.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
