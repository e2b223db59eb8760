"""Bit planes against the calls they come from."""

import numpy as np
import pytest
from tests.unit.genotypes.panel import calls

from brainlocus.genetics.genotypes.bits import pack_calls, people_bits, people_planes, variant_planes
from brainlocus.numerics.packed import decode_packed


@pytest.mark.parametrize(("m", "n"), [(1, 1), (64, 64), (130, 197), (65, 33), (3, 128)])
def test_planes_hold_the_calls(m, n):
    dosage = calls(np.random.default_rng(0), m, n, missing=0.1)
    codes = pack_calls(dosage)
    np.testing.assert_array_equal(decode_packed(codes, n), dosage)
    bits = np.unpackbits(people_planes(codes, n).view(np.uint8).reshape(n, 3, -1), axis=2, bitorder="little")
    for plane, expected in enumerate((dosage >= 1, dosage <= 1, dosage == 1)):
        np.testing.assert_array_equal(bits[:, plane, :m].T, expected)
    assert not bits[:, :, m:].any()
    planes = variant_planes(codes, n)
    expected = (np.isin(dosage, (0, 2)), dosage == 0, ~np.isnan(dosage))
    for row in range(m):
        for plane, of in enumerate(expected):
            np.testing.assert_array_equal(planes[row, plane], people_bits(of[row]))


def test_dosages_count_as_the_nearest_call():
    codes = pack_calls(np.array([[0.49, 0.51, 1.49, 1.51, 2.0004, np.nan]], dtype=np.float32))
    np.testing.assert_array_equal(decode_packed(codes, 6), [[0, 1, 1, 2, 2, np.nan]])
