"""Finer atlases by splitting: nested, and each split the best two components of its voxels."""

import numpy as np
import pytest

from brainlocus.images.atlas import adjusted_rand, fit_em, split_atlas
from tests.reference.naive_atlas import naive_components, naive_loss
from tests.unit.atlas.test_em import planted


def halves(seed=0):
    """Two parts with two halves each, which differ less than the parts."""
    rng = np.random.default_rng(seed)
    people = 1 + 0.3 * rng.standard_normal((2, 40))
    fine = np.repeat(people, 2, axis=0) + 0.1 * rng.standard_normal((4, 40))
    labels = np.sort(rng.integers(0, 4, 800))
    x = rng.uniform(0.4, 1, 800)[:, None] * fine[labels] * (1 + 0.02 * rng.standard_normal((800, 40)))
    return np.maximum(x, 0).astype(np.float32), labels


@pytest.mark.parametrize("n_components", [3, 4, 5, 8, 11])
def test_parts_are_nested_and_the_loss_is_theirs(n_components):
    x, labels = halves()
    coarse = fit_em(x, 2, generator=np.random.default_rng(0))
    fine = split_atlas(x, coarse, n_components, generator=np.random.default_rng(1))
    assert fine.fit.n_components == n_components
    for k in range(1, n_components + 1):
        inside = fine.fit.labels == k
        assert inside.any()
        assert set(coarse.labels[inside]) == {fine.parents[k - 1]}
    w = fine.fit.components().astype(np.float64)
    np.testing.assert_allclose(w.T @ w, np.eye(n_components), atol=1e-6)
    assert fine.fit.losses[-1] == pytest.approx(naive_loss(x.astype(np.float64), w), rel=1e-5)
    best = naive_loss(x.astype(np.float64), naive_components(x.astype(np.float64), fine.fit.labels - 1, n_components))
    assert fine.fit.losses[-1] == pytest.approx(best, rel=1e-5)
    assert fine.fit.losses[-1] < fine.fit.losses[0] == coarse.losses[-1]
    assert (np.diff((fine.fit.loadings**2).sum(axis=1)) <= 0).all()
    if n_components == 4:
        assert adjusted_rand(labels, fine.fit.labels) == 1.0


def test_three_of_two_splits_the_one_that_gains_more():
    x, _ = halves()
    coarse = fit_em(x, 2, generator=np.random.default_rng(0))
    three = split_atlas(x, coarse, 3, generator=np.random.default_rng(1))
    gains = []
    for k in (1, 2):
        rows = x[coarse.labels == k]
        one, two = (fit_em(rows, r, generator=np.random.default_rng(2)).losses[-1] for r in (1, 2))
        gains.append(one - two)
    assert np.bincount(three.parents)[1:].tolist() == ([2, 1] if gains[0] > gains[1] else [1, 2])


def test_what_cannot_be_split_leaves_components_without_a_voxel():
    x = np.repeat(np.random.default_rng(0).uniform(1, 2, (2, 10)), 20, axis=0).astype(np.float32)
    x[0] = 0
    coarse = fit_em(x, 2, generator=np.random.default_rng(0))
    fine = split_atlas(x, coarse, 4, generator=np.random.default_rng(1))
    assert fine.fit.vanished == (3, 4)
    assert fine.parents.tolist()[2:] == [0, 0]
    assert fine.fit.labels[0] == 0
    assert fine.fit.n_empty_voxels == 1
    np.testing.assert_array_equal(fine.fit.labels > 0, coarse.labels > 0)


def test_same_seed_same_split_and_fewer_are_refused():
    x, _ = planted(n_voxels=500)
    coarse = fit_em(x, 4, generator=np.random.default_rng(0))
    one, two = (split_atlas(x, coarse, 8, generator=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.fit.labels, two.fit.labels)
    with pytest.raises(ValueError, match="above the 4 of the coarser atlas, got 4"):
        split_atlas(x, coarse, 4, generator=np.random.default_rng(0))
