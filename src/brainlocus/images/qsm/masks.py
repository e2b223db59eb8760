"""Where there is tissue with a phase worth having: mask 1 from the magnitude, mask 2 from the reliability.

::

    mask 1 (given, or `magnitude_mask`) + reliability of each echo --refine_mask--> mask 2

References
----------
Otsu (1979), IEEE Trans Syst Man Cybern 9:62 (threshold).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from brainlocus.numerics.cropping import bounding_box

__all__ = ["RefinedMask", "magnitude_mask", "refine_mask", "reliable_voxels"]

LARGE_HOLE_MM3 = 50.0
"""Holes of unreliable phase above this stay open: a cavity or a large vein, not noise."""

LOST_SHARE = 0.3
"""A refinement that takes more than this from the mask is flagged."""

THICK = 1.5
"""An axis whose voxel edge is this many times the smallest is not opened along."""

WORKING_EDGE_MM = 2.5
"""The brain is told from the scalp on blocks of about this edge."""

NECK_MM = 5.0
"""What is thinner than twice this is cut when brain and scalp are parted: nerves, vessels, membranes."""


@dataclass(frozen=True, slots=True, eq=False)
class RefinedMask:
    """Mask 2 and what became of mask 1."""

    mask: Bool[np.ndarray, "x y z"]
    n_removed: int
    """Voxels of mask 1 that left."""
    share_kept: float
    """Of mask 1."""
    large_holes_mm3: tuple[float, ...]
    """Volumes of the enclosed holes left open, largest first."""
    status: Literal["kept", "much removed"]
    """``much removed``: more than 30 % of mask 1 left; the subject needs a look."""


def reliable_voxels(
    reliability: Float32[np.ndarray, "echoes x y z"], thresholds: tuple[float, ...]
) -> Bool[np.ndarray, "x y z"]:
    """Return where every echo's reliability reaches its threshold.

    Raises
    ------
    ValueError
        The numbers of echoes and thresholds differ.
    """
    if len(thresholds) != len(reliability):
        raise ValueError(
            f"Expected one reliability threshold an echo: {len(reliability)}, found {len(thresholds)} thresholds."
        )
    good = np.ones(reliability.shape[1:], dtype=bool)
    for echo, threshold in zip(reliability, thresholds, strict=True):
        good &= echo >= threshold
    return good


def refine_mask(
    mask: Bool[np.ndarray, "x y z"],
    reliability: Float32[np.ndarray, "echoes x y z"],
    thresholds: tuple[float, ...],
    voxel_size_mm: tuple[float, float, float],
) -> RefinedMask:
    """Take unreliable voxels out of a mask and clean what is left.

    Below a threshold in any echo: out. Then an opening by one voxel (not along axes of thick voxels), the largest part
    (six neighbours), and enclosed holes filled, unless they were made by the reliability and exceed 50 mm^3. The result
    never reaches beyond the mask.

    Parameters
    ----------
    reliability
        As from `phase_reliability`.
    thresholds
        One an echo; 0.7 and 0.6 for the echoes of UK Biobank.

    Raises
    ------
    ValueError
        The numbers of echoes and thresholds differ; the mask is empty before or after.

    Examples
    --------
    A slab of noise leaves a mask.

    >>> mask = np.ones((8, 8, 8), dtype=bool)
    >>> reliability = np.ones((1, 8, 8, 8), dtype=np.float32)
    >>> reliability[:, :2] = 0.1
    >>> refined = refine_mask(mask, reliability, (0.7,), (1.0, 1.0, 1.0))
    >>> refined.n_removed, refined.status
    (128, 'kept')
    """
    n_before = int(mask.sum())
    if n_before == 0:
        raise ValueError("Mask refinement: the mask is empty. Expected at least one voxel; check the brain mask.")
    box = bounding_box(mask, (1, 1, 1))
    before = mask[box]
    kept = before & reliable_voxels(reliability[(slice(None), *box)], thresholds)
    kept = _largest_part(_open(kept, voxel_size_mm))
    if not kept.any():
        raise ValueError(
            f"Mask refinement: nothing is left of {n_before} voxels at reliability thresholds {list(thresholds)}. "
            "Check that the phase is in radians, or lower the thresholds."
        )
    kept, large = _fill_holes(kept, before, float(np.prod(voxel_size_mm)))
    result = np.zeros(mask.shape, dtype=bool)
    result[box] = kept
    n_kept = int(kept.sum())
    share = n_kept / n_before
    return RefinedMask(result, n_before - n_kept, share, large, "much removed" if share < 1 - LOST_SHARE else "kept")


def magnitude_mask(
    magnitude: Float32[np.ndarray, "x y z"], voxel_size_mm: tuple[float, float, float]
) -> Bool[np.ndarray, "x y z"]:
    """Return an approximate brain mask from the first echo's magnitude: for want of a better one.

    Bright voxels (Otsu's threshold) are eroded until the scalp, which the dark skull parts from the brain, hangs on by
    nothing; the largest part grows back within the bright voxels, is closed and its holes filled. This is done on
    blocks of about 2.5 mm; dark voxels along the rim then leave at full resolution. Mark what is computed in it as
    approximate.

    Raises
    ------
    ValueError
        The magnitude is constant or not finite throughout, or no part survives.

    Examples
    --------
    >>> x, y, z = np.ogrid[-20:20, -20:20, -20:20]
    >>> ball = (x**2 + y**2 + z**2 < 15**2).astype(np.float32)
    >>> mask = magnitude_mask(ball, (2.0, 2.0, 2.0))
    >>> bool((mask == (ball > 0)).mean() > 0.99)
    True
    """
    finite = np.where(np.isfinite(magnitude), magnitude, np.float32(0))
    factors = [max(1, round(WORKING_EDGE_MM / h)) for h in voxel_size_mm]
    coarse = _block_means(finite, factors)
    edges = tuple(f * h for f, h in zip(factors, voxel_size_mm, strict=True))
    threshold = _otsu(coarse)
    bright = coarse > threshold
    core = _largest_part(_deeper(bright, edges, NECK_MM))
    if not core.any():
        raise ValueError(
            "Magnitude mask: no part of the bright voxels is thicker than 10 mm. Give a brain mask, or check the "
            "magnitude."
        )
    grown = bright & ~_deeper(~core, edges, NECK_MM + max(edges))
    closed = _deeper(~_deeper(~np.pad(grown, 4), edges, NECK_MM), edges, NECK_MM)[4:-4, 4:-4, 4:-4]
    filled = ndimage.binary_fill_holes(_largest_part(grown | closed))
    fine = filled.repeat(factors[0], axis=0).repeat(factors[1], axis=1).repeat(factors[2], axis=2)
    nx, ny, nz = magnitude.shape
    fine = np.ascontiguousarray(fine[:nx, :ny, :nz])
    kept = _largest_part(_open(fine & (finite > threshold), voxel_size_mm))
    return _fill_holes(kept, fine, float(np.prod(voxel_size_mm)), largest_mm3=np.inf)[0]


def _open(mask: np.ndarray, voxel_size_mm: tuple[float, float, float]) -> np.ndarray:
    cross = ndimage.generate_binary_structure(3, 1)
    for axis, edge in enumerate(voxel_size_mm):
        if edge > THICK * min(voxel_size_mm):
            outer = [slice(None)] * 3
            for side in (0, 2):
                outer[axis] = slice(side, side + 1)
                cross[tuple(outer)] = False
    # Beyond the volume counts as mask, so that a slab's first and last slices are not eroded.
    eroded = ndimage.binary_erosion(mask, cross, border_value=1)
    return np.asarray(ndimage.binary_dilation(eroded, cross))


def _largest_part(mask: np.ndarray) -> np.ndarray:
    parts, n_parts = ndimage.label(mask)
    if n_parts <= 1:
        return mask
    return np.asarray(parts == 1 + np.argmax(np.bincount(parts.ravel())[1:]))


def _fill_holes(
    kept: np.ndarray, before: np.ndarray, voxel_mm3: float, *, largest_mm3: float = LARGE_HOLE_MM3
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return `kept` with its enclosed holes up to `largest_mm3` filled within `before`, and the volumes of the rest."""
    holes, n_holes = ndimage.label(np.pad(~kept, 1, constant_values=True))
    outside = holes[0, 0, 0]
    holes = holes[1:-1, 1:-1, 1:-1]
    # What counts is the part of a hole that mask 1 had: the rest cannot be filled.
    volumes = np.bincount(holes[before].ravel(), minlength=n_holes + 1) * voxel_mm3
    enclosed = np.ones(n_holes + 1, dtype=bool)
    enclosed[[0, outside]] = False
    large = enclosed & (volumes > largest_mm3)
    filled = kept | (before & (enclosed & ~large)[holes])
    return filled, tuple(float(v) for v in np.sort(volumes[large])[::-1])


def _block_means(image: np.ndarray, factors: list[int]) -> Float[np.ndarray, "x y z"]:
    padded = np.pad(image, [(0, -n % f) for n, f in zip(image.shape, factors, strict=True)], mode="edge")
    a, b, c = (n // f for n, f in zip(padded.shape, factors, strict=True))
    return np.asarray(padded.reshape(a, factors[0], b, factors[1], c, factors[2]).mean(axis=(1, 3, 5)))


def _otsu(image: np.ndarray) -> float:
    """Return the threshold that parts the values best into two: largest variance between the classes."""
    top = float(np.percentile(image, 99.5))
    if not top > float(image.min()):
        raise ValueError(
            "Magnitude mask: the magnitude is constant. Expected an image; check the file, or give a mask."
        )
    counts, edges = np.histogram(np.minimum(image, top), bins=256)
    middle = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts)[:-1]
    above = below[-1] + counts[-1] - below
    sums = np.cumsum(counts * middle)
    with np.errstate(invalid="ignore", divide="ignore"):
        gap = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
    between = np.nan_to_num(below * above * gap**2)
    return float(edges[1:-1][np.argmax(between)])


def _deeper(mask: np.ndarray, edges: tuple[float, ...], depth_mm: float) -> np.ndarray:
    """Return the voxels of a mask farther than `depth_mm` from its complement; beyond the volume counts as mask."""
    if mask.all():
        return mask
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=edges) > depth_mm)
