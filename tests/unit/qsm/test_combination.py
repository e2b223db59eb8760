from dataclasses import replace

import numpy as np
import pytest

from brainlocus.core.gradient_echo import Channel, ChannelSource
from brainlocus.images.qsm.bipolar import correct_bipolar
from brainlocus.images.qsm.combination import combine_channels, remove_phase_offset
from brainlocus.images.qsm.smoothing import smooth_complex, smooth_phase
from tests.reference.qsm_phase import naive_offset
from tests.unit.qsm.phase_phantom import Coils, phantom, wrap


@pytest.fixture(scope="module")
def head():
    return phantom()


@pytest.fixture(scope="module")
def combined(head):
    return combine_channels(Coils(head), head.brain)


def rms_of_phase(found, true, mask):
    """Root mean square after the mean is removed, as the specification scores it."""
    d = wrap(found - true)[mask].astype(np.float64)
    d = wrap(d - np.angle(np.exp(1j * d).mean()))
    return float(np.sqrt(np.mean(d.astype(np.float64) ** 2)))


def test_smoothing_equals_a_sum_over_all_voxels():
    rng = np.random.default_rng(0)
    image = (rng.standard_normal((7, 5, 6)) + 1j * rng.standard_normal((7, 5, 6))).astype(np.complex64)
    found = smooth_complex(image, (0.8, 1.5, 3.0), 2.5)
    assert np.abs(found - naive_offset(image, (0.8, 1.5, 3.0), 2.5)).max() < 2e-6
    assert np.array_equal(smooth_complex(image, (1.0, 1.0, 1.0), 0.0), image)


def test_smoothed_phase_keeps_a_gradient_up_to_the_rim_and_goes_on_outside():
    x, y, z = np.meshgrid(*(np.arange(n) * 2.0 for n in (30, 30, 20)), indexing="ij")
    true = 0.08 * x - 0.05 * y + 0.03 * z + 0.0004 * x * y
    inside = (x - 29) ** 2 + (y - 29) ** 2 + (z - 19) ** 2 < 17**2
    vector = np.where(inside, np.exp(1j * true), 0).astype(np.complex64)
    plain = np.abs(wrap(np.angle(smooth_complex(vector, (2.0, 2.0, 2.0), 8.0)) - true))
    better = np.abs(wrap(np.angle(smooth_phase(vector, (2.0, 2.0, 2.0), 8.0)) - true))
    assert better[inside].max() < 0.05 < 0.5 < plain[inside].max()
    near = (x - 29) ** 2 + (y - 29) ** 2 + (z - 19) ** 2 < 23**2
    assert better[near].max() < 0.2


def test_offset_of_a_combined_series_is_found(head):
    before = head.series.phase_rad.copy()
    removed = remove_phase_offset(head.series, head.brain)
    assert removed.status == "removed"
    assert rms_of_phase(removed.offset_rad, head.offset_rad, head.brain) < 0.015
    for echo, true in zip(removed.series.phase_rad, head.evolution_rad, strict=True):
        d = wrap(echo - true)[head.brain]
        assert abs(np.median(d)) < 0.005  # no constant is left either
        assert d.std() < 0.03  # noise is 0.017 in the second echo
    assert np.array_equal(head.series.phase_rad, before)
    assert removed.series.magnitude is head.series.magnitude


def test_twelve_channels(head, combined):
    """The specification asks for 0.05 rad and Q 0.99; its prototype reached 0.033 and 0.036 rad."""
    assert combined.status == "removed"
    assert combined.median_quality > 0.99
    for echo, true in zip(combined.series.phase_rad, head.evolution_rad, strict=True):
        assert rms_of_phase(echo, true, head.brain) < 0.02
    naive = sum(coil.magnitude * np.exp(1j * coil.phase_rad) for coil in (Coils(head).read(c) for c in range(12)))
    assert rms_of_phase(np.angle(naive[0]), head.evolution_rad[0], head.brain) > 0.5


def test_channels_are_read_twice_and_quality_lies_between_0_and_1(head, combined):
    coils = Coils(head, n_channels=3)
    assert isinstance(coils, ChannelSource)
    made = combine_channels(coils, head.brain)
    assert coils.reads == 6
    assert made.quality.min() >= 0
    assert made.quality.max() <= 1
    assert combined.quality[~head.brain].mean() < combined.quality[head.brain].mean()


def test_one_channel_is_the_combined_series(head):
    class One:
        n_channels = 1
        acquisition = head.series.acquisition

        def read(self, channel):
            return Channel(head.series.phase_rad, head.series.magnitude)

    made = combine_channels(One(), head.brain)
    removed = remove_phase_offset(head.series, head.brain).series
    assert np.abs(wrap(made.series.phase_rad - removed.phase_rad))[:, head.brain].max() < 1e-4
    assert np.allclose(made.series.magnitude, removed.magnitude, rtol=1e-4)
    assert made.median_quality == pytest.approx(1.0, abs=1e-5)


def test_voxels_without_signal_are_not_valid(head):
    class Holed(Coils):
        def read(self, channel):
            coil = super().read(channel)
            coil.magnitude[:, 5, 6, 7] = 0
            if channel == 0:
                coil.magnitude[1, 20:22, 20, 20] = 0  # missing in one coil only
            coil.phase_rad[:, 5, 6, 7] = 0
            return coil

    made = combine_channels(Holed(head, n_channels=2), head.brain)
    assert np.array_equal(np.argwhere(~made.series.valid), [[5, 6, 7]])
    assert made.series.phase_rad[:, 5, 6, 7].tolist() == [0, 0]
    assert np.isfinite(made.series.phase_rad).all()


def test_invalid_voxels_of_a_series_stay_zero(head):
    valid = head.series.valid.copy()
    valid[20, 20, 20] = False
    phase = head.series.phase_rad.copy()
    phase[:, ~valid] = 0
    removed = remove_phase_offset(replace(head.series, phase_rad=phase, valid=valid), head.brain)
    assert removed.series.phase_rad[:, 20, 20, 20].tolist() == [0, 0]


def test_single_echo_of_a_combined_series_is_left_alone():
    made = phantom(shape=(26, 30, 22), voxel=(5.0, 5.0, 5.5), times=(0.02,))
    removed = remove_phase_offset(made.series, made.brain)
    assert removed.status == "single echo"
    assert removed.series is made.series
    assert not removed.offset_rad.any()


def test_single_echo_of_coils_is_combined_without_loss():
    made = phantom(shape=(40, 46, 34), voxel=(3.25, 3.25, 3.5), times=(0.02,))
    combined = combine_channels(Coils(made), made.brain)
    assert combined.status == "single echo"
    assert combined.median_quality > 0.99
    # What is left is smooth: an offset of the virtual coil that background removal takes.
    left = np.where(made.brain, np.exp(1j * wrap(combined.series.phase_rad[0] - made.evolution_rad[0])), 0)
    smooth = smooth_phase(left.astype(np.complex64), made.series.acquisition.voxel_size_mm, 8.0)
    assert rms_of_phase(np.angle(left), np.angle(smooth), made.brain) < 0.03


@pytest.mark.parametrize("times", [(0.004, 0.008, 0.012), (0.005, 0.011, 0.020)])
def test_bipolar_readouts_are_corrected_from_three_echoes_on(times):
    made = phantom(times=times, alternating_rad=lambda x, y, z: 0.02 * x + 0.3)
    plain = remove_phase_offset(made.series, made.brain)
    corrected = remove_phase_offset(made.series, made.brain, bipolar=True)
    assert corrected.status == "removed, bipolar corrected"
    for echo in range(3):
        true = made.evolution_rad[echo]
        assert rms_of_phase(corrected.series.phase_rad[echo], true, made.brain) < 0.03
        assert rms_of_phase(plain.series.phase_rad[echo], true, made.brain) > 0.5


def test_bipolar_with_two_echoes_is_said_and_not_pretended(head):
    removed = remove_phase_offset(head.series, head.brain, bipolar=True)
    assert removed.status == "bipolar not corrected"
    plain = remove_phase_offset(head.series, head.brain)
    assert np.array_equal(removed.series.phase_rad, plain.series.phase_rad)
    with pytest.raises(ValueError, match="expected three echoes"):
        correct_bipolar(head.series, head.brain)


def test_empty_mask_is_refused(head):
    nothing = np.zeros(head.brain.shape, dtype=bool)
    with pytest.raises(ValueError, match="no voxel"):
        remove_phase_offset(head.series, nothing)
    with pytest.raises(ValueError, match="no voxel"):
        combine_channels(Coils(head, n_channels=1), nothing)
    single = phantom(shape=(14, 16, 12), voxel=(9.0, 9.0, 10.0), times=(0.02,))
    with pytest.raises(ValueError, match="mask is empty"):
        combine_channels(Coils(single, n_channels=1), np.zeros(single.brain.shape, dtype=bool))


def test_thin_volume(head):
    middle = (slice(None), slice(None), slice(21, 22))
    thin = phantom(shape=(52, 60, 1), voxel=(2.5, 2.5, 2.75))
    removed = remove_phase_offset(thin.series, thin.brain)
    assert removed.series.phase_rad.shape == (2, 52, 60, 1)
    assert np.isfinite(removed.series.phase_rad).all()
    assert head.brain[middle].any()
