"""``multivariate cca|pls|rrr|ica``: modes in which two tables of the same people vary together.

OUT has ``modes.tsv``, ``loadings_x.tsv``, ``loadings_y.tsv``, ``scores.parquet`` (held-out variates), ``folds.tsv``,
``permutations.parquet`` and figures; of genotypes also ``blocks.tsv``, of ``ica`` also ``components.tsv``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import BeforeValidator, Field

from brainlocus.cohort.multivariate import (
    DEFAULT_THRESHOLDS,
    PLS,
    Exchange,
    FinalModel,
    FoldPlan,
    HeldOut,
    LinkedModes,
    Method,
    ParallelIca,
    Penalty,
    PermutationTest,
    Resampled,
    RidgeCca,
    SparseCca,
    SparseReducedRank,
    StableComponents,
    check_bounds,
    check_exchange,
    check_unregularised,
    choose_penalty,
    count_components,
    cross_validate_modes,
    fit_everyone,
    fit_parallel_ica,
    held_out_interval,
    linked_modes,
    mode_correlations,
    neighbour_blocks,
    out_of_fold,
    permutation_shares,
    permute_modes,
    plan_folds,
    resample_modes,
    ridge_grid,
    sparse_grid,
    stable_components,
    standardise,
    with_loadings,
)
from brainlocus.core import ResultTable, SchemaError, concat_results
from brainlocus.core.text import text_array
from brainlocus.io import write_results
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, Positional, StepConfig
from brainlocus.pipeline.figures.multivariate import draw_loadings, draw_null, draw_variates
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.paired_tables import PairedInput, read_paired
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = [
    "MULTIVARIATE_CCA",
    "MULTIVARIATE_ICA",
    "MULTIVARIATE_PLS",
    "MULTIVARIATE_RRR",
    "MultivariateCcaConfig",
    "MultivariateConfig",
    "MultivariateIcaConfig",
    "MultivariatePlsConfig",
    "MultivariateRrrConfig",
]


def _numbers(value: object) -> object:
    if isinstance(value, str):
        return () if value.strip() == "auto" else [part.strip() for part in value.split(",") if part.strip()]
    return value


Penalties = Annotated[tuple[float, ...], BeforeValidator(_numbers)]


class MultivariateConfig(StepConfig):
    """What the multivariate steps share."""

    x: Annotated[InputPath, Positional()] = Field(
        description="Table of people x measures, or genotypes (.bed, .pgen, .bgen, .vcf.gz, .bcf) of at most 20,000 "
        "variants"
    )
    y: Annotated[InputPath, Positional()] = Field(description="Table of other measures of the same people")
    participants: InputPath | None = Field(None, description="Table with covariates and groups; Y by default")
    covariates: str = Field("", description="Formula taken out of both tables in every training set: 'age + sex'")
    groups: str | None = Field(None, description="Column of families or sites, which are never divided between folds")
    exchange: Literal["free", "within", "whole"] | None = Field(
        None,
        description="Who changes places in a permutation: all people, those of a group (sites), or groups of one size "
        "as wholes (families); free without --groups, whole with",
    )
    columns_x: CommaList = Field((), description="Columns of X, names or patterns; every numeric column by default")
    columns_y: CommaList = Field((), description="Columns of Y, names or patterns; every numeric column by default")
    variants: CommaPaths = Field((), description="Lists of the variants to take, where X is genotypes")
    genome_build: str = Field("unknown", description="Assembly of the positions of the variants")
    impute: Literal["none", "mean"] = Field(
        "none",
        description="Missing values: leave the person out, or take the mean of the training people (always of dosages)",
    )
    modes: int = Field(3, ge=1, description="Modes to find")
    folds: int = Field(5, ge=2, description="Outer folds, in which modes are judged")
    inner_folds: int = Field(5, ge=2, description="Folds of each training set, which choose its penalties")
    permutations: int = Field(1000, ge=0, description="Permutations of the whole analysis; 0 for none")
    permute_penalties: Literal["nested", "fixed"] = Field(
        "nested",
        description="Choose penalties anew in every permutation, or keep those of the data: many times faster, and the "
        "p no longer counts the choice",
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="Modes after one with a larger p are not tested")
    bootstrap: int = Field(200, ge=0, description="Bootstraps of people for the stability of loadings; 0 for none")


class MultivariateCcaConfig(MultivariateConfig):
    """Settings of ``multivariate cca``."""

    sparse: bool = Field(False, description="Sparse weights (penalised matrix decomposition) instead of a ridge")
    penalty_x: Penalties = Field(
        (),
        description="Of X: auto, a number, or several to choose from. Share of the identity in the covariance, 0 "
        "(none) to 1 (PLS); with --sparse the bound of the 1-norm over the root of the columns, to 1 (not sparse)",
    )
    penalty_y: Penalties = Field((), description="Of Y, likewise")


class MultivariatePlsConfig(MultivariateConfig):
    """Settings of ``multivariate pls``."""

    sparse: bool = Field(False, description="Sparse PLS regression instead of the singular vectors of X'Y")
    penalty_x: Penalties = Field(
        (),
        description="With --sparse, of X: auto, or bounds of the 1-norm over the root of the columns, to 1 (none)",
    )
    penalty_y: Penalties = Field((), description="Of Y, likewise")


class MultivariateRrrConfig(MultivariateConfig):
    """Settings of ``multivariate rrr``."""

    penalty_x: Penalties = Field(
        (), description="Of X: auto, or thresholds as shares of the largest weight, 0 (none) to below 1"
    )
    penalty_y: Penalties = Field((), description="Of Y, likewise")
    subsamples: int = Field(1000, ge=0, description="Half-samples of people for stability selection; 0 for none")
    threshold: float = Field(0.6, gt=0.5, le=1, description="Share of the half-samples that a selected variable is in")


class MultivariateIcaConfig(MultivariateConfig):
    """Settings of ``multivariate ica``."""

    components_x: int | None = Field(None, ge=2, description="Components of X; by description length (MDL) by default")
    components_y: int | None = Field(None, ge=2, description="Components of Y, likewise")
    runs: int = Field(10, ge=1, description="Random starts, whose components are clustered (ICASSO)")
    quality: float = Field(0.8, gt=0, le=1, description="Stability that a component needs to be kept")
    permutations: int = Field(200, ge=0, description="Permutations of the whole analysis; 0 for none")
    bootstrap: int = Field(0, ge=0, description="Bootstraps of people for the stability of loadings; 0 for none")


@dataclass(frozen=True, slots=True, eq=False)
class _Components:
    """What parallel ICA says besides the modes."""

    x: StableComponents
    y: StableComponents
    links: LinkedModes


@dataclass(frozen=True, slots=True, eq=False)
class _Analysis:
    """Everything that is written."""

    given: PairedInput
    plan: FoldPlan
    method: Method
    held: HeldOut
    penalty: Penalty
    final: FinalModel
    interval: Float64[np.ndarray, "bounds modes"]
    test: PermutationTest | None
    bootstrap: Resampled | None
    half: Resampled | None
    components: _Components | None

    @property
    def n_modes(self) -> int:
        return int(self.held.r_test.shape[2])


def _grid(default: tuple[Penalty, ...], x: tuple[float, ...], y: tuple[float, ...]) -> tuple[Penalty, ...]:
    """Return the pairs to choose from, mildest first; a side that is not given has its default values."""
    if not x and not y:
        return default
    # The default's own values, in order, say which end is mild.
    firsts, seconds = (list(dict.fromkeys(pair[k] for pair in _by_strength(default, k))) for k in (0, 1))
    falling = firsts[0] > firsts[-1] or seconds[0] > seconds[-1]
    one = sorted(set(x), reverse=falling) or firsts
    two = sorted(set(y), reverse=falling) or seconds
    steps = sorted(((i, j) for i in range(len(one)) for j in range(len(two))), key=lambda s: (s[0] + s[1], s))
    return tuple((one[i], two[j]) for i, j in steps)


def _by_strength(pairs: tuple[Penalty, ...], side: int) -> list[Penalty]:
    """Return pairs from the mildest penalty of a side to the strongest, which follows from the order of the grid."""
    falling = pairs[0][side] > pairs[-1][side]
    return sorted(pairs, key=lambda pair: pair[side], reverse=falling)


def _method(config: MultivariateConfig, given: PairedInput, n_free: int) -> Method:
    """Return the model with its grid of penalties.

    Raises
    ------
    ValueError
        A penalty is out of range, or absent where there are too few people.
    """
    n, m, q = given.tables.x.shape[0], given.tables.x.shape[1], given.tables.y.shape[1]
    if isinstance(config, MultivariateIcaConfig):
        return ParallelIca(_component_numbers(config, given, n_free))
    if isinstance(config, MultivariateRrrConfig):
        return SparseReducedRank(_grid(DEFAULT_THRESHOLDS, config.penalty_x, config.penalty_y))
    if not isinstance(config, MultivariateCcaConfig | MultivariatePlsConfig):
        raise TypeError(f"Expected the settings of a multivariate model, found {type(config).__name__}.")
    if config.sparse:
        bounds = _grid(sparse_grid(m, q), config.penalty_x, config.penalty_y)
        check_bounds(bounds, m, q)
        return SparseCca(bounds, "pmd" if isinstance(config, MultivariateCcaConfig) else "regression")
    if isinstance(config, MultivariatePlsConfig):
        if config.penalty_x or config.penalty_y:
            raise SchemaError("PLS has no penalties without --sparse; add it, or use multivariate cca for a ridge.")
        return PLS
    penalties = _grid(ridge_grid(n, m, q), config.penalty_x, config.penalty_y)
    method = RidgeCca(penalties)
    check_unregularised(penalties, n_free, m, q)
    return method


def _component_numbers(config: MultivariateIcaConfig, given: PairedInput, n_free: int) -> tuple[int, int]:
    """Return the components asked for, or of the shortest description, within what the smallest training set allows."""
    found = []
    for wanted, name, values in (
        (config.components_x, "x", given.tables.x),
        (config.components_y, "y", given.tables.y),
    ):
        everyone = np.arange(values.shape[0])
        columns = standardise(values, given.tables.covariates, everyone, everyone[:0]).train
        most = min(n_free, columns.shape[1]) - 1
        if (wanted or 2) > most:
            raise SchemaError(
                f"--components-{name}: expected at most {most} (fewer than training people and columns), "
                f"found {wanted or 2}."
            )
        found.append(wanted or min(most, max(2, count_components(columns))))
    return found[0], found[1]


def _chooses(config: MultivariateConfig) -> bool:
    """Return whether there are penalties to choose from."""
    if isinstance(config, MultivariateIcaConfig) or (isinstance(config, MultivariatePlsConfig) and not config.sparse):
        return False
    given = (getattr(config, "penalty_x", ()), getattr(config, "penalty_y", ()))
    return not all(len(values) == 1 for values in given)


@contextmanager
def _ticks(context: Context, description: str, total: int) -> Iterator[Callable[[], None]]:
    """Give a function to call after each of `total` parts of the work."""
    parts = context.progress.track(range(total), description, total)
    next(parts, None)

    def advance() -> None:
        next(parts, None)

    yield advance


def _analyse(config: MultivariateConfig, context: Context) -> _Analysis:
    given = read_paired(
        config.x,
        config.y,
        columns_x=config.columns_x,
        columns_y=config.columns_y,
        variants=config.variants,
        genome_build=config.genome_build,
        participants=config.participants,
        covariates=config.covariates,
        groups=config.groups,
        impute=config.impute,
        memory_bytes=context.memory_bytes,
    )
    tables, n = given.tables, given.tables.x.shape[0]
    size, workers = tables.x.size + tables.y.size, context.executor.workers
    # Each worker standardises its training rows, takes modes out of a copy, and has a kernel and its eigenvectors.
    needed = 8 * (size * (4 + 3 * workers) + 4 * n * n * workers + tables.x.shape[1] * tables.y.shape[1])
    require_memory(needed, context.memory_bytes, f"{n} people x {size // n} columns with {workers} workers")
    inner_folds = config.inner_folds if _chooses(config) else 0
    plan = plan_folds(n, given.groups, folds=config.folds, inner_folds=inner_folds, rng=context.rng(0))
    n_free = plan.smallest - tables.covariates.shape[1] - 1
    method = _method(config, given, n_free)
    most = min(tables.x.shape[1], tables.y.shape[1], n_free)
    if isinstance(method, ParallelIca):
        most = min(most, *method.components)
    if config.modes > most:
        raise SchemaError(
            f"--modes: expected at most {most}, the rank that X ({tables.x.shape[1]} columns), Y ({tables.y.shape[1]}) "
            f"and the smallest training set ({plan.smallest} people) allow, found {config.modes}."
        )
    exchange = _exchange(config, given)
    passes = 1 if len(method.penalties) == 1 else 1 + config.inner_folds
    with _ticks(context, "Cross-validation", config.folds * passes) as advance:
        held = cross_validate_modes(method, tables, [tables.y], plan, config.modes, progress=advance)
    at = int(choose_penalty(method, tables, [tables.y], plan.everyone)[0]) if passes > 1 else 0
    penalty = method.penalties[at]
    components, final = _final(config, method, given, penalty, context)
    groups = np.arange(n) if given.groups is None else given.groups
    interval = held_out_interval(held, plan, groups, rng=context.rng(1))
    test = _permute(config, method, given, plan, held, final, exchange, context)
    bootstrap = half = None
    if config.bootstrap:
        with _ticks(context, "Bootstrap", config.bootstrap) as advance:
            bootstrap = resample_modes(
                method, tables, penalty, final, groups, rng=context.rng(2), draws=config.bootstrap, progress=advance
            )
    if isinstance(config, MultivariateRrrConfig) and config.subsamples:
        with _ticks(context, "Stability selection", config.subsamples) as advance:
            half = resample_modes(
                method, tables, penalty, final, groups,
                rng=context.rng(3), draws=config.subsamples, kind="half", progress=advance,
            )  # fmt: skip
    return _Analysis(given, plan, method, held, penalty, final, interval, test, bootstrap, half, components)


def _final(
    config: MultivariateConfig, method: Method, given: PairedInput, penalty: Penalty, context: Context
) -> tuple[_Components | None, FinalModel]:
    if not isinstance(config, MultivariateIcaConfig) or not isinstance(method, ParallelIca):
        return None, fit_everyone(method, given.tables, penalty, config.modes)
    everyone = np.arange(given.tables.x.shape[0])
    x, y = (standardise(t, given.tables.covariates, everyone, everyone[:0]) for t in (given.tables.x, given.tables.y))
    runs = [fit_parallel_ica(x.train, y.train, method.components, rng=context.rng(4, k)) for k in range(config.runs)]
    stable = [stable_components([run[side] for run in runs], least=config.quality) for side in (0, 1)]
    links = linked_modes(x, y, stable[0].sources, stable[1].sources, config.modes)
    return _Components(stable[0], stable[1], links), with_loadings(links.modes, x, y)


def _exchange(config: MultivariateConfig, given: PairedInput) -> Exchange:
    """Return who changes places in a permutation, after checking that somebody can."""
    exchange: Exchange = config.exchange or ("free" if given.groups is None else "whole")
    if exchange != "free" and given.groups is None:
        raise SchemaError(f"--exchange {exchange} needs the column of the groups: --groups.")
    if config.permutations:
        try:
            check_exchange(given.tables, given.groups, exchange)
        except ValueError as error:
            raise SchemaError(f"--exchange {exchange}: {error}") from None
    return exchange


def _permute(
    config: MultivariateConfig,
    method: Method,
    given: PairedInput,
    plan: FoldPlan,
    held: HeldOut,
    final: FinalModel,
    exchange: Exchange,
    context: Context,
) -> PermutationTest | None:
    if not config.permutations:
        return None
    total = permutation_shares(context.executor) * config.modes
    with _ticks(context, "Permuting", total) as advance:
        return permute_modes(
            method,
            given.tables,
            plan,
            held.mean[0],
            final,
            rng=context.rng(5),
            permutations=config.permutations,
            groups=given.groups,
            exchange=exchange,
            penalties=held.penalty[0] if config.permute_penalties == "fixed" else None,
            alpha=config.alpha,
            executor=context.executor,
            progress=advance,
        )


def _modes_table(a: _Analysis) -> ResultTable:
    modes = a.final.modes
    p = np.full(a.n_modes, np.nan) if a.test is None else a.test.p
    r_train = mode_correlations(modes.x_train, modes.y_train)
    empty = (modes.x_train.std(axis=0) == 0) | (modes.y_train.std(axis=0) == 0)
    untested = np.isnan(p) if a.test is not None else np.zeros(a.n_modes, dtype=bool)
    status = np.where(empty, "no variate", np.where(untested, "p not tested: a mode before is not significant", "ok"))
    columns: dict[str, Any] = {
        "mode": np.arange(1, a.n_modes + 1),
        "n": np.full(a.n_modes, modes.x_train.shape[0]),
        "r_test": a.held.mean[0],
        "r_test_lower": a.interval[0],
        "r_test_upper": a.interval[1],
        "r_train": r_train,
        "p_permutation": p,
        "neg_log10_p": -np.log10(p),
        "penalty_x": np.full(a.n_modes, a.penalty[0]),
        "penalty_y": np.full(a.n_modes, a.penalty[1]),
        "n_selected_x": (modes.weights_of_x != 0).sum(axis=0),
        "n_selected_y": (modes.y_weights != 0).sum(axis=0),
        "status": text_array(status.tolist()),
    }
    return ResultTable(columns)


def _loadings(a: _Analysis, side: Literal["x", "y"], threshold: float | None) -> ResultTable:
    names = a.given.names(side)
    weights = a.final.modes.weights_of_x if side == "x" else a.final.modes.y_weights
    loadings = a.final.x_loadings if side == "x" else a.final.y_loadings
    ratio = np.full(loadings.shape, np.nan)
    frequency = np.full(loadings.shape, np.nan)
    if a.bootstrap is not None:
        ratio = a.bootstrap.x_ratio if side == "x" else a.bootstrap.y_ratio
        frequency = a.bootstrap.x_frequency if side == "x" else a.bootstrap.y_frequency
    if a.half is not None:
        frequency = a.half.x_frequency if side == "x" else a.half.y_frequency
    count = a.n_modes
    columns: dict[str, Any] = {
        "mode": np.repeat(np.arange(1, count + 1), len(names)),
        "variable": text_array(names * count),
    }
    variants = a.given.x.variants if side == "x" else a.given.y.variants
    if variants is not None:
        kept = variants.take(a.given.x_kept if side == "x" else a.given.y_kept)
        columns |= {
            name: np.tile(getattr(kept, name), count)
            for name in ("chromosome", "position", "effect_allele", "other_allele")
        }
    columns |= {"weight": weights.T.ravel(), "loading": loadings.T.ravel()}
    if a.components is not None:
        columns["component_z"] = _component_z(a.components, side, len(names)).T.ravel()
    columns |= {"bootstrap_ratio": ratio.T.ravel()}
    if a.method.sparse:
        columns["selection_frequency"] = frequency.T.ravel()
    if threshold is not None and a.half is not None:
        columns["selected"] = frequency.T.ravel() >= threshold
    return ResultTable(columns)


def _component_z(found: _Components, side: Literal["x", "y"], size: int) -> Float64[np.ndarray, "columns modes"]:
    """Return the components of the linked pairs in standard deviations; NaN where there is no pair."""
    stable = found.x if side == "x" else found.y
    linked = found.links.x_component if side == "x" else found.links.y_component
    z = np.full((size, linked.size), np.nan)
    sources = stable.sources - stable.sources.mean(axis=1, keepdims=True)
    sources /= sources.std(axis=1, keepdims=True)
    weights = found.links.modes.weights_of_x if side == "x" else found.links.modes.y_weights
    for k, component in enumerate(linked):
        if component >= 0:
            sign = np.copysign(1.0, float(sources[component] @ weights[:, k]))
            z[:, k] = sign * sources[component]
    return z


def _folds_table(a: _Analysis) -> ResultTable:
    shape = a.held.r_test.shape[1:]
    chosen = np.array([a.method.penalties[k] for k in a.held.penalty[0]])
    sizes = np.array([split.test.size for split in a.plan.outer])
    return ResultTable(
        {
            "fold": np.repeat(np.arange(1, shape[0] + 1), shape[1]),
            "mode": np.tile(np.arange(1, shape[1] + 1), shape[0]),
            "n": np.repeat(sizes, shape[1]),
            "r_test": a.held.r_test[0].ravel(),
            "r_train": a.held.r_train[0].ravel(),
            "penalty_x": np.repeat(chosen[:, 0], shape[1]),
            "penalty_y": np.repeat(chosen[:, 1], shape[1]),
        }
    )


def _blocks_table(a: _Analysis, loadings: ResultTable) -> ResultTable | None:
    """Return loadings by block of variants in linkage disequilibrium; None where X is no genotypes."""
    if a.given.x.variants is None:
        return None
    kept = a.given.x.variants.take(a.given.x_kept)
    block = neighbour_blocks(a.final.x.train, kept.chromosome)
    starts = np.flatnonzero(np.diff(block, prepend=0))
    ends = np.append(starts[1:], block.size)
    tables = []
    for mode in range(1, a.n_modes + 1):
        mine = loadings.take(loadings["mode"] == mode)
        best = [int(s + np.abs(mine["loading"][s:e]).argmax()) for s, e in zip(starts, ends, strict=True)]
        tables.append(
            ResultTable(
                {
                    "mode": np.full(starts.size, mode),
                    "block": block[starts],
                    "chromosome": kept.chromosome[starts],
                    "start": kept.position[starts],
                    "stop": kept.position[ends - 1],
                    "n_variants": ends - starts,
                    "n_selected": np.add.reduceat((mine["weight"] != 0).astype(np.int64), starts),
                    "variable": mine["variable"][best],
                    "top_loading": mine["loading"][best],
                }
            )
        )
    return concat_results(tables)


def _write(a: _Analysis, out: Path, threshold: float | None) -> ResultTable:
    modes = _modes_table(a)
    write_results(modes, out / "modes.tsv")
    loadings = [_loadings(a, side, threshold) for side in ("x", "y")]
    for side, table in zip("xy", loadings, strict=True):
        write_results(table, out / f"loadings_{side}.tsv")
    x, y = out_of_fold(a.held, a.plan, a.final.modes)
    fold = np.zeros(x.shape[0], dtype=np.int64)
    for k, split in enumerate(a.plan.outer):
        fold[split.test] = k + 1
    scores = {
        "participant_id": np.tile(a.given.people.ids, a.n_modes),
        "mode": np.repeat(np.arange(1, a.n_modes + 1), fold.size),
        "fold": np.tile(fold, a.n_modes),
        "x_variate": x.T.ravel(),
        "y_variate": y.T.ravel(),
    }
    write_results(ResultTable(scores), out / "scores.parquet")
    write_results(_folds_table(a), out / "folds.tsv")
    blocks = _blocks_table(a, loadings[0])
    if blocks is not None:
        write_results(blocks, out / "blocks.tsv")
    if a.components is not None:
        write_results(_components_table(a.components), out / "components.tsv")
    if a.test is not None:
        tested, count = a.test.null.shape
        null = {
            "mode": np.repeat(np.arange(1, tested + 1), count),
            "permutation": np.tile(np.arange(1, count + 1), tested),
            "r_test": a.test.null.ravel(),
        }
        write_results(ResultTable(null), out / "permutations.parquet")
        draw_null(a.test.null, a.held.mean[0], a.test.p, out / "permutations.png")
    draw_variates(x, y, fold, modes, out / "variates.png")
    draw_loadings([("X", loadings[0]), ("Y", loadings[1])], out / "loadings.png")
    return modes


def _components_table(found: _Components) -> ResultTable:
    rows: list[dict[str, Any]] = []
    for name, stable, linked in (("x", found.x, found.links.x_component), ("y", found.y, found.links.y_component)):
        for k, quality in enumerate(stable.quality):
            mode = np.flatnonzero(linked == k)
            rows.append(
                {"input": name, "component": k + 1, "quality": quality, "mode": int(mode[0]) + 1 if mode.size else 0}
            )
    return ResultTable(
        {
            "input": text_array([r["input"] for r in rows]),
            "component": np.array([r["component"] for r in rows]),
            "quality": np.array([r["quality"] for r in rows]),
            "mode": np.array([r["mode"] for r in rows]),
        }
    )


def _summary(config: MultivariateConfig, a: _Analysis, modes: ResultTable) -> tuple[str, ...]:
    counts = a.given.counts
    left_out = counts["participants_shared"] - counts["participants_used"]
    lines = [
        f"{counts['participants_used']} people ({left_out} left out) x {counts['columns_x']} and {counts['columns_y']} "
        f"columns ({counts['columns_constant_x']} and {counts['columns_constant_y']} constant)"
    ]
    for k in range(a.n_modes):
        p = modes["p_permutation"][k]
        text = "" if np.isnan(p) else f", p {p:.3g}"
        lines.append(
            f"Mode {k + 1}: r {modes['r_test'][k]:.3f} held out ({modes['r_test_lower'][k]:.3f} to "
            f"{modes['r_test_upper'][k]:.3f}), {modes['r_train'][k]:.3f} in training{text}"
        )
    if a.test is not None and config.permute_penalties == "fixed" and len(a.method.penalties) > 1:
        lines.append("p with penalties fixed at those of the data: the choice of penalties is not part of it")
    return (*lines, *_stability_lines(config, a))


def _stability_lines(config: MultivariateConfig, a: _Analysis) -> list[str]:
    """Say how many variables are selected in enough half-samples, and how many of them to expect by chance."""
    if a.half is None or not isinstance(config, MultivariateRrrConfig):
        return []
    lines = []
    for k in range(a.n_modes):
        found = int((a.half.x_frequency[:, k] >= config.threshold).sum())
        # Meinshausen & Buhlmann (2010), theorem 1.
        expected = a.half.x_selected[k] ** 2 / ((2 * config.threshold - 1) * a.half.x_frequency.shape[0])
        lines.append(
            f"Mode {k + 1}: {found} columns of X in {100 * config.threshold:.0f} % of the half-samples or more "
            f"(by chance at most {expected:.1f}, if columns without an effect are alike)"
        )
    return lines


def multivariate(config: MultivariateConfig, out: Path, context: Context) -> StepResult:
    """Find modes, judge them on held-out people and by permutation, and write everything."""
    a = _analyse(config, context)
    threshold = config.threshold if isinstance(config, MultivariateRrrConfig) else None
    modes = _write(a, out, threshold)
    counts = {
        **a.given.counts,
        "penalties_tried": len(a.method.penalties),
        "permutations": config.permutations,
        "penalties_in_permutations": config.permute_penalties,
        "modes_tested": 0 if a.test is None else int(a.test.null.shape[0]),
        "r_test": [round(float(r), 6) for r in modes["r_test"]],
        "r_train": [round(float(r), 6) for r in modes["r_train"]],
    }
    if a.components is not None:
        counts["stable_components"] = [int(a.components.x.quality.size), int(a.components.y.quality.size)]
    n_failed = int((modes["status"] == "no variate").sum())
    return StepResult(counts, n_failed=n_failed, summary=_summary(config, a, modes))


MULTIVARIATE_CCA = Step(
    "multivariate cca",
    "Canonical correlation of two tables, with a ridge or sparse.",
    MultivariateCcaConfig,
    multivariate,
    out="folder",
)
MULTIVARIATE_PLS = Step(
    "multivariate pls", "Partial least squares of two tables.", MultivariatePlsConfig, multivariate, out="folder"
)
MULTIVARIATE_RRR = Step(
    "multivariate rrr",
    "Sparse reduced-rank regression with stability selection.",
    MultivariateRrrConfig,
    multivariate,
    out="folder",
)
MULTIVARIATE_ICA = Step(
    "multivariate ica",
    "Independent components of two tables, and which are linked.",
    MultivariateIcaConfig,
    multivariate,
    out="folder",
)
