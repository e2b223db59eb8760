"""Figures of a scan or of any table of associations: what is read for them, and which are drawn.

A scan that kept only its hits has, beside them, the number of tests per 0.01 of -log10 p of every trait: its Q-Q curves
are whole, and its Manhattan plots show the hits and, below them, how many tests there are, without their places.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Bool

from brainlocus.core import ResultTable, SchemaError
from brainlocus.core.text import text_array
from brainlocus.genetics.gwas import QQ_BIN_WIDTH
from brainlocus.io import read_associations, read_results
from brainlocus.pipeline.figures.gwas import Panel, draw_inflation, draw_manhattan, draw_qq
from brainlocus.pipeline.figures.gwas_points import (
    GENOME_WIDE,
    GenomeLayout,
    QqCurve,
    ScaleName,
    genome_layout,
    power_text,
    qq_curve,
    qq_curve_of_tests,
)
from brainlocus.pipeline.full_store import FullIndex, iter_full, open_full, smallest_full
from brainlocus.pipeline.scan_folder import file_names

__all__ = [
    "MOST_SINGLE_TRAITS",
    "Associations",
    "associations_bytes",
    "draw_scan",
    "open_associations",
    "panel_of",
    "qq_of",
]

MOST_SINGLE_TRAITS = 12
"""Scans of more traits are drawn together."""
_FEW_HITS = 0.01
"""Largest p of hits that are read beside ``full/``: more would be most of the tests again."""
_TAIL_FROM = 3.0
"""-log10 p from which a Q-Q curve shows the hits themselves rather than the histogram."""
_OPEN_FROM = 40.0 - QQ_BIN_WIDTH / 2
"""The last bin of the histogram holds all tests from 40 on; its edge is a sum of decimals."""
_TRUNCATED_FROM = 1.0
"""A table of 20 tests or more without any above p = 0.1 is not of all tests."""


@dataclass(frozen=True, slots=True, eq=False)
class Associations:
    """Tests to be drawn, where they are."""

    where: Path
    traits: tuple[str, ...]
    """One empty name for a table of one trait without a name."""
    table: ResultTable | None
    """Hits of a scan, or a whole table; None when every test is on disk."""
    full: FullIndex | None
    shown_from: float
    """Smallest -log10 p that was kept; 0 when every test was."""
    hits: ResultTable | None
    """Hits of a scan, for the tails of Q-Q curves."""
    histogram: ResultTable | None
    """qq.parquet of a scan."""
    lambdas: dict[str, float]
    layout: GenomeLayout | None
    """Of all variants of a scan."""


def open_associations(path: Path, *, hits: float | None = None) -> Associations:
    """Return the associations of a scan's folder, its ``full/`` or ``hits.parquet``, or of a table.

    Parameters
    ----------
    hits
        Largest p that a scan kept; by default from its manifest.

    Raises
    ------
    FormatError
        Nothing that can be read is there.
    SchemaError
        A table lacks chromosome, position or p.
    """
    path = path.resolve()
    if path.is_dir():
        if (path / "traits.json").is_file():
            return _of_full(path, hits)
        if (path / "full" / "traits.json").is_file():
            return _of_full(path / "full", hits)
        if (path / "hits.parquet").is_file():
            return _of_scan(path, hits)
        raise SchemaError(f"{path}: expected the folder of gwas run (with hits.parquet or full/), found neither.")
    if path.name == "hits.parquet" and (path.parent / "qq.parquet").is_file():
        return _of_scan(path.parent, hits)
    table = read_associations(path, ("trait", "variant_id"))
    names = tuple(dict.fromkeys(table["trait"].tolist())) if "trait" in table.names else ("",)
    return Associations(path, names or ("",), table, None, _lowest(table), None, None, {}, None)


def associations_bytes(path: Path) -> int:
    """Return about what the tests take while they are read and drawn, from the size of their files.

    Measured: 400 bytes a variant of ``full/``, 350 a row of a table, whose text is 100 bytes, a third of that gzipped.
    """
    for file in (path / "traits.json", path / "full" / "traits.json"):
        if file.is_file():
            return 500 * int(pq.read_metadata(file.with_name("variants.parquet")).num_rows) + _DRAWING_BYTES
    file = path / "hits.parquet" if path.is_dir() else path
    if not file.is_file():
        return _DRAWING_BYTES
    if file.suffix == ".parquet":
        with file.open("rb") as stream:
            is_parquet = stream.read(4) == b"PAR1"
        return 400 * (int(pq.read_metadata(file).num_rows) if is_parquet else 0) + _DRAWING_BYTES
    return (16 if file.suffix == ".gz" else 5) * file.stat().st_size + _DRAWING_BYTES


_DRAWING_BYTES = 64 << 20


def _of_full(folder: Path, hits: float | None) -> Associations:
    index = open_full(folder)
    scan = folder.parent
    histogram = read_results(scan / "qq.parquet") if (scan / "qq.parquet").is_file() else None
    largest = _kept(scan) if hits is None else hits
    few = largest is not None and largest <= _FEW_HITS and (scan / "hits.parquet").is_file()
    tail = read_associations(scan / "hits.parquet", ("trait",)) if few else None
    return Associations(folder, index.traits, None, index, 0.0, tail, histogram, _lambdas(scan), None)


def _of_scan(folder: Path, hits: float | None) -> Associations:
    table = read_associations(folder / "hits.parquet", ("trait", "variant_id"))
    traits = read_results(folder / "traits.parquet")
    names = tuple(traits["trait"][traits["reason"] == ""].tolist())
    largest = _kept(folder) if hits is None else hits
    shown_from = _lowest(table) if largest is None else -float(np.log10(largest))
    histogram = read_results(folder / "qq.parquet")
    layout = _layout(folder / "variants.parquet")
    return Associations(folder, names, table, None, abs(shown_from), table, histogram, _lambdas(folder), layout)


def _kept(folder: Path) -> float | None:
    """Return the largest p of a hit, from the scan's manifest."""
    path = folder.with_name(f"{folder.name}.json")
    if not path.is_file():
        return None
    parameters = json.loads(path.read_text()).get("parameters", {})
    return float(parameters["hits"]) if "hits" in parameters else None


def _lowest(table: ResultTable) -> float:
    """Return the smallest -log10 p of a table that was cut there; 0 when it does not look cut."""
    values = table["neg_log10_p"]
    values = values[np.isfinite(values)]
    lowest = float(values.min(initial=np.inf))
    return lowest if values.size >= 20 and lowest > _TRUNCATED_FROM else 0.0


def _lambdas(folder: Path) -> dict[str, float]:
    if not (folder / "traits.parquet").is_file():
        return {}
    table = read_results(folder / "traits.parquet")
    return dict(zip(table["trait"].tolist(), table["lambda_gc"].tolist(), strict=True))


def _layout(path: Path) -> GenomeLayout:
    """Return the chromosomes of a table of variants, of which only the ends are held."""
    table = pq.read_table(path, columns=["chromosome", "position"])
    ends = table.group_by("chromosome").aggregate([("position", "min"), ("position", "max")])
    names = np.asarray(ends.column("chromosome").to_pylist(), dtype=np.str_)
    low, high = (ends.column(f"position_{which}").to_numpy().astype(np.int64) for which in ("min", "max"))
    return genome_layout(np.concatenate([names, names]), np.concatenate([low, high]))


def panel_of(
    source: Associations, traits: Sequence[str], *, title: str | None = None, threshold: float = GENOME_WIDE
) -> Panel:
    """Return the tests of one trait, or of several with the smallest p of each place.

    Several have a second line, at the threshold divided by their number.
    """
    table = _tests(source, traits)
    shown = title if title is not None else _title(traits)
    lines = [(threshold, power_text(threshold))]
    if len(traits) > 1:
        lines.insert(0, (threshold / len(traits), f"{power_text(threshold / len(traits))} ({len(traits):,} traits)"))
    return Panel(
        title=shown,
        chromosome=table["chromosome"],
        position=table["position"],
        neg_log10_p=table["neg_log10_p"],
        label=table["variant_id"] if "variant_id" in table.names else _places(table),
        thresholds=tuple(lines),
        shown_from=source.shown_from,
        below=_below(source, traits),
    )


def _title(traits: Sequence[str]) -> str:
    return traits[0] if len(traits) == 1 else f"smallest p of {len(traits):,} traits"


def _tests(source: Associations, traits: Sequence[str]) -> ResultTable:
    if source.full is not None:
        if len(traits) > 1:
            return smallest_full(source.full, traits)
        return next(iter_full(source.full, traits))
    table = source.table
    if table is None:
        raise SchemaError(f"{source.where}: there are no tests.")
    if "trait" not in table.names or tuple(traits) == source.traits:
        return table
    return table.take(_is_one_of(table, traits))


def _is_one_of(table: ResultTable, traits: Sequence[str]) -> Bool[np.ndarray, " tests"]:
    return np.isin(table["trait"].astype(np.str_), np.asarray(traits, dtype=np.str_))


def _places(table: ResultTable) -> np.ndarray:
    """Return names for variants that have none: chromosome and position."""
    pairs = zip(table["chromosome"].tolist(), table["position"].tolist(), strict=True)
    return text_array([f"{chromosome}:{position}" for chromosome, position in pairs])


def _below(source: Associations, traits: Sequence[str]) -> np.ndarray:
    """Return the tests per bin of -log10 p that were not kept."""
    if source.histogram is None or source.shown_from <= 0:
        return np.empty(0, dtype=np.int64)
    n_bins = max(round(source.shown_from / QQ_BIN_WIDTH), 1)
    table = source.histogram
    at = np.rint(table["neg_log10_p"] / QQ_BIN_WIDTH).astype(np.int64)
    chosen = _is_one_of(table, traits) & (at < n_bins)
    return np.bincount(at[chosen], weights=table["n_tests"][chosen], minlength=n_bins).astype(np.int64)


def qq_of(source: Associations, traits: Sequence[str]) -> list[QqCurve]:
    """Return the Q-Q curve of every trait.

    Raises
    ------
    SchemaError
        Only the tests with a small p are there, without the histogram of the others.
    """
    if source.histogram is not None:
        return _curves_of_histogram(source, traits)
    if source.full is not None:
        tables = iter_full(source.full, traits)
        pairs = zip(traits, tables, strict=True)
        return [qq_curve_of_tests(name, table["neg_log10_p"]) for name, table in pairs]
    if source.shown_from > 0:
        raise SchemaError(
            f"{source.where}: expected every test for a Q-Q plot, found only those with p up to "
            f"{10.0**-source.shown_from:.2g}. Give the folder of the scan, which has qq.parquet, or all results."
        )
    return [qq_curve_of_tests(name or source.where.name, _tests(source, [name])["neg_log10_p"]) for name in traits]


def _curves_of_histogram(source: Associations, traits: Sequence[str]) -> list[QqCurve]:
    table = source.histogram
    if table is None:
        return []
    bins = _by_trait(table)
    hits = _by_trait(source.hits) if source.hits is not None else {}
    tail = max(source.shown_from, _TAIL_FROM)
    curves = []
    for name in traits:
        rows = bins.get(name, np.empty(0, dtype=np.int64))
        smallest = None
        if source.hits is not None:
            strength = source.hits["neg_log10_p"][hits.get(name, np.empty(0, dtype=np.int64))]
            smallest = strength[strength >= tail]
        curve = qq_curve(
            name, table["neg_log10_p"][rows], table["n_tests"][rows],
            lambda_gc=source.lambdas.get(name, float("nan")), width=QQ_BIN_WIDTH, open_from=_OPEN_FROM,
            smallest=smallest,
        )  # fmt: skip
        curves.append(curve)
    return curves


def _by_trait(table: ResultTable) -> dict[str, np.ndarray]:
    """Return the rows of every trait, in their order."""
    names, inverse = np.unique(table["trait"].astype(np.str_), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    bounds = np.searchsorted(inverse[order], np.arange(names.size + 1))
    return {str(name): order[bounds[k] : bounds[k + 1]] for k, name in enumerate(names)}


def draw_scan(scan: Path, out: Path, *, hits: float, scale: ScaleName = "auto") -> list[Path]:
    """Draw a finished scan into a folder and return the files.

    Up to twelve traits have ``manhattan-TRAIT.png`` and ``qq-TRAIT.png`` each; more have ``manhattan.png`` with the
    smallest p of all, ``qq.png`` with all curves and ``lambda.png``.

    Parameters
    ----------
    hits
        Largest p that was kept.
    """
    source = open_associations(scan, hits=hits)
    drawn: list[Path] = []
    if len(source.traits) <= MOST_SINGLE_TRAITS:
        for trait, name in zip(source.traits, file_names(source.traits), strict=True):
            drawn += [out / f"manhattan-{name}.png", out / f"qq-{name}.png"]
            draw_manhattan(panel_of(source, [trait]), drawn[-2], layout=source.layout, scale=scale)
            draw_qq(qq_of(source, [trait]), drawn[-1], title=trait, scale=scale)
        return drawn
    drawn = [out / "manhattan.png", out / "qq.png", out / "lambda.png"]
    draw_manhattan(panel_of(source, source.traits), drawn[0], layout=source.layout, scale=scale)
    draw_qq(qq_of(source, source.traits), drawn[1], scale=scale)
    draw_inflation(np.array([source.lambdas.get(name, np.nan) for name in source.traits]), drawn[2])
    return drawn
