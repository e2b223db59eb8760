"""Linear association scan: one quantitative-trait regression per variant and trait.

Data flow::

    traits, covariates --prepare_linear--> LinearDesign             (once per cohort)
    LinearDesign + dosage block --linear_scan.scan_linear--> LinearScan   (once per block)

Method: Frisch-Waugh-Lovell. Intercept and covariates are projected out of the traits; with ``Q`` their
orthonormal basis and ``y~`` the residual, for every variant ``g``::

    S = g'y~      b = Q'g      V = g'g - b'b      r = S / sqrt(V y~'y~)
    df = n - rank(Q) - 1       t = r sqrt(df / (1 - r^2))      beta = S / V

so a block costs one matrix product with ``[Y~ | Q]`` and no per-variant solve. Traits with the same people form a
group. A group without the people A has the basis ``Q_k = Q T_k`` within its people, so that its ``b`` follows from
the common product and the absent people alone, at their share of the cost (methods/gwas.md 2.3)::

    b_k = T_k' (Q'g - sum_A q_i g_i)

and a trait's result never depends on which others are in the run.

References
----------
Frisch & Waugh (1933), Econometrica 1:387; Lovell (1963), JASA 58:993; Chang et al. (2015),
10.1186/s13742-015-0047-8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from brainlocus.numerics.missingness import refuse_infinite, same_people
from brainlocus.numerics.projection import covariate_basis, project_out

__all__ = ["STATUS", "LinearDesign", "TraitGroup", "prepare_linear"]

STATUS = ("ok", "no_calls", "constant", "rare", "collinear", "too_few_people", "not_converged")
"""Why a variant has no estimate, by code."""

_MIN_TRAIT_SHARE = 1e-12
"""Share of a trait's variance that the covariates must leave; below, float64 has no digits of it left."""
_TRANSFORM_TOLERANCE = 1e-10
"""Largest error of ``Q T_k`` against the group's own basis; beyond it the group keeps columns of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class TraitGroup:
    """Traits observed in exactly the same people."""

    columns: slice
    """Its traits in `LinearDesign.names` order."""
    basis: slice
    """Columns of `LinearDesign.right` that its covariates are made of."""
    transform: Float[np.ndarray, "basis_columns rank"] | None
    """T: ``right[:, basis] @ transform`` is orthonormal among the group's people. None: the columns are so already,
    and zero outside."""
    rank: int
    n: int
    """People observed."""
    people: Int[np.ndarray, " listed"]
    """The people absent from the group where there is a `transform`, else the people in it; empty when complete."""
    dropped: tuple[str, ...]
    """Covariates that are constant or combinations of others among these people."""

    @property
    def complete(self) -> bool:
        """Whether nobody is absent."""
        return self.transform is None and not self.people.size


@dataclass(frozen=True, slots=True, eq=False)
class LinearDesign:
    """Traits and covariates reduced once and reused for every block."""

    names: tuple[str, ...]
    """Traits that can be analysed, grouped by missingness."""
    groups: tuple[TraitGroup, ...]
    right: Float[np.ndarray, "samples columns"]
    """``[unit-norm residual traits, zero where missing | common basis | bases of groups that need their own]``, each
    column contiguous."""
    single: Float32[np.ndarray, "samples columns"]
    """The same in float32 and row by row, as the matrix product wants it."""
    norm: Float[np.ndarray, " traits"]
    """Length of each residual trait before it was scaled to one, in trait units."""
    skipped: tuple[tuple[str, str], ...]
    """Traits left out, with the reason: constant, collinear, too_few_people."""

    @property
    def n_samples(self) -> int:
        """People, observed for a trait or not."""
        return int(self.right.shape[0])

    @property
    def n_observed(self) -> Int[np.ndarray, " traits"]:
        """People with a value, per trait."""
        sizes: Int[np.ndarray, " groups"] = np.array([g.n for g in self.groups], dtype=np.int64)
        return np.asarray(sizes[self.group_of])

    @property
    def group_of(self) -> Int[np.ndarray, " traits"]:
        """Group of each trait."""
        sizes = [g.columns.stop - g.columns.start for g in self.groups]
        return np.repeat(np.arange(len(self.groups)), sizes)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Covariates that some group could not use."""
        return tuple(sorted({name for group in self.groups for name in group.dropped}))

    @property
    def complete(self) -> bool:
        """Whether everyone is observed for every trait."""
        return all(group.complete for group in self.groups)


def prepare_linear(
    traits: Float[np.ndarray, "samples traits"],
    covariates: Float[np.ndarray, "samples covariates"],
    *,
    names: Sequence[str] | None = None,
    covariate_names: Sequence[str] | None = None,
) -> LinearDesign:
    """Reduce traits and covariates to the design that every block shares.

    Parameters
    ----------
    traits
        Quantitative traits; NaN where a person has none.
    covariates
        Complete and without an intercept, which is added here. Constant or collinear ones are dropped and
        named in `TraitGroup.dropped`.

    Raises
    ------
    ValueError
        An infinite trait value, an incomplete covariate (named), more covariates than people, or no trait
        that can be analysed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> design = prepare_linear(rng.normal(size=(50, 2)), rng.normal(size=(50, 1)), names=["a", "b"])
    >>> design.names, design.groups[0].rank
    (('a', 'b'), 2)
    """
    n_samples, n_traits = traits.shape
    labels = [str(name) for name in names] if names is not None else [f"trait_{k + 1}" for k in range(n_traits)]
    refuse_infinite(traits, labels)
    if covariates.shape[1] >= n_samples:
        raise ValueError(f"There are {covariates.shape[1]} covariates for {n_samples} people; use fewer covariates.")
    common = covariate_basis(covariates, covariate_names)
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    residuals: list[Float[np.ndarray, "samples _columns"]] = []
    norms: list[Float[np.ndarray, " _columns"]] = []
    parts: list[_Part] = []
    for mask, members in same_people(~np.isnan(traits)):
        everyone = bool(mask.all())
        basis = common if everyone else covariate_basis(covariates[mask], covariate_names) if mask.any() else None
        if basis is None or mask.sum() - basis.rank - 1 <= 0:
            skipped += [(labels[k], "too_few_people") for k in members]
            continue
        good, unit, norm = _reduce(traits[np.ix_(mask, members)], basis.q, [labels[k] for k in members], skipped)
        if not good.any():
            continue
        kept += members[good].tolist()
        residuals.append(_embed(unit, mask))
        norms.append(norm)
        parts.append(_part(common.q, basis.q, mask, int(good.sum()), basis.dropped))
    if not parts:
        why = ", ".join(f"{name} ({reason})" for name, reason in skipped[:5])
        raise ValueError(f"No trait can be analysed: {why}. Traits must vary among the people with covariates.")
    own = [part.own for part in parts if part.own is not None]
    right = np.asfortranarray(np.hstack([*residuals, common.q, *own]))
    return LinearDesign(
        names=tuple(labels[k] for k in kept),
        groups=_layout(parts, common.q.shape[1]),
        right=right,
        single=np.ascontiguousarray(right, dtype=np.float32),
        norm=np.concatenate(norms),
        skipped=tuple(skipped),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A group before its place among the columns is known."""

    size: int
    transform: Float[np.ndarray, "basis_columns rank"] | None
    own: Float[np.ndarray, "samples rank"] | None
    rank: int
    n: int
    people: Int[np.ndarray, " listed"]
    dropped: tuple[str, ...]


def _part(
    common: Float[np.ndarray, "samples basis_columns"],
    q: Float[np.ndarray, "observed rank"],
    mask: Bool[np.ndarray, " samples"],
    size: int,
    dropped: tuple[str, ...],
) -> _Part:
    """Choose how a group's covariates are had: from the common product, or from columns of its own."""
    n, rank = int(mask.sum()), int(q.shape[1])
    if n == mask.size:
        return _Part(size, None, None, rank, n, np.empty(0, dtype=np.int64), dropped)
    if 2 * n >= mask.size:
        inside = common[mask]
        transform = np.linalg.lstsq(inside, q, rcond=None)[0]
        if np.abs(inside @ transform - q).max() <= _TRANSFORM_TOLERANCE:
            return _Part(size, transform, None, rank, n, np.flatnonzero(~mask), dropped)
    return _Part(size, None, _embed(q, mask), rank, n, np.flatnonzero(mask), dropped)


def _layout(parts: list[_Part], common_columns: int) -> tuple[TraitGroup, ...]:
    """Return where each group's columns lie in `LinearDesign.right`."""
    n_traits = sum(part.size for part in parts)
    column, own = 0, n_traits + common_columns
    common = slice(n_traits, own)
    placed: list[TraitGroup] = []
    for part in parts:
        basis = common
        if part.own is not None:
            basis = slice(own, own + part.rank)
            own += part.rank
        columns = slice(column, column + part.size)
        placed.append(TraitGroup(columns, basis, part.transform, part.rank, part.n, part.people, part.dropped))
        column += part.size
    return tuple(placed)


def _reduce(
    values: Float[np.ndarray, "observed traits"],
    q: Float[np.ndarray, "observed rank"],
    labels: list[str],
    skipped: list[tuple[str, str]],
) -> tuple[Bool[np.ndarray, " traits"], Float[np.ndarray, "observed kept"], Float[np.ndarray, " kept"]]:
    """Return which traits vary given the covariates, their unit-norm residuals and the lengths of these."""
    centred = values - values.mean(axis=0)
    total = (centred**2).sum(axis=0)
    residual = project_out(q, centred)
    left = (residual**2).sum(axis=0)
    magnitude = np.maximum((values**2).sum(axis=0), np.finfo(float).tiny)
    constant = total <= _MIN_TRAIT_SHARE**2 * magnitude
    collinear = ~constant & (left <= _MIN_TRAIT_SHARE * total)
    for label, is_constant, is_collinear in zip(labels, constant, collinear, strict=True):
        if is_constant or is_collinear:
            skipped.append((label, "constant" if is_constant else "collinear"))
    good = ~(constant | collinear)
    norm = np.sqrt(left[good])
    return good, residual[:, good] / norm, norm


def _embed(
    values: Float[np.ndarray, "observed columns"], mask: Bool[np.ndarray, " samples"]
) -> Float[np.ndarray, "samples columns"]:
    """Return the rows at their places among all samples, zero elsewhere."""
    full = np.zeros((mask.size, values.shape[1]))
    full[mask] = values
    return full
