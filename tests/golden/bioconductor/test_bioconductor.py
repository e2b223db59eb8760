"""Numbers of R (``make_golden.R``): phyper, limma's goana on the real ontology, qvalue's pi0est."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.real_data import real_data

from brainlocus.core import GeneMatrix
from brainlocus.genetics.genes import annotate, enrich, term_graph
from brainlocus.genetics.twas import HemispherePairs, external_replication, match_hemispheres
from brainlocus.numerics import neg_log10_p_from_hypergeometric

HERE = Path(__file__).parent


def test_hypergeometric_tail_is_that_of_r():
    r = pd.read_csv(HERE / "hypergeometric.tsv", sep="\t")
    columns = (r[name].to_numpy() for name in ("overlap", "drawn", "special", "total"))
    ours = neg_log10_p_from_hypergeometric(*columns)
    theirs = -r["ln_p"].to_numpy() / np.log(10)
    # Relative in p: the largest, 675, is beyond the smallest double.
    assert theirs.max() > 670
    assert np.abs((theirs - ours) * np.log(10)).max() < 1e-10


def graph_and_annotation(kind):
    terms = pd.read_csv(real_data("twas/go/go_terms.tsv.gz"), sep="\t", keep_default_na=False)
    edges = pd.read_csv(real_data("twas/go/go_edges.tsv.gz"), sep="\t")
    terms = terms[terms["ontology"] == "CC"]
    graph = term_graph(
        *(terms[c].to_numpy(dtype=str) for c in ("go_id", "term", "ontology")),
        tuple(edges[c].tolist() for c in ("child", "parent", "relationship_type")),
    )
    table = pd.read_csv(real_data(f"twas/go/human_{kind}_cc.tsv.gz"), sep="\t", dtype=str)
    return graph, annotate(graph, table["entrez"].tolist(), table["go_id"].tolist()), table


def test_propagation_gives_bioconductors_table_of_all_terms():
    """389,928 pairs of gene and term, the same ones, from 87,735 direct ones."""
    _, direct, _ = graph_and_annotation("direct")
    graph, again, table = graph_and_annotation("propagated")
    pairs = set(zip(table["entrez"], table["go_id"], strict=True))
    ours = direct.matrix.tocoo()
    found = set(zip(direct.genes[ours.coords[0]].tolist(), graph.terms[ours.coords[1]].tolist(), strict=True))
    assert len(pairs) == 389_928
    assert found == pairs
    # A table with all terms above is what it was.
    assert again.matrix.nnz == len(pairs)


def test_enrichment_is_that_of_goana():
    graph, annotation, table = graph_and_annotation("direct")
    synapse = set(table["entrez"][table["go_id"].isin(["GO:0045202", "GO:0014069", "GO:0098978"])])
    number = annotation.genes.astype(np.int64)
    universe = number % 3 == 0
    members = (np.isin(annotation.genes, list(synapse)) & (number % 5 == 0)) | (number % 37 == 0)
    found = enrich(annotation, universe, members & universe, "cluster")
    r = pd.read_csv(HERE / "goana.tsv", sep="\t").set_index("go_id")
    assert sorted(graph.terms[found.term].tolist()) == sorted(r.index)
    r = r.loc[graph.terms[found.term]]
    np.testing.assert_array_equal(found.n_overlap, r["n_overlap"])
    np.testing.assert_array_equal(found.n_term, r["n_term"])
    np.testing.assert_allclose(10.0**-found.neg_log10_p, r["p"], rtol=1e-10)


def test_pi0_is_that_of_qvalue():
    from scipy.stats import norm

    r = pd.read_csv(HERE / "pi0.tsv", sep="\t")
    z = norm.isf(r["p"].to_numpy() / 2)[:, None]
    genes = np.array([f"g{k}" for k in range(z.size)])
    first = GeneMatrix("t", genes, genes, np.array(["l", "r"]), np.full((z.size, 2), 5.0))
    second = GeneMatrix("t", genes, genes, np.array(["e"]), z)
    pairs = HemispherePairs(np.array(["l"]), np.array(["r"]), np.array(["e"]))
    table, _ = external_replication([match_hemispheres(first, second, pairs, min_r2=0.0)], significance="p")
    assert table["pi1"][0] == pytest.approx(1 - r["pi0"][0], rel=1e-12)
