import numpy as np
import pytest

from brainlocus.images.qsm.laplacian import unwrap_laplacian
from tests.reference.qsm_phase import naive_laplacian_unwrapping
from tests.unit.qsm.phase_phantom import wrap

VOXEL = (0.8, 1.0, 3.0)


def smooth_phase(shape, steep=1.0):
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return (steep * (6 * x * x - 4 * x * y + 3 * y + 5 * z * x)).astype(np.float32)


def differs_by_constant(a, b):
    d = a.astype(np.float64) - b
    return np.abs(d - d.mean()).max()


@pytest.mark.parametrize("flux", ["differences", "sine-cosine"])
@pytest.mark.parametrize("shape", [(5, 4, 3), (7, 1, 2), (6, 6, 1)])
def test_equals_dense_solution_on_noise(flux, shape):
    phase = np.random.default_rng(0).uniform(-np.pi, np.pi, shape).astype(np.float32)
    found = unwrap_laplacian(phase, VOXEL, flux=flux)
    assert differs_by_constant(found, naive_laplacian_unwrapping(phase, VOXEL, flux == "sine-cosine")) < 2e-5


@pytest.mark.parametrize("shape", [(33, 41, 17), (64, 48, 1), (1, 30, 1), (37, 23, 29)])
def test_smooth_phase_is_found_up_to_a_constant(shape):
    true = smooth_phase(shape)
    assert max(np.abs(np.diff(true, axis=a)).max(initial=0) for a in range(3)) < np.pi
    assert differs_by_constant(unwrap_laplacian(wrap(true), VOXEL), true) < 1e-3


def test_sine_underestimates_where_phase_is_steep():
    true = smooth_phase((40, 40, 20), steep=2.5)
    assert max(np.abs(np.diff(true, axis=a)).max() for a in range(3)) < np.pi
    differences = differs_by_constant(unwrap_laplacian(wrap(true), VOXEL), true)
    sine = differs_by_constant(unwrap_laplacian(wrap(true), VOXEL, flux="sine-cosine"), true)
    assert differences < 1e-3 < 1.0 < sine


def test_mean_is_that_of_the_input():
    phase = wrap(smooth_phase((20, 21, 9)) + 2)
    assert unwrap_laplacian(phase, VOXEL).mean() == pytest.approx(phase.mean(), abs=1e-5)


def test_global_constant_shifts_the_result_by_a_constant():
    true = smooth_phase((20, 21, 9)) + np.random.default_rng(1).normal(0, 0.4, (20, 21, 9)).astype(np.float32)
    a, b = unwrap_laplacian(wrap(true), VOXEL), unwrap_laplacian(wrap(true + 1.3), VOXEL)
    assert differs_by_constant(a, b) < 1e-4


def test_flips_and_turns_move_with_the_volume():
    phase = np.random.default_rng(2).uniform(-np.pi, np.pi, (12, 9, 7)).astype(np.float32)
    found = unwrap_laplacian(phase, VOXEL)
    assert differs_by_constant(unwrap_laplacian(phase[::-1, :, ::-1], VOXEL), found[::-1, :, ::-1]) < 1e-4
    turned = unwrap_laplacian(np.ascontiguousarray(phase.transpose(2, 0, 1)), (VOXEL[2], VOXEL[0], VOXEL[1]))
    assert differs_by_constant(turned, found.transpose(2, 0, 1)) < 1e-4


def test_nan_stays_and_does_not_spread():
    true = smooth_phase((24, 20, 10))
    phase = wrap(true)
    phase[5:7, 3, 2] = np.nan
    found = unwrap_laplacian(phase, VOXEL)
    assert np.array_equal(np.isnan(found), np.isnan(phase))
    error = np.abs(found - true - np.nanmedian(found - true))
    assert np.nanmax(error) < 0.5
    assert np.nanmax(error[12:]) < 0.05
    assert np.isnan(unwrap_laplacian(np.full((3, 3, 3), np.nan, dtype=np.float32), VOXEL)).all()


def test_mask_crops():
    true = smooth_phase((60, 50, 20))
    mask = np.zeros(true.shape, dtype=bool)
    mask[30:36, 20:30, 9:11] = True
    found = unwrap_laplacian(wrap(true), VOXEL, mask=mask)
    assert differs_by_constant(found[mask], true[mask]) < 1e-3
    # 10 mm around the mask, in voxels 13, 10 and 4.
    assert np.array_equal(np.argwhere(found != 0).min(axis=0), [17, 10, 5])


def test_input_is_not_changed_and_workers_change_nothing():
    phase = np.random.default_rng(3).uniform(-np.pi, np.pi, (30, 25, 12)).astype(np.float32)
    before = phase.copy()
    assert np.array_equal(unwrap_laplacian(phase, VOXEL), unwrap_laplacian(phase, VOXEL, workers=2))
    assert np.array_equal(phase, before)


def test_empty_mask_is_refused():
    with pytest.raises(ValueError, match="mask is empty"):
        unwrap_laplacian(np.zeros((3, 3, 3), dtype=np.float32), VOXEL, mask=np.zeros((3, 3, 3), dtype=bool))
