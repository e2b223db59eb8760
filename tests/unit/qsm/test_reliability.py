from dataclasses import replace

import numpy as np
import pytest

from brainlocus.images.qsm.reliability import phase_coherence, phase_reliability, romeo_quality, second_difference
from tests.reference.qsm_phase import naive_coherence, naive_second_difference
from tests.unit.qsm.phase_phantom import phantom, wrap


@pytest.fixture(scope="module")
def head():
    return phantom()


def random_case(shape=(9, 8, 5), spread=1.5):
    rng = np.random.default_rng(0)
    return wrap(rng.normal(0, spread, shape)), rng.random(shape) < 0.8


@pytest.mark.parametrize(
    ("voxel", "radius", "n_ball"),
    [((0.8, 0.8, 3.0), 2.0, 21), ((1.0, 1.0, 1.0), 2.0, 33), ((1.5, 1.0, 2.0), 2.0, None)],
)
def test_coherence_equals_a_sum_over_near_voxels(voxel, radius, n_ball):
    phase, mask = random_case()
    found = phase_coherence(phase, mask, voxel, radius_mm=radius)
    assert np.abs(found - naive_coherence(phase, mask, voxel, radius)).max() < 1e-5
    if n_ball is not None:  # the specification counts 21 at UK Biobank's voxels
        one = np.zeros((15, 15, 5), dtype=np.float32)
        one[7, 7, 2] = np.pi
        response = phase_coherence(one, np.ones(one.shape, dtype=bool), voxel, radius_mm=radius)
        assert np.sum(response < 1 - 1e-6) == n_ball
        assert response[7, 7, 2] == pytest.approx((n_ball - 2) / n_ball)


def test_large_voxels_still_have_neighbours():
    phase, mask = random_case()
    found = phase_coherence(phase, mask, (2.5, 2.5, 3.0))
    assert np.abs(found - naive_coherence(phase, mask, (2.5, 2.5, 3.0), 2.5)).max() < 1e-5
    assert np.median(found[mask]) < 0.9


def test_second_difference_equals_the_formula():
    phase, mask = random_case()
    assert np.abs(second_difference(phase, mask) - naive_second_difference(phase, mask)).max() < 1e-5


def test_second_difference_sees_no_gradient_and_coherence_does():
    ramp = wrap(np.arange(20).reshape(-1, 1, 1) * np.full((1, 12, 6), 1.2))
    mask = np.ones(ramp.shape, dtype=bool)
    assert second_difference(ramp, mask)[1:-1, 1:-1, 1:-1].min() > 0.999
    assert phase_coherence(ramp, mask, (1.0, 1.0, 1.0)).max() < 0.8


@pytest.mark.parametrize("method", ["coherence", "second-difference", "romeo"])
def test_smooth_is_near_1_noise_near_0_and_all_lies_between(head, method):
    noise = replace(
        head.series,
        phase_rad=np.random.default_rng(0).uniform(-np.pi, np.pi, head.series.phase_rad.shape).astype(np.float32),
    )
    good = phase_reliability(head.series, head.brain, method=method)
    bad = phase_reliability(noise, head.brain, method=method)
    for found in (good, bad):
        assert found.shape == head.series.phase_rad.shape
        assert found.dtype == np.float32
        assert found.min() >= 0
        assert found.max() <= 1
        assert not found[:, ~head.brain].any()
    assert np.all(np.median(good[:, head.brain], axis=1) > np.median(bad[:, head.brain], axis=1) + 0.3)
    # It falls with the echo time.
    assert np.median(good[0][head.brain]) > np.median(good[1][head.brain])


@pytest.mark.parametrize("method", ["coherence", "second-difference", "romeo"])
def test_does_not_know_offsets_flips_or_whole_turns(head, method):
    series = head.series
    expected = phase_reliability(series, head.brain, method=method)
    shifted = replace(series, phase_rad=wrap(series.phase_rad + 1.1))
    assert np.abs(phase_reliability(shifted, head.brain, method=method) - expected).max() < 0.01  # weights of 8 bits
    flipped = replace(
        series,
        phase_rad=np.ascontiguousarray(series.phase_rad[:, ::-1]),
        magnitude=np.ascontiguousarray(series.magnitude[:, ::-1]),
    )
    found = phase_reliability(flipped, np.ascontiguousarray(head.brain[::-1]), method=method)
    assert np.abs(found[:, ::-1] - expected).max() < 0.01


def test_romeo_of_one_echo_and_of_invalid_voxels(head):
    valid = head.series.valid.copy()
    valid[26, 30, 22] = False
    quality = romeo_quality(replace(head.series, valid=valid), head.brain)
    assert quality[26, 30, 22] == 0
    assert np.median(quality[head.brain]) > 0.7


def test_tiny_and_empty():
    one = np.zeros((1, 1, 1), dtype=np.float32)
    inside = np.ones(one.shape, dtype=bool)
    assert phase_coherence(one, inside, (1.0, 1.0, 1.0))[0, 0, 0] == 1
    assert second_difference(one, inside)[0, 0, 0] == 0
    assert phase_coherence(one, ~inside, (1.0, 1.0, 1.0))[0, 0, 0] == 0
