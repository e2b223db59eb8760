from dataclasses import replace

import numpy as np
import pytest

from brainlocus.core.gradient_echo import GradientEcho
from brainlocus.images.qsm.echoes import combine_echoes, echo_weights, magnitude_noise
from tests.unit.qsm.phase_phantom import TIMES, acquisition, phantom


@pytest.fixture(scope="module")
def head():
    return phantom()


def test_weights_of_uk_biobank():
    assert echo_weights(TIMES) == pytest.approx((0.379888, 0.620112), abs=1e-6)
    assert sum(w * t for w, t in zip(echo_weights(TIMES), TIMES, strict=True)) == pytest.approx(0.015973, abs=1e-6)
    assert echo_weights((0.02,)) == (1.0,)


@pytest.mark.parametrize("weighting", ["phase", "frequency", "snr"])
def test_linear_phase_gives_the_true_field(head, weighting):
    found = combine_echoes(head.evolution_rad, head.series, head.brain, weighting=weighting)
    assert np.abs(found.field_ppm - head.field_ppm)[head.brain].max() < 2e-6 * np.abs(head.field_ppm).max() + 1e-6
    assert not found.field_ppm[~head.brain].any()
    assert np.isinf(found.standard_deviation_ppm[~head.brain]).all()


@pytest.mark.parametrize("weighting", ["phase", "frequency", "snr"])
def test_predicted_noise_is_the_noise(head, weighting):
    """Phase noise of sigma / M per echo, drawn; 1 % is four standard errors of the ratio over 22,704 voxels."""
    rng = np.random.default_rng(0)
    clean = replace(head.series, magnitude=np.abs(head.clean).astype(np.float32))
    noise = rng.standard_normal(clean.magnitude.shape) * head.noise_sd / np.maximum(clean.magnitude, 1e-3)
    found = combine_echoes(
        (head.evolution_rad + noise).astype(np.float32),
        clean,
        head.brain,
        weighting=weighting,
        noise_sd=head.noise_sd,
    )
    z = ((found.field_ppm - head.field_ppm) / found.standard_deviation_ppm)[head.brain]
    assert z.std() == pytest.approx(1, abs=0.02)


def test_snr_has_the_least_noise(head):
    deviations = {
        w: np.median(
            combine_echoes(head.evolution_rad, head.series, head.brain, weighting=w).standard_deviation_ppm[head.brain]
        )
        for w in ("phase", "frequency", "snr")
    }
    assert deviations["snr"] <= deviations["phase"] < deviations["frequency"]


def test_snr_weights_voxel_by_voxel(head):
    """An echo without signal drops out, whatever its phase."""
    magnitude = head.series.magnitude.copy()
    magnitude[1, 20:30] = 0
    unwrapped = head.evolution_rad.copy()
    unwrapped[1, 20:30] = 77
    found = combine_echoes(unwrapped, replace(head.series, magnitude=magnitude), head.brain, weighting="snr")
    assert np.abs(found.field_ppm - head.field_ppm)[head.brain].max() < 1e-4
    assert np.isfinite(found.standard_deviation_ppm[head.brain]).all()
    other = combine_echoes(unwrapped, replace(head.series, magnitude=magnitude), head.brain, weighting="phase")
    assert np.isinf(other.standard_deviation_ppm[20:30][head.brain[20:30]]).all()


def test_single_echo_has_weight_one(head):
    one = GradientEcho(
        head.series.phase_rad[1:],
        head.series.magnitude[1:],
        head.series.valid,
        acquisition(head.brain.shape, (2.5, 2.5, 2.75), (0.02,)),
    )
    for weighting in ("phase", "frequency", "snr"):
        found = combine_echoes(head.evolution_rad[1:], one, head.brain, weighting=weighting)
        assert np.abs(found.field_ppm - head.field_ppm)[head.brain].max() < 1e-4
        assert found.effective_echo_time_s == pytest.approx(0.02)


def test_noise_is_found_in_air_and_in_tissue(head):
    magnitude = head.series.magnitude[1]
    voxel = (2.5, 2.5, 2.75)
    assert magnitude_noise(magnitude, head.brain, voxel) == pytest.approx(head.noise_sd, rel=0.05)
    no_air = np.where(head.clean[0] != 0, magnitude, 0).astype(np.float32)
    assert magnitude_noise(no_air, head.brain, voxel) == pytest.approx(head.noise_sd, rel=0.05)
    summed = np.sqrt((head.series.magnitude**2).sum(axis=0) + 16 * head.noise_sd**2)  # a floor in the air
    assert magnitude_noise(summed, head.brain, voxel) == pytest.approx(head.noise_sd, rel=0.05)
    assert np.isnan(magnitude_noise(np.ones((3, 1, 2), dtype=np.float32), np.ones((3, 1, 2), dtype=bool), voxel))


def test_noise_does_not_depend_on_the_order_of_the_axes(head):
    magnitude, voxel = head.series.magnitude[1] * head.brain, (2.5, 2.5, 2.75)
    expected = magnitude_noise(magnitude, head.brain, voxel)
    turned = [np.ascontiguousarray(np.transpose(image, (2, 0, 1))) for image in (magnitude, head.brain)]
    assert magnitude_noise(turned[0], turned[1], (2.75, 2.5, 2.5)) == expected


def test_invalid_voxels_have_no_field(head):
    valid = head.series.valid.copy()
    valid[25, 30, 22] = False
    found = combine_echoes(head.evolution_rad, replace(head.series, valid=valid), head.brain)
    assert found.field_ppm[25, 30, 22] == 0
    assert np.isinf(found.standard_deviation_ppm[25, 30, 22])


def test_other_number_of_echoes_is_refused(head):
    with pytest.raises(ValueError, match="Expected 2 unwrapped echoes"):
        combine_echoes(head.evolution_rad[:1], head.series, head.brain)
