"""Kinship against loops over pairs; the unrelated set against all subsets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reference.relatives import naive_kinship, naive_unrelated
from tests.unit.genotypes.panel import calls, child, panel

from brainlocus.core import ResourceError
from brainlocus.genetics.genotypes import degree_of, kinship_pairs, kinship_peak_bytes, unrelated_people
from brainlocus.genetics.genotypes.kinship import MIN_HETEROZYGOUS


def family(rng, m):
    """Return two unrelated parents, two children, a copy of one, a half sibling, and strangers."""
    people = calls(rng, m, 75, low=0.3, high=0.7).T
    mother, father, other = people[0], people[1], people[2]
    people[3], people[4] = child(rng, mother, father), child(rng, mother, father)
    people[5], people[6] = people[3], child(rng, mother, other)
    return people.T.copy()


def all_pairs(source, **more):
    parts = list(kinship_pairs(source, **more))
    names = ("first", "second", "kinship", "n_variants", "ibs0")
    return {name: np.concatenate([np.empty(0, dtype=int), *(getattr(p, name) for p in parts)]) for name in names}


@pytest.mark.parametrize("missing", [0.0, 0.05])
def test_kinship_is_that_of_the_formula(missing):
    rng = np.random.default_rng(0)
    dosage = family(rng, 5000)
    dosage[rng.random(dosage.shape) < missing] = np.nan
    found = all_pairs(panel(dosage), threshold=None)
    assert found["first"].size == 75 * 74 // 2
    for k in np.r_[0:40, 1000:1020]:
        i, j = found["first"][k], found["second"][k]
        phi, n = naive_kinship(dosage[:, i], dosage[:, j])
        assert found["kinship"][k] == pytest.approx(phi, abs=1e-14)
        assert found["n_variants"][k] == n
        assert found["ibs0"][k] == pytest.approx((np.abs(dosage[:, i] - dosage[:, j]) == 2).sum() / n)
    degree = dict(zip(zip(found["first"].tolist(), found["second"].tolist(), strict=True),
                      degree_of(found["kinship"]).tolist(), strict=True))  # fmt: skip
    assert [degree[p] for p in ((0, 3), (3, 4), (3, 5), (0, 6), (3, 6), (0, 1))] == [1, 1, 0, 1, 2, 4]


def test_the_threshold_only_leaves_pairs_out_and_memory_changes_nothing():
    rng = np.random.default_rng(1)
    dosage = family(rng, 3000)
    dosage[rng.random(dosage.shape) < 0.1] = np.nan
    source = panel(dosage)
    everyone = all_pairs(source, threshold=None)
    near = all_pairs(source, threshold=0.05, memory_bytes=kinship_peak_bytes(75))
    chosen = everyone["kinship"] >= 0.05
    assert 10 <= chosen.sum() < 40
    for name, values in near.items():
        np.testing.assert_array_equal(values, everyone[name][chosen])
    several = all_pairs(source, threshold=None, threads=3)
    for name, values in several.items():
        np.testing.assert_array_equal(values, everyone[name])
    with pytest.raises(ResourceError, match="Kinship of 75 people needs"):
        next(kinship_pairs(source, memory_bytes=1000))


def test_too_few_heterozygous_calls_are_no_kinship():
    rng = np.random.default_rng(2)
    dosage = calls(rng, MIN_HETEROZYGOUS - 1, 5)
    found = all_pairs(panel(dosage), threshold=None)
    assert np.isnan(found["kinship"]).all()
    assert (degree_of(found["kinship"]) == -1).all()
    assert all_pairs(panel(dosage))["kinship"].size == 0
    assert all_pairs(panel(np.zeros((10, 3))), threshold=None)["kinship"].size == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.floats(0, 1), st.integers(0, 10_000))
def test_the_unrelated_set_is_the_largest(n, density, seed):
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n) if rng.random() < density]
    weight = rng.integers(0, 3, n)
    first = np.array([a for a, _ in pairs], dtype=np.int64)
    second = np.array([b for _, b in pairs], dtype=np.int64)
    stays = unrelated_people(n, first, second, weight)
    np.testing.assert_array_equal(stays, naive_unrelated(n, pairs, weight.tolist()))
    again = unrelated_people(n, second[::-1].copy(), first[::-1].copy(), weight)
    np.testing.assert_array_equal(again, stays)


def greedy(n, pairs):
    left, stays = list(pairs), np.ones(n, dtype=bool)
    while left:
        degree = np.bincount(np.array(left).ravel(), minlength=n)
        worst = int(np.flatnonzero(degree == degree.max())[-1])
        stays[worst] = False
        left = [p for p in left if worst not in p]
    return stays


def test_large_components_keep_no_fewer_than_greedy_removal():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        pairs = [tuple(sorted(p)) for p in rng.integers(0, 120, (170, 2)).tolist() if p[0] != p[1]]
        first, second = np.array(pairs).T
        stays = unrelated_people(120, first, second)
        assert not (stays[first] & stays[second]).any()
        assert stays.sum() >= greedy(120, pairs).sum()


def test_nobody_leaves_without_relatives():
    none = np.empty(0, dtype=np.int64)
    assert unrelated_people(5, none, none).all()
    assert unrelated_people(0, none, none).size == 0
