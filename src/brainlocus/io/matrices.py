"""Matrices of NumPy's format (.npy), on disk until they are used."""

from pathlib import Path
from typing import Any

import numpy as np

from brainlocus.core.errors import FormatError

__all__ = ["open_matrix"]


def open_matrix(path: Path, shape: tuple[int, int]) -> Any:
    """Return a matrix of numbers as a read-only memory map.

    Raises
    ------
    FormatError
        No such file, not a whole .npy file, or not of this shape.
    """
    if not path.is_file():
        raise FormatError(f"{path}: expected a matrix of {shape[0]:,} x {shape[1]:,}, found nothing. Make it again.")
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(
            f"{path}: expected a whole matrix (.npy), which cannot be read: {error}. Make it again."
        ) from error
    if matrix.shape != shape or matrix.dtype.kind != "f":
        raise FormatError(
            f"{path}: expected numbers of {shape[0]:,} x {shape[1]:,}, found {matrix.dtype} of {matrix.shape}. The "
            "folder is not whole; make it again."
        )
    return matrix
