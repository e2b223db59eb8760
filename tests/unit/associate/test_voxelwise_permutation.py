"""Largest statistics under permutation against refitted models, and nilearn's permuted_ols."""

import numpy as np
import pytest
import scipy.stats

from brainlocus.cohort.associate import (
    enhance_clusters,
    face_neighbours,
    permutable_residuals,
    permuted_largest,
    prepare_voxelwise,
)
from brainlocus.numerics import permute_people
from tests.reference.naive_permutation import naive_freedman_lane, naive_tfce

N, V = 36, 24


def cohort(seed=0):
    rng = np.random.default_rng(seed)
    covariates, targets = rng.normal(size=(N, 2)), rng.normal(size=(N, 2))
    values = 3.0 + covariates @ rng.normal(size=(2, V)) + rng.normal(size=(N, V))
    return values.astype(np.float32), targets, covariates


def test_largest_t_and_tfce_are_those_of_refitted_models():
    values, targets, covariates = cohort()
    group = prepare_voxelwise(targets, covariates=covariates).groups[0]
    residuals, usable = permutable_residuals(group, values)
    assert usable.all()
    order = permute_people(np.random.default_rng(1), N, 4)
    mask = np.ones((4, 3, 2), dtype=bool)
    parts = (residuals[:, :10], residuals[:, 10:])
    largest, enhanced = permuted_largest(group, parts, order, neighbours=face_neighbours(mask))
    for b in range(4):
        inverse = np.argsort(order[b])
        for k in range(2):
            t = [naive_freedman_lane(targets[:, k], covariates, values[:, v].astype(float), inverse) for v in range(V)]
            assert largest[b, k] == pytest.approx(np.abs(t).max(), rel=1e-5)
            assert enhanced[b, k] == pytest.approx(np.abs(naive_tfce(np.reshape(t, mask.shape))).max(), rel=1e-4)


def test_only_some_people_of_the_study():
    values, targets, covariates = cohort()
    targets[:5, 0] = np.nan
    targets = targets[:, :1]
    group = prepare_voxelwise(targets, covariates=covariates).groups[0]
    residuals, _ = permutable_residuals(group, values[5:])
    order = permute_people(np.random.default_rng(1), N - 5, 3)
    largest, enhanced = permuted_largest(group, [residuals], order)
    assert np.isnan(enhanced).all()
    for b in range(3):
        inverse = np.argsort(order[b])
        t = [
            naive_freedman_lane(targets[5:, 0], covariates[5:], values[5:, v].astype(float), inverse) for v in range(V)
        ]
        assert largest[b, 0] == pytest.approx(np.abs(t).max(), rel=1e-5)


def test_voxels_with_missing_values_or_without_variance_are_left_out():
    values, targets, covariates = cohort()
    values[3, 2] = np.nan
    values[:, 4] = 0.1
    values[:, 6] = 1.0 + covariates[:, 0]
    group = prepare_voxelwise(targets, covariates=covariates.astype(np.float32)).groups[0]
    residuals, usable = permutable_residuals(group, values)
    assert np.flatnonzero(~usable).tolist() == [2, 4, 6]
    assert (residuals[:, ~usable] == 0).all()
    np.testing.assert_allclose((residuals[:, usable].astype(float) ** 2).sum(axis=0), 1, rtol=1e-6)


@pytest.mark.slow
def test_null_distribution_and_tfce_of_nilearn():
    """200 people, 1,000 smooth voxels, 3 covariates, 1,000 permutations each: KS p above 0.01."""
    mass = pytest.importorskip("nilearn.mass_univariate")
    from scipy import ndimage

    rng = np.random.default_rng(0)
    covariates, target = rng.normal(size=(200, 3)), rng.normal(size=(200, 1))
    noise = ndimage.gaussian_filter(rng.normal(size=(200, 10, 10, 10)), (0, 1, 1, 1)).reshape(200, -1)
    values = noise / noise.std() + covariates @ rng.normal(size=(3, 1000)) + 0.2 * target
    theirs = mass.permuted_ols(
        target, values, confounding_vars=covariates, n_perm=1000, two_sided_test=True, random_state=1,
        output_type="dict", verbose=0,
    )  # fmt: skip
    group = prepare_voxelwise(target, covariates=covariates).groups[0]
    residuals, _ = permutable_residuals(group, values)
    ours = [
        permuted_largest(group, [residuals], permute_people(np.random.default_rng(k), 200, 50))[0][:, 0]
        for k in range(20)
    ]
    found = scipy.stats.ks_2samp(np.concatenate(ours), np.ravel(theirs["h0_max_t"]))
    assert found.pvalue > 0.01
    x = group.residuals[:, 0] / np.sqrt(200)
    r = x @ residuals.astype(float)
    t = r * np.sqrt(195 / (1 - r**2))
    np.testing.assert_allclose(t, np.ravel(theirs["t"]), rtol=1e-4, atol=1e-4)
    assert enhance_clusters(t, face_neighbours(np.ones((10, 10, 10), dtype=bool))).max() > 0
