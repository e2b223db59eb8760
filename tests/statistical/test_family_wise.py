"""Family-wise error of permuted maps: studies without any effect, two sites of unequal variance, families, clusters."""

import numpy as np
import pytest
from scipy import ndimage

from brainlocus.cohort.associate import (
    face_neighbours,
    permutable_residuals,
    permuted_largest,
    prepare_one_sample,
    prepare_voxelwise,
)
from brainlocus.numerics import family_wise_p, flip_people, permute_people

pytestmark = pytest.mark.slow

STUDIES, PEOPLE, VOXELS, B = 400, 40, 60, 99


def test_one_study_in_twenty_has_a_voxel_below_five_per_cent():
    found = 0
    for study in range(STUDIES):
        rng = np.random.default_rng(study)
        site = np.repeat([0, 1], PEOPLE // 2)
        covariates = np.column_stack([rng.normal(size=PEOPLE), site])
        x = rng.normal(size=(PEOPLE, 1)) * (1 + 2 * site[:, None]) + covariates[:, :1]
        values = rng.standard_t(5, size=(PEOPLE, VOXELS)) * (1 + 2 * site[:, None]) + 2 * covariates[:, :1]
        group = prepare_voxelwise(x, covariates=covariates).groups[0]
        residuals, _ = permutable_residuals(group, values)
        order = permute_people(rng, PEOPLE, B, blocks=site)
        null = permuted_largest(group, [residuals], order).abs_t
        observed = permuted_largest(group, [residuals], np.arange(PEOPLE)[None]).abs_t
        found += family_wise_p(observed[:, 0], null[:, 0])[0] <= 0.05
    error = np.sqrt(0.05 * 0.95 / STUDIES)
    assert abs(found / STUDIES - 0.05) < 3 * error, found


@pytest.mark.parametrize(("mode", "holds"), [("whole", True), ("within", False)])
def test_families_that_flip_as_wholes(mode, holds):
    """Pairs of relatives, variance unlike between pairs: 5 % when a pair flips together, more when each flips alone."""
    found = 0
    family = np.repeat(np.arange(PEOPLE // 2), 2)
    order = np.tile(np.arange(PEOPLE), (B, 1))
    for study in range(STUDIES):
        rng = np.random.default_rng(study)
        shared = rng.standard_t(6, size=(PEOPLE // 2, VOXELS)) * rng.uniform(0.5, 2.0, (PEOPLE // 2, 1))
        values = shared[family] + 0.6 * rng.normal(size=(PEOPLE, VOXELS))
        group = prepare_one_sample(PEOPLE).groups[0]
        residuals, _ = permutable_residuals(group, values)
        signs = flip_people(rng, PEOPLE, B, blocks=family, mode=mode)
        null = permuted_largest(group, [residuals], order, signs=signs).abs_t
        observed = permuted_largest(group, [residuals], order[:1], signs=np.ones((1, PEOPLE), np.float32)).abs_t
        found += family_wise_p(observed[:, 0], null[:, 0])[0] <= 0.05
    error = np.sqrt(0.05 * 0.95 / STUDIES)
    assert (abs(found / STUDIES - 0.05) < 3 * error) == holds, found


def test_masses_of_clusters():
    """One study in twenty has a cluster of smooth noise below 5 %."""
    found, shape = 0, (9, 9, 9)
    neighbours = face_neighbours(np.ones(shape, dtype=bool))
    for study in range(STUDIES):
        rng = np.random.default_rng(study)
        noise = ndimage.gaussian_filter(rng.normal(size=(24, *shape)), (0, 1, 1, 1)).reshape(24, -1)
        group = prepare_voxelwise(rng.normal(size=(24, 1)), covariates=rng.normal(size=(24, 1))).groups[0]
        residuals, _ = permutable_residuals(group, noise / noise.std())
        settings = {"neighbours": neighbours, "tfce": False, "cluster_threshold": 2.0}
        null = permuted_largest(group, [residuals], permute_people(rng, 24, B), **settings)
        observed = permuted_largest(group, [residuals], np.arange(24)[None], **settings)
        found += family_wise_p(observed.mass[:, 0], null.mass[:, 0])[0] <= 0.05
    error = np.sqrt(0.05 * 0.95 / STUDIES)
    assert abs(found / STUDIES - 0.05) < 3 * error, found
