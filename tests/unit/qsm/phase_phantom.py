"""A small head for the tests of phase: brain, scalp, an air cavity below, sources inside; known field and offsets."""

from dataclasses import dataclass

import numpy as np

from brainlocus.core import Grid
from brainlocus.core.gradient_echo import GAMMA_BAR_MHZ_PER_T, Acquisition, Channel, GradientEcho
from brainlocus.numerics.dipole import dipole_field


@dataclass
class Phantom:
    brain: np.ndarray
    head: np.ndarray
    field_ppm: np.ndarray
    """Total, shimmed."""
    offset_rad: np.ndarray
    series: GradientEcho
    """Combined, noisy, wrapped, with the offset."""
    true_phase_rad: np.ndarray
    """Evolution per echo, without the offset."""
    noise_sd: float


def wrap(phase):
    return np.angle(np.exp(1j * np.asarray(phase, dtype=np.float64))).astype(np.float32)


def coordinates(shape, voxel):
    return np.meshgrid(*((np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, voxel, strict=True)), indexing="ij")


def acquisition(shape, voxel, times, b0=3.0):
    return Acquisition.of(Grid(shape, np.diag([*voxel, 1.0])), times, b0)


def phantom(shape=(56, 60, 40), voxel=(3.0, 3.0, 3.6), times=(0.0094, 0.020), snr=80.0, seed=0, cavity=8.0):
    rng = np.random.default_rng(seed)
    x, y, z = coordinates(shape, voxel)
    brain = (x / 55) ** 2 + (y / 66) ** 2 + (z / 50) ** 2 < 1
    head = (x / 66) ** 2 + (y / 77) ** 2 + (z / 61) ** 2 < 1
    skull = (
        head
        & ((x / 62) ** 2 + (y / 73) ** 2 + (z / 57) ** 2 < 1)
        & ~((x / 58) ** 2 + (y / 69) ** 2 + (z / 53) ** 2 < 1)
    )
    air = (x**2 + (y - 45) ** 2 + (z + 48) ** 2 < cavity**2) & ~brain
    chi = np.where(head, 0.0, 9.2)
    chi[skull] = -2.1
    chi[air] = 9.2
    for _ in range(12):
        cx, cy, cz = rng.uniform(-30, 30, 3)
        chi[((x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) < rng.uniform(4, 9) ** 2] += rng.uniform(0.03, 0.15)
    field = dipole_field(chi.astype(np.float32), voxel, (0.0, 0.0, 1.0)).astype(np.float64)
    u, v, w = x / 60, y / 60, z / 60
    terms = np.stack([np.ones_like(u), u, v, w, u * v, u * w, v * w, u * u, v * v, w * w], axis=-1)
    field -= terms @ np.linalg.lstsq(terms[brain], field[brain], rcond=None)[0]
    offset = 1.0 + 0.8 * u - 0.6 * v + 0.5 * w + 0.4 * u * v - 0.5 * w * w
    hz = GAMMA_BAR_MHZ_PER_T * 3.0
    rate = np.where(brain, 20.0, 40.0)
    density = np.where(brain, 1.0, np.where(skull | air, 0.03, np.where(head, 0.7, 0.0)))
    true = np.stack([2 * np.pi * hz * t * field for t in times])
    signal = np.stack(
        [density * np.exp(-t * rate) * np.exp(1j * (p + offset)) for t, p in zip(times, true, strict=True)]
    )
    sd = float(np.percentile(np.abs(signal[0]), 99)) / snr
    signal = signal + sd * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    series = GradientEcho(
        np.angle(signal).astype(np.float32),
        np.abs(signal).astype(np.float32),
        np.ones(shape, dtype=bool),
        acquisition(shape, voxel, times),
    )
    return Phantom(brain, head, field, offset, series, true.astype(np.float32), sd)


@dataclass
class Coils:
    """Twelve receive coils around the phantom, noise of their own each."""

    phantom: Phantom
    n_channels: int = 12
    seed: int = 1
    reads: int = 0

    @property
    def acquisition(self):
        return self.phantom.series.acquisition

    def read(self, channel):
        self.reads += 1
        made = self.phantom
        rng = np.random.default_rng([self.seed, channel])
        x, y, z = coordinates(made.brain.shape, self.acquisition.voxel_size_mm)
        angle = 2 * np.pi * channel / self.n_channels
        px, py, pz = 110 * np.cos(angle), 110 * np.sin(angle), 40.0 * (-1) ** channel
        away = np.sqrt((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2)
        sensitivity = (60 / away) ** 1.5
        a = rng.uniform(-np.pi, np.pi)
        b = rng.uniform(-1.5, 1.5, 3)
        c = rng.uniform(-0.5, 0.5, 3)
        u, v, w = x / 60, y / 60, z / 60
        own = a + b[0] * u + b[1] * v + b[2] * w + c[0] * u * u + c[1] * v * v + c[2] * u * w
        clean = made.clean() * sensitivity * np.exp(1j * own)
        sd = float(np.percentile(np.abs(made.clean()[0]), 99)) / 80
        noisy = clean + sd * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape))
        return Channel(np.angle(noisy).astype(np.float32), np.abs(noisy).astype(np.float32))


def _clean(self):
    times = self.series.acquisition.echo_time_s
    rate = np.where(self.brain, 20.0, 40.0)
    density = np.where(self.brain, 1.0, np.where(self.head, 0.7, 0.0))
    return np.stack(
        [
            density * np.exp(-t * rate) * np.exp(1j * (p + self.offset_rad))
            for t, p in zip(times, self.true_phase_rad, strict=True)
        ]
    )


Phantom.clean = _clean
