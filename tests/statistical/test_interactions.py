"""Error rates of the interaction tests by simulation: the acceptance of the method specification."""

import numpy as np
import pytest

from brainlocus.core import SampleIndex
from brainlocus.genetics.interactions import AlignedTraits, GxeSettings, associate_terms, prepare_gxe, scan_gxe

pytestmark = pytest.mark.slow


def inflation(t):
    """Median chi-square over its expectation."""
    return float(np.median(t**2) / 0.4549)


def test_robust_errors_keep_their_size_when_the_exposed_vary_more():
    """Error SD doubled in the exposed 30 %: ordinary errors give lambda about 1.5, HC3 and the model 0.9 to 1.1.

    With a share p exposed and variances 4 and 1, the variance of the interaction is 4 / p + 1 / (1 - p) where ordinary
    errors take (4 p + 1 - p) (1 / p + 1 / (1 - p)): their ratio is (13.33 + 1.43) / (1.9 * 4.76) = 1.63.
    """
    rng = np.random.default_rng(1)
    n, m = 3000, 4000
    exposed = (rng.random(n) < 0.3).astype(float)
    y = rng.normal(size=n) * (1 + exposed)
    data = AlignedTraits(SampleIndex.of(range(n)), ("y",), y[:, None], rng.normal(size=(n, 1)), ("c",))
    design = prepare_gxe(data, exposed, "exposed")
    calls = rng.binomial(2, rng.uniform(0.2, 0.5, m)[:, None], (m, n)).astype(np.float32)
    found = {
        errors: inflation(scan_gxe(design, design.groups[0], calls, GxeSettings(errors)).t) for errors in
        ("ols", "hc3", "hlm")
    }  # fmt: skip
    assert 1.4 < found["ols"] < 1.8, found
    assert 0.9 < found["hc3"] < 1.1, found
    assert 0.9 < found["hlm"] < 1.1, found


def test_products_of_covariates_keep_a_covariates_own_interaction_out():
    """Keller (2014): a true g x z with z correlated 0.6 with e rejects e above 0.8 of the time without the products."""
    rng = np.random.default_rng(2)
    n, repeats = 2000, 1500
    passed = {"all": 0, "main": 0}
    for _ in range(repeats):
        z = rng.normal(size=n)
        e = 0.6 * z + 0.8 * rng.normal(size=n)
        g = rng.binomial(2, 0.4, n).astype(np.float32)
        y = 0.3 * (g - 0.8) * z + rng.normal(size=n)
        data = AlignedTraits(SampleIndex.of(range(n)), ("y",), y[:, None], z[:, None], ("z",))
        for terms in ("all", "main"):
            design = prepare_gxe(data, e, "e", terms=terms)
            t = scan_gxe(design, design.groups[0], g[None], GxeSettings("hc3")).t[0, 0]
            passed[terms] += abs(t) > 1.961
    assert passed["main"] / repeats > 0.8, passed
    # 0.04 to 0.06 asked; two standard errors of 1,500 repeats are 0.011.
    assert 0.04 <= passed["all"] / repeats <= 0.06, passed


def test_permutation_keeps_its_size_with_few_carriers_and_skewed_traits():
    rng = np.random.default_rng(3)
    n, traits = 400, 2000
    carrier = np.zeros((n, 1))
    carrier[:10] = 1
    covariates = rng.normal(size=(n, 2))
    covariates[:10] += 1
    y = rng.exponential(size=(n, traits)) + covariates[:, :1]
    found = associate_terms(
        y, covariates, carrier, permute=np.array([True]), n_permutations=199, rng=np.random.default_rng(4)
    )
    assert found is not None
    assert 0.035 < (found.permutation_p[0] <= 0.05).mean() < 0.065
