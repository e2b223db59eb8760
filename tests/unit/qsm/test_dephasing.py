"""Signal lost to through-slice gradients: the model, its limits, and a simulated head with thick slices."""

from dataclasses import replace

import numpy as np
import pytest

from brainlocus.core import Parcellation
from brainlocus.images.qsm.dephasing import (
    DephasingSettings,
    attenuation,
    correct_r2star,
    dephasing_rate,
    gradient_confound,
    slice_axis,
    small_gradient_rate,
    through_slice_gradient,
)
from brainlocus.images.qsm.relaxation import fit_relaxation
from brainlocus.simulate import HeadSettings, simulate_head
from tests.reference.qsm_relaxation import naive_sub_slices

TWO = (0.0094, 0.020)


def _image(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32).reshape(-1, 1, 1)


def test_a_linear_field_has_its_gradient_everywhere() -> None:
    x, y, z = np.meshgrid(np.arange(6.0), np.arange(5.0), np.arange(7.0), indexing="ij")
    field = 3.0 * x - 2.0 * y + 0.5 * z
    mask = np.ones(field.shape, dtype=bool)
    for axis, slope in ((0, 3.0), (1, -2.0), (2, 0.5)):
        np.testing.assert_allclose(through_slice_gradient(field, mask, axis=axis), slope, atol=1e-6)


def test_differences_are_central_inside_and_one_sided_at_the_edge() -> None:
    field = (np.arange(7.0) ** 2).reshape(1, 1, 7)
    mask = np.array([1, 1, 1, 0, 1, 0, 1], dtype=bool).reshape(1, 1, 7)
    field[~mask] = np.nan
    gradient = through_slice_gradient(field, mask, axis=2)[0, 0]
    np.testing.assert_allclose(gradient[:3], [1, 2, 3])
    # A voxel alone along the axis has no gradient.
    assert np.isnan(gradient[3:]).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_slice_axis_may_be_any(axis: int) -> None:
    rng = np.random.default_rng(0)
    field, mask = rng.normal(size=(6, 6, 6)), rng.random((6, 6, 6)) < 0.8
    expected = through_slice_gradient(np.moveaxis(field, axis, 2), np.moveaxis(mask, axis, 2), axis=2)
    np.testing.assert_array_equal(through_slice_gradient(field, mask, axis=axis), np.moveaxis(expected, 2, axis))
    size = [1.0, 1.0, 1.0]
    size[axis] = 3.0
    assert slice_axis((size[0], size[1], size[2])) == axis


@pytest.mark.parametrize("n", [2, 3, 8])
def test_points_of_a_slice_are_summed_as_they_are(n: int) -> None:
    for gradient in (0.0, 7.0, -23.0, 44.0):
        found = attenuation(np.array([gradient]), 0.02, sub_slices=n)[0]
        assert found == pytest.approx(naive_sub_slices(gradient, 0.02, n), abs=1e-12)


def test_many_points_are_a_continuous_slice() -> None:
    gradient = np.linspace(0, 45, 10)
    np.testing.assert_allclose(attenuation(gradient, 0.02, sub_slices=500), attenuation(gradient, 0.02), atol=2e-5)


def test_the_rate_is_that_of_the_lost_signal() -> None:
    gradient = _image([0.0, 5.0, -10.0, 30.0])
    rate = dephasing_rate(gradient, TWO)[:, 0, 0]
    left = [np.abs(np.sinc(gradient[:, 0, 0].astype(float) * time)) for time in TWO]
    np.testing.assert_allclose(rate, np.log(left[0] / left[1]) / (TWO[1] - TWO[0]), rtol=1e-5, atol=1e-6)
    small = small_gradient_rate(np.array([10.0]), TWO)[0]
    assert small == pytest.approx(4.836, abs=0.001)
    # The next term of the series is positive: the first alone falls short, by less than a fifth below 15 Hz.
    exact = dephasing_rate(_image([15.0]), TWO)[0, 0, 0]
    assert 0.8 * exact < small_gradient_rate(np.array([15.0]), TWO)[0] < exact


def test_near_the_null_there_is_no_rate() -> None:
    rate = dephasing_rate(_image([44.9, 45.1, 60.0, np.nan]), TWO)[:, 0, 0]
    assert np.isfinite(rate).tolist() == [True, False, False, False]
    wider = dephasing_rate(_image([47.0]), TWO, settings=DephasingSettings(largest_cycles=0.95))
    assert np.isfinite(wider).all()


def test_many_echoes_have_the_rate_of_their_fit() -> None:
    # A decay with dephasing, fitted: the rate is the true one plus dR.
    times = (0.004, 0.008, 0.012, 0.016, 0.020)
    gradient = _image([0.0, 4.0, 8.0, 12.0])
    signal = np.stack([np.exp(-time * 0.5) * attenuation(gradient, time) for time in times]).astype(np.float32)
    fit = fit_relaxation(signal, times, np.ones((4, 1, 1), dtype=bool))
    # The decay is slow, so that its weights hardly differ from those of the dephasing alone.
    np.testing.assert_allclose(fit.r2star - dephasing_rate(gradient, times), 0.5, atol=0.02)


def test_the_correction_stops_where_the_model_does() -> None:
    gradient = _image([5.0, 19.0, 21.0, 50.0, np.nan])
    rate = dephasing_rate(gradient, TWO)
    corrected = correct_r2star(rate + np.float32(20), rate, gradient)[:, 0, 0]
    np.testing.assert_allclose(corrected[:2], 20, rtol=1e-5)
    assert np.isnan(corrected[2:]).all()
    assert np.isnan(correct_r2star(_image([1.0]), _image([2.0]), _image([1.0]))).all()


def test_the_confound_is_the_median_of_a_region() -> None:
    labels = np.array([1, 1, 1, 2, 2, 3, 0]).reshape(-1, 1, 1)
    gradient = _image([1.0, -3.0, 2.0, 60.0, 70.0, np.nan, 5.0])
    rate = dephasing_rate(gradient, TWO)
    regions = Parcellation(labels, np.eye(4), {1: "putamen", 2: "accumbens", 3: "dentate", 4: "caudate"})
    found = gradient_confound(gradient, rate, regions)
    assert found.names == ("putamen", "accumbens", "dentate", "caudate")
    assert found.gradient_hz[:2].tolist() == [2.0, 65.0]
    assert found.squared_gradient_hz2[:2].tolist() == [4.0, (3600 + 4900) / 2]
    assert found.rate[0] == pytest.approx(float(rate[2, 0, 0]))
    assert np.isnan(found.rate[1:]).all()
    assert found.n_voxels.tolist() == [3, 2, 0, 0]
    assert found.n_lost.tolist() == [0, 2, 0, 0]
    assert np.isnan(found.gradient_hz[2:]).all()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="slice axis"):
        through_slice_gradient(np.zeros((3, 3, 3)), np.ones((3, 3, 3), dtype=bool), axis=3)
    for times in ((0.01,), (0.02, 0.01)):
        with pytest.raises(ValueError, match="increasing echo times"):
            dephasing_rate(_image([1.0]), times)
    with pytest.raises(ValueError, match="largest_cycles"):
        DephasingSettings(largest_cycles=1.0)


def test_a_simulated_head_dephases_as_the_model_says() -> None:
    settings = HeadSettings((42, 52, 32), (4.0, 4.0, 3.0), slices_averaged=3, snr=float("inf"))
    thick = simulate_head(settings, seed=2)
    thin = simulate_head(
        replace(settings, shape=(42, 52, 96), voxel_size_mm=(4.0, 4.0, 1.0), slices_averaged=1), seed=2
    )
    hz = np.float32(thick.acquisition.hz_per_ppm)
    excess = fit_relaxation(np.abs(thick.signal), TWO, thick.brain_mask).r2star - thick.r2star
    across = through_slice_gradient(thick.total_field_ppm * hz, thick.brain_mask, axis=2)
    fine = (thin.total_field_ppm * hz).reshape(42, 52, 32, 3)
    within = (fine[..., 2] - fine[..., 0]) * np.float32(1.5)
    model, exact = dephasing_rate(across, TWO), dephasing_rate(within, TWO, sub_slices=3)
    with np.errstate(invalid="ignore"):
        clear = np.isfinite(excess) & np.isfinite(exact) & (np.abs(across) > 5) & (np.abs(across) < 15)
    mean = excess[clear].mean()
    assert mean > 1.0
    # With the slope inside each slice and the three points that a simulated slice has, the model holds.
    assert np.corrcoef(excess[clear], exact[clear])[0, 1] > 0.95
    assert abs((excess - exact)[clear].mean()) < 0.1 * mean
    # Differences between slices know less of the single voxel.
    assert 0.3 < np.corrcoef(excess[clear], model[clear])[0, 1] < 0.95
