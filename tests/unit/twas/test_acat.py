"""ACAT: the closed formula in many digits, very small p, and awkward sets."""

import mpmath
import numpy as np
import pytest

from brainlocus.genetics.twas import acat


def _exact(p, weights=None):
    """-log10 of the combined p with 500 digits."""
    with mpmath.workdps(800):
        weights = [1] * len(p) if weights is None else weights
        pairs = [(mpmath.mpf(w), mpmath.mpf(x)) for w, x in zip(weights, p, strict=True)]
        t = sum(w * mpmath.tan(mpmath.pi * (mpmath.mpf(1) / 2 - x)) for w, x in pairs) / sum(w for w, _ in pairs)
        return float(-mpmath.log10(mpmath.mpf(1) / 2 - mpmath.atan(t) / mpmath.pi))


@pytest.mark.parametrize(
    "p",
    [
        ["0.01", "0.5"],
        ["0.3"],
        ["0.9", "0.8", "0.999"],
        ["1e-10", "0.99"],
        ["1e-15", "2e-17", "0.4"],
        ["1e-16", "1e-16"],
        ["1e-50", "0.2", "0.999999"],
        ["1e-299", "3e-301", "1e-40"],
        ["1e-400", "0.5"],
        ["1e-400", "2e-400", "1e-410", "0.5"],
        ["1e-700", "1e-12"],
    ],
)
def test_the_closed_formula(p):
    strength = np.array([float(-mpmath.log10(mpmath.mpf(x))) for x in p])
    assert acat(strength[:, None])[0] == pytest.approx(_exact(p), rel=1e-13)


def test_weights_and_missing_tests():
    rng = np.random.default_rng(0)
    p, weights = rng.uniform(1e-6, 1, (5, 40)), rng.uniform(0, 2, (5, 40))
    p[rng.random(p.shape) < 0.3] = np.nan
    found = acat(-np.log10(p), weights)
    for k in range(40):
        known = ~np.isnan(p[:, k])
        if not known.any():
            assert np.isnan(found[k])
        else:
            assert found[k] == pytest.approx(_exact(p[known, k], weights[known, k]), rel=1e-9)


def test_certain_and_impossible():
    strength = np.array([[np.inf, 0.0, 0.0], [2.0, 2.0, np.nan]])
    found = acat(strength)
    assert found[0] == np.inf
    assert found[1] == pytest.approx(_exact([0.5, 0.01]))  # 1 becomes 1 - 1/2
    assert found[2] == 0.0


def test_equal_p_are_that_p():
    p = np.array([0.7, 0.05, 1e-30])
    np.testing.assert_allclose(acat(np.tile(-np.log10(p), (4, 1))), -np.log10(p), rtol=1e-12)


def test_a_test_of_weight_zero_does_not_count():
    strength = np.array([[400.0], [1.3]])
    assert acat(strength, np.array([[0.0], [1.0]]))[0] == pytest.approx(1.3)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_uniform_p_stay_uniform_in_the_tail(correlation):
    from scipy.special import ndtr

    rng = np.random.default_rng(1)
    z = np.sqrt(correlation) * rng.normal(size=200_000) + np.sqrt(1 - correlation) * rng.normal(size=(6, 200_000))
    found = acat(-np.log10(2 * ndtr(-np.abs(z))))
    # 200 are expected above 3; ACAT is exact for independent tests, and close in the tail for dependent ones.
    assert 150 < (found > 3).sum() < 260


@pytest.mark.parametrize(
    ("strength", "weights", "said"),
    [
        ([[np.inf], [0.0]], None, "both p = 0 and p = 1"),
        ([[-1.0]], None, "-log10 p of 0 or more"),
        ([[1.0]], [[-1.0]], "weights of 0 or more"),
        ([[1.0], [np.nan]], [[0.0], [1.0]], "weights of 0 only"),
    ],
)
def test_bad_input(strength, weights, said):
    with pytest.raises(ValueError, match=said):
        acat(np.array(strength), None if weights is None else np.array(weights))
