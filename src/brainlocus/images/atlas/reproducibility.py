"""How alike two fits of one atlas are: the two halves of a cohort, or two cohorts.

Data flow::

    components of each fit --unit_components--> sparse W of unit columns
    W1, W2 + labels --compare_fits--> FitAgreement

With K = W1'W2 the inner products of columns of unit norm, the pairs are the assignment with the lowest cost
2 (1 - K) = ||w1 - w2||^2 (Hungarian). The reproducibility index is the mean of K over the pairs. Where one fit has more
components than the other (some have vanished), its components without a partner count as 0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from brainlocus.numerics.partitions import adjusted_mutual_information, joint_counts, rand_of_counts

__all__ = ["FitAgreement", "compare_fits", "compare_fits_peak_bytes", "match_components", "unit_components"]

BLOCK_BYTES = 32 << 20
NEGLIGIBLE = 1e-8
"""Entries below this share of their column's largest are left out; multiplicative updates keep them at 1e-16. Together
they change an inner product by less than 1e-8 times the root of the number of voxels."""


@dataclass(frozen=True, slots=True, eq=False)
class FitAgreement:
    """Two fits compared."""

    first: Int64[np.ndarray, " pairs"]
    """Component of the first fit, from 1; 0 where one of the second has no partner."""
    second: Int64[np.ndarray, " pairs"]
    """Component of the second fit, from 1; 0 where one of the first has no partner."""
    product: Float64[np.ndarray, " pairs"]
    """Inner product of the two; 0 without a partner."""
    dice: Float64[np.ndarray, " pairs"]
    """Overlap of the two hard parcels; 0 without a partner."""
    adjusted_rand: float
    """Of the hard labels, over voxels that have one in both."""
    adjusted_mutual_information: float
    null: Float64[np.ndarray, " permutations"]
    """Reproducibility index with the voxels of the second fit permuted."""

    @property
    def index(self) -> float:
        """Reproducibility index: mean of the matched inner products."""
        return float(self.product.mean())


def compare_fits_peak_bytes(n_voxels: int, n_components: int, per_voxel: int = 1) -> int:
    """Return the memory of `compare_fits` and `unit_components`: three sparse matrices, a block, joint counts.

    Parameters
    ----------
    per_voxel
        Components that have a weight in a voxel, on average; 1 for a hard atlas.
    """
    return 3 * 16 * n_voxels * per_voxel + 4 * 8 * n_voxels + 3 * BLOCK_BYTES + 6 * 8 * (n_components + 1) ** 2


def unit_components(
    weights: Float[np.ndarray, "voxels components"], *, voxels: Int[np.ndarray, " kept"] | None = None
) -> Any:
    """Return W with columns of unit norm as a sparse array (``scipy.sparse.csr_array``, float64).

    Parameters
    ----------
    weights
        May be a memory map; read by blocks of voxels, twice.
    voxels
        Rows to take, ascending; by default all.

    Examples
    --------
    >>> unit_components(np.array([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]])).toarray().round(6).tolist()
    [[0.6, 0.0], [0.8, 0.0], [0.0, 1.0]]
    """
    from scipy import sparse

    rows = np.arange(weights.shape[0]) if voxels is None else voxels
    step = max(1, BLOCK_BYTES // (8 * max(weights.shape[1], 1)))
    blocks = [rows[k : k + step] for k in range(0, rows.size, step)]
    largest = np.zeros(weights.shape[1])
    for block in blocks:
        largest = np.maximum(largest, weights[block].max(axis=0, initial=0.0))
    parts = []
    for block in blocks:
        part = np.asarray(weights[block], dtype=np.float64)
        parts.append(sparse.csr_array(np.where(part > NEGLIGIBLE * largest, part, 0.0)))
    whole = sparse.vstack(parts, format="csr")
    norms = np.sqrt(np.asarray(whole.multiply(whole).sum(axis=0)).ravel())
    return sparse.csr_array(whole @ sparse.diags_array(1.0 / np.where(norms > 0, norms, 1.0)))


def match_components(
    products: Float64[np.ndarray, "first second"],
    alive_first: Bool[np.ndarray, " first"],
    alive_second: Bool[np.ndarray, " second"],
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Return the pairs of components with the lowest total cost 2 (1 - K), and their inner products.

    Vanished components take no part. The components of the larger fit that have no partner follow the pairs, with 0
    for the partner and for the product.

    References
    ----------
    Kuhn (1955), Naval Research Logistics 2:83; Crouse (2016), IEEE Trans. Aerosp. Electron. Syst. 52:1679.

    Examples
    --------
    >>> k = np.array([[0.1, 0.9], [0.8, 0.7], [0.2, 0.3]])
    >>> [x.tolist() for x in match_components(k, np.ones(3, bool), np.ones(2, bool))]
    [[1, 2, 3], [2, 1, 0], [0.9, 0.8, 0.0]]
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = np.flatnonzero(alive_first), np.flatnonzero(alive_second)
    cost = 2.0 * (1.0 - products[np.ix_(rows, columns)])
    a, b = linear_sum_assignment(cost)
    alone_first, alone_second = np.setdiff1d(rows, rows[a]), np.setdiff1d(columns, columns[b])
    nobody = np.full(max(alone_first.size, alone_second.size), -1)
    first = np.concatenate([rows[a], alone_first if alone_first.size else nobody])
    second = np.concatenate([columns[b], alone_second if alone_second.size else nobody])
    matched = np.append(products[rows[a], columns[b]], np.zeros(nobody.size))
    return first.astype(np.int64) + 1, second.astype(np.int64) + 1, matched


def compare_fits(
    first: Any,
    second: Any,
    labels: tuple[Int[np.ndarray, " voxels"], Int[np.ndarray, " voxels"]],
    *,
    generator: np.random.Generator,
    permutations: int = 10,
) -> FitAgreement:
    """Return how alike two fits of the same voxels are.

    Parameters
    ----------
    first, second
        What `unit_components` returns.
    labels
        Hard parcels of each fit, 0 for none, else from 1.
    permutations
        How often the voxels of the second fit are permuted for the index by chance.

    Raises
    ------
    ValueError
        Different voxels, or a fit without any component.
    """
    n_first, n_second = int(first.shape[1]), int(second.shape[1])
    if not first.shape[0] == second.shape[0] == labels[0].size == labels[1].size:
        raise ValueError(f"Both fits must have the same voxels; found {first.shape[0]} and {second.shape[0]}.")
    counts = joint_counts(labels[0], labels[1], n_first + 1, n_second + 1)
    # A component that wins no voxel has vanished, although multiplicative updates leave it small weights everywhere.
    alive = [counts.sum(axis=1)[1:] > 0, counts.sum(axis=0)[1:] > 0]
    if not (alive[0].any() and alive[1].any()):
        raise ValueError("A fit has no component with a voxel; there is nothing to match.")
    one, other, product = match_components((first.T @ second).toarray(), *alive)
    null = []
    for _ in range(permutations):
        shuffled = second[generator.permutation(second.shape[0])]
        null.append(float(match_components((first.T @ shuffled).toarray(), *alive)[2].mean()))
    inside = counts[1:, 1:]
    together = np.where((one > 0) & (other > 0), counts[one, other], 0)
    sizes = counts.sum(axis=1)[one] + counts.sum(axis=0)[other]
    return FitAgreement(
        first=one,
        second=other,
        product=product,
        dice=2.0 * together / np.maximum(sizes, 1),
        adjusted_rand=rand_of_counts(inside),
        adjusted_mutual_information=adjusted_mutual_information(inside),
        null=np.array(null),
    )
