"""Components and UMAP of phenotypes against scikit-learn and the definitions."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness as sklearn_trustworthiness
from sklearn.metrics.pairwise import nan_euclidean_distances

from brainlocus.genetics.twas import (
    SquaredDifferences,
    UmapSettings,
    embed_umap,
    gene_blocks,
    neighbour_overlap,
    nominal_genes,
    orient_components,
    principal_components,
    scaled_genes,
    squared_differences,
    trustworthiness,
    umap_settings,
)
from tests.reference.twas_cluster import naive_distance, naive_trustworthiness

N_GENES, N_PHENOTYPES = 300, 40


def z_scores(missing=0.0, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(N_GENES, N_PHENOTYPES)) + 2 * rng.normal(size=(N_GENES, 4))[:, rng.integers(0, 4, 40)]
    z[rng.random(z.shape) < missing] = np.nan
    return z


def blocks(z, block_bytes=20_000):
    return gene_blocks(
        z, genes=np.arange(z.shape[0]), phenotypes=np.arange(z.shape[1]), block_bytes=block_bytes
    )  # fmt: skip


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_distances_against_scikit_learn_and_the_definition(missing):
    z = z_scores(missing)
    found = squared_differences(blocks(z), N_PHENOTYPES, missing="pairwise").squared_distances()
    assert np.abs(np.sqrt(found) - nan_euclidean_distances(z.T)).max() < 1e-10
    assert np.sqrt(found[3, 8]) == pytest.approx(naive_distance(z[:, 3].tolist(), z[:, 8].tolist()), rel=1e-12)
    zero = squared_differences(blocks(z), N_PHENOTYPES)
    filled = np.nan_to_num(z)
    naive = ((filled[:, :, None] - filled[:, None, :]) ** 2).sum(axis=0)
    assert np.abs(zero.squared_distances() - naive).max() < 1e-9
    for size in (1, 10**9):
        again = squared_differences(blocks(z, size), N_PHENOTYPES, missing="pairwise").squared_distances()
        assert np.abs(again - found).max() < 1e-9


@pytest.mark.parametrize("kind", ["zero", "pairwise"])
def test_sums_over_parts_add_up(kind):
    z = z_scores(0.2)
    whole = squared_differences(blocks(z), N_PHENOTYPES, missing=kind)
    parts = squared_differences(blocks(z[:90]), N_PHENOTYPES, missing=kind) + squared_differences(
        blocks(z[90:]), N_PHENOTYPES, missing=kind
    )
    assert parts.n_genes == N_GENES
    assert np.abs(parts.squared_distances() - whole.squared_distances()).max() < 1e-9


@pytest.mark.parametrize("scale", [False, True])
def test_components_against_scikit_learn(scale):
    z = np.nan_to_num(z_scores(0.1))

    def again():
        return scaled_genes(blocks(z)) if scale else blocks(z)

    data = (z - z.mean(axis=1, keepdims=True)) / (z.std(axis=1, ddof=1, keepdims=True) if scale else 1)
    theirs = PCA(6, svd_solver="full").fit(data.T)
    found, gene, loading = orient_components(principal_components(squared_differences(again(), 40), 6), again())
    turn = np.sign(theirs.components_[np.arange(6), np.abs(theirs.components_).argmax(axis=1)])
    assert np.abs(found.scores - theirs.transform(data.T) * turn).max() < 1e-9
    assert np.abs(found.variance / theirs.explained_variance_ - 1).max() < 1e-10
    assert np.abs(found.share / theirs.explained_variance_ratio_ - 1).max() < 1e-10
    assert np.array_equal(gene, np.abs(theirs.components_).argmax(axis=1))
    assert np.abs(loading - np.abs(theirs.components_).max(axis=1)).max() < 1e-10


def test_largest_loading_is_positive_whichever_way_the_solver_turns():
    z = z_scores()
    first, *_ = orient_components(principal_components(squared_differences(blocks(z), 40), 3), blocks(z))
    negative, *_ = orient_components(principal_components(squared_differences(blocks(-z), 40), 3), blocks(-z))
    assert np.abs(first.scores + negative.scores).max() < 1e-9


def test_few_phenotypes_and_no_variance():
    z = z_scores()[:, :3]
    assert principal_components(squared_differences(blocks(z), 3), 10).scores.shape == (3, 2)
    flat = principal_components(squared_differences(blocks(np.ones((5, 4))), 4), 3)
    assert flat.scores.shape == (4, 0)


def test_nothing_shared_is_refused_or_zero():
    z = z_scores()
    z[:150, 0], z[150:, 1] = np.nan, np.nan
    sums = squared_differences(blocks(z), 40, missing="pairwise")
    assert np.isnan(sums.squared_distances()[0, 1])
    with pytest.raises(ValueError, match="2 of 40 phenotypes share no gene with another; take missing cells as 0"):
        principal_components(sums, 2)
    with pytest.raises(ValueError, match="2 of 40 phenotypes share no gene"):
        embed_umap(sums, UmapSettings(10, 0.1), seed=0)
    assert np.isfinite(squared_differences(blocks(z), 40).squared_distances()).all()


def test_pairwise_is_nearer_to_the_truth_than_zero():
    truth = squared_differences(blocks(z_scores()), 40).squared_distances()
    z = z_scores(0.4)
    errors = [
        np.median(np.abs(squared_differences(blocks(z), 40, missing=kind).squared_distances() - truth))
        for kind in ("pairwise", "zero")
    ]
    assert errors[0] < 0.5 * errors[1]


def test_nominal_genes():
    z = np.zeros((4, 3))
    z[1, 2], z[2, 0], z[3] = -1.9599, 1.96, np.nan
    assert nominal_genes(blocks(z, 1)) == [False, False, True, False]
    assert nominal_genes(blocks(z), max_p=0.06) == [False, True, True, False]


def test_trustworthiness_and_overlap():
    z = z_scores()
    before = np.sqrt(squared_differences(blocks(z), 40).squared_distances())
    after = np.random.default_rng(1).normal(size=(40, 2))
    near = np.sqrt(((after[:, None] - after[None]) ** 2).sum(axis=2))
    found = trustworthiness(before, after, k=7)
    assert found == pytest.approx(naive_trustworthiness(before.tolist(), near.tolist(), 7), abs=1e-12)
    assert found == pytest.approx(
        sklearn_trustworthiness(before, after, n_neighbors=7, metric="precomputed"), abs=1e-12
    )
    assert trustworthiness(near, after, k=15) == 1.0
    assert neighbour_overlap(near, after, k=15) == 1.0
    by_hand = [
        len(set(np.argsort(before[i])[:8]) & set(np.argsort(near[i])[:8])) - 1 for i in range(40)
    ]  # both have i itself
    assert neighbour_overlap(before, after, k=7) == pytest.approx(np.mean(by_hand) / 7)
    with pytest.raises(ValueError, match="k from 1 to below 20, half of the objects, found 20"):
        trustworthiness(before, after, k=20)


@pytest.mark.slow
def test_umap_finds_planted_groups_and_repeats_itself():
    pytest.importorskip("umap")
    truth = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 20))
    rng = np.random.default_rng(1)
    z = rng.normal(size=(200, 80)) + 2 * rng.normal(size=(200, 4))[:, truth]
    sums = squared_differences(blocks(z), 80)
    found = embed_umap(sums, UmapSettings(10, 0.1), seed=3)
    assert np.array_equal(found.coordinates, embed_umap(sums, UmapSettings(10, 0.1), seed=3).coordinates)
    assert found.n_parts == 4
    near = ((found.coordinates[:, None] - found.coordinates[None]) ** 2).sum(axis=2) + np.diag(np.full(80, np.inf))
    assert (truth[near.argmin(axis=1)] == truth).mean() > 0.98
    assert trustworthiness(np.sqrt(sums.squared_distances()), found.coordinates) > 0.9
    many = embed_umap(sums, UmapSettings(150, 0.1), seed=3)
    assert (many.n_neighbors, many.n_parts) == (79, 1)
    with pytest.raises(ValueError, match="at least 5 phenotypes, found 4"):
        embed_umap(SquaredDifferences(np.zeros((4, 4)), None, 1), UmapSettings(3, 0.1), seed=0)


def test_settings_of_modalities():
    assert umap_settings(np.array(["dMRI", "dMRI"])) == UmapSettings(60, 0.1)
    assert umap_settings(np.array(["T1", "dMRI"])) == UmapSettings(150, 0.09)
    assert umap_settings(np.zeros(0, dtype=np.str_)) == UmapSettings(150, 0.09)
