"""Ward trees of phenotypes from a matrix of dissimilarities: merges, leaf order, cuts, and what supports them.

Data flow::

    1 - rho --ward_tree--> WardTree --cut_tree--> cluster of every phenotype
    1 - rho + labels --adjusted_rand, neighbour_hits, silhouette--> how well they fit

1 - rho is not a Euclidean distance, for which the two methods called Ward differ (Murtagh & Legendre 2014). With
clusters of sizes i, j, k the distance of the union of the first two to the third is, by Lance & Williams,

    D(ij, k) = [(i + k) D(i, k) + (j + k) D(j, k) - k D(i, j)] / (i + j + k)

``ward.D2``: D is the squared dissimilarity, and heights are sqrt(D). ``ward.D``: D is the dissimilarity as it is, and
heights are D. The second is the first applied to square roots, its heights squared.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Shaped

from brainlocus.core.text import newick_name
from brainlocus.numerics.partitions import adjusted_rand

__all__ = [
    "Homologues",
    "NeighbourHits",
    "WardMethod",
    "WardTree",
    "adjusted_rand",
    "best_number_of_clusters",
    "cut_tree",
    "cut_tree_at",
    "find_homologues",
    "homologue_hits",
    "nearest_neighbours",
    "neighbour_hits",
    "newick",
    "silhouette",
    "ward_tree",
    "ward_tree_peak_bytes",
]

WardMethod = Literal["ward.D2", "ward.D"]


@dataclass(frozen=True, slots=True, eq=False)
class WardTree:
    """A tree in the conventions of R's ``hclust``."""

    merge: Int64[np.ndarray, "merges 2"]
    """What each merge joins: -k is leaf k (from 1), k the result of merge k (from 1). A leaf stands before a cluster,
    the lower leaf before the higher, the earlier (tighter) cluster before the later."""
    height: Float64[np.ndarray, " merges"]
    order: Int64[np.ndarray, " leaves"]
    """Leaves from left to right, from 0."""
    method: WardMethod

    @property
    def n_leaves(self) -> int:
        """Number of leaves."""
        return int(self.order.size)


def ward_tree(
    dissimilarity: Float[np.ndarray, "leaves leaves"],
    *,
    method: WardMethod = "ward.D2",
    order: Literal["r", "optimal"] = "r",
) -> WardTree:
    """Return the Ward tree of a symmetric matrix of dissimilarities.

    Parameters
    ----------
    order
        Leaves as R draws them, or so that neighbouring leaves are as similar as the tree allows (Bar-Joseph).

    Raises
    ------
    ValueError
        A dissimilarity is negative or not finite, or the matrix is not square and symmetric.

    References
    ----------
    Ward (1963), JASA 58:236; Lance & Williams (1967), Computer Journal 9:373; Murtagh & Legendre (2014), Journal of
    Classification 31:274; Bar-Joseph et al. (2001), Bioinformatics 17:S22.

    Examples
    --------
    >>> far = np.array([[0.0, 0.1, 0.9], [0.1, 0.0, 1.0], [0.9, 1.0, 0.0]])
    >>> tree = ward_tree(far)
    >>> tree.merge.tolist(), tree.order.tolist()
    ([[-1, -2], [-3, 1]], [2, 0, 1])
    """
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering

    condensed = _condensed(dissimilarity)
    n = int(dissimilarity.shape[0])
    if n == 1:
        return WardTree(np.zeros((0, 2), dtype=np.int64), np.zeros(0), np.zeros(1, dtype=np.int64), method)
    joined = linkage(np.sqrt(condensed) if method == "ward.D" else condensed, method="ward")
    # scipy numbers leaves from 0 and merges from n on, the lower number first: the order of R.
    numbers = joined[:, :2].astype(np.int64)
    merge = np.where(numbers < n, -numbers - 1, numbers - n + 1)
    drawn = optimal_leaf_ordering(joined, condensed) if order == "optimal" else joined
    height = joined[:, 2] ** 2 if method == "ward.D" else joined[:, 2].copy()
    return WardTree(merge, height, leaves_list(drawn).astype(np.int64), method)


def ward_tree_peak_bytes(n_leaves: int, *, optimal: bool) -> int:
    """Return the memory of `ward_tree`, the matrix not included: condensed, its root, and scipy's copy."""
    pairs = n_leaves * (n_leaves - 1) // 2
    return 8 * pairs * (3 + (4 if optimal else 0)) + 400 * n_leaves


def _condensed(dissimilarity: Float[np.ndarray, "leaves leaves"]) -> Float64[np.ndarray, " pairs"]:
    n = dissimilarity.shape[0]
    if dissimilarity.ndim != 2 or dissimilarity.shape[1] != n or n == 0:
        raise ValueError(f"Ward: expected a square matrix of dissimilarities, found {dissimilarity.shape}.")
    condensed = np.empty(n * (n - 1) // 2)
    start = 0
    for row in range(n - 1):
        here = dissimilarity[row, row + 1 :]
        if not np.array_equal(here, dissimilarity[row + 1 :, row], equal_nan=True):
            raise ValueError(f"Ward: the matrix of dissimilarities is not symmetric in row {row + 1}.")
        condensed[start : start + here.size] = here
        start += here.size
    bad = int((~np.isfinite(condensed) | (condensed < 0)).sum())
    if bad:
        raise ValueError(f"Ward: dissimilarities must be finite and not negative, found {bad} pairs that are not.")
    return condensed


def cut_tree(tree: WardTree, n_clusters: int) -> Int64[np.ndarray, " leaves"]:
    """Return the cluster of every leaf after all but the last ``n_clusters - 1`` merges.

    Clusters are numbered from 1 in the order in which the leaves' own order first meets them, as R's ``cutree``.

    Raises
    ------
    ValueError
        More clusters than leaves, or none.
    """
    n = tree.n_leaves
    if not 1 <= n_clusters <= n:
        raise ValueError(f"Expected 1 to {n} clusters of {n} phenotypes, found {n_clusters}.")
    parent = np.arange(2 * n - 1)
    for step in range(n - n_clusters):
        parent[_nodes(tree.merge[step], n)] = n + step
    # A parent has the higher number, so that going down each node's parent is final already.
    for node in range(2 * n - 2, -1, -1):
        parent[node] = parent[parent[node]]
    _, first, member = np.unique(parent[:n], return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.int64)
    rank[np.argsort(first)] = np.arange(1, first.size + 1)
    return rank[member]


def cut_tree_at(tree: WardTree, height: float) -> Int64[np.ndarray, " leaves"]:
    """Return the cluster of every leaf after all merges up to a height."""
    return cut_tree(tree, tree.n_leaves - int((tree.height <= height).sum()))


def _nodes(pair: Int64[np.ndarray, " two"], n: int) -> Int64[np.ndarray, " two"]:
    """Return leaves as 0 to n - 1 and merges from n on."""
    return np.where(pair < 0, -pair - 1, n + pair - 1)


def newick(tree: WardTree, names: Sequence[str]) -> str:
    """Return the tree as Newick text; a branch is as long as the difference in height of its ends.

    Names are quoted where they hold characters that mean something in the format.
    """
    text = [newick_name(name) for name in names]
    height = np.zeros(tree.n_leaves)
    tops = np.r_[height, tree.height]
    nodes: list[str] = list(text)
    for step, pair in enumerate(tree.merge):
        ends = _nodes(pair, tree.n_leaves)
        parts = ",".join(f"{nodes[end]}:{float(tree.height[step] - tops[end])!r}" for end in ends)
        nodes.append(f"({parts})")
        for end in ends:
            nodes[end] = ""
    return nodes[-1] + ";"


def _codes(labels: Shaped[np.ndarray, " objects"]) -> tuple[Int64[np.ndarray, " objects"], int]:
    levels, codes = np.unique(labels, return_inverse=True)
    return codes.astype(np.int64), int(levels.size)


def silhouette(
    dissimilarity: Float[np.ndarray, "objects objects"], labels: Shaped[np.ndarray, " objects"]
) -> Float64[np.ndarray, " objects"]:
    """Return the silhouette width of every object: (b - a) / max(a, b).

    a is the mean dissimilarity to the others of its class, b the smallest mean to another class. 0 for a class of one;
    NaN where there is one class only.

    References
    ----------
    Rousseeuw (1987), Journal of Computational and Applied Mathematics 20:53.
    """
    codes, n_classes = _codes(labels)
    n = codes.size
    if n_classes < 2:
        return np.full(n, np.nan)
    member = np.zeros((n, n_classes))
    member[np.arange(n), codes] = 1.0
    sums = dissimilarity @ member
    sizes = member.sum(axis=0)
    rows = np.arange(n)
    alone = sizes[codes] == 1
    own = sums[rows, codes] / np.maximum(sizes[codes] - 1, 1)
    means = sums / sizes
    means[rows, codes] = np.inf
    other = means.min(axis=1)
    largest = np.maximum(own, other)
    return np.where(alone | (largest == 0), 0.0, (other - own) / np.where(largest == 0, 1.0, largest))


def best_number_of_clusters(
    tree: WardTree, dissimilarity: Float[np.ndarray, "leaves leaves"], *, most: int = 20
) -> tuple[int, float]:
    """Return the number of clusters, from 2 to `most`, with the largest mean silhouette, and that mean.

    1 and NaN where there are fewer than three leaves; the smallest of equally good numbers.
    """
    best, width = 1, float("nan")
    for n_clusters in range(2, min(most, tree.n_leaves - 1) + 1):
        mean = float(silhouette(dissimilarity, cut_tree(tree, n_clusters)).mean())
        if not mean <= width:  # also where none is known yet
            best, width = n_clusters, mean
    return best, width


@dataclass(frozen=True, slots=True)
class NeighbourHits:
    """How often the nearest neighbour has the same label."""

    rate: float
    """Share of objects; of equally near neighbours the share that hits."""
    expected: float
    """The same for labels dealt out at random."""
    permutation_p: float
    """(1 + permutations at least as good) / (1 + permutations)."""
    n: int
    n_permutations: int


def nearest_neighbours(
    dissimilarity: Float[np.ndarray, "objects objects"],
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Return pairs of an object and its nearest neighbour, and the weight of each, 1 / (equally near neighbours)."""
    away = np.array(dissimilarity, dtype=np.float64)
    np.fill_diagonal(away, np.inf)
    smallest = away.min(axis=1)
    objects, neighbours = np.nonzero((away == smallest[:, None]) & np.isfinite(away))
    counts = np.bincount(objects, minlength=away.shape[0])
    return objects.astype(np.int64), neighbours.astype(np.int64), 1.0 / counts[objects]


def neighbour_hits(
    dissimilarity: Float[np.ndarray, "objects objects"],
    labels: Shaped[np.ndarray, " objects"],
    *,
    n_permutations: int = 1000,
    rng: np.random.Generator,
) -> NeighbourHits:
    """Return how often an object's nearest neighbour has its label, against labels in random order."""
    codes, _ = _codes(labels)
    n = codes.size
    if n < 2:
        return NeighbourHits(float("nan"), float("nan"), float("nan"), n, 0)
    objects, neighbours, weight = nearest_neighbours(dissimilarity)

    def rate(coded: Int64[np.ndarray, " objects"]) -> float:
        return float(weight[coded[objects] == coded[neighbours]].sum()) / n

    sizes = np.bincount(codes)
    expected = float((sizes * (sizes - 1)).sum() / (n * (n - 1)))
    return _permuted(rate(codes), expected, [rate(rng.permutation(codes)) for _ in range(n_permutations)], n)


def _permuted(rate: float, expected: float, null: Sequence[float], n: int) -> NeighbourHits:
    # Sums of the same weights in another order may differ in the last bit.
    at_least = int((np.array(null) >= rate - 1e-12).sum())
    return NeighbourHits(rate, expected, (1 + at_least) / (1 + len(null)), n, len(null))


@dataclass(frozen=True, slots=True, eq=False)
class Homologues:
    """Left phenotypes and their right partners."""

    left: Int64[np.ndarray, " pairs"]
    right: Int64[np.ndarray, " pairs"]
    n_ambiguous: int
    """Lateral phenotypes that have no partner, or several."""


def find_homologues(
    sides: Shaped[np.ndarray, " phenotypes"], keys: Sequence[Shaped[np.ndarray, " phenotypes"]]
) -> Homologues:
    """Return the pairs that differ in side only: one ``left`` and one ``right`` phenotype with the same keys.

    Parameters
    ----------
    keys
        Columns that homologues share: modality, atlas, region, measurement.
    """
    groups: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for k, side in enumerate(sides.tolist()):
        if side in ("left", "right"):
            key = tuple(str(column[k]) for column in keys)
            groups.setdefault(key, {"left": [], "right": []})[side].append(k)
    found = [(g["left"][0], g["right"][0]) for g in groups.values() if len(g["left"]) == len(g["right"]) == 1]
    n_lateral = int(np.isin(sides, ("left", "right")).sum())
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    return Homologues(pairs[:, 0], pairs[:, 1], n_lateral - 2 * len(found))


def homologue_hits(
    dissimilarity: Float[np.ndarray, "objects objects"],
    pairs: Homologues,
    *,
    n_permutations: int = 1000,
    rng: np.random.Generator,
) -> NeighbourHits:
    """Return how often the nearest neighbour (among all phenotypes) is the homologue of the other side.

    The null gives each left phenotype a right one at random.
    """
    n = int(pairs.left.size)
    if n == 0:
        return NeighbourHits(float("nan"), float("nan"), float("nan"), 0, 0)
    objects, neighbours, weight = nearest_neighbours(dissimilarity)

    def rate(right: Int64[np.ndarray, " pairs"]) -> float:
        partner = np.full(dissimilarity.shape[0], -1, dtype=np.int64)
        partner[pairs.left], partner[right] = right, pairs.left
        hit: Bool[np.ndarray, " pairs"] = partner[objects] == neighbours
        return float(weight[hit].sum()) / (2 * n)

    null = [rate(rng.permutation(pairs.right)) for _ in range(n_permutations)]
    return _permuted(rate(pairs.right), float(np.mean(null)) if null else float("nan"), null, 2 * n)
