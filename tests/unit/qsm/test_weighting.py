"""Susceptibility-weighted images: the mask's formula, the projection read literally, and veins of a simulated head."""

import numpy as np
import pytest

from brainlocus.images.qsm.weighting import WeightingSettings, minimum_projection, susceptibility_weighting
from brainlocus.simulate import HeadSettings, simulate_head

SHAPE = (20, 18, 8)
VOXEL = (1.0, 1.0, 3.0)


@pytest.fixture
def scan() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    phase = rng.uniform(-np.pi, np.pi, SHAPE).astype(np.float32)
    magnitude = rng.uniform(0.5, 1.5, SHAPE).astype(np.float32)
    return phase, magnitude, rng.random(SHAPE) < 0.9


def test_the_filter_is_the_phase_against_its_smooth_signal(scan: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    phase, magnitude, mask = scan
    image = susceptibility_weighting(phase, magnitude, mask, VOXEL, settings=WeightingSettings(sigma_mm=1.5))
    signal = np.where(mask, magnitude * np.exp(1j * phase.astype(float)), 0)
    # A Gaussian cut at four standard deviations along each axis of the slice, summed voxel by voxel.
    x = np.arange(-6, 7)
    weight = np.exp(-(x**2) / (2 * 1.5**2))
    weight /= weight.sum()
    padded = np.pad(signal, ((6, 6), (6, 6), (0, 0)))
    for i, j, k in ((0, 0, 0), (7, 9, 3), (19, 17, 7), (3, 16, 5)):
        smooth = sum(weight[a] * weight[b] * padded[i + a, j + b, k] for a in range(13) for b in range(13))
        expected = np.angle(signal[i, j, k] * np.conj(smooth)) if mask[i, j, k] else 0.0
        assert image.high_pass_rad[i, j, k] == pytest.approx(expected, abs=1e-4)


def test_positive_phase_darkens_to_the_fourth_power(scan: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image = susceptibility_weighting(*scan, VOXEL)
    high, darkness = image.high_pass_rad, image.phase_mask
    np.testing.assert_array_equal(darkness[high <= 0], 1)
    np.testing.assert_allclose(darkness[high > 0], 1 - high[high > 0] / np.pi, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(image.weighted, scan[1] * darkness**4, rtol=1e-6)
    np.testing.assert_array_equal(image.weighted[~scan[2]], scan[1][~scan[2]])
    once = susceptibility_weighting(*scan, VOXEL, settings=WeightingSettings(power=1))
    np.testing.assert_allclose(once.weighted, scan[1] * darkness, rtol=1e-6)


def test_wraps_and_offsets_change_nothing(scan: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    phase, magnitude, mask = scan
    plain = susceptibility_weighting(phase, magnitude, mask, VOXEL)
    turned = susceptibility_weighting(phase + np.float32(4 * np.pi + 1.0), magnitude, mask, VOXEL)
    apart = np.angle(np.exp(1j * (turned.high_pass_rad - plain.high_pass_rad)))
    np.testing.assert_allclose(apart, 0, atol=2e-4)


@pytest.mark.parametrize(("thickness", "reach"), [(3.0, 1), (1.0, 4), (2.0, 2), (20.0, 0)])
@pytest.mark.parametrize("axis", [0, 2])
def test_the_projection_is_the_minimum_of_a_slab(
    scan: tuple[np.ndarray, np.ndarray, np.ndarray], thickness: float, reach: int, axis: int
) -> None:
    _, magnitude, mask = scan
    found = np.moveaxis(minimum_projection(magnitude, mask, thickness, axis=axis), axis, 2)
    values, inside = np.moveaxis(np.where(mask, magnitude, np.inf), axis, 2), np.moveaxis(mask, axis, 2)
    for k in range(values.shape[2]):
        slab = values[:, :, max(0, k - reach) : k + reach + 1].min(axis=2)
        np.testing.assert_array_equal(found[:, :, k], np.where(inside[:, :, k], slab, 0))


def test_the_slab_lies_across_the_thickest_voxels(scan: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    phase, magnitude, mask = scan
    along = susceptibility_weighting(*(np.ascontiguousarray(np.moveaxis(part, 2, 0)) for part in scan), (3.0, 1.0, 1.0))
    expected = susceptibility_weighting(phase, magnitude, mask, VOXEL)
    np.testing.assert_allclose(np.moveaxis(along.projection, 0, 2), expected.projection, rtol=1e-6)
    chosen = susceptibility_weighting(phase, magnitude, mask, (1.0, 1.0, 1.0), settings=WeightingSettings(slice_axis=0))
    plain = minimum_projection(chosen.weighted, mask, 1.0, axis=0)
    np.testing.assert_array_equal(chosen.projection, plain)


def test_veins_of_a_head_stand_out_more_than_in_the_magnitude() -> None:
    head = simulate_head(HeadSettings((84, 105, 28), (2.0, 2.0, 2.0)), seed=0)
    series = head.series
    names = {name: label for label, name in head.labels.names.items()}
    image = susceptibility_weighting(series.phase_rad[1], series.magnitude[1], head.brain_mask, (2.0, 2.0, 2.0))
    veins = head.labels.labels == names["veins"]
    white = head.labels.labels == names["white_matter"]

    def contrast(values: np.ndarray) -> float:
        return float((np.mean(values[white]) - np.mean(values[veins])) / np.mean(values[white]))

    assert contrast(image.weighted) > contrast(series.magnitude[1]) + 0.1
    # Away from the cavities, white matter keeps its signal.
    assert np.median(image.weighted[white] / series.magnitude[1][white]) > 0.9


@pytest.mark.parametrize("change", [{"sigma_mm": 0.0}, {"power": 0}, {"slab_mm": -1.0}, {"slice_axis": 3}])
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Expected sigma_mm"):
        WeightingSettings(**change)
