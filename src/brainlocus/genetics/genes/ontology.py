"""Ontology enrichment: the terms that the genes of a cluster share, more than the genes that were tested.

Data flow::

    terms, edges --term_graph--> TermGraph
    TermGraph, genes and their direct terms --annotate--> Annotation      (true-path propagation, once)
    Annotation, universe, cluster --enrich--> Enrichment                  (once per cluster)
    several --ontology_results--> ResultTable

A gene of a term is a gene of all its ancestors, over ``is_a`` and ``part_of`` (the true-path rule); edges between the
ontologies are not followed. For each ontology the background N are the universe's genes that it annotates, n those of
the cluster, M those of the term, k those of both. A term with ``15 <= M <= 500`` and ``k >= 1`` is tested::

    p = P(X >= k),  X hypergeometric(N, M, n)

with Benjamini-Hochberg over the tested terms of a cluster and ontology (Yu et al. 2012). The universe is the genes that
could have been found: those tested, not the genome. With all genes of the genome as universe, what a tissue expresses
would come out as enriched.

Terms repeat each other. Going from the smallest p up, a term that is similar to one already kept is marked with it:
by the share of genes in common (Jaccard, of the universe), or by the terms' common ancestors (Wang et al. 2007)::

    S_A(A) = 1,  S_A(t) = max over children c of t in A's ancestry of w(c, t) S_A(c)      w: is_a 0.8, part_of 0.6
    sim(A, B) = sum over common t of (S_A(t) + S_B(t)) / (sum S_A + sum S_B)

References
----------
Yu et al. (2012), OMICS 16:284; Wang et al. (2007), Bioinformatics 23:1274; Ashburner et al. (2000), Nat. Genet. 25:25.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from brainlocus.core import ResultTable, SchemaError
from brainlocus.numerics import benjamini_hochberg_q, neg_log10_p_from_hypergeometric

__all__ = ["Annotation", "Enrichment", "TermGraph", "annotate", "enrich", "ontology_results", "term_graph"]

_WEIGHTS = {"is_a": 0.8, "part_of": 0.6}
"""Relations that are followed, and their weights in Wang's similarity."""
_SPELLINGS = {"isa": "is_a", "is_a": "is_a", "is a": "is_a", "part_of": "part_of", "part of": "part_of"}

Similarity = Literal["none", "jaccard", "wang"]


@dataclass(frozen=True, slots=True, eq=False)
class TermGraph:
    """Terms, and the edges that genes follow upwards."""

    terms: Shaped[np.ndarray, " terms"]
    names: Shaped[np.ndarray, " terms"]
    ontology: Shaped[np.ndarray, " terms"]
    child: Int[np.ndarray, " edges"]
    parent: Int[np.ndarray, " edges"]
    weight: Float[np.ndarray, " edges"]
    n_left_out: int
    """Edges of other relations, to other ontologies, or with a term that is not listed."""


def term_graph(
    terms: Shaped[np.ndarray, " terms"],
    names: Shaped[np.ndarray, " terms"],
    ontology: Shaped[np.ndarray, " terms"],
    edges: tuple[Sequence[str], Sequence[str], Sequence[str]],
) -> TermGraph:
    """Return a graph of terms.

    Parameters
    ----------
    edges
        Child, parent and relation (``is_a`` or ``isa``, ``part_of`` or ``part of``; others are left out) of each edge.

    Raises
    ------
    SchemaError
        A term is listed twice, no edge can be followed, or edges lead back to where they began.
    """
    known, counts = np.unique(terms, return_counts=True)
    if (counts > 1).any():
        raise SchemaError(f"Term {known[counts > 1][0]} is listed {counts.max()} times; each may be listed once.")
    place = {name: k for k, name in enumerate(terms.tolist())}
    children, parents, weights, left_out = [], [], [], 0
    for child, parent, relation in zip(*edges, strict=True):
        kind = _SPELLINGS.get(relation.strip().lower())
        a, b = place.get(child, -1), place.get(parent, -1)
        if kind is None or a < 0 or b < 0 or ontology[a] != ontology[b]:
            left_out += 1
            continue
        children.append(a)
        parents.append(b)
        weights.append(_WEIGHTS[kind])
    if not children:
        raise SchemaError(
            f"None of {left_out} edges is is_a or part_of between two terms of one ontology; check that edges and "
            "terms belong together."
        )
    child_codes, parent_codes = np.array(children, dtype=np.int64), np.array(parents, dtype=np.int64)
    links = csr_array((np.ones(child_codes.size), (child_codes, parent_codes)), shape=(terms.size, terms.size))
    n_parts, part = connected_components(links, directed=True, connection="strong")
    if n_parts < terms.size:
        circle = terms[part == np.argmax(np.bincount(part))]
        raise SchemaError(f"Edges lead in a circle through {', '.join(circle[:5].tolist())}; an ontology has none.")
    return TermGraph(terms, names, ontology, child_codes, parent_codes, np.array(weights), left_out)


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """Genes and all their terms."""

    graph: TermGraph
    genes: Shaped[np.ndarray, " genes"]
    matrix: Any
    """Sparse genes x terms (`scipy.sparse.csr_array`), 1 where a gene is of a term or of one below it."""
    n_unknown: int
    """Direct annotations with a term that is not listed."""


def annotate(graph: TermGraph, genes: Sequence[str], terms: Sequence[str]) -> Annotation:
    """Return genes with their terms and all terms above them; a gene and term may occur more than once.

    Raises
    ------
    SchemaError
        No annotation has a term of the graph.
    """
    place = {name: k for k, name in enumerate(graph.terms.tolist())}
    column = np.array([place.get(term, -1) for term in terms], dtype=np.int64)
    names, row = np.unique(np.asarray(genes, dtype=np.str_), return_inverse=True)
    known = column >= 0
    if not known.any():
        raise SchemaError(
            f"None of {column.size} annotations has a term of the list of terms, such as {graph.terms[0]}; found "
            f"{', '.join(list(dict.fromkeys(terms))[:3])}."
        )
    shape = (names.size, graph.terms.size)
    matrix = _flags(csr_array((np.ones(int(known.sum()), np.int32), (row[known], column[known])), shape=shape))
    size = (graph.terms.size, graph.terms.size)
    upwards = csr_array((np.ones(graph.child.size, np.int32), (graph.child, graph.parent)), shape=size)
    reached = -1
    while matrix.nnz != reached:
        reached = matrix.nnz
        matrix = _flags(matrix + matrix @ upwards)
    return Annotation(graph, names, matrix, int((~known).sum()))


def _flags(matrix: Any) -> Any:
    matrix = matrix.tocsr()
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


@dataclass(frozen=True, slots=True, eq=False)
class Enrichment:
    """The terms of a cluster, smallest p first within an ontology."""

    cluster: str
    n_genes: int
    """Genes of the cluster in the universe, annotated or not."""
    term: Int[np.ndarray, " tested"]
    """Place in the graph."""
    n_overlap: Int[np.ndarray, " tested"]
    n_query: Int[np.ndarray, " tested"]
    n_term: Int[np.ndarray, " tested"]
    n_universe: Int[np.ndarray, " tested"]
    neg_log10_p: Float[np.ndarray, " tested"]
    q: Float[np.ndarray, " tested"]
    overlap: tuple[Int[np.ndarray, " _"], ...]
    """Genes of the cluster in each term: places in the annotation."""
    similar_to: Int[np.ndarray, " tested"]
    """Place in the graph of a stronger term that the term repeats; -1 for none."""
    status: str
    """ok, or why nothing was tested."""


def enrich(
    annotation: Annotation,
    universe: Bool[np.ndarray, " genes"],
    members: Bool[np.ndarray, " genes"],
    cluster: str,
    *,
    min_size: int = 15,
    max_size: int = 500,
    similarity: Similarity = "none",
    cutoff: float = 0.7,
    fdr: float = 0.05,
) -> Enrichment:
    """Test the terms of a cluster.

    Parameters
    ----------
    universe, members
        Genes that could have been found, and those of the cluster; of the annotation's genes.
    min_size, max_size
        Fewest and most genes of a tested term, of the universe.
    similarity, cutoff, fdr
        How terms with q up to `fdr` are compared, and from which similarity on a term repeats a stronger one.
    """
    graph = annotation.graph
    inside = members & universe
    pool = annotation.matrix[np.flatnonzero(universe)]
    n_term = np.asarray(pool.sum(axis=0)).ravel()
    hits = annotation.matrix[np.flatnonzero(inside)]
    overlap = np.asarray(hits.sum(axis=0)).ravel()
    n_universe, n_query = np.zeros(graph.terms.size, dtype=np.int64), np.zeros(graph.terms.size, dtype=np.int64)
    for name in np.unique(graph.ontology):
        mine = np.flatnonzero(graph.ontology == name)
        n_universe[mine] = np.count_nonzero(np.diff(pool[:, mine].tocsr().indptr))
        n_query[mine] = np.count_nonzero(np.diff(hits[:, mine].tocsr().indptr))
    tested = np.flatnonzero((n_term >= min_size) & (n_term <= max_size) & (overlap >= 1))
    strength = neg_log10_p_from_hypergeometric(overlap[tested], n_query[tested], n_term[tested], n_universe[tested])
    q = np.full(tested.size, np.nan)
    for name in np.unique(graph.ontology[tested]):
        mine = np.flatnonzero(graph.ontology[tested] == name)
        q[mine] = benjamini_hochberg_q(strength[mine])
    order = np.lexsort((graph.terms[tested], -strength, graph.ontology[tested]))
    tested, strength, q = tested[order], strength[order], q[order]
    columns = hits.tocsc()
    rows = np.flatnonzero(inside)
    genes = tuple(rows[columns.indices[columns.indptr[t] : columns.indptr[t + 1]]] for t in tested)
    similar = np.full(tested.size, -1, dtype=np.int64)
    if similarity != "none":
        significant = np.flatnonzero(q <= fdr)
        similar[significant] = _repeated(annotation, universe, tested[significant], similarity, cutoff)
    return Enrichment(
        cluster,
        int(inside.sum()),
        tested,
        overlap[tested],
        n_query[tested],
        n_term[tested],
        n_universe[tested],
        strength,
        q,
        genes,
        similar,
        _status(members, inside, n_query, tested, (min_size, max_size)),
    )


def _status(
    members: Bool[np.ndarray, " genes"],
    inside: Bool[np.ndarray, " genes"],
    n_query: Int[np.ndarray, " terms"],
    tested: Int[np.ndarray, " tested"],
    sizes: tuple[int, int],
) -> str:
    if not members.any():
        return "no gene of the cluster is annotated"
    if not inside.any():
        return "no gene of the cluster is in the universe"
    if not n_query.any():
        return "no gene of the cluster has a term"
    if not tested.size:
        return f"no term of the cluster's genes has {sizes[0]} to {sizes[1]} genes of the universe"
    return "ok"


def _repeated(
    annotation: Annotation,
    universe: Bool[np.ndarray, " genes"],
    terms: Int[np.ndarray, " strong"],
    similarity: Similarity,
    cutoff: float,
) -> Int[np.ndarray, " strong"]:
    """Return for each term (strongest first within its ontology) the kept term that it repeats, or -1."""
    if similarity == "jaccard":
        flags = annotation.matrix[np.flatnonzero(universe)][:, terms].astype(np.int64)
        common = np.asarray((flags.T @ flags).todense())
        size = np.diag(common)
        alike = common / np.maximum(size[:, None] + size[None, :] - common, 1)
    else:
        alike = _wang(annotation.graph, terms)
    ontology = annotation.graph.ontology[terms]
    found = np.full(terms.size, -1, dtype=np.int64)
    kept: list[int] = []
    for k in range(terms.size):
        near = [j for j in kept if ontology[j] == ontology[k] and alike[j, k] >= cutoff]
        if near:
            found[k] = terms[near[0]]
        else:
            kept.append(k)
    return found


def _wang(graph: TermGraph, terms: Int[np.ndarray, " strong"]) -> Float[np.ndarray, "strong strong"]:
    """Return Wang's similarity of terms."""
    order = np.argsort(graph.child, kind="stable")
    bounds = np.searchsorted(graph.child[order], np.arange(graph.terms.size + 1))
    values: list[dict[int, float]] = []
    for term in terms.tolist():
        best = {term: 1.0}
        todo = [term]
        while todo:
            here = todo.pop()
            for edge in order[bounds[here] : bounds[here + 1]].tolist():
                above, value = int(graph.parent[edge]), best[here] * float(graph.weight[edge])
                if value > best.get(above, 0.0):
                    best[above] = value
                    todo.append(above)
        values.append(best)
    totals = [sum(v.values()) for v in values]
    alike = np.eye(terms.size)
    for i, first in enumerate(values):
        for j in range(i):
            common = first.keys() & values[j].keys()
            alike[i, j] = alike[j, i] = sum(first[t] + values[j][t] for t in common) / (totals[i] + totals[j])
    return alike


def ontology_results(
    annotation: Annotation, found: Sequence[Enrichment], labels: Shaped[np.ndarray, " genes"]
) -> ResultTable:
    """Return the terms of all clusters; a cluster without a tested term has one row with its status.

    Parameters
    ----------
    labels
        What the annotation's genes are called in the table.
    """
    graph = annotation.graph
    rows: list[dict[str, Any]] = []
    for one in found:
        empty = {"cluster": one.cluster, "status": one.status, "n_genes": one.n_genes}
        if not one.term.size:
            rows.append(empty)
        for k, term in enumerate(one.term.tolist()):
            n, m, total, both = (int(x[k]) for x in (one.n_query, one.n_term, one.n_universe, one.n_overlap))
            similar = int(one.similar_to[k])
            rows.append(
                empty
                | {
                    "ontology": graph.ontology[term],
                    "term_id": graph.terms[term],
                    "term": graph.names[term],
                    "n_overlap": both,
                    "n_query": n,
                    "n_term": m,
                    "n_universe": total,
                    "gene_ratio": both / n,
                    "background_ratio": m / total,
                    "fold_enrichment": (both / n) / (m / total),
                    "neg_log10_p": one.neg_log10_p[k],
                    "q_bh": one.q[k],
                    "similar_to": graph.terms[similar] if similar >= 0 else "",
                    "genes": "/".join(labels[one.overlap[k]].tolist()),
                }
            )
    texts = ("cluster", "ontology", "term_id", "term")
    counts = ("n_overlap", "n_query", "n_term", "n_universe")
    numbers = ("gene_ratio", "background_ratio", "fold_enrichment", "neg_log10_p", "q_bh")
    columns = {name: np.array([str(row.get(name, "")) for row in rows], dtype=np.str_) for name in texts}
    columns |= {name: np.array([row.get(name, 0) for row in rows], dtype=np.int64) for name in counts}
    columns |= {name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float64) for name in numbers}
    columns |= {
        name: np.array([str(row.get(name, "")) for row in rows], dtype=np.str_) for name in ("similar_to", "genes")
    }
    columns["status"] = np.array([row["status"] for row in rows], dtype=np.str_)
    return ResultTable(columns)
