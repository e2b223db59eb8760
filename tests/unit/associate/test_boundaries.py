"""Measures of edges and sides: planted shifts of a boundary, blobs inside of tissue, and loops."""

import numpy as np
import pytest
from scipy import ndimage

from brainlocus.cohort.associate import (
    boundary_share,
    correlation,
    gradient_magnitude,
    mirror_places,
    symmetry_r,
)

SHAPE, AFFINE = (24, 22, 20), np.diag([2.0, 2.0, 2.0, 1.0])


def head():
    """A ribbon of grey matter (1) around white matter (2), with a smooth template of it."""
    index = np.indices(SHAPE) - (np.array(SHAPE) / 2 - 0.5)[:, None, None, None]
    radius = np.sqrt((index**2).sum(axis=0))
    tissue = np.where(radius < 5.5, 2, np.where(radius < 8.0, 1, 0))
    grey = ndimage.gaussian_filter((tissue == 1).astype(float), 0.5)
    return radius, tissue, grey


def association(effect, seed=0, n=60):
    """Return the t of a target in maps of people that are `effect(target)` and noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    values = np.stack([effect(value) for value in x]) + rng.normal(0, 0.05, (n, *SHAPE))
    y = values - values.mean(axis=0)
    x = (x - x.mean()) / np.linalg.norm(x - x.mean())
    r = np.tensordot(x, y, 1) / np.sqrt((y**2).sum(axis=0))
    return r * np.sqrt((n - 2) / (1 - r**2))


def test_a_moved_boundary_is_flagged_and_a_blob_is_not():
    radius, tissue, grey = head()
    # The ribbon of everybody moves outwards with the target, by up to a fifth of a voxel.
    distances, shell = np.unique(radius, return_inverse=True)
    profile = np.bincount(shell.ravel(), weights=grey.ravel()) / np.bincount(shell.ravel())
    moved = association(lambda x: np.interp(radius - 0.1 * x, distances, profile))
    blob = np.exp(-((np.indices(SHAPE) - np.array([12, 5, 10])[:, None, None, None]) ** 2).sum(axis=0) / 8.0)
    inside = association(lambda x: grey + 0.06 * x * blob)
    gradient = gradient_magnitude(grey, AFFINE)
    brain = tissue > 0
    for t, high in ((moved, True), (inside, False)):
        r = correlation(np.abs(t[brain]), gradient[brain])
        share = boundary_share(t, (np.abs(t) > 4) & brain, tissue, voxel_mm=2.0)
        assert (np.abs(t[brain]) > 4).sum() > 30
        if high:
            assert r > 0.6
            assert share > 0.6
        else:
            assert abs(r) < 0.2
            assert share < 0.05


def test_share_equals_a_loop():
    rng = np.random.default_rng(1)
    tissue = ndimage.gaussian_filter(rng.normal(size=(9, 8, 7)), 1.5)
    tissue = (tissue > 0).astype(np.int8)
    t = rng.normal(size=tissue.shape) * 3
    strong = np.abs(t) > 3
    found = boundary_share(t, strong, tissue, voxel_mm=3.0)

    def on_edge(v):
        for axis in range(3):
            for step in (-1, 1):
                u = np.array(v)
                u[axis] += step
                if (u >= 0).all() and (u < tissue.shape).all() and tissue[tuple(u)] != tissue[v]:
                    return True
        return False

    near = [tuple(v) for v in np.argwhere(strong) if on_edge(tuple(v))]
    count = sum(any(np.abs(np.subtract(u, v)).max() <= 2 and t[u] * t[v] < 0 for u in near) for v in near)
    assert found == pytest.approx(count / strong.sum())
    assert 0.05 < found < 0.95
    assert np.isnan(boundary_share(t, np.zeros(t.shape, dtype=bool), tissue, voxel_mm=3.0))


def test_gradient_of_an_oblique_grid():
    """A plane a'x in world coordinates has the gradient a, whatever the grid."""
    rng = np.random.default_rng(2)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array([1.0, 2.0, 3.0])
    slope = np.array([0.3, -1.0, 2.0])
    world = np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices((5, 6, 7)))
    found = gradient_magnitude(np.tensordot(slope, world, 1), affine)
    np.testing.assert_allclose(found, np.linalg.norm(slope), rtol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.3, 4.0])
def test_mirror_is_the_nearest_voxel_across(shift):
    affine = np.array([[-2.0, 0, 0, 9.0 + shift], [0, 2, 0, -7], [0, 0, 2, -5], [0, 0, 0, 1]])
    shape = (10, 6, 5)
    mask = np.random.default_rng(0).random(shape) < 0.8
    voxels = np.flatnonzero(mask)
    places = mirror_places(voxels, shape, affine)
    centres = (affine @ np.stack([*np.unravel_index(voxels, shape), np.ones(voxels.size)]))[:3].T
    for v, place in enumerate(places):
        image = centres[v] * np.array([-1, 1, 1])
        distance = np.linalg.norm(centres - image, axis=1)
        if place >= 0:
            assert place == np.argmin(distance)
        else:
            assert distance.min() > 0.99 or np.argmin(distance) == v
    if shift == 0.0:
        even = np.abs(centres[:, 0]) + centres[:, 1]
        assert symmetry_r(even, places) == pytest.approx(1.0)
        assert symmetry_r(centres[:, 0], places) == pytest.approx(-1.0)


def test_no_mirror_image_is_nan():
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = 100.0
    voxels = np.arange(60)
    places = mirror_places(voxels, (5, 4, 3), affine)
    assert (places == -1).all()
    assert np.isnan(symmetry_r(np.arange(60.0), places))
