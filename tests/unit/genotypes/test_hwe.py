"""Exact Hardy-Weinberg tests against rational arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest
from tests.reference.genotypes import naive_hwe, naive_hwe_x

from brainlocus.genetics.genotypes import hwe_neg_log10_p, hwe_x_neg_log10_p


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


X_CASES = [
    (0, 0, 3, 5, 9), (7, 0, 0, 0, 4), (0, 7, 0, 0, 4), (5, 3, 0, 0, 0), (1, 0, 0, 1, 0), (0, 1, 1, 0, 0),
    (3, 4, 2, 5, 6),
    (0, 30, 10, 2, 1), (30, 0, 1, 2, 10), (20, 21, 20, 0, 21), (20, 21, 0, 41, 0), (2, 60, 0, 1, 70), (60, 2, 70, 1, 0),
    (40, 40, 10, 20, 10), (12, 5, 1, 0, 40), (0, 1, 0, 0, 50), (1, 60, 12, 3, 2), (17, 17, 3, 4, 80), (50, 50, 0, 1, 0),
]  # fmt: skip


@pytest.mark.parametrize("mid_p", [False, True])
def test_joint_exact_p_on_x(mid_p):
    rng = np.random.default_rng(5)
    cases = [*X_CASES, *(tuple(int(k) for k in rng.integers(0, rng.integers(2, 26), 5)) for _ in range(150))]
    cases = [c for c in cases if sum(c)]
    tables = np.array(cases)
    ours = hwe_x_neg_log10_p(*tables.T, mid_p=mid_p)
    exact = [-log10_fraction(naive_hwe_x(*case, mid_p=mid_p)) for case in cases]
    np.testing.assert_allclose(ours, exact, atol=4e-11, rtol=1e-12)
    swapped = hwe_x_neg_log10_p(*tables[:, [1, 0, 4, 3, 2]].T, mid_p=mid_p)
    np.testing.assert_allclose(swapped, ours, atol=4e-12)


def test_joint_p_without_men_is_that_of_women_and_small_p_keeps_its_digits():
    women = np.array([[57, 14, 50], [100, 0, 100], [250, 490, 260], [1, 998, 1]]).T
    nobody = np.zeros(4, dtype=np.int64)
    np.testing.assert_allclose(hwe_x_neg_log10_p(nobody, nobody, *women), hwe_neg_log10_p(*women), atol=1e-12)
    assert hwe_x_neg_log10_p(*(np.array([c]) for c in (0, 0, 0, 0, 0))).tolist() == [0.0]
    far = (250, 0, 0, 0, 250)
    ours = hwe_x_neg_log10_p(*(np.array([c]) for c in far))[0]
    assert ours > 100
    assert ours == pytest.approx(-log10_fraction(naive_hwe_x(*far)), rel=1e-12)
    huge = hwe_x_neg_log10_p(*(np.array([c]) for c in (60_000, 0, 0, 0, 60_000)))
    assert np.isfinite(huge).all()
    assert huge[0] > 1e4
