"""Effective tests: one regression a test, traits whose number is known, the rules read literally."""

import numpy as np
import pytest
from scipy import stats

from brainlocus.cohort.associate import effective_tests, prepare_effective, sidak_level, simulate_smallest_p
from brainlocus.cohort.associate.effective_tests import (
    _masked_r,
    correlation_eigenvalues,
    galwey_tests,
    gao_tests,
    li_ji_tests,
    nearest_correlation,
    nyholt_tests,
)
from tests.real_data import abide


def naive_smallest_p(traits, predictor, covariates):
    """The smallest p of one regression a trait, each on the people who have it."""
    smallest = 1.0
    for y in traits.T:
        rows = ~np.isnan(y)
        design = np.column_stack([predictor[rows], np.ones(rows.sum()), covariates[rows]])
        solution, _, rank, _ = np.linalg.lstsq(design, y[rows], rcond=None)
        rss, dof = ((y[rows] - design @ solution) ** 2).sum(), rows.sum() - rank
        error = np.sqrt(rss / dof * np.linalg.pinv(design.T @ design)[0, 0])
        smallest = min(smallest, 2 * stats.t.sf(abs(solution[0] / error), dof))
    return smallest


def simulated(traits, covariates=None, n=20_000, seed=0, level=0.05):
    design = prepare_effective(traits, covariates=covariates)
    generator = np.random.default_rng(seed)
    drawn = np.concatenate([simulate_smallest_p(design, 1_000, generator) for _ in range(n // 1_000)])
    return effective_tests(design, drawn, level=level)


def correlated(n, q, r, seed=0):
    rng = np.random.default_rng(seed)
    return np.sqrt(r) * rng.standard_normal((n, 1)) + np.sqrt(1 - r) * rng.standard_normal((n, q))


def test_tests_with_missing_values_are_regressions_on_each_traits_people():
    rng = np.random.default_rng(1)
    traits, covariates = correlated(80, 6, 0.5), rng.standard_normal((80, 3))
    traits[rng.uniform(size=traits.shape) < 0.1] = np.nan
    covariates[:, 2] = np.arange(80) < 30
    traits[:30, 5] = np.nan  # the third covariate is constant there
    design = prepare_effective(traits, covariates=covariates)
    assert design.loadings is None
    generator = np.random.default_rng(2)
    found = simulate_smallest_p(design, 25, generator)
    predictors = np.random.default_rng(2).standard_normal((80, 25))
    expected = [-np.log10(naive_smallest_p(traits, x, covariates)) for x in predictors.T]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_complete_traits_draw_the_same_distribution_as_predictors_drawn_themselves():
    rng = np.random.default_rng(3)
    traits, covariates = correlated(40, 12, 0.4), rng.standard_normal((40, 2))
    design = prepare_effective(traits, covariates=covariates)
    assert design.loadings.shape == (12, 12)
    short = simulate_smallest_p(design, 4_000, np.random.default_rng(4))
    predictors = np.random.default_rng(5).standard_normal((40, 4_000))
    r = _masked_r(design, predictors)
    t = np.abs(r) * np.sqrt(36 / (1 - r**2))
    direct = (-np.log10(2 * stats.t.sf(t, 36))).max(axis=0)
    for k in range(3):
        assert direct[k] == pytest.approx(-np.log10(naive_smallest_p(traits, predictors[:, k], covariates)), rel=1e-9)
    assert stats.ks_2samp(short, direct).pvalue > 0.01


def test_independent_traits_count_all_and_identical_ones_once():
    found = simulated(np.random.default_rng(6).standard_normal((2_000, 50)))
    assert abs(found.simulated - 50) < 3 * found.standard_error
    assert 0 < found.standard_error < 0.05 * 50
    assert found.lower < found.simulated < found.upper
    assert found.nyholt == pytest.approx(50, rel=0.05)
    same = np.repeat(np.random.default_rng(7).standard_normal((300, 1)), 8, axis=1)
    one = simulated(same * np.arange(1, 9) - 3.0)
    assert abs(one.simulated - 1) < 3 * one.standard_error
    assert one.alpha == pytest.approx(0.05, abs=0.005)
    assert (one.nyholt, one.gao) == (pytest.approx(1), 1)
    assert one.galwey == pytest.approx(1, abs=1e-6)
    assert one.li_ji == pytest.approx(1, abs=1e-6)


def test_missing_values_change_little():
    traits = correlated(400, 10, 0.6)
    whole = simulated(traits, n=5_000)
    traits[np.random.default_rng(8).uniform(size=traits.shape) < 0.02] = np.nan
    lacking = simulated(traits, n=5_000)
    assert abs(lacking.simulated - whole.simulated) < 3 * np.hypot(whole.standard_error, lacking.standard_error)


def test_units_order_and_level():
    traits = correlated(200, 6, 0.5)
    first, turned = simulated(traits, n=2_000), simulated(traits[:, ::-1] * 1e3 + 7, n=2_000)
    assert turned.galwey == pytest.approx(first.galwey, rel=1e-9)
    assert abs(turned.simulated - first.simulated) < 3 * np.hypot(first.standard_error, turned.standard_error)
    strict = simulated(traits, level=0.01)
    assert strict.alpha < first.alpha
    assert sidak_level(strict.simulated, 0.01) == pytest.approx(strict.alpha, rel=1e-9)


def test_standard_error_is_that_over_repeated_simulations():
    traits = correlated(150, 10, 0.5)
    design = prepare_effective(traits)
    runs = []
    for seed in range(60):
        drawn = simulate_smallest_p(design, 4_000, np.random.default_rng(100 + seed))
        runs.append(effective_tests(design, drawn))
    spread = np.std([r.simulated for r in runs], ddof=1)
    # A standard deviation of 60 runs is known to 9 %.
    assert np.mean([r.standard_error for r in runs]) == pytest.approx(spread, rel=0.3)
    middle = np.mean([r.simulated for r in runs])
    assert np.mean([r.lower <= middle <= r.upper for r in runs]) > 0.85


def test_rules_read_literally():
    rng = np.random.default_rng(9)
    traits = correlated(90, 7, 0.3) @ rng.standard_normal((7, 7))
    values = np.linalg.eigvalsh(np.corrcoef(traits.T))[::-1]
    found, shifted = correlation_eigenvalues(traits)
    np.testing.assert_allclose(found, values, atol=1e-12)
    assert shifted == 0
    q = 7
    mean = sum(values) / q
    variance = sum((v - mean) ** 2 for v in values) / (q - 1)
    assert nyholt_tests(values) == pytest.approx(1 + (q - 1) * (1 - variance / q), rel=1e-12)
    assert li_ji_tests(values) == pytest.approx(sum((1 if v >= 1 else 0) + v - int(v) for v in values), rel=1e-8)
    assert galwey_tests(values) == pytest.approx(sum(v**0.5 for v in values) ** 2 / sum(values), rel=1e-12)
    share = [sum(values[: k + 1]) / sum(values) for k in range(q)]
    assert gao_tests(values) == next(k + 1 for k in range(q) if share[k] >= 0.995)
    # Equal correlations r: eigenvalues 1 + (q - 1) r, and 1 - r (q - 1 times).
    equal = np.array([1 + 9 * 0.6, *[0.4] * 9])
    assert nyholt_tests(equal) == pytest.approx(1 + 9 * (1 - 0.6**2), rel=1e-12)
    assert li_ji_tests(equal) == pytest.approx(1 + 0.4 + 9 * 0.4, rel=1e-8)
    # One that is 1 but for rounding counts once, on either side.
    assert li_ji_tests(np.array([1 - 1e-14, 1 + 1e-14, 1.0])) == 3


def test_pairwise_correlations_are_moved_to_the_nearest_that_can_be():
    """Higham (2002), section 4: the nearest to a matrix with an eigenvalue of 1 - sqrt(2)."""
    bad = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    near = nearest_correlation(bad)
    np.testing.assert_allclose(near[0], [1, 0.76068985, 0.15729811], atol=1e-7)
    np.testing.assert_allclose(np.diag(near), 1)
    assert np.linalg.eigvalsh(near)[0] > -1e-8
    rng = np.random.default_rng(10)
    traits = correlated(30, 20, 0.7)
    traits[rng.uniform(size=traits.shape) < 0.4] = np.nan
    import pandas as pd

    pairwise = pd.DataFrame(traits).corr().to_numpy()
    assert np.linalg.eigvalsh(pairwise)[0] < 0
    found, shifted = correlation_eigenvalues(traits)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(nearest_correlation(pairwise))[::-1], atol=1e-7)
    assert found.sum() == pytest.approx(20)
    assert 0 < shifted < 0.3


def test_bad_input():
    traits = correlated(50, 4, 0.2)
    age = np.linspace(20, 80, 50)[:, None]
    flat = np.column_stack([traits, np.full(50, 3.0), 2 * age + 1, np.full(50, np.nan)])
    design = prepare_effective(flat, covariates=age)
    assert design.tested.tolist() == [True] * 4 + [False] * 3
    with pytest.raises(ValueError, match="Trait 2 has an infinite value"):
        prepare_effective(np.where(np.arange(4) == 1, np.inf, traits))
    with pytest.raises(ValueError, match="Nobody has complete covariates"):
        prepare_effective(traits, covariates=np.full((50, 1), np.nan))
    with pytest.raises(ValueError, match="No trait has a value in people"):
        prepare_effective(np.full((50, 2), np.nan))
    with pytest.raises(ValueError, match="None of the 1 traits varies beyond the covariates"):
        prepare_effective(np.full((50, 1), 3.0))
    with pytest.raises(ValueError, match=r"20 predictors are too few for an interval of the 0\.05 quantile"):
        effective_tests(design, simulate_smallest_p(design, 20, np.random.default_rng(0)))


def test_abide_thickness_rules_disagree_and_two_are_too_liberal():
    """cohort.md 4: Li and Ji's and Galwey's numbers are too small on smooth thickness."""
    table, names = abide()
    thickness = [name for name in names if name.endswith("_thickness")]
    found = simulated(table[thickness].to_numpy(dtype=float))
    assert found.n_traits == 70
    assert found.li_ji < found.galwey < found.lower
    assert found.upper < found.nyholt < found.gao
    assert (found.nyholt - found.li_ji) / found.simulated > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_the_simulated_level_keeps_the_family_wise_error(missing):
    """Fresh predictors, genotypes of an allele of frequency 0.3, tested one regression at a time."""
    rng = np.random.default_rng(11)
    n = 300
    covariates = rng.standard_normal((n, 3))
    loadings = rng.standard_normal((4, 25))
    traits = rng.standard_normal((n, 4)) @ loadings + 0.7 * rng.standard_normal((n, 25)) + covariates[:, :1]
    traits[rng.uniform(size=traits.shape) < missing] = np.nan
    found = simulated(traits, covariates)
    assert 2 < found.simulated < 20
    n_tests, findings = 6_000, 0
    for _ in range(n_tests):
        genotype = rng.binomial(2, 0.3, n).astype(float)
        findings += naive_smallest_p(traits, genotype, covariates) <= found.alpha
    # Binomial error of the rate (0.0028) and that of alpha* (3 %, 0.0015).
    assert findings / n_tests == pytest.approx(0.05, abs=3 * np.hypot(0.0028, 0.0015))
