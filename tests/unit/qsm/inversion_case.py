"""A small head-like phantom for the tests of dipole inversions."""

from dataclasses import dataclass

import numpy as np

from brainlocus.numerics import dipole_field

SIZES = (1.0, 1.0, 1.0)
B0 = (0.0, 0.0, 1.0)
NOISE_PPM = 0.00115


@dataclass(frozen=True)
class Case:
    chi: np.ndarray
    field: np.ndarray
    mask: np.ndarray
    sizes: tuple[float, float, float]
    b0: tuple[float, float, float]


def case(shape=(40, 44, 36), sizes=SIZES, b0=B0, noise=NOISE_PPM, seed=0):
    """An ellipsoid with a smooth inside, twelve small ellipsoids of 0.03 to 0.15 ppm and two vessels."""
    rng = np.random.default_rng(seed)
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, sizes, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    half = [0.42 * n * h for n, h in zip(shape, sizes, strict=True)]
    mask = sum((g / r) ** 2 for g, r in zip(grid, half, strict=True)) <= 1
    chi = 0.01 * np.cos(grid[0] / 5) * np.cos(grid[1] / 6)
    for _ in range(12):
        centre = [rng.uniform(-0.6, 0.6) * r for r in half]
        radii = [rng.uniform(0.1, 0.25) * r for r in half]
        inside = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) <= 1
        chi[inside] = rng.uniform(0.03, 0.15)
    chi[np.abs(grid[0] - 3) + np.abs(grid[2] + 2) < 1.6] = 0.19
    chi = np.where(mask, chi, 0).astype(np.float32)
    field = dipole_field(chi, sizes, b0) + rng.normal(size=shape).astype(np.float32) * np.float32(noise)
    return Case(chi, field, mask, sizes, b0)


def nrmse(found, truth, mask):
    """In percent, each less its mean (methods/qsm.md 15)."""
    r, t = (image[mask].astype(float) - image[mask].mean(dtype=float) for image in (found, truth))
    return 100 * np.linalg.norm(r - t) / np.linalg.norm(t)
