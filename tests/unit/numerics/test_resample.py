"""Resampling against loops, NaN and masks at the rim, labels never mixed."""

import numpy as np
import pytest

from brainlocus.core import AlignmentError, FormatError, Grid, Mask, Parcellation, Volume
from brainlocus.core.transforms import AffineTransform, DisplacementField, inverted
from brainlocus.numerics import resample
from brainlocus.numerics.resample import map_points, resample_labels, resample_map, resample_mask

AFFINE = np.array([[0.0, -1.5, 0, 20], [2.0, 0, 0, -15], [0, 0, 3.0, -10], [0, 0, 0, 1]])
SHAPE = (12, 11, 9)


def turned(degrees=20.0, shift=(1.0, -2.0, 0.5)):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.array([[c, -s, 0, shift[0]], [s, c, 0, shift[1]], [0, 0, 1, shift[2]], [0, 0, 0, 1.0]])
    return AffineTransform(matrix)


def naive_linear(volume, grid, points_of):
    """Interpolate voxel by voxel from the eight neighbours that have a value."""
    result = np.full(grid.shape, np.nan)
    to_voxel = np.linalg.inv(volume.affine)
    for voxel in np.ndindex(grid.shape):
        world = grid.affine[:3, :3] @ voxel + grid.affine[:3, 3]
        at = to_voxel[:3, :3] @ points_of(world) + to_voxel[:3, 3]
        low = np.floor(at).astype(int)
        total = weight = 0.0
        for corner in np.ndindex(2, 2, 2):
            index = low + corner
            share = np.prod(1 - np.abs(at - index))
            inside = (index >= 0).all() and (index < volume.data.shape).all()
            if inside and np.isfinite(volume.data[tuple(index)]):
                total += share * volume.data[tuple(index)]
                weight += share
        if weight >= 0.5:
            result[voxel] = total / weight
    return result


def test_linear_is_that_of_loops(monkeypatch):
    monkeypatch.setattr(resample, "_POINTS_AT_ONCE", 200)
    rng = np.random.default_rng(0)
    data = rng.normal(size=SHAPE).astype(np.float32)
    data[rng.uniform(size=SHAPE) < 0.1] = np.nan
    volume = Volume(data, AFFINE, "chi", "ppm")
    grid = Grid((7, 8, 9), np.array([[2.0, 0, 0, -3], [0, 2.2, 0, -8], [0, 0, 2.5, -9], [0, 0, 0, 1]]))
    move = turned()
    found = resample_map(volume, grid, (move,))
    expected = naive_linear(volume, grid, lambda w: move.matrix[:3, :3] @ w + move.matrix[:3, 3])
    np.testing.assert_array_equal(np.isnan(found.data), np.isnan(expected))
    known = np.isfinite(expected)
    assert 0.2 < known.mean() < 0.95
    np.testing.assert_allclose(found.data[known], expected[known], atol=2e-6)
    assert (found.quantity, found.unit, found.data.dtype) == ("chi", "ppm", np.float32)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_own_grid_is_the_identity(order):
    data = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    volume = Volume(data, AFFINE, "chi")
    np.testing.assert_allclose(resample_map(volume, volume.grid, order=order).data, data, atol=2e-6)


def test_slabs_change_nothing(monkeypatch):
    volume = Volume(np.random.default_rng(1).normal(size=SHAPE).astype(np.float32), AFFINE, "chi")
    whole = resample_map(volume, volume.grid, (turned(),), order=3)
    monkeypatch.setattr(resample, "_POINTS_AT_ONCE", 1)
    np.testing.assert_array_equal(resample_map(volume, volume.grid, (turned(),), order=3).data, whole.data)


def test_cubic_of_a_smooth_map_is_nearer_than_linear():
    index = np.indices(SHAPE)
    data = np.sin(index[0] / 2.0) + np.cos(index[1] / 2.0) + index[2] / 5.0
    volume = Volume(data.astype(np.float32), np.eye(4), "chi")
    grid = Grid((9, 8, 6), np.array([[1.0, 0, 0, 1.4], [0, 1, 0, 1.3], [0, 0, 1, 1.5], [0, 0, 0, 1]]))
    x, y, z = np.indices(grid.shape) + np.array([1.4, 1.3, 1.5])[:, None, None, None]
    truth = np.sin(x / 2.0) + np.cos(y / 2.0) + z / 5.0
    middle = (slice(2, -2),) * 3  # at the rim a spline knows less
    errors = [np.abs(resample_map(volume, grid, order=order).data - truth)[middle].max() for order in (1, 3)]
    assert errors[1] < errors[0] / 5


def test_missing_voxels_are_not_zero():
    data = np.ones(SHAPE, dtype=np.float32)
    data[:6] = np.nan
    volume = Volume(data, np.eye(4), "chi")
    grid = Grid(SHAPE, np.array([[1.0, 0, 0, 0.4], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    found = resample_map(volume, grid).data
    assert np.isnan(found[:5]).all()
    assert set(np.unique(found[6:-1])) == {np.float32(1.0)}
    assert (resample_map(volume, grid, fill=-5.0).data[:5] == -5.0).all()
    zeros = Volume(np.where(np.isnan(data), 0, data).astype(np.float32), np.eye(4), "chi")
    masked = resample_map(zeros, grid, inside=Mask(np.isfinite(data), np.eye(4))).data
    np.testing.assert_array_equal(masked, found)


def test_labels_keep_their_numbers():
    labels = np.random.default_rng(2).choice([0, 3, 200, 1011], size=SHAPE).astype(np.int16)
    parcels = Parcellation(labels, AFFINE, {3: "a"})
    grid = Grid((10, 10, 10), np.diag([1.7, 1.9, 2.1, 1.0]))
    found = resample_labels(parcels, grid, (turned(),))
    assert set(np.unique(found.labels)) <= {0, 3, 200, 1011}
    assert found.labels.dtype == labels.dtype
    assert found.names == parcels.names
    to_voxel = np.linalg.inv(AFFINE) @ turned().matrix @ grid.affine
    for voxel in np.ndindex(grid.shape):
        at = np.floor(to_voxel[:3, :3] @ voxel + to_voxel[:3, 3] + 0.5).astype(int)
        inside = (at >= 0).all() and (at < SHAPE).all()
        assert found.labels[voxel] == (labels[tuple(at)] if inside else 0)
    np.testing.assert_array_equal(resample_mask(Mask(labels == 3, AFFINE), grid, (turned(),)).data, found.labels == 3)


def test_fields_move_points():
    shape = (6, 7, 8)
    vectors = np.zeros((*shape, 3), dtype=np.float32)
    vectors[..., 1] = 2.0 * np.arange(6)[:, None, None]
    field = DisplacementField(vectors, np.diag([10.0, 10, 10, 1]))
    points = np.array([[25.0, 30.0, 40.0], [-900.0, 0.0, 0.0]]).T
    np.testing.assert_allclose(map_points(points, (field,)).T, [[25.0, 35.0, 40.0], [-900.0, 0.0, 0.0]])
    strict = DisplacementField(vectors, np.diag([10.0, 10, 10, 1]), outside="missing")
    found = map_points(points, (strict, turned(0.0)))
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(found[:, 0], [26.0, 33.0, 40.5])
    data = Volume(np.ones(SHAPE, dtype=np.float32), AFFINE, "chi")
    away = Grid((2, 2, 2), np.array([[1.0, 0, 0, 999], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    assert np.isnan(resample_map(data, away, (strict,)).data).all()
    parcels = Parcellation(np.ones(SHAPE, dtype=np.int8), AFFINE)
    assert (resample_labels(parcels, away, (strict,)).labels == 0).all()


def test_inverse_and_bad_transforms():
    there_and_back = map_points(np.random.default_rng(0).normal(size=(3, 5)), (turned(), inverted(turned())))
    np.testing.assert_allclose(there_and_back, np.random.default_rng(0).normal(size=(3, 5)), atol=1e-12)
    with pytest.raises(FormatError, match="cannot be inverted here"):
        inverted(DisplacementField(np.zeros((2, 2, 2, 3)), np.eye(4)))
    with pytest.raises(FormatError, match="invertible 4 x 4"):
        AffineTransform(np.zeros((4, 4)))
    volume = Volume(np.ones(SHAPE), AFFINE, "")
    with pytest.raises(ValueError, match="got 2"):
        resample_map(volume, volume.grid, order=2)
    with pytest.raises(AlignmentError, match="mask of the map"):
        resample_map(volume, volume.grid, inside=Mask(np.ones((2, 2, 2), dtype=bool), AFFINE))
