"""Block by block through a `LinearDesign`: float32 products, float64 where it matters.

Data flow of a block::

    counts @ [Y~ | Q]  --_sums-->  S, V, W, n of every trait or group   (missing calls and people taken care of)
                       --_statistics-->  t of every test
    tests with |t| > 4, possible hits and unstable rows  --_refine-->  the same again in float64

Missing calls: ``mean`` sets them to the mean of the group's observed calls; ``exact`` takes their people out
of the sums ``Q'Q``, ``Q'y``, ``y'y`` (complete-case regression, as PLINK); ``auto`` is ``mean`` from a call
rate of 97 % and ``exact`` below.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Shaped
from scipy.special import stdtrit

from brainlocus.core.errors import AlignmentError
from brainlocus.genetics.gwas import _kernels
from brainlocus.genetics.gwas.calls import calls_of_dosage, counts_of_rows
from brainlocus.genetics.gwas.linear import STATUS, LinearDesign, TraitGroup
from brainlocus.genetics.gwas.method import BlockResult, CallBlock, Missing, OfDesign, ScanSettings, Tallies
from brainlocus.genetics.gwas.products import HostProducts, Products, device_products
from brainlocus.genetics.gwas.tallies import tally_t
from brainlocus.numerics.projection import project_out
from brainlocus.numerics.tails import neg_log10_p_from_t

__all__ = ["LinearMethod", "LinearScan", "scan_linear"]

MIN_MEAN_CALL_RATE = 0.97
"""From this call rate on, ``auto`` imputes the mean: t moves by order sqrt(missing share) at most."""
MIN_RESIDUAL_SHARE = 1e-8
"""Share of a dosage's variance that the covariates must leave (methods: V <= 1e-8 of the centred sum of squares)."""
_UNSTABLE_SHARE = 0.02
"""Below this share of the sum of squares float32 differences lose two digits (an almost constant dosage, or one that
the covariates all but predict), so the row is computed again in float64."""
_CLOSE_TO_ONE = 1e-12
"""1 - r^2 below which the residual sum of squares is summed up explicitly (methods: 1 - r^2 < 1e-12)."""
_LOST_COLUMN = 3e-5
"""Singular value of the orthonormal covariates among the people with a call below which a combination of them is
lost: the square root of the smallest pivot of `_kernels.take_out_missing`."""
_RECOMPUTE_T = 4.0
_CHANCE_BEYOND = 6.4e-5
"""Two-sided normal p of `_RECOMPUTE_T`: the share of null tests computed twice."""
_DENSE_SHARE = 1.0 / 16.0
"""Share of a row's tests to refine from which one matrix product is cheaper than one sum per test."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearScan:
    """Estimates for one block. Rows follow the block, columns `LinearDesign.names` (or its groups)."""

    score: Float[np.ndarray, "variants traits"]
    """Sum of rarer-allele counts times unit-norm residual trait; any number where there is no estimate."""
    t: Float[np.ndarray, "variants traits"]
    """Signed for the effect allele; NaN where there is no estimate."""
    residual_variance: Float[np.ndarray, "variants groups"]
    """V: sum of squares of the dosage after projection; NaN where there is no estimate."""
    degrees_of_freedom: Float[np.ndarray, "variants groups"]
    n: Int[np.ndarray, "variants groups"]
    """Non-missing calls among the group's people."""
    effect_allele_frequency: Float[np.ndarray, "variants groups"]
    status: Int8[np.ndarray, "variants groups"]
    """Index into `STATUS`."""
    unstable: Bool[np.ndarray, " variants"]
    """Rows that float32 cannot settle."""
    norm: Float[np.ndarray, " traits"]
    """Length of each residual trait, in trait units."""
    w: Float[np.ndarray, "variants traits"] | None
    """Squared length of the residual trait behind each test, as a share of `norm` squared; None: 1 throughout."""
    group_of: Int[np.ndarray, " traits"]
    sign: Float[np.ndarray, " variants"]
    """-1 where the score counts the other allele."""

    @property
    def beta(self) -> Float[np.ndarray, "variants traits"]:
        """Trait units per copy of the effect allele; NaN where the variant is not estimable."""
        beta = self.sign[:, None] * self.norm * self.score / self.residual_variance[:, self.group_of]
        return np.asarray(np.where(np.isnan(self.t), np.nan, beta))

    @property
    def standard_error(self) -> Float[np.ndarray, "variants traits"]:
        """``sqrt(W (1 - r^2) / (df V))``, which is beta / t wherever t is not 0."""
        df = self.degrees_of_freedom[:, self.group_of]
        norm = self.norm if self.w is None else self.norm * np.sqrt(np.maximum(self.w, 0.0))
        t = self.t.astype(np.float64)
        return np.asarray(norm / np.sqrt((df + t**2) * self.residual_variance[:, self.group_of]))

    @property
    def neg_log10_p(self) -> Float[np.ndarray, "variants traits"]:
        """-log10 of the two-sided p-value."""
        return neg_log10_p_from_t(self.t.astype(np.float64), self.degrees_of_freedom[:, self.group_of])


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
    double = precision == "double"
    block = calls_of_dosage(dosage.astype(np.float64 if double else np.float32, copy=False))
    return _statistics(design, block, _sums(HostProducts(design), block, missing), min_mac=min_mac)


@dataclass(frozen=True, slots=True, eq=False)
class LinearMethod(OfDesign[LinearDesign]):
    """The linear regression as a method of the scan; implements `ScanDesign`."""

    def peak_bytes(self, block_size: int, settings: ScanSettings) -> int:
        """Return an upper estimate of the bytes that `scan_block` takes besides the block itself.

        The products and statistics of all tests; the listed people of one group at a time; and in float64 the rows
        where a test comes near the threshold of hits (by chance alone, that share of the tests does).
        """
        design = self.design
        n, q = design.n_samples, len(design.names)
        columns, groups = int(design.right.shape[1]), len(design.groups)
        listed = max(group.people.size for group in design.groups)
        statistics = block_size * (4 * columns + 16 * q + 120 * groups + 8 * listed + 64)
        per_test = 1.1 * max(_CHANCE_BEYOND, settings.hits)
        rows = min(block_size, int(per_test * q * block_size) + 16)
        full = 8 * block_size * q if settings.full else 0
        return statistics + full + rows * (8 * n + 40 * columns)

    def full_index(self) -> dict[str, dict[str, object]]:
        """Return group, n and trait length (``norm``) of every trait."""
        design = self.design
        return {
            name: {"group": int(g), "n": int(n), "norm": float(norm)}
            for name, g, n, norm in zip(design.names, design.group_of, design.n_observed, design.norm, strict=True)
        }

    def scan_block(self, block: CallBlock, settings: ScanSettings, tallies: Tallies) -> BlockResult:
        """Test every trait on every variant of the block and add the tests to `tallies`."""
        design = self.design
        sums = _sums(_products(design, settings.device), block, settings.missing)
        result = _statistics(design, block, sums, min_mac=settings.min_mac)
        result, hits = _refine(design, block, result, settings)
        tally_t(result.t, result.degrees_of_freedom, result.residual_variance, result.group_of, tallies)
        ok = (result.status == 0).any(axis=1)
        return BlockResult(
            hit_variant=hits.variant,
            hit_trait=hits.trait,
            hit_values=hits.values,
            status=np.where(ok, 0, result.status[:, 0]).astype(np.int8),
            full_traits=_full_traits(result) if settings.full else {},
            full_groups=_full_groups(result) if settings.full else {},
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Sums:
    """Sufficient statistics after missing calls were dealt with, counted in the rarer allele."""

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


@lru_cache(maxsize=4)
def _products(design: LinearDesign, device: str) -> Products:
    """Return where the products are computed; the design is put on its device once in a process."""
    return device_products(design, device)


def _sums(
    products: Products,
    block: CallBlock,
    missing: Missing,
    product: Float[np.ndarray, "variants columns"] | None = None,
) -> _Sums:
    """Turn the products of a block (missing calls at the mean of all called) into sums under the chosen rule."""
    design = products.design
    product = products.of_block(block) if product is None else product
    n_variants, n_groups = product.shape[0], len(design.groups)
    out = _Sums(
        score=product[:, : len(design.names)],
        v=np.empty((n_variants, n_groups)),
        w=None,
        rank=np.tile([float(g.rank) for g in design.groups], (n_variants, 1)),
        n=np.empty((n_variants, n_groups)),
        total=np.empty((n_variants, n_groups)),
        centred=np.empty((n_variants, n_groups)),
        exact=np.zeros((n_variants, n_groups), dtype=bool),
    )
    rows = np.flatnonzero(np.diff(block.missing_start) > 0)
    for g in range(n_groups):
        out = _group_sums(products, block, product, missing, out, g, rows)
    return out


def _group_sums(
    products: Products,
    block: CallBlock,
    product: Float[np.ndarray, "variants columns"],
    missing: Missing,
    out: _Sums,
    g: int,
    rows: Int[np.ndarray, " with_missing"],
) -> _Sums:
    """Fill column `g` of the sums; `rows` have missing calls. Returns `out`, with `w` made where it was not yet."""
    design = products.design
    group = design.groups[g]
    people = _within(products, block, product, group)
    n, total, squares = people.n, people.total, people.squares
    mean = np.where(n > 0, total / np.maximum(n, 1.0), 0.0)
    out.n[:, g], out.total[:, g] = n, total
    out.centred[:, g] = squares - n * mean**2
    basis = people.basis
    out.v[:, g] = squares - (basis**2).sum(axis=1)
    if not rows.size:
        return out
    # People of the group without a call: how many, and the sums of their covariates and traits.
    uncalled = people.uncalled[rows]
    member = _member(design, group)
    columns = np.ascontiguousarray(design.right[:, group.basis])
    absent_q = _kernels.sum_missing(rows, block.missing_start, block.missing_people, columns, member)
    if group.transform is not None:
        absent_q = absent_q @ group.transform
    fill = block.mean[rows]
    use_exact = (missing == "exact") | ((missing == "auto") & (n[rows] < MIN_MEAN_CALL_RATE * group.n))
    imputed = (uncalled > 0) & ~use_exact
    at, shift = rows[imputed], (mean[rows] - fill)[imputed]
    if at.size:
        moved = not group.complete
        if moved:
            y = np.ascontiguousarray(design.right[:, group.columns])
            absent_y = _kernels.sum_missing(at, block.missing_start, block.missing_people, y, member)
            out.score[at, group.columns] += shift[:, None] * absent_y
            basis[at] += shift[:, None] * absent_q[imputed]
        out.v[at, g] = squares[at] + mean[at] ** 2 * uncalled[imputed] - (basis[at] ** 2).sum(axis=1)
    taken_out = (uncalled > 0) & use_exact
    if not taken_out.any():
        return out
    if out.w is None:
        out = replace(out, w=np.ones(out.score.shape))
    return _take_out(
        design, block, out, g, rows[taken_out], basis, squares, fill[taken_out], absent_q[taken_out], member
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Within:
    """A block's sums over the people of one group: calls observed, their counts, and Q'g with fills."""

    n: Float[np.ndarray, " variants"]
    total: Float[np.ndarray, " variants"]
    squares: Float[np.ndarray, " variants"]
    uncalled: Float[np.ndarray, " variants"]
    basis: Float[np.ndarray, "variants rank"]


def _within(
    products: Products, block: CallBlock, product: Float[np.ndarray, "variants columns"], group: TraitGroup
) -> _Within:
    n_called = block.n_called.astype(np.float64)
    uncalled = products.design.n_samples - n_called
    basis = product[:, group.basis].astype(np.float64)
    if group.complete:
        return _Within(n_called, block.total, block.squares, uncalled, basis)
    sums, absent = products.of_people(block, group.people, None if group.transform is None else group.basis)
    total, squares, holes = sums[:, 0], sums[:, 1], sums[:, 2]
    called = group.people.size - holes
    if absent is None or group.transform is None:
        return _Within(called, total, squares, holes, basis)
    basis = (basis - absent) @ group.transform
    return _Within(n_called - called, block.total - total, block.squares - squares, uncalled - holes, basis)


def _member(design: LinearDesign, group: TraitGroup) -> Float[np.ndarray, " samples"]:
    """Return 1 for the people of the group, 0 for others."""
    if group.complete or group.transform is not None:
        member = np.ones(design.n_samples)
        member[group.people] = 0.0
        return member
    member = np.zeros(design.n_samples)
    member[group.people] = 1.0
    return member


def _take_out(
    design: LinearDesign,
    block: CallBlock,
    out: _Sums,
    g: int,
    at: Int[np.ndarray, " taken"],
    basis: Float[np.ndarray, "variants rank"],
    squares: Float[np.ndarray, " variants"],
    fill: Float[np.ndarray, " taken"],
    absent_q: Float[np.ndarray, "taken rank"],
    member: Float[np.ndarray, " samples"],
) -> _Sums:
    """Replace the sums of some rows by those of the people with a call; returns `out`, changed in place."""
    group = design.groups[g]
    q = design.right[:, group.basis]
    y = np.ascontiguousarray(design.right[:, group.columns])
    absent_y = _kernels.sum_missing(at, block.missing_start, block.missing_people, y, member)
    s, v, w, rank = _kernels.take_out_missing(
        at,
        block.missing_start,
        block.missing_people,
        np.ascontiguousarray(q if group.transform is None else q @ group.transform),
        y,
        member,
        np.ascontiguousarray(basis[at] - fill[:, None] * absent_q),
        np.ascontiguousarray(out.score[at, group.columns] - fill[:, None] * absent_y),
        squares[at],
    )
    assert out.w is not None  # noqa: S101 - made by the caller
    out.score[at, group.columns], out.v[at, g], out.w[at, group.columns], out.rank[at, g] = s, v, w, rank
    out.exact[at, g] = True
    return out


def _statistics(design: LinearDesign, block: CallBlock, sums: _Sums, *, min_mac: float) -> LinearScan:
    double = block.counts.dtype == np.float64
    df = sums.n - sums.rank - 1.0
    status = _status(sums, df, min_mac)
    group_of = design.group_of
    v = np.where(status == 0, sums.v, np.nan)
    t = np.empty(sums.score.shape, dtype=np.float64 if double else np.float32)
    w = sums.w if sums.w is not None else np.ones((1, len(design.names)))
    _kernels.t_statistics(sums.score, v, df, w, group_of, block.sign, t)
    frequency = np.where(sums.n > 0, sums.total / np.maximum(2.0 * sums.n, 1.0), np.nan)
    flipped = block.sign < 0
    frequency[flipped] = 1.0 - frequency[flipped]
    if double:
        _explicit_residuals(design, block, sums, v, df, group_of, t)
    unstable = (
        (sums.centred < _UNSTABLE_SHARE * np.maximum(sums.total, 0.0)) | (sums.v < _UNSTABLE_SHARE * sums.centred)
    ) & ((status == 0) | (status == STATUS.index("constant")) | (status == STATUS.index("collinear")))
    return LinearScan(
        score=sums.score,
        t=t,
        residual_variance=v,
        degrees_of_freedom=df,
        n=np.rint(sums.n).astype(np.int64),
        effect_allele_frequency=frequency,
        status=status,
        unstable=unstable.any(axis=1),
        norm=design.norm,
        w=sums.w,
        group_of=group_of,
        sign=block.sign,
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
    return np.select(rules, list(range(1, len(rules) + 1)), default=0).astype(np.int8)


def _explicit_residuals(
    design: LinearDesign,
    block: CallBlock,
    sums: _Sums,
    v: Float[np.ndarray, "variants groups"],
    df: Float[np.ndarray, "variants groups"],
    group_of: Int[np.ndarray, " traits"],
    t: Float[np.ndarray, "variants traits"],
) -> None:
    """Recompute t from an explicit residual sum of squares where 1 - r^2 has no digits left."""
    with np.errstate(invalid="ignore"):
        rest = df[:, group_of] / (df[:, group_of] + t**2)
    for j, k in np.argwhere(rest < _CLOSE_TO_ONE):
        group = design.groups[int(group_of[k])]
        people = _member(design, group) > 0
        uncalled = block.missing_people[block.missing_start[j] : block.missing_start[j + 1]]
        called = people.copy()
        called[uncalled] = False
        counts = counts_of_rows(block, np.array([j]))[0]
        counts[uncalled] = counts[called].mean()
        exact = bool(sums.exact[j, group_of[k]])
        people = called if exact else people
        q, y = design.right[people][:, group.basis], design.right[people, k]
        q = q if group.transform is None else q @ group.transform
        if exact:
            q, size, _ = np.linalg.svd(q, full_matrices=False)
            q = q[:, size > _LOST_COLUMN]  # a covariate may be constant among the people with a call
            y = project_out(q, y[:, None])[:, 0]
        residual = project_out(q, counts[people, None])[:, 0]
        slope = float(residual @ y) / float(residual @ residual)
        rss = float(((y - slope * residual) ** 2).sum())
        with np.errstate(divide="ignore"):
            t[j, k] = block.sign[j] * slope / np.sqrt(np.float64(rss) / (df[j, group_of[k]] * v[j, group_of[k]]))


@dataclass(frozen=True, slots=True, eq=False)
class _Hits:
    variant: Int[np.ndarray, " hits"]
    trait: Int[np.ndarray, " hits"]
    values: dict[str, Shaped[np.ndarray, " hits"]]


def _refine(
    design: LinearDesign, block: CallBlock, result: LinearScan, settings: ScanSettings
) -> tuple[LinearScan, _Hits]:
    """Return the block with the tests that matter computed again in float64, and its hits.

    They are those near the threshold of hits, those beyond |t| = 4, and all of the rows that float32 cannot settle.
    """
    limit = min(_RECOMPUTE_T, _critical_t(settings.hits, design)) * (1.0 - 1e-3)
    j, k = _kernels.tests_beyond(result.t, result.unstable, limit)
    if not j.size:
        empty = np.empty(0, dtype=np.int64)
        return result, _Hits(empty, empty, _hit_values(result, empty, empty, np.empty(0)))
    rows, at = np.unique(j, return_inverse=True)
    sub = _rows_in_double(block, rows)
    if j.size > _DENSE_SHARE * rows.size * len(design.names):
        product = sub.counts @ design.right
    else:
        product = np.zeros((rows.size, design.right.shape[1]))
        q = len(design.names)
        product[:, q:] = sub.counts @ design.right[:, q:]
        product[at, k] = _kernels.dot_pairs(sub.counts, design.right.T, at, k)
    sums = _sums(HostProducts(design), sub, settings.missing, product)
    fine = _statistics(design, sub, sums, min_mac=settings.min_mac)
    g = fine.group_of[k]
    p = neg_log10_p_from_t(fine.t[at, k], fine.degrees_of_freedom[at, g])
    kept = p >= -np.log10(settings.hits)
    hits = _Hits(j[kept], k[kept], _hit_values(fine, at[kept], k[kept], p[kept]))
    return _with_tests(result, fine, rows, at, j, k), hits


def _rows_in_double(block: CallBlock, rows: Int[np.ndarray, " rows"]) -> CallBlock:
    """Return some rows in float64, fills included."""
    counts = counts_of_rows(block, rows)
    sizes = np.diff(block.missing_start)[rows]
    first = np.concatenate([[0], np.cumsum(sizes)])
    people = [block.missing_people[block.missing_start[j] : block.missing_start[j + 1]] for j in rows]
    return CallBlock(
        start=block.start,
        counts=counts,
        sign=block.sign[rows],
        n_called=block.n_called[rows],
        total=block.total[rows],
        squares=block.squares[rows],
        missing_start=first,
        missing_people=np.concatenate(people) if people else np.empty(0, dtype=np.int64),
    )


def _critical_t(p: float, design: LinearDesign) -> float:
    """Return the smallest |t| that can have two-sided p at most `p`: that of the largest degrees of freedom."""
    largest = max(g.n - g.rank - 1 for g in design.groups)
    return 0.0 if p >= 1.0 else -float(stdtrit(largest, p / 2.0))


def _hit_values(
    result: LinearScan,
    j: Int[np.ndarray, " hits"],
    k: Int[np.ndarray, " hits"],
    p: Float[np.ndarray, " hits"],
) -> dict[str, Shaped[np.ndarray, " hits"]]:
    g = result.group_of[k]
    v, df, t = result.residual_variance[j, g], result.degrees_of_freedom[j, g], result.t[j, k].astype(np.float64)
    w = 1.0 if result.w is None else result.w[j, k]
    return {
        "effect_allele_frequency": result.effect_allele_frequency[j, g],
        "n": result.n[j, g],
        "beta": result.sign[j] * result.norm[k] * result.score[j, k] / v,
        "standard_error": result.norm[k] * np.sqrt(w) / np.sqrt((df + t**2) * v),
        "neg_log10_p": p,
    }


def _with_tests(
    result: LinearScan,
    fine: LinearScan,
    rows: Int[np.ndarray, " rows"],
    at: Int[np.ndarray, " tests"],
    j: Int[np.ndarray, " tests"],
    k: Int[np.ndarray, " tests"],
) -> LinearScan:
    """Return the block with some tests, and V and status of their rows, replaced by their float64 versions."""
    t, score = result.t, result.score
    t[j, k], score[j, k] = fine.t[at, k], fine.score[at, k]
    v, status = result.residual_variance, result.status
    v[rows], status[rows] = fine.residual_variance, fine.status
    return result


def _full_traits(result: LinearScan) -> dict[str, Shaped[np.ndarray, "variants traits"]]:
    """Return t, and beta where it does not follow from t and V alone."""
    kept: dict[str, Shaped[np.ndarray, "variants traits"]] = {"t": result.t.astype(np.float32)}
    if result.w is not None:
        kept["beta"] = result.beta.astype(np.float32)
    return kept


def _full_groups(result: LinearScan) -> dict[str, Shaped[np.ndarray, "variants groups"]]:
    return {
        "residual_variance": result.residual_variance,
        "degrees_of_freedom": result.degrees_of_freedom,
        "n": result.n,
        "effect_allele_frequency": result.effect_allele_frequency,
    }
