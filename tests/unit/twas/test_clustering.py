"""Cuts, Newick, and measures of clusters against the definitions and scikit-learn. R's trees: tests/golden/hclust."""

import re

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform

from brainlocus.genetics.twas import (
    adjusted_rand,
    best_number_of_clusters,
    cut_tree,
    cut_tree_at,
    find_homologues,
    homologue_hits,
    neighbour_hits,
    newick,
    silhouette,
    ward_tree,
)
from tests.reference.twas_cluster import naive_adjusted_rand, naive_silhouette


def planted(n=60, k=4, noise=0.6, n_genes=150, seed=0):
    """Dissimilarities of phenotypes in planted clusters, and the clusters."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, n)
    z = rng.normal(size=(n_genes, k))[:, truth] + noise * rng.normal(size=(n_genes, n))
    return 1 - np.corrcoef(z.T), truth


def symmetric(matrix):
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 0.0)
    return np.maximum(matrix, 0.0)


@pytest.fixture
def distance():
    return symmetric(planted()[0])


def test_optimal_order_is_a_turn_of_the_same_tree_with_nearer_neighbours(distance):
    plain, optimal = ward_tree(distance), ward_tree(distance, order="optimal")
    assert np.array_equal(plain.merge, optimal.merge)
    assert sorted(optimal.order.tolist()) == list(range(60))

    def length(tree):
        return distance[tree.order[1:], tree.order[:-1]].sum()

    assert length(optimal) < length(plain)
    # Clusters stay together.
    for k in (3, 8):
        members = cut_tree(optimal, k)[optimal.order]
        assert (np.diff(members) != 0).sum() == k - 1


@pytest.mark.parametrize("method", ["ward.D2", "ward.D"])
def test_cuts(distance, method):
    tree = ward_tree(distance, method=method)
    condensed = squareform(distance)
    joined = linkage(np.sqrt(condensed) if method == "ward.D" else condensed, "ward")
    assert np.array_equal(tree.order, leaves_list(joined))
    for k in (1, 2, 7, 59, 60):
        found = cut_tree(tree, k)
        assert adjusted_rand(found, fcluster(joined, k, "maxclust")) == 1.0
        _, first = np.unique(found, return_index=True)
        assert (np.diff(first) > 0).all()
        assert found.max() == k
    between = (tree.height[-3] + tree.height[-4]) / 2
    assert np.array_equal(cut_tree_at(tree, between), cut_tree(tree, 4))
    assert np.array_equal(cut_tree_at(tree, 99.0), cut_tree(tree, 1))
    with pytest.raises(ValueError, match="Expected 1 to 60 clusters of 60 phenotypes, found 61"):
        cut_tree(tree, 61)


def test_permuting_the_phenotypes_permutes_the_clusters(distance):
    shuffled = np.random.default_rng(3).permutation(60)
    tree, other = ward_tree(distance), ward_tree(distance[np.ix_(shuffled, shuffled)])
    assert np.abs(tree.height - other.height).max() < 1e-12
    assert adjusted_rand(cut_tree(tree, 6)[shuffled], cut_tree(other, 6)) == 1.0


def test_planted_clusters_are_found():
    distance, truth = planted(n=200, k=6)
    tree = ward_tree(symmetric(distance))
    n_clusters, width = best_number_of_clusters(tree, symmetric(distance))
    assert n_clusters == 6
    assert adjusted_rand(cut_tree(tree, 6), truth) == 1.0
    assert width > 0.4


def test_small_trees():
    one = ward_tree(np.zeros((1, 1)))
    assert (one.order.tolist(), one.merge.shape) == ([0], (0, 2))
    assert newick(one, ["a"]) == "a;"
    assert cut_tree(one, 1).tolist() == [1]
    two = ward_tree(np.array([[0.0, 0.5], [0.5, 0.0]]))
    assert newick(two, ["a b", "it's"]) == "('a b':0.5,'it''s':0.5);"
    assert best_number_of_clusters(two, np.array([[0.0, 0.5], [0.5, 0.0]]))[0] == 1


def test_newick_has_every_name_and_the_heights(distance):
    tree = ward_tree(distance)
    text = newick(tree, [f"P{k}" for k in range(60)])
    assert text.count("P") == 60
    assert text.count("(") == 59
    ways = [float(way) for way in re.findall(r":([0-9.e+-]+)", text)]
    assert len(ways) == 118
    assert min(ways) >= 0
    # Of every merge its height counts twice, and once less where it is a branch itself: all but the root.
    assert sum(ways) == pytest.approx(tree.height.sum() + tree.height[-1], rel=1e-12)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((0, 0)), "expected a square matrix"),
        (np.array([[0, 1.0], [2.0, 0]]), "not symmetric in row 1"),
        (np.array([[0, -1.0], [-1.0, 0]]), "must be finite and not negative, found 1 pairs"),
        (np.array([[0, np.nan], [np.nan, 0]]), "must be finite and not negative, found 1 pairs"),
    ],
)
def test_bad_dissimilarities(matrix, message):
    with pytest.raises(ValueError, match=message):
        ward_tree(matrix)


def test_adjusted_rand_against_pairs_and_scikit_learn():
    from sklearn.metrics import adjusted_rand_score

    rng = np.random.default_rng(5)
    for _ in range(20):
        a, b = rng.integers(0, 4, 30), rng.integers(0, 5, 30)
        b[:15] = a[:15]
        assert adjusted_rand(a, b) == pytest.approx(naive_adjusted_rand(a, b), abs=1e-12)
        assert adjusted_rand(a, b) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    assert adjusted_rand(np.zeros(5), np.zeros(5)) == 1.0


def test_silhouette_against_the_definition_and_scikit_learn(distance):
    from sklearn.metrics import silhouette_samples

    labels = np.random.default_rng(6).integers(0, 5, 60)
    labels[labels == 4] = 3
    labels[7] = 9  # alone
    found = silhouette(distance, labels)
    assert np.abs(found - naive_silhouette(distance.tolist(), labels.tolist())).max() < 1e-12
    assert np.abs(found - silhouette_samples(distance, labels, metric="precomputed")).max() < 1e-12
    assert np.isnan(silhouette(distance, np.zeros(60))).all()


def test_neighbour_hits(distance):
    _, truth = planted()
    rng = np.random.default_rng(0)
    found = neighbour_hits(distance, truth, rng=rng)
    by_hand = np.mean([truth[min((j for j in range(60) if j != i), key=lambda j: distance[i, j])] == truth[i]
                       for i in range(60)])  # fmt: skip
    assert found.rate == pytest.approx(by_hand, abs=1e-12)
    assert found.rate > 0.95
    assert found.permutation_p == 1 / 1001
    # Labels that say nothing: as expected by chance, and p is no longer small.
    nothing = neighbour_hits(distance, rng.permutation(truth), rng=rng)
    assert abs(nothing.rate - nothing.expected) < 0.2
    assert nothing.permutation_p > 0.01


def test_neighbours_at_the_same_distance_share_the_hit():
    distance = np.ones((4, 4)) - np.eye(4)
    found = neighbour_hits(distance, np.array(["a", "a", "b", "b"]), n_permutations=10, rng=np.random.default_rng(0))
    assert found.rate == pytest.approx(1 / 3)
    assert found.expected == pytest.approx(1 / 3)
    assert found.permutation_p == 1.0


def test_permutation_p_is_uniform_under_the_null():
    ps = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        distance = symmetric(rng.random((30, 30)))
        ps.append(neighbour_hits(distance, rng.integers(0, 3, 30), n_permutations=99, rng=rng).permutation_p)
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(ps) <= level) <= level + 3 * np.sqrt(level * (1 - level) / 200)
    assert np.mean(np.array(ps) <= 0.5) > 0.3


def test_homologues():
    sides = np.array(["left", "right", "left", "right", "right", "left", "midline", ""])
    region = np.array(["a", "a", "b", "b", "b", "c", "a", "a"])
    pairs = find_homologues(sides, [region, np.full(8, "T1")])
    assert (pairs.left.tolist(), pairs.right.tolist(), pairs.n_ambiguous) == ([0], [1], 4)
    n = 40
    rng = np.random.default_rng(2)
    centre = rng.normal(size=(100, n))
    z = np.concatenate([centre + rng.normal(size=centre.shape), centre + rng.normal(size=centre.shape)], axis=1)
    distance = symmetric(1 - np.corrcoef(z.T))
    sides = np.repeat(["left", "right"], n)
    pairs = find_homologues(sides, [np.tile([f"r{k}" for k in range(n)], 2)])
    hits = homologue_hits(distance, pairs, rng=rng)
    nearest = np.argmin(distance + 9 * np.eye(2 * n), axis=1)
    assert hits.rate == pytest.approx(np.mean(nearest == (np.arange(2 * n) + n) % (2 * n)), abs=1e-12)
    assert hits.rate > 0.9
    assert hits.expected < 0.05
    assert hits.permutation_p < 0.01
    nobody = homologue_hits(distance, find_homologues(np.full(2 * n, "left"), [sides]), rng=rng)
    assert nobody.n == 0
    assert np.isnan(nobody.rate)
