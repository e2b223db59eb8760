"""Rows of gene associations on disk while a store is built."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from brainlocus.core import SCOPES

__all__ = ["BUFFER_BYTES", "ROW", "Rows", "Spool"]

BUFFER_BYTES = 16 << 20
"""Rows held before they are written."""

ROW = np.dtype(
    [
        ("gene", "i4"),
        ("pid", "i4"),
        ("tid", "i4"),
        ("z", "f4"),
        ("effect", "f4"),
        ("strength", "f4"),
        ("q", "f4", (len(SCOPES),)),
    ]
)
"""``strength``: -log10 p; ``q``: -log10 q of each scope."""

Rows = Shaped[np.ndarray, " rows"]


class Spool:
    """Rows appended to numbered files, a few megabytes at a time."""

    def __init__(self, folder: Path, kind: np.dtype[Any]) -> None:
        self.folder, self.kind = folder, kind
        folder.mkdir(parents=True)
        self.numbers: set[int] = set()
        self._held: dict[int, list[Rows]] = {}
        self._bytes = 0

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.rows"

    def append(self, rows: Rows, number: Int[np.ndarray, " rows"]) -> None:
        """Add rows to the files of their numbers."""
        order = np.argsort(number, kind="stable")
        rows, number = rows[order], number[order]
        which, starts = np.unique(number, return_index=True)
        for file, start, stop in zip(
            which.tolist(), starts.tolist(), [*starts.tolist()[1:], number.size], strict=False
        ):
            self._held.setdefault(file, []).append(rows[start:stop].copy())
        self._bytes += rows.nbytes
        if self._bytes > BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        for number, parts in self._held.items():
            self.numbers.add(number)
            with self._path(number).open("ab") as file:
                for part in parts:
                    file.write(part.tobytes())
        self._held, self._bytes = {}, 0

    def largest(self) -> int:
        """Return the number of rows of the fullest file."""
        return max((self._path(n).stat().st_size // self.kind.itemsize for n in self.numbers), default=0)

    def read(self, number: int, *, remove: bool = False) -> Rows:
        """Return the rows of a file."""
        path = self._path(number)
        rows = np.fromfile(path, dtype=self.kind)
        if remove:
            path.unlink()
        return rows
