"""Outliers and normal scores of voxels against scipy's ranks and numpy's medians, one voxel at a time."""

import numpy as np
import pytest
import scipy.stats
from scipy.special import ndtri

from brainlocus.cohort.associate import (
    add_voxelwise,
    finish_voxelwise,
    prepare_voxelwise,
    score_voxels,
    start_voxelwise,
)
from brainlocus.cohort.prepare import normalise, remove_outliers
from tests.reference.naive_voxelwise import naive_voxelwise


def naive_scores(values, mads, rank):
    """Return the scores of one voxel, literally."""
    y = values.astype(np.float64)
    known = ~np.isnan(y)
    if known.any():
        distance = np.abs(y - np.median(y[known]))
        mad = np.median(distance[known])
        if known.sum() > 1 and mad == 0:
            return np.full(y.shape, np.nan)
        if mads is not None and mad > 0:
            y[distance > mads * mad] = np.nan
    if not rank:
        return y
    known = ~np.isnan(y)
    n = known.sum()
    scores = y
    if np.unique(y[known]).size > 10:
        scores = np.full(y.shape, np.nan)
        scores[known] = ndtri((scipy.stats.rankdata(y[known]) - 0.375) / (n + 0.25))
    if n < 2 or scores[known].std() == 0:
        return np.where(known, 0.0, np.nan)
    return (scores - scores[known].mean()) / scores[known].std(ddof=1)


def voxels(n, seed=0):
    """Normal, heavy-tailed, tied, few-level, half-equal, single-valued, empty, negative zero, with missing values."""
    rng = np.random.default_rng(seed)
    many = [
        rng.normal(size=n), rng.standard_t(1.5, size=n), np.round(rng.normal(size=n), 1), rng.integers(0, 4, n),
        np.where(np.arange(n) < n // 2 + 1, 2.0, rng.normal(size=n)), np.where(np.arange(n) == 3, 5.0, np.nan),
        np.full(n, np.nan), np.where(rng.random(n) < 0.1, -0.0, np.where(rng.random(n) < 0.1, 0.0, rng.normal(size=n))),
        np.where(rng.random(n) < 0.3, np.nan, rng.normal(1e6, 1.0, n)), -np.exp(rng.normal(size=n) * 3),
        np.where(np.arange(n) < n // 2, 2.0, rng.normal(size=n)), 1e-40 * rng.normal(size=n),
    ]  # fmt: skip
    return np.array(many, dtype=np.float32)


@pytest.mark.parametrize("n", [12, 13, 100, 501])
@pytest.mark.parametrize("mads", [None, 6.0, 2.5])
@pytest.mark.parametrize("rank", [True, False])
def test_equals_one_voxel_at_a_time(n, mads, rank):
    values = voxels(n, seed=n)
    found = score_voxels(values, mads=mads, rank=rank)
    for row, score, removed in zip(values, found.values, found.n_outliers, strict=True):
        expected = naive_scores(row, mads, rank)
        np.testing.assert_allclose(score, expected, rtol=1e-11, atol=1e-12)
        if not np.isnan(expected).all():
            assert removed == np.isnan(expected).sum() - np.isnan(row).sum()
    assert found.zero_mad[[4, 6]].tolist() == [True, False]


def test_equals_cohort_prepare():
    """The options of the same names in `cohort prepare` do the same to a column."""
    values = voxels(300)[[0, 1, 2, 8, 9]]
    found = score_voxels(values)
    for row, score in zip(values, found.values, strict=True):
        cleaned = remove_outliers(row.astype(np.float64)[:, None], mads=6.0).values[:, 0]
        np.testing.assert_allclose(score, normalise(cleaned, method="rank"), rtol=1e-11, atol=1e-12)


def test_monotone_transforms_change_nothing():
    values = np.random.default_rng(1).normal(size=(3, 200)).astype(np.float32)
    one, two = (score_voxels(v, mads=None).values for v in (values, 3 * values.astype(np.float32) ** 3))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("rank", [True, False])
def test_regression_of_scores_equals_statsmodels(rank):
    """The whole of rank mode: scores of every voxel's own people, then all targets; to 1e-8."""
    n = 120
    rng = np.random.default_rng(3)
    covariates = np.column_stack([rng.normal(60, 8, n), rng.integers(0, 2, n), np.arange(n) < 5])
    targets = rng.normal(size=(n, 3))
    targets[rng.random(n) < 0.2, 1] = np.nan
    values = np.vstack([voxels(n), rng.standard_t(3, size=(20, n)).astype(np.float32)])
    values[15:, rng.random(n) < 0.02] = np.nan
    scores = score_voxels(values, mads=4.0, rank=rank)
    literal = np.array([naive_scores(row, 4.0, rank) for row in values])
    design = prepare_voxelwise(targets, covariates=covariates, min_share=0.01)
    sums = start_voxelwise(design, values.shape[0])
    for part in (slice(0, 50), slice(50, n)):
        add_voxelwise(sums, np.ascontiguousarray(scores.values.T[part]), np.arange(n)[part])
    found = {name: np.full((3, values.shape[0]), np.nan) for name in ("t", "r", "beta", "standard_error")}
    for k, group in enumerate(design.groups):
        maps = finish_voxelwise(sums, k, slice(0, values.shape[0]))
        for name in found:
            found[name][group.members] = getattr(maps, name)
    if not rank:
        # Of a voxel with mean 1e6 and deviation 1 statsmodels loses 3e-8; with an intercept no result sees a shift.
        literal[8] -= 1e6
    expected = naive_voxelwise(literal.T, targets, covariates)
    tested = np.isfinite(found["t"])
    assert tested.sum() > 80
    assert scores.n_outliers[12:].sum() > 10
    for name, value in found.items():
        np.testing.assert_allclose(value[tested], expected[name][tested], rtol=1e-8, atol=1e-9)
