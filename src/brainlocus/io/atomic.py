"""Files that are either whole or absent: written to a temporary name, then renamed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path", "partial_name", "replace_path"]


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
