"""The stages together: choices, counts, flags and failures."""

from dataclasses import replace

import numpy as np
import pytest

from brainlocus.images.qsm import PRESETS, QsmSettings, SingleStepSettings, Tissue, reconstruct
from brainlocus.images.qsm.tkd import TkdSettings
from brainlocus.simulate import simulate_head
from brainlocus.simulate.head import HeadSettings

QUICK = QsmSettings(inversion=TkdSettings(), reference="whole-brain")


@pytest.fixture(scope="module")
def head():
    return simulate_head(HeadSettings((42, 52, 36), (4.0, 4.0, 4.5)), seed=2)


@pytest.fixture(scope="module")
def maps(head):
    return reconstruct(head.series, head.brain_mask, QUICK)


def single(series):
    acquisition = replace(series.acquisition, echo_time_s=series.acquisition.echo_time_s[:1])
    return replace(series, phase_rad=series.phase_rad[:1], magnitude=series.magnitude[:1], acquisition=acquisition)


def test_masks_shrink_from_stage_to_stage_and_maps_are_0_outside(head, maps):
    assert not (maps.brain & ~head.brain_mask).any()
    assert not (maps.reliable & ~maps.brain).any()
    assert not (maps.mask & ~maps.reliable).any()
    for image in (maps.local_field_ppm, maps.chi_ppm, maps.residual_ppm, maps.referenced_ppm):
        assert not image[~maps.mask].any()
        assert np.isfinite(image).all()
    assert maps.referenced_ppm[maps.mask].mean(dtype=float) == pytest.approx(0.0, abs=1e-6)
    assert maps.counts["mask_voxels"] == maps.mask.sum()
    assert maps.failures == ()


@pytest.mark.parametrize("preset", ["ukb", "consensus"])
def test_threads_change_nothing_and_the_series_is_left_alone(head, preset):
    before = head.series.phase_rad.copy(), head.series.magnitude.copy(), head.brain_mask.copy()
    one, two = (reconstruct(head.series, head.brain_mask, PRESETS[preset], workers=n) for n in (1, 2))
    np.testing.assert_array_equal(one.chi_ppm, two.chi_ppm)
    np.testing.assert_array_equal(one.t2star_s, two.t2star_s)
    for old, now in zip(before, (head.series.phase_rad, head.series.magnitude, head.brain_mask), strict=True):
        np.testing.assert_array_equal(old, now)


def test_a_single_echo_has_no_relaxation_and_says_so(head):
    for settings in (QUICK, replace(PRESETS["consensus"], reference="whole-brain")):
        found = reconstruct(single(head.series), head.brain_mask, settings)
        assert found.t2star_s is None
        assert found.gradient_hz is None
        assert any("single echo" in flag for flag in found.flags)
    missing = reconstruct(single(head.series), head.brain_mask, replace(QUICK, reference="csf"))
    assert missing.failures[0].startswith("Reference csf: 0 voxels")


def test_exact_unwrapping_refuses_a_phase_with_its_offset(head):
    with pytest.raises(ValueError, match="remove_offset"):
        reconstruct(head.series, head.brain_mask, replace(PRESETS["consensus"], remove_offset=False))


def test_the_reference_is_what_was_asked_for(head, maps):
    region = np.zeros_like(maps.mask)
    region[16:26, 20:30, 14:22] = True
    white = reconstruct(
        head.series, head.brain_mask, replace(QUICK, reference="white-matter"), tissue=Tissue(white_matter=region)
    )
    assert white.reference_name == "white-matter"
    assert white.referenced_ppm[region & white.mask].mean(dtype=float) == pytest.approx(0.0, abs=1e-6)
    given = reconstruct(head.series, head.brain_mask, replace(QUICK, reference="csf"), tissue=Tissue(ventricles=region))
    assert given.reference_name == "csf (given)"
    assert not (given.reference_region & ~region).any()
    none = reconstruct(head.series, head.brain_mask, replace(QUICK, reference="none"))
    assert none.reference is None
    np.testing.assert_array_equal(none.referenced_ppm, none.chi_ppm)


def test_a_reference_too_small_is_a_failure_or_falls_back_with_a_flag(head):
    tissue = Tissue(ventricles=np.zeros_like(head.brain_mask))
    found = reconstruct(head.series, head.brain_mask, replace(QUICK, reference="csf"), tissue=tissue)
    assert "no referenced map" in found.failures[0]
    assert np.isnan(found.referenced_ppm[found.mask]).all()
    assert np.isfinite(found.chi_ppm).all()
    settings = replace(QUICK, reference="csf", reference_fallback="whole-brain")
    fallen = reconstruct(head.series, head.brain_mask, settings, tissue=tissue)
    assert fallen.failures == ()
    assert fallen.reference_name == "whole-brain"
    assert any("too small" in flag for flag in fallen.flags)


def test_much_unreliable_phase_is_a_failure(head):
    noisy = head.series.phase_rad.copy()
    noisy[:, :, :26] = np.random.default_rng(0).uniform(-np.pi, np.pi, noisy[:, :, :26].shape)
    found = reconstruct(replace(head.series, phase_rad=noisy), head.brain_mask, QUICK)
    assert "Phase reliability kept" in found.failures[0]


def test_two_alternating_echoes_are_flagged(head):
    found = reconstruct(head.series, head.brain_mask, replace(QUICK, bipolar=True))
    assert any("alternating" in flag for flag in found.flags)


def test_masks_without_signal_are_refused(head):
    corner = np.zeros_like(head.brain_mask)
    corner[0, 0, 0] = True
    empty = replace(head.series, magnitude=np.where(corner, np.float32(0), head.series.magnitude))
    with pytest.raises(ValueError, match="none of its 1 voxels has a signal"):
        reconstruct(empty, corner, QUICK)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reliability_thresholds", ()),
        ("reliability_thresholds", (0.5, 1.5)),
        ("reliability_radius_mm", 0.0),
        ("t2star_s", -0.04),
        ("t2star_s", float("inf")),
    ],
)
def test_wrong_settings_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        QsmSettings(**{name: value})


def test_thresholds_of_later_echoes_are_the_last_one():
    assert QsmSettings(reliability_thresholds=(0.7, 0.6)).thresholds(4) == (0.7, 0.6, 0.6, 0.6)
    assert isinstance(PRESETS["consensus"].inversion, SingleStepSettings)
