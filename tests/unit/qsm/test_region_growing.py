from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlocus.images.qsm.region_growing import unwrap_region_growing
from brainlocus.images.qsm.romeo_weights import romeo_voxel_quality, romeo_weights
from tests.archives import read_archive
from tests.real_data import real_data
from tests.reference.qsm_phase import naive_region_growing, naive_romeo_weight
from tests.unit.qsm.phase_phantom import turns_left, wrap

GOLDEN = Path(__file__).parents[2] / "golden" / "unwrapping" / "golden.npz"


def random_case(seed, shape=(6, 5, 4)):
    rng = np.random.default_rng(seed)
    phase = rng.uniform(-np.pi, np.pi, shape).astype(np.float32)
    return phase, rng.random(shape) < 0.8, rng.random(shape).astype(np.float32), rng


def ramp(shape, slopes):
    axes = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    return sum(s * a for s, a in zip(slopes, axes, strict=True)).astype(np.float32)


@pytest.mark.parametrize("with_magnitude", [False, True])
@pytest.mark.parametrize("with_other", [False, True])
def test_weights_equal_the_formula(with_magnitude, with_other):
    phase, mask, magnitude, rng = random_case(0)
    phase *= 0.4  # weights over the whole range
    other = (2 * phase + rng.normal(0, 0.2, phase.shape)).astype(np.float32)
    magnitude[:2, :2, 0] = 0
    weights = romeo_weights(
        phase,
        mask,
        magnitude=magnitude if with_magnitude else None,
        other_phase_rad=other if with_other else None,
        echo_time_ratio=0.47,
    )
    values = set()
    for *position, axis in np.ndindex(weights.shape):
        expected = naive_romeo_weight(
            phase,
            mask,
            tuple(position),
            axis,
            magnitude if with_magnitude else None,
            other if with_other else None,
            0.47,
        )
        found = int(weights[(*position, axis)])
        if expected is None:
            assert found == 0
        else:
            assert abs(found - max(1, 255 * expected)) <= 0.51
            values.add(found)
    assert len(values) > 50


def test_voxel_quality_is_the_mean_over_the_edges_that_exist():
    weights = np.zeros((3, 1, 1, 3), dtype=np.uint8)
    weights[0, 0, 0, 0], weights[1, 0, 0, 0] = 51, 255
    assert romeo_voxel_quality(weights)[:, 0, 0] == pytest.approx([0.2, 0.6, 1.0])
    assert romeo_voxel_quality(np.zeros((2, 2, 2, 3), dtype=np.uint8)).max() == 0


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_heap_where_there_are_no_residues(seed):
    _, mask, _, rng = random_case(seed, (8, 7, 6))
    mask[0, 0, 0] = True
    true = ramp(mask.shape, (1.7, -1.1, 0.6)) + rng.uniform(-0.6, 0.6, mask.shape).astype(np.float32)
    phase = wrap(true)
    weights = romeo_weights(phase, mask)
    found = unwrap_region_growing(phase, mask, weights)
    expected = naive_region_growing(phase, mask, weights, (0, 0, 0))
    reached = expected != 0
    difference = (found - expected)[reached]
    assert np.ptp(difference) < 1e-4
    assert turns_left(found[mask], phase[mask]) < 1e-5


def test_takes_the_best_edge_first():
    """A patch that joins the rest by a bad edge on one side and by a good one on the other follows the good one."""
    true = np.zeros((9, 3, 1), dtype=np.float32)
    true[:, 0, 0] = [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4]
    true[:, 2, 0] = true[:, 0, 0]
    true[8, 1, 0] = 4.0
    true[5, 1, 0] = 2.5 + 3.5  # a step of more than pi from both rows: unwrapped across them it would lose 2 pi
    true[6, 1, 0], true[7, 1, 0] = 5.4, 4.7
    mask = np.zeros(true.shape, dtype=bool)
    mask[:, 0], mask[:, 2], mask[5:, 1] = True, True, True
    found = unwrap_region_growing(wrap(true), mask)
    d = (found - true)[mask]
    assert np.ptp(d) < 1e-4


@given(st.integers(0, 10_000))
def test_added_phase_is_a_multiple_of_two_pi(seed):
    phase, mask, magnitude, _ = random_case(seed)
    if not mask.any():
        return
    found = unwrap_region_growing(phase * 3, mask, romeo_weights(phase, mask, magnitude=magnitude))
    assert turns_left(found[mask], (phase * 3)[mask]) < 1e-5
    assert np.all(found[~mask] == 0)
    assert abs(np.median(found[mask])) < 3 * np.pi


@pytest.mark.parametrize("slopes", [(3.0, 0.0, 0.0), (0.0, -3.1, 0.0), (1.5, 2.0, -2.9)])
@pytest.mark.parametrize("shape", [(20, 15, 9), (31, 1, 5), (1, 1, 40), (16, 17, 1)])
def test_ramps_below_pi_are_exact(slopes, shape):
    true = ramp(shape, slopes)
    found = unwrap_region_growing(wrap(true), np.ones(shape, dtype=bool))
    assert np.ptp(found - true) < 1e-4
    assert abs(np.median(found)) <= np.pi + 1e-4


def test_global_constant_changes_the_result_by_itself_and_whole_turns():
    true = ramp((20, 15, 9), (1.5, 0.2, -0.9)) + np.random.default_rng(0).normal(0, 0.3, (20, 15, 9)).astype(np.float32)
    mask = np.ones(true.shape, dtype=bool)
    first = unwrap_region_growing(wrap(true), mask)
    for constant in (0.5, 3.0, -2.0):
        shifted = unwrap_region_growing(wrap(true + constant), mask)
        change = (shifted - first - constant) / (2 * np.pi)
        assert np.abs(change - np.rint(change.mean())).max() < 1e-4


def test_flips_move_with_the_volume():
    true = ramp((20, 15, 9), (1.5, 0.2, -0.9))
    mask = np.random.default_rng(0).random(true.shape) < 0.9
    found = unwrap_region_growing(wrap(true), mask)
    flipped = unwrap_region_growing(wrap(true)[::-1, :, ::-1], mask[::-1, :, ::-1])
    assert np.abs(flipped[::-1, :, ::-1] - found).max() < 1e-4


def test_parts_are_aligned_to_the_largest():
    true = ramp((40, 10, 10), (1.0, 0.0, 0.0)) - 20
    mask = np.ones(true.shape, dtype=bool)
    mask[24:28] = False
    found = unwrap_region_growing(wrap(true), mask)
    large, small = found[:24], found[28:]
    assert abs(np.median(large)) <= np.pi
    assert abs(np.median(small) - np.median(large)) <= np.pi + 1e-3
    assert turns_left(found[mask], wrap(true)[mask]) < 1e-5
    assert np.ptp(large - true[:24]) < 1e-4
    assert np.ptp(small - true[28:]) < 1e-4


def test_nan_stays_and_nothing_grows_through_it():
    true = ramp((20, 15, 9), (1.5, 0.2, -0.9))
    phase = wrap(true)
    phase[10, :14] = np.nan  # leaves one row to pass through
    mask = np.ones(true.shape, dtype=bool)
    mask[0] = False
    phase[0, 0, 0] = np.nan
    found = unwrap_region_growing(phase, mask)
    assert np.array_equal(np.isnan(found), np.isnan(phase) & mask)
    good = mask & np.isfinite(phase)
    assert np.ptp((found - true)[good]) < 1e-4


def test_input_is_not_changed():
    phase, mask, _, _ = random_case(3)
    before = phase.copy()
    unwrap_region_growing(phase, mask)
    assert np.array_equal(phase, before)


@pytest.mark.parametrize("phase", [np.zeros((3, 3, 3)), np.full((3, 3, 3), np.nan)])
def test_nothing_to_unwrap_is_refused(phase):
    mask = np.full(phase.shape, bool(np.isnan(phase).any()))
    with pytest.raises(ValueError, match="no voxel with a finite phase"):
        unwrap_region_growing(phase.astype(np.float32), mask)


def test_one_voxel():
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    phase = np.full(mask.shape, 4.0, dtype=np.float32)
    assert unwrap_region_growing(phase, mask)[1, 1, 1] == pytest.approx(4.0 - 2 * np.pi)


def test_real_phase_as_scikit_image_unwraps_it():
    """Best-path unwrapping takes another order at noise: 0.2 and 0.1 % of the voxels with signal differ."""
    golden = read_archive(GOLDEN)
    for name, allowed in (("small", 0.003), ("series", 0.0015)):
        phase, magnitude = real_volume(name)
        mask = np.ones(phase.shape, dtype=bool)
        found = unwrap_region_growing(phase, mask, romeo_weights(phase, mask, magnitude=magnitude))
        assert turns_left(found, phase) < 1e-5
        turns = np.rint((found - phase) / (2 * np.pi)).astype(int) - golden[name]
        signal = magnitude > 0.2 * np.percentile(magnitude, 99)
        assert np.mean(turns[signal] != np.median(turns)) < allowed


def test_real_phase_with_nan_and_beyond_pi():
    series = np.asarray(nib.load(real_data("qsm/romeo_small2/phase_with_nan.nii")).dataobj, dtype=np.float32)
    assert np.isnan(series).sum() == 1280
    for echo in range(2):
        phase = np.ascontiguousarray(series[..., echo])
        found = unwrap_region_growing(phase, np.ones(phase.shape, dtype=bool))
        assert np.array_equal(np.isnan(found), np.isnan(phase))
        finite = np.isfinite(phase)
        assert turns_left(found[finite], phase[finite]) < 1e-5


def real_volume(name):
    folder, echo = {"small": ("romeo_small2", ...), "series": ("mriresearchtools_small", (..., 2))}[name]
    phase, magnitude = (
        np.asarray(nib.load(real_data(f"qsm/{folder}/{kind}.nii")).dataobj.get_unscaled(), dtype=np.float64)
        for kind in ("Phase", "Mag")
    )
    if name == "series":
        phase = (phase - phase.min()) / np.ptp(phase) * 2 * np.pi - np.pi
    return (np.ascontiguousarray(a[echo].astype(np.float32)) for a in (phase, magnitude))
