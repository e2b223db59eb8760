"""Parcels named by another atlas: against loops, on other grids and orientations, and with nilearn's resampling."""

import numpy as np
import pytest

from brainlocus.core import AlignmentError, Grid, Parcellation
from brainlocus.images.atlas import annotate_parcels
from brainlocus.numerics import resample_labels
from tests.real_data import real_data

AFFINE = np.array([[-2.0, 0, 0, 11], [0, 2, 0, -9], [0, 0, 2, -7], [0, 0, 0, 1]])


def random_labels(shape=(11, 9, 8), n=6, seed=0):
    labels = np.random.default_rng(seed).integers(0, n + 1, shape)
    labels[labels == 2] = 0
    return labels


def test_against_loops():
    parcels, atlas = Parcellation(random_labels(), AFFINE), Parcellation(random_labels(n=9, seed=1) * 100, AFFINE)
    found = annotate_parcels(parcels, atlas, min_fraction=0.08)
    assert found.parcels.tolist() == [1, 3, 4, 5, 6]
    rows = list(zip(found.pair_parcel, found.pair_region, found.fraction_in, found.coverage, found.dice, strict=True))
    for at, label in enumerate(found.parcels):
        p = parcels.labels == label
        expected = []
        for region in range(100, 1000, 100):
            b = atlas.labels == region
            both = (p & b).sum()
            if both / p.sum() >= 0.08:
                expected.append((at, region, both / p.sum(), both / b.sum(), 2 * both / (p.sum() + b.sum())))
        expected.sort(key=lambda row: (-row[2], -(atlas.labels == row[1]).sum(), row[1]))
        here = [row for row in rows if row[0] == at]
        np.testing.assert_allclose([row[2:] for row in here], [row[2:] for row in expected], rtol=1e-12)
        assert [row[1] for row in here] == [row[1] for row in expected]
        assert found.sizes[at] == p.sum()
        x = np.array([(AFFINE @ [*index, 1])[0] for index in np.argwhere(p)])
        assert found.left[at] == pytest.approx(((x < 0) + 0.5 * (x == 0)).mean(), abs=1e-12)


def sides(left_voxels, right_voxels):
    labels = np.zeros((20, 1, 1), dtype=np.int16)
    labels[10 - left_voxels : 10 + right_voxels] = 1
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = -19.0  # ten voxels left of the midline, ten right
    return annotate_parcels(Parcellation(labels, affine), Parcellation(labels, affine))


@pytest.mark.parametrize(("left", "right", "side"), [(4, 0, "L"), (0, 4, "R"), (3, 1, "bilateral"), (7, 2, "L"),
                                                     (2, 7, "R"), (4, 4, "bilateral")])  # fmt: skip
def test_side(left, right, side):
    found = sides(left, right)
    assert found.left[0] == pytest.approx(left / (left + right))
    assert found.laterality(0) == side


def test_voxels_on_the_midline_count_half():
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = -4.0
    labels = np.ones((5, 1, 1), dtype=np.int16)
    assert annotate_parcels(Parcellation(labels, affine), Parcellation(labels, affine)).left.tolist() == [0.5]


def turned(parcellation, axes, flips):
    """Return the same picture with its voxel axes swapped and reversed."""
    labels, affine = np.transpose(parcellation.labels, axes), parcellation.affine.copy()
    affine[:, :3] = parcellation.affine[:, axes]
    for axis in flips:
        affine[:, 3] += affine[:, axis] * (labels.shape[axis] - 1)
        affine[:, axis] *= -1
        labels = np.flip(labels, axis)
    return Parcellation(np.ascontiguousarray(labels), affine)


@pytest.mark.parametrize(("axes", "flips"), [((0, 1, 2), (0,)), ((2, 0, 1), (1, 2)), ((1, 2, 0), (0, 1, 2))])
def test_orientation_of_either_image_changes_nothing(axes, flips):
    parcels, atlas = Parcellation(random_labels(), AFFINE), Parcellation(random_labels(n=9, seed=1), AFFINE)
    expected = annotate_parcels(parcels, atlas)
    here = annotate_parcels(parcels, resample_labels(turned(atlas, axes, flips), parcels.grid))
    other = turned(parcels, axes, flips)
    there = annotate_parcels(other, resample_labels(atlas, other.grid))
    for found in (here, there):
        for name in ("parcels", "sizes", "left", "pair_parcel", "pair_region", "fraction_in", "coverage", "dice"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12)


def test_nearest_neighbours_as_nilearn_finds_them():
    """An oblique atlas of other voxels: labels on the parcels' grid are those of nilearn."""
    nibabel, image = pytest.importorskip("nibabel"), pytest.importorskip("nilearn.image")
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.37, -1.21, 1.7])
    affine[:3, 3] = [-9.3, 11.1, -8.2]
    # nilearn leaves out the outer half of the outermost voxels, which are background in any atlas.
    labels = np.pad(np.random.default_rng(3).integers(0, 40, (15, 16, 10)).astype(np.int16), 1)
    atlas = Parcellation(labels, affine)
    grid = Grid((11, 9, 8), AFFINE)
    source = nibabel.Nifti1Image(atlas.labels, affine)
    theirs = image.resample_img(
        source, target_affine=AFFINE, target_shape=grid.shape, interpolation="nearest", force_resample=True,
        copy_header=True,
    )  # fmt: skip
    ours = resample_labels(atlas, grid).labels
    assert (ours > 0).sum() > 300
    np.testing.assert_array_equal(ours, np.asarray(theirs.dataobj))


def test_atlas_elsewhere():
    parcels = Parcellation(random_labels(), AFFINE)
    empty = Parcellation(np.zeros(parcels.labels.shape, dtype=np.int8), AFFINE)
    with pytest.raises(AlignmentError, match="share no labelled voxel"):
        annotate_parcels(parcels, empty)
    with pytest.raises(AlignmentError, match="another affine"):
        annotate_parcels(parcels, Parcellation(parcels.labels, np.diag([2.0, 2, 2, 1])))


def test_published_scale_named_by_another():
    """Scale 64 named by scale 32: the top region is the parent of the hierarchy, its share the containment."""
    from brainlocus.images.atlas import ScaleParcels, link_scales
    from brainlocus.io import read_parcellation

    coarse, fine = (read_parcellation(real_data(f"structural/music_atlas/MuSIC_C{s}.nii.gz")) for s in (32, 64))
    inside = coarse.labels > 0
    link = link_scales(ScaleParcels(32, coarse.labels[inside]), ScaleParcels(64, fine.labels[inside]))
    found = annotate_parcels(fine, coarse)
    first = np.searchsorted(found.pair_parcel, np.arange(64))
    np.testing.assert_array_equal(found.fraction_in[first], link.containment)
    # The scales are equal where one region has most of a parcel; of two with the same share either may stand first.
    equal = np.flatnonzero(found.pair_region[first] != link.parents)
    np.testing.assert_array_equal(found.fraction_in[first[equal]], found.fraction_in[first[equal] + 1])
