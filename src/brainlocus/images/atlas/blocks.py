"""Voxel-major images by blocks of voxels, and what is checked before any fit."""

from collections.abc import Iterator
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Float64, Int
from numba import njit

from brainlocus.numerics.memory_maps import give_back_pages

__all__ = ["BLOCK_BYTES", "block_rows", "checked_norms", "read_blocks", "take_voxels", "voxel_blocks"]

BLOCK_BYTES = 16 << 20
"""Voxel blocks of X of this size: small against any memory, large enough for matrix products at full speed."""


def block_rows(n_samples: int, *, block_bytes: int | None = None) -> int:
    """Return how many voxels of `n_samples` float32 values a block holds."""
    return max(256, (block_bytes or BLOCK_BYTES) // (4 * max(n_samples, 1)))


def voxel_blocks(n_voxels: int, n_samples: int, *, block_bytes: int | None = None) -> list[slice]:
    """Return the rows of every block, in order."""
    step = block_rows(n_samples, block_bytes=block_bytes)
    return [slice(start, min(start + step, n_voxels)) for start in range(0, n_voxels, step)]


def read_blocks(
    images: Float[np.ndarray, "voxels samples"], *, block_bytes: int | None = None
) -> Iterator[tuple[slice, Float[np.ndarray, "_ samples"]]]:
    """Yield the rows and the values of every block; a memory map is resident one block at a time.

    The block is valid until the next is asked for.
    """
    for rows in voxel_blocks(*images.shape, block_bytes=block_bytes):
        yield rows, np.ascontiguousarray(images[rows])
        give_back_pages(images)


def take_voxels(
    images: Float[np.ndarray, "voxels samples"], chosen: Int[np.ndarray, " chosen"]
) -> Float[np.ndarray, "chosen samples"]:
    """Return a copy of some voxels; of a memory map no more than a block is resident at a time."""
    out = np.empty((chosen.size, images.shape[1]), dtype=images.dtype)
    for rows in voxel_blocks(*out.shape):
        np.take(images, chosen[rows], axis=0, out=out[rows], mode="clip")
        give_back_pages(images)
    return out


def checked_norms(images: Float[np.ndarray, "voxels samples"]) -> Float64[np.ndarray, " voxels"]:
    """Return ``||x_j||^2`` of every voxel after checking that every value is a number from 0 up.

    Raises
    ------
    ValueError
        A negative, NaN or infinite value (with voxel and image).
    """
    norms = np.empty(images.shape[0])
    for rows, block in read_blocks(images):
        _squared_norms(block, norms[rows])
        bad = ~np.isfinite(norms[rows]) | (block.min(axis=1) < 0)
        if bad.any():
            voxel = rows.start + int(np.flatnonzero(bad)[0])
            row = images[voxel].copy()
            image = int(np.flatnonzero(~np.isfinite(row) | (row < 0))[0])
            raise ValueError(
                f"Images must be finite and not negative; voxel {voxel} of image {image} is {row[image]:g}."
            )
    return norms


@njit(cache=True, fastmath={"reassoc", "contract"})
@no_type_check
def _squared_norms(block: np.ndarray, out: np.ndarray) -> None:
    for j in range(block.shape[0]):
        total = 0.0
        for i in range(block.shape[1]):
            value = np.float64(block[j, i])
            total += value * value
        out[j] = total
