"""Permutations of ``associate voxelwise``: images kept on disk, read again range by range of voxels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Shaped

from brainlocus.cohort.associate import (
    TargetGroup,
    enhance_clusters,
    face_neighbours,
    narrow_group,
    permutable_residuals,
    permuted_bytes,
    permuted_largest,
    permuted_rows,
)
from brainlocus.core import Grid, SchemaError
from brainlocus.numerics import family_wise_p, permute_people
from brainlocus.numerics.permutation import BlockMode
from brainlocus.pipeline.step import Context

__all__ = ["FamilyWise", "Permutations", "permutations_bytes", "permute_targets"]

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


@dataclass(frozen=True, slots=True, eq=False)
class FamilyWise:
    """What permutations say about one target."""

    neg_log10_p: Float32[np.ndarray, " voxels"]
    """Of the largest |t|; NaN where somebody of the target lacks the voxel."""
    tfce: Float32[np.ndarray, " voxels"] | None
    neg_log10_p_tfce: Float32[np.ndarray, " voxels"] | None
    max_abs_t: Float64[np.ndarray, " permutations"]
    max_tfce: Float64[np.ndarray, " permutations"]
    n_permuted: int
    """Voxels that were permuted."""


def _targets_at_once(group: TargetGroup, n_voxels: int, *, tfce: bool) -> int:
    most = max(_MAP_CELLS // max(n_voxels, 1), 1) if tfce else _TARGETS
    return min(group.members.size, _TARGETS, most)


def _permutations_at_once(group: TargetGroup, n_voxels: int, *, tfce: bool) -> int:
    """Return how many permutations are made at once, fewer with TFCE, which holds their maps."""
    most = max(_MAP_CELLS // (group.members.size * max(n_voxels, 1)), 1) if tfce else _DRAWN
    return min(permuted_rows(group), _DRAWN, most)


def permutations_bytes(groups: tuple[TargetGroup, ...], n_voxels: int, *, tfce: bool) -> int:
    """Return the memory of `permute_targets`."""
    most = 0
    for group in groups:
        some = narrow_group(group, slice(0, _targets_at_once(group, n_voxels, tfce=tfce)))
        needed = permuted_bytes(some, 0, min(_BLOCK, n_voxels), tfce=tfce)
        if tfce:
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
    neighbours = face_neighbours(inside.reshape(where[0].shape)) if plan.tfce else None
    blocks = None if plan.blocks is None else plan.blocks[group.rows]
    size = _targets_at_once(group, places.size, tfce=plan.tfce)
    for first in range(0, group.members.size, size):
        some = narrow_group(group, slice(first, first + size))
        largest, enhanced = np.empty((2, plan.count, some.members.size))
        step = _permutations_at_once(some, places.size, tfce=plan.tfce)
        starts = range(0, plan.count, _DRAWN)
        for start in context.progress.track(starts, "Permuting", len(starts)):
            rng = context.rng(1, number, start // _DRAWN)
            try:
                order = permute_people(rng, group.n, _DRAWN, blocks=blocks, mode=plan.mode)
            except ValueError as error:
                raise SchemaError(f"--blocks: {error}") from error
            for at in range(start, min(start + _DRAWN, plan.count), step):
                rows = slice(at, min(at + step, start + _DRAWN, plan.count))
                largest[rows], enhanced[rows] = permuted_largest(
                    some, _ranges(kept, places.size), order[rows.start - start : rows.stop - start],
                    neighbours=neighbours,
                )  # fmt: skip
        for k, target in enumerate(some.members):
            observed = np.array(t[target][places], dtype=np.float64)
            fit = context.rng(2, int(target)) if plan.tail else None
            found = _spread(-np.log10(family_wise_p(np.abs(observed), largest[:, k], rng=fit)), places, usable.size)
            tfce = tfce_p = None
            if neighbours is not None:
                raised = enhance_clusters(observed, neighbours)
                tfce = _spread(raised, places, usable.size)
                p = family_wise_p(np.abs(raised), enhanced[:, k], rng=fit)
                tfce_p = _spread(-np.log10(p), places, usable.size)
            yield int(target), FamilyWise(found, tfce, tfce_p, largest[:, k], enhanced[:, k], int(places.size))
    path.unlink()


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
