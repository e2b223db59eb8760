"""Principal components of the genotypes.

``x = (g - 2p) / sqrt(2 p (1 - p))``, missing calls 0. The components are eigenvectors of ``X'X / m``: by its
eigendecomposition up to 5,000 people, beyond by randomised block Krylov iteration (each pass
``T = X Z``, ``Z <- X'T / m`` streams over the variants once), with Rayleigh-Ritz at the end. Signs: the
largest loading in absolute value of each component is positive.

References
----------
Patterson et al. (2006), 10.1371/journal.pgen.0020190; Halko et al. (2011), 10.1137/090771806;
Musco & Musco (2015), arXiv:1504.05477, algorithm 2.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from brainlocus.core.genotypes import GenotypeSource, block_size_for, iter_blocks
from brainlocus.core.samples import SampleIndex
from brainlocus.genetics.genotypes.grm import genetic_relationships, standardise

__all__ = ["EXACT_LIMIT", "PrincipalComponents", "pca_peak_bytes", "principal_components"]

EXACT_LIMIT = 5_000
"""Up to so many people the decomposition is exact."""
_OVERSAMPLING = 20
_MAX_PASSES = 20
_TOLERANCE = 1e-5
_RANK_TOLERANCE = 1e-6
"""Eigenvalues below this share of the largest are the rounding of float32 products."""


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalComponents:
    """Ancestry components."""

    samples: SampleIndex
    scores: Float[np.ndarray, "samples components"]
    """Unit-length eigenvectors, largest eigenvalue first."""
    eigenvalues: Float[np.ndarray, " components"]
    loadings: Float[np.ndarray, "variants components"]
    """Unit-length; NaN for variants that do not vary."""
    residual: float
    """Largest ``||A u - lambda u|| / lambda``; 0 for the exact decomposition."""


def pca_peak_bytes(n_samples: int, n_variants: int, n_components: int, *, exact: bool | None = None) -> int:
    """Return an upper estimate of the bytes held by `principal_components`, besides its blocks of genotypes."""
    if exact if exact is not None else n_samples <= EXACT_LIMIT:
        return n_samples * n_samples * 8 * 4 + n_variants * n_components * 8
    width = n_components + _OVERSAMPLING
    return n_samples * width * _MAX_PASSES * 8 * 3 + n_variants * n_components * 8


def principal_components(
    source: GenotypeSource,
    n_components: int,
    *,
    rng: np.random.Generator | None = None,
    exact: bool | None = None,
    memory_bytes: int = 1 << 28,
) -> PrincipalComponents:
    """Return the leading principal components of the source's people.

    Parameters
    ----------
    n_components
        At most the number of people less one.
    rng
        Start of the randomised iteration; not used by the exact one.
    exact
        None: exact up to `EXACT_LIMIT` people.

    Raises
    ------
    ValueError
        More components than people or variants allow, or no variant varies.
    """
    n_samples = len(source.samples)
    if not 0 < n_components < n_samples:
        raise ValueError(f"{n_components} components were asked of {n_samples} people; ask for 1 to {n_samples - 1}.")
    residual = 0.0
    if exact if exact is not None else n_samples <= EXACT_LIMIT:
        import scipy.linalg

        grm = genetic_relationships(source, missing="mean")
        first = n_samples - n_components
        values, vectors = scipy.linalg.eigh(grm.matrix, subset_by_index=(first, n_samples - 1))
        values, vectors = values[::-1], vectors[:, ::-1]
    else:
        values, vectors, residual = _krylov(source, n_components, rng or np.random.default_rng(0), memory_bytes)
    spanned = int((values > _RANK_TOLERANCE * max(float(values.max()), 1.0)).sum())
    if spanned < n_components:
        raise ValueError(
            f"{n_components} components were asked, but the {len(source.variants)} variants of {n_samples} people "
            f"span only {spanned}; ask for fewer, or use more variants."
        )
    loadings, n_used = _loadings(source, vectors, memory_bytes)
    loadings /= np.sqrt(np.maximum(values, np.finfo(float).tiny) * n_used)
    largest = np.nanargmax(np.abs(loadings), axis=0)
    signs = np.sign(loadings[largest, np.arange(n_components)])
    return PrincipalComponents(source.samples, vectors * signs, values, loadings * signs, residual)


def _blocks(source: GenotypeSource, memory_bytes: int) -> "list[tuple[int, int]]":
    size = block_size_for(len(source.samples), memory_bytes)
    return [(k, min(k + size, len(source.variants))) for k in range(0, len(source.variants), size)]


def _multiply(
    source: GenotypeSource, z: Float[np.ndarray, "samples columns"], memory_bytes: int
) -> tuple[Float[np.ndarray, "samples columns"], int]:
    """Return X'X z / m and m, in one pass."""
    right = z.astype(np.float32)
    total = np.zeros(z.shape)
    n_used = 0
    for start, stop in _blocks(source, memory_bytes):
        part = standardise(source.read(start, stop).dosage).values
        total += part.T @ (part @ right)
        n_used += part.shape[0]
    if not n_used:
        raise ValueError("No variant varies among these people.")
    return total / n_used, n_used


def _krylov(
    source: GenotypeSource, n_components: int, rng: np.random.Generator, memory_bytes: int
) -> tuple[Float[np.ndarray, " components"], Float[np.ndarray, "samples components"], float]:
    """Return eigenvalues, eigenvectors and the largest relative residual by block Krylov iteration."""
    n_samples = len(source.samples)
    width = min(n_components + _OVERSAMPLING, n_samples - 1)
    basis, _ = np.linalg.qr(rng.normal(size=(n_samples, width)))
    image, _ = _multiply(source, basis, memory_bytes)
    values, vectors, residual = _ritz(basis, image, n_components)
    for _ in range(_MAX_PASSES):
        if residual < _TOLERANCE or basis.shape[1] >= n_samples:
            break
        # The image of the newest block, orthogonal to all before, extends the Krylov space.
        new = image[:, -width:][:, : n_samples - basis.shape[1]]
        for _repeat in range(2):
            new = new - basis @ (basis.T @ new)
        new, _ = np.linalg.qr(new)
        image_new, _ = _multiply(source, new, memory_bytes)
        basis, image = np.hstack([basis, new]), np.hstack([image, image_new])
        values, vectors, residual = _ritz(basis, image, n_components)
    return values, vectors, residual


def _ritz(
    basis: Float[np.ndarray, "samples columns"], image: Float[np.ndarray, "samples columns"], n_components: int
) -> tuple[Float[np.ndarray, " components"], Float[np.ndarray, "samples components"], float]:
    """Return the best eigenpairs in the span of `basis`, whose image under A is given."""
    inner = basis.T @ image
    values, small = np.linalg.eigh((inner + inner.T) / 2.0)
    chosen = np.argsort(values)[::-1][:n_components]
    values, small = values[chosen], small[:, chosen]
    vectors = basis @ small
    residual = np.linalg.norm(image @ small - vectors * values, axis=0) / values
    return values, vectors, float(residual.max())


def _loadings(
    source: GenotypeSource, vectors: Float[np.ndarray, "samples components"], memory_bytes: int
) -> tuple[Float[np.ndarray, "variants components"], int]:
    """Return X u for every variant (NaN where it does not vary), and how many vary."""
    loadings = np.full((len(source.variants), vectors.shape[1]), np.nan)
    right: Float32[np.ndarray, "samples components"] = vectors.astype(np.float32)
    n_used = 0
    for block in iter_blocks(source, block_size_for(len(source.samples), memory_bytes)):
        part = standardise(block.dosage)
        kept: Bool[np.ndarray, " variants"] = part.kept
        loadings[block.start + np.flatnonzero(kept)] = part.values @ right
        n_used += int(kept.sum())
    return loadings, n_used
