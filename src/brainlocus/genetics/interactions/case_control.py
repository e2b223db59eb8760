"""Epistasis of cases and controls: two fast scans, and the logistic regression that confirms their pairs.

``correlation`` (Wellek & Ziegler)::

    Z = (atanh r_case - atanh r_control) / sqrt(1 / (n_case - 3) + 1 / (n_control - 3))

with r the correlation of two variants' allele counts: two matrix products of the standardised calls. ``boost``: the 3 x
3 x 2 table of each pair from bit-packed calls by population count, the likelihood ratio of the saturated to the
homogeneous-association log-linear model (4 degrees of freedom,
fewer where a genotype is not seen). Kirkwood's superposition approximation, an upper bound
of that ratio, screens; pairs above 30 are fitted exactly by proportional fitting. Neither knows covariates. Pairs that
are kept are confirmed by a logistic likelihood ratio given the covariates: the product of allele counts (1 degree of
freedom), or the products of genotypes (4, fewer where cells are empty).

References
----------
Wellek & Ziegler (2009), 10.1159/000194978; Wan et al. (2010), 10.1016/j.ajhg.2010.07.021.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt64
from scipy.special import chdtri, ndtri

from brainlocus.core.errors import SchemaError
from brainlocus.genetics.interactions import _columns, _pairs, _tables
from brainlocus.genetics.interactions.epistasis import MIN_CELL, PairFit, PairGroup, PairRules, TileResult
from brainlocus.numerics.projection import project_out
from brainlocus.numerics.tails import neg_log10_p_from_chi2, neg_log10_p_from_z

__all__ = ["CaseBlock", "CaseMethod", "check_cases", "confirm_pairs", "prepare_cases", "scan_cases"]

CaseMethod = Literal["correlation", "boost"]

BOOST_SCREEN = 30.0
"""Screening value above which a pair is fitted exactly (Wan et al. 2010): p of 4.9e-6 with 4 degrees of freedom."""
_MIN_CLASS = 10


@dataclass(frozen=True, slots=True, eq=False)
class CaseBlock:
    """Some variants among the people of a group, for each of its traits."""

    index: Int[np.ndarray, " variants"]
    cases: Float32[np.ndarray, "traits _standardised people"]
    """Standardised within cases to a sum of squares of 1, 0 for controls and missing calls; empty for ``boost``."""
    controls: Float32[np.ndarray, "traits _standardised people"]
    planes: UInt64[np.ndarray, "traits _packed 2 3 words"]
    """Bits of controls and cases by genotype; empty for ``correlation``."""
    varies: Bool[np.ndarray, "traits variants"]
    """In cases and in controls."""


def check_cases(group: PairGroup) -> None:
    """Refuse traits that are no case-control status.

    Raises
    ------
    SchemaError
        Values other than 0 and 1, or fewer than 10 of either.
    """
    for name, values in zip(group.names, group.traits.T, strict=True):
        if not np.isin(values, (0.0, 1.0)).all():
            found = np.unique(values)[:5].tolist()
            raise SchemaError(f"Trait {name!r}: expected 0 (control) and 1 (case), found {found}. See --columns.")
        n = int(values.sum())
        if min(n, values.size - n) < _MIN_CLASS:
            raise SchemaError(f"Trait {name!r} has {n} cases and {values.size - n} controls; expected 10 of each.")


def prepare_cases(
    group: PairGroup,
    dosage: Float32[np.ndarray, "variants samples"],
    index: Int[np.ndarray, " variants"],
    method: CaseMethod,
) -> CaseBlock:
    """Standardise or pack a block of variants within cases and within controls, for each trait of a group."""
    own = np.ascontiguousarray(dosage[:, group.rows])
    (m, n), traits = own.shape, len(group.names)
    status = group.traits.T > 0.5
    words = -(-max(int(status.sum(axis=1).max()), int((~status).sum(axis=1).max())) // 64)
    fast = method == "correlation"
    cases = np.zeros((traits, m, n) if fast else (traits, 0, 0), dtype=np.float32)
    controls = np.zeros_like(cases)
    planes = np.zeros((traits, 0 if fast else m, 2, 3, 0 if fast else words), dtype=np.uint64)
    varies = np.empty((traits, m), dtype=bool)
    for k in range(traits):
        unit = [_unit(own[:, chosen]) for chosen in (~status[k], status[k])]
        varies[k] = np.all([u.any(axis=1) for u in unit], axis=0)
        if fast:
            controls[k][:, ~status[k]], cases[k][:, status[k]] = unit
        else:
            _tables.fill_planes(own, status[k], planes[k])
    return CaseBlock(index, cases, controls, planes, varies)


def _unit(calls: Float32[np.ndarray, "variants people"]) -> Float[np.ndarray, "variants people"]:
    """Return rows centred, missing calls 0, of length 1 (0 where constant)."""
    known = ~np.isnan(calls)
    count = np.maximum(known.sum(axis=1), 1)
    mean = np.where(known, calls, 0.0).sum(axis=1, dtype=np.float64) / count
    centred = np.where(known, calls - mean[:, None], 0.0)
    size = np.sqrt((centred**2).sum(axis=1))
    return np.asarray(centred / np.where(size > 1e-6, size, np.inf)[:, None])


def scan_cases(
    group: PairGroup,
    rows: CaseBlock,
    columns: CaseBlock,
    places: Int[np.ndarray, "source 2"],
    rules: PairRules,
    method: CaseMethod,
    *,
    in_rows: Bool[np.ndarray, " columns"],
    open_rows: Bool[np.ndarray, "traits rows"] | None = None,
    open_columns: Bool[np.ndarray, "traits columns"] | None = None,
) -> TileResult:
    """Test the pairs of two blocks for every trait of a group; arguments as of `scan_tile`.

    The histogram is of Z^2; for ``boost``, which fits few pairs exactly, it is empty.
    """
    limit = -np.log10(rules.report_p)
    tested, parts = [], []
    histogram = np.zeros((len(group.names), _pairs.BINS), dtype=np.int64)
    allowed = _allowed(rows, columns, places, rules, in_rows)
    for k in range(len(group.names)):
        todo = allowed & rows.varies[k][:, None] & columns.varies[k]
        if open_rows is not None and open_columns is not None:
            todo &= open_rows[k][:, None] & open_columns[k]
        if method == "correlation":
            statistic = _difference(group, k, rows, columns)
            bins = np.minimum(statistic[todo] * _pairs.BINS_PER_UNIT, _pairs.BINS - 1).astype(np.int64)
            histogram[k] = np.bincount(bins, minlength=_pairs.BINS)
            row, column = np.nonzero(todo & (statistic >= ndtri(0.5 * rules.report_p) ** 2 * (1 - 1e-12)))
            strength = neg_log10_p_from_z(np.sqrt(statistic[row, column]))
        else:
            statistic, df = _boost(rows.planes[k], columns.planes[k], todo, rules)
            row, column = np.nonzero((statistic >= chdtri(np.maximum(df, 1), rules.report_p)) & (df > 0))
            strength = neg_log10_p_from_chi2(statistic[row, column], df[row, column])
        kept = strength >= limit
        parts.append((np.full(int(kept.sum()), k), rows.index[row[kept]], columns.index[column[kept]], strength[kept]))
        tested.append(int(todo.sum()))
    found = [np.concatenate(values) for values in zip(*parts, strict=True)]
    n_tests = np.array(tested, dtype=np.int64)
    return TileResult(n_tests, np.zeros_like(n_tests), histogram, *found)


def _allowed(
    rows: CaseBlock,
    columns: CaseBlock,
    places: Int[np.ndarray, "source 2"],
    rules: PairRules,
    in_rows: Bool[np.ndarray, " columns"],
) -> Bool[np.ndarray, "rows columns"]:
    """Return which pairs are tested: once, and not too near."""
    a, b = rows.index[:, None], columns.index
    first, second = places[rows.index][:, None], places[columns.index]
    near = (first[..., 0] == second[:, 0]) & (np.abs(first[..., 1] - second[:, 1]) < rules.min_distance)
    return np.asarray((a != b) & ~(in_rows & (b < a)) & ~near)


def _difference(group: PairGroup, trait: int, rows: CaseBlock, columns: CaseBlock) -> Float[np.ndarray, "rows columns"]:
    """Return Z^2 of the difference of correlations."""
    n_cases = float(group.traits[:, trait].sum())
    variance = 1.0 / (n_cases - 3.0) + 1.0 / (group.rows.size - n_cases - 3.0)
    r = [np.clip(a[trait] @ b[trait].T, -0.999999, 0.999999).astype(np.float64) for a, b in
         ((rows.cases, columns.cases), (rows.controls, columns.controls))]  # fmt: skip
    return np.asarray((np.arctanh(r[0]) - np.arctanh(r[1])) ** 2 / variance)


def _boost(
    rows: UInt64[np.ndarray, "rows 2 3 words"],
    columns: UInt64[np.ndarray, "columns 2 3 words"],
    todo: Bool[np.ndarray, "rows columns"],
    rules: PairRules,
) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "rows columns"]]:
    """Return the exact ratio where the screen passes, 0 or -1 elsewhere, and its degrees of freedom."""
    lr, df = np.empty(todo.shape), np.zeros(todo.shape)
    work = (np.empty((3, 3, 2)), np.empty((3, 3, 2)), np.empty((3, 3)), np.empty((3, 2)), np.empty((3, 2)))
    screen = min(BOOST_SCREEN, float(chdtri(1, rules.report_p)))  # of the fewest degrees of freedom
    _tables.boost_tile(rows, columns, todo, screen, lr, df, work)
    return lr, df


def confirm_pairs(
    group: PairGroup,
    trait: int,
    first: Float32[np.ndarray, "pairs samples"],
    second: Float32[np.ndarray, "pairs samples"],
    method: CaseMethod,
) -> list[PairFit]:
    """Return logistic likelihood-ratio tests of pairs given the covariates, on the people with both calls.

    ``beta`` is the log odds ratio of the product of allele counts; NaN for ``boost``, whose test has four terms.
    """
    y = group.traits[:, trait]
    return [_confirm(group, y, a[group.rows], b[group.rows], method) for a, b in zip(first, second, strict=True)]


def _confirm(
    group: PairGroup,
    status: Float[np.ndarray, " people"],
    first: Float32[np.ndarray, " people"],
    second: Float32[np.ndarray, " people"],
    method: CaseMethod,
) -> PairFit:
    both = ~(np.isnan(first) | np.isnan(second))
    a, b, y, q = first[both].astype(np.float64), second[both].astype(np.float64), status[both], group.q[both]
    calls = [np.clip(np.rint(v), 0, 2) for v in (a, b)]
    smallest = int(np.bincount((3 * calls[0] + calls[1]).astype(np.int64), minlength=9).min())
    if method == "correlation":
        mains = np.column_stack([a - a.mean(), b - b.mean()])
        products = (mains[:, 0] * mains[:, 1])[:, None]
    else:
        sides = [np.column_stack([v == 1, v == 2]).astype(np.float64) for v in calls]
        mains = np.hstack(sides)
        products = np.column_stack([sides[0][:, i] * sides[1][:, j] for i in range(2) for j in range(2)])
    base = _with(np.linalg.qr(q)[0], mains)
    whole = _with(base, products)
    nan, n, df = float("nan"), int(both.sum()), float(whole.shape[1] - base.shape[1])
    null, full = (_logistic(x, y) for x in (base, whole))
    if null is None or full is None or df == 0:
        why = "collinear" if df == 0 else "not_converged"
        return PairFit(n, nan, nan, nan, df, nan, nan, nan, nan, smallest, why)
    chi2 = max(2.0 * (full[1] - null[1]), 0.0)
    p = float(neg_log10_p_from_chi2(np.array([chi2]), df)[0])
    beta, error = (float(full[0][-1]), full[2]) if method == "correlation" else (nan, nan)
    z = float(np.sign(beta) * np.sqrt(chi2)) if method == "correlation" else nan
    status_of = "ok" if smallest >= MIN_CELL else "sparse_cells"
    return PairFit(n, beta, error, z, df, p, nan, nan, nan, smallest, status_of)


def _with(
    base: Float[np.ndarray, "people columns"], more: Float[np.ndarray, "people more"]
) -> Float[np.ndarray, "people _all"]:
    """Return the columns with those of `more` that are no combinations of columns before them."""
    span, _ = np.linalg.qr(base)
    return np.column_stack([base, more[:, _columns.independent(project_out(span, more), more)]])


def _logistic(
    x: Float[np.ndarray, "people columns"], y: Float[np.ndarray, " people"]
) -> tuple[Float[np.ndarray, " columns"], float, float] | None:
    """Return coefficients, log-likelihood and the last standard error by Newton's method; None without convergence.

    Where a cell has only cases or only controls the likelihood has a limit, which is returned; coefficients have not.
    """
    beta = np.zeros(x.shape[1])
    last = -np.inf
    for _ in range(50):
        eta = x @ beta
        likelihood = float(y @ eta - np.logaddexp(0.0, eta).sum())
        mu = 1.0 / (1.0 + np.exp(-np.clip(eta, -700, 700)))
        information = (x * (mu * (1 - mu))[:, None]).T @ x
        if abs(likelihood - last) < 1e-10 * (abs(likelihood) + 1.0):
            return beta, likelihood, float(np.sqrt(max(np.linalg.pinv(information)[-1, -1], 0.0)))
        last = likelihood
        beta = beta + np.linalg.lstsq(information, x.T @ (y - mu), rcond=1e-14)[0]
    return None
