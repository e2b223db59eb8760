"""Genome-wide scan: streams blocks through the linear method and keeps what matters.

Data flow::

    traits, covariates, genotyped people --prepare_scan--> ScanPlan      (once)
    ScanPlan + source[start:stop]        --scan_shard-->   ShardResult   (per shard, on any executor, resumable)
    ShardResults in order                --merge_shards--> ScanResult    (hits, traits, variants, Q-Q counts)

In the pass: hits below a p-value, a histogram of -log10 p (bins of 0.01) and of the equivalent chi-square per
trait (for lambda_GC), and with ``full`` one t per test, from which beta, standard error and p follow
(`full_results`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int8, Shaped
from scipy.special import stdtrit

from brainlocus.core.errors import ResourceError, SchemaError, nearest
from brainlocus.core.genotypes import GenotypeSource, block_size_for, select_genotypes
from brainlocus.core.phenotypes import PhenotypeTable
from brainlocus.core.results import ResultTable, concat_results
from brainlocus.core.samples import SampleIndex, shared_samples
from brainlocus.core.text import text_array
from brainlocus.core.variants import VariantTable
from brainlocus.genetics.gwas import _kernels
from brainlocus.genetics.gwas.linear import (
    STATUS,
    LinearDesign,
    LinearScan,
    Missing,
    peak_bytes,
    prepare_linear,
    scan_linear,
)
from brainlocus.numerics.design import covariate_design
from brainlocus.numerics.tails import neg_log10_p_from_t, neg_log10_p_from_z

__all__ = [
    "QQ_BIN_WIDTH",
    "FullScan",
    "ScanPlan",
    "ScanResult",
    "ScanSettings",
    "ShardResult",
    "expand_full",
    "full_results",
    "lambda_gc",
    "merge_shards",
    "prepare_scan",
    "scan",
    "scan_shard",
    "shard_bounds",
]

QQ_BIN_WIDTH = 0.01
_QQ_BINS = 4001
"""-log10 p up to 40; the last bin holds everything above."""
_CHI2_BIN_WIDTH = 1.0 / 512.0
_CHI2_BINS = 4096
_RECOMPUTE_T = 4.0
_EXACT_BELOW_DF = 200.0
"""Below these degrees of freedom the histogram takes exact p-values, above Wallace's normal deviate."""
_MEDIAN_CHI2 = 0.454936423119572
"""Median of chi-square with one degree of freedom."""


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What is kept and how missing calls are treated."""

    hits: float = 1e-5
    """Largest p-value kept in the hits; 1 keeps every test."""
    min_mac: float = 20.0
    missing: Missing = "auto"
    full: bool = False
    """Keep one t per test."""

    def __post_init__(self) -> None:
        if not 0.0 < self.hits <= 1.0:
            raise ValueError(f"hits is a p-value in (0, 1], found {self.hits}.")
        if self.min_mac < 0.0:
            raise ValueError(f"min_mac is a count >= 0, found {self.min_mac}.")


@dataclass(frozen=True, slots=True, eq=False)
class ScanPlan:
    """Everything a shard needs besides genotypes."""

    design: LinearDesign
    samples: SampleIndex
    """Analysed people, in the order of the genotypes."""
    trait_names: tuple[str, ...]
    """All traits in the order given, skipped ones included."""
    settings: ScanSettings
    counts: dict[str, int] = field(default_factory=dict)
    """People with genotypes, with traits, with complete covariates, and analysed."""


@dataclass(frozen=True, slots=True, eq=False)
class FullScan:
    """One statistic per test, and what is needed to make beta, standard error and p of it."""

    t: Float32[np.ndarray, "variants traits"]
    """Columns in `LinearDesign.names` order; NaN where there is no estimate."""
    beta: Float32[np.ndarray, "variants traits"] | None
    """Only when missing calls were treated exactly: then beta does not follow from t and V alone."""
    residual_variance: Float[np.ndarray, "variants groups"]
    degrees_of_freedom: Float[np.ndarray, "variants groups"]
    n: Int[np.ndarray, "variants groups"]
    effect_allele_frequency: Float[np.ndarray, "variants groups"]


@dataclass(frozen=True, slots=True, eq=False)
class ShardResult:
    """What is kept of the variants ``start`` to ``stop``."""

    start: int
    stop: int
    hit_variant: Int[np.ndarray, " hits"]
    """Row in the scanned source."""
    hit_trait: Int[np.ndarray, " hits"]
    """Column of `LinearDesign.names`."""
    hit_values: Float[np.ndarray, "hits 5"]
    """effect_allele_frequency, n, beta, standard_error, neg_log10_p."""
    frequency: Float[np.ndarray, " variants"]
    """Among all analysed people."""
    n: Int[np.ndarray, " variants"]
    status: Int8[np.ndarray, " variants"]
    """0 when at least one group of traits has an estimate, else the first group's reason."""
    qq: Int[np.ndarray, "traits bins"]
    chi2: Int[np.ndarray, "traits chi2_bins"]
    full: FullScan | None


@dataclass(frozen=True, slots=True, eq=False)
class ScanResult:
    """A finished scan."""

    hits: ResultTable
    """One row per kept test, by trait in the given order, then smallest p first."""
    traits: ResultTable
    variants: ResultTable
    qq: Int[np.ndarray, "traits bins"]
    """Tests per bin of -log10 p of width `QQ_BIN_WIDTH`; rows as in `traits`, the last bin is open."""
    full: FullScan | None


def prepare_scan(
    traits: PhenotypeTable,
    samples: SampleIndex,
    *,
    covariates: PhenotypeTable | None = None,
    formula: str | None = None,
    names: Sequence[str] | None = None,
    settings: ScanSettings | None = None,
) -> ScanPlan:
    """Align people by id and reduce traits and covariates.

    Parameters
    ----------
    traits
        Quantitative traits, NaN = missing.
    samples
        People with genotypes.
    covariates
        None: intercept only. People with a missing covariate are left out (counted).
    formula
        Model over the covariate table (``age + I(age**2) + sex``); None: the sum of all its columns, text
        columns as dummies.
    names
        Traits to analyse; None: all numeric columns of the table.

    Raises
    ------
    AlignmentError
        No participant is shared.
    SchemaError
        A named trait or covariate is not there, or the formula cannot be read.
    ValueError
        Infinite values, more covariates than people, or no trait that can be analysed.
    """
    wanted = tuple(names) if names is not None else tuple(c.name for c in traits.columns if c.kind != "categorical")
    if not wanted:
        raise SchemaError("There is no trait to analyse: the table has no numeric column.")
    counts = {"with_genotypes": len(samples), "with_traits": len(traits.samples)}
    indexes, labels = [samples, traits.samples], ["genotypes", "traits"]
    matrix: Float[np.ndarray, "people covariates"]
    covariate_names: tuple[str, ...] = ()
    if covariates is None:
        people = shared_samples(*indexes, names=tuple(labels))
        matrix = np.empty((len(people), 0))
    else:
        counts["with_covariates"] = len(covariates.samples)
        people = shared_samples(*indexes, covariates.samples, names=(*labels, "covariates"))
        design = covariate_design(covariates.take(people), formula)
        counts["complete_covariates"] = int(design.complete.sum())
        people, matrix, covariate_names = people.take(design.complete), design.matrix[design.complete], design.names
        if not len(people):
            raise ValueError("Nobody has complete covariates; leave out the covariate that is missing, or impute it.")
    values = traits.take(people).matrix(wanted)
    observed = ~np.isnan(values).all(axis=1)
    if not observed.any():
        raise ValueError(f"None of the {len(people)} people has a value of any trait ({', '.join(wanted[:5])}).")
    people, matrix, values = people.take(observed), matrix[observed], values[observed]
    linear = prepare_linear(values, matrix, names=wanted, covariate_names=covariate_names)
    counts["analysed"] = len(people)
    return ScanPlan(linear, people, wanted, settings or ScanSettings(), counts)


def scan_shard(
    plan: ScanPlan, source: GenotypeSource, start: int, stop: int, *, memory_bytes: int = 1 << 30
) -> ShardResult:
    """Scan variants `start` up to but not including `stop`.

    Parameters
    ----------
    source
        Genotypes of exactly `plan.samples`, in this order (see `select_genotypes`).
    memory_bytes
        Bound on what the shard holds while it runs; the block size follows from it, the result does not.

    Raises
    ------
    ResourceError
        Not even blocks of 64 variants fit.
    """
    stop = min(stop, len(source.variants))
    block_size = _block_size(plan, stop - start, memory_bytes)
    n_traits = len(plan.design.names)
    qq = np.zeros((n_traits, _QQ_BINS), dtype=np.int64)
    chi2 = np.zeros((n_traits, _CHI2_BINS), dtype=np.int64)
    parts: list[_Block] = []
    for first in range(start, stop, block_size):
        dosage = source.read(first, min(first + block_size, stop)).dosage
        parts.append(_scan_block(plan, dosage, first, qq, chi2))
    return ShardResult(
        start=start,
        stop=stop,
        hit_variant=np.concatenate([p.hit_variant for p in parts]) if parts else np.empty(0, dtype=np.int64),
        hit_trait=np.concatenate([p.hit_trait for p in parts]) if parts else np.empty(0, dtype=np.int64),
        hit_values=np.concatenate([p.hit_values for p in parts]) if parts else np.empty((0, 5)),
        frequency=np.concatenate([p.frequency for p in parts]) if parts else np.empty(0),
        n=np.concatenate([p.n for p in parts]) if parts else np.empty(0, dtype=np.int64),
        status=np.concatenate([p.status for p in parts]) if parts else np.empty(0, dtype=np.int8),
        qq=qq,
        chi2=chi2,
        full=_join_full([p.full for p in parts if p.full is not None]) if plan.settings.full else None,
    )


def merge_shards(plan: ScanPlan, variants: VariantTable, shards: Iterable[ShardResult]) -> ScanResult:
    """Put shards, in order of their variants, together.

    Parameters
    ----------
    variants
        All variants of the scanned source.
    """
    n_traits = len(plan.design.names)
    qq = np.zeros((n_traits, _QQ_BINS), dtype=np.int64)
    chi2 = np.zeros((n_traits, _CHI2_BINS), dtype=np.int64)
    frequency, n = np.full(len(variants), np.nan), np.zeros(len(variants), dtype=np.int64)
    status = np.zeros(len(variants), dtype=np.int8)
    hit_variant, hit_trait, hit_values, full = [], [], [], []
    for shard in shards:
        qq += shard.qq
        chi2 += shard.chi2
        frequency[shard.start : shard.stop], n[shard.start : shard.stop] = shard.frequency, shard.n
        status[shard.start : shard.stop] = shard.status
        hit_variant.append(shard.hit_variant)
        hit_trait.append(shard.hit_trait)
        hit_values.append(shard.hit_values)
        full += [shard.full] if shard.full is not None else []
    rows = np.concatenate([*hit_variant, np.empty(0, dtype=np.int64)])
    columns = np.concatenate([*hit_trait, np.empty(0, dtype=np.int64)])
    values = np.concatenate([*hit_values, np.empty((0, 5))])
    place = _input_order(plan)
    order = np.lexsort((rows, -values[:, 4], place[columns])) if rows.size else np.empty(0, dtype=np.int64)
    rows, columns, values = rows[order], columns[order], values[order]
    n_hits = np.bincount(columns, minlength=n_traits)
    return ScanResult(
        hits=_hit_table(plan, variants, rows, columns, values),
        traits=_trait_table(plan, qq, chi2, n_hits),
        variants=_variant_table(variants, frequency, n, status),
        qq=qq[np.argsort(place, kind="stable")],
        full=_join_full(full) if full else None,
    )


def scan(
    source: GenotypeSource,
    traits: PhenotypeTable,
    *,
    covariates: PhenotypeTable | None = None,
    formula: str | None = None,
    names: Sequence[str] | None = None,
    settings: ScanSettings | None = None,
    memory_bytes: int = 1 << 30,
) -> ScanResult:
    """Test every variant for every trait, in this process; what ``brainlocus gwas run`` does.

    Raises
    ------
    AlignmentError, SchemaError, ValueError, ResourceError
        See `prepare_scan` and `scan_shard`.

    Examples
    --------
    >>> from brainlocus.core import ArrayGenotypes, quantitative_table
    >>> rng = np.random.default_rng(1)
    >>> people = SampleIndex.of(range(200))
    >>> calls = rng.binomial(2, 0.3, (5, 200)).astype(np.float32)
    >>> names = text_array([f"v{k}" for k in range(5)])
    >>> alleles = text_array(["A"] * 5)
    >>> table = VariantTable(np.array(["1"] * 5), np.arange(1, 6), alleles, alleles, names, "GRCh38")
    >>> trait = calls[2] + 0.5 * rng.normal(size=200)
    >>> result = scan(ArrayGenotypes(people, table, calls), quantitative_table(people, ["y"], trait[:, None]))
    >>> result.hits["variant_id"].tolist(), bool(abs(result.hits["beta"][0] - 1) < 0.2)
    (['v2'], True)
    """
    plan = prepare_scan(traits, source.samples, covariates=covariates, formula=formula, names=names, settings=settings)
    selected = select_genotypes(source, samples=plan.samples)
    shard = scan_shard(plan, selected, 0, len(source.variants), memory_bytes=memory_bytes)
    return merge_shards(plan, source.variants, [shard])


def full_results(plan: ScanPlan, variants: VariantTable, full: FullScan, trait: str) -> ResultTable:
    """Return every test of one trait.

    Raises
    ------
    SchemaError
        The trait was not analysed.
    """
    names = plan.design.names
    if trait not in names:
        raise SchemaError(
            f"There is no result for trait {trait!r}.{nearest(trait, names)} It was skipped or not given."
        )
    k = names.index(trait)
    g = next(i for i, group in enumerate(plan.design.groups) if group.columns.start <= k < group.columns.stop)
    beta = None if full.beta is None else full.beta[:, k]
    return expand_full(
        variants,
        t=full.t[:, k],
        beta=beta,
        residual_variance=full.residual_variance[:, g],
        degrees_of_freedom=full.degrees_of_freedom[:, g],
        n=full.n[:, g],
        effect_allele_frequency=full.effect_allele_frequency[:, g],
        norm=float(plan.design.norm[k]),
    )


def expand_full(
    variants: VariantTable,
    *,
    t: Float32[np.ndarray, " variants"],
    beta: Float32[np.ndarray, " variants"] | None,
    residual_variance: Float[np.ndarray, " variants"],
    degrees_of_freedom: Float[np.ndarray, " variants"],
    n: Int[np.ndarray, " variants"],
    effect_allele_frequency: Float[np.ndarray, " variants"],
    norm: float,
) -> ResultTable:
    """Return beta, standard error and p of stored t statistics.

    With W the squared length of the residual trait (`norm` squared)::

        beta = t sqrt(W / ((df + t^2) V))      standard_error = sqrt(W / ((df + t^2) V))
    """
    wide = t.astype(np.float64)
    if beta is None:
        error = norm / np.sqrt((degrees_of_freedom + wide**2) * residual_variance)
        slope = wide * error
    else:
        slope = beta.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(wide == 0.0, np.nan, slope / wide)
    return ResultTable(
        {
            "chromosome": variants.chromosome,
            "position": variants.position,
            "variant_id": variants.variant_id,
            "effect_allele": variants.effect_allele,
            "other_allele": variants.other_allele,
            "effect_allele_frequency": effect_allele_frequency,
            "n": n,
            "beta": slope,
            "standard_error": error,
            "neg_log10_p": neg_log10_p_from_t(wide, degrees_of_freedom),
        }
    )


def shard_bounds(n_variants: int, shard_size: int) -> list[tuple[int, int]]:
    """Return the ``(start, stop)`` of every shard, in order.

    Examples
    --------
    >>> shard_bounds(5, 2)
    [(0, 2), (2, 4), (4, 5)]
    """
    return [(start, min(start + shard_size, n_variants)) for start in range(0, n_variants, shard_size)]


def lambda_gc(chi2_counts: Int[np.ndarray, "traits bins"]) -> Float[np.ndarray, " traits"]:
    """Return the genomic inflation of each trait: median chi-square / 0.4549, interpolated within its bin.

    NaN without tests, infinite when the median lies beyond the last bin (a chi-square of 8).

    References
    ----------
    Devlin & Roeder (1999), Biometrics 55:997.
    """
    result = np.full(chi2_counts.shape[0], np.nan)
    for k, counts in enumerate(chi2_counts):
        cumulative = np.cumsum(counts)
        total = int(cumulative[-1])
        if not total:
            continue
        place = int(np.searchsorted(cumulative, total / 2.0))
        before = int(cumulative[place - 1]) if place else 0
        median = _CHI2_BIN_WIDTH * (place + (total / 2.0 - before) / int(counts[place]))
        result[k] = np.inf if place == counts.size - 1 else median / _MEDIAN_CHI2
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    hit_variant: Int[np.ndarray, " hits"]
    hit_trait: Int[np.ndarray, " hits"]
    hit_values: Float[np.ndarray, "hits 5"]
    frequency: Float[np.ndarray, " variants"]
    n: Int[np.ndarray, " variants"]
    status: Int8[np.ndarray, " variants"]
    full: FullScan | None


def scan_peak_bytes(plan: ScanPlan, block_size: int) -> int:
    """Return an upper estimate of the bytes that a block of `scan_shard` takes.

    The block as it is read and scanned in float32, and once more in float64 where a test comes near the threshold of
    hits (by chance alone, that share of the tests does).
    """
    n_samples, n_traits = len(plan.samples), len(plan.design.names)
    share = min(1.0, 1.1 * plan.settings.hits * n_traits)
    precise = int(share * block_size) * (16 * n_samples + 64 * n_traits)
    return peak_bytes(plan.design, block_size) + 4 * block_size * n_samples + precise


def _block_size(plan: ScanPlan, n_variants: int, memory_bytes: int) -> int:
    """Return the largest block, a power of two, whose peak fits."""
    size = block_size_for(len(plan.samples), memory_bytes)
    size = 1 << (size.bit_length() - 1)
    while size > 64 and scan_peak_bytes(plan, size) > memory_bytes:
        size //= 2
    needed = scan_peak_bytes(plan, size)
    if needed > memory_bytes:
        raise ResourceError(
            f"Blocks of {size} variants x {len(plan.samples)} people x {len(plan.design.names)} traits need "
            f"{needed / 2**20:.0f} MiB, {memory_bytes / 2**20:.0f} MiB are left. Raise --memory or split the traits."
        )
    return max(min(size, n_variants), 1)


def _scan_block(
    plan: ScanPlan,
    dosage: Float32[np.ndarray, "variants samples"],
    first: int,
    qq: Int[np.ndarray, "traits bins"],
    chi2: Int[np.ndarray, "traits chi2_bins"],
) -> _Block:
    settings = plan.settings
    result = scan_linear(plan.design, dosage, missing=settings.missing, min_mac=settings.min_mac)
    wanted_t = min(_RECOMPUTE_T, _critical_t(settings.hits, plan))
    magnitude = np.abs(result.t)
    candidate = magnitude >= wanted_t * (1.0 - 1e-3)
    rows = np.flatnonzero(candidate.any(axis=1) | result.unstable)
    fine: LinearScan | None = None
    if rows.size:
        fine = scan_linear(
            plan.design, dosage[rows], missing=settings.missing, min_mac=settings.min_mac, precision="double"
        )
        result = _with_rows(result, rows, fine)
    _count(result, qq, chi2)
    hit_variant, hit_trait, values = _hits_of(fine, rows, first, settings.hits)
    n, frequency = _overall(plan, result, dosage)
    ok = (result.status == 0).any(axis=1)
    status = np.where(ok, 0, result.status[:, 0]).astype(np.int8)
    return _Block(hit_variant, hit_trait, values, frequency, n, status, _full(plan, result) if settings.full else None)


def _critical_t(p: float, plan: ScanPlan) -> float:
    """Return the smallest |t| that can have two-sided p at most `p`: that of the largest degrees of freedom."""
    largest = max(g.n - g.rank - 1 for g in plan.design.groups)
    return 0.0 if p >= 1.0 else -float(stdtrit(largest, p / 2.0))


def _with_rows(result: LinearScan, rows: Int[np.ndarray, " kept"], fine: LinearScan) -> LinearScan:
    """Return the block with some rows replaced by their float64 versions."""
    t, score = result.t.astype(np.float32), result.score.copy()
    t[rows], score[rows] = fine.t, fine.score
    v, status = result.residual_variance.copy(), result.status.copy()
    v[rows], status[rows] = fine.residual_variance, fine.status
    return replace(result, t=t, score=score, residual_variance=v, status=status)


def _hits_of(
    fine: LinearScan | None, rows: Int[np.ndarray, " kept"], first: int, threshold: float
) -> tuple[Int[np.ndarray, " hits"], Int[np.ndarray, " hits"], Float[np.ndarray, "hits 5"]]:
    """Return the tests with p at most `threshold`, all from float64."""
    if fine is None:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty((0, 5))
    p = fine.neg_log10_p
    j, k = np.nonzero(p >= -np.log10(threshold))
    g = fine.group_of[k]
    values = np.column_stack(
        [fine.effect_allele_frequency[j, g], fine.n[j, g], fine.beta[j, k], fine.standard_error[j, k], p[j, k]]
    )
    return (rows[j] + first).astype(np.int64), k.astype(np.int64), values.astype(np.float64)


def _overall(
    plan: ScanPlan, result: LinearScan, dosage: Float32[np.ndarray, "variants samples"]
) -> tuple[Int[np.ndarray, " variants"], Float[np.ndarray, " variants"]]:
    """Return calls and frequency among everyone analysed, whatever their traits."""
    if plan.design.complete:
        return result.n[:, 0], result.effect_allele_frequency[:, 0]
    called = (~np.isnan(dosage)).sum(axis=1)
    total = np.nansum(dosage, axis=1, dtype=np.float64)
    return called.astype(np.int64), np.where(called > 0, total / np.maximum(2.0 * called, 1.0), np.nan)


def _full(plan: ScanPlan, result: LinearScan) -> FullScan:
    exact = result.norm.ndim == 2
    return FullScan(
        t=result.t.astype(np.float32),
        beta=result.beta.astype(np.float32) if exact or plan.settings.missing != "mean" else None,
        residual_variance=result.residual_variance,
        degrees_of_freedom=result.degrees_of_freedom,
        n=result.n,
        effect_allele_frequency=result.effect_allele_frequency,
    )


def _join_full(parts: list[FullScan]) -> FullScan | None:
    if not parts:
        return None
    beta = [p.beta for p in parts if p.beta is not None]
    return FullScan(
        t=np.concatenate([p.t for p in parts]),
        beta=np.concatenate(beta) if len(beta) == len(parts) else None,
        residual_variance=np.concatenate([p.residual_variance for p in parts]),
        degrees_of_freedom=np.concatenate([p.degrees_of_freedom for p in parts]),
        n=np.concatenate([p.n for p in parts]),
        effect_allele_frequency=np.concatenate([p.effect_allele_frequency for p in parts]),
    )


@lru_cache(maxsize=1)
def _normal_table() -> tuple[Float[np.ndarray, " grid"], float]:
    """Return -log10 p of the normal deviates 0, step, 2 step ... up to the last bin."""
    step = 1.0 / 1024.0
    grid = np.arange(0.0, 13.5, step)
    return neg_log10_p_from_z(grid), step


def _count(
    result: LinearScan,
    qq: Int[np.ndarray, "traits bins"],
    chi2: Int[np.ndarray, "traits chi2_bins"],
) -> None:
    """Add a block to the histograms; each variant's own degrees of freedom choose the way, so blocks change nothing."""
    df, t = result.degrees_of_freedom, result.t
    few = np.where(np.isnan(result.residual_variance), np.inf, df).min(axis=1) < _EXACT_BELOW_DF
    if few.any():
        _count_exactly(t[few].astype(np.float64), df[few][:, result.group_of], qq, chi2)
        t, df = t[~few], df[~few]
    table, step = _normal_table()
    _kernels.bin_statistics(t, df, result.group_of, table, step, QQ_BIN_WIDTH, _CHI2_BIN_WIDTH, qq, chi2)


def _count_exactly(
    t: Float[np.ndarray, "variants traits"],
    df: Float[np.ndarray, "variants traits"],
    qq: Int[np.ndarray, "traits bins"],
    chi2: Int[np.ndarray, "traits chi2_bins"],
) -> None:
    """Add tests with few degrees of freedom by their exact p-values."""
    p = neg_log10_p_from_t(t, df)
    tested = ~np.isnan(p)
    traits = np.broadcast_to(np.arange(qq.shape[0]), p.shape)[tested]
    np.add.at(qq, (traits, np.minimum(p[tested] / QQ_BIN_WIDTH, _QQ_BINS - 1).astype(np.int64)), 1)
    z2 = _chi2_from_neg_log10_p(p[tested])
    np.add.at(chi2, (traits, np.minimum(z2 / _CHI2_BIN_WIDTH, _CHI2_BINS - 1).astype(np.int64)), 1)


def _chi2_from_neg_log10_p(p: Float[np.ndarray, " tests"]) -> Float[np.ndarray, " tests"]:
    """Return the chi-square (one degree of freedom) with the same p, by the inverse of the normal table."""
    table, step = _normal_table()
    return np.asarray(np.interp(p, table, np.arange(table.size) * step) ** 2)


def _input_order(plan: ScanPlan) -> Int[np.ndarray, " traits"]:
    """Return the place of each design column among all traits as given."""
    at = {name: k for k, name in enumerate(plan.trait_names)}
    return np.array([at[name] for name in plan.design.names], dtype=np.int64)


def _hit_table(
    plan: ScanPlan,
    variants: VariantTable,
    rows: Int[np.ndarray, " hits"],
    columns: Int[np.ndarray, " hits"],
    values: Float[np.ndarray, "hits 5"],
) -> ResultTable:
    table: dict[str, Shaped[np.ndarray, " hits"]] = {"trait": text_array(plan.design.names)[columns]}
    table |= _place_columns(variants.take(rows))
    for k, name in enumerate(("effect_allele_frequency", "n", "beta", "standard_error", "neg_log10_p")):
        table[name] = values[:, k].astype(np.int64) if name == "n" else values[:, k]
    return ResultTable(table)


def _place_columns(variants: VariantTable) -> dict[str, Any]:
    return {
        "chromosome": variants.chromosome,
        "position": variants.position,
        "variant_id": variants.variant_id,
        "effect_allele": variants.effect_allele,
        "other_allele": variants.other_allele,
    }


def _trait_table(
    plan: ScanPlan,
    qq: Int[np.ndarray, "traits bins"],
    chi2: Int[np.ndarray, "traits chi2_bins"],
    n_hits: Int[np.ndarray, " traits"],
) -> ResultTable:
    n = [g.n for g in plan.design.groups for _ in range(g.columns.stop - g.columns.start)]
    done = ResultTable(
        {
            "trait": text_array(plan.design.names),
            "n": np.array(n, dtype=np.int64),
            "lambda_gc": lambda_gc(chi2),
            "n_hits": n_hits.astype(np.int64),
            "n_tests": qq.sum(axis=1).astype(np.int64),
            "reason": text_array([""] * len(n)),
        }
    )
    names = [name for name, _ in plan.design.skipped]
    zeros = np.zeros(len(names), dtype=np.int64)
    skipped = ResultTable(
        {
            "trait": text_array(names),
            "n": zeros,
            "lambda_gc": np.full(len(names), np.nan),
            "n_hits": zeros,
            "n_tests": zeros,
            "reason": text_array([reason for _, reason in plan.design.skipped]),
        }
    )
    both = concat_results([done, skipped])
    at = {name: k for k, name in enumerate(plan.trait_names)}
    return both.take(np.argsort([at[name] for name in both["trait"].tolist()], kind="stable"))


def _variant_table(
    variants: VariantTable,
    frequency: Float[np.ndarray, " variants"],
    n: Int[np.ndarray, " variants"],
    status: Int8[np.ndarray, " variants"],
) -> ResultTable:
    reasons = text_array(["", *STATUS[1:]])
    return ResultTable(
        _place_columns(variants)
        | {"effect_allele_frequency": frequency, "n": n, "reason": reasons[status.astype(np.int64)]}
    )
