import numpy as np
import pytest
from scipy import ndimage

from brainlocus.images.qsm.masks import magnitude_mask, refine_mask, reliable_voxels
from tests.unit.qsm.phase_phantom import coordinates, phantom

VOXEL = (1.0, 1.0, 3.0)


@pytest.fixture
def ball():
    x, y, z = coordinates((60, 60, 20), VOXEL)
    return (x**2 + y**2 + z**2) < 26**2


def reliability(mask, n_echoes=2):
    return np.repeat(mask[None].astype(np.float32), n_echoes, axis=0)


def dice(a, b):
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


def refine(mask, good, thresholds=(0.7, 0.6), voxel=VOXEL):
    return refine_mask(mask, good, thresholds, voxel)


def test_any_echo_below_its_threshold_takes_a_voxel(ball):
    good = reliability(ball)
    good[0, 30] = 0.65
    good[1, 31] = 0.65
    good[1, 32] = 0.55
    kept = reliable_voxels(good, (0.7, 0.6))
    assert not kept[30].any()
    assert np.array_equal(kept[31], ball[31])
    assert not kept[32].any()


def test_all_reliable_keeps_a_smooth_mask(ball):
    refined = refine(ball, reliability(ball))
    assert refined.share_kept > 0.99
    assert refined.status == "kept"
    assert refined.n_removed == ball.sum() - refined.mask.sum()
    assert refined.large_holes_mm3 == ()


def test_small_holes_are_filled_and_large_ones_stay(ball):
    good = reliability(ball)
    good[:, 20:22, 30, 10] = 0  # 6 mm^3
    good[:, 35:40, 30:35, 9:11] = 0  # 150 mm^3
    refined = refine(ball, good)
    assert refined.mask[20:22, 30, 10].all()
    assert not refined.mask[36:39, 31:34, 9:11].any()
    assert len(refined.large_holes_mm3) == 1
    assert 150 <= refined.large_holes_mm3[0] <= 200  # the opening rounds its corners


def test_never_grows_beyond_the_mask(ball):
    ball[28:30, 28:30, 10] = False  # a hole of the given mask, not of the reliability
    refined = refine(ball, reliability(ball))
    assert not np.any(refined.mask & ~ball)


def test_only_the_largest_part_stays(ball):
    good = reliability(ball)
    good[:, 40:43] = 0
    refined = refine(ball, good)
    assert not refined.mask[43:].any()
    assert refined.mask[:39].any()


def test_opening_spares_thick_slices():
    """A sheet one slice thick survives where slices are thick, and goes where voxels are cubes."""
    mask = np.zeros((30, 30, 9), dtype=bool)
    mask[5:25, 5:25, 4] = True
    assert refine(mask, reliability(mask)).mask.any()
    with pytest.raises(ValueError, match="nothing is left"):
        refine(mask, reliability(mask), voxel=(1.0, 1.0, 1.0))


def test_thin_bridges_are_cut_and_rims_of_the_volume_stay():
    mask = np.ones((40, 20, 6), dtype=bool)
    good = reliability(mask)
    good[:, 24:28] = 0
    good[:, 24:28, 10, 3] = 1  # a bridge one voxel wide
    refined = refine(mask, good)
    assert not refined.mask[28:].any()
    assert refined.mask[:23].all()


def test_much_removed_is_flagged(ball):
    good = reliability(ball)
    good[:, :26] = 0
    refined = refine(ball, good)
    assert refined.status == "much removed"
    assert refined.share_kept < 0.7


def test_nothing_left_names_the_stage(ball):
    with pytest.raises(ValueError, match="Mask refinement: nothing is left"):
        refine(ball, 0 * reliability(ball))
    with pytest.raises(ValueError, match="Mask refinement: the mask is empty"):
        refine(np.zeros_like(ball), reliability(ball))
    with pytest.raises(ValueError, match="one reliability threshold an echo"):
        refine(ball, reliability(ball), thresholds=(0.7,))


def test_flips_move_with_the_volume(ball):
    good = reliability(ball) * np.random.default_rng(0).uniform(0.5, 1.1, (2, *ball.shape)).astype(np.float32)
    good = ndimage.gaussian_filter(good, (0, 2, 2, 0))
    expected = refine(ball, good).mask
    flipped = refine(np.ascontiguousarray(ball[::-1, ::-1]), np.ascontiguousarray(good[:, ::-1, ::-1])).mask
    assert np.array_equal(flipped[::-1, ::-1], expected)


@pytest.mark.parametrize(("shape", "voxel"), [((56, 64, 48), (2.5, 2.5, 2.75)), ((104, 120, 44), (1.25, 1.25, 2.75))])
def test_magnitude_mask_parts_brain_and_scalp(shape, voxel):
    made = phantom(shape=shape, voxel=voxel)
    found = magnitude_mask(made.series.magnitude[0], made.series.acquisition.voxel_size_mm)
    assert dice(found, made.brain) > 0.93
    x, y, z = coordinates(made.brain.shape, made.series.acquisition.voxel_size_mm)
    scalp = (x / 52) ** 2 + (y / 61) ** 2 + (z / 48) ** 2 > 1
    assert not found[scalp].any()
    assert ndimage.label(found)[1] == 1


def test_magnitude_mask_refuses_what_is_no_image():
    with pytest.raises(ValueError, match="constant"):
        magnitude_mask(np.ones((20, 20, 20), dtype=np.float32), (2.0, 2.0, 2.0))
    speckle = np.zeros((40, 40, 40), dtype=np.float32)
    speckle[::6, ::6, ::6] = 1
    with pytest.raises(ValueError, match="no part"):
        magnitude_mask(speckle, (2.0, 2.0, 2.0))


def test_magnitude_mask_with_nan():
    made = phantom()
    magnitude = made.series.magnitude[0].copy()
    magnitude[0, 0, 0] = np.nan
    assert dice(magnitude_mask(magnitude, (2.5, 2.5, 2.75)), made.brain) > 0.93
