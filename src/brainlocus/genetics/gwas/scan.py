"""Genome-wide scan: streams blocks through a method and keeps what matters.

Data flow::

    traits, covariates, genotyped people --prepare_scan--> ScanPlan      (once per set of people)
    ScanPlan + source[start:stop]        --scan_shard-->   ShardResult   (per shard, on any executor, resumable)
    ShardResults                         --merge_shards--> ScanResult    (hits, traits, variants, Q-Q counts)

In the pass: hits below a p-value, a histogram of -log10 p per trait (`tallies`, for Q-Q curves and lambda_GC), and with
``full`` every test. A scan may have several plans (chromosome X with sex as a covariate, a plan per chromosome when
polygenic predictions are taken out); they meet by the names of the traits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Int8, Shaped, UInt

from brainlocus.core.errors import ResourceError, SchemaError, nearest
from brainlocus.core.genotypes import GenotypeSource, select_genotypes
from brainlocus.core.phenotypes import PhenotypeTable
from brainlocus.core.results import ResultTable
from brainlocus.core.samples import SampleIndex, shared_samples
from brainlocus.core.text import text_array
from brainlocus.core.variants import VariantTable
from brainlocus.genetics.gwas.calls import calls_buffer, read_calls
from brainlocus.genetics.gwas.chromosomes import chromosome_classes
from brainlocus.genetics.gwas.linear import STATUS, prepare_linear
from brainlocus.genetics.gwas.linear_scan import LinearMethod
from brainlocus.genetics.gwas.logistic import LogisticSettings, prepare_logistic
from brainlocus.genetics.gwas.logistic_scan import LogisticMethod
from brainlocus.genetics.gwas.method import BlockResult, CallBlock, ScanDesign, ScanSettings, Tallies
from brainlocus.genetics.gwas.tallies import empty_tallies, lambda_gc, qq_counts
from brainlocus.numerics.design import covariate_design
from brainlocus.numerics.imputation import mach_r2_of_sums
from brainlocus.numerics.tails import neg_log10_p_from_t

__all__ = [
    "FullScan",
    "ScanPlan",
    "ScanResult",
    "ShardResult",
    "expand_full",
    "full_results",
    "merge_shards",
    "prepare_scan",
    "scan",
    "scan_peak_bytes",
    "scan_shard",
    "shard_bounds",
]

_BLOCK_BYTES = 32 << 20
"""Counts of a block: small enough for the caches that the cores share, large enough for the matrix product."""
_HIT_COLUMNS = ("effect_allele_frequency", "n", "beta", "standard_error", "neg_log10_p")


@dataclass(frozen=True, slots=True, eq=False)
class ScanPlan:
    """Everything a shard needs besides genotypes."""

    method: ScanDesign
    samples: SampleIndex
    """Analysed people, in the order of the genotypes."""
    trait_names: tuple[str, ...]
    """All traits in the order given, skipped ones included."""
    settings: ScanSettings
    counts: dict[str, int] = field(default_factory=dict)
    """People with genotypes, with traits, with complete covariates, and analysed."""


@dataclass(frozen=True, slots=True, eq=False)
class FullScan:
    """Every test, as the method stores it."""

    traits: dict[str, Shaped[np.ndarray, "variants traits"]]
    """One value per variant and trait, columns in the order of the method's names; NaN where there is no estimate."""
    groups: dict[str, Shaped[np.ndarray, "variants groups"]]
    """One value per variant and group of traits with the same people."""


@dataclass(frozen=True, slots=True, eq=False)
class ShardResult:
    """What is kept of a part of the variants."""

    rows: Int[np.ndarray, " variants"]
    """Rows among all variants of the scan."""
    hit_variant: Int[np.ndarray, " hits"]
    """Row among all variants of the scan."""
    hit_trait: Int[np.ndarray, " hits"]
    """Place in `ScanPlan.trait_names`."""
    hit_values: dict[str, Shaped[np.ndarray, " hits"]]
    """Columns of the table of hits."""
    frequency: Float[np.ndarray, " variants"]
    """Of the effect allele among all analysed people."""
    n: Int[np.ndarray, " variants"]
    info: Float[np.ndarray, " variants"]
    """MaCH r2 of dosages; NaN for hard calls. None of X and Y in `ScanResult.variants`."""
    status: Int8[np.ndarray, " variants"]
    """0 when at least one group of traits has an estimate, else the first group's reason."""
    tallies: UInt[np.ndarray, "traits used_bins"]
    """`Tallies.counts` up to the last bin that has a test; rows as in `ScanPlan.trait_names`."""
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
    offset: PhenotypeTable | None = None,
    settings: ScanSettings | None = None,
    method: Literal["linear", "logistic"] = "linear",
    logistic: LogisticSettings | None = None,
) -> ScanPlan:
    """Align people by id and reduce traits and covariates.

    Parameters
    ----------
    traits
        Quantitative traits, or for logistic regression binary ones (0/1 or 1/2); NaN = missing.
    samples
        People with genotypes.
    covariates
        None: intercept only. People with a missing covariate are left out (counted).
    formula
        Model over the covariate table (``age + I(age**2) + sex``); None: the sum of all its columns, text
        columns as dummies.
    names
        Traits to analyse; None: all numeric columns of the table.
    offset
        Polygenic predictions of a whole-genome regression, with the columns `names`: taken from each quantitative
        trait before anything else, or the known part of a binary trait's log-odds. People who are not in it, and
        traits of people without a prediction, are left out.
    logistic
        How binary traits are tested; only for ``method="logistic"``.

    Raises
    ------
    AlignmentError
        No participant is shared.
    SchemaError
        A named trait or covariate is not there, or the formula cannot be read.
    ValueError
        Infinite values, a trait that is not binary for logistic regression, more covariates than people, or no trait
        that can be analysed.
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
        model = covariate_design(covariates.take(people), formula)
        counts["complete_covariates"] = int(model.complete.sum())
        people, matrix, covariate_names = people.take(model.complete), model.matrix[model.complete], model.names
        if not len(people):
            raise ValueError("Nobody has complete covariates; leave out the covariate that is missing, or impute it.")
    if offset is not None:
        before = people
        people = people.take(offset.samples.indices_of(people) >= 0)
        matrix = matrix[before.indices_of(people)]
    values = traits.take(people).matrix(wanted)
    known: Float[np.ndarray, "people traits"] | None = None
    if offset is not None:
        known = offset.take(people).matrix(wanted)
        values = np.where(np.isnan(known), np.nan, values)
    observed = ~np.isnan(values).all(axis=1)
    if not observed.any():
        raise ValueError(f"None of the {len(people)} people has a value of any trait ({', '.join(wanted[:5])}).")
    people, matrix, values = people.take(observed), matrix[observed], values[observed]
    known = None if known is None else known[observed]
    counts["analysed"] = len(people)
    design: ScanDesign
    if method == "logistic":
        if settings is not None and settings.device != "cpu":
            raise ValueError(f"--device {settings.device} is for linear regression; logistic regression runs on cpu.")
        design = LogisticMethod(
            prepare_logistic(
                values, matrix, names=wanted, covariate_names=covariate_names, offset=known, settings=logistic
            )
        )
    else:
        values = values if known is None else values - known
        design = LinearMethod(prepare_linear(values, matrix, names=wanted, covariate_names=covariate_names))
    return ScanPlan(design, people, wanted, settings or ScanSettings(), counts)


def scan_shard(
    plan: ScanPlan,
    source: GenotypeSource,
    start: int,
    stop: int,
    *,
    rows: Int[np.ndarray, " scanned"] | None = None,
    memory_bytes: int = 1 << 30,
) -> ShardResult:
    """Scan variants `start` up to but not including `stop`.

    Parameters
    ----------
    source
        Genotypes of exactly `plan.samples`, in this order (see `select_genotypes`).
    rows
        Row of each of the source's variants among all variants of the scan; None: the source has them all.
    memory_bytes
        Bound on what the shard holds while it runs; the block size follows from it, the result does not.

    Raises
    ------
    ResourceError
        Not even blocks of 64 variants fit.
    """
    stop = min(stop, len(source.variants))
    size = _block_size(plan, stop - start, memory_bytes)
    buffer = calls_buffer(size, len(plan.samples)) if plan.settings.device == "cpu" else None
    tallies = empty_tallies(len(plan.method.names))
    parts = [
        _scan_block(plan, read_calls(source, first, min(first + size, stop), buffer), tallies)
        for first in range(start, stop, size)
    ]
    scanned = np.arange(start, stop) if rows is None else rows[start:stop]
    place = _places(plan)
    full = None
    if plan.settings.full:
        full = FullScan(_joined([p.kept.full_traits for p in parts]), _joined([p.kept.full_groups for p in parts]))
    return ShardResult(
        rows=scanned,
        hit_variant=scanned[_joined_array([p.kept.hit_variant + p.start - start for p in parts], np.int64)],
        hit_trait=place[_joined_array([p.kept.hit_trait for p in parts], np.int64)],
        hit_values=_joined([p.kept.hit_values for p in parts]),
        frequency=_joined_array([p.frequency for p in parts], np.float64),
        n=_joined_array([p.n for p in parts], np.int64),
        info=_joined_array([p.info for p in parts], np.float64),
        status=_joined_array([p.kept.status for p in parts], np.int8),
        tallies=_used(tallies.counts, place, len(plan.trait_names)),
        full=full,
    )


def merge_shards(
    plans: ScanPlan | Sequence[ScanPlan], variants: VariantTable, shards: Iterable[ShardResult]
) -> ScanResult:
    """Put the shards of one or several plans together.

    Parameters
    ----------
    plans
        Those that the shards were scanned with; all have the same `trait_names`.
    variants
        All variants of the scan.
    """
    several = [plans] if isinstance(plans, ScanPlan) else list(plans)
    names = several[0].trait_names
    total = empty_tallies(len(names))
    frequency, n = np.full(len(variants), np.nan), np.zeros(len(variants), dtype=np.int64)
    info, status = np.full(len(variants), np.nan), np.zeros(len(variants), dtype=np.int8)
    hits: list[ShardResult] = []
    full: list[FullScan] = []
    for shard in shards:
        total.counts[:, : shard.tallies.shape[1]] += shard.tallies
        frequency[shard.rows], n[shard.rows] = shard.frequency, shard.n
        info[shard.rows], status[shard.rows] = shard.info, shard.status
        hits.append(shard)
        full += [shard.full] if shard.full is not None else []
    rows = _joined_array([h.hit_variant for h in hits], np.int64)
    columns = _joined_array([h.hit_trait for h in hits], np.int64)
    values = _joined([h.hit_values for h in hits]) or {name: np.empty(0) for name in _HIT_COLUMNS}
    order = np.lexsort((rows, -values["neg_log10_p"], columns))
    table: dict[str, Shaped[np.ndarray, " hits"]] = {"trait": text_array(names)[columns[order]]}
    table |= _place_columns(variants.take(rows[order]))
    table |= {
        name: text_array(column[order]) if column.dtype.kind == "U" else column[order]
        for name, column in values.items()
    }
    return ScanResult(
        hits=ResultTable(table),
        traits=_trait_table(several, total, np.bincount(columns, minlength=len(names))),
        variants=_variant_table(variants, frequency, n, info, status),
        qq=qq_counts(total),
        full=FullScan(_joined([f.traits for f in full]), _joined([f.groups for f in full])) if full else None,
    )


def scan(
    source: GenotypeSource,
    traits: PhenotypeTable,
    *,
    covariates: PhenotypeTable | None = None,
    formula: str | None = None,
    names: Sequence[str] | None = None,
    settings: ScanSettings | None = None,
    method: Literal["linear", "logistic"] = "linear",
    logistic: LogisticSettings | None = None,
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
    plan = prepare_scan(
        traits, source.samples, covariates=covariates, formula=formula, names=names, settings=settings, method=method,
        logistic=logistic,
    )  # fmt: skip
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
    names = plan.method.names
    if trait not in names:
        raise SchemaError(
            f"There is no result for trait {trait!r}.{nearest(trait, names)} It was skipped or not given."
        )
    k, about = names.index(trait), plan.method.full_index()[trait]
    columns = {name: values[:, k] for name, values in full.traits.items()}
    columns |= {name: values[:, int(str(about["group"]))] for name, values in full.groups.items()}
    return expand_full(variants, columns, norm=float(str(about.get("norm", "nan"))))


def expand_full(
    variants: VariantTable, columns: dict[str, Shaped[np.ndarray, " variants"]], *, norm: float
) -> ResultTable:
    """Return beta, standard error and p of one trait's stored numbers.

    A method that stores ``beta``, ``standard_error`` and ``neg_log10_p`` is taken at its word. For a linear scan,
    with W the squared length of the residual trait (`norm` squared)::

        beta = t sqrt(W / ((df + t^2) V))      standard_error = sqrt(W / ((df + t^2) V))

    and where ``beta`` is stored beside ``t`` (missing calls taken out), standard_error = beta / t.
    """
    if "neg_log10_p" in columns:
        slope, error = columns["beta"].astype(np.float64), columns["standard_error"].astype(np.float64)
        p = columns["neg_log10_p"].astype(np.float64)
    else:
        t, df = columns["t"].astype(np.float64), columns["degrees_of_freedom"]
        error = norm / np.sqrt((df + t**2) * columns["residual_variance"])
        slope = t * error
        if "beta" in columns:
            given = columns["beta"].astype(np.float64)
            stored = ~np.isnan(given) & (t != 0.0)
            slope = np.where(stored, given, slope)
            error = np.where(stored, slope / np.where(stored, t, 1.0), error)
        p = neg_log10_p_from_t(t, df)
    return ResultTable(
        _place_columns(variants)
        | {
            "effect_allele_frequency": columns["effect_allele_frequency"],
            "n": columns["n"],
            "beta": slope,
            "standard_error": error,
            "neg_log10_p": p,
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


def scan_peak_bytes(plan: ScanPlan, block_size: int) -> int:
    """Return an upper estimate of the bytes that a block of `scan_shard` takes.

    As it is read (packed, or as dosages), counted in the rarer allele, and what the method makes of it.
    """
    reading = 12 * block_size * len(plan.samples)
    return reading + plan.method.peak_bytes(block_size, plan.settings)


def _block_size(plan: ScanPlan, n_variants: int, memory_bytes: int) -> int:
    """Return the largest block, a power of two from 64 to 4,096, that fits memory and caches."""
    size = 64
    while size < 4096 and 8 * size * len(plan.samples) <= _BLOCK_BYTES:
        size *= 2
    while size > 64 and scan_peak_bytes(plan, size) > memory_bytes:
        size //= 2
    needed = scan_peak_bytes(plan, size)
    if needed > memory_bytes:
        raise ResourceError(
            f"Blocks of {size} variants x {len(plan.samples)} people x {len(plan.method.names)} traits need "
            f"{needed / 2**20:.0f} MiB, {memory_bytes / 2**20:.0f} MiB are left. Raise --memory or split the traits."
        )
    return max(min(size, n_variants), 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    start: int
    kept: BlockResult
    frequency: Float[np.ndarray, " variants"]
    n: Int[np.ndarray, " variants"]
    info: Float[np.ndarray, " variants"]


def _scan_block(plan: ScanPlan, block: CallBlock, tallies: Tallies) -> _Block:
    kept = plan.method.scan_block(block, plan.settings, tallies)
    return _Block(block.start, kept, block.effect_allele_frequency, block.n_called, _mach_r2(block))


def _mach_r2(block: CallBlock) -> Float[np.ndarray, " variants"]:
    """Return MaCH's r2 of dosages; NaN for hard calls."""
    whole = (block.total == np.rint(block.total)) & (block.squares == np.rint(block.squares))
    n = block.n_called.astype(np.float64)
    return np.where(whole, np.nan, mach_r2_of_sums(n, block.total, block.squares - n * block.mean**2))


def _joined_array(parts: list[Shaped[np.ndarray, " _rows"]], dtype: type) -> Shaped[np.ndarray, " joined"]:
    return np.concatenate([*parts, np.empty(0, dtype=dtype)]).astype(dtype, copy=False)


def _joined(parts: list[dict[str, Shaped[np.ndarray, "_rows *columns"]]]) -> dict[str, Any]:
    """Return the parts of each column one below the other; floats are NaN where a part lacks the column."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    joined: dict[str, Any] = {}
    for name in names:
        like = next(part[name] for part in parts if name in part)
        heights = [len(next(iter(part.values()))) for part in parts if part]
        filled = [
            part[name] if name in part else np.full((height, *like.shape[1:]), np.nan, dtype=like.dtype)
            for part, height in zip((part for part in parts if part), heights, strict=True)
        ]
        joined[name] = np.concatenate(filled)
    return joined


def _places(plan: ScanPlan) -> Int[np.ndarray, " traits"]:
    """Return the place of each analysed trait among all traits as given."""
    at = {name: k for k, name in enumerate(plan.trait_names)}
    return np.array([at[name] for name in plan.method.names], dtype=np.int64)


def _used(
    counts: Int[np.ndarray, "traits bins"], place: Int[np.ndarray, " traits"], n_traits: int
) -> UInt[np.ndarray, "given used_bins"]:
    """Return the bins up to the last that is used, in the order in which the traits were given."""
    width = int(np.flatnonzero(counts.any(axis=0)).max(initial=-1)) + 1
    given = np.zeros((n_traits, width), dtype=np.uint32)
    given[place] = counts[:, :width]
    return given


def _place_columns(variants: VariantTable) -> dict[str, Any]:
    return {
        "chromosome": variants.chromosome,
        "position": variants.position,
        "variant_id": variants.variant_id,
        "effect_allele": variants.effect_allele,
        "other_allele": variants.other_allele,
    }


def _trait_table(plans: list[ScanPlan], tallies: Tallies, n_hits: Int[np.ndarray, " traits"]) -> ResultTable:
    """Return all traits as given; people and reasons are those of the first plan that has the trait."""
    n: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for plan in plans:
        for name, people in zip(plan.method.names, plan.method.n_observed.tolist(), strict=True):
            n.setdefault(name, people)
        for name, reason in plan.method.skipped:
            reasons.setdefault(name, reason)
    names = plans[0].trait_names
    table: dict[str, Shaped[np.ndarray, " traits"]] = {
        "trait": text_array(names),
        "n": np.array([n.get(name, 0) for name in names], dtype=np.int64),
        **_status_columns(plans, names, n),
        "lambda_gc": lambda_gc(tallies),
        "n_hits": n_hits.astype(np.int64),
        "n_tests": tallies.counts.sum(axis=1).astype(np.int64),
        "reason": text_array(["" if name in n else reasons.get(name, "") for name in names]),
    }
    return ResultTable(table)


def _status_columns(
    plans: list[ScanPlan], names: Sequence[str], n: dict[str, int]
) -> dict[str, Int[np.ndarray, " traits"]]:
    """Return cases and controls of each trait; nothing unless the traits are binary."""
    designs = [plan.method.design for plan in plans if isinstance(plan.method, LogisticMethod)]
    if not designs:
        return {}
    cases: dict[str, int] = {}
    for design in designs:
        for name, count in zip(design.names, design.n_cases.tolist(), strict=True):
            cases.setdefault(name, count)
    n_cases = np.array([cases.get(name, 0) for name in names], dtype=np.int64)
    return {"n_cases": n_cases, "n_controls": np.array([n.get(name, 0) for name in names], dtype=np.int64) - n_cases}


def _variant_table(
    variants: VariantTable,
    frequency: Float[np.ndarray, " variants"],
    n: Int[np.ndarray, " variants"],
    info: Float[np.ndarray, " variants"],
    status: Int8[np.ndarray, " variants"],
) -> ResultTable:
    reasons = text_array(["", *STATUS[1:]])
    # Men hold 0 or 2 copies, or 0 or 1: the variance expected of two chromosomes is not theirs.
    info = np.where(np.isin(chromosome_classes(variants), ("X", "Y")), np.nan, info)
    return ResultTable(
        _place_columns(variants)
        | {"effect_allele_frequency": frequency, "n": n, "info": info, "reason": reasons[status.astype(np.int64)]}
    )
