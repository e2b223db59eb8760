"""Linear association scan: one quantitative-trait regression per variant and trait.

Data flow::

    traits, covariates --prepare_linear--> LinearDesign       (once per cohort)
    LinearDesign + dosage block --scan_linear--> LinearScan   (once per block)

Method: Frisch-Waugh-Lovell. Intercept and covariates are projected out of the traits; with ``Q`` their
orthonormal basis and ``y~`` the residual, for every variant ``g``::

    S = g'y~      b = Q'g      V = g'g - b'b      r = S / sqrt(V y~'y~)
    df = n - rank(Q) - 1       t = r sqrt(df / (1 - r^2))      beta = S / V

so a block costs one matrix product with ``[Y~ | Q]`` and no per-variant solve. Traits with the same missing
people share a ``Q``; every other group of traits adds its own columns, zero outside its people, so that a
trait's result never depends on which others are in the run. Rows with ``|t| > 4``, a hit, or a nearly
collinear dosage are computed again in float64.

Missing calls: ``mean`` sets them to the mean of the group's observed calls; ``exact`` takes their people out
of the sums ``Q'Q``, ``Q'y``, ``y'y`` (complete-case regression, as PLINK); ``auto`` is ``mean`` from a call
rate of 97 % and ``exact`` below.

References
----------
Frisch & Waugh (1933), Econometrica 1:387; Lovell (1963), JASA 58:993; Chang et al. (2015),
10.1186/s13742-015-0047-8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Shaped

from brainlocus.core.errors import AlignmentError
from brainlocus.genetics.gwas import _kernels
from brainlocus.numerics.missingness import refuse_infinite, same_people
from brainlocus.numerics.projection import covariate_basis, project_out
from brainlocus.numerics.tails import neg_log10_p_from_t

__all__ = [
    "STATUS",
    "LinearDesign",
    "LinearScan",
    "Missing",
    "TraitGroup",
    "peak_bytes",
    "prepare_linear",
    "scan_linear",
]

Missing = Literal["auto", "mean", "exact"]

STATUS = ("ok", "no_calls", "constant", "rare", "collinear", "too_few_people")
"""Why a variant has no estimate, by code."""

MIN_MEAN_CALL_RATE = 0.97
"""From this call rate on, ``auto`` imputes the mean: t moves by order sqrt(missing share) at most."""
MIN_RESIDUAL_SHARE = 1e-8
"""Share of a dosage's variance that the covariates must leave (methods: V <= 1e-8 of the centred sum of squares)."""
_MIN_TRAIT_SHARE = 1e-12
"""Share of a trait's variance that the covariates must leave; below, float64 has no digits of it left."""
_UNSTABLE_SHARE = 0.02
"""Below this share of the sum of squares float32 differences lose two digits (an almost constant dosage, or one that
the covariates all but predict), so the row is computed again in float64."""
_CLOSE_TO_ONE = 1e-12
"""1 - r^2 below which the residual sum of squares is summed up explicitly (methods: 1 - r^2 < 1e-12)."""


@dataclass(frozen=True, slots=True, eq=False)
class TraitGroup:
    """Traits observed in exactly the same people."""

    columns: slice
    """Its traits in `LinearDesign.names` order."""
    basis: slice
    """Its orthonormal covariate columns in `LinearDesign.right`."""
    rank: int
    n: int
    """People observed."""
    dropped: tuple[str, ...]
    """Covariates that are constant or combinations of others among these people."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearDesign:
    """Traits and covariates reduced once and reused for every block."""

    names: tuple[str, ...]
    """Traits that can be analysed, grouped by missingness."""
    groups: tuple[TraitGroup, ...]
    right: Float[np.ndarray, "samples columns"]
    """``[unit-norm residual traits | a basis per group | a 0/1 column of observed people per group]``."""
    norm: Float[np.ndarray, " traits"]
    """Length of each residual trait before it was scaled to one, in trait units."""
    skipped: tuple[tuple[str, str], ...]
    """Traits left out, with the reason: constant, collinear, too_few_people."""

    @property
    def n_samples(self) -> int:
        """People, observed for a trait or not."""
        return int(self.right.shape[0])

    @property
    def complete(self) -> bool:
        """Whether everyone is observed for every trait, so that plain row sums serve."""
        return len(self.groups) == 1 and self.groups[0].n == self.n_samples


@dataclass(frozen=True, slots=True, eq=False)
class LinearScan:
    """Estimates for one block. Rows follow the dosage block, columns `LinearDesign.names` (or its groups)."""

    score: Float[np.ndarray, "variants traits"]
    """Covariance sum of effect-allele dosage and trait residual, in trait units; NaN where there is no estimate."""
    t: Float[np.ndarray, "variants traits"]
    residual_variance: Float[np.ndarray, "variants groups"]
    """V: sum of squares of the dosage after projection."""
    degrees_of_freedom: Float[np.ndarray, "variants groups"]
    n: Int[np.ndarray, "variants groups"]
    """Non-missing calls among the group's people."""
    effect_allele_frequency: Float[np.ndarray, "variants groups"]
    status: Int8[np.ndarray, "variants groups"]
    """Index into `STATUS`."""
    unstable: Bool[np.ndarray, " variants"]
    """Rows that float32 cannot settle."""
    norm: Float[np.ndarray, "variants traits"] | Float[np.ndarray, " traits"]
    """Length of the residual trait behind each test."""
    group_of: Int[np.ndarray, " traits"]

    @property
    def beta(self) -> Float[np.ndarray, "variants traits"]:
        """Trait units per copy of the effect allele; NaN where the variant is not estimable."""
        return np.asarray(self.score / self.residual_variance[:, self.group_of])

    @property
    def standard_error(self) -> Float[np.ndarray, "variants traits"]:
        """``sqrt(W (1 - r^2) / (df V))``, which is beta / t wherever t is not 0."""
        df = self.degrees_of_freedom[:, self.group_of]
        return np.asarray(self.norm / np.sqrt((df + self.t**2) * self.residual_variance[:, self.group_of]))

    @property
    def neg_log10_p(self) -> Float[np.ndarray, "variants traits"]:
        """-log10 of the two-sided p-value."""
        return neg_log10_p_from_t(self.t.astype(np.float64), self.degrees_of_freedom[:, self.group_of])


def peak_bytes(design: LinearDesign, block_size: int) -> int:
    """Return an upper estimate of the bytes that `scan_linear` holds for a block, the block itself included."""
    n, k, q = design.n_samples, int(design.right.shape[1]), len(design.names)
    squares = 0 if design.complete else 1
    return block_size * (4 * n * (2 + squares) + 8 * k * 2 + 8 * q * 4) + n * k * 12


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
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    residuals, bases, masks, norms = [], [], [], []
    groups: list[tuple[int, int, tuple[str, ...]]] = []
    for mask, members in same_people(~np.isnan(traits)):
        basis = covariate_basis(covariates[mask], covariate_names) if mask.any() else None
        too_few = basis is None or mask.sum() - basis.rank - 1 <= 0
        if basis is None or too_few:
            skipped += [(labels[k], "too_few_people") for k in members]
            continue
        good, unit, norm = _reduce(traits[np.ix_(mask, members)], basis.q, [labels[k] for k in members], skipped)
        if not good.any():
            continue
        kept += members[good].tolist()
        residuals.append(_embed(unit, mask))
        bases.append(_embed(basis.q, mask))
        masks.append(mask.astype(np.float64)[:, None])
        norms.append(norm)
        groups.append((int(good.sum()), basis.rank, basis.dropped))
    if not groups:
        raise ValueError(
            f"No trait can be analysed: {dict(skipped)}. Traits must vary among the people with covariates."
        )
    right = np.hstack([*residuals, *bases, *masks])
    order = [labels[k] for k in kept]
    return LinearDesign(tuple(order), _layout(groups, masks), right, np.concatenate(norms), tuple(skipped))


def scan_linear(
    design: LinearDesign,
    dosage: Float[np.ndarray, "variants samples"],
    *,
    missing: Missing = "auto",
    min_mac: float = 20.0,
    precision: Literal["single", "double"] = "single",
) -> LinearScan:
    """Regress every trait on every variant of a block.

    Parameters
    ----------
    dosage
        Copies of the effect allele in [0, 2]; NaN marks a missing call. Samples in the order of `design`.
    missing
        What is done with missing calls; see the module.
    min_mac
        Variants with fewer copies of their rarer allele among a group's people have no estimate (status rare).
    precision
        ``single``: float32 products, |dt| below 2e-4. ``double``: float64 throughout.

    Raises
    ------
    AlignmentError
        The block and the design have different numbers of samples.

    References
    ----------
    Frisch & Waugh (1933), Econometrica 1:387; Lovell (1963), JASA 58:993.
    """
    if dosage.shape[1] != design.n_samples:
        raise AlignmentError(f"The block has {dosage.shape[1]} samples, the design {design.n_samples}; select first.")
    dtype = np.float32 if precision == "single" else np.float64
    block = _kernels.minor_counts(dosage.astype(dtype, copy=False))
    right = design.right if dtype is np.float64 else design.right.astype(dtype)
    product = np.asarray(block.counts @ right, dtype=np.float64)
    squares = _sums_of_squares(design, block)
    sums = _corrected(design, block, product, squares, missing)
    return _statistics(design, block, dosage, sums, min_mac=min_mac, double=dtype is np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Sufficient statistics after missing calls were dealt with, counted in the minor allele."""

    score: Float[np.ndarray, "variants traits"]
    v: Float[np.ndarray, "variants groups"]
    w: Float[np.ndarray, "variants traits"] | None
    """Squared length of the residual trait where `exact`; None when 1 throughout."""
    rank: Float[np.ndarray, "variants groups"]
    n: Float[np.ndarray, "variants groups"]
    total: Float[np.ndarray, "variants groups"]
    centred: Float[np.ndarray, "variants groups"]
    """Sum of squares about the mean."""
    exact: Bool[np.ndarray, "variants groups"]


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


def _layout(
    groups: list[tuple[int, int, tuple[str, ...]]], masks: list[Float[np.ndarray, "samples 1"]]
) -> tuple[TraitGroup, ...]:
    """Return where each group's columns lie in `LinearDesign.right`."""
    column, basis = 0, sum(size for size, _, _ in groups)
    placed: list[TraitGroup] = []
    for (size, rank, dropped), mask in zip(groups, masks, strict=True):
        placed.append(
            TraitGroup(slice(column, column + size), slice(basis, basis + rank), rank, int(mask.sum()), dropped)
        )
        column, basis = column + size, basis + rank
    return tuple(placed)


def _sums_of_squares(design: LinearDesign, block: "_kernels.MinorCounts") -> Float[np.ndarray, "variants groups"]:
    """Return the sum of squared counts over each group's people; hard calls give exact integers."""
    if design.complete:
        return block.squares[:, None].copy()
    observed = design.right[:, -len(design.groups) :].astype(block.counts.dtype)
    return np.asarray((block.counts * block.counts) @ observed, dtype=np.float64)


def _corrected(
    design: LinearDesign,
    block: "_kernels.MinorCounts",
    product: Float[np.ndarray, "variants columns"],
    squares: Float[np.ndarray, "variants groups"],
    missing: Missing,
) -> _Sums:
    """Turn raw sums (missing calls counted as 0) into those of the chosen rule."""
    n_variants, n_traits, n_groups = product.shape[0], len(design.names), len(design.groups)
    n = np.tile([float(g.n) for g in design.groups], (n_variants, 1))
    rank = np.tile([float(g.rank) for g in design.groups], (n_variants, 1))
    total = block.total[:, None].copy() if design.complete else product[:, -n_groups:].copy()
    score = product[:, :n_traits]
    v, exact = np.empty((n_variants, n_groups)), np.zeros((n_variants, n_groups), dtype=bool)
    centred = np.empty((n_variants, n_groups))
    w: Float[np.ndarray, "variants traits"] | None = None
    rows = np.flatnonzero(np.diff(block.missing_start) > 0)
    absent = _kernels.sum_missing(rows, block.missing_start, block.missing_people, design.right)
    for g, group in enumerate(design.groups):
        basis = product[:, group.basis]
        n_absent = absent[:, design.right.shape[1] - n_groups + g]
        n[rows, g] -= n_absent
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(n[:, g] > 0, total[:, g] / n[:, g], 0.0)
        centred[:, g] = squares[:, g] - n[:, g] * mean**2
        use_exact = (missing == "exact") | ((missing == "auto") & (n[rows, g] < MIN_MEAN_CALL_RATE * group.n))
        imputed = (n_absent > 0) & ~use_exact
        taken_out = (n_absent > 0) & use_exact
        at = rows[imputed]
        score[at, group.columns] += mean[at, None] * absent[imputed, group.columns]
        basis[at] += mean[at, None] * absent[imputed, group.basis]
        v[:, g] = squares[:, g] - (basis**2).sum(axis=1)
        v[at, g] += mean[at] ** 2 * n_absent[imputed]
        if taken_out.any():
            w = np.ones((n_variants, n_traits)) if w is None else w
            at = rows[taken_out]
            exact[at, g] = True
            result = _kernels.take_out_missing(
                at,
                block.missing_start,
                block.missing_people,
                np.ascontiguousarray(design.right[:, group.basis]),
                np.ascontiguousarray(design.right[:, group.columns]),
                design.right[:, design.right.shape[1] - n_groups + g].copy(),
                np.ascontiguousarray(basis[at]),
                np.ascontiguousarray(score[at, group.columns]),
                squares[at, g].copy(),
            )
            score[at, group.columns], v[at, g], w[at, group.columns], rank[at, g] = result
    return _Sums(score, v, w, rank, n, total, centred, exact)


def _statistics(
    design: LinearDesign,
    block: "_kernels.MinorCounts",
    dosage: Float[np.ndarray, "variants samples"],
    sums: _Sums,
    *,
    min_mac: float,
    double: bool,
) -> LinearScan:
    df = sums.n - sums.rank - 1.0
    status = _status(sums, df, min_mac)
    group_of = np.concatenate([np.full(g.columns.stop - g.columns.start, k) for k, g in enumerate(design.groups)])
    v = np.where(status == 0, sums.v, np.nan)
    t = np.empty(sums.score.shape, dtype=np.float64 if double else np.float32)
    w = sums.w if sums.w is not None else np.ones((1, len(design.names)))
    _kernels.t_statistics(sums.score, v, df, w, group_of, block.sign, t)
    frequency = np.where(sums.n > 0, sums.total / np.maximum(2.0 * sums.n, 1.0), np.nan)
    flipped = block.sign < 0
    frequency[flipped] = 1.0 - frequency[flipped]
    if double:
        _explicit_residuals(design, dosage, sums, v, df, group_of, t)
    unstable = (
        (sums.centred < _UNSTABLE_SHARE * np.maximum(sums.total, 0.0)) | (sums.v < _UNSTABLE_SHARE * sums.centred)
    ) & ((status == 0) | (status == STATUS.index("constant")) | (status == STATUS.index("collinear")))
    norm = design.norm if sums.w is None else design.norm * np.sqrt(np.maximum(sums.w, 0.0))
    return LinearScan(
        score=block.sign[:, None] * design.norm * sums.score * np.where(np.isnan(v), np.nan, 1.0)[:, group_of],
        t=t,
        residual_variance=v,
        degrees_of_freedom=df,
        n=np.rint(sums.n).astype(np.int64),
        effect_allele_frequency=frequency,
        status=status,
        unstable=unstable.any(axis=1),
        norm=norm,
        group_of=group_of,
    )


def _status(
    sums: _Sums, df: Float[np.ndarray, "variants groups"], min_mac: float
) -> Int8[np.ndarray, "variants groups"]:
    """Return the first reason that applies, in the order of `STATUS`."""
    copies = np.minimum(sums.total, 2.0 * sums.n - sums.total)
    scale = np.maximum(sums.total, np.finfo(float).tiny)
    rules: list[Shaped[np.ndarray, "variants groups"]] = [
        sums.n <= 0,
        sums.centred <= 1e-9 * scale,
        copies < min_mac - 1e-6,
        sums.v <= MIN_RESIDUAL_SHARE * sums.centred,
        df <= 0,
    ]
    return np.select(rules, list(range(1, len(STATUS))), default=0).astype(np.int8)


def _explicit_residuals(
    design: LinearDesign,
    dosage: Float[np.ndarray, "variants samples"],
    sums: _Sums,
    v: Float[np.ndarray, "variants groups"],
    df: Float[np.ndarray, "variants groups"],
    group_of: Int[np.ndarray, " traits"],
    t: Float[np.ndarray, "variants traits"],
) -> None:
    """Recompute t from an explicit residual sum of squares where 1 - r^2 has no digits left."""
    share = 1.0 - df[:, group_of] / (df[:, group_of] + t**2)
    for j, k in np.argwhere(1.0 - share < _CLOSE_TO_ONE):
        g = int(group_of[k])
        people = design.right[:, design.right.shape[1] - len(design.groups) + g] > 0
        calls = dosage[j].astype(np.float64)
        if sums.exact[j, g]:
            people &= ~np.isnan(calls)
        calls = np.where(np.isnan(calls), np.nanmean(calls[people]), calls)[people]
        q, y = design.right[people][:, design.groups[g].basis], design.right[people, k]
        if sums.exact[j, g]:
            q, _ = np.linalg.qr(q)
            y = project_out(q, y[:, None])[:, 0]
        residual_dosage = project_out(q, calls[:, None])[:, 0]
        slope = float(residual_dosage @ y) / float(residual_dosage @ residual_dosage)
        rss = float(((y - slope * residual_dosage) ** 2).sum())
        with np.errstate(divide="ignore"):
            t[j, k] = slope / np.sqrt(np.float64(rss) / (df[j, g] * v[j, g]))
