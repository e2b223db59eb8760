from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from brainlocus.core.gradient_echo import GradientEcho
from brainlocus.images.qsm.combination import remove_phase_offset
from brainlocus.images.qsm.masks import refine_mask
from brainlocus.images.qsm.reliability import phase_reliability
from brainlocus.images.qsm.unwrapping import residual_wraps, unwrap_series
from tests.real_data import real_data
from tests.unit.qsm.phase_phantom import acquisition, phantom, turns_left, wrap


@pytest.fixture(scope="module")
def head():
    return phantom()


@pytest.fixture(scope="module")
def removed(head):
    return remove_phase_offset(head.series, head.brain).series


@pytest.fixture(scope="module")
def mask(head, removed):
    reliability = phase_reliability(removed, head.brain)
    return refine_mask(head.brain, reliability, (0.7, 0.6), removed.acquisition.voxel_size_mm).mask


def linear_series(frequency_hz, times, mask=None, magnitude=1.0):
    phase = np.stack([wrap(2 * np.pi * frequency_hz * t) for t in times])
    size = np.full(phase.shape, magnitude, dtype=np.float32)
    return GradientEcho(
        phase, size, np.ones(phase.shape[1:], dtype=bool), acquisition(phase.shape[1:], (2.0, 2.0, 2.0), times)
    )


def test_exact_route_gives_every_voxel_its_turns(head, removed, mask):
    found = unwrap_series(removed, mask, method="romeo")
    assert turns_left(found[:, mask], removed.phase_rad[:, mask]) < 1e-5
    error = (found - head.evolution_rad)[:, mask]
    assert np.abs(error).max() < np.pi  # no voxel is a turn off, and the global turn is right
    assert np.abs(np.median(error, axis=1)).max() < 0.005
    assert not found[:, ~mask].any()


def test_laplacian_route_is_off_by_something_smooth(head, removed, mask):
    found = unwrap_series(removed, mask, method="laplacian", workers=2)
    error = (found - head.evolution_rad)[:, mask]
    assert np.all(error.std(axis=1) < (0.5, 1.0))  # methods/qsm.md: 1.0 rad on its head
    assert not found[:, ~mask].any()


def test_residual_wraps_are_counted(head, removed, mask):
    found = unwrap_series(removed, mask, method="romeo")
    before = residual_wraps(removed.phase_rad, mask)
    after = residual_wraps(found, mask)
    assert before[0] > 20 * max(after[0], 1)
    assert residual_wraps(head.evolution_rad, np.zeros_like(mask)) == (0, 0)
    ramp = np.zeros((1, 4, 3, 2), dtype=np.float32)
    ramp[0, 2:] = 4.0
    assert residual_wraps(ramp, np.ones((4, 3, 2), dtype=bool)) == (6,)


@pytest.mark.parametrize("turn", [-2, -1, 0, 1, 2])
def test_proportionality_settles_the_global_turn(turn):
    """Median phases of the first echo beyond pi, which space alone cannot know."""
    times = (0.0094, 0.020)
    x = np.linspace(-20, 20, 24).reshape(-1, 1, 1) * np.ones((1, 20, 8))
    frequency = x + turn / times[0] + 5
    series = linear_series(frequency, times)
    found = unwrap_series(series, series.valid, method="romeo")
    for echo, time in zip(found, times, strict=True):
        assert np.abs(echo - 2 * np.pi * time * frequency).max() < 1e-3


def test_each_part_finds_its_own_turn():
    times = (0.0094, 0.020)
    frequency = np.linspace(-20, 20, 30).reshape(-1, 1, 1) * np.ones((1, 10, 8))
    frequency[20:] += 1 / times[0]
    series = linear_series(frequency, times)
    mask = series.valid.copy()
    mask[18:20] = False
    found = unwrap_series(series, mask, method="romeo")
    assert np.abs(found[1] - 2 * np.pi * times[1] * frequency)[mask].max() < 1e-3


def test_integer_ratio_takes_the_smallest_median():
    times = (0.004, 0.008, 0.012)
    frequency = np.linspace(-60, 90, 30).reshape(-1, 1, 1) * np.ones((1, 10, 8))
    series = linear_series(frequency, times)
    found = unwrap_series(series, series.valid, method="romeo")
    assert np.abs(found[2] - 2 * np.pi * times[2] * frequency).max() < 1e-3


def test_later_echoes_follow_the_line_through_those_before():
    """Ten echoes of noisy phase: predicted from the first alone, the last would be lost in noise."""
    times = tuple(0.003 * k for k in range(1, 11))
    frequency = np.linspace(-30, 30, 30).reshape(-1, 1, 1) * np.ones((1, 20, 8))
    clean = linear_series(frequency, times)
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, clean.phase_rad.shape)
    series = replace(clean, phase_rad=wrap(clean.phase_rad + noise))
    found = unwrap_series(series, series.valid, method="romeo")
    true = np.stack([2 * np.pi * t * frequency for t in times])
    wrong = np.abs(found - true - noise) > 1
    assert wrong.mean() < 1e-4
    alone = true[0] + noise[0]
    assert np.mean(np.abs(alone * 10 - true[-1]) > np.pi) > 0.2


@pytest.mark.parametrize("method", ["laplacian", "romeo"])
def test_single_echo(head, method):
    series = head.series
    times = series.acquisition.echo_time_s[:1]
    one = GradientEcho(
        series.phase_rad[:1],
        series.magnitude[:1],
        series.valid,
        acquisition(series.valid.shape, (2.5, 2.5, 2.75), times),
    )
    found = unwrap_series(one, head.brain, method=method)
    assert found.shape == one.phase_rad.shape
    if method == "romeo":
        assert turns_left(found[:, head.brain], one.phase_rad[:, head.brain]) < 1e-5
        assert abs(np.median(found[0][head.brain])) <= np.pi


@pytest.mark.parametrize("method", ["laplacian", "romeo"])
def test_invalid_voxels_and_empty_masks(removed, mask, method):
    valid = removed.valid.copy()
    valid[24:28, 28:32, 20] = False
    found = unwrap_series(replace(removed, valid=valid), mask, method=method)
    assert not found[:, ~valid].any()
    assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="mask"):
        unwrap_series(removed, np.zeros_like(mask), method=method)


def test_real_phase_grows_in_proportion_once_the_offset_is_removed():
    """A line through the three echoes of each voxel: its value at time 0 is -0.15 rad before and 0 after."""
    raw, magnitude = (
        np.moveaxis(
            np.asarray(nib.load(real_data(f"qsm/mriresearchtools_small/{kind}.nii")).dataobj.get_unscaled()), 3, 0
        )
        for kind in ("Phase", "Mag")
    )
    span = float(np.ptp(raw))
    phase = ((raw - raw.min()) * (2 * np.pi / span) - np.pi).astype(np.float32)
    times = (0.004, 0.008, 0.012)
    where = acquisition(phase.shape[1:], (0.46875, 0.46875, 1.0), times)
    magnitude = magnitude.astype(np.float32)
    series = GradientEcho(
        np.ascontiguousarray(phase), np.ascontiguousarray(magnitude), np.ones(where.shape, dtype=bool), where
    )
    mask = magnitude[0] > 0.3 * np.percentile(magnitude[0], 99)
    columns = np.stack([np.ones(3), times], axis=1)

    def at_zero(series):
        unwrapped = unwrap_series(series, mask, method="romeo")[:, mask].astype(float)
        return float(np.median(np.linalg.lstsq(columns, unwrapped, rcond=None)[0][0]))

    assert at_zero(series) < -0.1
    assert abs(at_zero(remove_phase_offset(series, mask).series)) < 0.02
