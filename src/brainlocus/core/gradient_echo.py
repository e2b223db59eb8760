"""Multi-echo gradient-echo images: what the scanner measured, and all that the physics needs to know of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from brainlocus.core.errors import FormatError
from brainlocus.core.volumes import Grid

__all__ = ["GAMMA_BAR_MHZ_PER_T", "Acquisition", "Channel", "ChannelSource", "GradientEcho", "iter_channels"]

GAMMA_BAR_MHZ_PER_T = 42.577478518
"""Proton gyromagnetic ratio over 2 pi (CODATA 2018); also Hz per ppm and tesla."""

SHEAR_TOLERANCE = 1e-3
"""Largest cosine between two voxel axes that still counts as orthogonal."""


@dataclass(frozen=True, slots=True, eq=False)
class Acquisition:
    """Geometry and timing of a gradient-echo series."""

    grid: Grid
    echo_time_s: tuple[float, ...]
    """Increasing."""
    field_strength_t: float
    """The imaging field, not the scanner's name: 2.89 on some "3 T" systems."""
    b0_direction: tuple[float, float, float]
    """Unit vector of the main field along the *voxel* axes; see `b0_from_affine`."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        return self.grid.shape

    @property
    def voxel_size_mm(self) -> tuple[float, float, float]:
        """Edges of a voxel."""
        x, y, z = (float(v) for v in np.linalg.norm(self.grid.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def hz_per_ppm(self) -> float:
        """127.73 at 3 T. The only place where ppm and Hz meet."""
        return GAMMA_BAR_MHZ_PER_T * self.field_strength_t

    @property
    def oblique_degrees(self) -> float:
        """Angle between the main field and the nearest voxel axis."""
        return float(np.degrees(np.arccos(min(1.0, max(abs(v) for v in self.b0_direction)))))

    @classmethod
    def of(cls, grid: Grid, echo_time_s: tuple[float, ...], field_strength_t: float) -> "Acquisition":
        """Return an acquisition whose main field lies along the scanner's z axis.

        b = R^T (0, 0, 1), where R has the affine's columns at length one.

        Raises
        ------
        FormatError
            The voxel axes are not orthogonal; or echo times or field strength are not positive, in order and finite.
        """
        axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
        skew = float(np.abs(axes.T @ axes - np.eye(3)).max())
        if not skew < SHEAR_TOLERANCE:
            raise FormatError(
                f"The affine is sheared: voxel axes meet at a cosine of {skew:.3g}, expected 0. Resample the series to "
                "a grid with orthogonal axes, or correct the affine."
            )
        times = np.asarray(echo_time_s, dtype=float)
        if times.size == 0 or not (np.isfinite(times).all() and times[0] > 0 and (np.diff(times) > 0).all()):
            raise FormatError(f"Expected increasing echo times above 0 s, found {list(echo_time_s)}.")
        if times[-1] > 1:
            raise FormatError(f"Expected echo times in seconds, found {list(echo_time_s)}: are they milliseconds?")
        if not (np.isfinite(field_strength_t) and 0 < field_strength_t < 25):
            raise FormatError(f"Expected a field strength in tesla, found {field_strength_t}.")
        x, y, z = (float(v) for v in axes[2])
        length = float(np.sqrt(x * x + y * y + z * z))
        return cls(grid, tuple(float(t) for t in times), float(field_strength_t), (x / length, y / length, z / length))


@dataclass(frozen=True, slots=True, eq=False)
class GradientEcho:
    """A coil-combined series: one magnitude and phase image an echo."""

    phase_rad: Float32[np.ndarray, "echoes x y z"]
    """Wrapped, increasing with the field: phase = phase0 + 2 pi TE f. Finite; 0 where `valid` is False."""
    magnitude: Float32[np.ndarray, "echoes x y z"]
    """Arbitrary but common units, at least 0."""
    valid: Bool[np.ndarray, "x y z"]
    """False where any echo was not finite."""
    acquisition: Acquisition


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """All echoes of one receive coil."""

    phase_rad: Float32[np.ndarray, "echoes x y z"]
    magnitude: Float32[np.ndarray, "echoes x y z"]


@runtime_checkable
class ChannelSource(Protocol):
    """Uncombined coils, read one at a time so that memory holds one; may be read more than once."""

    @property
    def n_channels(self) -> int:
        """Receive coils."""
        ...

    @property
    def acquisition(self) -> Acquisition:
        """What all coils share."""
        ...

    def read(self, channel: int) -> Channel:
        """Return one coil, counted from 0; not finite voxels are 0 in phase and magnitude."""
        ...


def iter_channels(source: ChannelSource) -> Iterator[Channel]:
    """Yield every coil in order."""
    for channel in range(source.n_channels):
        yield source.read(channel)
