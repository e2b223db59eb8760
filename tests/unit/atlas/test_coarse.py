"""Starts from half the resolution against the formulas, and what they change: nothing but the way to the optimum."""

import numpy as np
import pytest
from benchmarks.planted_atlas import planted_atlas

from brainlocus.images.atlas import (
    MuOptions,
    adjusted_rand,
    cell_images,
    coarse_start,
    fit_em,
    fit_mu,
    grid_cells,
    hard_atlas,
    unit_prototypes,
)
from brainlocus.images.atlas import blocks as blocks_module
from tests.reference.naive_coarse import naive_cell_images, naive_cells


def some_mask(shape=(7, 6, 5), seed=0):
    return np.random.default_rng(seed).random(shape) < 0.4


def same_in_cells(seed=0):
    """Images whose voxels are equal within each cell, and labels likewise."""
    rng = np.random.default_rng(seed)
    cells = grid_cells(some_mask((12, 10, 8)))
    labels = rng.integers(0, 3, cells.max() + 1)
    people = 1 + 0.3 * rng.standard_normal((3, 25))
    rows = (
        rng.uniform(0.4, 1, labels.size)[:, None] * people[labels] * (1 + 0.02 * rng.standard_normal((labels.size, 25)))
    )
    return np.maximum(rows, 0).astype(np.float32)[cells], labels[cells], cells


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_cells_are_those_of_blocks_counted_one_by_one(factor):
    mask = some_mask()
    np.testing.assert_array_equal(grid_cells(mask, factor=factor), naive_cells(mask, factor))
    if factor == 1:
        np.testing.assert_array_equal(grid_cells(mask, factor=1), np.arange(mask.sum()))


def test_images_of_cells_are_weighted_means(monkeypatch):
    mask = some_mask()
    cells = grid_cells(mask)
    x = np.random.default_rng(1).uniform(size=(int(mask.sum()), 9)).astype(np.float32)
    expected = naive_cell_images(x, cells)
    np.testing.assert_allclose(cell_images(x, cells), expected, rtol=1e-6)
    monkeypatch.setattr(blocks_module, "block_rows", lambda *_, **__: 7)
    np.testing.assert_allclose(cell_images(x, cells), expected, rtol=1e-6)


def test_where_cells_are_uniform_the_coarse_loss_is_the_fine_one():
    """No scatter within cells: the coarse problem is the fine one, and W carried over has unit columns."""
    x, labels, cells = same_in_cells()
    coarse = fit_em(cell_images(x, cells), 3, generator=np.random.default_rng(0))
    start = coarse_start(coarse, cells).astype(np.float64)
    hard = np.where(np.arange(3) == coarse.labels[cells][:, None] - 1, start, 0.0)
    np.testing.assert_allclose(np.linalg.norm(hard, axis=0), 1.0, rtol=1e-6)
    x64 = x.astype(np.float64)
    assert coarse.total == pytest.approx(float((x64**2).sum()), rel=1e-6)
    assert coarse.losses[-1] == pytest.approx(float(((x64 - hard @ (hard.T @ x64)) ** 2).sum()), rel=1e-4)
    fine = fit_em(x, 3, generator=np.random.default_rng(0), prototypes=unit_prototypes(coarse))
    assert fine.losses[-1] == pytest.approx(coarse.losses[-1], rel=1e-4)
    assert adjusted_rand(labels, fine.labels) == 1.0


def test_scatter_within_cells_is_what_the_coarse_loss_lacks():
    rng = np.random.default_rng(0)
    cells = grid_cells(some_mask())
    x = rng.uniform(size=(cells.size, 9)).astype(np.float32)
    h = rng.uniform(size=9)
    h /= np.linalg.norm(h)

    def loss(rows):
        return float((rows**2).sum() - ((rows @ h) ** 2).sum())

    x64 = x.astype(np.float64)
    means = np.array([x64[cells == c].mean(axis=0) for c in range(cells.max() + 1)])
    assert loss(x64) == pytest.approx(
        loss(cell_images(x, cells).astype(np.float64)) + loss(x64 - means[cells]), rel=1e-5
    )


def test_zeros_of_a_coarse_start_are_filled():
    x, _, cells = same_in_cells()
    coarse = fit_em(cell_images(x, cells), 3, generator=np.random.default_rng(0))
    start = coarse_start(coarse, cells)
    own = np.arange(3) == coarse.labels[cells][:, None] - 1
    for k in range(3):
        np.testing.assert_allclose(start[~own[:, k], k], 1e-3 * start[:, k].max(), rtol=1e-6)
    assert (start[own] > 1e-3 * start.max()).all()


def test_given_prototypes_are_used_and_kept():
    x, labels, _ = same_in_cells()
    given = unit_prototypes(fit_em(x, 3, generator=np.random.default_rng(0)))
    kept = given.copy()
    found = fit_em(x, 3, generator=np.random.default_rng(9), prototypes=given, max_passes=1)
    np.testing.assert_array_equal(given, kept)
    assert adjusted_rand(labels, found.labels) == 1.0
    np.testing.assert_array_equal(found.labels - 1, (x @ given.T).argmax(axis=1))


def test_a_component_that_vanished_in_the_cells_takes_the_voxel_fitted_worst():
    x, _, cells = same_in_cells()
    # Two numbers of the cells, a third without any.
    y = cell_images(x, cells)
    two = fit_em(y, 2, generator=np.random.default_rng(0))
    three = hard_atlas(y, two.labels, two.weights, n_components=3, total=two.total)
    prototypes = unit_prototypes(three)
    assert (prototypes[2] == 0).all()
    fine = fit_em(x, 3, generator=np.random.default_rng(0), prototypes=prototypes)
    assert fine.vanished == ()
    assert fine.losses[-1] < two.losses[-1]


def test_planted_parcels_are_found_from_half_the_resolution():
    planted = planted_atlas(n_samples=60, n_parcels=8, resolution=6)
    cells = grid_cells(planted.mask)
    coarse = fit_em(cell_images(planted.images, cells), 8, generator=np.random.default_rng(0))
    usual = fit_em(planted.images, 8, generator=np.random.default_rng(0))
    hard = fit_em(planted.images, 8, generator=np.random.default_rng(0), prototypes=unit_prototypes(coarse))
    assert hard.relative_loss <= usual.relative_loss * 1.001
    assert adjusted_rand(planted.labels, hard.labels) > 0.9
    options = MuOptions(max_iterations=100)
    soft = fit_mu(
        planted.images, 8, generator=np.random.default_rng(0), start=coarse_start(coarse, cells), options=options
    )
    assert adjusted_rand(planted.labels, soft.labels) > 0.9
