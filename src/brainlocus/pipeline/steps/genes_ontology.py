"""``genes ontology``: terms that the genes of clusters share, more than the genes that were tested."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Shaped
from pydantic import Field, model_validator

from brainlocus.core import ResultTable, SchemaError
from brainlocus.core.errors import nearest
from brainlocus.genetics.genes import Annotation, TermGraph, annotate, enrich, ontology_results, term_graph
from brainlocus.io import read_arrow, write_results
from brainlocus.io.tables import MISSING_TEXT
from brainlocus.pipeline.config import CommaList, CommaPaths, InputPath, InputPaths, OutputPath, Positional, StepConfig
from brainlocus.pipeline.figures.ontology import draw_terms
from brainlocus.pipeline.gene_results import read_names, without_version
from brainlocus.pipeline.people import report_folder
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["GENES_ONTOLOGY", "GenesOntologyConfig"]

_GENE_COLUMNS = ("gene", "gene_id", "geneid", "ensembl", "gene_name", "symbol", "entrez")
_TABLES = re.compile(r"\.(tsv|csv|parquet)(\.gz)?$", re.IGNORECASE)


class GenesOntologyConfig(StepConfig):
    """Settings of ``genes ontology``."""

    query: Annotated[InputPaths, Positional()] = Field(
        description="Clusters of genes: lists (a cluster each, named after the file), or tables of gene and cluster"
    )
    ontology: InputPath = Field(description="Table of edges: child, parent, relationship_type")
    terms: InputPath = Field(description="Table of terms: go_id, term, ontology")
    annotation: CommaPaths = Field(description="Tables of genes and their terms, direct or with all terms above them")
    ids: InputPath | None = Field(
        None, description="Table that translates gene ids: the annotation's id, and symbol, Ensembl or other ids"
    )
    universe: CommaPaths = Field(
        (), description="Genes that could have been found: lists, or the results of twas associate"
    )
    all_annotated: bool = Field(
        False, description="Take every annotated gene as universe, which is right for a study of the whole genome only"
    )
    ontologies: CommaList = Field((), description="Of these only: BP, CC, MF; all by default")
    exclude_evidence: CommaList = Field((), description="Evidence codes of annotations to leave out, such as IEA")
    min_size: int = Field(15, ge=1, description="Fewest genes of a term, of the universe")
    max_size: int = Field(500, ge=1, description="Most genes of a term, of the universe")
    simplify: Literal["none", "jaccard", "wang"] = Field(
        "none", description="Mark terms that repeat a stronger one: by genes in common, or common ancestors"
    )
    similarity: float = Field(0.7, gt=0, le=1, description="From which similarity on a term repeats a stronger one")
    fdr: float = Field(0.05, gt=0, le=1, description="Largest q of the terms that are counted, compared and drawn")
    report: OutputPath | None = Field(None, description="Folder for dot plots and the list of genes left out")

    @model_validator(mode="after")
    def _goes_together(self) -> "GenesOntologyConfig":
        if not self.universe and not self.all_annotated:
            raise ValueError(
                "universe: expected the genes that were tested (a list, or the results of twas associate); "
                "--all-annotated takes every annotated gene, which is right for a study of the whole genome only"
            )
        if self.universe and self.all_annotated:
            raise ValueError("universe: --universe and --all-annotated exclude each other")
        if self.min_size > self.max_size:
            raise ValueError(f"min_size: expected at most --max-size {self.max_size}, found {self.min_size}")
        return self


@dataclass(frozen=True, slots=True)
class _Translator:
    """From ids of any kind to those of the annotation."""

    known: Mapping[str, tuple[str, ...]]
    """By id without version, symbols in capitals."""
    labels: Mapping[str, str]
    """Symbol of the annotation's ids."""

    def find(self, names: Iterable[str]) -> tuple[dict[str, str], list[str], list[str]]:
        """Return the annotation's id by name, names without one, and names with several (the first is taken)."""
        found, missing, several = {}, [], []
        for name in names:
            ids = self.known.get(without_version(name)) or self.known.get(name.upper(), ())
            if not ids:
                missing.append(name)
                continue
            found[name] = ids[0]
            if len(ids) > 1:
                several.append(name)
        return found, missing, several


def _columns(path: Path, names: Sequence[str]) -> list[list[str]]:
    table = read_arrow(path)
    absent = [name for name in names if name not in table.column_names]
    if absent:
        raise SchemaError(
            f"{path}: expected columns {', '.join(names)}, found {', '.join(table.column_names[:8])}."
            f"{nearest(absent[0], table.column_names)}"
        )
    return [["" if v is None else str(v).strip() for v in table.column(name).to_pylist()] for name in names]


def _read_graph(config: GenesOntologyConfig) -> TermGraph:
    terms, names, ontology = (np.array(c, dtype=np.str_) for c in _columns(config.terms, ("go_id", "term", "ontology")))
    kept = np.char.lower(ontology) != "universal"
    if config.ontologies:
        absent = sorted(set(config.ontologies) - set(ontology.tolist()))
        if absent:
            known = ", ".join(np.unique(ontology[kept]).tolist())
            raise SchemaError(f"--ontologies: there is no {absent[0]} in {config.terms}, which has {known}.")
        kept &= np.isin(ontology, config.ontologies)
    edges = _columns(config.ontology, ("child", "parent", "relationship_type"))
    try:
        return term_graph(terms[kept], names[kept], ontology[kept], (edges[0], edges[1], edges[2]))
    except SchemaError as error:
        raise SchemaError(f"{config.ontology}, {config.terms}: {error}") from error


def _read_annotation(config: GenesOntologyConfig, graph: TermGraph) -> tuple[Annotation, str, int]:
    """Return the annotation, the name of its ids, and how many rows were left out for their evidence."""
    genes: list[str] = []
    terms: list[str] = []
    left_out, key = 0, ""
    for path in config.annotation:
        header = read_arrow(path).column_names
        key = key or header[0]
        wanted = [key, "go_id", *(["evidence"] if config.exclude_evidence else [])]
        columns = _columns(path, wanted)
        for gene, term, *evidence in zip(*columns, strict=True):
            if evidence and evidence[0] in config.exclude_evidence:
                left_out += 1
                continue
            genes.append(gene)
            terms.append(term)
    if not genes:
        raise SchemaError(
            f"{config.annotation[0]}: expected annotations, found none ({left_out} of excluded evidence)."
        )
    return annotate(graph, genes, terms), key, left_out


def _translator(path: Path | None, key: str, annotation: Annotation) -> _Translator:
    own = annotation.genes.tolist()
    known: dict[str, tuple[str, ...]] = {name: (name,) for name in own}
    labels = {name: name for name in own}
    if path is None:
        known |= {name.upper(): (name,) for name in own}
        return _Translator(known, labels)
    table = read_arrow(path)
    if key not in table.column_names:
        raise SchemaError(
            f"{path}: expected the annotation's ids in a column {key!r}, found {', '.join(table.column_names[:8])}."
        )
    target = [str(v) for v in table.column(key).to_pylist()]
    for name in target:
        known.setdefault(name, (name,))
    for column in table.column_names:
        if column == key:
            continue
        cells = ["" if v is None else str(v).strip() for v in table.column(column).to_pylist()]
        for cell, name in zip(cells, target, strict=True):
            if cell in MISSING_TEXT:
                continue
            for spelling in {without_version(cell), cell.upper()}:
                before = known.get(spelling, ())
                if name not in before:
                    known[spelling] = (*before, name)
            if column == "symbol" and labels.get(name) == name:
                labels[name] = cell
    return _Translator(known, labels)


def _read_clusters(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Return the genes of clusters by name."""
    clusters: dict[str, list[str]] = {}
    for path in paths:
        table = read_arrow(path) if _TABLES.search(path.name) else None
        if table is None or "cluster" not in table.column_names:
            clusters.setdefault(path.name.split(".")[0], []).extend(read_names(path, _GENE_COLUMNS))
            continue
        column = next((name for name in _GENE_COLUMNS if name in table.column_names), None)
        if column is None:
            raise SchemaError(f"{path}: expected a column gene, found {', '.join(table.column_names[:8])}.")
        pairs = zip(table.column(column).to_pylist(), table.column("cluster").to_pylist(), strict=True)
        for gene, cluster in pairs:
            label = "" if cluster is None else str(cluster).strip()
            if label not in MISSING_TEXT and gene is not None:
                clusters.setdefault(label, []).append(str(gene).strip())
    if not clusters:
        raise SchemaError(f"{paths[0]}: expected genes with a cluster, found none.")
    return {name: list(dict.fromkeys(genes)) for name, genes in clusters.items()}


def _mask(ids: Iterable[str], genes: Shaped[np.ndarray, " genes"]) -> Bool[np.ndarray, " genes"]:
    return np.isin(genes, np.array(sorted(set(ids)), dtype=genes.dtype if genes.size else np.str_))


def genes_ontology(config: GenesOntologyConfig, out: Path, _context: Context) -> StepResult:
    """Write the terms of every cluster."""
    graph = _read_graph(config)
    annotation, key, left_out = _read_annotation(config, graph)
    translator = _translator(config.ids, key, annotation)
    clusters = _read_clusters(config.query)
    universe = np.ones(annotation.genes.size, dtype=bool)
    counts: dict[str, Any] = {
        "terms": int(graph.terms.size),
        "edges_followed": int(graph.child.size),
        "edges_left_out": graph.n_left_out,
        "annotated_genes": int(annotation.genes.size),
        "annotations_of_unknown_terms": annotation.n_unknown,
        "annotations_of_excluded_evidence": left_out,
        "universe": "all annotated genes" if config.all_annotated else "given",
    }
    if config.universe:
        names = list(dict.fromkeys(g for path in config.universe for g in read_names(path, _GENE_COLUMNS)))
        found, missing, several = translator.find(names)
        universe = _mask(found.values(), annotation.genes)
        if not universe.any():
            raise SchemaError(
                f"{config.universe[0]}: none of its {len(names)} genes is annotated, such as {names[0]}; check --ids."
            )
        counts |= {
            "universe_genes": len(names),
            "universe_unmapped": len(missing),
            "universe_with_several_ids": len(several),
        }
    counts["universe_annotated"] = int(universe.sum())
    enriched, lost = [], []
    for name, genes in clusters.items():
        found, missing, several = translator.find(genes)
        members = _mask(found.values(), annotation.genes)
        lost += [(name, gene, "unknown id") for gene in missing]
        lost += [(name, gene, "several ids, the first was taken") for gene in several]
        known = set(annotation.genes[universe].tolist())
        lost += [
            (name, gene, "not annotated, or not in the universe") for gene, own in found.items() if own not in known
        ]
        enriched.append(
            enrich(
                annotation,
                universe,
                members,
                name,
                min_size=config.min_size,
                max_size=config.max_size,
                similarity=config.simplify,
                cutoff=config.similarity,
                fdr=config.fdr,
            )
        )
    labels = np.array([translator.labels.get(gene, gene) for gene in annotation.genes.tolist()], dtype=np.str_)
    results = ontology_results(annotation, enriched, labels)
    write_results(results, out)
    with report_folder(config.report) as folder:
        if folder is not None:
            for name in np.unique(results["ontology"][results["term_id"] != ""]).tolist():
                rows = results.take(np.flatnonzero(results["ontology"] == name))
                draw_terms(rows, list(clusters), config.fdr, folder / f"terms_{name}.png")
            write_results(_lost_table(lost), folder / "genes_left_out.tsv")
    failed = [one for one in enriched if one.status != "ok"]
    n_found = int((results["q_bh"] <= config.fdr).sum())
    counts |= {
        "clusters": {
            n: {"genes": len(g), "in_universe": e.n_genes} for (n, g), e in zip(clusters.items(), enriched, strict=True)
        },
        "unmapped": [gene for _, gene, reason in lost if reason == "unknown id"],
        "tests": int((results["term_id"] != "").sum()),
        "without_result": {one.cluster: one.status for one in failed},
    }
    lines = [
        f"{len(clusters)} clusters, universe of {counts['universe_annotated']:,} annotated genes: {counts['tests']:,} "
        f"tests, {n_found:,} with q <= {config.fdr:g}"
    ]
    lines += [f"{one.cluster}: {one.status}" for one in failed]
    if counts["unmapped"]:
        lines.append(f"{len(counts['unmapped'])} genes have no known id: {', '.join(counts['unmapped'][:8])}")
    return StepResult(counts, n_failed=len(failed), summary=tuple(lines))


def _lost_table(lost: Sequence[tuple[str, str, str]]) -> ResultTable:
    columns = list(zip(*lost, strict=True)) if lost else [(), (), ()]
    return ResultTable(
        {n: np.array(c, dtype=np.str_) for n, c in zip(("cluster", "gene", "reason"), columns, strict=True)}
    )


GENES_ONTOLOGY = Step(
    "genes ontology",
    "Ontology terms that clusters of genes share, more than the genes tested.",
    GenesOntologyConfig,
    genes_ontology,
)
