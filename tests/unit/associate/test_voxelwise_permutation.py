"""Largest statistics under permutation against refitted models, and nilearn's permuted_ols."""

import numpy as np
import pytest
import scipy.stats
from scipy import ndimage

from brainlocus.cohort.associate import (
    add_voxelwise,
    enhance_clusters,
    face_neighbours,
    finish_voxelwise,
    largest_cluster,
    permutable_residuals,
    permuted_largest,
    prepare_one_sample,
    prepare_voxelwise,
    start_voxelwise,
)
from brainlocus.numerics import flip_people, permute_people
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
    found = permuted_largest(group, parts, order, neighbours=face_neighbours(mask))
    largest, enhanced = found.abs_t, found.tfce
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
    found = permuted_largest(group, [residuals], order)
    largest = found.abs_t
    assert np.isnan(found.tfce).all()
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


def test_largest_clusters_are_those_of_refitted_models():
    """People change places and signs flip; clusters of the t of models fitted anew, labelled by scipy."""
    values, targets, covariates = cohort()
    group = prepare_voxelwise(targets, covariates=covariates).groups[0]
    residuals, _ = permutable_residuals(group, values)
    rng = np.random.default_rng(1)
    order, signs = permute_people(rng, N, 6), flip_people(rng, N, 6)
    mask = np.ones((4, 3, 2), dtype=bool)
    found = permuted_largest(
        group, [residuals], order, signs=signs, neighbours=face_neighbours(mask), tfce=False, cluster_threshold=0.8
    )
    assert np.isnan(found.tfce).all()
    for b in range(6):
        inverse = np.argsort(order[b])
        for k in range(2):
            t = [
                naive_freedman_lane(targets[:, k], covariates, values[:, v].astype(float), inverse, signs[b][inverse])
                for v in range(V)
            ]
            sizes, masses = [0], [0.0]
            for sign in (1, -1):
                labels, count = ndimage.label(sign * np.reshape(t, mask.shape) > 0.8)
                sizes += [int((labels == c).sum()) for c in range(1, count + 1)]
                masses += [float((np.abs(np.ravel(t)[labels.ravel() == c]) - 0.8).sum()) for c in range(1, count + 1)]
            assert found.abs_t[b, k] == pytest.approx(np.abs(t).max(), rel=1e-5)
            assert found.size[b, k] == max(sizes)
            assert found.mass[b, k] == pytest.approx(max(masses), abs=1e-4)


@pytest.mark.parametrize("k", [0, 2])
def test_flipped_mean_is_that_of_refitted_models(k):
    values, _, covariates = cohort()
    values, covariates = values - np.float32(2.5), covariates[:, :k]
    group = prepare_one_sample(N, covariates=covariates).groups[0]
    residuals, usable = permutable_residuals(group, values)
    assert usable.all()
    signs = flip_people(np.random.default_rng(2), N, 5)
    order = np.tile(np.arange(N), (5, 1))
    found = permuted_largest(group, [residuals], order, signs=signs)
    z = covariates - covariates.mean(axis=0)
    design = np.column_stack([np.ones(N), z])
    for b in range(5):
        t = []
        for v in range(V):
            y = values[:, v].astype(float)
            fit = z @ np.linalg.lstsq(z, y, rcond=None)[0] if k else np.zeros(N)
            flipped = fit + signs[b] * (y - fit)
            beta, residual, _, _ = np.linalg.lstsq(design, flipped, rcond=None)
            t.append(beta[0] / np.sqrt(residual[0] / (N - k - 1) / N))
        assert found.abs_t[b, 0] == pytest.approx(np.abs(t).max(), rel=1e-5)


def test_equal_values_are_not_flipped():
    values = np.column_stack([np.full(N, 2.0), np.arange(N)]).astype(np.float32)
    _, usable = permutable_residuals(prepare_one_sample(N).groups[0], values)
    assert usable.tolist() == [False, True]


def smooth_study(n, effect):
    """Smooth maps of 1,000 voxels, three covariates and a target with a small effect."""
    rng = np.random.default_rng(0)
    covariates, target = rng.normal(size=(n, 3)), rng.normal(size=(n, 1))
    noise = ndimage.gaussian_filter(rng.normal(size=(n, 10, 10, 10)), (0, 1, 1, 1)).reshape(n, -1)
    return noise / noise.std() + covariates @ rng.normal(size=(3, 1000)) + effect * target, target, covariates


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Data array used to create")
def test_null_of_clusters_of_nilearn():
    """Size and mass of the largest cluster, 1,000 permutations each: KS p above 0.01; observed clusters the same."""
    mass = pytest.importorskip("nilearn.mass_univariate")
    import nibabel as nib
    from nilearn.maskers import NiftiMasker

    values, target, covariates = smooth_study(100, 0.2)
    masker = NiftiMasker(mask_img=nib.Nifti1Image(np.ones((10, 10, 10), dtype=np.int8), np.eye(4))).fit()
    theirs = mass.permuted_ols(
        target, values, confounding_vars=covariates, n_perm=1000, two_sided_test=True, random_state=1,
        output_type="dict", verbose=0, threshold=0.01, masker=masker,
    )  # fmt: skip
    threshold = float(scipy.stats.t.isf(0.005, 95))
    group = prepare_voxelwise(target, covariates=covariates).groups[0]
    residuals, _ = permutable_residuals(group, values)
    neighbours = face_neighbours(np.ones((10, 10, 10), dtype=bool))
    parts = [
        permuted_largest(group, [residuals], permute_people(np.random.default_rng(k), 100, 50), neighbours=neighbours,
                         tfce=False, cluster_threshold=threshold)
        for k in range(20)
    ]  # fmt: skip
    for ours, name in (("size", "h0_max_size"), ("mass", "h0_max_mass")):
        null = np.concatenate([getattr(part, ours)[:, 0] for part in parts])
        assert scipy.stats.ks_2samp(null, np.ravel(theirs[name])).pvalue > 0.01
    t = np.ravel(theirs["t"])
    size, total = largest_cluster(t, neighbours, threshold=threshold)
    observed = permuted_largest(group, [residuals], np.arange(100)[None], neighbours=neighbours, tfce=False,
                                cluster_threshold=threshold)  # fmt: skip
    assert observed.size[0, 0] == size == np.max(theirs["size"])
    assert observed.mass[0, 0] == pytest.approx(total, rel=1e-4) == pytest.approx(np.max(theirs["mass"]), rel=1e-4)


@pytest.mark.slow
def test_null_of_the_mean_of_nilearn():
    """One sample, signs flipped, 1,000 each: t the same and KS p above 0.01."""
    mass = pytest.importorskip("nilearn.mass_univariate")
    values, _, _ = smooth_study(60, 0.0)
    values = values + 0.3
    theirs = mass.permuted_ols(
        np.ones((60, 1)), values, model_intercept=False, n_perm=1000, two_sided_test=True, random_state=1,
        output_type="dict", verbose=0,
    )  # fmt: skip
    group = prepare_one_sample(60).groups[0]
    residuals, _ = permutable_residuals(group, values)
    order = np.tile(np.arange(60), (50, 1))
    ours = [
        permuted_largest(group, [residuals], order, signs=flip_people(np.random.default_rng(k), 60, 50)).abs_t[:, 0]
        for k in range(20)
    ]
    assert scipy.stats.ks_2samp(np.concatenate(ours), np.ravel(theirs["h0_max_t"])).pvalue > 0.01
    sums = start_voxelwise(prepare_one_sample(60), 1000)
    add_voxelwise(sums, values, np.arange(60))
    t = finish_voxelwise(sums, 0, slice(0, 1000)).t[0]
    np.testing.assert_allclose(t, np.ravel(theirs["t"]), rtol=1e-6)
    np.testing.assert_allclose(t, scipy.stats.ttest_1samp(values, 0.0).statistic, rtol=1e-8)


@pytest.mark.slow
def test_null_distribution_and_tfce_of_nilearn():
    """200 people, 1,000 smooth voxels, 3 covariates, 1,000 permutations each: KS p above 0.01."""
    mass = pytest.importorskip("nilearn.mass_univariate")
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
        permuted_largest(group, [residuals], permute_people(np.random.default_rng(k), 200, 50)).abs_t[:, 0]
        for k in range(20)
    ]
    found = scipy.stats.ks_2samp(np.concatenate(ours), np.ravel(theirs["h0_max_t"]))
    assert found.pvalue > 0.01
    x = group.residuals[:, 0] / np.sqrt(200)
    r = x @ residuals.astype(float)
    t = r * np.sqrt(195 / (1 - r**2))
    np.testing.assert_allclose(t, np.ravel(theirs["t"]), rtol=1e-4, atol=1e-4)
    assert enhance_clusters(t, face_neighbours(np.ones((10, 10, 10), dtype=bool))).max() > 0
