"""Planted effects of expression with pleiotropic variants: errors of the first kind, and the effect recovered."""

import numpy as np
import pytest
from scipy.special import ndtr

from brainlocus.core import Instruments
from brainlocus.genetics.twas import MrJtiSettings, causal_estimates, mr_jti

pytestmark = pytest.mark.slow
REPEATS = 150


def _simulate(rng, effect, share, n=100):
    """Variants of which a share acts on the phenotype in another way too, upwards, by 4 to 8 standard errors."""
    x, s = rng.normal(0, 0.3, n), np.full(n, 0.02)
    y = effect * x + rng.normal(0, s)
    other = rng.choice(n, int(share * n), replace=False)
    y[other] += s[other] * rng.uniform(4, 8, other.size)
    names = np.array([f"v{k}" for k in range(n)])
    return Instruments(names, x, y, np.full(n, 0.03), s, 2 * ndtr(-np.abs(y / s)), rng.uniform(1, 20, n))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("effect", [0.0, 0.1])
def test_planted_effects(effect, share):
    rng = np.random.default_rng(1)
    jti, others = [], []
    for _ in range(REPEATS):
        data = _simulate(rng, effect, share)
        found = mr_jti(data, MrJtiSettings(bootstrap=200, repeats=1), rng=rng)
        jti.append((bool(found.significant[0]), found.slope))
        estimates = causal_estimates(data, draws=200, rng=rng)
        others.append([(e.lower * e.upper > 0, e.beta) for e in estimates])
    jti, others = np.array(jti, dtype=float), np.array(others, dtype=float)
    # The standard error of a mean of 150 slopes is below 0.0035, of a share of 0.05 below 0.018.
    assert jti[:, 1].mean() == pytest.approx(effect, abs=0.006)
    np.testing.assert_allclose(others[:, :, 1].mean(axis=0), effect, atol=0.011)
    fixed, random, egger, median = others[:, :, 0].mean(axis=0)
    if effect:
        assert min(jti[:, 0].mean(), random, median) > 0.95
    else:
        assert max(jti[:, 0].mean(), random, egger, median) < 0.13
        if share:
            assert fixed > 0.3  # fixed effects take pleiotropy for evidence
