"""Largest statistic of a map under permutation of people, for family-wise error over voxels.

Data flow::

    TargetGroup + images of some voxels --permutable_residuals--> residuals of norm 1    (once per range of voxels)
    TargetGroup + residuals + orders --permuted_largest--> PermutedLargest                (per batch of permutations)

Only voxels that all people of the group have are permuted: the people of every voxel are then the same, and one order
of people serves all voxels, as the largest statistic needs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int

from brainlocus.cohort.associate.clusters import largest_cluster
from brainlocus.cohort.associate.tfce import FaceNeighbours, enhance_clusters
from brainlocus.cohort.associate.voxelwise import MAX_R, TargetGroup
from brainlocus.numerics import freedman_lane_r, permutation_rows, project_out

__all__ = [
    "PermutedLargest",
    "narrow_group",
    "permutable_residuals",
    "permuted_bytes",
    "permuted_largest",
    "permuted_rows",
]

_ROWS = 1024
"""Rows of a product: permutations times targets and covariates."""
_ROW_CELLS = 1 << 23
_SINGLE_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True, eq=False)
class PermutedLargest:
    """The largest statistics of every permutation and target; NaN where they were not asked for."""

    abs_t: Float64[np.ndarray, "permutations targets"]
    tfce: Float64[np.ndarray, "permutations targets"]
    """Largest |enhanced value|."""
    size: Float64[np.ndarray, "permutations targets"]
    """Voxels of the largest cluster of either sign."""
    mass: Float64[np.ndarray, "permutations targets"]


def narrow_group(group: TargetGroup, targets: slice) -> TargetGroup:
    """Return the group with some of its targets."""
    return replace(
        group,
        members=group.members[targets],
        residuals=group.residuals[:, targets],
        scale=group.scale[targets],
    )


def permuted_rows(group: TargetGroup) -> int:
    """Return how many permutations are made at once."""
    each = group.members.size + group.rank
    return max(1, min(_ROWS // each, _ROW_CELLS // (each * group.n)))


def permuted_bytes(group: TargetGroup, n_voxels: int, block: int, *, whole: bool) -> int:
    """Return the memory of `permuted_largest` with blocks of `block` voxels of `n_voxels`.

    Parameters
    ----------
    whole
        Maps are needed as wholes, for TFCE or clusters.
    """
    each = group.members.size + group.rank
    rows = permuted_rows(group) * each
    maps = permuted_rows(group) * group.members.size * n_voxels * 4 + 200 * n_voxels if whole else 0
    return 4 * (2 * rows * block + 3 * rows * group.n + 8 * group.n * (each + block)) + 24 * group.n * block + maps


def permutable_residuals(
    group: TargetGroup, values: Float[np.ndarray, "people voxels"]
) -> tuple[Float32[np.ndarray, "people voxels"], Bool[np.ndarray, " voxels"]]:
    """Return the voxels freed of the covariates, of norm 1, and which can be permuted; others are 0.

    Parameters
    ----------
    values
        Of the people of the group, in order; NaN is missing.
    """
    present = np.isfinite(values).all(axis=0)
    filled = np.where(present, values, 0.0).astype(np.float64)
    mean = filled.mean(axis=0) if group.intercept else np.zeros(filled.shape[1])
    left = project_out(group.basis[group.rows] / np.sqrt(group.n), filled - mean)
    squares = (left**2).sum(axis=0)
    total = ((filled - mean) ** 2).sum(axis=0)
    usable = present & (squares > np.maximum(1e-12 * total, group.n * (2.0 * _SINGLE_EPS * mean) ** 2))
    if not group.intercept:
        # Equal values have a mean but no error to flip.
        usable &= np.ptp(filled, axis=0) > 2.0 * _SINGLE_EPS * np.abs(filled).max(axis=0)
    return np.divide(left, np.sqrt(squares), out=np.zeros_like(left), where=usable).astype(np.float32), usable


def permuted_largest(
    group: TargetGroup,
    residuals: Iterable[Float32[np.ndarray, "people _"]],
    order: Int[np.ndarray, "permutations people"],
    *,
    signs: Float32[np.ndarray, "permutations people"] | None = None,
    neighbours: FaceNeighbours | None = None,
    tfce: bool = True,
    cluster_threshold: float | None = None,
) -> PermutedLargest:
    """Return the largest statistics of every target under every permutation.

    Parameters
    ----------
    residuals
        From `permutable_residuals`, range by range of voxels.
    order
        From `brainlocus.numerics.permute_people`; at most `permuted_rows` of them.
    signs
        From `brainlocus.numerics.flip_people`; always when the mean of the maps is tested.
    neighbours
        Of all voxels of the residuals, in order, for TFCE and clusters.
    cluster_threshold
        |t| that forms clusters; None measures none.
    """
    q, df = group.members.size, float(group.n - group.rank - 1)
    basis = group.basis[group.rows] / np.sqrt(group.n)
    rows = permutation_rows(basis, group.residuals[group.rows] / np.sqrt(group.n), order, signs)
    n_others = rows.shape[0] // order.shape[0] - q
    largest = np.zeros((order.shape[0], q))
    maps: list[Float32[np.ndarray, "permutations targets some"]] = []
    for part in residuals:
        r = freedman_lane_r(rows, part, n_targets=q, n_others=n_others)
        np.maximum(largest, np.maximum(r.max(axis=2), -r.min(axis=2)), out=largest)
        if neighbours is not None:
            maps.append(r.copy())
    enhanced, size, mass = (np.full(largest.shape, np.nan) for _ in range(3))
    if neighbours is not None:
        for b in range(order.shape[0]):
            for k in range(q):
                t = _t(np.concatenate([part[b, k] for part in maps]).astype(np.float64), df)
                if tfce:
                    enhanced[b, k] = np.abs(enhance_clusters(t, neighbours)).max(initial=0.0)
                if cluster_threshold is not None:
                    size[b, k], mass[b, k] = largest_cluster(t, neighbours, threshold=cluster_threshold)
    return PermutedLargest(_t(largest, df), enhanced, size, mass)


def _t(r: Float64[np.ndarray, "*shape"], df: float) -> Float64[np.ndarray, "*shape"]:
    clipped = np.clip(r, -MAX_R, MAX_R)
    return np.asarray(clipped * np.sqrt(df / (1.0 - clipped * clipped)))
