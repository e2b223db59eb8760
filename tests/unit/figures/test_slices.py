"""Mosaics: orientation, proportions, overlays; against nibabel's turning of axes."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest

from brainlocus.core import AlignmentError, Mask, Parcellation, Volume
from brainlocus.numerics.orientation import ras_axes, to_ras
from brainlocus.pipeline.figures.page import png_bytes
from brainlocus.pipeline.figures.slices import Overlay, histogram, mosaic

PNG = b"\x89PNG\r\n\x1a\n"


def _affines():
    turn = np.array([[0.9, -0.3, 0.1], [0.3, 0.92, -0.05], [-0.08, 0.08, 0.99]])
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        affine = np.eye(4)
        affine[:3, :3] = turn @ np.diag(signs)[:, order] @ np.diag([0.8, 1.1, 3.0])
        affine[:3, 3] = [-10, 5, 7]
        yield affine


def test_turning_to_ras_is_nibabels():
    data = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    for affine in _affines():
        expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(data, affine))
        turned, new = to_ras(data, affine)
        np.testing.assert_array_equal(turned, np.asarray(expected.dataobj))
        np.testing.assert_allclose(new, expected.affine, atol=1e-12)
        assert np.shares_memory(turned, data)


def test_axes_of_a_plain_grid():
    assert ras_axes(np.eye(4)) == ((0, 1, 2), (False, False, False))


def _head(shape=(12, 14, 10), size=(2.0, 2.0, 5.0)):
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -np.array(shape) * size / 2
    data = np.full(shape, 0.5, dtype=np.float32)
    data[8:] = 1.0  # the right side is bright
    return Volume(data, affine, "susceptibility", "ppm")


@pytest.mark.parametrize(("convention", "bright_on_the_right"), [("neurological", True), ("radiological", False)])
def test_sides_and_letters(convention, bright_on_the_right):
    figure = mosaic(_head(), n_slices=1, window=(0.0, 1.0), convention=convention)
    axis = figure.axes[0]
    axial = np.asarray(axis.images[-1].get_array())  # the rows are drawn from below
    assert (axial[:, -1] == 1.0).all() == bright_on_the_right
    assert (axial[:, 0] == 1.0).all() != bright_on_the_right
    letters = {t.get_text(): t.get_position()[0] for t in axis.texts}
    assert (letters["R"] > letters["L"]) == bright_on_the_right


def test_a_statistic_over_a_map():
    """Red where it is above the threshold, blue where it is below the negative one, nothing between and for NaN."""
    head = _head()
    t = np.zeros(head.data.shape, dtype=np.float32)
    t[2:4], t[5:6], t[8:10], t[10] = -4.0, 2.0, 4.0, np.nan
    figure = mosaic(head, n_slices=1, overlay=Overlay(Volume(t, head.affine, "t"), 3.0, 5.0))
    over = figure.axes[0].images[-1]
    values = over.get_array()
    shown = ~np.ma.getmaskarray(values)
    assert set(np.unique(np.asarray(values)[shown])) == {-4.0, 4.0}
    rgba = over.to_rgba(values)
    red, blue = rgba[np.asarray(values) == 4.0][0], rgba[np.asarray(values) == -4.0][0]
    assert red[0] > 0.7 > red[2]
    assert blue[2] > 0.7 > blue[0]
    assert (rgba[~shown][:, 3] == 0).all()
    assert figure.axes[-1].get_ylabel() == "t"
    with pytest.raises(AlignmentError, match="The overlay"):
        mosaic(head, overlay=Overlay(Volume(t[1:], head.affine, "t"), 3.0, 5.0))


@pytest.mark.parametrize("number", range(0, 48, 5))
def test_every_storage_order_gives_the_same_picture(number):
    head = _head()
    shown = [np.asarray(i.get_array()) for i in mosaic(head, n_slices=2).axes[0].images]
    order, signs = list(product(permutations(range(3)), product((1, -1), repeat=3)))[number]
    stored, affine = head.data, head.affine
    for axis, sign in enumerate(signs):
        if sign < 0:
            stored = np.flip(stored, axis)
            flip = np.eye(4)
            flip[axis, axis], flip[axis, 3] = -1.0, stored.shape[axis] - 1
            affine = affine @ flip
    swap = np.zeros((4, 4))
    swap[3, 3] = 1.0
    for new, old in enumerate(order):
        swap[old, new] = 1.0
    stored = Volume(np.ascontiguousarray(np.transpose(stored, order)), affine @ swap, "susceptibility", "ppm")
    for found, expected in zip(mosaic(stored, n_slices=2).axes[0].images, shown, strict=True):
        np.testing.assert_array_equal(np.asarray(found.get_array()), expected)


def test_thick_slices_keep_their_height():
    figure = mosaic(_head(), n_slices=3)
    axis = figure.axes[0]
    assert axis.get_aspect() == 1.0
    left, right, bottom, top = axis.images[0].get_extent()  # sagittal: y by z
    assert right - left == pytest.approx(14 * 2.0)
    assert top - bottom == pytest.approx(10 * 5.0)
    assert len(axis.images) == 9


def test_outlines_regions_and_missing_voxels():
    head = _head()
    head.data[0, 0, 0] = np.nan
    inside = np.zeros(head.data.shape, dtype=bool)
    inside[3:9, 3:9, 3:7] = True
    regions = Parcellation(np.where(inside, 3, 0), head.affine, {3: "putamen"})
    figure = mosaic(head, mask={"brain": Mask(inside, head.affine)}, labels=regions, title="test")
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"brain", "putamen"}
    assert png_bytes(figure).startswith(PNG)
    assert png_bytes(mosaic(head, mask=Mask(inside, head.affine))) == png_bytes(
        mosaic(head, mask=Mask(inside, head.affine))
    )


def test_an_empty_map_has_a_picture():
    empty = Volume(np.full((5, 6, 7), np.nan, dtype=np.float32), np.eye(4), "chi", "ppm")
    assert png_bytes(mosaic(empty, n_slices=2)).startswith(PNG)


def test_bad_input():
    head = _head()
    with pytest.raises(ValueError, match="at least 1, got 0"):
        mosaic(head, n_slices=0)
    with pytest.raises(ValueError, match="lower value first"):
        mosaic(head, window=(1.0, 1.0))
    with pytest.raises(AlignmentError, match="Mask 'brain' has shape"):
        mosaic(head, mask={"brain": Mask(np.ones((2, 2, 2), dtype=bool), head.affine)})


def test_histogram_counts_what_lies_outside():
    values = np.array([0.0, 0.5, 1.0, 5.0, np.nan], dtype=np.float32)
    figure = histogram(values, label="field (ppm)", window=(0.0, 1.0), lines={"threshold": 0.7}, bins=2)
    axis = figure.axes[0]
    assert [patch.get_height() for patch in axis.patches] == [1.0, 2.0]
    assert axis.texts[0].get_text() == "1 outside"
    assert png_bytes(histogram(np.empty(0), label="nothing")).startswith(PNG)
    assert png_bytes(histogram(np.ones(4), label="constant", logarithmic=True)).startswith(PNG)
