"""Phase modulo 2 pi."""

from typing import no_type_check

import numpy as np
from jaxtyping import Float32
from numba import njit

__all__ = ["TWO_PI", "wrap_angle", "wrap_phase"]

TWO_PI = 2 * np.pi


def wrap_phase(phase_rad: Float32[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Return a phase within [-pi, pi] that differs by a multiple of 2 pi; NaN stays.

    Examples
    --------
    >>> wrap_phase(np.array([4.0], dtype=np.float32)).round(4)
    array([-2.2832], dtype=float32)
    """
    two_pi = np.float32(TWO_PI)
    turns = phase_rad * np.float32(1 / TWO_PI)
    np.rint(turns, out=turns)
    turns *= -two_pi
    turns += phase_rad
    return turns


@njit(cache=True, nogil=True)
@no_type_check
def wrap_angle(angle: np.float32) -> np.float32:
    """Return one angle as `wrap_phase` does, within a compiled loop."""
    return np.float32(angle - np.float32(TWO_PI) * np.rint(angle * np.float32(1 / TWO_PI)))
