"""``store export``: the gene associations of a store as a folder of pages and JSON, to share without a server.

Data flow::

    store, scope, alpha --GeneResults.of_gene, of_phenotype--> one page and one JSON file a gene and a phenotype
                                                           --> index.html, genes.html, phenotypes.html, index.json
"""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from brainlocus.core import SchemaError
from brainlocus.pipeline.config import InputTree, Positional, StepConfig
from brainlocus.pipeline.static_pages import json_ready, page, paragraph, table
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.store import GeneFilter, GeneResults, GeneRows, LocalStore

__all__ = ["STORE_EXPORT", "StoreExportConfig"]

_SHOWN = 500
"""Rows of a page; the JSON file beside it has all."""
_COLUMNS = {
    "zscore": "z",
    "effect_size": "effect",
    "neg_log10_p": "-log10 p",
    "q_bh": "FDR q",
    "p_bonferroni": "Bonferroni p",
    "pred_perf_r2": "model R²",
}
"""Numbers of an association, and what pages call them."""


class StoreExportConfig(StepConfig):
    """Settings of ``store export``."""

    store: Annotated[InputTree, Positional()] = Field(description="Folder of store build")
    scope: Literal["study", "modality", "atlas", "phenotype", "phenotype-tissue", "nominal"] = Field(
        "study", description="Tests that alpha holds over; nominal compares p itself"
    )
    correction: Literal["bh", "bonferroni"] = Field("bh", description="Benjamini-Hochberg or Bonferroni")
    alpha: float = Field(0.05, gt=0, le=1, description="Largest q, corrected p or p of an association that is shown")


def store_export(config: StoreExportConfig, out: Path, context: Context) -> StepResult:
    """Write pages and JSON of every gene and phenotype with an association that passes."""
    with closing(LocalStore(config.store)) as store:
        twas = store.twas
        if twas is None:
            raise SchemaError(f"{config.store}: expected a store with associations of genes (store build --twas).")
        chosen = GeneFilter(scope=config.scope, correction=config.correction, alpha=config.alpha)
        twas.select(chosen)
        title = str(store.meta.get("title") or "Study")
        files = _Files(out, twas, config, title)
        genes = [row for row in twas.genes if row["n_associations"]]
        phenotypes = [row for row in store.phenotypes if row["n_gene_associations"]]
        n = len(genes) + len(phenotypes)
        steps = context.progress.track(range(n), "Writing pages", n)
        for k in steps:
            if k < len(genes):
                files.gene(genes[k], twas.of_gene(genes[k]["gid"], chosen))
            else:
                row = phenotypes[k - len(genes)]
                files.phenotype(row, twas.of_phenotype(row["pid"], chosen))
        files.indexes(str(store.meta.get("licence") or ""), str(store.meta.get("citation") or ""))
    counts = {
        "store_sha256": store.digest,
        "genes": len(files.genes),
        "genes_without_association": len(genes) - len(files.genes),
        "phenotypes": len(files.phenotypes),
        "associations": files.n_associations,
    }
    return StepResult(counts, summary=(f"{files.count()}; open index.html",))


class _Files:
    """The folder that is written; pages are named by number, so that every id is safe."""

    def __init__(self, out: Path, twas: GeneResults, config: StoreExportConfig, title: str) -> None:
        self._out, self._twas, self._title, self._scope = out, twas, title, config.scope
        bound = {"bh": "FDR q", "bonferroni": "Bonferroni p"}[config.correction]
        over = "p" if config.scope == "nominal" else f"{bound} over the {config.scope}"
        self._rule = f"{over} up to {config.alpha:g}"
        self.genes: list[dict[str, Any]] = []
        self.phenotypes: list[dict[str, Any]] = []
        self.n_associations = 0
        for folder in ("gene", "phenotype"):
            (out / folder).mkdir(parents=True)

    def gene(self, row: dict[str, Any], rows: GeneRows) -> None:
        """Write the page of a gene; nothing when it has no association."""
        if not len(rows):
            return
        name = row["gene_name"] or row["gene"]
        about = {key: row[key] for key in ("gene", "gene_name", "n_tissues")}
        self.n_associations += len(rows)
        self.genes.append({**about, "n_phenotypes": int(np.unique(rows.pid).size), **_best(rows)})
        self.genes[-1]["file"] = self._write(
            f"gene/g{row['gid']:05d}",
            name,
            paragraph(f"{row['gene']}, predicted expression in {row['n_tissues']} tissues. {self._rule}."),
            about,
            rows,
            lambda columns, part: {
                "phenotype": [
                    (label, f"../phenotype/p{pid:05d}.html")
                    for label, pid in zip(columns["label"], part.pid.tolist(), strict=True)
                ],
                "modality": columns["modality"],
            },
        )

    def phenotype(self, row: dict[str, Any], rows: GeneRows) -> None:
        """Write the page of a phenotype; nothing when it has no association."""
        if not len(rows):
            return
        names = ("phenotype_id", "label", "modality", "atlas", "side", "region", "measurement")
        about = {key: row[key] or "" for key in names}
        self.phenotypes.append({**about, "n_genes": int(np.unique(rows.gid).size), **_best(rows)})
        place = ", ".join(about[key] for key in ("modality", "atlas", "side") if about[key])
        self.phenotypes[-1]["file"] = self._write(
            f"phenotype/p{row['pid']:05d}",
            row["label"],
            paragraph(f"{row['phenotype_id']}{f', {place}' if place else ''}. {self._rule}."),
            about,
            rows,
            lambda columns, part: {
                "gene": [
                    (name or gene, f"../gene/g{gid:05d}.html")
                    for name, gene, gid in zip(columns["gene_name"], columns["gene"], part.gid.tolist(), strict=True)
                ]
            },
        )

    def _write(
        self,
        path: str,
        title: str,
        lead: str,
        about: dict[str, Any],
        rows: GeneRows,
        first: Callable[[dict[str, Any], GeneRows], dict[str, Any]],
    ) -> str:
        """Write one page and its JSON, strongest first; return the page's path."""
        columns = self._twas.columns(rows, self._scope)
        data = {name: columns[name] for name in ("gene", "gene_name", "phenotype_id", "tissue", *_COLUMNS)}
        text = json.dumps({**about, "rule": self._rule, "associations": json_ready(data)})
        (self._out / f"{path}.json").write_text(text + "\n")
        part = rows.take(np.arange(min(len(rows), _SHOWN)))
        shown = {name: column[:_SHOWN] for name, column in columns.items()}
        numbers = {text: shown[n] for n, text in _COLUMNS.items() if any(value is not None for value in shown[n])}
        note = f"The {_SHOWN} strongest of {len(rows):,}; the JSON file has all." if len(rows) > _SHOWN else ""
        cells = {**first(shown, part), "tissue": [t.replace("_", " ") for t in shown["tissue"]], **numbers}
        links = paragraph("", ("the same as JSON", f"{path.split('/')[1]}.json"))
        body = [lead, table("Associations, strongest first", cells, note=note), links]
        (self._out / f"{path}.html").write_text(page(title, body, up=(self._title, "../index.html")))
        return f"{path}.html"

    def count(self) -> str:
        """Say what was written."""
        n_genes, n_phenotypes = len(self.genes), len(self.phenotypes)
        return f"{self.n_associations:,} associations of {n_genes:,} genes with {n_phenotypes:,} phenotypes"

    def indexes(self, licence: str, citation: str) -> None:
        """Write the lists of genes and phenotypes, and the front page."""
        self.genes.sort(key=lambda row: -row["max_neg_log10_p"])
        self.phenotypes.sort(key=lambda row: -row["max_neg_log10_p"])
        genes = {
            "gene": [(row["gene_name"] or row["gene"], row["file"]) for row in self.genes],
            "Ensembl id": [row["gene"] for row in self.genes],
            "phenotypes": [row["n_phenotypes"] for row in self.genes],
            "largest -log10 p": [row["max_neg_log10_p"] for row in self.genes],
        }
        phenotypes = {
            "phenotype": [(row["label"], row["file"]) for row in self.phenotypes],
            "id": [row["phenotype_id"] for row in self.phenotypes],
            "modality": [row["modality"] for row in self.phenotypes],
            "genes": [row["n_genes"] for row in self.phenotypes],
            "largest -log10 p": [row["max_neg_log10_p"] for row in self.phenotypes],
        }
        up = (self._title, "index.html")
        for name, title, columns in (("genes", "Genes", genes), ("phenotypes", "Phenotypes", phenotypes)):
            (self._out / f"{name}.html").write_text(page(title, [table(self._rule, columns)], up=up))
        content: dict[str, Any] = {"title": self._title, "rule": self._rule, "licence": licence, "citation": citation}
        content |= {"genes": self.genes, "phenotypes": self.phenotypes}
        (self._out / "index.json").write_text(json.dumps(content) + "\n")
        strongest = {name: column[:25] for name, column in genes.items()}
        links = (("all genes", "genes.html"), ("all phenotypes", "phenotypes.html"), ("as JSON", "index.json"))
        ending = " · ".join(text for text in (licence, f"cite: {citation}" if citation else "") if text)
        body = [
            paragraph(f"{self.count()}: {self._rule}."),
            paragraph("Your browser's search finds a name in the lists:", *links),
            table("Strongest genes", strongest),
            paragraph(ending) if ending else "",
        ]
        (self._out / "index.html").write_text(page(self._title, body))


def _best(rows: GeneRows) -> dict[str, Any]:
    return {"n_associations": len(rows), "max_neg_log10_p": float(rows.strength[0])}


STORE_EXPORT = Step(
    "store export",
    "Write the gene associations of a store as pages and JSON that need no server.",
    StoreExportConfig,
    store_export,
    out="folder",
)
