"""Finer atlases by splitting: nested, each split the best two components of its voxels; then soft, inside parents."""

import numpy as np
import pytest

from brainlocus.images.atlas import (
    NESTED_EXPONENT,
    BatchOptions,
    MuOptions,
    adjusted_rand,
    checked_norms,
    fit_batches,
    fit_em,
    fit_mu,
    hard_active,
    hard_atlas,
    own_weights,
    parents_of,
    refine_soft,
    soften_inside,
    split_atlas,
)
from tests.reference.naive_atlas import naive_components, naive_loss
from tests.reference.naive_opnmf import naive_nested_update
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


# Soft weights inside the parents


def tree(levels=3, n_voxels=1200, n_samples=40, seed=0):
    """Two parts, each cut in two and again in two; the lower the cut, the smaller the difference."""
    rng = np.random.default_rng(seed)
    people = 1 + 0.3 * rng.standard_normal((2, n_samples))
    for level in range(1, levels):
        people = np.repeat(people, 2, axis=0)
        people += 0.15 / level * rng.standard_normal(people.shape)
    labels = np.sort(rng.integers(0, len(people), n_voxels))
    noise = 1 + 0.05 * rng.standard_normal((n_voxels, n_samples))
    return np.maximum(rng.uniform(0.4, 1, n_voxels)[:, None] * people[labels] * noise, 0).astype(np.float32), labels


def split_of(x, coarse, n_components, seed=1):
    """Split what any solver left, as the pipeline does."""
    hard = hard_atlas(
        x, coarse.labels, own_weights(coarse.labels, coarse.weights), n_components=coarse.n_components,
        total=coarse.total,
    )  # fmt: skip
    return split_atlas(x, hard, n_components, generator=np.random.default_rng(seed))


def by_updates(x, split, start, exponent=NESTED_EXPONENT, **options):
    options = MuOptions(exponent=exponent, **{"max_iterations": 500, **options})
    return fit_mu(x, split.fit.n_components, generator=np.random.default_rng(0), options=options, start=start)


def by_active_sets(x, split, _start):
    """Their entries come back inside the family alone."""
    sparse = hard_active(split.fit, 3, np.float32, families=split.parents)
    return by_updates(x, split, sparse, active=3)


def by_compressed(x, split, start):
    return by_updates(x, split, start, compress=True)


def by_batches(x, split, start):
    return fit_batches(
        np.ascontiguousarray(x.T), checked_norms(x), start, options=BatchOptions(10, max_epochs=30),
        generator=np.random.default_rng(0), voxel_major=x,
    )  # fmt: skip


def by_refinement(x, split, _start):
    return refine_soft(x, split.fit, refinement="mu", parents=split.parents).fit


def by_quasi_newton(x, split, _start):
    return refine_soft(x, split.fit, refinement="quasi-newton", parents=split.parents).fit


SOLVERS = [by_updates, by_active_sets, by_compressed, by_batches, by_refinement, by_quasi_newton]


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_finds_the_planted_tree_and_stays_inside_the_parents(solver):
    x, labels = tree(n_voxels=600)
    x64 = x.astype(np.float64)
    coarse = fit_mu(x, 2, generator=np.random.default_rng(0), options=MuOptions(max_iterations=300))
    assert adjusted_rand(labels // 4, coarse.labels) == 1.0
    for r in (4, 8):
        split = split_of(x, coarse, r)
        start = soften_inside(split, coarse.labels, np.float32)
        given = start.copy()
        fine = solver(x, split, start)
        np.testing.assert_array_equal(start, given)
        assert adjusted_rand(labels // (8 // r), fine.labels) == 1.0
        parents = parents_of(fine.labels, coarse.labels, r)
        for k in range(r):
            assert set(coarse.labels[fine.weights[:, k] > 0]) == {parents[k]}
        # Batches end at a level that goes up and down by 1e-3 of the loss, all others in a minimum below the split's.
        slack = 1e-3 if solver is by_batches else 0.0
        assert naive_loss(x64, fine.weights * fine.norms) <= (1 + slack) * split.fit.losses[-1]
        coarse = fine


@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_nested_iterations_are_those_of_the_formulas(exponent):
    x, _ = tree(n_voxels=300)
    x = x.astype(np.float64)
    coarse = fit_em(x.astype(np.float32), 2, generator=np.random.default_rng(0))
    split = split_atlas(x.astype(np.float32), coarse, 5, generator=np.random.default_rng(1))
    start = soften_inside(split, coarse.labels, np.float64)
    expected = start / np.linalg.norm(start, 2)
    for _ in range(3):
        expected = naive_nested_update(x, expected, coarse.labels, split.parents, exponent)
    found = by_updates(x, split, start, exponent, max_iterations=3)
    order = np.argsort(-np.linalg.norm((expected / np.linalg.norm(expected, axis=0)).T @ x, axis=1))
    np.testing.assert_allclose(found.weights * found.norms, expected[:, order], rtol=1e-10, atol=1e-15)


def test_the_scales_of_parents_settle_with_the_exponent_of_nested_updates():
    """Columns of different parents share no voxel: with exponent 1 their scales go up and down for ever."""
    x, _ = tree(n_voxels=300)
    coarse = fit_em(x, 2, generator=np.random.default_rng(0))
    split = split_atlas(x, coarse, 4, generator=np.random.default_rng(1))
    start = soften_inside(split, coarse.labels, np.float32)
    start[coarse.labels == 2] *= 1.1
    plain = by_updates(x, split, start, 1.0, max_iterations=300)
    assert (plain.changes > 0.05).all()
    damped = by_updates(x, split, start, max_iterations=300)
    assert damped.changes[-1] < 1e-3
    assert damped.losses[-1] < plain.losses[-1]


def test_the_softened_split_is_filled_inside_the_parent_alone():
    x, _ = tree(n_voxels=300)
    coarse = fit_em(x, 2, generator=np.random.default_rng(0))
    split = split_atlas(x, coarse, 4, generator=np.random.default_rng(1))
    hard, soft = split.fit.components().astype(np.float64), soften_inside(split, coarse.labels, np.float64)
    for j in range(300):
        for k in range(4):
            filled = max(hard[j, k], 1e-3 * hard[:, k].max())
            assert soft[j, k] == (filled if split.parents[k] == coarse.labels[j] else 0.0)


def test_hard_atlas_of_soft_weights_is_that_of_its_formulas():
    x, _ = tree(n_voxels=300)
    x[7] = 0
    soft = fit_mu(x, 3, generator=np.random.default_rng(0))
    assert soft.labels[7] == 0
    hard = hard_atlas(x, soft.labels, own_weights(soft.labels, soft.weights), n_components=3, total=soft.total)
    w = np.zeros((300, 3))
    for j in range(300):
        if soft.labels[j] > 0:
            w[j, soft.labels[j] - 1] = soft.weights[j, soft.labels[j] - 1]
    w /= np.linalg.norm(w, axis=0)
    np.testing.assert_allclose(hard.components(), w, rtol=1e-6)
    np.testing.assert_allclose(hard.loadings, w.T @ x, rtol=1e-6)
    assert hard.losses[-1] == pytest.approx(naive_loss(x.astype(np.float64), w), rel=1e-6)
    assert hard.vanished == ()


@pytest.mark.parametrize("solver", SOLVERS)
def test_single_voxels_vanished_components_and_empty_voxels(solver):
    """A parent of one voxel stays one component; where nothing can be split, components vanish and stay 0."""
    rng = np.random.default_rng(0)
    people = rng.uniform(1, 2, (2, 10))
    x = np.concatenate([np.zeros((1, 10)), people[:1] * 3, np.repeat(people[1:], 20, axis=0)]).astype(np.float32)
    labels = np.array([0, 1, *[2] * 20])
    coarse = hard_atlas(
        x,
        labels,
        np.linalg.norm(x, axis=1).astype(np.float64),
        n_components=3,
        total=float((x.astype(np.float64) ** 2).sum()),
    )
    assert coarse.vanished == (3,)
    split = split_atlas(x, coarse, 5, generator=rng)
    assert split.fit.vanished == (3, 4, 5)
    fine = solver(x, split, soften_inside(split, coarse.labels, np.float32))
    assert fine.vanished == (3, 4, 5)
    assert np.isfinite(fine.weights).all()
    assert (fine.weights[:, 2:] == 0).all()
    assert parents_of(fine.labels, coarse.labels, 5).tolist()[2:] == [0, 0, 0]
    np.testing.assert_array_equal(fine.labels > 0, labels > 0)
    assert len({*zip(fine.labels.tolist(), labels.tolist(), strict=True)}) == 3


def test_quasi_newton_inside_parents_ends_in_a_minimum_of_the_free_weights():
    x, _ = tree(n_voxels=40, n_samples=15, seed=3)
    x64 = x.astype(np.float64)
    x64 /= np.sqrt((x64**2).sum())
    coarse = fit_em(x64.astype(np.float32), 2, generator=np.random.default_rng(0))
    split = split_atlas(x64.astype(np.float32), coarse, 4, generator=np.random.default_rng(1))
    found = refine_soft(x64, split.fit, refinement="quasi-newton", parents=split.parents)
    assert found.kept == "refined"
    w = found.fit.weights * found.fit.norms
    parents = parents_of(found.fit.labels, coarse.labels, 4)
    free = 0
    for j in range(40):
        for k in range(4):
            if parents[k] != coarse.labels[j]:
                assert w[j, k] == 0
                continue
            step = np.zeros_like(w)
            step[j, k] = 1e-6
            slope = (naive_loss(x64, w + step) - naive_loss(x64, w - step)) / 2e-6
            assert slope > -1e-4
            assert w[j, k] < 1e-4 or slope < 1e-4
            free += 1
    assert free == 80
