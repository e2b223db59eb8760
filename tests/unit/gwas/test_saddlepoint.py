"""Saddlepoint tails against exact ones by enumeration, where score and normal tail are far off."""

import numpy as np
import pytest
from scipy import stats
from tests.reference.logistic import exact_two_groups_p

from brainlocus.genetics.gwas import saddlepoint_neg_log10_p
from brainlocus.genetics.gwas._cases import exp_negative


def two_groups(n_carriers, n_others, carrier_cases, other_cases):
    """Return dosage residual, null probability and score of carriers of one copy against others."""
    n, cases = n_carriers + n_others, carrier_cases + other_cases
    g = np.repeat([1.0, 0.0], [n_carriers, n_others]) - n_carriers / n
    probability = cases / n
    y = np.concatenate([
        np.repeat([1.0, 0.0], [carrier_cases, n_carriers - carrier_cases]),
        np.repeat([1.0, 0.0], [other_cases, n_others - other_cases]),
    ])  # fmt: skip
    return g, np.full(n, probability), float(g @ (y - probability)), probability


@pytest.mark.parametrize(
    ("carrier_cases", "other_cases", "apart"), [(4, 76, 0.1), (6, 74, 0.1), (8, 72, 0.1), (12, 68, 0.25)]
)
def test_rare_variant_and_one_case_in_fifty(carrier_cases, other_cases, apart):
    """20 carriers among 4,000 people, 2 % cases: exact tails from two binomials, mid-p for ties."""
    g, mu, score, probability = two_groups(20, 3980, carrier_cases, other_cases)
    exact = exact_two_groups_p(20, 3980, probability, carrier_cases, other_cases)
    z = score / np.sqrt((g**2 * mu * (1 - mu)).sum())
    normal = 2 * stats.norm.sf(abs(z))
    assert normal < exact / 20  # the score test is inflated
    # The score goes in steps of one carrier, smoothed by the others, and the formula is for smooth ones: -log10 p is
    # within 0.1 down to p = 1e-9, 0.25 at 1e-16.
    assert abs(saddlepoint_neg_log10_p(g, mu, score) + np.log10(exact)) < apart


def test_common_variant_and_balanced_cases():
    g, mu, score, probability = two_groups(900, 900, 520, 410)
    exact = exact_two_groups_p(900, 900, probability, 520, 410)
    # Half the mass of ties stands for a smooth density to (step x saddlepoint)^2 / 24, about 1 % here.
    np.testing.assert_allclose(10 ** -saddlepoint_neg_log10_p(g, mu, score), exact, rtol=0.01)


def test_below_two_deviations_the_normal_tail_serves():
    g, mu, score, _ = two_groups(3000, 3000, 1510, 1490)
    z = score / np.sqrt((g**2 * mu * (1 - mu)).sum())
    assert abs(z) < 2
    np.testing.assert_allclose(saddlepoint_neg_log10_p(g, mu, score), -np.log10(2 * stats.norm.sf(abs(z))), rtol=1e-12)


def test_at_and_beyond_the_largest_possible_score():
    g = np.array([1.0, 1.0, -1.0] + [0.0] * 7)
    mu = np.full(10, 0.01)
    # Both carriers cases, the third not: one outcome, and no outcome as far on the other side.
    p = 10 ** -saddlepoint_neg_log10_p(g, mu, 2.0 - 0.01)
    np.testing.assert_allclose(p, 0.01**2 * 0.99, rtol=1e-9)
    assert saddlepoint_neg_log10_p(g, mu, 2.5) == np.inf


def test_deep_tails_do_not_underflow():
    g, mu, score, _ = two_groups(2000, 2000, 1900, 100)
    p = saddlepoint_neg_log10_p(g, mu, score)
    assert 700 < p < 900
    assert saddlepoint_neg_log10_p(-g, mu, -score) == pytest.approx(p, rel=1e-12)


def test_exponential():
    x = -np.concatenate([np.linspace(0, 60, 5000), np.linspace(60, 707, 500)])
    out = np.empty_like(x)
    exp_negative(x, out)
    np.testing.assert_allclose(out, np.exp(x), rtol=4e-16)
