r"""A start from images of half the resolution (coarse to fine).

Data flow::

    mask --grid_cells--> cell of every voxel
    X + cells --cell_images--> one row a cell --fit_em--> AtlasFit of the cells
    AtlasFit --unit_prototypes--> start of `fit_em` over all voxels
    AtlasFit + cells --coarse_start--> W to start multiplicative updates from

Weight of a cell: let the m voxels of a cell have the rows ``x_j = a + e_j`` with mean a, and one label, whose prototype
is h. Their part of the loss is ::

    sum_j ||x_j||^2 - (x_j . h)^2 = m (||a||^2 - (a . h)^2) + sum_j (||e_j||^2 - (e_j . h)^2)

so the row ``sqrt(m) a`` counts as m voxels of row a, in the loss and in the sum of ``(x . h) x`` that makes the next
prototype; what is neglected is the scatter within cells. A cell's weight in its column belongs to ``sqrt(m) a``: each
of its voxels gets ``1 / sqrt(m)`` of it, which keeps the norm of the column.

References
----------
methods/structural.md 1.5 e.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int

from brainlocus.images.atlas.blocks import read_blocks
from brainlocus.images.atlas.em import AtlasFit
from brainlocus.images.atlas.starts import fill_zeros

__all__ = ["cell_images", "coarse_start", "grid_cells", "unit_prototypes"]

FACTOR = 2
"""Voxels a side of a block."""


def grid_cells(mask: Bool[np.ndarray, "x y z"], *, factor: int = FACTOR) -> Int[np.ndarray, " voxels"]:
    """Return the cell of every mask voxel, in C order: blocks of 2 x 2 x 2 with a mask voxel, numbered from 0.

    Examples
    --------
    >>> mask = np.ones((4, 2, 1), dtype=bool)
    >>> mask[3, 1, 0] = False
    >>> grid_cells(mask).tolist()
    [0, 0, 0, 0, 1, 1, 1]
    """
    places = np.argwhere(mask) // factor
    shape = tuple(-(-n // factor) for n in mask.shape)
    blocks = np.ravel_multi_index(tuple(places.T), shape)
    cells: Int[np.ndarray, " voxels"] = np.unique(blocks, return_inverse=True)[1].astype(np.int32)
    return cells


def cell_images(
    images: Float32[np.ndarray, "voxels samples"], cells: Int[np.ndarray, " voxels"]
) -> Float32[np.ndarray, "cells samples"]:
    """Return the mean over the voxels of each cell times the root of their number.

    Parameters
    ----------
    images
        Non-negative; may be a memory map, read by blocks.
    cells
        From `grid_cells`; the voxels of the images in the same order.
    """
    from scipy import sparse

    sizes = np.bincount(cells)
    out = np.zeros((sizes.size, images.shape[1]), dtype=np.float32)
    scale = (1.0 / np.sqrt(sizes)).astype(np.float32)
    for rows, block in read_blocks(images):
        here, at = np.unique(cells[rows], return_inverse=True)
        sums = sparse.csr_array((scale[cells[rows]], (at, np.arange(at.size))), shape=(here.size, at.size))
        out[here] += sums @ block
    return out


def unit_prototypes(fit: AtlasFit) -> Float64[np.ndarray, "components samples"]:
    """Return the loadings with unit norm, 0 for vanished components: where EM on other voxels may start."""
    lengths = np.sqrt((fit.loadings**2).sum(axis=1, keepdims=True))
    prototypes: Float64[np.ndarray, "components samples"] = fit.loadings / np.where(lengths > 0, lengths, 1.0)
    return prototypes


def coarse_start(fit: AtlasFit, cells: Int[np.ndarray, " voxels"]) -> Float32[np.ndarray, "voxels components"]:
    """Return W of all voxels from the fit of their cells, 1e-3 of the column's largest entry in place of zeros."""
    sizes = np.bincount(cells)
    share = (fit.weights / np.sqrt(sizes))[cells]
    labels = fit.labels[cells]
    weights = np.zeros((cells.size, fit.n_components), dtype=np.float32)
    rows = np.flatnonzero(labels > 0)
    weights[rows, labels[rows] - 1] = share[rows]
    fill_zeros(weights, weights, "column", np.random.default_rng(0))  # this fill draws nothing
    return weights
