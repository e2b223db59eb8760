"""Main field, voxel sizes and units of an acquisition."""

import numpy as np
import pytest

from brainlocus.core import Acquisition, FormatError, Grid


def grid(rotation=None, zoom=(0.8, 0.8, 3.0)):
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) * np.array(zoom)
    return Grid((4, 5, 6), affine)


def test_axial_series():
    scan = Acquisition.of(grid(), (0.0094, 0.020), 3.0)
    assert scan.b0_direction == (0.0, 0.0, 1.0)
    assert scan.voxel_size_mm == pytest.approx((0.8, 0.8, 3.0))
    assert scan.hz_per_ppm == pytest.approx(127.732, abs=1e-3)
    assert scan.oblique_degrees == 0


def test_oblique_and_sagittal_series_carry_the_field_in_voxel_axes():
    angle = np.radians(20)
    turned = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    scan = Acquisition.of(grid(turned), (0.01,), 3.0)
    assert scan.b0_direction == pytest.approx((0, np.sin(angle), np.cos(angle)))
    assert scan.oblique_degrees == pytest.approx(20)
    sagittal = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert Acquisition.of(grid(sagittal), (0.01,), 3.0).b0_direction == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("times", "tesla", "message"),
    [
        ((9.4, 20.0), 3.0, "milliseconds"),
        ((0.02, 0.0094), 3.0, "increasing"),
        ((), 3.0, "increasing"),
        ((0.0094,), float("nan"), "tesla"),
        ((0.0094,), 3000.0, "tesla"),
    ],
)
def test_impossible_timing_is_refused(times, tesla, message):
    with pytest.raises(FormatError, match=message):
        Acquisition.of(grid(), times, tesla)


def test_sheared_axes_are_refused():
    sheared = np.eye(3)
    sheared[0, 1] = 0.1
    with pytest.raises(FormatError, match="sheared"):
        Acquisition.of(grid(sheared), (0.01,), 3.0)
