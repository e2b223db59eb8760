"""Point-wise passes of the one-step inversion on the processor."""

from typing import no_type_check

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
@no_type_check
def add_model(gathered: np.ndarray, fitted: np.ndarray, operator: np.ndarray, mu: float) -> None:
    """Add mu A F(v - s) of one more field to the right side, for a real operator A in k-space."""
    for n in range(gathered.size):
        gathered[n] += (mu * operator[n]) * fitted[n]


@njit(cache=True, nogil=True)
@no_type_check
def scale(spectrum: np.ndarray, inverse: np.ndarray) -> None:
    """Multiply a spectrum by a real one, in place."""
    for n in range(spectrum.size):
        spectrum[n] *= inverse[n]


@njit(cache=True, nogil=True)
@no_type_check
def product(spectrum: np.ndarray, operator: np.ndarray, out: np.ndarray) -> None:
    """Write a spectrum times a real one."""
    for n in range(spectrum.size):
        out[n] = spectrum[n] * operator[n]
