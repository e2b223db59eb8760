"""``associate compare``: two modalities, by their associations or by their values."""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float64, Shaped
from pydantic import Field

from brainlocus.cohort.associate import (
    agreement,
    bland_altman_coordinates,
    correlation_difference,
    measure_correlation,
)
from brainlocus.core import ResultTable, SchemaError, shared_samples
from brainlocus.core.errors import nearest
from brainlocus.io import read_arrow, read_results, table_columns, write_results
from brainlocus.numerics import benjamini_hochberg_q, covariate_basis, design_from_formula, project_out
from brainlocus.pipeline.config import InputPath, OutputPath, Positional, StepConfig
from brainlocus.pipeline.figures.comparison import draw_agreement, draw_plane, draw_specificity
from brainlocus.pipeline.people import choose_traits, formula_columns, read_people, report_folder
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["ASSOCIATE_COMPARE", "AssociateCompareConfig"]

_MOST_PANELS = 16
_NEEDED = ("trait", "phenotype", "r", "degrees_of_freedom", "neg_log10_p", "p_bonferroni")


class AssociateCompareConfig(StepConfig):
    """Settings of ``associate compare``."""

    first: Annotated[InputPath, Positional()] = Field(
        description="Result of associate phenome in one modality, or a table of people x measures"
    )
    second: Annotated[InputPath, Positional()] = Field(description="The same in the other modality")
    by: Literal["category", "phenotype", "region"] = Field("category", description="Groups of the counts and colours")
    regions: InputPath | None = Field(
        None, description="Table first, second, region: which traits measure the same region"
    )
    strip_first: str = Field("", description="Start of the first modality's names that is not the region's: QSM_")
    strip_second: str = Field("", description="The same of the second modality's: T2star_")
    level: float = Field(0.05, gt=0, lt=1, description="Of the corrected p that counts as associated")
    values_first: InputPath | None = Field(
        None, description="Table of the first modality's measures: tests whether correlations differ"
    )
    values_second: InputPath | None = Field(None, description="The same of the second modality's")
    covariates: str = Field("", description="Formula of covariates that the associations were adjusted for")
    participants: InputPath | None = Field(None, description="Table with the covariates; VALUES-FIRST by default")
    report: OutputPath | None = Field(None, description="Folder for figures and counts")


def associate_compare(config: AssociateCompareConfig, out: Path, _context: Context) -> StepResult:
    """Compare two results, or two tables of values."""
    kinds = [{"trait", "phenotype", "neg_log10_p"} <= set(table_columns(p)) for p in (config.first, config.second)]
    if kinds[0] != kinds[1]:
        values, results = (config.first, config.second) if kinds[1] else (config.second, config.first)
        raise SchemaError(
            f"{values}: expected a result of associate phenome (columns trait, phenotype, neg_log10_p) as {results} "
            "is, found another table. Compare two results, or two tables of people."
        )
    return _compare_results(config, out) if kinds[0] else _compare_values(config, out)


def _regions(
    config: AssociateCompareConfig, first: list[str], second: list[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the region of the traits of each modality; traits that only one of them has are not in it.

    Raises
    ------
    SchemaError
        No region is in both.
    """
    if config.regions is not None:
        table = read_arrow(config.regions)
        if not {"first", "second", "region"} <= set(table.column_names):
            raise SchemaError(f"{config.regions}: expected columns first, second, region, found {table.column_names}.")
        a, b, names = (table.column(c).to_pylist() for c in ("first", "second", "region"))
        known = set(first), set(second)
        listed = [
            (str(x), str(y), str(z)) for x, y, z in zip(a, b, names, strict=True) if x in known[0] and y in known[1]
        ]
        found = {x: z for x, _, z in listed}, {y: z for _, y, z in listed}
    else:
        here = {name: name.removeprefix(config.strip_first) for name in first}
        there = {name: name.removeprefix(config.strip_second) for name in second}
        shared = set(here.values()) & set(there.values())
        found = {k: v for k, v in here.items() if v in shared}, {k: v for k, v in there.items() if v in shared}
    for side, path in zip(found, (config.first, config.second), strict=True):
        regions = list(side.values())
        twice = sorted({r for r in regions if regions.count(r) > 1}) if len(set(regions)) < len(regions) else []
        if twice:
            raise SchemaError(f"{path}: two traits measure region {twice[0]!r}; name the right ones with --regions.")
    if not found[0]:
        raise SchemaError(
            f"No region is in both modalities: the first has {first[0]!r} ..., the second {second[0]!r} .... Say what "
            "their names start with by --strip-first and --strip-second, or which traits belong together by --regions."
        )
    return found


def _read_result(path: Path) -> ResultTable:
    table = read_results(path)
    absent = [name for name in _NEEDED if name not in table.columns]
    if absent:
        raise SchemaError(f"{path}: expected the columns of associate phenome, found none named {absent[0]!r}.")
    return table


def _keys(table: ResultTable, regions: dict[str, str]) -> dict[tuple[str, str], int]:
    """Return the row of each region and phenotype."""
    pairs = zip(table["trait"].tolist(), table["phenotype"].tolist(), strict=True)
    return {(regions[trait], phenotype): row for row, (trait, phenotype) in enumerate(pairs) if trait in regions}


def _compare_results(config: AssociateCompareConfig, out: Path) -> StepResult:
    first, second = _read_result(config.first), _read_result(config.second)
    names = [list(dict.fromkeys(table["trait"].tolist())) for table in (first, second)]
    regions = _regions(config, *names)
    rows = [_keys(table, side) for table, side in zip((first, second), regions, strict=True)]
    shared = [key for key in rows[0] if key in rows[1]]
    if not shared:
        raise SchemaError(
            f"No pair of region and phenotype is in both: {config.first} has phenotypes such as "
            f"{first['phenotype'][0]!r}, {config.second} {second['phenotype'][0]!r}."
        )
    a, b = first.take(np.array([rows[0][k] for k in shared])), second.take(np.array([rows[1][k] for k in shared]))
    tested = np.isfinite(a["neg_log10_p"]) & np.isfinite(b["neg_log10_p"])
    with np.errstate(invalid="ignore"):
        passed = [tested & (table["p_bonferroni"] < config.level) for table in (a, b)]
    kept = np.flatnonzero(passed[0] | passed[1])
    table = _pairs(config, a, b, [shared[k][0] for k in range(len(shared))], passed)
    result = table.take(kept[np.argsort(-table["mean_neg_log10_p"][kept], kind="stable")])
    write_results(result, out)
    labels = _labels(config)
    with report_folder(config.report) as folder:
        if folder is not None:
            write_results(_by(result, config.by), folder / f"by_{config.by}.tsv")
            if len(result):
                draw_plane(result, labels, config.by, folder / "bland_altman.png")
                draw_specificity(result, labels, folder / "specificity.png")
    only = [int((passed[0] & ~passed[1]).sum()), int((passed[1] & ~passed[0]).sum())]
    both = int((passed[0] & passed[1]).sum())
    counts: dict[str, Any] = {
        "regions": len(set(regions[0].values()) & set(regions[1].values())),
        "traits_of_one_modality_only": [len(n) - len(r) for n, r in zip(names, regions, strict=True)],
        "pairs": len(shared),
        "pairs_without_test": int((~tested).sum()),
        "both": both,
        "first_only": only[0],
        "second_only": only[1],
        "same_sign_of_both": int(result["same_sign"][_in_both(result)].sum()),
    }
    differ = result["difference_q_bh"] <= config.level if len(result) else np.zeros(0, dtype=bool)
    tests = bool(np.isfinite(result["difference_t"]).any()) if len(result) else False
    counts["significantly_different"] = int(differ.sum()) if tests else None
    more = f"; {int(differ.sum())} correlations differ at FDR {100 * config.level:g} %" if tests else ""
    summary = (
        f"{len(shared)} pairs of {counts['regions']} regions with phenotypes: {both} associated in both, {only[0]} in "
        f"{labels[0]} only, {only[1]} in {labels[1]} only{more}"
    )
    return StepResult(counts, summary=(summary,))


def _in_both(result: ResultTable) -> Shaped[np.ndarray, " pairs"]:
    return np.asarray((result["significant_first"] > 0) & (result["significant_second"] > 0))


def _labels(config: AssociateCompareConfig) -> tuple[str, str]:
    stripped = (config.strip_first.rstrip("_-. "), config.strip_second.rstrip("_-. "))
    files = [p.name.split(".")[0] for p in (config.first, config.second)]
    return stripped[0] or files[0], stripped[1] or files[1]


def _pairs(
    config: AssociateCompareConfig,
    a: ResultTable,
    b: ResultTable,
    regions: list[str],
    passed: list[Shaped[np.ndarray, " pairs"]],
) -> ResultTable:
    """Return everything known of each pair of region and phenotype."""
    mean, difference, angle = bland_altman_coordinates(a["neg_log10_p"], b["neg_log10_p"])
    between = _between(config, a["trait"], b["trait"])
    # Measures of one thing may run against each other (T2* falls with iron): the second is turned round then.
    turn = np.where(between < 0, -1.0, 1.0)
    people = np.minimum(a["degrees_of_freedom"], b["degrees_of_freedom"]) + 2.0
    test = correlation_difference(a["r"], turn * b["r"], turn * between, people)
    either = passed[0] | passed[1]
    return ResultTable(
        {
            "region": np.asarray(regions, dtype=np.str_),
            "phenotype": a["phenotype"],
            "category": a["category"] if "category" in a.columns else np.full(len(a), "", dtype="U1"),
            "trait_first": a["trait"],
            "trait_second": b["trait"],
            "r_first": a["r"],
            "r_second": b["r"],
            "neg_log10_p_first": a["neg_log10_p"],
            "neg_log10_p_second": b["neg_log10_p"],
            "significant_first": passed[0].astype(np.int64),
            "significant_second": passed[1].astype(np.int64),
            "mean_neg_log10_p": mean,
            "neg_log10_p_difference": difference,
            "angle": angle,
            "same_sign": (np.sign(a["r"]) == np.sign(turn * b["r"])).astype(np.float64),
            "r_between": between,
            "difference_t": test.t,
            "difference_degrees_of_freedom": test.degrees_of_freedom,
            "difference_neg_log10_p": test.neg_log10_p,
            "difference_q_bh": benjamini_hochberg_q(np.where(either, test.neg_log10_p, np.nan)),
        }
    )


def _between(
    config: AssociateCompareConfig, first: Shaped[np.ndarray, " pairs"], second: Shaped[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " pairs"]:
    """Return the correlation of the two measures of each pair, given the covariates; NaN without their values."""
    if config.values_first is None or config.values_second is None:
        if config.values_first != config.values_second:
            raise SchemaError("--values-first and --values-second go together: give both tables, or neither.")
        return np.full(first.size, np.nan)
    tables = read_people(config.values_first), read_people(config.values_second)
    people = tables[0] if config.participants is None else read_people(config.participants)
    names = list(dict.fromkeys(zip(first.tolist(), second.tolist(), strict=True)))
    for table, path, side in zip(tables, (config.values_first, config.values_second), (0, 1), strict=True):
        absent = [pair[side] for pair in names if pair[side] not in table.names]
        if absent:
            raise SchemaError(f"{path}: there is no column {absent[0]!r}.{nearest(absent[0], list(table.names))}")
    shared = shared_samples(*(t.samples for t in tables), people.samples, names=("first", "second", "participants"))
    design = design_from_formula(config.covariates, people.take(shared))
    both = [
        table.take(shared).matrix([pair[side] for pair in names])[design.complete] for side, table in enumerate(tables)
    ]
    missing = np.isnan(both[0]) | np.isnan(both[1])
    covariates = design.matrix[design.complete]
    freed = [np.where(missing, np.nan, values) for values in both]
    for column in range(len(names)):
        rows = ~missing[:, column]
        if rows.sum() > covariates.shape[1] + 2:
            q = covariate_basis(covariates[rows]).q
            for values in freed:
                values[rows, column] = project_out(q, values[rows, column][:, None])[:, 0]
    r = dict(zip(names, measure_correlation(freed[0], freed[1]).tolist(), strict=True))
    return np.array([r[pair] for pair in zip(first.tolist(), second.tolist(), strict=True)])


def _by(result: ResultTable, by: str) -> ResultTable:
    """Return how many pairs are associated in which modality, by category, phenotype or region."""
    names = list(dict.fromkeys(result[by].tolist()))
    rows = [result[by] == name for name in names]
    a, b = result["significant_first"] > 0, result["significant_second"] > 0
    return ResultTable(
        {
            by: np.asarray(names, dtype=np.str_),
            "n_both": np.array([int((a & b)[r].sum()) for r in rows], dtype=np.int64),
            "n_first_only": np.array([int((a & ~b)[r].sum()) for r in rows], dtype=np.int64),
            "n_second_only": np.array([int((b & ~a)[r].sum()) for r in rows], dtype=np.int64),
            "mean_angle": np.array([float(result["angle"][r].mean()) for r in rows]),
            "mean_same_sign": np.array([float(result["same_sign"][r].mean()) for r in rows]),
        }
    )


def _compare_values(config: AssociateCompareConfig, out: Path) -> StepResult:
    """Compare values: bias, limits of agreement, and whether the difference grows with the value."""
    tables = read_people(config.first), read_people(config.second)
    used = formula_columns(config.covariates)
    names = [choose_traits(table, (), besides=used) for table in tables]
    regions = _regions(config, *names)
    shared = shared_samples(*(t.samples for t in tables), names=("the first table", "the second table"))
    back = {region: trait for trait, region in regions[1].items()}
    pairs = [(trait, back[region], region) for trait, region in regions[0].items() if region in back]
    first, second = (table.take(shared).matrix([pair[side] for pair in pairs]) for side, table in enumerate(tables))
    found = agreement(first, second)
    result = ResultTable(
        {
            "measure": np.asarray([pair[2] for pair in pairs], dtype=np.str_),
            "n": found.n,
            "r": found.r,
            "bias": found.bias,
            "bias_lower": found.bias_lower,
            "bias_upper": found.bias_upper,
            "limit_lower": found.limit_lower,
            "limit_upper": found.limit_upper,
            "limit_error": found.limit_error,
            "proportional_slope": found.slope,
            "proportional_neg_log10_p": found.slope_neg_log10_p,
            "status": found.status,
        }
    )
    write_results(result, out)
    usable = np.isfinite(result["bias"])
    with report_folder(config.report) as folder:
        if folder is not None and usable.any():
            some = np.flatnonzero(usable)[:_MOST_PANELS]
            draw_agreement(first[:, some], second[:, some], result.take(some), folder / "bland_altman.png")
    failed = int((~usable).sum())
    counts: dict[str, Any] = {
        "participants_first": len(tables[0].samples),
        "participants_second": len(tables[1].samples),
        "participants": len(shared),
        "measures": len(pairs),
        "measures_of_one_table_only": [len(n) - len(pairs) for n in names],
    }
    summary = f"{len(shared)} people, {len(pairs)} measures in both tables, {failed} without a result"
    return StepResult(counts, n_failed=failed, summary=(summary,))


ASSOCIATE_COMPARE = Step(
    "associate compare",
    "Compare two modalities by their associations, or by their values.",
    AssociateCompareConfig,
    associate_compare,
)
