import mpmath
import numpy as np
import pytest
from scipy import stats
from tests.reference.naive_ontology import upper_tail

from brainlocus.numerics import neg_log10_p_from_binomial, neg_log10_p_from_hypergeometric

mpmath.mp.dps = 40


def test_hypergeometric_is_the_exact_fraction():
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(300):
        total = int(rng.integers(1, 3000))
        special, drawn = int(rng.integers(0, total + 1)), int(rng.integers(0, total + 1))
        low, high = max(0, special + drawn - total), min(special, drawn)
        k = (
            int(rng.integers(low, high + 1))
            if rng.uniform() < 0.5
            else int(np.clip(round(special * drawn / total) + rng.integers(-4, 9), 0, high))
        )
        exact = upper_tail(k, drawn, special, total)
        ours = neg_log10_p_from_hypergeometric(np.array([k]), drawn, special, total)[0]
        log = mpmath.log10(mpmath.mpf(exact.numerator) / exact.denominator)
        worst = max(worst, abs(float(mpmath.mpf(10) ** (-log - mpmath.mpf(float(ours))) - 1)) / max(1.0, float(-log)))
    # A double near 100 is good to 1e-14, which is 3e-14 of p.
    assert worst < 1e-14


def test_hypergeometric_is_that_of_scipy():
    rng = np.random.default_rng(1)
    total = rng.integers(100, 20_000, 500)
    special, drawn = (np.maximum(1, (total * rng.uniform(size=500) ** 3).astype(int)) for _ in range(2))
    k = np.clip(np.round(special * drawn / total).astype(int) + rng.integers(-3, 6, 500), 0, np.minimum(special, drawn))
    ours = neg_log10_p_from_hypergeometric(k, drawn, special, total)
    # scipy's own error is 1e-10: it takes differences of ln Gamma.
    np.testing.assert_allclose(10.0**-ours, stats.hypergeom.sf(k - 1, total, special, drawn), rtol=1e-9)


def test_hypergeometric_at_its_ends():
    def tail(*numbers):
        return float(neg_log10_p_from_hypergeometric(np.array([numbers[0]]), *numbers[1:])[0])

    assert tail(0, 5, 5, 10) == 0.0
    assert tail(5, 5, 5, 10) == pytest.approx(np.log10(252))
    assert tail(6, 5, 5, 10) == np.inf
    assert tail(3, 8, 5, 10) == 0.0  # at least three are always drawn
    assert tail(5, 10, 5, 10) == tail(0, 0, 5, 10) == 0.0
    assert tail(1, 1, 1, 1) == 0.0
    assert neg_log10_p_from_hypergeometric(np.zeros((0,), dtype=int), 1, 1, 2).size == 0
    with pytest.raises(ValueError, match="no more drawn or special"):
        tail(1, 11, 5, 10)


@pytest.mark.parametrize(
    ("k", "n", "p"), [(3, 10, 0.5), (60, 100, 0.5), (900, 1000, 0.5), (40, 300, 0.05), (5000, 6000, 0.05)]
)
def test_binomial_is_the_exact_sum(k, n, p):
    total = sum(mpmath.binomial(n, j) * mpmath.mpf(p) ** j * (1 - mpmath.mpf(p)) ** (n - j) for j in range(k, n + 1))
    assert neg_log10_p_from_binomial(k, n, p) == pytest.approx(float(-mpmath.log10(total)), rel=1e-12)


def test_binomial_at_its_ends():
    assert neg_log10_p_from_binomial(0, 10, 0.5) == 0.0
    assert neg_log10_p_from_binomial(10, 10, 0.5) == pytest.approx(10 * np.log10(2), rel=1e-14)
    assert neg_log10_p_from_binomial(5000, 5000, 0.05) == pytest.approx(5000 * np.log10(20), rel=1e-14)
    assert np.isnan(neg_log10_p_from_binomial(0, 0, 0.5))
    with pytest.raises(ValueError, match="successes of 0 to the 3 trials"):
        neg_log10_p_from_binomial(4, 3, 0.5)
