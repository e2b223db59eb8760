"""Figures of atlases: views through the head, whichever way the voxels run, and pictures that are drawn whole."""

import numpy as np
import pytest

from brainlocus.core import Mask, Parcellation
from brainlocus.pipeline.figures import atlas as figures
from brainlocus.pipeline.figures.atlas import draw_components, draw_parcellation, project

AFFINE = np.diag([2.0, 2, 4, 1])


def pixels(path):
    from matplotlib.image import imread

    return imread(path)


def test_views_are_the_largest_values():
    values = np.random.default_rng(0).uniform(size=(5, 6, 7))
    sagittal, coronal, axial = project(values, np.array([2.0, 2, 2]))
    np.testing.assert_array_equal(sagittal, values.max(axis=0).T)
    np.testing.assert_array_equal(coronal, values.max(axis=1).T)
    np.testing.assert_array_equal(axial, values.max(axis=2).T)


def test_thick_slices_keep_their_height():
    values = np.zeros((4, 4, 2))
    values[1, 2, 1] = 1.0
    sagittal, _, axial = project(values, np.array([2.0, 2, 4]))
    assert sagittal.shape == (4, 4)
    assert sagittal[:, 2].tolist() == [0, 0, 1, 1]
    assert axial.shape == (4, 4)


def brain(shape=(12, 14, 8), r=5):
    inside = np.zeros(shape, dtype=bool)
    inside[2:10, 2:12, 1:7] = True
    rng = np.random.default_rng(0)
    labels = np.where(inside, rng.integers(1, r + 1, shape), 0)
    labels[labels == 3] = 0
    weights = np.zeros((int(inside.sum()), r))
    at = labels[inside]
    rows = np.flatnonzero(at)
    weights[rows, at[rows] - 1] = rng.uniform(0.1, 1, rows.size)
    return Mask(inside, AFFINE), Parcellation(labels, AFFINE, {k: f"C5_{k}" for k in range(1, r + 1)}), weights


def test_direction_of_the_axes_changes_no_picture(tmp_path):
    mask, parcels, weights = brain()
    draw_parcellation(parcels, "C5", tmp_path / "a.png")
    draw_components(weights, parcels, mask, "C5", tmp_path / "b.png")
    flip = AFFINE @ np.array([[-1.0, 0, 0, 11], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    turned = Mask(mask.data[::-1], flip)
    order = np.zeros(mask.data.shape, dtype=int)
    order[mask.data] = np.arange(weights.shape[0])
    reverse = Parcellation(parcels.labels[::-1], flip, parcels.names)
    draw_parcellation(reverse, "C5", tmp_path / "c.png")
    draw_components(weights[order[::-1][turned.data]], reverse, turned, "C5", tmp_path / "d.png")
    for first, second in (("a", "c"), ("b", "d")):
        np.testing.assert_array_equal(pixels(tmp_path / f"{first}.png"), pixels(tmp_path / f"{second}.png"))


@pytest.mark.parametrize(("most", "expected"), [(60, [0, 1, 3, 4]), (2, [0, 1])])
def test_components_that_are_drawn(tmp_path, monkeypatch, most, expected):
    """Vanished ones are not, and no more than there is room for."""
    mask, parcels, weights = brain()
    weights[:, 2] = 1e-3  # as a soft solver leaves a component that wins no voxel
    drawn, panel = [], figures._panel
    monkeypatch.setattr(figures, "_panel", lambda v, s, o, number: drawn.append(number - 1) or panel(v, s, o, number))
    draw_components(weights, parcels, mask, "C5", tmp_path / "a.png", most=most)
    assert drawn == expected
    assert pixels(tmp_path / "a.png").std() > 0
