import numpy as np
import pytest
from scipy import stats

from brainlocus.genetics.twas import (
    blocks_of_genes,
    count_hits,
    draw_genes,
    enrichment,
    gene_density,
    gene_strata,
    permute_set,
)
from tests.reference import naive_gene_sets as naive
from tests.unit.twas.study import small_study

THRESHOLDS = (0.05, 0.01, 1e-4, 1e-300)


@pytest.fixture(scope="module")
def study():
    return small_study()


@pytest.mark.parametrize("words", [1 << 22, 40])
def test_counts_and_search_are_those_of_loops(study, words, monkeypatch):
    monkeypatch.setattr(enrichment, "_WORDS", words)
    tests, modelled = study
    rng = np.random.default_rng(1)
    chosen = np.sort(rng.permutation(70)[:66])  # two words of bits
    members = np.sort(rng.permutation(60)[:8])
    hits = count_hits(tests, chosen, THRESHOLDS)
    assert hits.thresholds.tolist() == list(THRESHOLDS)
    strata = gene_strata(members, np.ones(60, bool), modelled.sum(axis=1).astype(float), exact=True)
    found = permute_set(hits, members, strata, n_draws=21, rng=np.random.default_rng(5))
    drawn = strata.draw(21, np.random.default_rng(5))
    phenotypes = set(tests.phenotypes[chosen].tolist())

    def counts(genes):
        names = set(tests.genes[genes].tolist())
        return np.array([naive.set_counts(tests, names, phenotypes, t) for t in THRESHOLDS]).T

    observed = counts(members)
    np.testing.assert_array_equal(found.observed, observed)
    null = np.stack([counts(one) for one in drawn], axis=1)
    np.testing.assert_array_equal(found.null, null)
    for k in range(2):
        q95, p, family_wise = naive.searched(observed[k], null[k])
        np.testing.assert_allclose(found.q95[k], q95, rtol=1e-12)
        np.testing.assert_allclose(found.p[k], p, rtol=1e-12)
        assert found.family_wise_p[k] == pytest.approx(family_wise, rel=1e-12)
        margin = observed[k] - q95
        assert found.tied[k].tolist() == (margin == margin.max()).tolist()
        assert found.best[k].sum() == 1
        assert found.thresholds[found.best[k]][0] == np.array(THRESHOLDS)[margin == margin.max()].max()
    assert np.isnan(found.standardised[:, 3]).all()  # nothing is that strong: no threshold to choose


def test_planted_set_is_found_and_others_are_not(study):
    tests, _ = study
    strong = np.argsort(-np.bincount(tests.gene, weights=np.minimum(tests.neg_log10_p, 10.0)))[:6]
    hits = count_hits(tests, np.arange(70), (0.05, 0.01, 0.001))
    candidates = np.ones(60, dtype=bool)
    found = permute_set(hits, strong, gene_strata(strong, candidates), n_draws=999, rng=np.random.default_rng(0))
    assert found.family_wise_p[0] == 0.001
    assert (found.margin[0] > 0).all()


def test_draws_are_without_replacement_and_uniform():
    rng = np.random.default_rng(0)
    for n, size in ((5, 2), (6, 5), (40, 3), (4, 4), (3, 1), (1, 1)):
        drawn = draw_genes(n, size, 6000, rng)
        assert drawn.shape == (6000, size)
        assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
        counts = np.bincount(drawn.ravel(), minlength=n)
        if n > size:
            assert stats.chisquare(counts).pvalue > 1e-4
    pairs = np.sort(draw_genes(5, 2, 20_000, rng), axis=1)
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    assert counts.size == 10
    assert stats.chisquare(counts).pvalue > 1e-4


def test_strata_keep_the_number_of_models():
    rng = np.random.default_rng(2)
    models = np.repeat([1.0, 2.0, 3.0, 9.0], [300, 200, 60, 5])
    members = np.array([0, 1, 310, 500, 501, 561])
    strata = gene_strata(members, np.ones(565, bool), models, exact=True)
    # Nine models: five genes for one of the set are too few to choose from, so they are joined with three.
    assert strata.labels == ("1", "2", "3 to 9")
    assert strata.sizes == (2, 1, 3)
    drawn = strata.draw(500, rng)
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    assert ((models[drawn] == 1).sum(axis=1) == 2).all()
    assert ((models[drawn] == 2).sum(axis=1) == 1).all()
    without = np.ones(565, dtype=bool)
    without[members] = False
    assert not np.isin(gene_strata(members, without, models, exact=True).draw(200, rng), members).any()


def test_strata_of_tenths_and_of_unknown_values():
    rng = np.random.default_rng(3)
    values = rng.normal(size=1000)
    values[::10] = np.nan
    members = np.array([0, 10, 501, 502, 503])
    strata = gene_strata(members, np.ones(1000, bool), values)
    drawn = strata.draw(300, rng)
    assert (np.isnan(values[drawn]).sum(axis=1) == 2).all()
    edges = np.nanquantile(values, np.arange(1, 10) / 10)
    wanted = sorted(np.searchsorted(edges, values[[501, 502, 503]], side="right").tolist())
    got = np.sort(np.searchsorted(edges, np.sort(values[drawn], axis=1)[:, :3], side="right"), axis=1)
    assert (got == wanted).all()


def test_blocks_keep_the_pattern():
    rng = np.random.default_rng(4)
    block = np.repeat(np.arange(50), rng.integers(1, 9, 50))
    block[:3] = -1  # no place
    members = np.r_[0, np.flatnonzero(block == 20)[:1], np.flatnonzero(np.isin(block, np.unique(block)[-6:]))]
    blocks = blocks_of_genes(members, np.ones(block.size, bool), block)
    pattern = sorted(np.unique(np.where(block < 0, 100 + np.arange(block.size), block)[members], return_counts=True)[1])
    assert list(blocks.pattern) == pattern[::-1]
    drawn = blocks.draw(300, rng)
    for row in drawn:
        assert np.unique(row).size == row.size
        own = np.where(block[row] < 0, 100 + row, block[row])
        assert sorted(np.unique(own, return_counts=True)[1]) == pattern


def test_single_genes_of_blocks_are_drawn_uniformly():
    block = np.repeat(np.arange(30), 1 + np.arange(30) % 5)
    blocks = blocks_of_genes(np.array([3]), np.ones(block.size, bool), block)
    drawn = blocks.draw(30_000, np.random.default_rng(0))[:, 0]
    assert stats.chisquare(np.bincount(drawn, minlength=block.size)).pvalue > 1e-4


def test_density_counts_neighbours():
    chromosome = np.array(["1", "1", "1", "2", "", "1"])
    middle = np.array([1e6, 1.4e6, 1.6e6, 1e6, np.nan, 9e6])
    assert gene_density(chromosome, middle).tolist()[:4] == [1.0, 2.0, 1.0, 0.0]
    assert np.isnan(gene_density(chromosome, middle)[4])
    assert gene_density(chromosome, middle)[5] == 0.0


def test_bad_input(study):
    tests, _ = study
    with pytest.raises(ValueError, match="thresholds of p above 0"):
        count_hits(tests, np.arange(3), [0.0, 0.1])
    with pytest.raises(ValueError, match="only 2 can be drawn"):
        gene_strata(np.arange(3), np.array([True, True, False]))
    with pytest.raises(ValueError, match="1 blocks with 3 genes or more, but only 0"):
        blocks_of_genes(np.arange(3), np.arange(10) > 2, np.r_[np.zeros(3, int), np.arange(1, 8)])
    hits = count_hits(tests, np.arange(3), [0.1])
    with pytest.raises(ValueError, match="0 genes"):
        permute_set(hits, np.zeros(0, int), gene_strata(np.arange(2), np.ones(60, bool)), rng=np.random.default_rng(0))
