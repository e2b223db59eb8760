import numpy as np
import pytest
from tests.reference import naive_ontology as naive

from brainlocus.core import SchemaError
from brainlocus.genetics.genes import annotate, enrich, ontology, ontology_results, term_graph


def small_ontology(seed=0, terms=40, genes=120):
    """Two ontologies; edges go from later to earlier terms, some of other relations and between the ontologies."""
    rng = np.random.default_rng(seed)
    names = [f"GO:{k:07d}" for k in range(terms)]
    kind = ["CC" if k % 2 else "BP" for k in range(terms)]
    edges = []
    for k in range(2, terms):
        for parent in {int(rng.integers(0, k)) for _ in range(2)} | {k % 2}:
            edges.append((names[k], names[parent], ("isa", "part of", "regulates")[int(rng.integers(0, 3))]))
    direct = [(f"g{rng.integers(0, genes)}", names[int(rng.integers(0, terms))]) for _ in range(400)]
    return names, kind, edges, direct + direct[:30]


def build(seed=0):
    names, kind, edges, direct = small_ontology(seed)
    graph = term_graph(
        np.array(names), np.array([f"term {n}" for n in names]), np.array(kind), tuple(zip(*edges, strict=True))
    )
    return graph, annotate(graph, *map(list, zip(*direct, strict=True)))


def within(names, kind, edges):
    of = dict(zip(names, kind, strict=True))
    return [e for e in edges if of[e[0]] == of[e[1]]]


@pytest.mark.parametrize("seed", [0, 1])
def test_terms_are_those_of_loops(seed):
    names, kind, edges, direct = small_ontology(seed)
    _, annotation = build(seed)
    inside = within(names, kind, edges)
    term_genes = naive.propagated(set(direct), inside)
    dense = annotation.matrix.toarray()
    for k, term in enumerate(names):
        assert set(annotation.genes[dense[:, k] == 1].tolist()) == term_genes.get(term, set())
    rng = np.random.default_rng(seed)
    universe, members = (rng.uniform(size=annotation.genes.size) < share for share in (0.8, 0.3))
    found = enrich(annotation, universe, members, "one", min_size=3, max_size=60)
    sets = [set(annotation.genes[mask].tolist()) for mask in (universe, members)]
    of = dict(zip(names, kind, strict=True))
    expected = naive.enrich(term_genes, of, sets[0], sets[0] & sets[1], 3, 60)
    assert {names[t] for t in found.term} == set(expected)
    assert len(expected) > 10
    for row, term in enumerate(found.term):
        k, n, m, total, p, q = expected[names[term]]
        assert (found.n_overlap[row], found.n_query[row], found.n_term[row], found.n_universe[row]) == (k, n, m, total)
        assert 10.0 ** -found.neg_log10_p[row] == pytest.approx(p, rel=1e-12)
        assert found.q[row] == pytest.approx(q, rel=1e-12)
        assert set(annotation.genes[found.overlap[row]].tolist()) == term_genes[names[term]] & sets[0] & sets[1]
    assert found.n_genes == (universe & members).sum()


def test_similarity_by_common_ancestors():
    names, kind, edges, _ = small_ontology()
    graph, _ = build()
    inside = within(names, kind, edges)
    some = np.arange(15, 40)
    ours = ontology._wang(graph, some)
    for i, a in enumerate(some):
        for j, b in enumerate(some):
            assert ours[i, j] == pytest.approx(naive.wang(names[a], names[b], inside), rel=1e-12)


@pytest.mark.parametrize("kind", ["jaccard", "wang"])
def test_repeated_terms_point_to_a_stronger_one(kind):
    graph, annotation = build()
    rng = np.random.default_rng(0)
    universe = np.ones(annotation.genes.size, dtype=bool)
    members = rng.uniform(size=universe.size) < 0.5
    found = enrich(annotation, universe, members, "c", min_size=2, similarity=kind, cutoff=0.3, fdr=1.0)
    place = {int(t): k for k, t in enumerate(found.term)}
    dense = annotation.matrix.toarray()[universe]
    kept = []
    for k, term in enumerate(found.term.tolist()):
        if kind == "jaccard":
            alike = {
                j: (dense[:, term] & dense[:, t]).sum() / (dense[:, term] | dense[:, t]).sum()
                for j, t in enumerate(found.term.tolist())
            }
        else:
            alike = dict(enumerate(ontology._wang(graph, found.term)[k]))
        near = [j for j in kept if alike[j] >= 0.3 and graph.ontology[found.term[j]] == graph.ontology[term]]
        assert found.similar_to[k] == (found.term[near[0]] if near else -1)
        if not near:
            kept.append(k)
        else:
            assert place[int(found.similar_to[k])] < k
    assert 0 < len(kept) < found.term.size


def test_clusters_without_a_result_say_why():
    _, annotation = build()
    nobody = np.zeros(annotation.genes.size, dtype=bool)
    everybody = ~nobody
    one = nobody.copy()
    one[0] = True
    cases = [
        enrich(annotation, everybody, nobody, "a"),
        enrich(annotation, ~one, one, "b"),
        enrich(annotation, everybody, one, "c", min_size=1000, max_size=2000),
        enrich(annotation, everybody, one, "d", min_size=1),
    ]
    statuses = [c.status for c in cases]
    assert statuses[:2] == ["no gene of the cluster is annotated", "no gene of the cluster is in the universe"]
    assert statuses[2].startswith("no term of the cluster's genes has 1000 to 2000 genes")
    assert statuses[3] == "ok"
    table = ontology_results(annotation, cases, annotation.genes)
    assert table["status"].tolist()[:3] == statuses[:3]
    assert set(table["cluster"].tolist()[3:]) == {"d"}
    assert np.isnan(table["neg_log10_p"][:3]).all()
    ratio = table["n_overlap"][3:] / table["n_query"][3:] / (table["n_term"][3:] / table["n_universe"][3:])
    np.testing.assert_allclose(table["fold_enrichment"][3:], ratio, rtol=1e-14)


def test_bad_input():
    names, labels, kind = (np.array(x) for x in (["a", "b", "c"], ["A", "B", "C"], ["CC"] * 3))
    with pytest.raises(SchemaError, match="lead in a circle through"):
        term_graph(names, labels, kind, (["a", "b", "c"], ["b", "c", "a"], ["is_a", "part_of", "isa"]))
    with pytest.raises(SchemaError, match="None of 2 edges is is_a or part_of"):
        term_graph(names, labels, kind, (["a", "x"], ["b", "a"], ["regulates", "is_a"]))
    with pytest.raises(SchemaError, match="Term a is listed 2 times"):
        term_graph(np.array(["a", "a", "c"]), labels, kind, (["a"], ["c"], ["is_a"]))
    graph = term_graph(names, labels, kind, (["a"], ["b"], ["is_a"]))
    with pytest.raises(SchemaError, match="None of 1 annotations has a term"):
        annotate(graph, ["g"], ["GO:1"])
