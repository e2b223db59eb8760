r"""Case-control association scan: one logistic regression per variant and binary trait.

Data flow::

    traits, covariates, offset --prepare_logistic--> LogisticDesign                    (once per set of people)
    LogisticDesign + CallBlock --LogisticDesign.scan_block--> BlockResult              (once per block)

Method: a null model per trait, ``logit P(y = 1) = C gamma + offset``, once. With ``mu`` its probabilities and
``w = mu (1 - mu)``, all variants are screened by the score test, which is matrix products for all traits::

    U = g'(y - mu)      V = (g.g)'w - ||(C'WC)^(-1/2) C'W g||^2      z = U / sqrt(V)      beta ~ U / V

Variants whose score p is below a threshold get the test that was asked for (`LogisticSettings.correction`):

================  ======================================================================================
firth-fallback    logistic regression; Firth's where an allele is absent from cases or controls, or it fails
firth             Firth's penalised regression
firth-approx      Firth's for the variant alone, covariates at their effects without it
spa               the score test with saddlepoint p-values; no regression
none              logistic regression; no estimate where it fails
================  ======================================================================================

Regressions are tested by likelihood ratio or by Wald. Traits with the same missing people share a basis of the
covariates; a trait's result never depends on which others are in the run. Missing calls: the screen has the variant's
mean among the trait's people for them; regressions too (``mean``), or are of the people with a call (``exact``);
``auto`` is ``mean`` from a call rate of 97 % and ``exact`` below.

References
----------
McCullagh & Nelder (1989), Generalized Linear Models; Firth (1993), 10.1093/biomet/80.1.27; Heinze & Schemper (2002),
10.1002/sim.1047; Dey et al. (2017), 10.1016/j.ajhg.2017.05.014; Mbatchou et al. (2021), 10.1038/s41588-021-00870-7;
Chang et al. (2015), 10.1186/s13742-015-0047-8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int8, Shaped
from scipy.special import ndtri, ndtri_exp

from brainlocus.core.errors import AlignmentError
from brainlocus.genetics.gwas import _cases, _kernels
from brainlocus.genetics.gwas._newton import CONVERGED, evaluate, maximise
from brainlocus.genetics.gwas.firth import MAX_ITERATIONS, MAX_STEP
from brainlocus.genetics.gwas.linear import STATUS
from brainlocus.genetics.gwas.linear_scan import MIN_MEAN_CALL_RATE
from brainlocus.genetics.gwas.method import BlockResult, CallBlock, ScanSettings, Tallies
from brainlocus.genetics.gwas.saddlepoint import neg_log10_of_tails
from brainlocus.genetics.gwas.tallies import tally_t
from brainlocus.numerics.missingness import refuse_infinite, same_people
from brainlocus.numerics.projection import covariate_basis
from brainlocus.numerics.tails import neg_log10_p_from_z

__all__ = [
    "MIN_CASES",
    "TEST_METHOD",
    "TEST_STATUS",
    "CaseGroup",
    "Correction",
    "LogisticDesign",
    "LogisticSettings",
    "NullModels",
    "prepare_logistic",
]

Correction = Literal["none", "firth-fallback", "firth", "firth-approx", "spa"]

TEST_METHOD = ("score", "logistic", "firth", "firth-approx", "spa")
"""How a test was made, by code."""
TEST_STATUS = ("ok", "separated", "not_converged", "collinear")
"""Why a test has no estimate, by code."""
MIN_CASES = 10
"""Fewest cases, and fewest controls, of a trait that is analysed."""
_UNSTABLE_SHARE = 0.02
"""Share of the weighted sum of squares below which a float32 difference has lost two digits: tested in float64."""
_NEAR = 1e-3
"""Relative distance below the screen's |z| from which the exact score decides, so that rounding does not."""
_CHUNK_COLUMNS = 256
"""Columns of one matrix product."""


@dataclass(frozen=True, slots=True)
class LogisticSettings:
    """How variants that pass the screen are tested."""

    correction: Correction = "firth-fallback"
    test: Literal["lrt", "wald"] = "lrt"
    """Likelihood ratio or Wald; the score test and its saddlepoint form have neither."""
    screen: float = 0.05
    """Largest score p-value of a variant that is tested in full; 1 tests all."""

    def __post_init__(self) -> None:
        if self.correction not in get_args(Correction):
            raise ValueError(f"correction is one of {', '.join(get_args(Correction))}, found {self.correction!r}.")
        if self.test not in ("lrt", "wald"):
            raise ValueError(f"test is lrt or wald, found {self.test!r}.")
        if not 0.0 < self.screen <= 1.0:
            raise ValueError(f"screen is a p-value in (0, 1], found {self.screen}.")


@dataclass(frozen=True, slots=True, eq=False)
class NullModels:
    """The models without a variant of traits that the same people have. Rows are traits."""

    cases: Int8[np.ndarray, "traits observed"]
    """1 for a case, 0 for a control."""
    probability: Float[np.ndarray, "traits observed"]
    """mu, of being a case."""
    offset: Float[np.ndarray, "traits_or_one observed"]
    """Known part of the log-odds; one row of zeros when there is none."""
    coefficients: Float[np.ndarray, "traits rank"]
    lower: Float[np.ndarray, "traits rank rank"]
    """Cholesky factor of C'WC."""
    log_likelihood: Float[np.ndarray, " traits"]
    penalised_offset: Float[np.ndarray, "traits_or_none observed"]
    """Log-odds of the penalised model without a variant; no rows unless the correction is firth-approx."""


@dataclass(frozen=True, slots=True, eq=False)
class CaseGroup:
    """Traits observed in exactly the same people."""

    columns: slice
    """Its traits in `LogisticDesign.names` order."""
    people: Int[np.ndarray, " observed"]
    """Rows among all samples."""
    basis: Float[np.ndarray, "rank observed"]
    """Intercept and covariates, orthogonal, with mean square 1."""
    dropped: tuple[str, ...]
    """Covariates that are constant or combinations of others among these people."""
    null: NullModels


@dataclass(frozen=True, slots=True, eq=False)
class LogisticDesign:
    """Null models and what the screen needs of them; a `ScanDesign`."""

    names: tuple[str, ...]
    """Traits that can be analysed, grouped by missingness."""
    groups: tuple[CaseGroup, ...]
    n_samples: int
    skipped: tuple[tuple[str, str], ...]
    """Traits left out, with the reason: too_few_people, too_few_cases, too_few_controls, null_not_converged."""
    coding: dict[str, str]
    """By trait, the values of controls and cases: 0/1 or 1/2."""
    settings: LogisticSettings

    @property
    def n_observed(self) -> Int[np.ndarray, " traits"]:
        """People with a value, per analysed trait."""
        return np.concatenate([np.full(g.null.cases.shape[0], g.people.size, dtype=np.int64) for g in self.groups])

    @property
    def n_cases(self) -> Int[np.ndarray, " traits"]:
        """Cases, per analysed trait."""
        return np.concatenate([g.null.cases.sum(axis=1, dtype=np.int64) for g in self.groups])

    @property
    def dropped(self) -> tuple[str, ...]:
        """Covariates that were constant or combinations of others for some trait."""
        return tuple(sorted({name for group in self.groups for name in group.dropped}))

    @property
    def patterns(self) -> int:
        """Different sets of people among the traits."""
        return len(self.groups)

    def peak_bytes(self, block_size: int, settings: ScanSettings) -> int:
        """Return an upper estimate of the bytes that `scan_block` takes besides the block itself."""
        columns = self._chunk_columns()
        n, q = self.n_samples, len(self.names)
        rank = max(g.basis.shape[0] for g in self.groups)
        share = 1.0 if settings.hits > self.settings.screen else min(1.0, 1.5 * self.settings.screen)
        products = block_size * (4 * n + 12 * columns) + 4 * n * columns
        kept = block_size * q * (6 * 8 + int(share * (_cases.COLUMNS + 12) * 8))
        return products + kept + (3 * rank + 24) * 8 * n

    def full_index(self) -> dict[str, dict[str, object]]:
        """Return group, n, cases and controls of every trait."""
        index: dict[str, dict[str, object]] = {}
        for g, group in enumerate(self.groups):
            for k in range(group.columns.start, group.columns.stop):
                cases = int(group.null.cases[k - group.columns.start].sum())
                index[self.names[k]] = {
                    "group": g, "n": int(group.people.size), "n_cases": cases, "n_controls": group.people.size - cases,
                }  # fmt: skip
        return index

    def scan_block(self, block: CallBlock, settings: ScanSettings, tallies: Tallies) -> BlockResult:
        """Test every trait on every variant of the block and add the tests to `tallies`.

        Raises
        ------
        AlignmentError
            The block and the design have different numbers of samples.
        """
        if block.counts.shape[1] != self.n_samples:
            raise AlignmentError(
                f"The block has {block.counts.shape[1]} samples, the design {self.n_samples}; select first."
            )
        squares = block.counts * block.counts
        parts = [_scan_group(self, group, block, squares, settings) for group in self.groups]
        _add(tallies, parts)
        return _assemble(self, block, settings, parts)

    def _chunk_columns(self) -> int:
        return max(_CHUNK_COLUMNS, *(g.basis.shape[0] + 2 for g in self.groups))


def prepare_logistic(
    traits: Float[np.ndarray, "samples traits"],
    covariates: Float[np.ndarray, "samples covariates"],
    *,
    names: Sequence[str] | None = None,
    covariate_names: Sequence[str] | None = None,
    offset: Float[np.ndarray, "samples traits"] | None = None,
    settings: LogisticSettings | None = None,
) -> LogisticDesign:
    """Fit the model without a variant of every trait.

    Parameters
    ----------
    traits
        0 control and 1 case, or 1 and 2 (decided by trait); NaN where a person has none.
    covariates
        Complete and without an intercept, which is added here. Constant or collinear ones are dropped and named in
        `CaseGroup.dropped`.
    offset
        Known part of each person's log-odds, such as a prediction from the other chromosomes; 0 when None.

    Raises
    ------
    ValueError
        A trait with another value (named), an incomplete covariate or offset (named), more covariates than people,
        or no trait that can be analysed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sick = (rng.random((200, 1)) < 0.3).astype(float)
    >>> design = prepare_logistic(sick + 1, rng.normal(size=(200, 2)), names=["sick"])
    >>> design.names, design.coding["sick"], int(design.n_cases[0]) == int(sick.sum())
    (('sick',), '1/2', True)
    """
    options = settings or LogisticSettings()
    labels = [str(name) for name in names] if names is not None else [f"trait_{k + 1}" for k in range(traits.shape[1])]
    if covariates.shape[1] >= traits.shape[0]:
        raise ValueError(f"There are {covariates.shape[1]} covariates for {traits.shape[0]} people; use fewer.")
    coding, cases = _coded(traits, labels)
    _check_offset(offset, ~np.isnan(traits), labels)
    order: list[str] = []
    skipped: list[tuple[str, str]] = []
    groups: list[CaseGroup] = []
    for mask, members in same_people(~np.isnan(traits)):
        people = np.flatnonzero(mask)
        status = cases[np.ix_(people, members)].T
        known = None if offset is None else np.ascontiguousarray(offset[np.ix_(people, members)].T)
        group, kept = _prepare_group(
            people, status, covariates, covariate_names, known, options, [labels[k] for k in members], skipped
        )
        if group is not None:
            groups.append(_at(group, len(order)))
            order += [labels[k] for k in members[kept]]
    if not groups:
        raise ValueError(f"No trait can be analysed: {dict(skipped)}. A trait needs {MIN_CASES} cases and controls.")
    return LogisticDesign(tuple(order), tuple(groups), traits.shape[0], tuple(skipped), coding, options)


def _coded(
    traits: Float[np.ndarray, "samples traits"], labels: Sequence[str]
) -> tuple[dict[str, str], Int8[np.ndarray, "samples traits"]]:
    """Return the coding of each trait, and 1 for its cases."""
    refuse_infinite(traits, labels)
    coding: dict[str, str] = {}
    cases = np.zeros(traits.shape, dtype=np.int8)
    for k, label in enumerate(labels):
        values = np.unique(traits[~np.isnan(traits[:, k]), k])
        other = values[~np.isin(values, (0.0, 1.0, 2.0))]
        if other.size or {0.0, 2.0} <= set(values.tolist()):
            found = f"{other[0]:g}" if other.size else "0 and 2 together"
            raise ValueError(
                f"Trait {label!r} is not binary: expected 0 (control) and 1 (case), or 1 and 2, found {found}. "
                "Choose binary traits, write missing values as NA, or use linear regression."
            )
        coding[label] = "1/2" if 2.0 in values else "0/1"
        cases[:, k] = traits[:, k] == (2.0 if coding[label] == "1/2" else 1.0)
    return coding, cases


def _check_offset(
    offset: Float[np.ndarray, "samples traits"] | None,
    observed: Bool[np.ndarray, "samples traits"],
    labels: Sequence[str],
) -> None:
    if offset is None:
        return
    if offset.shape != observed.shape:
        raise AlignmentError(f"The offset has shape {offset.shape}, the traits {observed.shape}.")
    bad = (~np.isfinite(offset) & observed).any(axis=0)
    if bad.any():
        named = ", ".join(label for label, is_bad in zip(labels, bad, strict=True) if is_bad)
        raise ValueError(f"Everyone with a trait needs a finite offset; some have none for: {named}.")


def _prepare_group(
    people: Int[np.ndarray, " observed"],
    status: Int8[np.ndarray, "traits observed"],
    covariates: Float[np.ndarray, "samples covariates"],
    covariate_names: Sequence[str] | None,
    offset: Float[np.ndarray, "traits observed"] | None,
    options: LogisticSettings,
    labels: list[str],
    skipped: list[tuple[str, str]],
) -> tuple[CaseGroup | None, Int[np.ndarray, " kept"]]:
    """Return the group of the traits that can be analysed, and which these are."""
    basis = covariate_basis(covariates[people], covariate_names) if people.size else None
    if basis is None or people.size - basis.rank - 1 <= 0:
        skipped += [(label, "too_few_people") for label in labels]
        return None, np.empty(0, dtype=np.int64)
    x = np.ascontiguousarray(basis.q.T) * np.sqrt(people.size)
    kept, fits = [], []
    for k, label in enumerate(labels):
        n_cases = int(status[k].sum())
        if n_cases < MIN_CASES or people.size - n_cases < MIN_CASES:
            skipped.append((label, "too_few_cases" if n_cases < MIN_CASES else "too_few_controls"))
            continue
        fit = _fit_null(x, status[k], None if offset is None else offset[k], options.correction)
        if fit is None:
            skipped.append((label, "null_not_converged"))
            continue
        kept.append(k)
        fits.append(fit)
    chosen = np.array(kept, dtype=np.int64)
    if not kept:
        return None, chosen
    penalised = [fit.penalised for fit in fits if fit.penalised is not None]
    null = NullModels(
        cases=np.ascontiguousarray(status[chosen]),
        probability=np.stack([fit.probability for fit in fits]),
        offset=np.zeros((1, people.size)) if offset is None else np.ascontiguousarray(offset[chosen]),
        coefficients=np.stack([fit.coefficients for fit in fits]),
        lower=np.stack([fit.lower for fit in fits]),
        log_likelihood=np.array([fit.log_likelihood for fit in fits]),
        penalised_offset=np.stack(penalised) if penalised else np.empty((0, people.size)),
    )
    return CaseGroup(slice(0, len(kept)), people, x, basis.dropped, null), chosen


def _at(group: CaseGroup, start: int) -> CaseGroup:
    """Return the group with its traits from column `start` on."""
    return CaseGroup(
        slice(start, start + group.null.cases.shape[0]), group.people, group.basis, group.dropped, group.null
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Null:
    probability: Float[np.ndarray, " observed"]
    coefficients: Float[np.ndarray, " rank"]
    lower: Float[np.ndarray, "rank rank"]
    log_likelihood: float
    penalised: Float[np.ndarray, " observed"] | None


def _fit_null(
    x: Float[np.ndarray, "rank observed"],
    cases: Int8[np.ndarray, " observed"],
    offset: Float[np.ndarray, " observed"] | None,
    correction: Correction,
) -> _Null | None:
    """Return the model without a variant; None when it has no finite maximum."""
    y = cases.astype(np.float64)
    known = np.zeros(y.size) if offset is None else np.ascontiguousarray(offset)
    b, no_factor = np.zeros(x.shape[0]), np.zeros((0, 0))
    b[0] = np.log(y.mean() / (1.0 - y.mean())) - known.mean()
    status, value, lower = maximise(x, y, known, b, b.size, False, _cases.PLAIN_ITERATIONS, 5.0, no_factor)
    if status != CONVERGED:
        return None
    probability, w = np.empty(y.size), np.empty(y.size)
    evaluate(b @ x + known, y, probability, w)
    penalised = None
    if correction == "firth-approx":
        b_penalised = b.copy()
        status, _, _ = maximise(x, y, known, b_penalised, b.size, True, MAX_ITERATIONS, MAX_STEP, no_factor)
        if status != CONVERGED:
            return None
        penalised = b_penalised @ x + known
    return _Null(probability, b, lower, float(value), penalised)


@dataclass(frozen=True, slots=True, eq=False)
class _GroupBlock:
    """One group of traits on one block; z and the like have the effect allele's sign."""

    z: Float[np.ndarray, "variants traits"]
    """Signed root of each test's chi-square; NaN without an estimate."""
    beta: Float[np.ndarray, "variants traits"]
    standard_error: Float[np.ndarray, "variants traits"]
    n: Int[np.ndarray, " variants"]
    effect_allele_frequency: Float[np.ndarray, " variants"]
    status: Int8[np.ndarray, " variants"]
    rows: Int[np.ndarray, " tests"]
    columns: Int[np.ndarray, " tests"]
    tests: Float[np.ndarray, "tests numbers"]
    """`_cases.COLUMNS` numbers of each test in float64, counted in the rarer allele except beta and z."""
    neg_log10_p: Float[np.ndarray, " tests"]


def _scan_group(
    design: LogisticDesign,
    group: CaseGroup,
    block: CallBlock,
    squares: Float32[np.ndarray, "variants samples"],
    settings: ScanSettings,
) -> _GroupBlock:
    n, total, centred, mean = _calls(group, block, design.n_samples)
    score, variance, weighted = _screen(group, block, squares, mean, design)
    copies = np.minimum(total, 2.0 * n - total)
    rules: list[Shaped[np.ndarray, " variants"]] = [
        n <= 0,
        centred <= 1e-6 * np.maximum(total, np.finfo(float).tiny),
        copies < settings.min_mac - 1e-3,
    ]
    status = np.select(rules, [1, 2, 3], default=0).astype(np.int8)
    usable = (status == 0)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(usable & (variance > 0), score / np.sqrt(variance), np.nan)
        beta, error = np.where(usable, score / variance, np.nan), np.where(usable, 1.0 / np.sqrt(variance), np.nan)
    options = design.settings
    least_z = -float(ndtri(options.screen / 2.0)) if options.screen < 1.0 else 0.0
    wanted = 0.0 if settings.hits > options.screen else least_z
    unstable = variance < _UNSTABLE_SHARE * weighted
    chosen = usable & (unstable | (np.abs(z) >= wanted * (1.0 - _NEAR)))
    rows, columns = np.nonzero(chosen)
    exact = (n < group.people.size) & (
        (settings.missing == "exact") | ((settings.missing == "auto") & (n < MIN_MEAN_CALL_RATE * group.people.size))
    )
    tests, p = _test(group, block, mean, rows, columns, exact[rows], options, least_z, design.n_samples)
    sign = block.sign[rows]
    for column in (_cases.BETA, _cases.Z, _cases.SCORE_Z):
        tests[:, column] *= sign
    z, beta = block.sign[:, None] * z, block.sign[:, None] * beta
    z[rows, columns], beta[rows, columns] = tests[:, _cases.Z], tests[:, _cases.BETA]
    error[rows, columns] = tests[:, _cases.ERROR]
    collinear = np.zeros(z.shape, dtype=bool)
    collinear[rows, columns] = tests[:, _cases.STATUS] == _cases.COLLINEAR
    status[(status == 0) & collinear.all(axis=1)] = STATUS.index("collinear")
    with np.errstate(invalid="ignore", divide="ignore"):
        frequency = total / (2.0 * n)
    frequency = np.where(block.sign < 0, 1.0 - frequency, frequency)
    return _GroupBlock(
        z, beta, error, np.rint(n).astype(np.int64), frequency, status, rows, columns, tests, p
    )  # fmt: skip


def _calls(
    group: CaseGroup, block: CallBlock, n_samples: int
) -> tuple[
    Float[np.ndarray, " variants"],
    Float[np.ndarray, " variants"],
    Float[np.ndarray, " variants"],
    Float[np.ndarray, " variants"],
]:
    """Return calls, copies, sum of squares about the mean, and mean count among the group's people."""
    n, total, square_sum = block.n_called.astype(np.float64), block.total, block.squares
    if group.people.size < n_samples:
        inside = np.zeros(n_samples, dtype=bool)
        inside[group.people] = True
        absent = 2 * group.people.size >= n_samples
        listed = np.flatnonzero(~inside) if absent else group.people
        inside = ~inside if absent else inside
        nothing = np.empty((block.counts.shape[0], 0), dtype=block.counts.dtype)
        sums = _kernels.sum_listed(block.counts, block.missing_start, block.missing_people, listed, inside, nothing)
        called = listed.size - sums[:, 2]
        n, total, square_sum = (
            (n - called, total - sums[:, 0], square_sum - sums[:, 1]) if absent else (called, sums[:, 0], sums[:, 1])
        )
    mean = total / np.maximum(n, 1.0)
    return n, total, square_sum - n * mean**2, mean


def _screen(
    group: CaseGroup,
    block: CallBlock,
    squares: Float32[np.ndarray, "variants samples"],
    mean: Float[np.ndarray, " variants"],
    design: LogisticDesign,
) -> tuple[
    Float[np.ndarray, "variants traits"], Float[np.ndarray, "variants traits"], Float[np.ndarray, "variants traits"]
]:
    """Return score, variance and weighted sum of squares of every test, by float32 products."""
    null, rank = group.null, group.basis.shape[0]
    n_variants, n_traits = block.counts.shape[0], null.cases.shape[0]
    score, variance = np.empty((n_variants, n_traits)), np.empty((n_variants, n_traits))
    weighted = np.empty((n_variants, n_traits))
    part = design.n_samples != group.people.size
    rows = np.flatnonzero(np.diff(block.missing_start) > 0) if part else np.empty(0, dtype=np.int64)
    shift, everyone = (mean - block.mean)[rows, None], np.ones(design.n_samples)
    step = max(1, design._chunk_columns() // (rank + 2))
    for first in range(0, n_traits, step):
        stop = min(first + step, n_traits)
        right = _right(group, first, stop, design.n_samples)
        linear, weights = right[:, : (stop - first) * (rank + 1)], right[:, (stop - first) * (rank + 1) :]
        product = np.asarray(block.counts @ linear, dtype=np.float64)
        square = np.asarray(squares @ weights, dtype=np.float64)
        if rows.size:
            absent = _kernels.sum_missing(rows, block.missing_start, block.missing_people, right, everyone)
            product[rows] += shift * absent[:, : linear.shape[1]]
            square[rows] += (mean[rows, None] ** 2 - block.mean[rows, None] ** 2) * absent[:, linear.shape[1] :]
        product = product.reshape(n_variants, stop - first, rank + 1)
        score[:, first:stop] = product[:, :, 0]
        weighted[:, first:stop] = square
        variance[:, first:stop] = square - (product[:, :, 1:] ** 2).sum(axis=2)
    return score, variance, weighted


def _right(group: CaseGroup, first: int, stop: int, n_samples: int) -> Float32[np.ndarray, "samples columns"]:
    """Return ``[y - mu | W C (C'WC)^(-1/2)]`` of each trait, then the weights of all; zero outside the group's people."""
    null, rank = group.null, group.basis.shape[0]
    right = np.zeros((n_samples, (stop - first) * (rank + 2)), dtype=np.float32)
    columns = np.empty((rank + 1, group.people.size))
    for k in range(first, stop):
        mu = null.probability[k]
        w = mu * (1.0 - mu)
        columns[0] = null.cases[k] - mu
        columns[1:] = np.linalg.solve(null.lower[k], group.basis) * w
        at = (k - first) * (rank + 1)
        right[group.people, at : at + rank + 1] = columns.T
        right[group.people, (stop - first) * (rank + 1) + k - first] = w
    return right


def _test(
    group: CaseGroup,
    block: CallBlock,
    mean: Float[np.ndarray, " variants"],
    rows: Int[np.ndarray, " tests"],
    columns: Int[np.ndarray, " tests"],
    exact: Bool[np.ndarray, " tests"],
    options: LogisticSettings,
    least_z: float,
    n_samples: int,
) -> tuple[Float[np.ndarray, "tests numbers"], Float[np.ndarray, " tests"]]:
    """Return the numbers of `_cases.fit_tests`, saddlepoint tails turned into z and error, and -log10 p."""
    place = np.full(n_samples, -1, dtype=np.int64)
    place[group.people] = np.arange(group.people.size)
    null = group.null
    correction = get_args(Correction).index(options.correction)
    tests = _cases.fit_tests(
        block.counts, group.people, place, block.missing_start, block.missing_people, mean,
        rows, columns, exact,
        group.basis, null.cases, null.probability, null.offset, null.coefficients, null.lower, null.log_likelihood,
        null.penalised_offset, correction, options.test == "wald", least_z,
    )  # fmt: skip
    p = neg_log10_p_from_z(tests[:, _cases.Z])
    spa = np.flatnonzero(tests[:, _cases.METHOD] == TEST_METHOD.index("spa"))
    if spa.size:
        p[spa] = neg_log10_of_tails(tests[spa, _cases.TAILS :])
        z = -ndtri_exp(-p[spa] * np.log(10.0) - np.log(2.0))
        tests[spa, _cases.Z] = np.copysign(z, tests[spa, _cases.SCORE_Z])
        with np.errstate(divide="ignore"):
            tests[spa, _cases.ERROR] = np.abs(tests[spa, _cases.BETA]) / z
    return tests, p


def _add(tallies: Tallies, parts: Sequence[_GroupBlock]) -> None:
    """Count every test in the histograms: z is t with so many degrees of freedom that they make no difference."""
    z = np.concatenate([part.z for part in parts], axis=1)
    many = np.full((z.shape[0], 1), 1e12)
    tally_t(z, many, many, np.zeros(z.shape[1], dtype=np.int64), tallies)


def _assemble(
    design: LogisticDesign, block: CallBlock, settings: ScanSettings, parts: Sequence[_GroupBlock]
) -> BlockResult:
    """Put the groups of a block together."""
    chosen = [_hits(part, group, block, settings) for part, group in zip(parts, design.groups, strict=True)]
    variant = np.concatenate([rows for rows, _, _ in chosen])
    trait = np.concatenate([columns for _, columns, _ in chosen])
    names = chosen[0][2]
    values = {name: np.concatenate([table[name] for _, _, table in chosen]) for name in names}
    order = np.lexsort((trait, variant))
    ok = np.stack([part.status == 0 for part in parts]).any(axis=0)
    return BlockResult(
        hit_variant=variant[order],
        hit_trait=trait[order],
        hit_values={name: column[order] for name, column in values.items()},
        status=np.where(ok, 0, parts[0].status).astype(np.int8),
        full_traits=_full_traits(parts) if settings.full else {},
        full_groups=_full_groups(parts) if settings.full else {},
    )


def _hits(
    part: _GroupBlock, group: CaseGroup, block: CallBlock, settings: ScanSettings
) -> tuple[Int[np.ndarray, " hits"], Int[np.ndarray, " hits"], dict[str, Shaped[np.ndarray, " hits"]]]:
    """Return variant, trait and columns of the tests that are kept: small p, or none though the score's is small."""
    code = part.tests[:, _cases.STATUS]
    failed = (code == _cases.SEPARATED) | (code == _cases.FAILED)
    p = np.where(failed, neg_log10_p_from_z(part.tests[:, _cases.SCORE_Z]), part.neg_log10_p)
    kept = np.flatnonzero(p >= -np.log10(settings.hits))
    tests, rows = part.tests[kept], part.rows[kept]
    frequencies = []
    for copies, people in ((_cases.COPIES_CASES, _cases.N_CASES), (_cases.COPIES_CONTROLS, _cases.N_CONTROLS)):
        with np.errstate(invalid="ignore", divide="ignore"):
            rarer = tests[:, copies] / (2.0 * tests[:, people])
        frequencies.append(np.where(block.sign[rows] < 0, 1.0 - rarer, rarer))
    table: dict[str, Shaped[np.ndarray, " hits"]] = {
        "effect_allele_frequency": part.effect_allele_frequency[rows],
        "n": part.n[rows],
        "beta": tests[:, _cases.BETA],
        "standard_error": tests[:, _cases.ERROR],
        "neg_log10_p": part.neg_log10_p[kept],
        "z": tests[:, _cases.Z],
        "method": np.array(TEST_METHOD)[tests[:, _cases.METHOD].astype(np.int64)],
        "n_cases": tests[:, _cases.N_CASES].astype(np.int64),
        "n_controls": tests[:, _cases.N_CONTROLS].astype(np.int64),
        "effect_allele_frequency_cases": frequencies[0],
        "effect_allele_frequency_controls": frequencies[1],
        "status": np.array(TEST_STATUS)[tests[:, _cases.STATUS].astype(np.int64)],
    }
    return rows.astype(np.int64), part.columns[kept].astype(np.int64) + group.columns.start, table


def _full_traits(parts: Sequence[_GroupBlock]) -> dict[str, Shaped[np.ndarray, "variants traits"]]:
    p = [neg_log10_p_from_z(part.z) for part in parts]
    columns = {
        "beta": [part.beta for part in parts],
        "standard_error": [part.standard_error for part in parts],
        "neg_log10_p": p,
    }
    return {name: np.concatenate(values, axis=1).astype(np.float32) for name, values in columns.items()}


def _full_groups(parts: Sequence[_GroupBlock]) -> dict[str, Shaped[np.ndarray, "variants groups"]]:
    return {
        "n": np.stack([part.n for part in parts], axis=1),
        "effect_allele_frequency": np.stack([part.effect_allele_frequency for part in parts], axis=1),
    }
