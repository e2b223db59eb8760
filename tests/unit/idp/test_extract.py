"""Parcel values against loops, and the published atlas's identity of sums."""

import numpy as np
import pytest

from brainlocus.core import AlignmentError, Parcellation, Volume
from brainlocus.images.idp import extract_idps, extract_volume, prepare_extraction
from brainlocus.io import read_parcellation
from tests.real_data import real_data

AFFINE = np.diag([2.0, 2, 3, 1])
NAMES = {k: f"C5_{k}" for k in range(1, 6)}


@pytest.fixture
def parcels():
    labels = np.random.default_rng(0).integers(0, 6, (6, 7, 8))
    labels[labels == 4] = 0
    return Parcellation(labels, AFFINE, NAMES)


@pytest.mark.parametrize("statistic", ["sum", "mean", "median"])
def test_against_loops(parcels, statistic):
    data = np.random.default_rng(1).uniform(size=parcels.labels.shape)
    data[0, 0, :] = np.nan
    index = prepare_extraction(parcels)
    found = extract_volume(index, Volume(data, AFFINE, "gm"), what="map", statistic=statistic, scale=1000.0)
    assert index.names == ("C5_1", "C5_2", "C5_3", "C5_5")
    assert index.vanished == ("C5_4",)
    for column, label in enumerate((1, 2, 3, 5)):
        inside = data[parcels.labels == label]
        inside = inside[~np.isnan(inside)]
        expected = {"sum": inside.sum() * 12.0, "mean": inside.mean(), "median": np.median(inside)}[statistic]
        assert found.values[0, column] == pytest.approx(expected / 1000.0, rel=1e-12)
    assert found.n_missing.tolist() == [int(np.isnan(data[parcels.labels > 0]).sum())]


def test_many_images_equal_one_by_one(parcels):
    index = prepare_extraction(parcels)
    images = np.random.default_rng(2).uniform(size=(9, index.voxels.size)).astype(np.float32)
    together = extract_idps(index, images)
    apart = [extract_idps(index, images[k : k + 1]).values[0] for k in range(9)]
    np.testing.assert_array_equal(together.values, apart)


def test_parcel_of_missing_voxels(parcels):
    data = np.ones(parcels.labels.shape)
    data[parcels.labels == 2] = np.nan
    index = prepare_extraction(parcels)
    volume = Volume(data, AFFINE, "gm")
    assert extract_volume(index, volume, what="map").values[0, 1] == 0
    for statistic in ("mean", "median"):
        assert np.isnan(extract_volume(index, volume, what="map", statistic=statistic).values[0, 1])


def test_flipped_axes_with_their_affine_change_nothing(parcels):
    data = np.random.default_rng(3).uniform(size=parcels.labels.shape)
    flipped_affine = AFFINE @ np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    flipped = Parcellation(parcels.labels[::-1], flipped_affine, NAMES)
    here = extract_volume(prepare_extraction(parcels), Volume(data, AFFINE, ""), what="a").values
    there = extract_volume(prepare_extraction(flipped), Volume(data[::-1].copy(), flipped_affine, ""), what="b").values
    np.testing.assert_allclose(here, there, rtol=1e-12)


def test_other_grid_and_empty_parcellation(parcels):
    index = prepare_extraction(parcels)
    with pytest.raises(AlignmentError, match=r"sub-1\.nii has shape \(2, 2, 2\)"):
        extract_volume(index, Volume(np.ones((2, 2, 2)), AFFINE, ""), what="sub-1.nii")
    with pytest.raises(ValueError, match="no labelled voxel"):
        prepare_extraction(Parcellation(np.zeros((2, 2, 2), dtype=np.int8), AFFINE))


def test_published_scales_have_equal_sums():
    """All six MuSIC scales cover the same 84,090 voxels, so their parcels add up to the same volume."""
    totals, counts = [], []
    values = np.random.default_rng(4).uniform(size=(91, 109, 91)).astype(np.float32)
    for scale in (32, 64, 128, 256, 512, 1024):
        parcels = read_parcellation(real_data(f"structural/music_atlas/MuSIC_C{scale}.nii.gz"))
        index = prepare_extraction(parcels)
        assert index.voxels.size == 84_090
        totals.append(extract_volume(index, Volume(values, parcels.affine, ""), what="map").values.sum())
        counts.append(index.n_parcels)
    np.testing.assert_allclose(totals, totals[0], rtol=1e-12)
    assert counts == [32, 64, 128, 256, 512, 1011]
    assert sum(counts) == 2003
