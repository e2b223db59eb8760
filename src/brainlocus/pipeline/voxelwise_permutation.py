"""Permutations of ``associate voxelwise``: images kept on disk, read again range by range of voxels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from brainlocus.cohort.associate import (
    Clusters,
    FaceNeighbours,
    PermutedLargest,
    TargetGroup,
    enhance_clusters,
    face_neighbours,
    find_clusters,
    narrow_group,
    permutable_residuals,
    permuted_bytes,
    permuted_largest,
    permuted_rows,
)
from brainlocus.core import Grid, SchemaError
from brainlocus.numerics import family_wise_p, flip_people, permute_people
from brainlocus.numerics.permutation import BlockMode
from brainlocus.pipeline.step import Context

__all__ = ["ClusterInference", "Exchange", "FamilyWise", "Permutations", "permutations_bytes", "permute_targets"]

Exchange = Literal["shuffle", "flip", "both"]

_BLOCK = 4096
"""Voxels of a product."""
_DRAWN = 64
"""Permutations drawn from one generator, whatever is done at once."""
_TARGETS = 64
_MAP_CELLS = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class Permutations:
    """How people are permuted."""

    count: int
    tfce: bool
    tail: bool
    """Small p from a fitted tail."""
    blocks: Shaped[np.ndarray, " people"] | None
    mode: BlockMode
    exchange: Exchange = "shuffle"
    """People change places, their residuals change signs, or both."""
    cluster_threshold: float | None = None
    """|t| that forms clusters; None: no clusters."""

    @property
    def whole(self) -> bool:
        """Whether permuted maps are needed as wholes."""
        return self.tfce or self.cluster_threshold is not None


@dataclass(frozen=True, slots=True, eq=False)
class ClusterInference:
    """Clusters of the observed map; their voxels are counted among those of the mask."""

    found: Clusters
    neg_log10_p_size: Float64[np.ndarray, " clusters"]
    neg_log10_p_mass: Float64[np.ndarray, " clusters"]


@dataclass(frozen=True, slots=True, eq=False)
class FamilyWise:
    """What permutations say about one target."""

    neg_log10_p: Float32[np.ndarray, " voxels"]
    """Of the largest |t|; NaN where somebody of the target lacks the voxel."""
    tfce: Float32[np.ndarray, " voxels"] | None
    neg_log10_p_tfce: Float32[np.ndarray, " voxels"] | None
    max_abs_t: Float64[np.ndarray, " permutations"]
    max_tfce: Float64[np.ndarray, " permutations"]
    max_size: Float64[np.ndarray, " permutations"]
    max_mass: Float64[np.ndarray, " permutations"]
    clusters: ClusterInference | None
    n_permuted: int
    """Voxels that were permuted."""


def _targets_at_once(group: TargetGroup, n_voxels: int, *, whole: bool) -> int:
    most = max(_MAP_CELLS // max(n_voxels, 1), 1) if whole else _TARGETS
    return min(group.members.size, _TARGETS, most)


def _permutations_at_once(group: TargetGroup, n_voxels: int, *, whole: bool) -> int:
    """Return how many permutations are made at once, fewer with TFCE or clusters, which hold their maps."""
    most = max(_MAP_CELLS // (group.members.size * max(n_voxels, 1)), 1) if whole else _DRAWN
    return min(permuted_rows(group), _DRAWN, most)


def permutations_bytes(groups: tuple[TargetGroup, ...], n_voxels: int, *, whole: bool) -> int:
    """Return the memory of `permute_targets`."""
    most = 0
    for group in groups:
        some = narrow_group(group, slice(0, _targets_at_once(group, n_voxels, whole=whole)))
        needed = permuted_bytes(some, 0, min(_BLOCK, n_voxels), whole=whole)
        if whole:
            needed += 5 * _MAP_CELLS + 260 * n_voxels
        most = max(most, needed)
    return most + 8 * n_voxels


def permute_targets(
    group: TargetGroup,
    number: int,
    images: np.ndarray,
    t: np.ndarray,
    where: tuple[Grid, Int[np.ndarray, " voxels"]],
    plan: Permutations,
    context: Context,
) -> Iterator[tuple[int, FamilyWise]]:
    """Yield, for each target of a group, its number and its family-wise p.

    Parameters
    ----------
    number
        Of the group: with the number of the batch of permutations, the key of its random numbers.
    images
        Memory-mapped people x voxels.
    t
        Memory-mapped targets x voxels, observed.
    where
        Grid, and flat indices of the voxels in it.

    Raises
    ------
    SchemaError
        The blocks leave nothing to permute.
    """
    path = context.shards / "residuals.npy"
    kept, usable = _residuals(group, images, path)
    places = np.flatnonzero(usable)
    inside = np.zeros(int(np.prod(where[0].shape)), dtype=bool)
    inside[where[1][places]] = True
    neighbours = face_neighbours(inside.reshape(where[0].shape)) if plan.whole else None
    size = _targets_at_once(group, places.size, whole=plan.whole)
    for first in range(0, group.members.size, size):
        some = narrow_group(group, slice(first, first + size))
        null = _null(some, number, kept, places.size, neighbours, plan, context)
        for k, target in enumerate(some.members):
            observed = np.array(t[target][places], dtype=np.float64)
            fit = context.rng(2, int(target)) if plan.tail else None
            found = _spread(-np.log10(family_wise_p(np.abs(observed), null.abs_t[:, k], rng=fit)), places, usable.size)
            tfce = tfce_p = clusters = None
            if plan.tfce and neighbours is not None:
                raised = enhance_clusters(observed, neighbours)
                tfce = _spread(raised, places, usable.size)
                p = family_wise_p(np.abs(raised), null.tfce[:, k], rng=fit)
                tfce_p = _spread(-np.log10(p), places, usable.size)
            if plan.cluster_threshold is not None and neighbours is not None:
                formed = find_clusters(observed, neighbours, threshold=plan.cluster_threshold)
                clusters = _inference(formed, null.size[:, k], null.mass[:, k], places, usable.size)
            yield (
                int(target),
                FamilyWise(
                    found, tfce, tfce_p, null.abs_t[:, k], null.tfce[:, k], null.size[:, k], null.mass[:, k], clusters,
                    int(places.size),
                ),
            )  # fmt: skip
    path.unlink()


def _null(
    group: TargetGroup,
    number: int,
    kept: np.ndarray,
    n_voxels: int,
    neighbours: FaceNeighbours | None,
    plan: Permutations,
    context: Context,
) -> PermutedLargest:
    """Return the largest statistics of all permutations."""
    step = _permutations_at_once(group, n_voxels, whole=plan.whole)
    starts = range(0, plan.count, _DRAWN)
    parts = []
    for start in context.progress.track(starts, "Permuting", len(starts)):
        order, signs = _draw(group, plan, context.rng(1, number, start // _DRAWN))
        for at in range(0, min(_DRAWN, plan.count - start), step):
            rows = slice(at, min(at + step, _DRAWN, plan.count - start))
            parts.append(
                permuted_largest(
                    group, _ranges(kept, n_voxels), order[rows], signs=None if signs is None else signs[rows],
                    neighbours=neighbours, tfce=plan.tfce, cluster_threshold=plan.cluster_threshold,
                )
            )  # fmt: skip
    return PermutedLargest(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("abs_t", "tfce", "size", "mass"))
    )


def _draw(
    group: TargetGroup, plan: Permutations, rng: np.random.Generator
) -> tuple[Int[np.ndarray, "permutations people"], Float32[np.ndarray, "permutations people"] | None]:
    """Return orders of people and signs.

    Raises
    ------
    SchemaError
        The blocks leave nothing to permute, or to flip.
    """
    blocks = None if plan.blocks is None else plan.blocks[group.rows]
    order, signs = np.tile(np.arange(group.n), (_DRAWN, 1)), None
    try:
        if plan.exchange != "flip":
            order = permute_people(rng, group.n, _DRAWN, blocks=blocks, mode=plan.mode)
        if plan.exchange != "shuffle":
            signs = flip_people(rng, group.n, _DRAWN, blocks=blocks, mode=plan.mode)
    except ValueError as error:
        raise SchemaError(f"--blocks: {error}") from error
    return order, signs


def _inference(
    found: Clusters,
    max_size: Float64[np.ndarray, " permutations"],
    max_mass: Float64[np.ndarray, " permutations"],
    places: Int[np.ndarray, " some"],
    n_voxels: int,
) -> ClusterInference:
    """Return the family-wise p of clusters, counted; with voxels counted among those of the mask."""
    label = np.full(n_voxels, -1, dtype=np.int64)
    label[places] = found.label
    size, mass = (
        -np.log10(family_wise_p(values, largest))
        for values, largest in ((found.size.astype(np.float64), max_size), (found.mass, max_mass))
    )
    return ClusterInference(Clusters(label, found.sign, found.size, found.mass, places[found.peak]), size, mass)


def _residuals(group: TargetGroup, images: np.ndarray, path: Path) -> tuple[np.ndarray, Bool[np.ndarray, " voxels"]]:
    """Write the residuals of the voxels that can be permuted side by side; return them and which these are."""
    n_voxels = images.shape[1]
    n_blocks = -(-n_voxels // _BLOCK)
    kept = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n_blocks, group.n, _BLOCK))
    usable = np.zeros(n_voxels, dtype=bool)
    rows = np.flatnonzero(group.rows)
    waiting = np.empty((group.n, 0), dtype=np.float32)
    block = 0
    for start in range(0, n_voxels, _BLOCK):
        part = slice(start, min(start + _BLOCK, n_voxels))
        found, usable[part] = permutable_residuals(group, np.asarray(images[rows, part]))
        waiting = np.concatenate([waiting, found[:, usable[part]]], axis=1)
        if waiting.shape[1] >= _BLOCK:
            kept[block] = waiting[:, :_BLOCK]
            waiting, block = waiting[:, _BLOCK:], block + 1
    kept[block : block + 1, :, : waiting.shape[1]] = waiting
    return kept, usable


def _ranges(kept: np.ndarray, count: int) -> Iterator[Float32[np.ndarray, "people some"]]:
    for block in range(-(-count // _BLOCK)):
        yield np.ascontiguousarray(kept[block][:, : min(_BLOCK, count - block * _BLOCK)])


def _spread(
    values: Float64[np.ndarray, " some"], places: Int[np.ndarray, " some"], size: int
) -> Float32[np.ndarray, " voxels"]:
    whole = np.full(size, np.nan, dtype=np.float32)
    whole[places] = values
    return whole
