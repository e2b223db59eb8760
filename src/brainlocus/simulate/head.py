"""A simulated head in a gradient-echo scan, with its truth: susceptibility, fields, relaxation and labels.

::

    anatomy --> chi, R2*, density on fine slices
    total field = D * chi(head) - shim,   local field = D * chi(brain)          (D: dipole kernel, doubled box)
    signal(TE)  = mean over a slice's fine slices of  density exp(-TE R2*) exp(i (2 pi hz_per_ppm total TE + phi0))
    series      = signal + complex noise;   channels: signal x sensitivity + noise, coil by coil

The field varies through a thick slice and dephases its signal, as in a real scan. Everything is drawn from one seed:
the veins, the phase offset phi0, the coils and the noise. The anatomy and its texture (the fine structure of the
template) are the same for every seed unless `HeadSettings.spread` is above 0.

Beyond the image the head goes on: the neck reaches `NECK_BELOW_MM` further down for the field, and air lies around it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex64, Float, Float32, UInt8

from brainlocus.core import Parcellation
from brainlocus.core.gradient_echo import Acquisition, Channel, GradientEcho
from brainlocus.core.volumes import Grid
from brainlocus.numerics.dipole import dipole_field
from brainlocus.simulate.anatomy import AIR, LABEL_NAMES, build_anatomy

__all__ = [
    "HEAD_PRESETS",
    "HeadSettings",
    "SimulatedChannels",
    "SimulatedHead",
    "head_settings",
    "simulate_head",
]

CENTRE_MM = (0.0, -18.0, 8.0)
"""MNI position of the middle of the image."""
NECK_BELOW_MM = 40.0
"""How far the head goes on below the image, so that its lower end does not magnetise the brain."""
PHASE_OFFSET_RAD = 1.0
"""Root mean square of phi0 in the brain."""
FIELD_NOISE_PPM = 0.00115
"""Noise of a field combined from the echoes of the usual presets."""
_VEINS, _OFFSET, _NOISE, _FIELD, _COIL = range(5)


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """What is scanned and how; see `head_settings` for the usual grids."""

    shape: tuple[int, int, int]
    voxel_size_mm: tuple[float, float, float]
    slices_averaged: int = 1
    """Fine slices whose complex signals make one slice; each is `voxel_size_mm[2] / slices_averaged` thick."""
    echo_time_s: tuple[float, ...] = (0.0094, 0.020)
    field_strength_t: float = 3.0
    snr: float = 80.0
    """99th percentile of the first echo's magnitude over the noise of the real part; infinite: no noise."""
    calcification: bool = False
    spread: float = 0.0
    """Standard deviation between seeds of each nucleus' susceptibility and R2*, as a share of its value."""
    tilt_degrees: float = 0.0
    """Rotation of the image about the left-right axis: oblique slices. The main field stays along the head."""

    def __post_init__(self) -> None:
        if self.slices_averaged < 1 or min(self.shape) < 8 or not min(self.voxel_size_mm) > 0:
            raise ValueError(
                f"Expected at least 8 voxels along each axis, sizes above 0 and 1 or more fine slices, found {self}."
            )
        if not self.snr > 0 or not self.spread >= 0:
            raise ValueError(f"Expected snr above 0 and spread from 0 up, found snr {self.snr}, spread {self.spread}.")

    @property
    def acquisition(self) -> Acquisition:
        """Geometry and timing; world coordinates are MNI millimetres."""
        angle = np.radians(self.tilt_degrees)
        rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        affine = np.eye(4)
        affine[:3, :3] = rotation * np.asarray(self.voxel_size_mm)
        affine[:3, 3] = np.asarray(CENTRE_MM) - affine[:3, :3] @ ((np.asarray(self.shape) - 1) / 2)
        return Acquisition.of(Grid(self.shape, affine), self.echo_time_s, self.field_strength_t)


HEAD_PRESETS: dict[str, HeadSettings] = {
    "ukb": HeadSettings((256, 288, 48), (0.8, 0.8, 3.0), slices_averaged=3),
    "ukb-small": HeadSettings((128, 144, 48), (1.6, 1.6, 3.0), slices_averaged=3),
    "1mm": HeadSettings((168, 210, 168), (1.0, 1.0, 1.0)),
    "1.5mm": HeadSettings((112, 140, 112), (1.5, 1.5, 1.5)),
    "2mm": HeadSettings((84, 105, 84), (2.0, 2.0, 2.0)),
    "3mm": HeadSettings((56, 70, 56), (3.0, 3.0, 3.0)),
}
"""Grids by name. ``ukb`` is UK Biobank's; ``ukb-small`` has half its in-plane resolution."""


def head_settings(name: str) -> HeadSettings:
    """Return the settings of a grid of `HEAD_PRESETS`; change them with `dataclasses.replace`.

    Raises
    ------
    ValueError
        There is no such grid.
    """
    if name not in HEAD_PRESETS:
        raise ValueError(f"Expected a grid among {', '.join(HEAD_PRESETS)}; found {name!r}.")
    return HEAD_PRESETS[name]


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedChannels:
    """Uncombined coils, made when they are read; a `ChannelSource`.

    Sensitivity of a coil at distance r mm: (60 / r)^1.5, with a random phase of order two in space. Together the coils
    have a sum of squares of 1 on average in the brain, and each the noise of `SimulatedHead.series`.
    """

    n_channels: int
    signal: Complex64[np.ndarray, "echoes x y z"]
    acquisition: Acquisition
    sigma: float
    scale: float
    seed: int

    def read(self, channel: int) -> Channel:
        """Return one coil, counted from 0; the same on every read.

        Raises
        ------
        IndexError
            There is no such coil.
        """
        if not 0 <= channel < self.n_channels:
            raise IndexError(f"Expected a channel from 0 to {self.n_channels - 1}, found {channel}.")
        rng = _rng(self.seed, _COIL, channel)
        sensitivity = _sensitivity(self.acquisition, channel, self.n_channels) * np.float32(self.scale)
        phase = _polynomial(rng.normal(0.0, [np.pi, *[1.0] * 9]), self.acquisition.shape)
        echoes = self.signal * (sensitivity * np.exp(1j * phase)).astype(np.complex64)
        _add_noise(echoes, self.sigma, rng)
        return Channel(np.angle(echoes), np.abs(echoes))


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedHead:
    """A scan and the truth behind it; all maps lie on the scan's grid."""

    settings: HeadSettings
    seed: int
    acquisition: Acquisition
    chi_ppm: Float32[np.ndarray, "x y z"]
    """Susceptibility of the brain against water, averaged over the fine slices; 0 outside the brain."""
    r2star: Float32[np.ndarray, "x y z"]
    """1/s, averaged over the fine slices, head and brain; 0 in air."""
    labels: Parcellation
    """Tissues and nuclei of the brain (`brainlocus.simulate.anatomy.LABEL_NAMES`)."""
    brain_mask: Bool[np.ndarray, "x y z"]
    """More than half of the fine slices are brain."""
    total_field_ppm: Float32[np.ndarray, "x y z"]
    """Of the whole head, after the shim, averaged over the fine slices; everywhere."""
    local_field_ppm: Float32[np.ndarray, "x y z"]
    """Of the brain's susceptibility alone, averaged over the fine slices; everywhere."""
    phase_offset_rad: Float32[np.ndarray, "x y z"]
    """phi0, the same in all echoes."""
    signal: Complex64[np.ndarray, "echoes x y z"]
    """Without noise."""
    sigma: float
    """Noise of the real and of the imaginary part."""

    @property
    def series(self) -> GradientEcho:
        """The coil-combined scan with noise; the same on every call."""
        noisy = self.signal.copy()
        _add_noise(noisy, self.sigma, _rng(self.seed, _NOISE))
        return GradientEcho(
            np.angle(noisy), np.abs(noisy), np.ones(self.acquisition.shape, dtype=bool), self.acquisition
        )

    def channels(self, n_channels: int) -> SimulatedChannels:
        """Return the scan as `n_channels` coils see it, one made at a time.

        Raises
        ------
        ValueError
            Fewer than one coil.
        """
        if n_channels < 1:
            raise ValueError(f"Expected at least one channel, found {n_channels}.")
        power = np.zeros(int(self.brain_mask.sum()))
        for channel in range(n_channels):
            power += _sensitivity(self.acquisition, channel, n_channels)[self.brain_mask].astype(np.float64) ** 2
        scale = float(1 / np.sqrt(power.mean()))
        return SimulatedChannels(n_channels, self.signal, self.acquisition, self.sigma, scale, self.seed)

    def noisy_local_field(self, sd_ppm: float = FIELD_NOISE_PPM) -> Float32[np.ndarray, "x y z"]:
        """Return the true local field plus Gaussian noise within the brain mask, 0 outside; the same on every call."""
        noise = _rng(self.seed, _FIELD).standard_normal(self.brain_mask.shape, dtype=np.float32)
        return np.where(self.brain_mask, self.local_field_ppm + np.float32(sd_ppm) * noise, np.float32(0))


def simulate_head(settings: HeadSettings | str, *, seed: int = 0, workers: int = 1) -> SimulatedHead:
    """Simulate a scan of a head.

    Parameters
    ----------
    settings
        Or the name of a grid of `HEAD_PRESETS`.
    seed
        Everything random depends on it alone.
    workers
        Threads of the Fourier transforms; the result does not depend on them.

    Raises
    ------
    MissingExtraError
        nilearn is not installed: ``pip install 'brainlocus[imaging]'``.
    ValueError
        There is no such grid, or no brain in the image.
    """
    if isinstance(settings, str):
        settings = head_settings(settings)
    acquisition = settings.acquisition
    fine, below = _fine_grid(settings, acquisition)
    tall = Grid((fine.shape[0], fine.shape[1], fine.shape[2] + below), _shifted(fine.affine, -float(below)))
    head = build_anatomy(
        tall.shape, tall.affine, _rng(seed, _VEINS), calcification=settings.calcification, spread=settings.spread
    )
    r2star, density, brain, labels = (
        np.ascontiguousarray(part[:, :, below:]) for part in (head.r2star, head.density, head.brain, head.labels)
    )
    if not brain.any():
        raise ValueError(f"Expected an image that holds part of the brain, found none: {settings}.")
    voxel = Acquisition.of(fine, settings.echo_time_s, settings.field_strength_t).voxel_size_mm
    b0 = acquisition.b0_direction
    total = np.ascontiguousarray(
        dipole_field(head.chi_ppm - np.float32(AIR.chi_ppm), voxel, b0, workers=workers)[:, :, below:]
    )
    chi = np.where(brain, head.chi_ppm[:, :, below:], np.float32(0))
    del head
    local = dipole_field(chi, voxel, b0, workers=workers)
    total -= _shim(total, brain)
    n = settings.slices_averaged
    offset = _phase_offset(acquisition, _mean_slices(brain, n) > 0.5, _rng(seed, _OFFSET))
    signal = _signal(density, r2star, total, offset, settings, acquisition)
    sigma = float(np.percentile(np.abs(signal[0]), 99)) / settings.snr
    return SimulatedHead(
        settings=settings,
        seed=seed,
        acquisition=acquisition,
        chi_ppm=_mean_slices(chi, n),
        r2star=_mean_slices(r2star, n),
        labels=_parcellation(labels, n, acquisition.grid),
        brain_mask=_mean_slices(brain, n) > 0.5,
        total_field_ppm=_mean_slices(total, n),
        local_field_ppm=_mean_slices(local, n),
        phase_offset_rad=offset,
        signal=signal,
        sigma=sigma,
    )


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _shifted(affine: Float[np.ndarray, "4 4"], slices: float) -> Float[np.ndarray, "4 4"]:
    """Return the affine of a grid that starts some slices further up (below 0: down)."""
    moved = affine.copy()
    moved[:3, 3] += slices * affine[:3, 2]
    return moved


def _fine_grid(settings: HeadSettings, acquisition: Acquisition) -> tuple[Grid, int]:
    """Return the grid of fine slices, and how many more the head needs below."""
    n = settings.slices_averaged
    x, y, z = settings.shape
    affine = acquisition.grid.affine.copy()
    affine[:3, 2] /= n
    # The middle of the first thick slice stays where it is.
    below = int(np.ceil(NECK_BELOW_MM * n / settings.voxel_size_mm[2]))
    return Grid((x, y, z * n), _shifted(affine, -(n - 1) / 2)), below


def _mean_slices(
    image: Float32[np.ndarray, "x y fine"] | Bool[np.ndarray, "x y fine"], n: int
) -> Float32[np.ndarray, "x y z"]:
    """Return the average of every `n` slices."""
    x, y, z = image.shape
    return np.asarray(image.reshape(x, y, z // n, n).mean(axis=3, dtype=np.float32))


def _parcellation(labels: UInt8[np.ndarray, "x y fine"], n: int, grid: Grid) -> Parcellation:
    """Return the label that most fine slices of a voxel have; the lowest among equals."""
    x, y, z = labels.shape
    stacked = labels.reshape(x, y, z // n, n)
    best = stacked[..., 0].astype(np.int16)
    votes = np.zeros(best.shape, dtype=np.int16)
    for label in (0, *LABEL_NAMES):
        count = np.count_nonzero(stacked == label, axis=3)
        better = count > votes
        best[better], votes[better] = label, count[better]
    return Parcellation(best, grid.affine, dict(LABEL_NAMES))


def _quadratic_terms(shape: tuple[int, int, int]) -> list[Float[np.ndarray, "..."]]:
    """Return 1, x, y, z, x^2, y^2, z^2, xy, xz, yz over the image, each axis from -1 to 1, ready to broadcast."""
    x, y, z = np.ix_(*(np.linspace(-1.0, 1.0, n) for n in shape))
    return [np.ones((1, 1, 1)), x, y, z, x**2, y**2, z**2, x * y, x * z, y * z]


def _polynomial(coefficients: Float[np.ndarray, " terms"], shape: tuple[int, int, int]) -> Float32[np.ndarray, "x y z"]:
    total = np.zeros(shape, dtype=np.float32)
    for coefficient, term in zip(coefficients, _quadratic_terms(shape), strict=True):
        total += (coefficient * term).astype(np.float32)
    return total


def _shim(field: Float32[np.ndarray, "x y z"], brain: Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
    """Return the second-order polynomial that fits the field in the brain best."""
    terms = _quadratic_terms(field.shape)
    columns = np.stack([np.broadcast_to(term, field.shape)[brain] for term in terms])
    coefficients = np.linalg.solve(columns @ columns.T, columns @ field[brain].astype(np.float64))
    return _polynomial(coefficients, field.shape)


def _phase_offset(
    acquisition: Acquisition, brain: Bool[np.ndarray, "x y z"], rng: np.random.Generator
) -> Float32[np.ndarray, "x y z"]:
    offset = _polynomial(rng.standard_normal(10), acquisition.shape)
    size = float(np.sqrt(np.mean(offset[brain].astype(np.float64) ** 2)))
    return offset * np.float32(PHASE_OFFSET_RAD / size)


def _signal(
    density: Float32[np.ndarray, "x y fine"],
    r2star: Float32[np.ndarray, "x y fine"],
    field_ppm: Float32[np.ndarray, "x y fine"],
    offset: Float32[np.ndarray, "x y z"],
    settings: HeadSettings,
    acquisition: Acquisition,
) -> Complex64[np.ndarray, "echoes x y z"]:
    """Return the noiseless echoes, slice by thick slice."""
    n = settings.slices_averaged
    signal = np.empty((len(acquisition.echo_time_s), *acquisition.shape), dtype=np.complex64)
    for z in range(acquisition.shape[2]):
        fine = slice(z * n, (z + 1) * n)
        for echo, time in enumerate(acquisition.echo_time_s):
            magnitude = density[:, :, fine] * np.exp(-np.float32(time) * r2star[:, :, fine])
            # In double precision: the phase reaches hundreds of radians near air.
            phase = 2 * np.pi * acquisition.hz_per_ppm * time * field_ppm[:, :, fine].astype(np.float64)
            signal[echo, :, :, z] = (magnitude * np.exp(1j * phase)).mean(axis=2)
        signal[:, :, :, z] *= np.exp(1j * offset[:, :, z])
    return signal


def _sensitivity(acquisition: Acquisition, channel: int, n_channels: int) -> Float32[np.ndarray, "x y z"]:
    """Return (60 / r)^1.5, r the distance to a coil on an ellipsoid around the head (a golden spiral)."""
    height = 1 - (2 * channel + 1) / n_channels
    around = channel * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - height**2)
    coil = np.asarray(CENTRE_MM) + np.array([105.0, 125.0, 115.0]) * [
        ring * np.cos(around),
        ring * np.sin(around),
        height,
    ]
    squared = np.zeros(acquisition.shape, dtype=np.float32)
    affine = acquisition.grid.affine
    i, j, k = np.ix_(*(np.arange(n, dtype=np.float64) for n in acquisition.shape))
    for row in range(3):
        squared += (
            ((affine[row, 0] * i + affine[row, 1] * j) + affine[row, 2] * k + affine[row, 3] - coil[row]) ** 2
        ).astype(np.float32)
    # Closer than 20 mm the power law no longer holds; nothing of the head lies there.
    return np.asarray((np.float32(60.0**2) / np.maximum(squared, np.float32(400.0))) ** np.float32(0.75))


def _add_noise(echoes: Complex64[np.ndarray, "echoes x y z"], sigma: float, rng: np.random.Generator) -> None:
    """Add independent complex Gaussian noise, in place, echo by echo."""
    for echo in echoes:
        echo.real += np.float32(sigma) * rng.standard_normal(echo.shape, dtype=np.float32)
        echo.imag += np.float32(sigma) * rng.standard_normal(echo.shape, dtype=np.float32)
