"""Referencing to a region, cleaning of ventricle masks, and the automatic rule."""

import numpy as np
import pytest

from brainlocus.images.qsm.referencing import clean_csf, find_csf, in_plane, reference


def everywhere(shape=(10, 10, 10)):
    return np.ones(shape, dtype=bool)


def test_mean_of_the_region_becomes_zero_and_outside_stays_zero():
    rng = np.random.default_rng(0)
    chi = rng.normal(size=(10, 10, 10)).astype(np.float32)
    region = np.zeros(chi.shape, dtype=bool)
    region[2:8, 2:8, 2:8] = True
    valid = everywhere()
    valid[:3] = False
    result = reference(chi, region, valid, voxel_volume_mm3=8.0)
    assert result.n_voxels == 5 * 6 * 6
    assert result.chi_ppm[region & valid].mean() == pytest.approx(0, abs=1e-6)
    assert (result.chi_ppm[~valid] == 0).all()
    assert result.value_ppm == pytest.approx(chi[region & valid].mean(), abs=1e-6)
    median = reference(chi, region, valid, voxel_volume_mm3=8.0, statistic="median")
    assert np.median(median.chi_ppm[region & valid]) == pytest.approx(0, abs=1e-6)


def test_adding_a_constant_changes_nothing():
    chi = np.random.default_rng(1).normal(size=(8, 8, 8)).astype(np.float32)
    region = np.zeros(chi.shape, dtype=bool)
    region[2:6, 2:6, 2:6] = True
    first = reference(chi, region, everywhere(chi.shape), voxel_volume_mm3=8.0)
    second = reference(chi + np.float32(3), region, everywhere(chi.shape), voxel_volume_mm3=8.0)
    np.testing.assert_allclose(first.chi_ppm, second.chi_ppm, atol=1e-5)


@pytest.mark.parametrize(("voxels", "volume"), [(49, 100.0), (60, 1.0), (0, 8.0)])
def test_a_region_too_small_gives_nan_and_a_status(voxels, volume):
    chi = np.zeros((10, 10, 10), dtype=np.float32)
    region = np.zeros(chi.size, dtype=bool)
    region[:voxels] = True
    result = reference(chi, region.reshape(chi.shape), everywhere(), voxel_volume_mm3=volume)
    assert result.status == "region too small"
    assert np.isnan(result.value_ppm)
    assert np.isnan(result.chi_ppm).all()


def test_plane_of_erosion_lies_across_the_thick_axis():
    assert in_plane((3.0, 0.8, 0.8))[1].sum() == 9
    assert in_plane((1.0, 1.0, 1.0))[:, :, 1].sum() == 9


def test_ventricles_lose_their_rim_plexus_and_fast_voxels():
    ventricles = np.zeros((10, 10, 3), dtype=bool)
    ventricles[2:8, 2:8] = True
    r2star = np.full(ventricles.shape, 4.0)
    r2star[4, 4] = 40.0
    r2star[5, 5, 0] = np.nan
    plexus = np.zeros_like(ventricles)
    plexus[3, 3] = True
    fluid = clean_csf(ventricles, (0.8, 0.8, 3.0), r2star, plexus)
    assert fluid.sum() == 3 * 16 - 3 - 3 - 1
    assert not fluid[2].any()


def test_automatic_rule_finds_the_fluid_at_the_centre_only():
    shape, size = (80, 80, 27), (2.0, 2.0, 6.0)
    where = np.stack(
        np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, size, strict=True)], indexing="ij")
    )
    radius = np.sqrt((where**2).sum(axis=0))
    mask = radius < 70
    ventricle = ((where[0] / 8) ** 2 + (where[1] / 20) ** 2 + (where[2] / 20) ** 2) < 1
    r2star = np.where(ventricle | (radius > 60), 4.0, 18.0) + np.random.default_rng(2).normal(scale=1.5, size=shape)
    found = find_csf(r2star, mask, size)
    assert found.sum() > 0.3 * ventricle.sum()
    assert (found & ventricle).sum() == found.sum()


def test_automatic_rule_finds_nothing_where_there_is_none():
    mask = everywhere((30, 30, 30))
    assert not find_csf(np.full(mask.shape, 18.0), mask, (2.0, 2.0, 2.0)).any()
    assert not find_csf(np.full(mask.shape, np.nan), mask, (2.0, 2.0, 2.0)).any()
    assert not find_csf(np.full(mask.shape, 4.0), ~mask, (2.0, 2.0, 2.0)).any()
