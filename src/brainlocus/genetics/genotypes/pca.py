"""Principal components of the genotypes.

``x = (g - 2p) / sqrt(2 p (1 - p))``, missing calls 0. The components are eigenvectors of ``X'X / m``: by its
eigendecomposition up to 5,000 people, beyond by randomised block Krylov iteration (each pass
``T = X Z``, ``Z <- X'T / m`` streams over the variants once), with Rayleigh-Ritz at the end. Signs: the
largest loading in absolute value of each component is positive.

A component whose squared loadings lie to more than a fifth within a megabase is that region's linkage disequilibrium
rather than ancestry; it is flagged.

References
----------
Patterson et al. (2006), 10.1371/journal.pgen.0020190; Halko et al. (2011), 10.1137/090771806;
Musco & Musco (2015), arXiv:1504.05477, algorithm 2.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64
from threadpoolctl import threadpool_limits

from brainlocus.core.genotypes import GenotypeSource, block_size_for
from brainlocus.core.samples import SampleIndex
from brainlocus.core.variants import VariantTable
from brainlocus.genetics.genotypes.grm import genetic_relationships
from brainlocus.genetics.genotypes.standard import Moments, standard_blocks

__all__ = [
    "EXACT_LIMIT",
    "LOCAL_SHARE",
    "PrincipalComponents",
    "local_shares",
    "pca_peak_bytes",
    "principal_components",
]

EXACT_LIMIT = 5_000
"""Up to so many people the decomposition is exact."""
_OVERSAMPLING = 20
_MAX_PASSES = 20
_TOLERANCE = 1e-5
_RANK_TOLERANCE = 1e-6
"""Eigenvalues below this share of the largest are the rounding of float32 products."""
LOCAL_SHARE = 0.2
"""Above this share of the squared loadings within a megabase a component is flagged."""
_MEGABASE = 1_000_000


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
    moments: Moments
    """Mean and scale of each variant among these people, as projecting others needs them."""
    n_used: int
    """Variants that vary."""


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
        values, vectors = _leading(genetic_relationships(source, missing="mean").matrix, n_components)
    else:
        values, vectors, residual = _krylov(source, n_components, rng or np.random.default_rng(0), memory_bytes)
    spanned = int((values > _RANK_TOLERANCE * max(float(values.max()), 1.0)).sum())
    if spanned < n_components:
        raise ValueError(
            f"{n_components} components were asked, but the {len(source.variants)} variants of {n_samples} people "
            f"span only {spanned}; ask for fewer, or use more variants."
        )
    loadings, moments = _loadings(source, vectors, memory_bytes)
    n_used = int((~np.isnan(moments.scale)).sum())
    loadings /= np.sqrt(np.maximum(values, np.finfo(float).tiny) * n_used)
    largest = np.nanargmax(np.abs(loadings), axis=0)
    signs = np.sign(loadings[largest, np.arange(n_components)])
    return PrincipalComponents(source.samples, vectors * signs, values, loadings * signs, residual, moments, n_used)


def local_shares(
    variants: VariantTable, loadings: Float[np.ndarray, "variants components"]
) -> tuple[Float64[np.ndarray, " components"], list[str]]:
    """Return the largest share of each component's squared loadings within a megabase, and where it is.

    Windows of one megabase begin every half; variants without a position belong to none.

    Examples
    --------
    >>> from brainlocus.core.text import text_array
    >>> a, ids = text_array(["A"] * 3), text_array(["a", "b", "c"])
    >>> table = VariantTable(np.array(["8", "8", "9"]), np.array([9_100_000, 9_200_000, 5]), a, a, ids, "GRCh37")
    >>> local_shares(table, np.array([[3.0], [4.0], [0.0]]))
    (array([1.]), ['8:8500001-9500000'])
    """
    squared = np.nan_to_num(loadings) ** 2
    total = np.maximum(squared.sum(axis=0), np.finfo(float).tiny)
    best, where = np.zeros(squared.shape[1]), [""] * squared.shape[1]
    names, chromosome = np.unique(variants.chromosome, return_inverse=True)
    placed = variants.position > 0
    for offset in (_MEGABASE // 2, 0):
        window = (variants.position - 1 + offset) // _MEGABASE
        stride = int(window.max(initial=0)) + 1
        keys, index = np.unique(chromosome[placed] * stride + window[placed], return_inverse=True)
        for k in range(squared.shape[1]):
            sums = np.bincount(index, weights=squared[placed, k], minlength=keys.size) / total[k]
            if sums.size and sums.max() > best[k]:
                best[k] = sums.max()
                key = int(keys[np.argmax(sums)])
                start = max((key % stride) * _MEGABASE - offset, 0)
                stop = (key % stride + 1) * _MEGABASE - offset
                where[k] = f"{names[key // stride]}:{start + 1}-{stop}"
    return best, where


def _leading(
    matrix: Float64[np.ndarray, "samples samples"], n_components: int
) -> tuple[Float64[np.ndarray, " components"], Float64[np.ndarray, "samples components"]]:
    """Return the largest eigenvalues and their vectors.

    Half of the work is products of the matrix with a vector, which wait for memory: threads only wait with them.
    """
    import scipy.linalg

    n_samples = matrix.shape[0]
    with threadpool_limits(limits=1):
        values, vectors = scipy.linalg.eigh(
            matrix, subset_by_index=(n_samples - n_components, n_samples - 1), overwrite_a=True, check_finite=False
        )
    return values[::-1], np.ascontiguousarray(vectors[:, ::-1])


def _multiply(
    source: GenotypeSource, z: Float[np.ndarray, "samples columns"], memory_bytes: int
) -> tuple[Float[np.ndarray, "samples columns"], int]:
    """Return X'X z / m and m, in one pass."""
    right = z.astype(np.float32)
    total = np.zeros(z.shape)
    n_used = 0
    for block in standard_blocks(source, block_size_for(len(source.samples), memory_bytes)):
        total += block.values.T @ (block.values @ right)
        n_used += int((~np.isnan(block.moments.scale)).sum())
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
) -> tuple[Float[np.ndarray, "variants components"], Moments]:
    """Return X u for every variant (NaN where it does not vary), and what it was centred and scaled by."""
    n_variants = len(source.variants)
    loadings = np.full((n_variants, vectors.shape[1]), np.nan)
    mean, scale = np.empty(n_variants), np.empty(n_variants)
    right: Float32[np.ndarray, "samples components"] = vectors.astype(np.float32)
    for block in standard_blocks(source, block_size_for(len(source.samples), memory_bytes)):
        rows = slice(block.start, block.stop)
        mean[rows], scale[rows] = block.moments.mean, block.moments.scale
        loadings[rows] = block.values @ right
    loadings[np.isnan(scale)] = np.nan
    return loadings, Moments(mean, scale)
