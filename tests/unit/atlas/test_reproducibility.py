"""Two fits compared: matching by brute force, labels by scikit-learn, vanished components, chance."""

import itertools

import numpy as np
import pytest

from brainlocus.images.atlas import compare_fits, fit_em, match_components, unit_components
from brainlocus.images.atlas import reproducibility as module


def hard(labels, r, seed=0):
    """A weight for each voxel in its own column."""
    weights = np.zeros((labels.size, r))
    rows = np.flatnonzero(labels > 0)
    weights[rows, labels[rows] - 1] = np.random.default_rng(seed).uniform(0.2, 1, rows.size)
    return weights


def pair(n=300, r=5, share=0.7, seed=0):
    """Labels, and others that agree in a share of the voxels, under other numbers."""
    rng = np.random.default_rng(seed)
    a = rng.integers(1, r + 1, n)
    b = np.where(rng.random(n) < share, rng.permutation(r)[a - 1] + 1, rng.integers(1, r + 1, n))
    return a, b


def compared(a, b, r, *, permutations=3, **options):
    w = unit_components(hard(a, r, 1)), unit_components(hard(b, r, 2))
    return compare_fits(*w, (a, b), generator=np.random.default_rng(0), permutations=permutations, **options)


@pytest.mark.parametrize("seed", range(4))
def test_matching_against_every_assignment(seed):
    rng = np.random.default_rng(seed)
    k = rng.uniform(size=(5, 4))
    first, second, product = match_components(k, np.ones(5, dtype=bool), np.ones(4, dtype=bool))
    best = max(sum(k[rows[j], j] for j in range(4)) for rows in itertools.permutations(range(5), 4))
    assert product.sum() == pytest.approx(best)
    assert sorted(first.tolist()) == [1, 2, 3, 4, 5]
    assert sorted(second.tolist()) == [0, 1, 2, 3, 4]
    for a, b, p in zip(first, second, product, strict=True):
        assert p == (k[a - 1, b - 1] if b else 0.0)


def test_vanished_components_take_no_part_and_count_as_zero():
    a, b = pair()
    b[b == 3] = 0
    found = compared(a, b, 5)
    assert found.product.size == 5
    assert 3 not in found.second
    alone = found.second == 0
    assert alone.sum() == 1
    assert found.product[alone].tolist() == found.dice[alone].tolist() == [0.0]
    both = compared(np.where(a == 2, 0, a), b, 5)  # one has vanished in each: four pairs
    assert both.product.size == 4
    assert (both.first > 0).all()
    assert (both.second > 0).all()


def test_soft_component_that_wins_no_voxel_has_vanished():
    a, b = pair()
    b[b == 3] = 0
    soft = hard(b, 5, 2)
    soft[:, 2] = 0.01  # small weights everywhere
    found = compare_fits(
        unit_components(hard(a, 5, 1)), unit_components(soft), (a, b), generator=np.random.default_rng(0)
    )
    assert 3 not in found.second
    assert (found.second == 0).sum() == 1


def test_numbers_by_loops_and_by_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    a, b = pair(seed=1)
    found = compared(a, b, 5)
    w1, w2 = hard(a, 5, 1), hard(b, 5, 2)
    for x, y, product, dice in zip(found.first, found.second, found.product, found.dice, strict=True):
        u, v = w1[:, x - 1], w2[:, y - 1]
        assert product == pytest.approx(u @ v / np.sqrt((u @ u) * (v @ v)), rel=1e-12)
        p, q = a == x, b == y
        assert dice == pytest.approx(2 * (p & q).sum() / (p.sum() + q.sum()))
    assert found.index == pytest.approx(found.product.mean())
    assert found.adjusted_rand == pytest.approx(metrics.adjusted_rand_score(a, b))
    assert found.adjusted_mutual_information == pytest.approx(metrics.adjusted_mutual_info_score(a, b))


def test_cost_is_the_squared_distance_of_columns():
    a, b = pair(seed=2)
    w = [unit_components(hard(x, 5, k)).toarray() for k, x in ((1, a), (2, b))]
    distance = ((w[0][:, :, None] - w[1][:, None, :]) ** 2).sum(axis=0)
    np.testing.assert_allclose(distance, 2 * (1 - w[0].T @ w[1]), atol=1e-12)


def test_same_fit_under_other_numbers():
    a, _ = pair(seed=3)
    order = np.array([3, 1, 5, 2, 4])
    w = hard(a, 5)
    other = np.zeros_like(w)
    other[:, order - 1] = 7.0 * w  # columns of another length, too
    found = compare_fits(unit_components(w), unit_components(other), (a, order[a - 1]),
                         generator=np.random.default_rng(0))  # fmt: skip
    assert found.second.tolist() == order[found.first - 1].tolist()
    np.testing.assert_allclose(found.product, 1.0, rtol=1e-12)
    assert found.dice.tolist() == [1.0] * 5
    assert found.adjusted_rand == pytest.approx(1.0)
    assert found.adjusted_mutual_information == pytest.approx(1.0)


def test_chance_is_that_of_unrelated_fits():
    """The null has the index of two fits that share nothing, and not that of related ones."""
    a, b = pair(n=4000, share=0.0, seed=4)
    found = compared(a, b, 5, permutations=20)
    assert found.null.mean() == pytest.approx(found.index, abs=4 * found.null.std() + 0.005)
    related = compared(*pair(n=4000, share=0.8, seed=4), 5, permutations=20)
    assert related.index > related.null.max() + 0.3


def test_soft_weights_and_blocks(monkeypatch):
    rng = np.random.default_rng(5)
    dense = rng.uniform(size=(200, 6)) ** 6
    dense[dense < 1e-3] = 1e-16  # where multiplicative updates leave what they would make zero
    whole = unit_components(dense).toarray()
    expected = np.where(dense > 1e-8, dense, 0.0)
    np.testing.assert_allclose(whole, expected / np.linalg.norm(expected, axis=0), rtol=1e-12)
    monkeypatch.setattr(module, "BLOCK_BYTES", 700)
    np.testing.assert_allclose(unit_components(dense).toarray(), whole, rtol=1e-12)
    rows = np.arange(0, 200, 3)
    part = unit_components(dense, voxels=rows).toarray()
    np.testing.assert_allclose(np.linalg.norm(part, axis=0), 1.0, rtol=1e-12)


def test_halves_of_a_planted_cohort_agree():
    rng = np.random.default_rng(6)
    labels = np.sort(rng.integers(0, 6, 900))
    people = 1 + 0.3 * rng.standard_normal((6, 80))
    x = rng.uniform(0.3, 1, 900)[:, None] * people[labels] * (1 + 0.05 * rng.standard_normal((900, 80)))
    x = np.maximum(x, 0).astype(np.float32)
    fits = [fit_em(x[:, half], 6, generator=np.random.default_rng(7)) for half in (slice(0, 40), slice(40, 80))]
    found = compare_fits(
        *(unit_components(f.components()) for f in fits), (fits[0].labels, fits[1].labels),
        generator=np.random.default_rng(0),
    )  # fmt: skip
    assert found.index > 0.99
    assert found.adjusted_rand > 0.99
    assert found.null.max() < 0.5


def test_wrong_fits():
    a, b = pair()
    w = unit_components(hard(a, 5)), unit_components(hard(b, 5)[:200])
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="same voxels; found 300 and 200"):
        compare_fits(*w, (a, b), generator=rng)
    nothing = unit_components(np.zeros((300, 5)))
    with pytest.raises(ValueError, match="no component with a voxel"):
        compare_fits(w[0], nothing, (a, 0 * a), generator=rng)
