"""Figures of methods/qsm.md, sections 4 to 7, on three simulated heads; `python -m benchmarks qsm_phase` prints."""

import numpy as np
import pytest

from brainlocus.images.qsm.combination import combine_channels, remove_phase_offset
from brainlocus.images.qsm.echoes import combine_echoes
from brainlocus.images.qsm.masks import magnitude_mask, refine_mask
from brainlocus.images.qsm.reliability import phase_reliability
from brainlocus.images.qsm.unwrapping import unwrap_series
from brainlocus.simulate.head import simulate_head
from tests.unit.qsm.phase_phantom import turns_left, wrap

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[0, 1, 2])
def head(request):
    return simulate_head("2mm", seed=request.param, workers=2)


def test_twelve_channels(head):
    combined = combine_channels(head.channels(12), head.brain_mask)
    assert combined.median_quality >= 0.99
    noiseless = np.angle(head.signal * np.exp(-1j * head.phase_offset_rad))
    for echo, true in zip(combined.series.phase_rad, noiseless, strict=True):
        error = wrap(echo - true)[head.brain_mask].astype(np.float64)
        assert wrap(error - np.angle(np.exp(1j * error).mean())).std() <= 0.05


def test_exact_route(head):
    removed = remove_phase_offset(head.series, head.brain_mask).series
    reliability = phase_reliability(removed, head.brain_mask)
    refined = refine_mask(head.brain_mask, reliability, (0.7, 0.6), head.acquisition.voxel_size_mm)
    assert refined.share_kept > 0.96
    assert np.median(reliability[0][head.brain_mask]) > 0.99
    unwrapped = unwrap_series(removed, refined.mask, method="romeo")
    assert turns_left(unwrapped[:, refined.mask], removed.phase_rad[:, refined.mask]) < 1e-5
    field = combine_echoes(unwrapped, removed, refined.mask)
    error = 1000 * np.abs(field.field_ppm - head.total_field_ppm)[refined.mask]
    assert np.median(error) <= 1.1
    assert np.mean(error > 50) <= 0.0007
    assert np.median(field.standard_deviation_ppm[refined.mask]) == pytest.approx(0.00115, rel=0.1)
    laplacian = unwrap_series(removed, refined.mask)
    rad_per_ppm = 2 * np.pi * head.acquisition.hz_per_ppm * head.acquisition.echo_time_s[0]
    assert (laplacian[0] - rad_per_ppm * head.total_field_ppm)[refined.mask].std() < 1.0


def test_brain_from_the_magnitude(head):
    found = magnitude_mask(head.series.magnitude[0], head.acquisition.voxel_size_mm)
    brain = head.brain_mask
    assert 2 * np.sum(found & brain) / (found.sum() + brain.sum()) > 0.95
