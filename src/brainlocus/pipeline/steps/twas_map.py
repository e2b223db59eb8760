"""``twas map``: a value of every region, drawn on the cortex.

Two kinds of input::

    results of twas associate + gene + tissue --> phenotypes --regions--> labels
    tables of regions (ENIGMA's, or any)      --> names --built-in or --region-names--> labels

Written to OUT: ``map.png``, and ``regions.tsv`` with every input and every region of the map, and what became of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float64, Shaped
from pydantic import Field

from brainlocus.core import GeneMatrix, ResultTable, SchemaError
from brainlocus.core.errors import import_extra, nearest
from brainlocus.core.surfaces import Surface, SurfaceLabels
from brainlocus.genetics.twas import (
    desikan_killiany_codes,
    enigma_regions,
    match_regions,
    subcortical_labels,
)
from brainlocus.io import open_gene_folder, read_annotation, read_arrow, read_gene_matrices, write_results
from brainlocus.io.surfaces import read_fsaverage5, read_label_codes, read_surface, read_surface_labels
from brainlocus.io.tables import MISSING_TEXT
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, InputPaths, Positional, StepConfig
from brainlocus.pipeline.figures.surfaces import MapLook, draw_region_map
from brainlocus.pipeline.phenotype_choice import choose_phenotypes, read_choice
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["TWAS_MAP", "TwasMapConfig"]

_ATLASES = {
    "dk": ("dk", "Desikan"),
    "dkt": ("dkt", "DKTatlas", "DKT"),
    "destrieux": ("destrieux", "a2009s"),
    "subcortex": (),
}
"""What tables of phenotypes call the parcellations."""
_SUBCORTEX = ("aseg", "Subcortex")
_NO_LABEL = "no region"
"""Status of phenotypes to which the table gives no label, such as the mean thickness of a hemisphere."""
_REGION_COLUMNS = ("region", "label", "Structure", "structure")


class TwasMapConfig(StepConfig):
    """Settings of ``twas map``."""

    results: Annotated[InputPaths, Positional()] = Field(
        description="Results of twas associate (with --gene), or tables with a row a region (ENIGMA's, or any)"
    )
    gene: str = Field("", description="Gene, by id or symbol: results are of twas associate")
    tissue: str = Field("", description="Tissue; not needed where one alone has the gene")
    value: str = Field("", description="Column to draw; of results zscore (default) or effect_size")
    regions: InputPath | None = Field(
        None,
        description=(
            "Table of phenotypes and their regions: atlas, and label, or hemisphere (lh, rh) and fs_name; for results"
        ),
    )
    phenotypes: CommaList = Field((), description="Phenotypes: names or patterns (*_thickness_*); for results")
    annotation: InputPath | None = Field(None, description="Table whose first column names phenotypes, for the next")
    measurement: CommaList = Field((), description="Only phenotypes of these measurements of the annotation")
    file_pattern: str = Field("", description="What the names of result files mean; see twas cluster")
    region_column: str = Field("", description="Column of regions; by default region, label or Structure; for tables")
    region_names: InputPath | None = Field(
        None, description="Table of what regions are called on the map, columns region and label; for tables"
    )
    atlas: Literal["dk", "dkt", "destrieux", "subcortex"] = Field(
        "dk", description="Parcellation; subcortex draws no cortex"
    )
    labels: CommaPaths = Field(
        (), description="Labels of the vertices: LEFT,RIGHT (.annot, .label.gii), or one list of numbers for both"
    )
    label_names: InputPath | None = Field(
        None, description="Table of what the numbers mean, columns code and label; dk: by default as ENIGMA's"
    )
    surface: Literal["inflated", "pial", "white"] = Field("inflated", description="fsaverage5 surface of nilearn")
    meshes: CommaPaths = Field((), description="Meshes LEFT,RIGHT instead, GIFTI or FreeSurfer")
    limit: float | None = Field(
        None, gt=0, description="Value of the darkest colours; the largest absolute value by default"
    )
    title: str = Field("", description="Title of the figure")


@dataclass(frozen=True, slots=True, eq=False)
class _Inputs:
    """Values by name, and what their names mean."""

    names: tuple[str, ...]
    values: Float64[np.ndarray, " names"]
    table: Mapping[str, str]
    """Label of a name."""
    trouble: Mapping[str, str]
    """Names that the table places wrongly, and why."""
    title: str
    quantity: str
    counts: dict[str, Any]


def _no_gene(gene: str, matrices: list[GeneMatrix]) -> str:
    """Return the message for a gene that no tissue has."""
    names = {name for m in matrices for name in (*m.genes.tolist(), *m.gene_names.tolist()) if name}
    tissues = ", ".join(m.tissue for m in matrices)
    return f"--gene: no model of {gene!r} in {tissues}.{nearest(gene, sorted(names))}"


def _gene_rows(gene: str, genes: Shaped[np.ndarray, " genes"], symbols: Shaped[np.ndarray, " genes"]) -> np.ndarray:
    """Return the rows of a gene: by id, with or without its version, else by symbol, in any case."""
    plain = np.array([name.split(".")[0] for name in genes.tolist()], dtype=np.str_)
    for found in (genes == gene, plain == gene, np.char.upper(symbols.astype(np.str_)) == gene.upper()):
        if found.any():
            return np.flatnonzero(found)
    return np.zeros(0, dtype=np.int64)


def _tissue_matrices(config: TwasMapConfig) -> list[GeneMatrix]:
    """Return the matrix of the tissue that is asked for, or of all; those of a folder stay on disk."""
    wanted = (config.tissue,) if config.tissue else ()
    if len(config.results) == 1 and config.results[0].is_dir():
        folder = open_gene_folder(config.results[0])
        return [folder.matrix(name) for name in wanted or folder.tissues]
    return list(read_gene_matrices(config.results, tissues=wanted, pattern=config.file_pattern, tissue=config.tissue))


def _from_results(config: TwasMapConfig) -> _Inputs:
    """Return the values of a gene's associations, by phenotype."""
    if config.regions is None:
        raise SchemaError("--gene: give the table of phenotypes and their regions with --regions.")
    value = config.value or "zscore"
    if value not in ("zscore", "effect_size"):
        raise SchemaError(f"--value: expected zscore or effect_size with --gene, found {value!r}.")
    matrices = _tissue_matrices(config)
    found = [(m, _gene_rows(config.gene, m.genes, m.gene_names)) for m in matrices]
    having = [(m, rows) for m, rows in found if rows.size]
    if not having:
        raise SchemaError(_no_gene(config.gene, matrices))
    if len(having) > 1:
        raise SchemaError(f"--tissue: {config.gene} has models in {', '.join(m.tissue for m, _ in having)}; name one.")
    matrix, rows = having[0]
    if rows.size > 1:
        raise SchemaError(f"--gene: {config.gene} is the symbol of {', '.join(matrix.genes[rows])}; name one.")
    source = matrix.z if value == "zscore" else matrix.effect
    if source is None:
        raise SchemaError("--value effect_size: the results have no effect sizes.")
    filters = {"measurement": config.measurement} if config.measurement else {}
    choice = read_choice(config.annotation, names=config.phenotypes, filters=filters)
    columns, counts = choose_phenotypes(choice, matrix.phenotypes)
    values = np.asarray(source[rows[0]], dtype=np.float64)[columns]
    names = matrix.phenotypes[columns]
    table, trouble, of_atlas = _phenotype_labels(config.regions, config.atlas)
    here = np.array([name in of_atlas for name in names.tolist()], dtype=bool)
    counts["not_of_atlas"] = int((~here).sum())
    known = here & np.isfinite(values)
    counts["without_value"] = int((here & ~known).sum())
    if not known.any():
        some = ", ".join(names[:3].tolist())
        raise SchemaError(
            f"No phenotype of {config.gene} is in the atlas {config.atlas} of {config.regions}: the results have "
            f"{some} ..., the table {', '.join(sorted(of_atlas)[:3]) or 'none of this atlas'} ..."
        )
    symbol = str(matrix.gene_names[rows[0]]) or str(matrix.genes[rows[0]])
    title = f"{symbol}, {matrix.tissue}"
    quantity = "z" if value == "zscore" else "effect size"
    return _Inputs(tuple(names[known].tolist()), values[known], table, trouble, title, quantity, counts)


def _phenotype_labels(path: Path, atlas: str) -> tuple[dict[str, str], dict[str, str], set[str]]:
    """Return the labels of phenotypes, those whose label is of the other side, and all that are of the atlas."""
    read = read_annotation(path)
    columns = read.columns
    if "label" not in columns and not {"hemisphere", "fs_name"} <= columns.keys():
        raise SchemaError(
            f"{path}: expected columns atlas, and label or hemisphere and fs_name, found {', '.join(columns)}."
        )
    if "atlas" not in columns:
        raise SchemaError(f"{path}: expected a column atlas, found {', '.join(columns)}.")
    wanted = (*_ATLASES[atlas], *_SUBCORTEX)
    labels: dict[str, str] = {}
    trouble: dict[str, str] = {}
    of_atlas: set[str] = set()
    for k, name in enumerate(read.phenotypes.tolist()):
        if columns["atlas"][k] not in wanted:
            continue
        of_atlas.add(name)
        side = str(columns["hemisphere"][k]) if "hemisphere" in columns else ""
        label = str(columns["label"][k]) if "label" in columns else f"{side}_{columns['fs_name'][k]}"
        if _side(label) and side in ("lh", "rh") and _side(label) != side:
            trouble[name] = f"the table gives {label} to a phenotype of the {side}"
        elif not label:
            trouble[name] = _NO_LABEL
        else:
            labels[name] = label
    return labels, trouble, of_atlas


def _side(label: str) -> str:
    sides = (("lh_", "lh"), ("rh_", "rh"), ("Left-", "lh"), ("Right-", "rh"))
    return next((side for start, side in sides if label.startswith(start)), "")


def _from_tables(config: TwasMapConfig) -> _Inputs:
    """Return the values of tables with a row a region."""
    used = {"--tissue": config.tissue, "--regions": config.regions, "--phenotypes": config.phenotypes}
    used |= {
        "--annotation": config.annotation,
        "--measurement": config.measurement,
        "--file-pattern": config.file_pattern,
    }
    given = [option for option, value in used.items() if value]
    if given:
        raise SchemaError(f"{', '.join(given)}: only with --gene, which takes the results of twas associate.")
    names: list[str] = []
    values: list[float] = []
    missing = 0
    for path in config.results:
        if path.is_dir():
            raise SchemaError(f"{path}: a folder of results needs --gene.")
        for name, value in _table_values(config, path):
            if not np.isfinite(value):
                missing += 1
                continue
            names.append(name)
            values.append(value)
    if not names:
        raise SchemaError(f"{', '.join(map(str, config.results))}: column {config.value!r} has no numbers.")
    table = enigma_regions()
    if config.region_names is not None:
        table |= _region_names(config.region_names)
    title = ", ".join(path.name.split(".")[0] for path in config.results)
    return _Inputs(tuple(names), np.array(values), table, {}, title, config.value, {"without_value": missing})


def _table_values(config: TwasMapConfig, path: Path) -> list[tuple[str, float]]:
    table = read_arrow(path)
    columns = list(table.column_names)
    region = config.region_column or next((name for name in _REGION_COLUMNS if name in columns), "")
    for option, name in (("--region-column", region), ("--value", config.value)):
        if name not in columns:
            hint = nearest(name, columns) if name else ""
            said = f"there is no column {name!r}." if name else "name the column."
            raise SchemaError(f"{option}: {said}{hint} {path.name} has: {', '.join(c for c in columns if c)}.")
    found = []
    pairs = zip(table.column(region).to_pylist(), table.column(config.value).to_pylist(), strict=True)
    for line, (name, cell) in enumerate(pairs, 2):
        text = "" if cell is None else str(cell).strip()
        try:
            number = float("nan") if text in MISSING_TEXT else float(text)
        except ValueError:
            raise SchemaError(f"{path}, line {line}: expected a number in {config.value}, found {text!r}.") from None
        if str(name or "").strip():
            found.append((str(name).strip(), number))
    return found


def _region_names(path: Path) -> dict[str, str]:
    table = read_arrow(path)
    for name in ("region", "label"):
        if name not in table.column_names:
            raise SchemaError(f"{path}: expected columns region and label, found {', '.join(table.column_names)}.")
    pairs = zip(table.column("region").to_pylist(), table.column("label").to_pylist(), strict=True)
    return {str(region).strip(): str(label or "").strip() for region, label in pairs}


def _hemispheres(config: TwasMapConfig) -> list[tuple[Surface, SurfaceLabels]]:
    """Return mesh and labels of both hemispheres; none for the subcortex alone."""
    if config.atlas == "subcortex":
        return []
    if not config.labels:
        raise SchemaError(
            f"--labels: give the {config.atlas} labels of the vertices, LEFT,RIGHT (lh.aparc.annot,rh.aparc.annot) or "
            "one list of numbers (ENIGMA's aparc_fsa5.csv)."
        )
    codes = None
    if config.label_names is not None:
        codes = read_label_codes(config.label_names)
    elif config.atlas == "dk":
        codes = desikan_killiany_codes()
    labels = read_surface_labels(config.labels, codes=codes)
    if config.meshes and len(config.meshes) != 2:
        raise SchemaError(f"--meshes: expected two files, left and right, found {len(config.meshes)}.")
    meshes = [read_surface(path) for path in config.meshes] or list(read_fsaverage5(config.surface))
    for side, mesh, label in zip(("left", "right"), meshes, labels, strict=True):
        if mesh.vertices.shape[0] != label.code.size:
            raise SchemaError(
                f"--labels: expected a label for each of the {mesh.vertices.shape[0]} vertices of the {side} mesh, "
                f"found {label.code.size}. Labels and mesh must be of one surface (fsaverage5 has 10,242 a side)."
            )
    return list(zip(meshes, labels, strict=True))


def _place(inputs: _Inputs, known: frozenset[str], atlas: str) -> tuple[dict[str, float], ResultTable, list[str]]:
    """Return the value of every label that has one, the table of all inputs, and the names that match nothing.

    Raises
    ------
    SchemaError
        Nothing matches, or two values are of one region.
    """
    clean = {name: label for name, label in inputs.table.items() if name not in inputs.trouble}
    matches = match_regions(inputs.names, clean, known)
    if not matches.matched.any():
        meant = ", ".join(sorted(set(inputs.names))[:6])
        there = ", ".join(sorted(known)[:6])
        raise SchemaError(
            f"No region has a place on the map of {atlas}. The input has {meant} ...; the map has {there} ... Give a "
            "table of names with --region-names, or another --atlas or --labels."
        )
    values: dict[str, float] = {}
    owner: dict[str, str] = {}
    for name, label, value, matched in zip(inputs.names, matches.label, inputs.values, matches.matched, strict=True):
        if not matched:
            continue
        if label in owner:
            raise SchemaError(
                f"Two values are of {label}: {owner[label]} and {name}. Choose one with --phenotypes or --measurement, "
                "or give one table at a time."
            )
        owner[label], values[label] = name, float(value)
    status = [
        "ok" if matched else inputs.trouble.get(name, "not on the map")
        for name, matched in zip(inputs.names, matches.matched, strict=True)
    ]
    unmatched = [name for name, matched in zip(inputs.names, matches.matched, strict=True) if not matched]
    empty = sorted(known - set(values))
    cortical = [label for label in empty if label.startswith(("lh_", "rh_"))]
    table = ResultTable(
        {
            "region": np.array([*inputs.names, *("" for _ in cortical)], dtype=np.str_),
            "label": np.array([*matches.label, *cortical], dtype=np.str_),
            "value": np.r_[inputs.values, np.full(len(cortical), np.nan)],
            "status": np.array([*status, *("no value" for _ in cortical)], dtype=np.str_),
        }
    )
    return values, table, unmatched


def _why(table: ResultTable, names: list[str]) -> list[str]:
    """Return the statuses of some regions."""
    status = dict(zip(table["region"].tolist(), table["status"].tolist(), strict=True))
    return [status[name] for name in names]


def twas_map(config: TwasMapConfig, out: Path, context: Context) -> StepResult:  # noqa: ARG001
    """Draw a map and write what is on it."""
    import_extra("matplotlib", extra="plot")
    inputs = _from_results(config) if config.gene else _from_tables(config)
    hemispheres = _hemispheres(config)
    sizes: dict[str, int] = {}
    for _, labels in hemispheres:
        counts = dict(zip(*(part.tolist() for part in np.unique(labels.code, return_counts=True)), strict=True))
        sizes |= {name: int(counts.get(code, 0)) for code, name in labels.names.items() if counts.get(code, 0)}
    below = subcortical_labels()
    values, table, unmatched = _place(inputs, frozenset(sizes) | frozenset(below), config.atlas)
    n_vertices = np.array([sizes.get(label, 0) for label in table["label"].tolist()], dtype=np.int64)
    table = ResultTable(dict(table.columns) | {"n_vertices": n_vertices})
    write_results(table, out / "regions.tsv")
    cortex = {label: value for label, value in values.items() if label in sizes}
    subcortex = {label: values[label] for label in below if label in values}
    if hemispheres and not cortex:
        hemispheres = []
    limit = config.limit or max(abs(value) for value in values.values()) or 1.0
    look = MapLook(config.title or inputs.title, inputs.quantity, limit)
    draw_region_map(hemispheres, cortex, subcortex, look, out / "map.png")
    missing = sorted(set(sizes) - set(cortex)) if hemispheres else []
    found = {
        **inputs.counts,
        "regions_drawn": len(cortex),
        "structures_drawn": len(subcortex),
        "regions_without_value": missing,
        "unmatched": {
            name: str(s) for name, s in zip(table["region"], table["status"], strict=True) if name in unmatched
        },
    }
    line = f"{len(cortex)} regions of the cortex and {len(subcortex)} structures below it drawn"
    notes = [f"{len(missing)} regions have no value and are grey"] if missing else []
    if unmatched:
        more = " ..." if len(unmatched) > 5 else ""
        notes.append(f"{len(unmatched)} have no place on the map: {', '.join(unmatched[:5])}{more}")
    n_failed = sum(why != _NO_LABEL for why in _why(table, unmatched))
    return StepResult(found, n_failed=n_failed, summary=(line, *notes))


TWAS_MAP = Step("twas map", "Draw effects of regions on the cortex.", TwasMapConfig, twas_map, out="folder")
