r"""Where the multiplicative updates start: NNDSVD, or seeds drawn among voxels.

NNDSVD: with the truncated ``X ~ U S V'``, ``w_1 = sqrt(s_1) |u_1|``; for the others u and v are split in their positive
and negative parts, the pair with the larger product of norms ``m = ||u±|| ||v±||`` is kept, and
``w_i = sqrt(s_i m) u± / ||u±||``. Zeros are filled, because multiplicative updates cannot revive them.

References
----------
Boutsidis & Gallopoulos (2008), Pattern Recognit. 41:1350; Halko, Martinsson & Tropp (2011), SIAM Rev. 53:217,
algorithm 4.4 (subspace iteration).
"""

from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.linalg import eigh

from brainlocus.images.atlas.blocks import read_blocks, take_voxels, voxel_blocks
from brainlocus.images.atlas.fit_step import Report, unheard
from brainlocus.images.atlas.seeding import sample_voxels, seed_rows

__all__ = ["Fill", "fill_zeros", "leading_vectors", "nndsvd_start", "seeded_start"]

Fill = Literal["column", "constant", "mean", "random", "none"]
FILL_SHARE = 1e-3
"""Share of the column's largest entry that replaces zeros: a constant is comparable with the entries themselves where
voxels are many, and makes all columns nearly parallel (structural.md 1.3)."""
EMPTY = 1e-10
EXACT_SVD = 2_500
"""Largest side of the smaller Gram matrix that is decomposed exactly: a cubic minute; above it, subspace iteration."""
OVERSAMPLE = 20
POWER_ITERATIONS = 4


def nndsvd_start(
    images: Float[np.ndarray, "voxels samples"],
    n_components: int,
    *,
    generator: np.random.Generator,
    fill: Fill = "column",
    randomised: bool | None = None,
) -> Float[np.ndarray, "voxels components"]:
    """Return the NNDSVD of the images, zeros filled.

    Parameters
    ----------
    generator
        For the randomised decomposition and for ``fill="random"``.
    fill
        What replaces entries below 1e-10: ``column`` 1e-3 of the column's largest entry; ``constant`` 0.1; ``mean`` the
        mean of X; ``random`` uniform up to a hundredth of it; ``none``: zeros stay, and the support is frozen.
    randomised
        Subspace iteration instead of an exact decomposition; None: where both sides of X are above 2,500.

    Raises
    ------
    ValueError
        As many components as voxels or images, or more.
    """
    limit = min(images.shape)
    if n_components >= limit:
        raise ValueError(
            f"A start by singular vectors needs fewer components than voxels ({images.shape[0]}) and images "
            f"({images.shape[1]}), got {n_components}. Ask for fewer, or start from seeds."
        )
    vectors, values = leading_vectors(images, n_components, generator=generator, randomised=randomised)
    weights, positive, negative = _left_vectors(images, vectors)
    signs, lengths, factors = _choose_sides(values, vectors, positive, negative)
    for rows in voxel_blocks(*images.shape):
        part = np.maximum(weights[rows] * signs, 0.0)
        # The first is |u|: what has the other sign there is rounding.
        part[:, 0] = np.abs(weights[rows, 0])
        weights[rows] = part * (factors / lengths)
    fill_zeros(weights, images, fill, generator)
    return weights


def seeded_start(
    images: Float[np.ndarray, "voxels samples"],
    n_components: int,
    norms: Float64[np.ndarray, " voxels"],
    *,
    generator: np.random.Generator,
    progress: Report = unheard,
) -> Float[np.ndarray, "voxels components"]:
    """Return each voxel's product with the most similar of the k-means++ seeds, all else filled.

    Raises
    ------
    ValueError
        More components than non-zero voxels.
    """
    chosen = sample_voxels(norms, n_components, generator)
    if n_components > chosen.size:
        raise ValueError(f"{n_components} components were asked of {chosen.size} non-zero voxels; ask for fewer.")
    sample = take_voxels(images, chosen)
    seeds = seed_rows(sample, norms[chosen], n_components, generator, what="seed", progress=progress)
    prototypes = (sample[seeds] / np.sqrt(norms[chosen][seeds])[:, None]).astype(images.dtype).T
    weights = np.zeros((images.shape[0], n_components), dtype=images.dtype)
    for rows, block in read_blocks(images):
        products = block @ prototypes
        best = products.argmax(axis=1)
        at = np.arange(best.size)
        weights[rows][at, best] = products[at, best]
    fill_zeros(weights, images, "column", generator)
    return weights


def fill_zeros(
    weights: Float[np.ndarray, "voxels components"],
    images: Float[np.ndarray, "voxels samples"],
    fill: Fill,
    generator: np.random.Generator,
) -> None:
    """Replace entries below 1e-10 in place, as `nndsvd_start` says."""
    if fill == "none":
        return
    mean = float(np.mean(images, dtype=np.float64)) if fill in ("mean", "random") else 0.0
    largest = weights.max(axis=0)
    for rows in voxel_blocks(*images.shape):
        block = weights[rows]
        empty = block < EMPTY
        if fill == "column":
            block[:] = np.where(empty, FILL_SHARE * largest, block)
        elif fill == "random":
            block[empty] = generator.uniform(0.0, mean / 100.0, int(empty.sum()))
        else:
            block[empty] = 0.1 if fill == "constant" else mean


def leading_vectors(
    images: Float[np.ndarray, "voxels samples"],
    n_vectors: int,
    *,
    generator: np.random.Generator,
    randomised: bool | None = None,
) -> tuple[Float64[np.ndarray, "samples vectors"], Float64[np.ndarray, " vectors"]]:
    """Return the leading right singular vectors and values, largest first."""
    n_voxels, n_samples = images.shape
    if randomised or (randomised is None and min(images.shape) > EXACT_SVD):
        return _subspace(images, n_vectors, generator)
    if n_voxels < n_samples:
        wide = images.astype(np.float64)
        left, values = _top(wide @ wide.T, n_vectors)
        return wide.T @ (left / np.where(values > 0, values, 1.0)), values
    gram = np.zeros((n_samples, n_samples))
    for _, block in read_blocks(images):
        wide = block.astype(np.float64)
        gram += wide.T @ wide
    return _top(gram, n_vectors)


def _top(
    gram: Float64[np.ndarray, "n n"], count: int
) -> tuple[Float64[np.ndarray, "n count"], Float64[np.ndarray, " count"]]:
    """Return the leading eigenvectors and the roots of their eigenvalues; below rounding these are 0."""
    n = gram.shape[0]
    values, vectors = eigh(gram, subset_by_index=(n - count, n - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = n * np.finfo(np.float64).eps * max(float(values[0]), 0.0)
    return np.ascontiguousarray(vectors), np.sqrt(np.where(values > noise, values, 0.0))


def _subspace(
    images: Float[np.ndarray, "voxels samples"], count: int, generator: np.random.Generator
) -> tuple[Float64[np.ndarray, "samples count"], Float64[np.ndarray, " count"]]:
    """Return the leading right singular vectors by subspace iteration on ``X'X``, an orthonormal basis each time."""
    n_samples = images.shape[1]
    basis = np.linalg.qr(generator.standard_normal((n_samples, min(n_samples, count + OVERSAMPLE))))[0]
    for iteration in range(POWER_ITERATIONS + 1):
        product = np.zeros_like(basis)
        narrow = basis.astype(images.dtype)
        for _, block in read_blocks(images):
            product += block.T @ (block @ narrow)
        if iteration < POWER_ITERATIONS:
            basis = np.linalg.qr(product)[0]
    small = basis.T @ product
    vectors, values = _top((small + small.T) / 2.0, count)
    return basis @ vectors, values


def _left_vectors(
    images: Float[np.ndarray, "voxels samples"], vectors: Float64[np.ndarray, "samples vectors"]
) -> tuple[Float[np.ndarray, "voxels vectors"], Float64[np.ndarray, " vectors"], Float64[np.ndarray, " vectors"]]:
    """Return ``X V`` and the norms of its positive and negative parts, column by column."""
    left = np.empty((images.shape[0], vectors.shape[1]), dtype=images.dtype)
    positive, negative = np.zeros(vectors.shape[1]), np.zeros(vectors.shape[1])
    for rows, block in read_blocks(images):
        # float64: the products with all but the first vector are small differences of large numbers.
        products = block.astype(np.float64) @ vectors
        positive += (np.maximum(products, 0.0) ** 2).sum(axis=0)
        negative += (np.minimum(products, 0.0) ** 2).sum(axis=0)
        left[rows] = products
    return left, np.sqrt(positive), np.sqrt(negative)


def _choose_sides(
    values: Float64[np.ndarray, " vectors"],
    vectors: Float64[np.ndarray, "samples vectors"],
    positive: Float64[np.ndarray, " vectors"],
    negative: Float64[np.ndarray, " vectors"],
) -> tuple[Float64[np.ndarray, " vectors"], Float64[np.ndarray, " vectors"], Float64[np.ndarray, " vectors"]]:
    """Return the sign of the side kept, the norm of that side of ``X v`` and ``sqrt(s m)``; 0 where s is 0."""
    safe = np.where(values > 0, values, 1.0)
    v_positive = np.sqrt((np.maximum(vectors, 0.0) ** 2).sum(axis=0))
    v_negative = np.sqrt((np.minimum(vectors, 0.0) ** 2).sum(axis=0))
    products = np.stack([positive * v_positive, negative * v_negative]) / safe
    side = products.argmax(axis=0)
    lengths = np.where(side == 0, positive, negative)
    factors = np.sqrt(values * products.max(axis=0))
    # w_1 = sqrt(s_1) |u_1|, whose norm is sqrt(s_1).
    lengths[0], factors[0] = np.hypot(positive[0], negative[0]), np.sqrt(values[0])
    empty = (values == 0) | (lengths == 0)
    return np.where(side == 0, 1.0, -1.0), np.where(empty, 1.0, lengths), np.where(empty, 0.0, factors)
