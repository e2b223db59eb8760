"""Transforms as ANTs and FMRIB's fslpy apply them; the files and numbers are from ``make_golden.py``."""

from pathlib import Path

import numpy as np
import pytest

from brainlocus.core import Mask, Volume
from brainlocus.io import read_volume
from brainlocus.io.transforms import read_grid, read_transform
from brainlocus.numerics.resample import map_points, resample_map

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def golden():
    with np.load(HERE / "golden.npz") as file:
        return dict(file)


def chain(*names, **options):
    return tuple(t for name in names for t in read_transform(HERE / name, **options))


@pytest.mark.parametrize(
    ("name", "key"),
    [("ants0GenericAffine.mat", "ants_affine"), ("ants_affine.txt", "ants_affine"), ("euler.mat", "euler")],
)
def test_affine_of_ants(golden, name, key):
    found = map_points(golden["points"].T, read_transform(HERE / name)).T
    np.testing.assert_allclose(found, golden[key], atol=2e-5)  # ANTs keeps its points in single precision


def test_affine_of_ants_the_other_way(golden):
    found = map_points(golden["ants_affine"].T, read_transform(HERE / "ants0GenericAffine.mat", invert=True)).T
    np.testing.assert_allclose(found, golden["points"], atol=2e-5)


def test_warp_of_ants(golden):
    found = map_points(golden["points"].T, chain("ants1Warp.nii.gz", "ants0GenericAffine.mat")).T
    np.testing.assert_allclose(found, golden["ants_warp"], atol=2e-5)


def _agree(found: Volume, expected, *, share):
    """Compare where ANTs' result is inside the moving image: beyond it ANTs has 0 and ours NaN."""
    known = np.isfinite(found.data) & (expected != 0)
    assert known.mean() > share
    np.testing.assert_allclose(found.data[known], expected[known], atol=5e-5)


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("ants0GenericAffine.mat",), "resampled_affine"),
        (("ants1Warp.nii.gz", "ants0GenericAffine.mat"), "resampled_warp"),
    ],
)
def test_resampled_as_by_ants(golden, names, key):
    moving = read_volume(HERE / "moving.nii.gz")
    found = resample_map(moving, read_grid(HERE / "fixed.nii.gz"), chain(*names))
    _agree(found, golden[key], share=0.8)


def test_composite_of_ants(golden):
    pytest.importorskip("h5py", reason="h5py is not installed: pip install 'brainlocus[imaging]'")
    moving = read_volume(HERE / "moving.nii.gz")
    found = resample_map(moving, read_grid(HERE / "fixed.nii.gz"), chain("ants_composite.h5"))
    _agree(found, golden["resampled_composite"], share=0.8)


def grids(reference="fixed.nii.gz"):
    return {"source": read_grid(HERE / "moving.nii.gz"), "reference": read_grid(HERE / reference)}


def test_flirt_as_fslpy(golden):
    found = map_points(golden["points"].T, read_transform(HERE / "flirt.mat", **grids())).T
    np.testing.assert_allclose(found, golden["flirt"], atol=1e-6)


@pytest.mark.parametrize("kind", ["relative", "absolute"])
@pytest.mark.parametrize(("name", "reference"), [("fnirt", "fixed.nii.gz"), ("fnirt_flipped", "fixed_flipped.nii.gz")])
def test_fnirt_fields_as_fslpy(golden, name, reference, kind):
    field = read_transform(HERE / f"{name}_{kind}_warp.nii.gz", **grids(reference))
    found = map_points(golden[f"{name}_{kind}_points"].T.copy(), field).T
    np.testing.assert_allclose(found, golden[f"{name}_{kind}"], atol=2e-5)  # the files are single precision


def test_a_fsl_field_says_nothing_beyond_its_grid():
    field = read_transform(HERE / "fnirt_relative_warp.nii.gz", **grids())
    assert np.isnan(map_points(np.full((3, 1), 500.0), field)).all()


def test_an_itk_field_leaves_points_beyond_its_grid_where_they_are():
    far = np.full((3, 1), 500.0)
    np.testing.assert_array_equal(map_points(far, chain("ants1Warp.nii.gz")), far)


def test_masked_voxels_do_not_enter():
    moving = read_volume(HERE / "moving.nii.gz")
    inside = Mask(moving.data > 0.5, moving.affine)
    spoilt = Volume(np.where(inside.data, moving.data, np.float32(1e6)), moving.affine, "")
    grid, transforms = read_grid(HERE / "fixed.nii.gz"), chain("ants0GenericAffine.mat")
    found = resample_map(spoilt, grid, transforms, inside=inside)
    known = np.isfinite(found.data)
    assert 0.02 < known.mean() < 0.9
    assert found.data[known].max() <= moving.data.max() + 1e-5
