"""A small head for the tests of phase: brain, skull, scalp, an air cavity below, sources inside; all fields known."""

from dataclasses import dataclass

import numpy as np

from brainlocus.core import Grid
from brainlocus.core.gradient_echo import GAMMA_BAR_MHZ_PER_T, Acquisition, Channel, GradientEcho
from brainlocus.numerics.dipole import dipole_field

TIMES = (0.0094, 0.020)


@dataclass
class Phantom:
    brain: np.ndarray
    field_ppm: np.ndarray
    """Total, shimmed."""
    offset_rad: np.ndarray
    evolution_rad: np.ndarray
    """Phase of each echo without the offset, not wrapped."""
    clean: np.ndarray
    """Complex signal without noise."""
    noise_sd: float
    series: GradientEcho
    """Combined, noisy, wrapped, with the offset."""


@dataclass
class Coils:
    """Receive coils around the phantom, each with noise of its own; counts how often it is read."""

    phantom: Phantom
    n_channels: int = 12
    reads: int = 0

    @property
    def acquisition(self):
        return self.phantom.series.acquisition

    def read(self, channel):
        self.reads += 1
        rng = np.random.default_rng([1, channel])
        x, y, z = coordinates(self.phantom.brain.shape, self.acquisition.voxel_size_mm)
        angle = 2 * np.pi * channel / self.n_channels
        away = np.sqrt(
            (x - 110 * np.cos(angle)) ** 2 + (y - 110 * np.sin(angle)) ** 2 + (z - 40 * (-1) ** channel) ** 2
        )
        sensitivity = (60 / away) ** 1.5
        u, v, w = x / 60, y / 60, z / 60
        b, c = rng.uniform(-1.5, 1.5, 3), rng.uniform(-0.5, 0.5, 3)
        own = rng.uniform(-np.pi, np.pi) + b[0] * u + b[1] * v + b[2] * w + c[0] * u * u + c[1] * v * v + c[2] * u * w
        echoes = self.phantom.clean * sensitivity * np.exp(1j * own)
        return Channel(*noisy(echoes, self.phantom.noise_sd, rng))


def wrap(phase):
    return np.angle(np.exp(1j * np.asarray(phase, dtype=np.float64))).astype(np.float32)


def turns_left(found, wrapped):
    """Distance of the added phase from multiples of 2 pi, in rad."""
    added = (found.astype(np.float64) - wrapped.astype(np.float64)) / (2 * np.pi)
    return 2 * np.pi * np.abs(added - np.rint(added)).max()


def coordinates(shape, voxel):
    return np.meshgrid(*((np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, voxel, strict=True)), indexing="ij")


def acquisition(shape, voxel, times=TIMES):
    return Acquisition.of(Grid(tuple(shape), np.diag([*voxel, 1.0])), times, 3.0)


def noisy(signal, sd, rng):
    signal = signal + sd * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    return np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)


def phantom(shape=(52, 60, 44), voxel=(2.5, 2.5, 2.75), times=TIMES, snr=80.0, seed=0, alternating_rad=None):
    """Return a head of 112 x 130 x 104 mm; `alternating_rad` is added to odd echoes and taken from even ones."""
    rng = np.random.default_rng(seed)
    x, y, z = coordinates(shape, voxel)

    def ellipsoid(more):
        return (x / (44 + more)) ** 2 + (y / (53 + more)) ** 2 + (z / (40 + more)) ** 2 < 1

    brain, head = ellipsoid(0), ellipsoid(12)
    skull = ellipsoid(7) & ~ellipsoid(2)
    air = (x**2 + (y - 38) ** 2 + (z + 42) ** 2 < 13**2) & ~ellipsoid(2)
    chi = np.where(head & ~air, 0.0, 9.2)
    chi[skull & ~air] = -2.1
    for _ in range(12):
        cx, cy, cz = rng.uniform(-25, 25, 3)
        chi[((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) < rng.uniform(4, 8) ** 2] += rng.uniform(0.03, 0.15)
    field = dipole_field(chi.astype(np.float32), voxel, (0.0, 0.0, 1.0)).astype(np.float64)
    u, v, w = x / 60, y / 60, z / 60
    terms = np.stack([np.ones_like(u), u, v, w, u * v, u * w, v * w, u * u, v * v, w * w], axis=-1)
    field -= terms @ np.linalg.lstsq(terms[brain], field[brain], rcond=None)[0]
    offset = 1.0 + 0.8 * u - 0.6 * v + 0.5 * w + 0.4 * u * v - 0.5 * w * w
    evolution = np.stack([2 * np.pi * GAMMA_BAR_MHZ_PER_T * 3.0 * t * field for t in times])
    density = np.where(brain, 1.0, np.where(skull | air, 0.03, np.where(head, 0.7, 0.0)))
    decay = [density * np.exp(-t * np.where(brain, 20.0, 40.0)) for t in times]
    sign = [0 if alternating_rad is None else (-1) ** e * alternating_rad(x, y, z) for e in range(len(times))]
    clean = np.stack([m * np.exp(1j * (p + offset + g)) for m, p, g in zip(decay, evolution, sign, strict=True)])
    sd = float(np.percentile(np.abs(clean[0]), 99)) / snr
    phase, magnitude = noisy(clean, sd, rng)
    series = GradientEcho(phase, magnitude, np.ones(shape, dtype=bool), acquisition(shape, voxel, times))
    return Phantom(brain, field, offset, evolution.astype(np.float32), clean, sd, series)
