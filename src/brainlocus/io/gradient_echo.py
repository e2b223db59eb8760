"""Gradient-echo images to phase in radians and magnitude, ready for susceptibility mapping.

Data flow::

    GradientEchoFiles --read_gradient_echo--> LoadedSeries     coil-combined: all echoes in memory
    GradientEchoFiles --open_channels-------> ChannelFiles     uncombined: one coil at a time, by path

Both check the same things first (`brainlocus.io.echo_plan`): images of every echo and part, echo times, field strength,
geometry. What can be handled by a stated rule is, with a `Note`; everything else is an error that names the file.
Volumes are read one at a time into float32, so that memory holds the result and one volume as stored.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.core import Acquisition, Channel, FormatError, GradientEcho, Grid, Mask, check_same_grid
from brainlocus.io.bids import GradientEchoFiles
from brainlocus.io.echo_metadata import Note
from brainlocus.io.echo_plan import EchoVolumes, ReadSettings, SeriesPlan, plan_series, series_volumes
from brainlocus.io.nifti import read_volume
from brainlocus.io.nifti_header import NiftiHeader, StoredImage
from brainlocus.io.phase_scale import RADIAN_TOLERANCE, TWO_PI, PhaseRange, PhaseScale, decide_phase_scale

__all__ = [
    "ChannelFiles",
    "LoadedSeries",
    "ReadSettings",
    "count_channels",
    "open_channels",
    "read_brain_mask",
    "read_gradient_echo",
    "read_gradient_echo_peak_bytes",
]

MAX_NEGATIVE_SHARE = 0.01
"""Interpolation leaves a few negative magnitudes; more of them say that it is another image."""
MAX_CORRELATION = 0.95
"""Phase without values below 0 that follows the magnitude more closely than this is the magnitude again."""
MASK_THRESHOLD = 0.5
WRAP_TOLERANCE = 1e-3
_SAMPLE = 20_011
"""Voxels that integer type and correlation are judged by; prime, so that strides do not follow rows."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedSeries:
    """A coil-combined series, and what was found while reading it."""

    series: GradientEcho
    notes: tuple[Note, ...]
    counts: Mapping[str, int]
    """``voxels``, ``echoes``, ``not_finite`` (voxels that are NaN or infinite in any image), ``negative_magnitude``."""
    metadata: Mapping[str, Any]
    """Sidecar of the first echo's phase, with what the magnitude's has besides; for sidecars of outputs."""
    header: NiftiHeader
    """Of the first echo's phase; outputs keep its orientation codes."""


def count_channels(files: GradientEchoFiles) -> int:
    """Return how many receive coils a series has: 1 for combined images. Reads headers only.

    Raises
    ------
    FormatError
        As for `read_gradient_echo`, for what can be seen without sidecars and voxels.
    """
    return series_volumes(files, "phase")[0].n_channels


def read_gradient_echo_peak_bytes(shape: tuple[int, int, int], n_echoes: int) -> int:
    """Return the most memory of `read_gradient_echo`: both parts, one volume as stored and one as a copy, flags."""
    voxels = math.prod(shape)
    return voxels * (8 * n_echoes + 8 + 4 + 4) + (16 << 20)


def read_gradient_echo(files: GradientEchoFiles, settings: ReadSettings | None = None) -> LoadedSeries:
    """Read a coil-combined series.

    Parameters
    ----------
    files
        See `brainlocus.io.bids.find_gradient_echoes`.

    Returns
    -------
    LoadedSeries
        Echoes in the order of their times. Voxels that are not finite in any image are 0 in all, and not `valid`.

    Raises
    ------
    FormatError
        Files that are missing, damaged or of the wrong kind; echo times or field strength that are missing, of another
        unit or contradict the images; phase that cannot be brought to radians; uncombined coils.
    AlignmentError
        Images of one series on different grids.

    References
    ----------
    BIDS specification 1.10, "Anatomy imaging data", MEGRE; phase scaling: `brainlocus.io.phase_scale`.
    """
    settings = settings or ReadSettings()
    plan = plan_series(files, settings)
    if plan.n_channels > 1:
        raise FormatError(
            f"{plan.what}: expected coil-combined images, found {plan.n_channels} receive coils. Combine them first."
        )
    shape = plan.acquisition.shape
    phase = np.empty((len(plan.phase), *shape), dtype=np.float32)
    opened: dict[Path, StoredImage] = {}
    ranges = [_read_stored(volumes, 0, out, opened) for volumes, out in zip(plan.phase, phase, strict=True)]
    scale, notes = _phase_scale(plan, ranges, settings)
    for volumes, out in zip(plan.phase, phase, strict=True):
        _to_radians(out, volumes.headers[0], scale, settings)
    magnitude = np.empty_like(phase)
    for volumes, out in zip(plan.magnitude, magnitude, strict=True):
        _read_stored(volumes, 0, out, opened)
        _apply_scaling(out, volumes.headers[0])
    _check_not_magnitude(phase[0], magnitude[0], ranges[0], plan)
    valid = _clear_not_finite(phase, magnitude)
    negative = _clear_negative(magnitude, plan)
    _check_magnitude(magnitude, plan)
    counts = {
        "voxels": int(valid.size),
        "echoes": len(phase),
        "not_finite": int(valid.size - valid.sum()),
        "negative_magnitude": negative,
    }
    notes = (*plan.notes, *notes, *_count_notes(counts))
    series = GradientEcho(phase, magnitude, valid, plan.acquisition)
    return LoadedSeries(series, notes, counts, plan.metadata, plan.phase[0].headers[0])


def read_brain_mask(path: Path, grid: Grid) -> tuple[Mask, tuple[Note, ...]]:
    """Read a brain mask on the grid of the series: voxels above 0.5 count, NaN does not.

    Raises
    ------
    AlignmentError
        The mask lies on another grid.
    FormatError
        It cannot be read, or no voxel is above 0.5.
    """
    volume = read_volume(path, quantity="mask")
    check_same_grid(volume.grid, grid, what=str(path))
    with np.errstate(invalid="ignore"):
        inside = volume.data > MASK_THRESHOLD
    if not inside.any():
        raise FormatError(
            f"{path}: the mask is empty, no voxel is above {MASK_THRESHOLD}. Check that it is the right file."
        )
    other = int(((volume.data != 0) & (volume.data != 1)).sum())
    if not other:
        return Mask(inside, volume.affine), ()
    text = f"{path.name} is not binary ({other} voxels are neither 0 nor 1): those above {MASK_THRESHOLD} were taken"
    return Mask(inside, volume.affine), (Note("mask_not_binary", text),)


class ChannelFiles:
    """Uncombined coils of a series as a `ChannelSource`: opens its files by path, so it may be sent to workers.

    The scale of the phase is decided on the first coil; a coil that goes beyond its range is an error when read.
    """

    def __init__(self, plan: SeriesPlan, settings: ReadSettings, scale: PhaseScale, notes: tuple[Note, ...]) -> None:
        self.notes = notes
        self._plan = plan
        self._settings = settings
        self._scale = scale
        self._open: dict[Path, StoredImage] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind."""
        return {**self.__dict__, "_open": {}}

    @property
    def n_channels(self) -> int:
        """Receive coils."""
        return self._plan.n_channels

    @property
    def acquisition(self) -> Acquisition:
        """What all coils share."""
        return self._plan.acquisition

    @property
    def metadata(self) -> Mapping[str, Any]:
        """As of `LoadedSeries`."""
        return self._plan.metadata

    @property
    def header(self) -> NiftiHeader:
        """As of `LoadedSeries`."""
        return self._plan.phase[0].headers[0]

    def read(self, channel: int) -> Channel:
        """Return one coil, counted from 0; voxels that are not finite are 0 in phase and magnitude.

        Raises
        ------
        FormatError
            As for `open_channels`, of this coil.
        IndexError
            There is no such coil.
        """
        if not 0 <= channel < self.n_channels:
            raise IndexError(f"There is no channel {channel}, they are counted from 0 to {self.n_channels - 1}.")
        phase = np.empty((len(self._plan.phase), *self.acquisition.shape), dtype=np.float32)
        magnitude = np.empty_like(phase)
        for volumes, out in zip(self._plan.phase, phase, strict=True):
            _read_stored(volumes, channel, out, self._open)
            _to_radians(out, volumes.header(channel), self._scale, self._settings)
        for volumes, out in zip(self._plan.magnitude, magnitude, strict=True):
            _read_stored(volumes, channel, out, self._open)
            _apply_scaling(out, volumes.header(channel))
        _clear_not_finite(phase, magnitude)
        _clear_negative(magnitude, self._plan)
        return Channel(phase, magnitude)


def open_channels(files: GradientEchoFiles, settings: ReadSettings | None = None) -> ChannelFiles:
    """Open the uncombined coils of a series; combined images are one coil.

    5-D images are best stored without compression: a compressed one has to be read from its beginning whenever coils
    are not asked for in order.

    Raises
    ------
    FormatError, AlignmentError
        As for `read_gradient_echo`, judged by the first coil.
    """
    settings = settings or ReadSettings()
    plan = plan_series(files, settings)
    shape = plan.acquisition.shape
    volume = np.empty(shape, dtype=np.float32)
    opened: dict[Path, StoredImage] = {}
    ranges = [_read_stored(volumes, 0, volume, opened) for volumes in plan.phase]
    scale, notes = _phase_scale(plan, ranges, settings)
    return ChannelFiles(plan, settings, scale, (*plan.notes, *notes))


def _read_stored(
    volumes: EchoVolumes, channel: int, out: Float32[np.ndarray, "x y z"], opened: dict[Path, StoredImage]
) -> PhaseRange:
    """Read one volume as stored into `out`, and return its range. Files with more volumes stay in `opened`."""
    header = volumes.header(channel)
    image = opened.get(header.path) or StoredImage(header)
    stored = image.volume(*(volumes.echo, channel)[: len(header.shape) - 3])
    if len(header.shape) > 3:
        opened[header.path] = image
    else:
        image.close()
    with np.errstate(over="ignore", invalid="ignore"):
        np.copyto(out, stored, casting="unsafe")
    return _range(out, header, volumes)


def _range(values: Float32[np.ndarray, "x y z"], header: NiftiHeader, volumes: EchoVolumes) -> PhaseRange:
    finite = np.isfinite(values)
    if not finite.any():
        raise FormatError(f"{header.path}: no voxel is a finite number.")
    low = float(values.min(initial=np.inf, where=finite))
    high = float(values.max(initial=-np.inf, where=finite))
    scaled = (low, high)
    if header.has_scaling:
        ends = sorted((header.slope * low + header.intercept, header.slope * high + header.intercept))
        scaled = (ends[0], ends[1])
    sample = values.ravel(order="K")[:: max(1, values.size // _SAMPLE)]
    sample = sample[np.isfinite(sample)]
    integer = header.dtype.kind in "iu" or bool((sample == np.rint(sample)).all())
    return PhaseRange((low, high), scaled, integer, str(volumes.sidecar.get("Units", "")))


def _phase_scale(
    plan: SeriesPlan, ranges: Sequence[PhaseRange], settings: ReadSettings
) -> tuple[PhaseScale, tuple[Note, ...]]:
    """Decide the scale on all echoes together: an early echo may not wrap."""
    for volumes, found in zip(plan.phase, ranges, strict=True):
        if found.stored[0] == found.stored[1]:
            raise FormatError(
                f"{volumes.headers[0].path}: the phase is {found.stored[0] + 0.0:g} everywhere, expected values that "
                "span 2 pi. Is it the phase?"
            )
    series = PhaseRange(
        (min(r.stored[0] for r in ranges), max(r.stored[1] for r in ranges)),
        (min(r.scaled[0] for r in ranges), max(r.scaled[1] for r in ranges)),
        all(r.integer for r in ranges),
        ranges[0].unit,
    )
    headers = [volumes.headers[0] for volumes in plan.phase]
    changes = [h.has_scaling and (h.slope, h.intercept) != (1.0, 0.0) for h in headers]
    mixed = any(changes) and not all(header.has_scaling for header in headers)
    if mixed:
        # The slope of one echo is damaged, so that only stored values can be compared between echoes.
        series = PhaseRange(series.stored, series.stored, series.integer, series.unit)
    header = headers[0]
    what = str(header.path)
    scale = decide_phase_scale(series, what=what, assume_unwrapped=settings.assume_unwrapped)
    if mixed and scale.rule == "stretched":
        damaged = next(h.path for h in headers if not h.has_scaling)
        raise FormatError(
            f"{damaged}: scl_slope is not a number, but that of other echoes is, and the stored values from "
            f"{series.stored[0]:g} to {series.stored[1]:g} have no known span of phase. Correct the header."
        )
    if mixed:
        scale = replace(scale, of_stored=True)
    return scale, tuple(_scale_notes(series, scale, plan))


def _scale_notes(series: PhaseRange, scale: PhaseScale, plan: SeriesPlan) -> Iterator[Note]:
    low, high = series.stored if scale.of_stored else series.scaled
    if scale.rule == "nominal":
        yield Note("phase_scaled", f"phase from {low:g} to {high:g} in scanner units became radians", is_warning=False)
    if scale.rule == "stretched":
        text = (
            f"phase from {low:g} to {high:g} is in unknown units and was stretched to 2 pi: where it does not wrap, "
            'the radians are too large. If it is in radians, put "Units": "rad" in the sidecar'
        )
        yield Note("phase_stretched", text)
    if scale.rule == "unwrapped":
        yield Note("phase_unwrapped", "phase was taken for unwrapped radians, as asked", is_warning=False)
    if scale.of_stored:
        yield Note("phase_header_ignored", "the header's scaling of the phase was ignored: values are known without it")
    for part in ("phase", "magnitude"):
        headers = [header for volumes in getattr(plan, part) for header in volumes.headers]
        if any(not math.isfinite(header.slope) for header in headers):
            text = f"scl_slope of the {part} is not a number: values were taken as stored"
            yield Note(f"{part}_slope_ignored", text, is_warning=part == "magnitude")


def _apply_scaling(values: Float32[np.ndarray, "x y z"], header: NiftiHeader) -> None:
    if header.has_scaling and (header.slope, header.intercept) != (1.0, 0.0):
        values *= np.float32(header.slope)
        values += np.float32(header.intercept)


def _to_radians(
    values: Float32[np.ndarray, "x y z"], header: NiftiHeader, scale: PhaseScale, settings: ReadSettings
) -> None:
    """Turn stored values into wrapped radians, in place."""
    factor, offset = scale.factor, scale.offset
    if header.has_scaling and not scale.of_stored:
        factor, offset = factor * header.slope, offset + factor * header.intercept
    sign = -1.0 if settings.invert_phase else 1.0
    if (sign * factor, sign * offset) != (1.0, 0.0):
        values *= np.float32(sign * factor)
        values += np.float32(sign * offset)
    if scale.rule != "unwrapped":
        _check_range(values, header)
    if settings.ge_slice_flip:
        values[:, :, 1::2] += np.float32(np.pi)
    if scale.rule != "unwrapped":
        _wrap(values)


def _check_range(values: Float32[np.ndarray, "x y z"], header: NiftiHeader) -> None:
    """Check radians against the scale, which may have been decided on another coil."""
    largest = float(np.abs(values).max(initial=0.0, where=np.isfinite(values)))
    if largest > TWO_PI + 2 * RADIAN_TOLERANCE:
        raise FormatError(
            f"{header.path}: the phase goes up to {largest:.3g} rad on the scale that the first coil was read with. "
            "Are all coils stored alike?"
        )


def _wrap(values: Float32[np.ndarray, "x y z"]) -> None:
    """Bring radians into -pi to pi, in place, where they are not."""
    with np.errstate(invalid="ignore"):
        beyond = (np.abs(values) > np.pi + WRAP_TOLERANCE) & np.isfinite(values)
    if beyond.any():
        outside = values[beyond].astype(np.float64)
        values[beyond] = (outside - TWO_PI * np.rint(outside / TWO_PI)).astype(np.float32)


def _clear_not_finite(
    phase: Float32[np.ndarray, "echoes x y z"], magnitude: Float32[np.ndarray, "echoes x y z"]
) -> Bool[np.ndarray, "x y z"]:
    """Set voxels that are not finite in any image to 0 in all, and return where all are finite."""
    valid = np.ones(phase.shape[1:], dtype=np.bool_)
    for images in (phase, magnitude):
        for image in images:
            valid &= np.isfinite(image)
    if not valid.all():
        phase[:, ~valid] = 0
        magnitude[:, ~valid] = 0
    return valid


def _clear_negative(magnitude: Float32[np.ndarray, "echoes x y z"], plan: SeriesPlan) -> int:
    """Set the few negative magnitudes of interpolation to 0 and return how many there were."""
    negative = 0
    for volumes, image in zip(plan.magnitude, magnitude, strict=True):
        below = image < 0
        n = int(below.sum())
        if n > MAX_NEGATIVE_SHARE * image.size:
            raise FormatError(
                f"{volumes.headers[0].path}: {n} of {image.size} voxels are negative, expected a magnitude. Is it the "
                "phase, or a real part?"
            )
        image[below] = 0
        negative += n
    return negative


def _check_magnitude(magnitude: Float32[np.ndarray, "echoes x y z"], plan: SeriesPlan) -> None:
    for volumes, image in zip(plan.magnitude, magnitude, strict=True):
        if not image.any():
            raise FormatError(f"{volumes.headers[0].path}: the magnitude is 0 everywhere. Check the image.")


def _check_not_magnitude(
    phase: Float32[np.ndarray, "x y z"],
    magnitude: Float32[np.ndarray, "x y z"],
    found: PhaseRange,
    plan: SeriesPlan,
) -> None:
    """Refuse the magnitude given twice: stored without values below 0, and rising with the magnitude."""
    if found.stored[0] < 0:
        return
    stride = max(1, phase.size // _SAMPLE)
    a, b = (np.asarray(image.ravel(order="K")[::stride], dtype=np.float64) for image in (phase, magnitude))
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = a[finite] - a[finite].mean(), b[finite] - b[finite].mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    if length > 0 and float(a @ b) / length > MAX_CORRELATION:
        raise FormatError(
            f"{plan.phase[0].headers[0].path}: this is the magnitude again (correlation {float(a @ b) / length:.3f} "
            f"with {plan.magnitude[0].headers[0].path.name}), expected phase."
        )


def _count_notes(counts: Mapping[str, int]) -> Iterator[Note]:
    if counts["not_finite"]:
        text = f"{counts['not_finite']} of {counts['voxels']} voxels are NaN or infinite; they are left out"
        yield Note("not_finite", text)
    if counts["negative_magnitude"]:
        text = f"{counts['negative_magnitude']} negative magnitudes were set to 0"
        yield Note("negative_magnitude", text, is_warning=False)
