"""Ontology enrichment read literally: sets, recursion, exact fractions."""

from fractions import Fraction
from math import comb

WEIGHTS = {"isa": 0.8, "part of": 0.6}


def ancestors(term, edges):
    """The term and all above it; edges are (child, parent, relation)."""
    found = {term}
    for child, parent, relation in edges:
        if child == term and relation in WEIGHTS:
            found |= ancestors(parent, edges)
    return found


def propagated(direct, edges):
    """{term: genes} from (gene, term) pairs."""
    found = {}
    for gene, term in direct:
        for above in ancestors(term, edges):
            found.setdefault(above, set()).add(gene)
    return found


def upper_tail(k, n, m, total):
    """P(X >= k) of the hypergeometric distribution, exact."""
    ways = sum(comb(m, j) * comb(total - m, n - j) for j in range(k, min(n, m) + 1) if n - j <= total - m)
    return Fraction(ways, comb(total, n))


def enrich(term_genes, ontology, universe, cluster, min_size, max_size):
    """{term: (k, n, M, N, p, q)}"""
    found = {}
    for name in set(ontology.values()):
        mine = {t: genes & universe for t, genes in term_genes.items() if ontology[t] == name}
        background = set().union(*mine.values()) if mine else set()
        query = cluster & background
        tested = {}
        for term, genes in mine.items():
            k = len(genes & query)
            if min_size <= len(genes) <= max_size and k >= 1:
                p = float(upper_tail(k, len(query), len(genes), len(background)))
                tested[term] = (k, len(query), len(genes), len(background), p)
        order = sorted(tested, key=lambda t: tested[t][4])
        for i, term in enumerate(order):
            q = min(min(1.0, tested[t][4] * len(order) / j) for j, t in enumerate(order[i:], i + 1))
            found[term] = (*tested[term], q)
    return found


def s_values(term, edges):
    """Wang's S-values of a term's ancestors."""
    graph = ancestors(term, edges)

    def value(t):
        if t == term:
            return 1.0
        below = [(c, r) for c, p, r in edges if p == t and c in graph and r in WEIGHTS]
        return max(WEIGHTS[r] * value(c) for c, r in below)

    return {t: value(t) for t in graph}


def wang(a, b, edges):
    first, second = s_values(a, edges), s_values(b, edges)
    common = sum(first[t] + second[t] for t in first.keys() & second.keys())
    return common / (sum(first.values()) + sum(second.values()))
