"""Figures of transcriptome-wide scans: the strongest test of every gene along the genome, and quantiles."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from brainlocus.core.expression import GenePlace
from brainlocus.pipeline.figures.gwas import Panel, draw_manhattan, draw_qq
from brainlocus.pipeline.figures.gwas_points import power_text, qq_curve_of_tests

__all__ = ["draw_gene_manhattan", "draw_gene_qq"]

_MOST_CURVES = 8


def draw_gene_manhattan(
    genes: Shaped[np.ndarray, " genes"],
    gene_names: Shaped[np.ndarray, " genes"],
    neg_log10_p: Float[np.ndarray, " genes"],
    places: Mapping[str, GenePlace],
    path: Path,
    *,
    title: str,
    threshold: float,
) -> int:
    """Draw one point a gene, the strongest named; return the genes without a place, which are left out.

    Parameters
    ----------
    neg_log10_p
        Of the gene's strongest test; NaN: none.
    places
        By gene id, without version.
    threshold
        p of the line.
    """
    found = [places.get(str(g).split(".")[0]) for g in genes.tolist()]
    kept = [k for k, place in enumerate(found) if place is not None]
    used = [place for place in found if place is not None]
    labels = np.where(gene_names == "", genes, gene_names)
    panel = Panel(
        title=title,
        chromosome=np.array([p.chromosome for p in used], dtype=np.str_),
        position=np.array([(p.start + p.stop) // 2 for p in used], dtype=np.int64),
        neg_log10_p=neg_log10_p[kept],
        label=labels[kept],
        thresholds=((threshold, power_text(threshold)),),
    )
    if used:
        draw_manhattan(panel, path)
    return len(found) - len(used)


def draw_gene_qq(tissues: Mapping[str, Float[np.ndarray, " tests"]], path: Path) -> None:
    """Draw observed against expected quantiles of the tests of each tissue; of the first eight where there are more."""
    some = list(tissues.items())[:_MOST_CURVES]
    draw_qq([qq_curve_of_tests(name, values) for name, values in some if np.isfinite(values).any()], path)
