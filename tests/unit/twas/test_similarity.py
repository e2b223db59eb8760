"""Spearman's correlations against the definition, SciPy and pandas, with and without missing cells."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from brainlocus.genetics.twas import rank_levels, spearman, spearman_peak_bytes, undefined_correlations
from tests.reference.twas_cluster import naive_spearman


def z_scores(n_genes=80, n_phenotypes=14, missing=0.0, decimals=1, seed=0):
    """z with ties (rounded) and missing cells."""
    rng = np.random.default_rng(seed)
    z = (rng.normal(size=(n_genes, 1)) + rng.normal(size=(n_genes, n_phenotypes))).round(decimals)
    z[rng.random(z.shape) < missing] = np.nan
    return z


def naive(z):
    n = z.shape[1]
    return np.array([[naive_spearman(z[:, i], z[:, j]) for j in range(n)] for i in range(n)])


def test_complete_cells_against_the_definition_and_scipy():
    z = z_scores()
    rho = spearman(rank_levels(z))
    assert np.abs(rho - naive(z)).max() < 1e-12
    assert np.abs(rho - stats.spearmanr(z).statistic).max() < 1e-12
    assert np.array_equal(rho, rho.T)
    assert (np.diag(rho) == 1.0).all()


def test_missing_cells_are_left_out_pair_by_pair_and_ranked_again():
    z = z_scores(missing=0.2)
    rho = spearman(rank_levels(z))
    assert np.abs(rho - naive(z)).max() < 1e-12
    assert np.abs(rho - pd.DataFrame(z).corr("spearman").to_numpy()).max() < 1e-12
    # Ranking once, before genes are left out, is something else.
    once = pd.DataFrame(z).rank().corr().to_numpy()
    assert np.abs(rho - once).max() > 1e-3


def test_few_patterns_of_missing_genes():
    z = z_scores(n_phenotypes=20)
    z[:30, 5:9], z[60:, 9:13], z[:, 13] = np.nan, np.inf, -np.inf
    ranked = rank_levels(z)
    assert ranked.patterns.shape[0] == 4
    expected = naive(z)
    rho = spearman(ranked)
    assert np.array_equal(np.isnan(rho), np.isnan(expected))
    assert np.nanmax(np.abs(rho - expected)) < 1e-12


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_blocks_change_no_bit(missing):
    z = z_scores(missing=missing, n_phenotypes=25, decimals=6)
    whole = spearman(rank_levels(z))
    for bytes_ in (1, 4000, 20_000):
        assert np.array_equal(spearman(rank_levels(z, block_bytes=bytes_), block_bytes=bytes_), whole)


def test_order_of_genes_and_monotone_changes_do_nothing():
    z = z_scores(missing=0.05, decimals=6)
    rho = spearman(rank_levels(z))
    shuffled = np.random.default_rng(1).permutation(z.shape[0])
    assert np.array_equal(spearman(rank_levels(z[shuffled])), rho)
    assert np.array_equal(spearman(rank_levels(np.exp(z))), rho)
    flipped = z.copy()
    flipped[:, 3] *= -1
    again = spearman(rank_levels(flipped))
    assert np.array_equal(again[3, :3], -rho[3, :3])


def test_float32_memory_map(tmp_path):
    z = z_scores(missing=0.1, decimals=6).astype(np.float32)
    np.save(tmp_path / "z.npy", z)
    mapped = np.load(tmp_path / "z.npy", mmap_mode="r")
    assert np.array_equal(spearman(rank_levels(mapped)), spearman(rank_levels(z.astype(np.float64))))


def test_undefined_correlations_are_nan_and_named():
    z = z_scores(n_phenotypes=5)
    z[:, 1] = 3.0  # constant
    z[2:, 2] = np.nan  # two genes
    rho = spearman(rank_levels(z))
    assert np.isnan(rho[1]).all()
    assert np.isnan(rho[2]).all()
    assert np.isfinite(rho[np.ix_([0, 3, 4], [0, 3, 4])]).all()
    names = np.array(["a", "constant", "short", "d", "e"])
    text = undefined_correlations(rho, names)
    assert text.startswith("5 of 5 phenotypes have correlations that are undefined: constant (5), short (5), a (2)")
    assert undefined_correlations(rho[:1, :1], names[:1]) == ""
    assert "and 3 more" in undefined_correlations(rho, names, shown=2)


def test_equal_phenotypes_have_exactly_one():
    z = z_scores(n_genes=501, n_phenotypes=3, missing=0.1, decimals=6)
    z[:, 1], z[:, 2] = 2 * z[:, 0] + 1, -z[:, 0]
    assert spearman(rank_levels(z)).tolist() == [[1, 1, -1], [1, 1, -1], [-1, -1, 1]]


def test_one_gene_or_one_phenotype():
    assert np.isnan(spearman(rank_levels(np.ones((1, 2))))).all()
    assert spearman(rank_levels(z_scores(n_phenotypes=1))).tolist() == [[1.0]]


def test_too_many_genes():
    with pytest.raises(ValueError, match="at most 300000 genes, found 300001"):
        rank_levels(np.broadcast_to(np.zeros(1), (300_001, 2)))


@pytest.mark.parametrize("missing", [0.0, 0.002])
def test_peak_memory_is_as_declared(missing):
    z = z_scores(4000, 60, missing=missing, decimals=6)
    spearman(rank_levels(z[:10]))  # compile
    bytes_ = 1 << 22
    tracemalloc.start()
    try:
        spearman(rank_levels(z, block_bytes=bytes_), block_bytes=bytes_)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= spearman_peak_bytes(*z.shape, block_bytes=bytes_)
    assert peak >= 0.4 * spearman_peak_bytes(*z.shape, block_bytes=bytes_)
