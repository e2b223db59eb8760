"""From stored numbers to radians: the rules of spans, and that they give back the phase."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainlocus.core import FormatError
from brainlocus.io.phase_scale import PhaseRange, decide_phase_scale


def whole(low, high, **more):
    return PhaseRange((low, high), (low, high), True, **more)


def real(low, high, **more):
    return PhaseRange((low, high), (low, high), False, **more)


@pytest.mark.parametrize(
    ("found", "rule", "of_stored", "ends"),
    [
        (real(-math.pi, math.pi), "radians", False, (-math.pi, math.pi)),
        (real(0.0, 6.25), "radians", False, (0.0, 6.25)),
        (whole(0.0, 4095.0), "nominal", False, (-math.pi, math.pi)),
        (whole(12.0, 4060.0), "nominal", False, None),
        (PhaseRange((0.0, 4095.0), (-4096.0, 4094.0), True), "nominal", False, (-math.pi, math.pi)),
        (whole(-2048.0, 2047.0), "nominal", False, (-math.pi, math.pi)),
        (whole(-4096.0, 4096.0), "nominal", False, (-math.pi, math.pi)),
        # The slope of the DICOM left beside radians: as in mriresearchtools_small.
        (PhaseRange((-3.1416, 3.1416), (-0.00367, 0.00367), False), "radians", True, None),
        # A slope that makes radians of integers is obeyed (Philips).
        (PhaseRange((0.0, 4095.0), (-math.pi, math.pi), True), "radians", False, None),
        (PhaseRange((0.0, 4095.0), (-3141.6, 3141.6), True), "nominal", False, (-math.pi, math.pi)),
        # ... and one that makes something unknown of a nominal range is not.
        (PhaseRange((0.0, 4095.0), (-1.7, 2.9), True), "nominal", True, None),
        (real(-0.00367, 0.00367), "stretched", False, None),
        (whole(-180.0, 180.0), "stretched", False, (-math.pi, math.pi)),
        (real(0.5, 3.0), "stretched", False, (-math.pi, math.pi)),
        (real(-1.0, 1.5, unit="rad"), "radians", False, (-1.0, 1.5)),
        (whole(0.0, 4095.0, unit="rad"), "nominal", False, (-math.pi, math.pi)),
    ],
)
def test_rules(found, rule, of_stored, ends):
    scale = decide_phase_scale(found, what="x")
    assert (scale.rule, scale.of_stored) == (rule, of_stored)
    if ends:
        low, high = (scale.factor * v + scale.offset for v in found.scaled)
        # One unit short of the whole turn for integers.
        assert low == pytest.approx(ends[0], abs=2 * math.pi / 4000)
        assert high == pytest.approx(ends[1], abs=2 * math.pi / 1500)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (real(3.0, 3.0), "the phase is 3 everywhere"),
        (whole(0.0, 1234.0), "whole numbers from 0 to 1234, none below 0.*a magnitude image"),
        (real(-4.66, 4.71), "unwrapped phase in radians, say so"),
        (real(0.0, 900.5), "expected wrapped phase"),
        (real(-7.0, 4.0, unit="rad"), "expected wrapped phase"),
    ],
)
def test_refusals(found, message):
    with pytest.raises(FormatError, match=message):
        decide_phase_scale(found, what="sub-01")


def test_unwrapped_phase_is_kept_when_the_user_says_so():
    scale = decide_phase_scale(real(-4.66, 14.71), what="x", assume_unwrapped=True)
    assert (scale.factor, scale.offset, scale.rule) == (1.0, 0.0, "unwrapped")
    with pytest.raises(FormatError, match="everywhere"):
        decide_phase_scale(real(2.0, 2.0), what="x", assume_unwrapped=True)


@given(
    seed=st.integers(0, 2**32 - 1),
    bits=st.sampled_from([4096, 8192]),
    signed=st.booleans(),
    slope=st.sampled_from([None, (2.0, -4096.0), (2 * math.pi / 4096, -math.pi)]),
)
def test_stored_phase_comes_back(seed, bits, signed, slope):
    """Whatever the scanner's units, the radians are the phase to one unit, up to one constant of all voxels."""
    true = np.random.default_rng(seed).uniform(-np.pi, np.pi, 4000)
    true[:2] = -np.pi, np.pi
    stored = np.clip(np.rint((true + np.pi) * bits / (2 * np.pi)), 0, bits - 1) - (bits // 2 if signed else 0)
    ends = (float(stored.min()), float(stored.max()))
    a, b = slope or (1.0, 0.0)
    scale = decide_phase_scale(PhaseRange(ends, (a * ends[0] + b, a * ends[1] + b), True), what="x")
    values = stored if scale.of_stored else a * stored + b
    radians = scale.factor * values + scale.offset
    assert scale.rule in ("nominal", "radians")
    difference = np.exp(1j * (radians - true))
    # At most one unit (pi itself is stored one lower), and half a unit in the constant.
    assert np.abs(np.angle(difference / (difference.mean() / abs(difference.mean())))).max() < 1.5 * 2 * np.pi / bits


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-6, 1e7), integer=st.booleans())
def test_any_range_is_refused_or_within_a_turn(low, span, integer):
    low, high = (float(round(low)), float(round(low + span))) if integer else (low, low + span)
    try:
        scale = decide_phase_scale(PhaseRange((low, high), (low, high), integer), what="x")
    except FormatError:
        return
    assert scale.factor * (high - low) <= 2 * math.pi * 1.021 + 0.1
    assert scale.factor > 0
