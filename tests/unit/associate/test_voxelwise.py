"""Voxel-wise association against one statsmodels regression a voxel, with missing voxels, targets and covariates."""

import tracemalloc

import numpy as np
import pytest
import statsmodels.api as sm

from brainlocus.cohort.associate import (
    add_voxelwise,
    finish_voxelwise,
    prepare_one_sample,
    prepare_voxelwise,
    start_voxelwise,
    voxel_means,
    voxels_at_once,
    voxelwise_bytes,
)
from tests.reference.naive_voxelwise import naive_voxelwise

N, V = 70, 30
NAMES = ("beta", "standard_error", "r", "t", "neg_log10_p")


def cohort(seed=0, missing=0.08):
    """Values of voxels with a large offset, targets of three groups of people, covariates with a small site."""
    rng = np.random.default_rng(seed)
    site = (np.arange(N) < 5).astype(float)
    covariates = np.column_stack([rng.normal(60, 8, N), rng.integers(0, 2, N), site])
    targets = np.column_stack([rng.normal(100, 15, N), rng.integers(0, 2, N), rng.normal(size=N), rng.normal(size=N)])
    values = 5.0 + 0.01 * np.outer(targets[:, 0], rng.normal(size=V)) + rng.normal(0, 0.5, (N, V))
    values += 0.02 * covariates[:, :1]
    if missing:
        targets[3:9, 1] = np.nan
        targets[20:31, 3] = np.nan
        covariates[12, 0] = np.nan
        values[:, 2:][rng.uniform(size=(N, V - 2)) < missing] = np.nan
        values[:5, 5] = np.nan  # nobody of the small site
        values[targets[:, 1] == 1, 6] = np.nan  # nobody of a class
        values[:, 7] = np.nan
        values[:, 8] = 3.25
        values[4:, 9] = np.nan
    return values.astype(np.float32), targets, covariates


def scan(design, values, batch=9, slots=None):
    """Return the maps of all targets, in the order of the targets."""
    sums = start_voxelwise(design, values.shape[1], slots=slots)
    for start in range(0, values.shape[0], batch):
        add_voxelwise(sums, values[start : start + batch], np.arange(start, min(start + batch, values.shape[0])))
    found = {name: np.full((design.status.size, values.shape[1]), np.nan) for name in (*NAMES, "n")}
    for k, group in enumerate(design.groups):
        maps = finish_voxelwise(sums, k, slice(0, values.shape[1]))
        for name in NAMES:
            found[name][group.members] = getattr(maps, name)
        found["n"][group.members] = maps.n
    return found, sums


def test_every_voxel_is_the_regression_of_statsmodels():
    values, targets, covariates = cohort()
    found, _ = scan(prepare_voxelwise(targets, covariates=covariates, min_share=0.3), values)
    expected = naive_voxelwise(values, targets, covariates)
    np.testing.assert_array_equal(found["n"], expected["n"])
    enough = expected["n"] >= np.maximum(0.3 * np.isfinite(targets).sum(axis=0)[:, None], 10)
    assert np.isfinite(found["t"]).sum() > 90
    for name in NAMES:
        want = np.where(enough, expected[name], np.nan)
        np.testing.assert_allclose(found[name], want, rtol=1e-8, atol=1e-9, err_msg=name)


def test_rank_falls_where_a_site_is_absent():
    values, targets, covariates = cohort()
    design = prepare_voxelwise(targets[:, :1], covariates=covariates)
    _, sums = scan(design, values)
    maps = finish_voxelwise(sums, 0, slice(4, 6))
    assert maps.degrees_of_freedom.tolist() == [maps.n[0] - 5, maps.n[1] - 4]


def test_without_covariates_r_is_pearsons():
    values, targets, _ = cohort(missing=0)
    found, _ = scan(prepare_voxelwise(targets), values)
    expected = np.corrcoef(targets.T, values.T)[:4, 4:]
    np.testing.assert_allclose(found["r"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.08])
def test_batches_and_order_change_nothing(missing):
    values, targets, covariates = cohort(missing=missing)
    here, _ = scan(prepare_voxelwise(targets, covariates=covariates), values, batch=1)
    order = np.random.default_rng(1).permutation(N)
    turned = prepare_voxelwise(targets[order], covariates=covariates[order])
    there, _ = scan(turned, values[order], batch=N)
    for name in (*NAMES, "n"):
        np.testing.assert_allclose(here[name], there[name], rtol=1e-7, atol=1e-9)


def test_scaling_and_sign():
    values, targets, covariates = cohort()
    one, _ = scan(prepare_voxelwise(targets, covariates=covariates), values)
    two, _ = scan(prepare_voxelwise(-1000.0 * targets + 7.0, covariates=3.0 * covariates - 2.0), values)
    np.testing.assert_allclose(two["t"], -one["t"], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(two["beta"], one["beta"] / -1000.0, rtol=1e-7, atol=1e-12)


def test_single_precision_is_close():
    values, targets, covariates = cohort()
    double, _ = scan(prepare_voxelwise(targets, covariates=covariates), values)
    single, _ = scan(prepare_voxelwise(targets, covariates=covariates, precision="single"), values)
    np.testing.assert_array_equal(np.isnan(double["t"]), np.isnan(single["t"]))
    # A product of a batch is good to a few units of 6e-8; t is at most 10 here.
    np.testing.assert_allclose(single["t"], double["t"], atol=2e-5)


def test_a_large_offset_costs_no_digits():
    values, targets, covariates = cohort(missing=0)
    found, _ = scan(prepare_voxelwise(targets, covariates=covariates), values + np.float32(4096.0))
    expected = naive_voxelwise(values + np.float32(4096.0), targets, covariates)
    np.testing.assert_allclose(found["t"], expected["t"], rtol=1e-8, atol=1e-9)


def test_voxels_without_a_row_are_deferred_and_others_the_same():
    values, targets, covariates = cohort()
    design = prepare_voxelwise(targets, covariates=covariates)
    whole, _ = scan(design, values)
    part, sums = scan(design, values, slots=4)
    assert sums.n_slots == 4
    assert sums.deferred.sum() > 10
    assert np.isnan(part["t"][:, sums.deferred]).all()
    np.testing.assert_array_equal(part["t"][:, ~sums.deferred], whole["t"][:, ~sums.deferred])
    again, _ = scan(design, values[:, sums.deferred])
    np.testing.assert_allclose(again["t"], whole["t"][:, sums.deferred], rtol=1e-9)


def test_targets_that_cannot_be_tested_have_a_status():
    values, targets, covariates = cohort(missing=0)
    few = np.where(np.arange(N) < 6, targets[:, 0], np.nan)
    odd = np.column_stack([np.full(N, 3.0), covariates[:, 0] + 2 * covariates[:, 1], few, targets[:, 0]])
    design = prepare_voxelwise(odd, covariates=covariates)
    assert design.status.tolist() == [
        "target has no variance", "target is a combination of the covariates", "fewer than 10 people", "ok",
    ]  # fmt: skip
    assert design.n.tolist() == [N, N, 6, N]
    found, _ = scan(design, values)
    assert np.isnan(found["t"][:3]).all()
    assert np.isfinite(found["t"][3]).all()


def test_bad_input():
    _, targets, _ = cohort(missing=0)
    with pytest.raises(ValueError, match="infinite"):
        prepare_voxelwise(np.where(targets > 120, np.inf, targets))
    with pytest.raises(ValueError, match="Nobody has complete covariates"):
        prepare_voxelwise(targets, covariates=np.full((N, 1), np.nan))


@pytest.mark.parametrize("k", [0, 3])
@pytest.mark.parametrize("missing", [0.0, 0.08])
def test_mean_of_the_maps_equals_statsmodels(k, missing):
    """One sample: the intercept at the mean covariates of all, in each voxel's own people."""
    values, _, covariates = cohort(missing=missing)
    values, covariates = values - np.float32(15.0), covariates[:, :k]
    covariates[3, :] = np.nan if missing else 0.5
    design = prepare_one_sample(N, covariates=covariates)
    sums = start_voxelwise(design, V)
    for start in range(0, N, 16):
        part = np.arange(start, min(start + 16, N))
        add_voxelwise(sums, values[part], part)
    found = finish_voxelwise(sums, 0, slice(0, V))
    known = np.isfinite(covariates).all(axis=1)
    centred = covariates - covariates[known].mean(axis=0)
    # Too few people, nobody, equal values; and without anybody of the site its column is the intercept.
    none = {6, 7, 8, 9, *([5] if k else [])} if missing else set()
    assert set(np.flatnonzero(np.isnan(found.t[0]))) == none
    for v in sorted(set(range(V)) - none):
        rows = known & np.isfinite(values[:, v])
        fit = sm.OLS(values[rows, v].astype(float), np.column_stack([np.ones(rows.sum()), centred[rows]])).fit()
        assert found.n[v] == rows.sum()
        assert found.degrees_of_freedom[v] == fit.df_resid
        assert found.beta[0, v] == pytest.approx(fit.params[0], rel=1e-8)
        assert found.standard_error[0, v] == pytest.approx(fit.bse[0], rel=1e-8)
        assert found.t[0, v] == pytest.approx(fit.tvalues[0], rel=1e-8)
    check_means(sums, values, known)


def check_means(sums, values, known):
    """Means of the people who have the voxel and the covariates."""
    some = np.isfinite(values[known]).any(axis=0)
    found = voxel_means(sums)
    assert np.isnan(found[~some]).all()
    np.testing.assert_allclose(found[some], np.nanmean(values[known][:, some].astype(float), axis=0), rtol=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.08])
def test_means_of_the_largest_group(missing):
    values, targets, covariates = cohort(missing=missing)
    _, sums = scan(prepare_voxelwise(targets, covariates=covariates), values)
    check_means(sums, values, np.isfinite(covariates).all(axis=1))


def test_mean_of_equal_values_has_no_error():
    values = np.tile(np.float32([0.1, 3.0, 0.0]), (N, 1))
    design = prepare_one_sample(N)
    sums = start_voxelwise(design, 3)
    add_voxelwise(sums, values, np.arange(N))
    assert np.isnan(finish_voxelwise(sums, 0, slice(0, 3)).t).all()
    assert prepare_one_sample(5).status.tolist() == ["fewer than 10 people"]


@pytest.mark.parametrize(("n_targets", "slots"), [(1, 20_000), (60, 500)])
def test_memory_is_as_declared(n_targets, slots):
    rng = np.random.default_rng(0)
    voxels, batch = 20_000, 16
    design = prepare_voxelwise(rng.normal(size=(64, n_targets)), covariates=rng.normal(size=(64, 5)))
    images = rng.normal(size=(batch, voxels)).astype(np.float32)
    images[0, :: voxels // slots] = np.nan
    declared = voxelwise_bytes(design, voxels, slots=slots, batch=batch)
    tracemalloc.start()
    sums = start_voxelwise(design, voxels, slots=slots)
    for start in range(0, 64, batch):
        add_voxelwise(sums, images, np.arange(start, start + batch))
    step = voxels_at_once(design.groups[0])
    for start in range(0, voxels, step):
        finish_voxelwise(sums, 0, slice(start, min(start + step, voxels)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= declared
    assert declared < 3 * peak
