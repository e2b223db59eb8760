"""Threshold-free cluster enhancement against labelling height by height, and nilearn's."""

import numpy as np
import pytest
from scipy import ndimage

from brainlocus.cohort.associate.tfce import enhance_clusters, face_neighbours
from tests.reference.naive_permutation import naive_tfce


@pytest.mark.parametrize("seed", range(4))
def test_equals_labelling_every_height(seed):
    rng = np.random.default_rng(seed)
    volume = ndimage.gaussian_filter(rng.normal(size=(13, 11, 9)), seed * 0.6) * 3
    mask = ndimage.gaussian_filter(rng.normal(size=volume.shape), 1) > -0.1
    volume[~mask] = 0
    found = enhance_clusters(volume[mask], face_neighbours(mask))
    np.testing.assert_allclose(found, naive_tfce(volume)[mask], rtol=1e-10, atol=1e-10)


def test_equals_nilearn():
    nilearn = pytest.importorskip("nilearn.mass_univariate._utils")
    rng = np.random.default_rng(5)
    volume = ndimage.gaussian_filter(rng.normal(size=(12, 12, 12)), 1.0) * 8
    expected = nilearn.calculate_tfce(volume[..., None], ndimage.generate_binary_structure(3, 1)).ravel()
    found = enhance_clusters(volume.ravel(), face_neighbours(np.ones(volume.shape, dtype=bool)))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_nothing_is_nothing_and_missing_is_nothing():
    neighbours = face_neighbours(np.ones((3, 2, 2), dtype=bool))
    assert (enhance_clusters(np.zeros(12), neighbours) == 0).all()
    values = np.where(np.arange(12) == 4, np.nan, 1.0)
    found = enhance_clusters(values, neighbours)
    assert found[4] == 0
    assert np.isfinite(found).all()
