"""Phenotypes as points: principal components and UMAP of their vectors of gene effects.

Data flow::

    genes x phenotypes --squared_differences--> SquaredDifferences    (block of genes by block; sums of parts add up)
    SquaredDifferences --principal_components--> coordinates, variances
    SquaredDifferences --embed_umap--> coordinates --trustworthiness, neighbour_overlap--> how much of it to believe

Both methods need no more of the genes than the squared distances of phenotypes, a phenotypes x phenotypes matrix, so
that any number of genes and tissues is read in blocks.

A missing cell is 0, no association, or (``pairwise``) it is left out of its pairs, whose distance is scaled up to all
genes (Dixon 1979, as scikit-learn's ``nan_euclidean_distances``); then components are those of classical scaling.
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64, Shaped

from brainlocus.core.errors import import_extra

__all__ = [
    "MissingCells",
    "PrincipalComponents",
    "SquaredDifferences",
    "UmapEmbedding",
    "UmapSettings",
    "embed_umap",
    "embedding_peak_bytes",
    "gene_blocks",
    "neighbour_overlap",
    "nominal_genes",
    "orient_components",
    "principal_components",
    "scaled_genes",
    "squared_differences",
    "trustworthiness",
    "umap_settings",
]

MissingCells = Literal["zero", "pairwise"]

_FEWEST_FOR_UMAP = 5
"""Below, its spectral start has no eigenvectors to take."""
_DIFFUSION = {"neighbours": 60, "distance": 0.1}
_OTHER = {"neighbours": 150, "distance": 0.09}
"""Settings of the source study: T1 areas and volumes (taken for all else too), and diffusion MRI."""


_EXPECTED_WARNINGS = ("not fully connected", "using precomputed metric", "ParametricUMAP", "deprecated")
"""Of umap-learn and what it imports: parts of the graph (which are counted), and what does not concern us."""


@dataclass(frozen=True, slots=True, eq=False)
class SquaredDifferences:
    """Sums over genes of squared differences between phenotypes."""

    total: Float64[np.ndarray, "phenotypes phenotypes"]
    shared: Float64[np.ndarray, "phenotypes phenotypes"] | None
    """Genes that both phenotypes have; None: all, missing cells count as 0."""
    n_genes: int

    def __add__(self, other: "SquaredDifferences") -> "SquaredDifferences":
        """Return the sums over the genes of both."""
        shared = None if self.shared is None or other.shared is None else self.shared + other.shared
        return SquaredDifferences(self.total + other.total, shared, self.n_genes + other.n_genes)

    def squared_distances(self) -> Float64[np.ndarray, "phenotypes phenotypes"]:
        """Return squared Euclidean distances, scaled up to all genes; NaN where a pair shares none."""
        if self.shared is None:
            return self.total
        found = np.full(self.total.shape, np.nan)
        np.divide(self.total * self.n_genes, self.shared, out=found, where=self.shared > 0)
        return found


def gene_blocks(
    values: Float[np.ndarray, "genes all_phenotypes"],
    *,
    genes: Int[np.ndarray, " genes_used"],
    phenotypes: Int[np.ndarray, " phenotypes"],
    block_bytes: int = 1 << 28,
) -> Iterator[Float64[np.ndarray, "block phenotypes"]]:
    """Yield some genes and phenotypes of a matrix, which may lie in a memory map; NaN where a value is not finite."""
    size = max(1, block_bytes // (8 * max(values.shape[1], phenotypes.size, 1)))
    for start in range(0, genes.size, size):
        rows = np.asarray(values[genes[start : start + size]], dtype=np.float64)
        block = rows[:, phenotypes] if phenotypes.size < rows.shape[1] else rows
        yield np.where(np.isfinite(block), block, np.nan)


def scaled_genes(
    blocks: Iterable[Float64[np.ndarray, "block phenotypes"]],
) -> Iterator[Float64[np.ndarray, "block phenotypes"]]:
    """Yield blocks with every gene divided by its SD (n - 1) over the phenotypes that have it; constant genes as 0."""
    for block in blocks:
        counts = (~np.isnan(block)).sum(axis=1, keepdims=True)
        mean = np.nansum(block, axis=1, keepdims=True) / np.maximum(counts, 1)
        spread = np.sqrt(np.nansum((block - mean) ** 2, axis=1, keepdims=True) / np.maximum(counts - 1, 1))
        yield np.where(spread > 0, block / np.where(spread > 0, spread, 1.0), block * 0.0)


def nominal_genes(blocks: Iterable[Float64[np.ndarray, "block phenotypes"]], *, max_p: float = 0.05) -> list[bool]:
    """Return which genes have a two-sided p below `max_p` for at least one phenotype, from blocks of z."""
    from scipy.special import ndtri

    smallest = -float(ndtri(max_p / 2))
    kept: list[bool] = []
    for block in blocks:
        kept += (np.abs(np.nan_to_num(block, nan=0.0)).max(axis=1, initial=0.0) > smallest).tolist()
    return kept


def squared_differences(
    blocks: Iterable[Float64[np.ndarray, "block phenotypes"]], n_phenotypes: int, *, missing: MissingCells = "zero"
) -> SquaredDifferences:
    """Return sum_g (z_gi - z_gj)^2 for all pairs of phenotypes, from blocks of genes.

    The sum is q_i + q_j - 2 s_ij, q the sums of squares and s the products, after the mean of each gene over the
    phenotypes is taken off, which changes no difference but keeps the terms small. Distances have an absolute error of
    about 1e-8 of the length of the vectors.
    """
    total = np.zeros((n_phenotypes, n_phenotypes))
    shared = np.zeros((n_phenotypes, n_phenotypes)) if missing == "pairwise" else None
    n_genes = 0
    for block in blocks:
        n_genes += block.shape[0]
        present = ~np.isnan(block)
        if shared is None:
            filled = np.where(present, block, 0.0)
            filled -= filled.mean(axis=1, keepdims=True)
            squares = np.einsum("gp,gp->p", filled, filled)
            part = -2.0 * (filled.T @ filled)
            part += squares[:, None]
            part += squares[None, :]
        else:
            counts = np.maximum(present.sum(axis=1, keepdims=True), 1)
            filled = np.where(present, block - np.nansum(block, axis=1, keepdims=True) / counts, 0.0)
            member = present.astype(np.float64)
            shared += member.T @ member
            part = (filled**2).T @ member
            part += part.T.copy()
            part -= 2.0 * (filled.T @ filled)
        total += part
    np.fill_diagonal(total, 0.0)
    return SquaredDifferences(np.maximum(total, 0.0, out=total), shared, n_genes)


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalComponents:
    """Phenotypes in the directions in which their gene vectors vary most."""

    scores: Float64[np.ndarray, "phenotypes components"]
    variance: Float64[np.ndarray, " components"]
    """Of the scores (n - 1)."""
    share: Float64[np.ndarray, " components"]
    """Of the total variance."""


def principal_components(differences: SquaredDifferences, n_components: int) -> PrincipalComponents:
    """Return the leading components of phenotypes, genes centred: scores are eigenvectors of B times root eigenvalues.

    B = -1/2 H D2 H, with D2 the squared distances and H = I - 1/n, is the products of the centred phenotypes, so that
    without missing cells this is principal component analysis (Gower 1966). Signs are arbitrary until
    `orient_components`. Components without variance are left out.

    Raises
    ------
    ValueError
        Pairs of phenotypes share no gene.

    References
    ----------
    Gower (1966), Biometrika 53:325.
    """
    from scipy.linalg import eigh

    squared = differences.squared_distances()
    n = squared.shape[0]
    bad = int(np.isnan(squared).any(axis=1).sum())
    if bad:
        raise ValueError(f"Components: {bad} of {n} phenotypes share no gene with another; take missing cells as 0.")
    products = -0.5 * squared
    products -= products.mean(axis=0)
    products -= products.mean(axis=1, keepdims=True)
    total = float(np.trace(products))
    count = min(n_components, n - 1)
    if count < 1 or total <= 0:
        return PrincipalComponents(np.zeros((n, 0)), np.zeros(0), np.zeros(0))
    values, vectors = eigh(products, subset_by_index=(n - count, n - 1), overwrite_a=True, check_finite=False)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > 1e-12 * total
    values, vectors = values[kept], vectors[:, kept]
    return PrincipalComponents(vectors * np.sqrt(values), values / (n - 1), values / total)


def orient_components(
    components: PrincipalComponents, blocks: Iterable[Float64[np.ndarray, "block phenotypes"]]
) -> tuple[PrincipalComponents, Int64[np.ndarray, " components"], Float64[np.ndarray, " components"]]:
    """Return the components with the sign that makes each one's largest loading positive, that gene and its loading.

    Loadings are the unit vectors of genes, sum_i z_gi u_i / root eigenvalue; of equally large ones the first counts.
    Missing cells are 0.
    """
    n, count = components.scores.shape
    eigenvalues = components.variance * (n - 1)
    projection = components.scores / eigenvalues
    largest, gene = np.zeros(count), np.zeros(count, dtype=np.int64)
    start = 0
    for block in blocks:
        filled = np.nan_to_num(block, nan=0.0)
        loadings = (filled - filled.mean(axis=1, keepdims=True)) @ projection
        best = np.abs(loadings).argmax(axis=0)
        found = loadings[best, np.arange(count)]
        # A loading must be larger by more than rounding to replace an earlier one.
        better = np.abs(found) > np.abs(largest) * (1 + 1e-9)
        gene[better], largest[better] = start + best[better], found[better]
        start += block.shape[0]
    sign = np.where(largest < 0, -1.0, 1.0)
    turned = PrincipalComponents(components.scores * sign, components.variance, components.share)
    return turned, gene, np.abs(largest)


@dataclass(frozen=True, slots=True)
class UmapSettings:
    """Settings of UMAP."""

    n_neighbors: int
    min_dist: float


def umap_settings(modalities: Shaped[np.ndarray, " phenotypes"]) -> UmapSettings:
    """Return the settings of the source study: for dMRI where all phenotypes are of it, else those for T1 measures."""
    diffusion = modalities.size > 0 and bool((modalities == "dMRI").all())
    chosen = _DIFFUSION if diffusion else _OTHER
    return UmapSettings(int(chosen["neighbours"]), float(chosen["distance"]))


@dataclass(frozen=True, slots=True, eq=False)
class UmapEmbedding:
    """Points in the plane; positions mean nothing, neighbours do."""

    coordinates: Float64[np.ndarray, "phenotypes two"]
    n_neighbors: int
    """Used; smaller than asked where there are too few phenotypes."""
    n_parts: int
    """Parts into which the graph of neighbours falls; where they lie to one another means nothing at all."""


def embed_umap(differences: SquaredDifferences, settings: UmapSettings, *, seed: int) -> UmapEmbedding:
    """Return the UMAP embedding of phenotypes by the Euclidean distance of their gene vectors.

    One thread and a fixed seed: the same numbers in every run on one platform, but not across platforms, which is why
    embeddings are compared by neighbours. Neighbours are exact, from the whole matrix of distances.

    Raises
    ------
    ValueError
        Fewer than 5 phenotypes, or pairs of them share no gene.
    MissingExtraError
        umap-learn is absent.

    References
    ----------
    McInnes, Healy & Melville (2018), arXiv:1802.03426.
    """
    from scipy.sparse.csgraph import connected_components

    n = differences.total.shape[0]
    if n < _FEWEST_FOR_UMAP:
        raise ValueError(f"UMAP: expected at least {_FEWEST_FOR_UMAP} phenotypes, found {n}.")
    distance = np.sqrt(differences.squared_distances())
    bad = int(np.isnan(distance).any(axis=1).sum())
    if bad:
        raise ValueError(f"UMAP: {bad} of {n} phenotypes share no gene with another; take missing cells as 0.")
    n_neighbors = min(settings.n_neighbors, n - 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        umap: Any = import_extra("umap", extra="ml")
        model = umap.UMAP(
            n_neighbors=n_neighbors,
            min_dist=settings.min_dist,
            metric="precomputed",
            random_state=seed,
            n_jobs=1,
        )
        points = model.fit_transform(distance)
    n_parts = int(connected_components(model.graph_, directed=False)[0])
    for warning in caught:
        if not any(text in str(warning.message) for text in _EXPECTED_WARNINGS):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return UmapEmbedding(np.asarray(points, dtype=np.float64), n_neighbors, n_parts)


def _neighbour_ranks(
    distance: Float64[np.ndarray, "some objects"], own: Int64[np.ndarray, " some"]
) -> Int64[np.ndarray, "some objects"]:
    """Return the rank of each object as a neighbour, from 1; an object itself is last. Equal distances by number."""
    away = distance.copy()
    away[np.arange(own.size), own] = np.inf
    order = np.argsort(away, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, away.shape[1] + 1)[None, :], axis=1)
    return ranks


def _compare(
    before: Float64[np.ndarray, "objects objects"], after: Float64[np.ndarray, "objects two"], k: int
) -> tuple[float, float]:
    """Return the sum of (rank before - k) of new neighbours, and the share of neighbours that stay."""
    n = before.shape[0]
    penalty, stay = 0.0, 0
    step = max(1, (1 << 22) // max(n, 1))
    for start in range(0, n, step):
        own = np.arange(start, min(start + step, n))
        distance = np.sqrt(((after[own, None, :] - after[None, :, :]) ** 2).sum(axis=2))
        near: Bool[np.ndarray, "some objects"] = _neighbour_ranks(distance, own) <= k
        ranks = _neighbour_ranks(before[own], own)
        penalty += float((ranks - k)[near & (ranks > k)].sum())
        stay += int((near & (ranks <= k)).sum())
    return penalty, stay / (n * k)


def trustworthiness(
    before: Float64[np.ndarray, "objects objects"], after: Float64[np.ndarray, "objects two"], *, k: int = 15
) -> float:
    """Return how far the k nearest in an embedding were near before: 1 all of them, about 0.5 by chance.

    1 - 2 / (n k (2 n - 3 k - 1)) sum_i sum_(j near i now, not before) (rank of j before - k)

    Raises
    ------
    ValueError
        k is not below half of the objects.

    References
    ----------
    Venna & Kaski (2001), Neural Networks 14:1049.
    """
    n = before.shape[0]
    if not 0 < k < n / 2:
        raise ValueError(f"Trustworthiness: expected k from 1 to below {n / 2:g}, half of the objects, found {k}.")
    penalty, _ = _compare(before, after, k)
    return float(1.0 - 2.0 * penalty / (n * k * (2 * n - 3 * k - 1)))


def neighbour_overlap(
    before: Float64[np.ndarray, "objects objects"], after: Float64[np.ndarray, "objects two"], *, k: int = 15
) -> float:
    """Return the share of the k nearest neighbours in an embedding that were among the k nearest before."""
    return _compare(before, after, k)[1]


def embedding_peak_bytes(n_phenotypes: int, *, block_bytes: int, pairwise: bool, umap_neighbors: int) -> int:
    """Return the memory of sums, components and UMAP of that many phenotypes, the values not included."""
    square = 8 * n_phenotypes**2
    sums = (4 if pairwise else 2) * square
    graph = 64 * n_phenotypes * umap_neighbors
    return sums + 3 * square + 6 * block_bytes + graph + (1 << 26)
