"""Agreement of partitions against loops over pairs, enumeration of all arrangements, and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from tests.reference.naive_atlas import naive_adjusted_rand

from brainlocus.numerics.partitions import adjusted_mutual_information, adjusted_rand, joint_counts, rand_of_counts


def pair(n, k, m, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, k, n), rng.integers(0, m, n)


def naive_information(a, b):
    total = 0.0
    for x in set(a):
        for y in set(b):
            both = sum(p == x and q == y for p, q in zip(a, b, strict=True)) / len(a)
            if both:
                total += both * math.log(both / (list(a).count(x) / len(a) * list(b).count(y) / len(b)))
    return total


def test_counts_of_pairs_of_labels():
    a, b = pair(200, 4, 3, 0)
    counts = joint_counts(a, b, 5, 3)
    for i, j in itertools.product(range(5), range(3)):
        assert counts[i, j] == ((a == i) & (b == j)).sum()


@pytest.mark.parametrize("seed", range(4))
def test_rand_against_pairs(seed):
    a, b = pair(40, 4, 3, seed)
    expected = naive_adjusted_rand(a.tolist(), b.tolist())
    assert adjusted_rand(a, b) == pytest.approx(expected, abs=1e-12)
    assert rand_of_counts(joint_counts(a, b, 6, 3)) == pytest.approx(expected, abs=1e-12)


def test_information_expected_by_chance_against_every_arrangement():
    """E[MI] is the mean over all orders of the second labelling: all 720 are tried."""
    a, b = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1]
    entropy = [naive_information(x, x) for x in (a, b)]
    chance = np.mean([naive_information(a, order) for order in itertools.permutations(b)])
    expected = (naive_information(a, b) - chance) / (np.mean(entropy) - chance)
    assert adjusted_mutual_information(joint_counts(np.array(a), np.array(b), 3, 2)) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "k", "m"), [(50, 3, 3), (300, 7, 20), (2000, 60, 35), (500, 1, 4), (30, 30, 5)])
def test_against_scikit_learn(n, k, m):
    metrics = pytest.importorskip("sklearn.metrics")
    a, b = pair(n, k, m, seed=n)
    b = np.where(np.random.default_rng(1).random(n) < 0.4, a % m, b)
    counts = joint_counts(a, b, k, m)
    assert adjusted_mutual_information(counts) == pytest.approx(metrics.adjusted_mutual_info_score(a, b), abs=1e-9)
    assert rand_of_counts(counts) == pytest.approx(metrics.adjusted_rand_score(a, b), abs=1e-12)


def test_the_same_partition_under_other_names():
    a = np.repeat(np.arange(5), [3, 4, 5, 6, 1])
    counts = joint_counts(a, 4 - a, 5, 5)
    assert adjusted_mutual_information(counts) == pytest.approx(1.0, abs=1e-12)
    assert rand_of_counts(counts) == 1.0
    alone = np.eye(4, dtype=np.int64)
    assert adjusted_mutual_information(alone) == 1.0
    assert adjusted_mutual_information(np.array([[7]])) == 1.0


def test_chance_is_about_zero():
    rng = np.random.default_rng(3)
    found = [adjusted_mutual_information(joint_counts(*pair(500, 10, 12, s), 10, 12)) for s in rng.integers(0, 999, 20)]
    assert abs(np.mean(found)) < 0.01
