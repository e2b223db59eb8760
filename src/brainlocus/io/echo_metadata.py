"""Sidecars and headers of a gradient-echo series to its `Acquisition`: echo times, main field, geometry.

Rules (each exception is said in a `Note` or raised): echo times are in seconds; the field strength is that of imaging,
``ImagingFrequency`` over ``MagneticFieldStrength`` where they disagree, and is never assumed; the direction of the main
field comes from the transform to scanner coordinates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from brainlocus.core import GAMMA_BAR_MHZ_PER_T, Acquisition, FormatError, Grid
from brainlocus.io.nifti_header import NiftiHeader

__all__ = ["Note", "acquisition_of", "echo_times_of", "field_strength_of"]

TIME_TOLERANCE_S = 1e-5
"""Echo times of magnitude and phase that differ by less are the same (sidecars round to microseconds)."""
FREQUENCY_TOLERANCE = 0.005
"""Relative; 2.89 T "3 T" systems are off by 3.6 %."""
FREQUENCY_LIMIT = 0.25
"""Beyond this the frequency cannot be that of protons in the field named."""
OBLIQUE_DEGREES = 10.0
ANISOTROPY = 6.0
PIXDIM_TOLERANCE = 0.01
SCANNER = 1
"""NIFTI_XFORM_SCANNER_ANAT: the transform leads to scanner coordinates, where the main field is along z."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something about an input that a person should know, though the series could be read."""

    code: str
    """Stable word for tables and tests: ``phase_stretched``, ``oblique`` ..."""
    text: str
    is_warning: bool = True
    """False for what is usual and was handled by rule."""


def echo_times_of(sidecar: Mapping[str, Any], where: str) -> tuple[float, ...]:
    """Return the echo times of a sidecar in seconds, as many as it has; empty where it has none.

    ``EchoTime`` is a number, or a list for images with echoes as the 4th axis; ``EchoTime1``, ``EchoTime2`` ... are
    read where it is absent.

    Raises
    ------
    FormatError
        Not positive numbers, or larger than 1: milliseconds.
    """
    found = sidecar.get("EchoTime")
    if found is None:
        numbered = [sidecar.get(f"EchoTime{k}") for k in range(1, 100)]
        found = numbered[: numbered.index(None)]
    values = list(found) if isinstance(found, list) else [found]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise FormatError(f"{where}: expected EchoTime in seconds, above 0, found {value!r}.")
        if value > 1:
            raise FormatError(
                f"{where}: EchoTime is {value:g}, expected seconds: is it in milliseconds? Divide by 1000 "
                f"({value:g} ms is {value / 1000:g})."
            )
    return tuple(float(value) for value in values)


def field_strength_of(
    sidecars: Sequence[Mapping[str, Any]], given: float | None, where: str
) -> tuple[float, tuple[Note, ...]]:
    """Return the imaging field strength in tesla.

    Parameters
    ----------
    sidecars
        Of every image of the series.
    given
        The user's, which wins.

    Raises
    ------
    FormatError
        It is nowhere, not a number, not in tesla, differs between images, or contradicts the imaging frequency.
    """
    named = _agreed(sidecars, "MagneticFieldStrength", where)
    frequency = _agreed(sidecars, "ImagingFrequency", where)
    imaging = None if frequency is None else frequency * (1e-6 if frequency > 1e4 else 1.0) / GAMMA_BAR_MHZ_PER_T
    if given is not None:
        known = imaging if imaging is not None else named
        differs = known is not None and abs(given / known - 1) > FREQUENCY_TOLERANCE
        text = f"the field strength was given as {given:g} T" + (f", the sidecar says {known:.4g} T" if differs else "")
        return given, (Note("field_given", text, is_warning=differs),)
    if named is not None and named > 25:
        raise FormatError(f"{where}: MagneticFieldStrength is {named:g}, expected tesla (gauss or mT?).")
    if imaging is None:
        if named is None:
            raise FormatError(
                f"{where}: expected MagneticFieldStrength (tesla) or ImagingFrequency (MHz) in the sidecar, found "
                "neither. Add it, or give the field strength as an option; it is not assumed."
            )
        return named, ()
    if named is None or abs(imaging / named - 1) <= FREQUENCY_TOLERANCE:
        return imaging, ()
    if abs(imaging / named - 1) > FREQUENCY_LIMIT:
        raise FormatError(
            f"{where}: ImagingFrequency {frequency:g} MHz is that of protons at {imaging:.3g} T, but "
            f"MagneticFieldStrength is {named:g} T. Correct the sidecar, or give the field strength as an option."
        )
    text = f"MagneticFieldStrength says {named:g} T, ImagingFrequency {frequency:.6g} MHz: {imaging:.4f} T is used"
    return imaging, (Note("field_from_frequency", text, is_warning=False),)


def acquisition_of(
    header: NiftiHeader, echo_time_s: tuple[float, ...], field_strength_t: float, *, assume_axial: bool, what: str
) -> tuple[Acquisition, tuple[Note, ...]]:
    """Return geometry and timing, with the main field's direction from the transform to scanner coordinates.

    Parameters
    ----------
    assume_axial
        The user says that images without orientation are axial: no warning then.

    Raises
    ------
    FormatError
        A sheared affine, voxel sizes that contradict it, units other than mm, or times or field out of range.
    """
    notes = [*_check_geometry(header)]
    to_scanner, orientation = _to_scanner(header, assume_axial=assume_axial)
    try:
        acquisition = Acquisition.of(header.grid, echo_time_s, field_strength_t)
        if to_scanner is not header.affine:
            direction = Acquisition.of(Grid(header.grid.shape, to_scanner), echo_time_s, field_strength_t).b0_direction
            acquisition = Acquisition(acquisition.grid, acquisition.echo_time_s, field_strength_t, direction)
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from None
    notes += orientation
    if acquisition.oblique_degrees > OBLIQUE_DEGREES:
        b = ", ".join(f"{v:.3f}" for v in acquisition.b0_direction)
        text = f"oblique by {acquisition.oblique_degrees:.1f} degrees; the main field along the voxel axes is ({b})"
        notes.append(Note("oblique", text, is_warning=False))
    size = acquisition.voxel_size_mm
    if max(size) / min(size) > ANISOTROPY:
        text = (
            f"voxels of {size[0]:g} x {size[1]:g} x {size[2]:g} mm: edges differ by more than a factor {ANISOTROPY:g}"
        )
        notes.append(Note("anisotropic", text))
    return acquisition, tuple(notes)


def _agreed(sidecars: Sequence[Mapping[str, Any]], key: str, where: str) -> float | None:
    """Return the value that all sidecars with `key` share."""
    found = [sidecar[key] for sidecar in sidecars if sidecar.get(key) is not None]
    for value in found:
        if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
            raise FormatError(f"{where}: expected {key} to be a number above 0, found {value!r}.")
    if found and max(found) / min(found) - 1 > 1e-4:
        raise FormatError(
            f"{where}: {key} differs between the images of one series, from {min(found):g} to {max(found):g}. "
            "Are they of one scan?"
        )
    return float(found[0]) if found else None


def _check_geometry(header: NiftiHeader) -> tuple[Note, ...]:
    sizes = np.linalg.norm(header.affine[:3, :3], axis=0)
    stored = np.asarray(header.voxel_size_mm)
    if not (np.isfinite(stored).all() and (stored > 0).all()):
        raise FormatError(
            f"{header.path}: the voxel sizes in the header (pixdim) are {stored.tolist()} mm, expected numbers above "
            "0. Write the image again with its true voxel sizes."
        )
    if float(np.abs(sizes / stored - 1).max()) > PIXDIM_TOLERANCE:
        raise FormatError(
            f"{header.path}: voxel sizes are {stored.round(4).tolist()} mm in pixdim but {sizes.round(4).tolist()} mm "
            "in the affine. Which is right? Write the image again with both the same."
        )
    if header.spatial_unit == "mm":
        return ()
    if header.spatial_unit != "unknown":
        raise FormatError(
            f"{header.path}: lengths are in {header.spatial_unit} (xyzt_units), expected mm. Convert the header to mm."
        )
    return (Note("units_unset", "xyzt_units is not set; lengths are taken for mm", is_warning=False),)


def _to_scanner(header: NiftiHeader, *, assume_axial: bool) -> tuple[Float[np.ndarray, "4 4"], list[Note]]:
    """Return the affine whose third world axis is the main field's."""
    if header.sform_code == 0 and header.qform_code == 0:
        text = "neither sform nor qform is set: the main field is taken to lie along the third voxel axis"
        return header.affine, [Note("orientation_unknown", text, is_warning=not assume_axial)]
    if SCANNER in (header.sform_code, header.qform_code):
        use_qform = header.sform_code not in (0, SCANNER)
        if use_qform and header.qform is not None:
            text = (
                f"the sform leads to another space (code {header.sform_code}), so the main field's direction is taken "
                "from the qform"
            )
            return header.qform, [Note("field_from_qform", text, is_warning=False)]
        return header.affine, []
    text = (
        f"the affine leads to another space than the scanner's (sform code {header.sform_code}, qform code "
        f"{header.qform_code}): if the image was rotated, so must be the main field"
    )
    return header.affine, [Note("orientation_not_scanner", text)]
