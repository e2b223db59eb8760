"""Templates against one regression a voxel (statsmodels), with missing voxels, collinear covariates and batches."""

import numpy as np
import pytest
import statsmodels.api as sm

from brainlocus.images.idp import add_images, finish_template, prepare_template, start_template, template_bytes

N, V = 60, 40


def cohort(seed=0, missing=0.1):
    rng = np.random.default_rng(seed)
    age, sex = rng.uniform(45, 80, N), rng.integers(0, 2, N).astype(float)
    values = 0.05 + np.outer(age - 60, rng.normal(0, 1e-3, V)) + 0.01 * sex[:, None] + rng.normal(0, 0.02, (N, V))
    values[:, 1:][rng.uniform(size=(N, V - 1)) < missing] = np.nan
    values[:, 5] = np.nan
    values[3:, 6] = np.nan
    return values.astype(np.float32), age, sex


def run(design, values, batch=7):
    sums = start_template(design, values.shape[1])
    for start in range(0, values.shape[0], batch):
        add_images(sums, values[start : start + batch], np.arange(start, min(start + batch, values.shape[0])))
    return finish_template(sums)


def test_every_voxel_is_the_regression_of_statsmodels():
    values, age, sex = cohort()
    age[4] = np.nan  # stays in the mean, not in the regression
    found = run(prepare_template(N, contrast=age, covariates=sex[:, None], min_share=0.5), values)
    for v in range(V):
        y = values[:, v].astype(np.float64)
        known = np.isfinite(y)
        assert found.n[v] == known.sum()
        if known.any():
            assert found.mean[v] == pytest.approx(y[known].mean(), rel=1e-10)
        if known.sum() > 1:
            assert found.standard_deviation[v] == pytest.approx(y[known].std(ddof=1), rel=1e-9)
        used = known & np.isfinite(age)
        assert found.regression_n[v] == used.sum()
        if used.sum() < 0.5 * (N - 1):
            assert np.isnan([found.beta[v], found.standard_error[v], found.t[v], found.neg_log10_p[v]]).all()
            continue
        fit = sm.OLS(y[used], sm.add_constant(np.column_stack([age, sex])[used])).fit()
        assert found.beta[v] == pytest.approx(fit.params[1], rel=1e-7)
        assert found.standard_error[v] == pytest.approx(fit.bse[1], rel=1e-7)
        assert found.t[v] == pytest.approx(fit.tvalues[1], rel=1e-6)
        assert found.neg_log10_p[v] == pytest.approx(-np.log10(fit.pvalues[1]), rel=1e-6)
    assert np.isnan(found.mean[5])
    assert np.isnan(found.standard_deviation[5])


def test_batches_and_order_change_nothing():
    values, age, sex = cohort()
    design = prepare_template(N, contrast=age, covariates=sex[:, None], edges=(45.0, 60.0, 80.0))
    here, there = run(design, values, batch=1), run(design, values, batch=N)
    order = np.random.default_rng(1).permutation(N)
    turned = prepare_template(N, contrast=age[order], covariates=sex[order, None], edges=(45.0, 60.0, 80.0))
    other = run(turned, values[order])
    for name in ("n", "mean", "standard_deviation", "beta", "t", "bin_means", "bin_n"):
        np.testing.assert_allclose(getattr(here, name), getattr(there, name), rtol=1e-8)
        np.testing.assert_allclose(getattr(here, name), getattr(other, name), rtol=1e-8)


def test_bins_are_means_of_their_people():
    values, age, _ = cohort(missing=0.0)
    age[:4] = (45.0, 60.0, 80.0, 81.0)
    found = run(prepare_template(N, contrast=age, edges=(45.0, 60.0, 80.0)), values)
    young, old = (age >= 45) & (age < 60), (age >= 60) & (age <= 80)
    np.testing.assert_allclose(found.bin_means[0][:5], values[young, :5].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.bin_means[1][:5], values[old, :5].mean(axis=0), rtol=1e-5)
    assert found.bin_n[:, 0].tolist() == [young.sum(), old.sum()]
    assert np.isnan(found.bin_means[:, 5]).all()


def test_no_contrast_needs_no_people():
    values, _, _ = cohort()
    found = run(prepare_template(N), values)
    assert np.isnan(found.beta).all()
    assert found.bin_means.shape == (0, V)
    np.testing.assert_allclose(found.mean[0], values[:, 0].mean(), rtol=1e-5)


def test_needless_covariates_are_left_out():
    values, age, sex = cohort()
    plain = run(prepare_template(N, contrast=age, covariates=sex[:, None]), values)
    twice = np.column_stack([sex, np.ones(N), 3.0 - sex])
    found = run(prepare_template(N, contrast=age, covariates=twice), values)
    np.testing.assert_allclose(found.t, plain.t, rtol=1e-7)


def test_a_covariate_that_is_constant_at_a_voxel_gives_no_estimate_there():
    values, age, _ = cohort(missing=0.0)
    rare = np.zeros(N)
    rare[:2] = 1.0
    values[:2, 0] = np.nan
    found = run(prepare_template(N, contrast=age, covariates=rare[:, None], min_share=0.5), values)
    assert np.isnan(found.beta[0])
    assert np.isfinite(found.beta[1])


def test_constant_voxels_have_no_estimate():
    values, age, _ = cohort(missing=0.0)
    values[:, 0] = 0.1
    found = run(prepare_template(N, contrast=age), values)
    assert np.isnan(found.t[0])
    assert found.standard_deviation[0] == 0
    assert np.isfinite(found.t[1])


def test_bad_designs():
    age = np.linspace(45, 80, N)
    with pytest.raises(ValueError, match="no spread over the 60 people"):
        prepare_template(N, contrast=np.full(N, 50.0))
    with pytest.raises(ValueError, match="linear combination of the covariates"):
        prepare_template(N, contrast=age, covariates=(2 * age + 1)[:, None])
    with pytest.raises(ValueError, match="3 people are too few"):
        prepare_template(3, contrast=age[:3])
    with pytest.raises(ValueError, match="no spread over the 0 people"):
        prepare_template(N, contrast=np.full(N, np.nan))
    with pytest.raises(ValueError, match="increasing bounds"):
        prepare_template(N, contrast=age, edges=(60.0, 50.0))
    with pytest.raises(ValueError, match="Bins are of the contrast"):
        prepare_template(N, edges=(45.0, 60.0))


def test_declared_memory_holds():
    import tracemalloc

    values, age, sex = cohort()
    wide = np.tile(values, (1, 500))[:8]
    design = prepare_template(N, contrast=age, covariates=sex[:, None], edges=(45.0, 60.0, 80.0))
    run(design, wide[:, :100])
    tracemalloc.start()
    run(design, wide, batch=8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= template_bytes(design, wide.shape[1], 8) + (1 << 21)
