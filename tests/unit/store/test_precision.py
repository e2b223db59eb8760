"""Rounding of mantissas against exact fractions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlocus.store import round_mantissa


def naive_round_mantissa(value: float, bits: int) -> float:
    """Nearest number with `bits` explicit mantissa bits, ties away from zero, by exact arithmetic on the exponent."""
    if value == 0:
        return 0.0
    mantissa, exponent = math.frexp(value)  # 0.5 <= |mantissa| < 1: one implicit and `bits` explicit bits
    scaled = mantissa * 2 ** (bits + 1)
    whole = math.copysign(math.floor(abs(scaled) + 0.5), scaled)
    return math.ldexp(whole, exponent - bits - 1)


@given(st.floats(2.0**-100, 2.0**100, width=32), st.sampled_from([10, 12, 20]), st.sampled_from([-1, 1]))
def test_is_nearest(value, bits, sign):
    rounded = float(round_mantissa(np.array([sign * value]), bits=bits)[0])
    assert rounded == naive_round_mantissa(sign * value, bits)
    assert abs(rounded - sign * value) <= value * 2.0 ** -(bits + 1)


def test_stated_errors_hold():
    """methods/portal.md 1.3: at most 1.3e-4 with 12 bits, 5e-4 with 10."""
    values = np.random.default_rng(0).lognormal(0, 5, 100_000)
    for bits, bound in ((12, 1.3e-4), (10, 5e-4)):
        assert np.abs(round_mantissa(values, bits=bits) / values - 1).max() <= bound


def test_carry_none_and_special_values():
    assert round_mantissa(np.array([1.99999]), bits=4)[0] == 2.0
    exact = np.array([0.1, -3.7])
    np.testing.assert_array_equal(round_mantissa(exact, bits=None), exact.astype(np.float32))
    special = round_mantissa(np.array([np.nan, np.inf, -np.inf, 0.0]), bits=12)
    assert np.isnan(special[0])
    assert special[1:].tolist() == [np.inf, -np.inf, 0.0]
    with pytest.raises(ValueError, match="from 1 to 22"):
        round_mantissa(exact, bits=23)
