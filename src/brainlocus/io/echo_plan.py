"""What a gradient-echo series consists of, checked before any voxel is read.

`plan_series` finds the volume of every echo, part and coil, compares their grids, echo times and numbers, and returns
them in the order of the echo times, with the `Acquisition` that they share.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from brainlocus.core import Acquisition, AlignmentError, FormatError, Grid, check_same_grid
from brainlocus.io.bids import EchoFiles, GradientEchoFiles, read_sidecar
from brainlocus.io.echo_metadata import TIME_TOLERANCE_S, Note, acquisition_of, echo_times_of, field_strength_of
from brainlocus.io.nifti_header import NiftiHeader, read_header

__all__ = ["EchoVolumes", "ReadSettings", "SeriesPlan", "plan_series", "series_volumes"]

Part = Literal["magnitude", "phase"]


@dataclass(frozen=True, slots=True)
class ReadSettings:
    """What the user knows better than the files; the defaults believe the files."""

    invert_phase: bool = False
    """Phase falls where the field rises (some scanners and converters): change its sign."""
    assume_unwrapped: bool = False
    """Phase is in radians and already unwrapped."""
    assume_axial: bool = False
    """Images without sform and qform have the main field along their third axis."""
    ge_slice_flip: bool = False
    """Add pi to every second slice (GE, where real and imaginary parts alternate in sign)."""
    echo_time_s: tuple[float, ...] | None = None
    """Overrides the sidecars."""
    field_strength_t: float | None = None
    """Overrides the sidecars."""


@dataclass(frozen=True, slots=True, eq=False)
class EchoVolumes:
    """Where the volumes of one echo are: a file, the index of its 4th axis, and coils along its 5th or in files."""

    headers: tuple[NiftiHeader, ...]
    """One, or one a coil."""
    echo: int
    sidecar: Mapping[str, Any]
    where: str

    def header(self, channel: int) -> NiftiHeader:
        """Return the header of the file that has a coil."""
        return self.headers[channel if len(self.headers) > 1 else 0]

    @property
    def n_channels(self) -> int:
        """Receive coils."""
        shape = self.headers[0].shape
        return shape[4] if len(shape) == 5 else len(self.headers)


@dataclass(frozen=True, slots=True, eq=False)
class SeriesPlan:
    """A series whose files fit together; no voxel read yet."""

    magnitude: tuple[EchoVolumes, ...]
    phase: tuple[EchoVolumes, ...]
    acquisition: Acquisition
    notes: tuple[Note, ...]
    what: str

    @property
    def n_channels(self) -> int:
        """Receive coils."""
        return self.phase[0].n_channels

    @property
    def metadata(self) -> dict[str, Any]:
        """Sidecar of the first echo's phase, with what the magnitude's has besides."""
        return {**self.magnitude[0].sidecar, **self.phase[0].sidecar}


def plan_series(files: GradientEchoFiles, settings: ReadSettings) -> SeriesPlan:
    """Check everything of a series that needs no voxel, and return where its volumes are.

    Raises
    ------
    FormatError, AlignmentError
        See `brainlocus.io.gradient_echo.read_gradient_echo`.
    """
    if files.problems:
        raise FormatError(files.problems[0])
    what = files.stem
    phase, magnitude = series_volumes(files, "phase"), series_volumes(files, "magnitude")
    if len(phase) != len(magnitude):
        raise FormatError(
            f"{what}: found {len(phase)} echoes of phase but {len(magnitude)} of magnitude. Which image is missing?"
        )
    if phase[0].n_channels != magnitude[0].n_channels:
        raise FormatError(
            f"{what}: phase has {phase[0].n_channels} receive coils but magnitude {magnitude[0].n_channels}. Give "
            "either all coils or the combined image of both."
        )
    _check_grids([*phase, *magnitude], phase[0].headers[0])
    times, notes = _echo_times(phase, magnitude, settings, what)
    sidecars = [volumes.sidecar for volumes in (*phase, *magnitude)]
    field_strength, about_field = field_strength_of(sidecars, settings.field_strength_t, phase[0].where)
    order = sorted(range(len(times)), key=lambda k: times[k])
    if order != list(range(len(times))):
        shown = ", ".join(f"{1000 * t:g}" for t in times)
        notes.append(Note("echoes_sorted", f"echo times were not in order ({shown} ms); echoes were sorted by time"))
    ordered = tuple(times[k] for k in order)
    if any(later - earlier <= TIME_TOLERANCE_S for earlier, later in pairwise(ordered)):
        raise FormatError(f"{what}: expected different echo times, found {[f'{1000 * t:g} ms' for t in ordered]}.")
    acquisition, geometry = acquisition_of(
        phase[0].headers[0], ordered, field_strength, assume_axial=settings.assume_axial, what=str(files.stem)
    )
    notes += [*about_field, *geometry, *_usual_notes(phase, settings)]
    return SeriesPlan(
        tuple(magnitude[k] for k in order), tuple(phase[k] for k in order), acquisition, tuple(notes), what
    )


def series_volumes(files: GradientEchoFiles, part: Part) -> list[EchoVolumes]:
    """Return where each echo of one part is, in the order of the names.

    Raises
    ------
    FormatError
        There is no image of this part, coils are missing, or a header cannot be read.
    """
    by_echo: dict[int | None, list[EchoFiles]] = {}
    for echo in files.echoes:
        if (echo.phase if part == "phase" else echo.magnitude) is not None:
            by_echo.setdefault(echo.echo, []).append(echo)
    if not by_echo:
        raise FormatError(f"{files.stem}: there is no {part} image. Susceptibility needs both parts of every echo.")
    counts = {echo: len(coils) for echo, coils in by_echo.items()}
    expected = max(files.n_coils, 1)
    if set(counts.values()) != {expected}:
        raise FormatError(f"{files.stem}: found {counts} {part} images by echo, expected {expected} for each coil.")
    return [volumes for coils in by_echo.values() for volumes in _volumes_of(coils, part)]


def _volumes_of(coils: Sequence[EchoFiles], part: Part) -> Iterator[EchoVolumes]:
    """Yield the echoes that one file, or one file a coil, holds."""
    paths = [path for coil in coils if (path := coil.phase if part == "phase" else coil.magnitude) is not None]
    headers = tuple(read_header(path) for path in paths)
    first = headers[0]
    sidecar = read_sidecar(coils[0].phase_sidecars if part == "phase" else coils[0].magnitude_sidecars)
    if len(first.shape) > 5 or (len(headers) > 1 and len(first.shape) > 4):
        raise FormatError(f"{first.path}: expected axes x, y, z, echo and coil at most, found shape {first.shape}.")
    n_echoes = first.shape[3] if len(first.shape) > 3 else 1
    if coils[0].echo is not None and n_echoes > 1:
        raise FormatError(
            f"{first.path}: expected one echo in a file named echo-{coils[0].echo}, found shape {first.shape}. "
            "Split it, or take the echo out of its name."
        )
    where = _where(coils[0], part, first.path)
    for k in range(n_echoes):
        yield EchoVolumes(headers, k, sidecar, where)


def _where(echo: EchoFiles, part: Part, image: Path) -> str:
    sidecars = echo.phase_sidecars if part == "phase" else echo.magnitude_sidecars
    return str(sidecars[-1]) if sidecars else f"{image} (no sidecar)"


def _check_grids(every: Sequence[EchoVolumes], first: NiftiHeader) -> None:
    for volumes in every:
        for header in volumes.headers:
            if header.shape[:3] != first.shape[:3]:
                slices = "" if header.shape[:2] != first.shape[:2] else " Is a slice missing (incomplete transfer)?"
                raise AlignmentError(
                    f"{header.path} has shape {header.shape[:3]}, expected {first.shape[:3]} as {first.path.name}."
                    f"{slices} Convert the scan again; images are not resampled."
                )
            if len(header.shape) != len(volumes.headers[0].shape):
                raise AlignmentError(f"{header.path} has shape {header.shape}, other coils {volumes.headers[0].shape}.")
            check_same_grid(Grid(first.grid.shape, header.affine), first.grid, what=str(header.path))


def _echo_times(
    phase: Sequence[EchoVolumes], magnitude: Sequence[EchoVolumes], settings: ReadSettings, what: str
) -> tuple[list[float], list[Note]]:
    """Return one echo time an echo, after comparing phase, magnitude and what the user gave."""
    found = [_times(part, what) for part in (phase, magnitude)]
    known = found[0] or found[1]
    if all(found) and max(abs(a - b) for a, b in zip(*found, strict=True)) > TIME_TOLERANCE_S:
        raise FormatError(f"{what}: echo times of phase are {found[0]} s but of magnitude {found[1]} s.")
    if settings.echo_time_s is None:
        if not known:
            raise FormatError(
                f"{phase[0].where}: expected EchoTime (seconds) in the sidecar, found none. Add it, or give the echo "
                "times as an option."
            )
        return list(known), []
    given = list(settings.echo_time_s)
    if len(given) != len(phase):
        raise FormatError(f"{what}: {len(given)} echo times were given for {len(phase)} echoes of phase and magnitude.")
    differs = bool(known) and max(abs(a - b) for a, b in zip(given, known, strict=True)) > TIME_TOLERANCE_S
    text = f"echo times were given as {given} s" + (f", the sidecars say {known} s" if differs else "")
    return given, [Note("echo_time_given", text, is_warning=differs)]


def _times(part: Sequence[EchoVolumes], what: str) -> list[float]:
    """Return the echo times of one part; empty where no sidecar has any."""
    one_file = len(part) > 1 and part[0].headers[0].path == part[1].headers[0].path
    if one_file:
        times = list(echo_times_of(part[0].sidecar, part[0].where))
        if times and len(times) != len(part):
            raise FormatError(f"{part[0].where}: found {len(times)} echo times for {len(part)} echoes in the image.")
        return times
    times = []
    for volumes in part:
        of_echo = echo_times_of(volumes.sidecar, volumes.where)
        if len(of_echo) > 1:
            raise FormatError(f"{volumes.where}: found {len(of_echo)} echo times for the one echo of its image.")
        times += of_echo
    if times and len(times) != len(part):
        raise FormatError(
            f"{what}: found {len(times)} echo times for {len(part)} echoes; add EchoTime to each sidecar."
        )
    return times


def _usual_notes(phase: Sequence[EchoVolumes], settings: ReadSettings) -> Iterator[Note]:
    if len(phase) == 1:
        yield Note("single_echo", "one echo: no phase offset is removed and no T2* computed", is_warning=False)
    if any(str(volumes.sidecar.get("ReadoutPolarity", "")).lower() == "bipolar" for volumes in phase):
        yield Note("bipolar", "bipolar readout: even and odd echoes differ by a phase along the readout axis")
    if settings.invert_phase:
        yield Note("phase_inverted", "the sign of the phase was changed, as asked", is_warning=False)
    if settings.ge_slice_flip:
        yield Note("slices_flipped", "pi was added to every second slice, as asked", is_warning=False)
