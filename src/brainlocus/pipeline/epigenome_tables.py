"""Tables that go with a matrix of features: where features lie, what else is known of them, references of cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Shaped

from brainlocus.core import SchemaError, canonical_chromosome
from brainlocus.core.errors import FormatError
from brainlocus.core.text import text_array
from brainlocus.io import read_arrow
from brainlocus.io.tables import MISSING_TEXT

__all__ = ["CellReference", "Places", "read_cell_reference", "read_feature_numbers", "read_places"]

_FEATURE = ("feature", "cpg", "cpg_id", "probe", "probeid", "probe_id", "name", "ilmnid", "id", "marker", "")
_CHROMOSOME = ("chromosome", "chr", "chrom", "cpg_chrm", "seqnames")
_POSITION = ("position", "pos", "mapinfo", "start", "bp", "cpg_beg")
_GENE = ("gene", "gene_name", "symbol", "ucsc_refgene_name", "genename", "genes")
_BLOOD_BRAIN = ("blood_brain_r", "r", "rho", "cor", "correlation", "spearman", "pearson")


@dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Where features lie; of a feature that the annotation lacks, nothing."""

    chromosome: Shaped[np.ndarray, " features"]
    """Without prefix; empty where unknown."""
    position: Int[np.ndarray, " features"]
    gene: Shaped[np.ndarray, " features"]
    n_known: int


@dataclass(frozen=True, slots=True, eq=False)
class CellReference:
    """Methylation of pure cells."""

    features: tuple[str, ...]
    cells: tuple[str, ...]
    values: Float64[np.ndarray, "features cells"]


def _find(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    lower = {name.strip().lower(): name for name in reversed(names)}
    return next((lower[w] for w in wanted if w in lower), None)


def _texts(column: Any) -> list[str]:
    return ["" if v is None else str(v).strip() for v in column.to_pylist()]


def _feature_names(table: Any, path: Path) -> list[str]:
    name = _find(table.column_names, _FEATURE) or table.column_names[0]
    names = _texts(table.column(name))
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]
        raise SchemaError(f"{path}: column {name!r} has {twice!r} twice; expected each feature once. Keep one row.")
    return names


def _float(text: str, where: str) -> float:
    if text in MISSING_TEXT:
        return np.nan
    try:
        return float(text)
    except ValueError:
        raise FormatError(f"{where}: expected numbers, found {text!r}. Correct it, or leave it empty.") from None


def read_places(path: Path, features: Sequence[str]) -> Places:
    """Return where features lie, of a table with columns feature, chromosome, position and, if known, gene.

    Names of array manifests (IlmnID, CHR, MAPINFO, UCSC_RefGene_Name) are understood.

    Raises
    ------
    SchemaError
        A column is absent, or a feature occurs twice.
    FormatError
        A position is no number.
    """
    table = read_arrow(path)
    columns = {
        what: _find(table.column_names, names)
        for what, names in (("chromosome", _CHROMOSOME), ("position", _POSITION), ("gene", _GENE))
    }
    lacking = [what for what in ("chromosome", "position") if columns[what] is None]
    if lacking:
        raise SchemaError(
            f"{path}: expected columns feature, chromosome, position and gene, found "
            f"{', '.join(table.column_names[:8])}; {' and '.join(lacking)} not among them. Rename them."
        )
    at = {name: k for k, name in enumerate(_feature_names(table, path))}
    rows = [at.get(name, -1) for name in features]
    chromosomes = _texts(table.column(columns["chromosome"]))
    positions = [
        _float(v, f"{path}, column {columns['position']!r}") for v in _texts(table.column(columns["position"]))
    ]
    genes = [""] * len(chromosomes) if columns["gene"] is None else _texts(table.column(columns["gene"]))
    canonical = {name: _chromosome(name) for name in set(chromosomes)}
    known = [k >= 0 and np.isfinite(positions[k]) and canonical[chromosomes[k]] != "" for k in rows]
    return Places(
        np.array([canonical[chromosomes[k]] if ok else "" for k, ok in zip(rows, known, strict=True)], dtype=np.str_),
        np.array([int(positions[k]) if ok else 0 for k, ok in zip(rows, known, strict=True)], dtype=np.int64),
        text_array([_each_once(genes[k]) if k >= 0 else "" for k in rows]),
        sum(known),
    )


def _chromosome(name: str) -> str:
    return "" if name in MISSING_TEXT or name == "0" else canonical_chromosome(name)


def _each_once(genes: str) -> str:
    """Return the genes of a manifest, which names one for every transcript, each once."""
    return "" if genes in MISSING_TEXT else ";".join(dict.fromkeys(g for g in genes.split(";") if g))


def read_feature_numbers(path: Path, features: Sequence[str], *, what: str) -> Float64[np.ndarray, " features"]:
    """Return a number of each feature, NaN where the table has none.

    Raises
    ------
    SchemaError
        No column of a usual name, or no feature in common.
    """
    table = read_arrow(path)
    name = _find(table.column_names, _BLOOD_BRAIN)
    if name is None:
        raise SchemaError(
            f"{path}: expected columns feature and r ({what}), found {', '.join(table.column_names[:8])}. Rename them."
        )
    values = [_float(v, f"{path}, column {name!r}") for v in _texts(table.column(name))]
    known: Mapping[str, float] = dict(zip(_feature_names(table, path), values, strict=True))
    found = np.array([known.get(f, np.nan) for f in features], dtype=np.float64)
    if features and not any(f in known for f in features):
        raise SchemaError(f"{path}: has none of the features tested ({', '.join(map(repr, list(features)[:3]))}, ...).")
    return found


def read_cell_reference(path: Path) -> CellReference:
    """Return a table of marker features x cell types.

    Raises
    ------
    SchemaError
        No cell type, or a marker occurs twice.
    FormatError
        A cell is no number, or missing.
    """
    table = read_arrow(path)
    names = _feature_names(table, path)
    id_name = _find(table.column_names, _FEATURE) or table.column_names[0]
    cells = [n for n in table.column_names if n != id_name]
    if not cells:
        raise SchemaError(f"{path}: expected marker CpGs in rows and cell types in columns, found one column.")
    values = np.empty((len(names), len(cells)))
    for k, cell in enumerate(cells):
        values[:, k] = [_float(v, f"{path}, column {cell!r}") for v in _texts(table.column(cell))]
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise FormatError(
            f"{path}: marker {names[row]!r} lacks a value; expected one for every cell type. Drop the row."
        )
    if values.min() < 0 or values.max() > 1:
        raise FormatError(
            f"{path}: expected betas in [0, 1], found {values.min():.4g} to {values.max():.4g}. Give mean betas of "
            "pure cells."
        )
    return CellReference(tuple(names), tuple(cells), values)
