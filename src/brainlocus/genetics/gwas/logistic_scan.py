"""Block by block through a `LogisticDesign`: float32 products screen, float64 fits follow where it matters.

Data flow of a block::

    counts, counts^2 @ [y - mu | W C (C'WC)^(-1/2) | w]  --_screen-->  score and variance of every test
    score p below the screen, or rows that float32 cannot settle  --_test-->  exact score, then the fit asked for

A test near the screen's p is decided by its exact score, so that rounding does not choose the method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int8, Shaped
from scipy.special import ndtri, ndtri_exp

from brainlocus.core.errors import AlignmentError
from brainlocus.genetics.gwas import _cases, _kernels
from brainlocus.genetics.gwas.linear import STATUS
from brainlocus.genetics.gwas.linear_scan import MIN_MEAN_CALL_RATE
from brainlocus.genetics.gwas.logistic import CaseGroup, Correction, LogisticDesign, LogisticSettings
from brainlocus.genetics.gwas.method import BlockResult, CallBlock, OfDesign, ScanSettings, Tallies
from brainlocus.genetics.gwas.saddlepoint import neg_log10_of_tails
from brainlocus.genetics.gwas.tallies import tally_t
from brainlocus.numerics.tails import neg_log10_p_from_z

__all__ = ["TEST_METHOD", "TEST_STATUS", "LogisticMethod"]

TEST_METHOD = ("score", "logistic", "firth", "firth-approx", "spa")
"""How a test was made, by code."""
TEST_STATUS = ("ok", "separated", "not_converged", "collinear")
"""Why a test has no estimate, by code."""
_UNSTABLE_SHARE = 0.02
"""Share of the weighted sum of squares below which a float32 difference has lost two digits: tested in float64."""
_NEAR = 1e-3
"""Relative distance below the screen's |z| from which the exact score decides, so that rounding does not."""
_CHUNK_COLUMNS = 256
"""Columns of one matrix product."""


@dataclass(frozen=True, slots=True, eq=False)
class LogisticMethod(OfDesign[LogisticDesign]):
    """The logistic regression as a method of the scan; implements `ScanDesign`."""

    def peak_bytes(self, block_size: int, settings: ScanSettings) -> int:
        """Return an upper estimate of the bytes that `scan_block` takes besides the block itself."""
        design, screen = self.design, self.design.settings.screen
        columns = _chunk_columns(design)
        n, q = design.n_samples, len(design.names)
        rank = int(design.common.shape[0])
        share = 1.0 if settings.hits > screen else min(1.0, 1.5 * screen)
        products = block_size * (4 * n + 12 * columns) + 4 * n * columns
        kept = block_size * q * (6 * 8 + int(share * (_cases.COLUMNS + 12) * 8))
        return products + kept + (4 * rank + 24) * 8 * n

    def full_index(self) -> dict[str, dict[str, object]]:
        """Return group, n, cases and controls of every trait."""
        index: dict[str, dict[str, object]] = {}
        for g, group in enumerate(self.design.groups):
            for k in range(group.columns.start, group.columns.stop):
                cases = int(group.null.cases[k - group.columns.start].sum())
                index[self.design.names[k]] = {
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
        design = self.design
        if block.counts.shape[1] != design.n_samples:
            raise AlignmentError(
                f"The block has {block.counts.shape[1]} samples, the design {design.n_samples}; select first."
            )
        squares = block.counts * block.counts
        parts = [_scan_group(design, group, block, squares, settings) for group in design.groups]
        _add(tallies, parts)
        return _assemble(design, block, settings, parts)


def _chunk_columns(design: LogisticDesign) -> int:
    return max(_CHUNK_COLUMNS, int(design.common.shape[0]) + 2)


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
    basis = design.basis(group)
    score, variance, weighted = _screen(design, group, basis, block, squares, mean)
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
    tests, p = _test(group, basis, block, mean, rows, columns, exact[rows], options, least_z, design.n_samples)
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
    design: LogisticDesign,
    group: CaseGroup,
    basis: Float[np.ndarray, "rank observed"],
    block: CallBlock,
    squares: Float32[np.ndarray, "variants samples"],
    mean: Float[np.ndarray, " variants"],
) -> tuple[
    Float[np.ndarray, "variants traits"], Float[np.ndarray, "variants traits"], Float[np.ndarray, "variants traits"]
]:
    """Return score, variance and weighted sum of squares of every test, by float32 products."""
    null, rank = group.null, int(basis.shape[0])
    n_variants, n_traits = block.counts.shape[0], null.cases.shape[0]
    score, variance = np.empty((n_variants, n_traits)), np.empty((n_variants, n_traits))
    weighted = np.empty((n_variants, n_traits))
    part = design.n_samples != group.people.size
    rows = np.flatnonzero(np.diff(block.missing_start) > 0) if part else np.empty(0, dtype=np.int64)
    shift, everyone = (mean - block.mean)[rows, None], np.ones(design.n_samples)
    step = max(1, _chunk_columns(design) // (rank + 2))
    for first in range(0, n_traits, step):
        stop = min(first + step, n_traits)
        right = _right(group, basis, first, stop, design.n_samples)
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


def _right(
    group: CaseGroup, basis: Float[np.ndarray, "rank observed"], first: int, stop: int, n_samples: int
) -> Float32[np.ndarray, "samples columns"]:
    """Return ``[y - mu | W C (C'WC)^(-1/2)]`` of each trait, then the weights of all; zero outside the group."""
    null, rank = group.null, int(basis.shape[0])
    right = np.zeros((n_samples, (stop - first) * (rank + 2)), dtype=np.float32)
    columns = np.empty((rank + 1, group.people.size))
    for k in range(first, stop):
        mu = null.probability[k]
        w = mu * (1.0 - mu)
        columns[0] = null.cases[k] - mu
        columns[1:] = np.linalg.solve(null.lower[k], basis) * w
        at = (k - first) * (rank + 1)
        right[group.people, at : at + rank + 1] = columns.T
        right[group.people, (stop - first) * (rank + 1) + k - first] = w
    return right


def _test(
    group: CaseGroup,
    basis: Float[np.ndarray, "rank observed"],
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
        basis, null.cases, null.probability, null.offset, null.coefficients, null.lower, null.log_likelihood,
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
