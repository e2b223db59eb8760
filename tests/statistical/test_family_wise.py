"""Family-wise error of permuted maps: studies without any effect, two sites of unequal variance."""

import numpy as np
import pytest

from brainlocus.cohort.associate import permutable_residuals, permuted_largest, prepare_voxelwise
from brainlocus.numerics import family_wise_p, permute_people

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
