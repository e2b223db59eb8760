"""Kernels of the epigenome-wide scan beside literal ones, and planted truth."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import kstest

from brainlocus.cohort.associate import prepare_voxelwise
from brainlocus.cohort.associate.epigenome import (
    add_surrogates,
    beta_values,
    candidate_regions,
    corrected_z,
    estimate_cells,
    fit_empirical_null,
    fit_variance_prior,
    inflation,
    m_values,
    moderate,
    n_region_tests,
    pairwise_correlation,
    scan_features,
    shrink_region,
    start_surrogates,
    surrogate_variables,
    winsorise,
)
from brainlocus.cohort.associate.epigenome.surrogates import _effective_features, _largest_shares
from brainlocus.numerics import neg_log10_p_from_z
from tests.reference.naive_epigenome import gibbs_null, naive_pair, naive_part, naive_winsorise

N, G = 50, 40


@pytest.fixture(scope="module")
def study():
    """Features of which some lack people: few, most, a whole site; two groups of traits; five covariates."""
    rng = np.random.default_rng(0)
    site = rng.integers(0, 3, N)
    covariates = np.column_stack([rng.normal(size=(N, 3)), site == 1, site == 2]).astype(float)
    covariates[4, 0] = np.nan
    traits = rng.normal(size=(N, 4))
    traits[3:9, 2:] = np.nan
    features = 5.0 + rng.normal(size=(G, N)) * rng.gamma(2, 1, G)[:, None]
    features[0] += traits[:, 0]
    for k in range(8, 20):
        features[k, rng.choice(N, k - 7, replace=False)] = np.nan
    features[20, site == 2] = np.nan
    features[21, : N - 8] = np.nan  # fewer than ten people
    features[22] = 3.0
    features[23] = np.nan
    features[24] = 2.0 + covariates[:, 1]
    features[25, 3:9] = np.nan  # exactly those whom two traits lack
    return features, traits, covariates


def design_of(study, **settings):
    _, traits, covariates = study
    return prepare_voxelwise(traits, covariates=covariates, **{"min_share": 0.1, **settings})


@pytest.mark.parametrize("outcome", ["feature", "trait"])
def test_scan_is_one_regression_a_pair(study, outcome):
    features, traits, covariates = study
    scan = scan_features(design_of(study), features, outcome=outcome)
    checked = 0
    for k in range(traits.shape[1]):
        for g in range(G):
            if scan.status[k, g]:
                assert np.isnan(scan.beta[k, g])
                continue
            n, df, beta, error, s2 = naive_pair(features[g], traits[:, k], covariates, outcome)
            assert scan.n[k, g] == n
            assert scan.degrees_of_freedom[k, g] == df
            assert scan.beta[k, g] == pytest.approx(beta, rel=1e-9, abs=1e-12)
            ours = scan.unscaled[k, g] * np.sqrt(scan.variance[k, g])
            assert ours == pytest.approx(error, rel=1e-9)
            assert scan.variance[k, g] == pytest.approx(s2, rel=1e-9)
            checked += 1
    assert checked == 4 * (G - 4)
    assert scan.status[0, [21, 22, 23, 24]].tolist() == [1, 2, 1, 2]
    # The site that nobody of feature 20 is of costs its column.
    assert scan.degrees_of_freedom[0, 20] == scan.n[0, 20] - 6
    assert scan.n[2, 25] == 44


def test_block_size_changes_nothing(study):
    features = study[0]
    design = design_of(study)
    whole = scan_features(design, features)
    parts = [scan_features(design, features[k : k + 7]) for k in range(0, G, 7)]
    for name in ("beta", "variance", "unscaled"):
        joined = np.concatenate([getattr(p, name) for p in parts], axis=1)
        np.testing.assert_allclose(joined, getattr(whole, name), rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(np.concatenate([p.n for p in parts], axis=1), whole.n)


def test_scale_of_trait_and_other_people(study):
    features, traits, covariates = study
    scan = scan_features(design_of(study), features)
    order = np.random.default_rng(1).permutation(N)
    turned = prepare_voxelwise(10 * traits[order], covariates=covariates[order], min_share=0.1)
    again = scan_features(turned, features[:, order])
    np.testing.assert_allclose(10 * again.beta, scan.beta, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(again.variance, scan.variance, rtol=1e-9)


def test_a_trait_that_is_not_tested_and_other_people(study):
    features, traits, covariates = study
    constant = np.column_stack([traits[:, 0], np.full(N, 3.0)])
    scan = scan_features(prepare_voxelwise(constant, covariates=covariates), features)
    assert (scan.status[1] == 4).all()
    assert np.isnan(scan.beta[1]).all()
    with pytest.raises(ValueError, match="Features have 49 people, the design 50"):
        scan_features(design_of(study), features[:, 1:])


def test_winsorise_is_clipping_row_by_row():
    rng = np.random.default_rng(2)
    values = rng.standard_t(2, size=(30, 41))
    values[::3, ::7] = np.nan
    values[4] = np.nan
    values[5] = 0.0
    values[5, 3] = 100.0  # quartiles are equal: left as it is
    found = winsorise(values, reach=1.5)
    np.testing.assert_array_equal(found.values, naive_winsorise(values, 1.5))
    changed = (found.values != values) & ~np.isnan(values)
    np.testing.assert_array_equal(found.n_changed, changed.sum(axis=1))
    assert found.n_changed.sum() > 20
    assert np.isnan(values[0, 0])  # the input is not changed
    with pytest.raises(ValueError, match="positive number"):
        winsorise(values, reach=0.0)


def test_m_values_and_back():
    beta = np.linspace(0, 1, 11)[None]
    m = m_values(beta)
    assert np.isfinite(m).all()
    np.testing.assert_allclose(beta_values(m), beta, atol=1e-14)
    assert m[0, 7] == pytest.approx(np.log2(0.701 / 0.301))


def test_prior_is_recovered_and_extremes():
    rng = np.random.default_rng(3)
    d0, s0, d = 8.0, 0.5, 40
    true = d0 * s0 / rng.chisquare(d0, 40_000)
    prior = fit_variance_prior(true * rng.chisquare(d, true.size) / d, np.full(true.size, float(d)))
    assert prior.degrees_of_freedom == pytest.approx(d0, rel=0.05)
    assert prior.variance == pytest.approx(s0, rel=0.02)
    equal = fit_variance_prior(np.full(10, 2.0), np.full(10, 20.0))
    assert np.isinf(equal.degrees_of_freedom)
    assert equal.variance == 2.0
    single = fit_variance_prior(np.array([np.nan, 3.0]), np.array([np.nan, 5.0]))
    assert (single.degrees_of_freedom, single.variance) == (0.0, 3.0)
    assert np.isnan(fit_variance_prior(np.array([np.nan]), np.array([np.nan])).variance)
    # One variance of exactly 0 neither fails nor makes t infinite.
    zero = fit_variance_prior(np.r_[0.0, true[:99]], np.full(100, 10.0))
    found = moderate(np.ones(2), np.ones(2), np.array([0.0, 1.0]), np.full(2, 10.0), zero)
    assert np.isfinite(found.t).all()
    far = moderate(np.array([1e3]), np.ones(1), np.ones(1), np.array([500.0]), None)
    assert np.isfinite(far.neg_log10_p).all()
    assert far.neg_log10_p[0] > 400


def test_moderated_p_of_null_features_is_uniform():
    """Ten people, unequal variances: moderated p is uniform, and has more power than p of t."""
    rng = np.random.default_rng(4)
    n, g = 10, 4000
    sd = np.sqrt(0.5 * 4 / rng.chisquare(4, g))
    x = rng.normal(size=(n, 1))
    design = prepare_voxelwise(x, min_people=5)
    ps = {}
    for effect in (0.0, 1.2):
        values = sd[:, None] * (rng.normal(size=(g, n)) + effect * x[:, 0])
        scan = scan_features(design, values)
        args = (scan.beta[0], scan.unscaled[0], scan.variance[0], scan.degrees_of_freedom[0])
        ps[effect] = [
            10.0 ** -moderate(*args, prior).neg_log10_p for prior in (fit_variance_prior(args[2], args[3]), None)
        ]
    assert kstest(ps[0.0][0], "uniform").pvalue > 0.01
    assert (ps[1.2][0] < 1e-3).mean() > (ps[1.2][1] < 1e-3).mean() + 0.03


@pytest.mark.parametrize(
    ("n", "bias", "spread", "share"), [(100_000, 0.1, 1.2, 0.02), (100_000, -0.3, 1.0, 0.0), (100_000, 0.0, 1.4, 0.05)]
)
def test_empirical_null_is_that_of_gibbs_sampling(n, bias, spread, share):
    """The posterior's mode lies within its draws, and near the truth: the prior draws s0 down by 1 to 3 %."""
    rng = np.random.default_rng(5)
    z = rng.normal(bias, spread, n)
    some = int(share * n)
    z[:some] += rng.choice([-1, 1], some) * rng.normal(5, 1, some)
    null = fit_empirical_null(z)
    draws = gibbs_null(z, rng)
    for ours, k in ((null.null_share, 0), (null.bias, 1), (null.inflation, 2)):
        assert abs(ours - draws[:, k].mean()) < 1.5 * draws[:, k].std()
    assert null.converged
    assert null.bias == pytest.approx(bias, abs=0.02)
    assert null.inflation == pytest.approx(spread, rel=0.03)
    assert null.null_share == pytest.approx(1 - share, abs=0.03)


def test_corrected_tests_keep_their_error_and_power():
    """Biased and inflated tests of 2 % of associated features, beside the correction by the true bias and inflation."""
    rng = np.random.default_rng(11)
    n, some, bias, spread = 200_000, 4_000, 0.15, 1.3
    z = rng.normal(bias, spread, n)
    z[:some] += spread * rng.choice([-1, 1], some) * rng.normal(5, 1, some)
    found = neg_log10_p_from_z(corrected_z(z, fit_empirical_null(z)))
    oracle = neg_log10_p_from_z((z - bias) / spread)
    naive = neg_log10_p_from_z(z)
    for level, most in ((0.05, 1.10), (1e-3, 1.25)):
        strict = -np.log10(level)
        assert 0.95 < (found[some:] > strict).mean() / level < most
        assert (naive[some:] > strict).mean() > 2.4 * level
    power, best = ((p[:some] > 5).mean() for p in (found, oracle))
    assert abs(power - best) < 0.02
    assert best > 0.6


def test_empirical_null_needs_tests_and_takes_extremes():
    assert np.isnan(fit_empirical_null(np.zeros(99)).bias)
    rng = np.random.default_rng(6)
    z = np.r_[rng.normal(size=5000), [60.0, -80.0, np.nan, np.nan]]
    null = fit_empirical_null(z)
    assert null.n_tests == 5002
    assert null.inflation == pytest.approx(1.0, abs=0.04)
    assert np.isnan(corrected_z(z, null)[-1])
    assert inflation(neg_log10_p_from_z(rng.normal(0, 1.5, 50_000))) == pytest.approx(2.25, rel=0.04)
    assert np.isnan(inflation(np.array([np.nan])))


def test_cells_by_a_general_solver():
    rng = np.random.default_rng(7)
    reference = rng.beta(0.6, 0.6, (40, 5))
    weights = np.column_stack([rng.dirichlet(np.ones(5) * 0.7) * s for s in (0.5, 0.8, 1.0, 1.2) for _ in range(4)])
    samples = reference @ weights + rng.normal(0, 0.1, (40, 16))
    samples[::9, 3] = np.nan
    found = estimate_cells(samples, reference)
    for k in range(16):
        rows = np.isfinite(samples[:, k])
        b, m = reference[rows], samples[rows, k]

        def loss(w, b=b, m=m):
            return ((m - b @ w) ** 2).sum()

        best = minimize(
            loss, np.full(5, 0.2), jac=lambda w, b=b, m=m: -2 * b.T @ (m - b @ w), method="SLSQP",
            bounds=[(0, None)] * 5,
            constraints={"type": "ineq", "fun": lambda w: 1 - w.sum(), "jac": lambda w: -np.ones(5)},
            options={"ftol": 1e-15, "maxiter": 500},
        )  # fmt: skip
        w = found.proportions[k]
        assert (w >= 0).all()
        assert w.sum() <= 1 + 1e-12
        assert loss(w) <= loss(best.x) + 1e-10  # SLSQP leaves its constraints by as much
        np.testing.assert_allclose(w, best.x, atol=1e-6)
        assert found.residual[k] == pytest.approx(np.sqrt(loss(w) / rows.sum()))
    assert found.n_markers[3] == 35


def test_cells_that_cannot_be_told():
    with pytest.raises(ValueError, match="at least as many marker CpGs"):
        estimate_cells(np.ones((2, 3)), np.eye(2, 3))
    with pytest.raises(ValueError, match="does not tell its cell types apart"):
        estimate_cells(np.ones((4, 1)), np.ones((4, 2)))
    lacking = estimate_cells(np.array([[1.0], [np.nan], [np.nan]]), np.eye(3, 2))
    assert np.isnan(lacking.proportions).all()


def batches(rng, n, g, shared):
    plate = np.eye(4)[rng.integers(0, 4, n)]
    common = rng.normal(size=(g // 5, n)).repeat(5, axis=0)
    noise = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=(g, n))
    shifts = (rng.random(g) < 0.3)[:, None] * rng.normal(0, 0.6, (g, 4))
    return plate, noise, shifts @ plate.T


@pytest.mark.parametrize(("shared", "most"), [(0.0, 3), (0.35, 8)])
def test_a_planted_batch_is_recovered(shared, most):
    """Four plates are three directions. Features that neighbours share errors with cost a few components more."""
    rng = np.random.default_rng(8)
    covariates = rng.normal(size=(200, 3))
    plate, noise, shift = batches(rng, 200, 2000, shared)
    chosen = start_surrogates(covariates, most=1500)
    values = 3.0 + noise + shift
    values[5, ::3] = np.nan
    values[6, ::2] = values[6, 1::4] = np.nan
    for k in range(0, 2000, 300):
        add_surrogates(chosen, values[k : k + 300])
    found = surrogate_variables(chosen, rng)
    n = found.scores.shape[1]
    assert 3 <= n <= most
    assert found.n_features == 1500
    design = np.column_stack([np.ones(200), covariates])
    left = plate - design @ np.linalg.lstsq(design, plate, rcond=None)[0]
    fit = found.scores @ np.linalg.lstsq(found.scores, left, rcond=None)[0]
    assert (fit**2).sum() / (left**2).sum() > 0.9
    np.testing.assert_allclose(found.scores.T @ found.scores / 200, np.eye(n), atol=1e-10)
    np.testing.assert_allclose(design.T @ found.scores, 0, atol=1e-8)
    # The first components do not depend on the blocks.
    again = start_surrogates(covariates, most=1500)
    add_surrogates(again, values)
    np.testing.assert_allclose(surrogate_variables(again, rng, number=3).scores, found.scores[:, :3], atol=1e-8)


def test_no_batch_gives_no_surrogates():
    counts = []
    for seed in range(12):
        rng = np.random.default_rng(100 + seed)
        chosen = start_surrogates(np.empty((80, 0)))
        add_surrogates(chosen, rng.normal(size=(600, 80)))
        counts.append(surrogate_variables(chosen, rng).scores.shape[1])
    assert sum(counts) <= 3
    with pytest.raises(ValueError, match="there is room for 77"):
        surrogate_variables(chosen, rng, number=78)


def test_drawn_variances_are_those_of_normal_data():
    rng = np.random.default_rng(9)
    shares, effective = [], []
    for _ in range(150):
        values = np.linalg.eigvalsh(np.cov(rng.normal(size=(300, 40)).T, bias=True))
        shares.append(values[-1] / values.sum())
        effective.append(_effective_features(values))
    drawn = _largest_shares(40, 299.0, rng)
    assert kstest(shares, drawn).pvalue > 0.01
    assert np.mean(effective) == pytest.approx(299, rel=0.05)
    few = _largest_shares(40, 12.0, rng)
    by_hand = [np.linalg.eigvalsh(x @ x.T)[-1] / (x**2).sum() for x in rng.normal(size=(150, 12, 40))]
    assert kstest(by_hand, few).pvalue > 0.01


def test_parts_of_a_region_by_inverting_their_covariance():
    rng = np.random.default_rng(10)
    n = 9
    values = rng.normal(size=(n, 60)) + 0.8 * rng.normal(size=60)
    values[2, :7] = np.nan
    r = pairwise_correlation(values)
    both = np.isfinite(values[2])
    assert r[2, 5] == pytest.approx(np.corrcoef(values[2, both], values[5, both])[0, 1])
    error = rng.uniform(0.5, 1.5, n)
    beta = np.r_[np.full(4, 2.0), np.full(5, -0.5)] + 0.1 * rng.normal(size=n)
    parts = shrink_region(beta, error, r)
    table = {(i, j): naive_part(beta, error, r, i, j) for i in range(n) for j in range(i, n)}
    best = max(table, key=lambda ij: abs(table[ij][0] / table[ij][1]))
    assert (parts.start[0], parts.stop[0] - 1) == best
    covered = np.zeros(n, dtype=int)
    for i, stop, b, s in zip(parts.start, parts.stop, parts.beta, parts.standard_error, strict=True):
        np.testing.assert_allclose([b, s], table[(i, stop - 1)], rtol=1e-9)
        covered[i:stop] += 1
    assert (covered == 1).all()
    # A matrix of correlations over different people need not be positive definite.
    odd = np.array([[1.0, 0.99, -0.99], [0.99, 1.0, 0.99], [-0.99, 0.99, 1.0]])
    assert np.linalg.eigvalsh(odd + 0.05 * np.eye(3))[0] < 0
    assert np.isfinite(shrink_region(np.ones(3), np.ones(3), odd).z).all()


def test_candidates_break_at_gaps_signs_chromosomes():
    chromosome = np.array(["2", "1", "1", "1", "1", "1", "1", ""])
    position = np.array([100, 900, 100, 300, 1500, 1600, 1700, 350])
    beta = np.array([1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0])
    strength = np.array([3.0, 3.0, 3.0, 3.0, 3.0, 3.0, np.nan, 3.0])
    found = candidate_regions(strength, beta, chromosome, position)
    assert found.order.tolist() == [2, 3, 1, 4, 5, 0]
    ranges = list(zip(found.start.tolist(), found.stop.tolist(), strict=True))
    assert ranges == [(0, 2), (2, 3), (3, 4), (4, 5), (5, 6)]
    assert n_region_tests(found) == 6 + 5
    nothing = candidate_regions(np.zeros(8), beta, chromosome, position)
    assert nothing.start.size == 0
