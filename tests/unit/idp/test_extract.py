"""Parcel values against loops, and the published atlas's identity of sums."""

import numpy as np
import pytest

from brainlocus.core import AlignmentError, Mask, Parcellation, Volume
from brainlocus.images.idp import (
    extract_idps,
    extract_loadings,
    extract_volume,
    prepare_extraction,
    prepare_loadings,
)
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


@pytest.mark.parametrize("statistic", ["sum", "mean", "median"])
def test_order_in_memory_changes_nothing(parcels, statistic):
    """Images are read in Fortran order and made in C order."""
    data = np.random.default_rng(5).uniform(size=parcels.labels.shape).astype(np.float32)
    index = prepare_extraction(parcels)
    found = [
        extract_volume(index, Volume(d, AFFINE, ""), what="map", statistic=statistic).values
        for d in (data, np.asfortranarray(data), np.repeat(data, 2, axis=0)[::2])
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def components(parcels, seed=6):
    """Soft weights of a mask, one column without any, and the voxels that the mask has."""
    mask = Mask(parcels.labels > 0, AFFINE)
    rng = np.random.default_rng(seed)
    weights = rng.uniform(size=(int(mask.data.sum()), 4)) * (rng.uniform(size=(int(mask.data.sum()), 4)) < 0.3)
    weights[:, 2] = 0.0
    return mask, weights.astype(np.float32)


def test_loadings_against_loops(parcels):
    mask, weights = components(parcels)
    data = np.random.default_rng(7).uniform(size=parcels.labels.shape)
    data[1, 2] = np.nan
    index = prepare_loadings(weights, mask, ("a", "b", "c", "d"))
    assert (index.names, index.vanished) == (("a", "b", "d"), ("c",))
    x = data[mask.data]
    for layout in (np.ascontiguousarray(data), np.asfortranarray(data)):
        found = extract_loadings(index, Volume(layout, AFFINE, ""), what="map", scale=1000.0)
        for column, k in enumerate((0, 1, 3)):
            top = bottom = 0.0
            for value, weight in zip(x, weights[:, k].astype(float), strict=True):
                if not np.isnan(value):
                    top, bottom = top + weight * value, bottom + weight
            assert found.values[0, column] == pytest.approx(top / bottom / 1000.0, rel=1e-12)
        assert found.n_missing.tolist() == [int((np.isnan(x) & (weights > 0).any(axis=1)).sum())]


def test_loading_of_equal_weights_is_the_mean(parcels):
    mask = Mask(parcels.labels > 0, AFFINE)
    at = parcels.labels[mask.data]
    weights = (at[:, None] == np.array([1, 2, 3, 5])).astype(np.float32) * 0.3
    volume = Volume(np.random.default_rng(8).uniform(size=parcels.labels.shape), AFFINE, "")
    found = extract_loadings(prepare_loadings(weights, mask, "abcd"), volume, what="map")
    means = extract_volume(prepare_extraction(parcels), volume, what="map", statistic="mean")
    np.testing.assert_allclose(found.values, means.values, rtol=1e-12)


def test_floor_of_multiplicative_updates_is_no_weight(parcels, monkeypatch):
    from brainlocus.images.idp import extract

    mask, weights = components(parcels)
    index = prepare_loadings(weights, mask, "abcd")
    monkeypatch.setattr(extract, "_BLOCK_BYTES", 900)  # several blocks
    floored = prepare_loadings(np.maximum(weights[:, [0, 1, 3]], np.float32(1e-16)), mask, "abd")
    assert floored.weights.nnz == index.weights.nnz
    np.testing.assert_allclose(floored.weights.toarray(), index.weights.toarray(), rtol=1e-12)
    some = prepare_loadings(weights, mask, "abcd", alive=np.array([True, False, True, True]))
    assert (some.names, some.vanished) == (("a", "d"), ("b", "c"))


def test_loadings_of_bad_input(parcels):
    mask, weights = components(parcels)
    with pytest.raises(AlignmentError, match="the components 5; use the mask of the fit"):
        prepare_loadings(weights[:5], mask, "abcd")
    with pytest.raises(ValueError, match="name for each of 4 components, found 3"):
        prepare_loadings(weights, mask, "abc")
    with pytest.raises(ValueError, match="No component has a weight"):
        prepare_loadings(0 * weights, mask, "abcd")
    index = prepare_loadings(weights, mask, "abcd")
    nothing = Volume(np.full(parcels.labels.shape, np.nan), AFFINE, "")
    assert np.isnan(extract_loadings(index, nothing, what="map").values).all()
    with pytest.raises(AlignmentError, match=r"sub-1\.nii has shape"):
        extract_loadings(index, Volume(np.ones((2, 2, 2)), AFFINE, ""), what="sub-1.nii")


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
