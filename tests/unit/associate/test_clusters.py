"""Clusters of maps against scipy's labels and nilearn's measures."""

import numpy as np
import pytest
from scipy import ndimage

from brainlocus.cohort.associate import face_neighbours, find_clusters, largest_cluster


def maps(seed):
    rng = np.random.default_rng(seed)
    volume = ndimage.gaussian_filter(rng.normal(size=(15, 12, 10)), 0.3 + 0.3 * seed)
    mask = ndimage.gaussian_filter(rng.normal(size=volume.shape), 1) > -0.1
    return np.where(mask, 3.0 * volume / volume.std(), 0.0), mask


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [1.5, 3.1])
def test_equals_labels_of_scipy(seed, threshold):
    volume, mask = maps(seed)
    found = find_clusters(volume[mask], face_neighbours(mask), threshold=threshold)
    expected = []
    for sign in (1, -1):
        labels, count = ndimage.label(sign * volume > threshold)
        for k in range(1, count + 1):
            inside = labels == k
            values = np.abs(volume[inside])
            peak = int(np.argmax(np.where(inside, np.abs(volume), 0)[mask]))
            expected.append((sign, int(inside.sum()), (values - threshold).sum(), peak))
            assert np.unique(found.label[inside[mask]]).size == 1
    assert (found.label >= 0).sum() == (np.abs(volume) > threshold).sum()
    ours = sorted(zip(found.sign.tolist(), found.size.tolist(), found.mass.tolist(), found.peak.tolist(), strict=True))
    assert [row[:2] + row[3:] for row in ours] == [row[:2] + row[3:] for row in sorted(expected)]
    np.testing.assert_allclose([row[2] for row in ours], [row[2] for row in sorted(expected)], rtol=1e-12)
    assert (np.diff(found.mass) <= 0).all()
    assert largest_cluster(volume[mask], face_neighbours(mask), threshold=threshold) == (
        found.size.max(), found.mass.max(),
    )  # fmt: skip


def test_equals_nilearn():
    nilearn = pytest.importorskip("nilearn.mass_univariate._utils")
    volume, _ = maps(2)
    neighbours = face_neighbours(np.ones(volume.shape, dtype=bool))
    for threshold in (1.0, 2.5):
        size, mass = nilearn.calculate_cluster_measures(
            volume[..., None], threshold, ndimage.generate_binary_structure(3, 1), two_sided_test=True
        )
        found = largest_cluster(volume.ravel(), neighbours, threshold=threshold)
        assert found[0] == size[0]
        assert found[1] == pytest.approx(mass[0], rel=1e-12)


def test_no_cluster_and_missing_values():
    neighbours = face_neighbours(np.ones((3, 2, 2), dtype=bool))
    assert largest_cluster(np.full(12, 2.0), neighbours, threshold=2.0) == (0, 0.0)
    assert find_clusters(np.full(12, np.nan), neighbours, threshold=1.0).size.size == 0
    apart = find_clusters(np.where(np.arange(12) < 4, 5.0, np.where(np.arange(12) < 8, np.nan, 5.0)), neighbours,
                          threshold=1.0)  # fmt: skip
    assert apart.size.tolist() == [4, 4]
    assert set(apart.label[4:8]) == {-1}
