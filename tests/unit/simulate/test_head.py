"""The simulated head: its truth holds together, and the same seed draws the same scan."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter, laplace

from brainlocus.core.gradient_echo import ChannelSource, iter_channels
from brainlocus.numerics.dipole import dipole_field
from brainlocus.simulate import HEAD_PRESETS, HeadSettings, SimulatedHead, head_settings, simulate_head

COARSE = HeadSettings((42, 52, 42), (4.0, 4.0, 4.0))
THICK = HeadSettings((42, 52, 14), (4.0, 4.0, 12.0), slices_averaged=3)


@pytest.fixture(scope="module")
def head() -> SimulatedHead:
    return simulate_head(COARSE, seed=3)


@pytest.fixture(scope="module")
def thick() -> SimulatedHead:
    return simulate_head(THICK, seed=3)


def test_the_same_seed_simulates_the_same_head_whatever_the_workers(head: SimulatedHead) -> None:
    again = simulate_head(COARSE, seed=3, workers=2)
    for name in ("chi_ppm", "r2star", "total_field_ppm", "local_field_ppm", "phase_offset_rad", "signal"):
        np.testing.assert_array_equal(getattr(again, name), getattr(head, name))
    np.testing.assert_array_equal(again.series.phase_rad, head.series.phase_rad)
    np.testing.assert_array_equal(again.noisy_local_field(), head.noisy_local_field())


def test_another_seed_moves_veins_offset_and_noise_but_not_the_nuclei(head: SimulatedHead) -> None:
    other = simulate_head(COARSE, seed=4)
    assert np.abs(other.chi_ppm - head.chi_ppm).max() > 0.01
    assert np.corrcoef(other.phase_offset_rad.ravel(), head.phase_offset_rad.ravel())[0, 1] < 0.99
    assert not np.array_equal(other.noisy_local_field(), head.noisy_local_field())
    np.testing.assert_array_equal(other.brain_mask, head.brain_mask)
    pallidum = head.labels.labels == _label(head, "left_pallidum")
    both = pallidum & (other.labels.labels == _label(head, "left_pallidum"))
    assert np.median(np.abs(other.chi_ppm - head.chi_ppm)[both]) == 0


def test_the_local_field_is_that_of_the_brain(head: SimulatedHead) -> None:
    field = dipole_field(head.chi_ppm, (4.0, 4.0, 4.0), (0.0, 0.0, 1.0))
    np.testing.assert_array_equal(head.local_field_ppm, field)
    assert not head.chi_ppm[~head.brain_mask].any()


def test_the_background_field_is_harmonic_in_the_brain(head: SimulatedHead) -> None:
    # What is left without the brain's own sources has no Laplacian there but the shim's constant one. The sharp edges
    # of air ring at the grid's finest wavelength; the smoothing, which ends within the erosion, takes that out of both.
    inside = binary_erosion(head.brain_mask, iterations=6)
    background, local = (
        np.std(laplace(gaussian_filter(field, 1.0, truncate=3.0))[inside])
        for field in (head.total_field_ppm - head.local_field_ppm, head.local_field_ppm)
    )
    assert background < 0.1 * local


def test_the_shim_leaves_no_quadratic_field_in_the_brain(head: SimulatedHead) -> None:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in COARSE.shape), indexing="ij")
    field = head.total_field_ppm[head.brain_mask].astype(float)
    for term in (np.ones_like(x), x, y, z, x**2, y**2, z**2, x * y, x * z, y * z):
        values = term[head.brain_mask]
        assert abs(np.dot(values, field)) < 1e-4 * np.linalg.norm(values) * np.linalg.norm(field)


def test_the_phase_follows_the_field_and_the_echo_time(head: SimulatedHead) -> None:
    turns = head.acquisition.hz_per_ppm * head.total_field_ppm.astype(float)
    bright = head.brain_mask & (np.abs(head.signal[0]) > 0.3)
    for echo, time in enumerate(head.acquisition.echo_time_s):
        expected = np.exp(1j * (2 * np.pi * turns * time + head.phase_offset_rad))
        np.testing.assert_allclose(np.exp(1j * np.angle(head.signal[echo][bright])), expected[bright], atol=1e-4)
        off = np.angle(np.exp(1j * head.series.phase_rad[echo]) / expected)[bright]
        assert 0.5 < np.std(off) / np.mean(head.sigma / np.abs(head.signal[echo][bright])) < 2
    assert np.abs(head.series.phase_rad).max() <= np.pi


def test_magnitudes_decay_with_r2star_where_slices_are_thin(head: SimulatedHead) -> None:
    first, second = np.abs(head.signal)[:, head.brain_mask]
    rate = np.log(first / second) / (0.020 - 0.0094)
    np.testing.assert_allclose(rate, head.r2star[head.brain_mask], atol=1e-3, rtol=1e-4)


def test_thick_slices_dephase_where_the_field_varies_along_them(thick: SimulatedHead) -> None:
    inside = thick.brain_mask & (np.abs(thick.signal[1]) > 0)
    apparent = np.log(np.abs(thick.signal[0][inside]) / np.abs(thick.signal[1][inside])) / (0.020 - 0.0094)
    excess = apparent - thick.r2star[inside]
    gradient = np.abs(np.gradient(thick.total_field_ppm, axis=2)[inside]) * thick.acquisition.hz_per_ppm
    steep, flat = gradient > np.percentile(gradient, 90), gradient < np.percentile(gradient, 20)
    assert np.median(excess[steep]) > 5 > np.median(np.abs(excess[flat]))


def test_truth_on_thick_slices_is_the_average_of_thin_ones(thick: SimulatedHead) -> None:
    thin = simulate_head(replace(THICK, shape=(42, 52, 42), voxel_size_mm=(4.0, 4.0, 4.0), slices_averaged=1), seed=3)
    for name in ("chi_ppm", "r2star", "total_field_ppm", "local_field_ppm"):
        averaged = getattr(thin, name).reshape(42, 52, 14, 3).mean(axis=3)
        np.testing.assert_allclose(getattr(thick, name), averaged, atol=2e-6 * np.abs(averaged).max())
    first = np.abs(thin.signal * np.exp(-1j * thin.phase_offset_rad)).reshape(2, 42, 52, 14, 3).mean(axis=4)
    assert (np.abs(thick.signal) <= first + 1e-5).all()


def test_nuclei_have_their_planted_values_and_sides() -> None:
    head = simulate_head("3mm", seed=1)
    world_x = head.acquisition.grid.affine[0, 0] * np.arange(56) + head.acquisition.grid.affine[0, 3]
    for name, chi in (("pallidum", 0.131), ("putamen", 0.038), ("caudate", 0.044), ("dentate", 0.152)):
        for side in (-1, 1):
            inside = head.labels.labels == _label(head, f"{'left' if side < 0 else 'right'}_{name}")
            # Edge voxels hold some of what surrounds them.
            assert 0.75 * chi < np.median(head.chi_ppm[inside]) < 1.05 * chi
            assert (np.sign(world_x[np.argwhere(inside)[:, 0]]) == side).all()
    ventricles = head.labels.labels == _label(head, "lateral_ventricles")
    assert 8_000 < ventricles.sum() * 27 < 30_000
    assert abs(np.median(head.chi_ppm[ventricles]) - 0.019) < 0.002
    assert 1.7e6 < head.brain_mask.sum() * 27 < 2.0e6


def test_a_calcification_is_planted_on_demand() -> None:
    head = simulate_head("3mm", seed=3)
    label = _label(head, "calcification")
    assert not (head.labels.labels == label).any()
    stone = simulate_head(replace(head_settings("3mm"), calcification=True), seed=3)
    assert (stone.labels.labels == label).any()
    # A sphere of 3 mm fills 113 mm^3, four voxels.
    moment = (stone.chi_ppm - head.chi_ppm).sum() * 27
    assert moment == pytest.approx(-3.0 * 113, rel=0.3)


def test_spread_makes_people_differ_in_their_nuclei(head: SimulatedHead) -> None:
    other = simulate_head(replace(COARSE, spread=0.2), seed=3)
    left, right = (other.labels.labels == _label(head, f"{side}_putamen") for side in ("left", "right"))
    ratio = np.median(other.chi_ppm[left] / head.chi_ppm[left])
    assert abs(ratio - 1) > 0.01
    assert np.median(other.chi_ppm[right] / head.chi_ppm[right]) == pytest.approx(ratio, abs=0.02)


def test_channels_hold_the_same_head_and_their_own_noise(head: SimulatedHead) -> None:
    source = head.channels(6)
    assert isinstance(source, ChannelSource)
    coils = list(iter_channels(source))
    np.testing.assert_array_equal(source.read(2).phase_rad, coils[2].phase_rad)
    inside = head.brain_mask
    # The channels' offsets cancel in the products of echo 2 with echo 1.
    product = sum(c.magnitude[0] * c.magnitude[1] * np.exp(1j * (c.phase_rad[1] - c.phase_rad[0])) for c in coils)
    expected = head.signal[1] * head.signal[0].conj()
    error = np.angle(product * expected.conj())[inside]
    assert np.sqrt(np.mean(error**2)) < 0.06
    power = sum(c.magnitude[0] ** 2 for c in coils)[inside] / np.abs(head.signal[0][inside]) ** 2
    assert np.mean(power) == pytest.approx(1, abs=0.1)
    # Plainly added, channels cancel.
    summed = np.abs(sum(c.magnitude[0] * np.exp(1j * c.phase_rad[0]) for c in coils))[inside]
    assert np.median(summed / sum(c.magnitude[0] for c in coils)[inside]) < 0.8


def test_without_noise_the_series_is_the_signal() -> None:
    clean = simulate_head(replace(COARSE, snr=float("inf")), seed=1)
    np.testing.assert_array_equal(clean.series.magnitude, np.abs(clean.signal))


def test_tilted_slices_turn_the_field_in_the_voxels(head: SimulatedHead) -> None:
    tilted = simulate_head(replace(COARSE, tilt_degrees=20.0), seed=3)
    np.testing.assert_allclose(
        tilted.acquisition.b0_direction, (0, np.sin(np.radians(20)), np.cos(np.radians(20))), atol=1e-12
    )
    assert tilted.brain_mask.sum() == pytest.approx(head.brain_mask.sum(), rel=0.02)
    field = dipole_field(tilted.chi_ppm, (4.0, 4.0, 4.0), tilted.acquisition.b0_direction)
    np.testing.assert_array_equal(tilted.local_field_ppm, field)


def test_presets_hold_the_uk_biobank_grid() -> None:
    settings = head_settings("ukb")
    assert (settings.shape, settings.voxel_size_mm) == ((256, 288, 48), (0.8, 0.8, 3.0))
    assert settings.acquisition.echo_time_s == (0.0094, 0.020)
    assert set(HEAD_PRESETS) >= {"1mm", "1.5mm", "2mm", "ukb"}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"slices_averaged": 0}, "fine slices"), ({"snr": 0.0}, "snr"), ({"spread": -1.0}, "spread")],
)
def test_impossible_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(COARSE, **change)


def test_unknown_grids_and_channels_are_refused(head: SimulatedHead) -> None:
    with pytest.raises(ValueError, match="Expected a grid among"):
        head_settings("7mm")
    with pytest.raises(ValueError, match="at least one channel"):
        head.channels(0)
    with pytest.raises(IndexError, match="0 to 1"):
        head.channels(2).read(2)


def _label(head: SimulatedHead, name: str) -> int:
    return next(label for label, known in head.labels.names.items() if known == name)
