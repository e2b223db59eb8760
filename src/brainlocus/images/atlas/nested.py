r"""A finer atlas by splitting the components of a coarser one: nested by construction.

Every component is split in two by EM on its own voxels until twice as many would be too many; what is then missing to
the number asked for comes from the components whose split lowers the loss most.

Soft atlases are nested in the same way. Data flow::

    labels and W of the coarse scale --own_weights, hard_atlas--> AtlasFit --split_atlas--> SplitAtlas
    SplitAtlas --soften_inside, zeros outside the parent--> W --any multiplicative solver--> SoftFit

A multiplicative update keeps zeros, so every column stays inside the voxels of its parent and the hard labels of the
finer scale, too, are nested exactly; inside the parent the weights are optimised softly. Columns of different parents
share no voxel. Multiply the columns of one parent by c: the ratio ``N / (W A)`` is divided by ``c^2``, so that an
iteration with exponent e leaves ``c^(1 - 2 e)``. With e = 1 the scales of the parents go up and down for ever, with
e = 1/2 they are right after one iteration: nested updates take 1/2.

References
----------
Pompili et al. (2014), Neurocomputing 141:15; methods/structural.md 1.5 e.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from brainlocus.images.atlas.blocks import take_voxels
from brainlocus.images.atlas.em import AtlasFit, fit_em
from brainlocus.images.atlas.fit_step import FitStep, Report, unheard
from brainlocus.images.atlas.starts import FILL_SHARE
from brainlocus.numerics.memory_maps import give_back_pages

__all__ = ["NESTED_EXPONENT", "SplitAtlas", "hard_atlas", "own_weights", "parents_of", "soften_inside", "split_atlas"]

RESTARTS = 3
NESTED_EXPONENT = 0.5
"""Largest power of the ratio in multiplicative updates inside parents."""


@dataclass(frozen=True, slots=True, eq=False)
class SplitAtlas:
    """A finer atlas and where its components come from."""

    fit: AtlasFit
    parents: Int[np.ndarray, " components"]
    """Component of the coarser atlas that each lies in; 0 for those without a voxel."""


def own_weights(
    labels: Int[np.ndarray, " voxels"], weights: Float[np.ndarray, "voxels components"]
) -> Float64[np.ndarray, " voxels"]:
    """Return each voxel's weight in the component that it belongs to; 0 where it belongs to none."""
    own = np.take_along_axis(weights, np.maximum(labels, 1)[:, None].astype(np.int64) - 1, axis=1)[:, 0]
    return np.where(labels > 0, own, 0.0).astype(np.float64)


def hard_atlas(
    images: Float32[np.ndarray, "voxels samples"],
    labels: Int[np.ndarray, " voxels"],
    weights: Float64[np.ndarray, " voxels"],
    *,
    n_components: int,
    total: float,
    n_empty_voxels: int = 0,
    converged: bool = True,
) -> AtlasFit:
    """Return the hard atlas of given labels and own weights, from which a soft fit is split; columns get unit norm.

    Parameters
    ----------
    labels
        0 for none, else 1 to `n_components`; the numbers stay as they are.
    total
        ``||X||_F^2``.
    converged
        Of the fit that the labels come from.
    """
    own, inside = np.maximum(labels, 1).astype(np.int64) - 1, labels > 0
    lengths = np.sqrt(np.bincount(own, weights=np.where(inside, weights**2, 0.0), minlength=n_components))
    unit = np.where(inside, weights / np.where(lengths > 0, lengths, 1.0)[own], 0.0)
    loadings = np.zeros((n_components, images.shape[1]))
    for k in range(n_components):
        rows = np.flatnonzero(labels == k + 1)
        # einsum widens to float64 piece by piece; a product would widen all rows at once.
        loadings[k] = np.einsum("j,ji->i", unit[rows], images[rows])
        give_back_pages(images)
    counts = np.bincount(labels[inside], minlength=n_components + 1)[1:]
    return AtlasFit(
        labels=labels.astype(np.int32),
        weights=unit,
        loadings=loadings,
        losses=np.array([total - float((loadings**2).sum())]),
        total=total,
        reason="tol" if converged else "max_iter",
        vanished=tuple(int(k) + 1 for k in np.flatnonzero(counts == 0)),
        n_empty_voxels=n_empty_voxels,
    )


def soften_inside(
    split: SplitAtlas, coarse: Int[np.ndarray, " voxels"], dtype: type[np.floating]
) -> Float[np.ndarray, "voxels components"]:
    """Return W of a split with 1e-3 of the column's largest entry in place of its zeros inside the parent's voxels.

    Parameters
    ----------
    coarse
        Labels of the atlas that was split. Outside its parent a column stays 0, whatever multiplies it.
    """
    weights = split.fit.components().astype(dtype)
    for k, parent in enumerate(split.parents):
        if parent:
            rows = np.flatnonzero(coarse == parent)
            weights[rows, k] = np.maximum(weights[rows, k], FILL_SHARE * weights[rows, k].max())
    return weights


def parents_of(
    labels: Int[np.ndarray, " voxels"], coarse: Int[np.ndarray, " voxels"], n_components: int
) -> Int[np.ndarray, " components"]:
    """Return the coarse component around each component of nested labels; 0 for those without a voxel."""
    parents = np.zeros(n_components, dtype=np.int64)
    inside = np.flatnonzero(labels > 0)
    parents[labels[inside] - 1] = coarse[inside]
    return parents


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    rows: Int[np.ndarray, " voxels"]
    weights: Float64[np.ndarray, " voxels"]
    loading: Float64[np.ndarray, " samples"]
    parent: int

    @property
    def energy(self) -> float:
        return float((self.loading**2).sum())


def split_atlas(
    images: Float32[np.ndarray, "voxels samples"],
    coarse: AtlasFit,
    n_components: int,
    *,
    generator: np.random.Generator,
    progress: Report = unheard,
) -> SplitAtlas:
    """Return an atlas of more components, each inside one of `coarse`.

    Parameters
    ----------
    images
        As they were given to the fit of `coarse`; may be a memory map. One component's voxels at a time are copied.
    n_components
        More than `coarse` has. Where its components have too few voxels or directions, some vanish.
    generator
        Random numbers of the seedings.
    progress
        Called with every component that is split.

    Raises
    ------
    ValueError
        Not more components than before.
    """
    if n_components <= coarse.n_components:
        raise ValueError(
            f"n_components must be above the {coarse.n_components} of the coarser atlas, got {n_components}."
        )
    parts = [_part(coarse, k) for k in range(1, coarse.n_components + 1) if k not in coarse.vanished]
    while 2 * len(parts) <= n_components:
        halves = [_split(images, part, generator) or (part,) for part in _told(parts, progress)]
        if all(len(half) == 1 for half in halves):
            break
        parts = [part for half in halves for part in half]
    open_parts = (
        {i: _split(images, part, generator) for i, part in enumerate(_told(parts, progress))}
        if len(parts) < n_components
        else {}
    )
    while len(parts) < n_components:
        gains = {i: _gain(parts[i], halves) for i, halves in open_parts.items() if halves is not None}
        if not gains:
            break
        progress(FitStep("splitting the largest gains, component", len(parts) + 1, n_components))
        best = max(gains, key=lambda i: (gains[i], -i))
        first, second = open_parts.pop(best) or ()
        parts[best] = first
        parts.append(second)
        if len(parts) < n_components:
            open_parts[best] = _split(images, first, generator)
            open_parts[len(parts) - 1] = _split(images, second, generator)
    return _assemble(coarse, parts, n_components)


def _told(parts: list[_Part], progress: Report) -> Iterator[_Part]:
    """Yield the parts and say which is split."""
    for number, part in enumerate(parts, start=1):
        progress(FitStep(f"splitting component {number} of {len(parts)}"))
        yield part


def _part(fit: AtlasFit, component: int) -> _Part:
    rows = np.flatnonzero(fit.labels == component)
    return _Part(rows, fit.weights[rows], fit.loadings[component - 1], component)


def _split(
    images: Float32[np.ndarray, "voxels samples"], part: _Part, generator: np.random.Generator
) -> tuple[_Part, _Part] | None:
    """Return the two halves; None where there are not two voxels that differ in direction."""
    if part.rows.size < 2:
        return None
    fit = fit_em(take_voxels(images, part.rows), 2, generator=generator, restarts=RESTARTS)
    if fit.vanished:
        return None
    halves = []
    for k in (1, 2):
        inside = np.flatnonzero(fit.labels == k)
        halves.append(_Part(part.rows[inside], fit.weights[inside], fit.loadings[k - 1], part.parent))
    return halves[0], halves[1]


def _gain(part: _Part, halves: tuple[_Part, _Part]) -> float:
    """Return the fall of the loss."""
    return halves[0].energy + halves[1].energy - part.energy


def _assemble(coarse: AtlasFit, parts: list[_Part], n_components: int) -> SplitAtlas:
    """Return the parts as one atlas, numbered by energy; its W is orthonormal, so L = ||X||^2 - ||H||^2."""
    parts = sorted(parts, key=lambda p: -p.energy)
    labels, weights = np.zeros_like(coarse.labels), np.zeros_like(coarse.weights)
    loadings = np.zeros((n_components, coarse.loadings.shape[1]))
    for number, part in enumerate(parts, start=1):
        labels[part.rows], weights[part.rows], loadings[number - 1] = number, part.weights, part.loading
    loss = coarse.total - float((loadings**2).sum())
    fit = AtlasFit(
        labels=labels,
        weights=weights,
        loadings=loadings,
        losses=np.array([coarse.losses[-1], loss]),
        total=coarse.total,
        reason=coarse.reason,
        vanished=tuple(range(len(parts) + 1, n_components + 1)),
        n_empty_voxels=coarse.n_empty_voxels,
    )
    parents = np.zeros(n_components, dtype=np.int64)
    parents[: len(parts)] = [part.parent for part in parts]
    return SplitAtlas(fit, parents)
