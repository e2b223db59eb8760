"""A simulated head written as a scanner would, and read back."""

import dataclasses

import numpy as np
import pytest

from brainlocus.io import (
    find_derivative,
    find_gradient_echoes,
    open_channels,
    read_brain_mask,
    read_gradient_echo,
    read_label_names,
    read_parcellation,
)
from brainlocus.simulate import simulate_head
from brainlocus.simulate.head import head_settings
from tests.qsm_dataset import wrap, write_head

UNIT = 2 * np.pi / 4096


@pytest.fixture(scope="module")
def head():
    return simulate_head(dataclasses.replace(head_settings("3mm"), tilt_degrees=15.0))


@pytest.mark.parametrize("stored", ["radians", "siemens", "siemens-signed"])
def test_series(tmp_path, head, stored):
    (files,) = find_gradient_echoes(write_head(tmp_path, head, stored=stored))
    found, true = read_gradient_echo(files).series, head.series
    # 12 bits: half a unit, a whole one at pi.
    assert np.abs(wrap(found.phase_rad - true.phase_rad)).max() <= (1e-6 if stored == "radians" else UNIT + 1e-6)
    np.testing.assert_array_equal(found.magnitude, true.magnitude)
    acquisition = head.acquisition
    np.testing.assert_allclose(found.acquisition.b0_direction, acquisition.b0_direction, atol=1e-6)
    np.testing.assert_allclose(found.acquisition.grid.affine, acquisition.grid.affine, atol=1e-4)
    assert found.acquisition.echo_time_s == acquisition.echo_time_s


def test_masks_and_labels(tmp_path, head):
    write_head(tmp_path, head, session="2")
    truth = tmp_path / "derivatives/truth"
    path = find_derivative(truth, "sub-01", "ses-2", suffix="mask", entities={"desc": "brain"})
    mask, notes = read_brain_mask(path, head.acquisition.grid)
    np.testing.assert_array_equal(mask.data, head.brain_mask)
    assert notes == ()
    labels = find_derivative(truth, "sub-01", "ses-2", suffix="dseg")
    np.testing.assert_array_equal(read_parcellation(labels).labels, head.labels.labels)
    assert read_label_names(labels) == head.labels.names


def test_coils(tmp_path, head):
    (files,) = find_gradient_echoes(write_head(tmp_path, head, n_channels=3, truth=False))
    source, true = open_channels(files), head.channels(3)
    for channel in (2, 0):
        found, expected = source.read(channel), true.read(channel)
        assert np.abs(wrap(found.phase_rad - expected.phase_rad)).max() <= UNIT + 1e-6
        np.testing.assert_array_equal(found.magnitude, expected.magnitude)
