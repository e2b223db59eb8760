"""Exact Hardy-Weinberg tests against rational arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from tests.reference.genotypes import naive_hwe

from brainlocus.genetics.genotypes import hwe_neg_log10_p


def log10_fraction(p: Fraction) -> float:
    def log10_int(k: int) -> float:
        shift = max(k.bit_length() - 200, 0)
        return math.log10(k >> shift) + shift * math.log10(2)

    return log10_int(p.numerator) - log10_int(p.denominator)


CASES = [
    (57, 14, 50), (0, 0, 10), (1, 0, 1), (0, 1, 0), (3, 5, 9), (100, 0, 100), (10, 0, 1000), (0, 7, 500),
    (333, 334, 333), (500, 0, 500), (1, 998, 1), (0, 1000, 0), (250, 490, 260), (2, 61, 400), (1000, 0, 1200),
]  # fmt: skip


@pytest.mark.parametrize("mid_p", [False, True])
@pytest.mark.parametrize("counts", CASES)
def test_exact_p(counts, mid_p):
    ours = hwe_neg_log10_p(*(np.array([c]) for c in counts), mid_p=mid_p)[0]
    exact = naive_hwe(*counts, mid_p=mid_p)
    # 1e-10 relative on p (methods/gwas.md 4) is 4e-11 absolute on -log10 p.
    assert ours == pytest.approx(-log10_fraction(exact), abs=4e-11, rel=1e-12)
    swapped = hwe_neg_log10_p(*(np.array([c]) for c in counts[::-1]), mid_p=mid_p)[0]
    assert swapped == ours


def test_p_far_below_the_smallest_double():
    ours = hwe_neg_log10_p(np.array([2000]), np.array([0]), np.array([2000]))[0]
    assert ours > 1100
    assert ours == pytest.approx(-log10_fraction(naive_hwe(2000, 0, 2000)), rel=1e-13)
    huge = hwe_neg_log10_p(np.array([0, 250_000]), np.array([500_000, 0]), np.array([0, 250_000]))
    assert np.isfinite(huge).all()
    assert (huge > 1e5).all()


def test_constant_and_uncalled_variants_have_p_one():
    nothing = hwe_neg_log10_p(np.array([0, 5, 0]), np.array([0, 0, 0]), np.array([0, 0, 9]))
    assert nothing.tolist() == [0.0, 0.0, 0.0]
