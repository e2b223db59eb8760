"""R2* and T2*: closed forms, a general minimiser, planted decays and what is not a decay."""

import os
from pathlib import Path

import numpy as np
import pytest

from brainlocus.images.qsm.relaxation import RelaxationSettings, fit_relaxation
from tests.reference.qsm_relaxation import naive_exponential, naive_line, naive_ratio

TWO = (0.0094, 0.020)
FIVE = (0.004, 0.009, 0.014, 0.019, 0.024)
UNEVEN = (0.003, 0.007, 0.015, 0.020, 0.032)


def _decays(times: tuple[float, ...], sigma: float, seed: int = 0, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return magnitudes (echoes, n, 1, 1) with complex noise, and their rates."""
    rng = np.random.default_rng(seed)
    rate, size = rng.uniform(5, 60, n), rng.uniform(0.5, 1.5, n)
    signal = size * np.exp(-np.outer(times, rate))
    noise = rng.normal(0, sigma, (2, *signal.shape))
    return np.hypot(signal + noise[0], noise[1]).astype(np.float32).reshape(len(times), n, 1, 1), rate


def _all(magnitude: np.ndarray) -> np.ndarray:
    return np.ones(magnitude.shape[1:], dtype=bool)


def test_two_echoes_give_the_ratio() -> None:
    magnitude, _ = _decays(TWO, 0.02)
    fit = fit_relaxation(magnitude, TWO, _all(magnitude), sigma=0.02, settings=RelaxationSettings(floor=0.0))
    expected = [naive_ratio(float(a), float(b), TWO) for a, b in magnitude[:, :, 0, 0].T]
    np.testing.assert_allclose(fit.r2star[:, 0, 0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fit.t2star_s * fit.r2star, np.where(np.isnan(fit.r2star), np.nan, 1), rtol=1e-6)
    error = 0.02 / (TWO[1] - TWO[0]) * np.sqrt((1 / magnitude.astype(float) ** 2).sum(axis=0))
    kept = np.isfinite(fit.r2star)
    np.testing.assert_allclose(fit.standard_error[kept], error[kept], rtol=1e-5)


def test_arlo_of_two_echoes_is_the_ratio() -> None:
    magnitude, _ = _decays(TWO, 0.01)
    line, arlo = (
        fit_relaxation(magnitude, TWO, _all(magnitude), settings=RelaxationSettings(method=method))
        for method in ("log-linear", "arlo")
    )
    np.testing.assert_array_equal(line.r2star, arlo.r2star)
    assert np.isnan(arlo.standard_error).all()


@pytest.mark.parametrize("times", [FIVE, UNEVEN])
def test_more_echoes_are_a_weighted_line(times: tuple[float, ...]) -> None:
    magnitude, _ = _decays(times, 0.01, n=40)
    fit = fit_relaxation(magnitude, times, _all(magnitude), sigma=0.01, settings=RelaxationSettings(floor=0.0))
    expected = [naive_line(values.astype(float), np.array(times)) for values in magnitude[:, :, 0, 0].T]
    np.testing.assert_allclose(fit.r2star[:, 0, 0], [rate for rate, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(fit.standard_error[:, 0, 0], [0.01 * error for _, error in expected], rtol=1e-5)


@pytest.mark.parametrize("times", [FIVE, UNEVEN])
@pytest.mark.parametrize("method", ["log-linear", "arlo"])
def test_clean_decays_are_recovered(times: tuple[float, ...], method: str) -> None:
    magnitude, rate = _decays(times, 0.0)
    fit = fit_relaxation(magnitude, times, _all(magnitude), settings=RelaxationSettings(method=method))
    # A parabola through an exponential is off by its fourth order: 1e-3 at 60/s and steps of 12 ms.
    np.testing.assert_allclose(fit.r2star[:, 0, 0], rate, rtol=1e-5 if method == "log-linear" else 8e-3)
    assert fit.n_not_falling == fit.n_too_few == 0


@pytest.mark.parametrize("method", ["log-linear", "arlo"])
def test_both_methods_are_as_good_as_a_general_minimiser(method: str) -> None:
    sigma = 0.01
    magnitude, rate = _decays(FIVE, sigma, n=300)
    fit = fit_relaxation(
        magnitude, FIVE, _all(magnitude), sigma=sigma, settings=RelaxationSettings(method=method, floor=0.0)
    )
    general = np.array([naive_exponential(v.astype(float), np.array(FIVE)) for v in magnitude[:, :, 0, 0].T])
    error = fit.r2star[:, 0, 0] - rate
    assert np.sqrt(np.mean(error**2)) < 1.1 * np.sqrt(np.mean((general - rate) ** 2))
    # The stated error is the true one.
    assert np.std(error / fit.standard_error[:, 0, 0]) == pytest.approx(1, abs=0.15)


def test_the_residuals_tell_the_noise_when_nobody_does() -> None:
    magnitude, rate = _decays(FIVE, 0.01, n=2000)
    fit = fit_relaxation(magnitude, FIVE, _all(magnitude))
    score = (fit.r2star[:, 0, 0] - rate) / fit.standard_error[:, 0, 0]
    # Three degrees of freedom: the interquartile range of Student's t is 1.53.
    assert np.diff(np.percentile(score, [25, 75]))[0] == pytest.approx(1.53, abs=0.12)


def test_what_does_not_fall_is_not_a_number() -> None:
    nan, inf = np.nan, np.inf
    pairs = np.array(
        [[1, 0.5], [0.5, 1], [1, 1], [0, 0], [1, 0], [nan, 1], [1, nan], [inf, 1], [-1, -2]], dtype=np.float32
    )
    magnitude = pairs.T.reshape(2, 9, 1, 1)
    fit = fit_relaxation(magnitude, TWO, _all(magnitude))
    assert np.isfinite(fit.r2star[:, 0, 0]).tolist() == [True] + [False] * 8
    assert np.isfinite(fit.t2star_s[:, 0, 0]).tolist() == [True] + [False] * 8
    assert (fit.n_not_falling, fit.n_too_few) == (2, 6)
    assert fit.n_echoes[:, 0, 0].tolist() == [2, 2, 2, 0, 1, 0, 1, 0, 0]


def test_echoes_in_the_noise_are_left_out() -> None:
    # The last magnitudes are the noise's own, 1.25 standard deviations, and no longer fall.
    times = tuple(0.010 * (1 + k) for k in range(8))
    magnitude, rate = _decays(times, 0.05, n=500)
    floor = fit_relaxation(magnitude, times, _all(magnitude), sigma=0.05, settings=RelaxationSettings(method="arlo"))
    naive = fit_relaxation(magnitude, times, _all(magnitude), settings=RelaxationSettings(method="arlo"))
    fast = rate > 40
    assert floor.n_echoes[fast].mean() < 5
    assert abs(np.nanmedian(floor.r2star[:, 0, 0][fast] - rate[fast])) < abs(
        np.nanmedian(naive.r2star[:, 0, 0][fast] - rate[fast])
    )


def test_outside_the_mask_lies_nothing() -> None:
    magnitude, _ = _decays(TWO, 0.0, n=4)
    mask = np.array([True, False, True, False]).reshape(4, 1, 1)
    fit = fit_relaxation(magnitude, TWO, mask)
    for image in (fit.r2star, fit.t2star_s):
        np.testing.assert_array_equal(np.isfinite(image), mask)
    assert fit.n_echoes[~mask].tolist() == [0, 0]


def test_wrong_arguments_are_refused() -> None:
    magnitude, _ = _decays(TWO, 0.0, n=2)
    for times in ((0.01,), (0.02, 0.01), (0.01, 0.02, 0.03)):
        with pytest.raises(ValueError, match="increasing echo times"):
            fit_relaxation(magnitude, times, _all(magnitude))
    with pytest.raises(ValueError, match="log-linear, arlo"):
        RelaxationSettings(method="magic")
    with pytest.raises(ValueError, match="floor"):
        RelaxationSettings(floor=-1.0)


@pytest.mark.skipif("BRAINLOCUS_DATA" not in os.environ, reason="needs the real test images")
def test_three_real_echoes_decay_as_a_head_does() -> None:
    nibabel = pytest.importorskip("nibabel")
    path = Path(os.environ["BRAINLOCUS_DATA"]) / "qsm" / "mriresearchtools_small" / "Mag.nii"
    image = nibabel.load(path)
    # The header's scaling is not a number; the stored values are proportional to the magnitude.
    magnitude = np.moveaxis(np.asarray(image.dataobj.get_unscaled(), dtype=np.float32), 3, 0)
    times = (0.004, 0.008, 0.012)
    tissue = magnitude[0] > np.percentile(magnitude[0], 60)
    line, arlo = (
        fit_relaxation(magnitude, times, tissue, settings=RelaxationSettings(method=method))
        for method in ("log-linear", "arlo")
    )
    both = np.isfinite(line.r2star) & np.isfinite(arlo.r2star)
    assert both.sum() > 0.9 * tissue.sum()
    # 7 T brain: some 20 to 60 1/s.
    assert 10 < np.median(line.r2star[both]) < 80
    assert np.corrcoef(line.r2star[both], arlo.r2star[both])[0, 1] > 0.95
    some = np.argwhere(both)[:: both.sum() // 50]
    general = [naive_exponential(magnitude[(slice(None), *voxel)].astype(float), np.array(times)) for voxel in some]
    np.testing.assert_allclose(line.r2star[tuple(some.T)], general, rtol=0.05, atol=1.0)
