"""From the numbers of a phase image to radians.

Scanners and converters store phase as 12- or 13-bit integers, as radians, or scaled in other ways, and headers often
tell nothing, or something wrong. The rule goes by the *span* s of all finite values of a series, highest less lowest:

===========================================  =========================================================================
s of the scaled, else of the stored values   what is done
===========================================  =========================================================================
within 0.1 of 2 pi                           kept: these are radians
sidecar says ``"Units": "rad"``, s < 2 pi    kept: radians of a field that happens not to wrap
within 2 % of 4095, 4096, 8190 or 8192       times 2 pi / 4096 or 2 pi / 8192; less pi where no value is below 0
within 2 % of 2000 pi                        divided by 1000: milliradians (Philips)
anything else that is integer                refused when no value is below 0 (a magnitude?), else stretched to 2 pi
s > 2 pi, not integer                        refused as unwrapped, unless the caller says that it is
s < 2 pi, not integer                        stretched to 2 pi
===========================================  =========================================================================

Stretching is a guess (a series that does not wrap everywhere gets too large radians), hence always a warning. "Scaled"
is with the header's slope and intercept, where they are numbers and the slope is not 0; the stored values come second
because some converters leave the slope of the DICOM beside values that are radians already.
"""

import math
from dataclasses import dataclass
from typing import Literal

from brainlocus.core import FormatError

__all__ = ["PhaseRange", "PhaseScale", "decide_phase_scale"]

TWO_PI = 2 * math.pi
RADIAN_TOLERANCE = 0.1
"""How far the span of radians may be from 2 pi."""
NOMINAL_SPANS = {4095.0: 4096.0, 4096.0: 4096.0, 8190.0: 8192.0, 8192.0: 8192.0, 1000 * TWO_PI: 1000 * TWO_PI}
"""Spans of Siemens' 12-bit phase, stored or scaled by 2 and -4096, and of milliradians, to the span that is 2 pi."""
NOMINAL_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class PhaseRange:
    """What the rule needs to know of a phase series."""

    stored: tuple[float, float]
    """Lowest and highest finite value as stored."""
    scaled: tuple[float, float]
    """The same with the header's scaling; equal to `stored` where there is none."""
    integer: bool
    """Whether the stored values are whole numbers."""
    unit: str = ""
    """``Units`` of the sidecar."""


@dataclass(frozen=True, slots=True)
class PhaseScale:
    """radians = factor * value + offset."""

    factor: float
    offset: float
    of_stored: bool
    """Whether value is the stored one, the header's scaling left out."""
    rule: Literal["radians", "nominal", "stretched", "unwrapped"]


def decide_phase_scale(found: PhaseRange, *, what: str, assume_unwrapped: bool = False) -> PhaseScale:
    """Return how a phase series becomes radians.

    Parameters
    ----------
    what
        Name of the series for messages.
    assume_unwrapped
        The scaled values are radians, not wrapped: keep them.

    Raises
    ------
    FormatError
        The phase is constant, looks unwrapped, or looks like a magnitude.

    Examples
    --------
    >>> siemens = PhaseRange((0.0, 4095.0), (-4096.0, 4094.0), True)
    >>> scale = decide_phase_scale(siemens, what="sub-01")
    >>> scale.rule, round(scale.factor * 4096, 6), scale.offset
    ('nominal', 3.141593, 0.0)
    """
    low, high = found.scaled
    if not high > low:
        raise FormatError(f"{what}: the phase is {low:g} everywhere, expected values that span 2 pi. Is it the phase?")
    if assume_unwrapped:
        return PhaseScale(1.0, 0.0, of_stored=False, rule="unwrapped")
    candidates = [(False, found.scaled)] + ([(True, found.stored)] if found.stored != found.scaled else [])
    for of_stored, (least, most) in candidates:
        if abs(most - least - TWO_PI) < RADIAN_TOLERANCE:
            return PhaseScale(1.0, 0.0, of_stored, "radians")
    if found.unit.lower() in ("rad", "radian", "radians") and high - low < TWO_PI + RADIAN_TOLERANCE:
        return PhaseScale(1.0, 0.0, of_stored=False, rule="radians")
    for of_stored, (least, most) in candidates:
        nominal = _nominal(most - least)
        if nominal:
            return PhaseScale(TWO_PI / nominal, 0.0 if least < 0 else -math.pi, of_stored, "nominal")
    return _stretched(found, what)


def _nominal(span: float) -> float:
    """Return the span that is 2 pi, 0 where none is near."""
    near = [whole for nominal, whole in NOMINAL_SPANS.items() if abs(span - nominal) <= NOMINAL_TOLERANCE * nominal]
    return near[0] if near else 0.0


def _stretched(found: PhaseRange, what: str) -> PhaseScale:
    low, high = found.scaled
    if found.integer and found.stored[0] >= 0 and low >= 0:
        raise FormatError(
            f"{what}: expected phase, found whole numbers from {low:g} to {high:g}, none below 0 and not of a span of "
            'phase (4096 or 8192): a magnitude image? If it is phase, write it in radians with "Units": "rad".'
        )
    if not found.integer and high - low > TWO_PI:
        raise FormatError(
            f"{what}: expected wrapped phase with a span of 2 pi, or in scanner units, found {low:g} to {high:g}. If "
            "it is unwrapped phase in radians, say so (assume_unwrapped); otherwise write it in radians."
        )
    factor = TWO_PI / (high - low)
    return PhaseScale(factor, 0.0 if low < 0 else -math.pi - low * factor, of_stored=False, rule="stretched")
