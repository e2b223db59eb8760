"""Rounding of stored numbers to fewer mantissa bits, so that they compress.

A float32 has 23 explicit mantissa bits; far fewer carry information in a summary statistic. Rounding to
nearest with `bits` explicit bits has a relative error of at most ``2^-(bits + 1)``: 1.2e-4 for the 12 bits of
beta and its standard error, 4.9e-4 for the 10 bits of -log10 p.
"""

import numpy as np
from jaxtyping import Float, Float32

__all__ = ["BETA_BITS", "NEG_LOG10_P_BITS", "round_mantissa"]

BETA_BITS = 12
NEG_LOG10_P_BITS = 10


def round_mantissa(values: Float[np.ndarray, " rows"], *, bits: int | None) -> Float32[np.ndarray, " rows"]:
    """Return float32 values rounded to nearest with `bits` explicit mantissa bits.

    Parameters
    ----------
    values
        NaN and infinities are kept.
    bits
        1 to 22; None keeps float32 precision.

    Raises
    ------
    ValueError
        `bits` is out of range.

    Examples
    --------
    >>> round_mantissa(np.array([1.0, 0.123456789]), bits=12).tolist()
    [1.0, 0.1234588623046875]
    """
    single = np.asarray(values, dtype=np.float32)
    if bits is None:
        return single
    if not 1 <= bits <= 22:
        raise ValueError(f"bits must be from 1 to 22 (float32 has 23), found {bits}.")
    drop = np.uint32(23 - bits)
    whole = single.view(np.uint32)
    half = np.uint32(1) << (drop - np.uint32(1))
    # Add half a unit of the last kept bit (ties away from zero); a carry into the exponent is the right result.
    rounded = ((whole + half) >> drop) << drop
    return np.where(np.isfinite(single), rounded.view(np.float32), single).astype(np.float32)
