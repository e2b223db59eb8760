"""Genes and sets of genes."""

from brainlocus.genetics.genes.ontology import (
    Annotation,
    Enrichment,
    TermGraph,
    annotate,
    enrich,
    ontology_results,
    term_graph,
)

__all__ = [
    "Annotation",
    "Enrichment",
    "TermGraph",
    "annotate",
    "enrich",
    "ontology_results",
    "term_graph",
]
